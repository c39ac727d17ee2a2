"""`eqplugin bench forces` as a user runs it: calculators by name, every kind of label."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from typer.testing import CliRunner

from eqplugin.cli import app
from eqplugin.errors import EqPluginError
from eqplugin.measure.labels import read_labelled
from eqplugin.measure.models import is_model, labels_of, open_model

EMT_NAME = "ase.calculators.emt:EMT"
CUAU = Path(__file__).resolve().parents[2] / "examples/data/cuau_emt"


def bench(*arguments):
    result = CliRunner().invoke(app, ["bench", "forces", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def copper(seed=0, **labels):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    calculator = EMT()
    atoms.calc = calculator
    true = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = None
    return atoms, true


def plain(path, labels=("energy", "forces", "stress"), seeds=(0, 1), **info):
    frames = []
    for seed in seeds:
        atoms, true = copper(seed)
        atoms.info.update(info)
        atoms.calc = SinglePointCalculator(atoms, **{name: true[name] for name in labels})
        frames.append(atoms)
    write(path, frames)
    return path


def test_the_reference_method_has_no_error(tmp_path):
    result = bench(EMT_NAME, CUAU / "test_600K.xyz", "--out", tmp_path / "out", "--by", "element")
    assert result.exit_code == 0, result.stderr
    assert "by element" in result.stdout
    stored = json.loads((tmp_path / "out/errors.json").read_text())
    errors = stored["errors"]["EMT"]["test_600K"]
    assert errors["frames"] == len(read(CUAU / "test_600K.xyz", ":"))
    # labels are written with 8 decimals
    assert max(errors["force_max"], errors["energy_rmse"], errors["stress_rmse"]) < 1e-3
    assert errors["force_cosine"] == pytest.approx(1)
    assert set(stored["by_element"]["EMT"]["test_600K"]) == {"Cu", "Au"}
    for label in ("forces", "energy", "stress"):
        for plot in ("parity", "distribution"):
            name = f"{plot}_{label}.png"
            assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
            assert name in result.stdout.replace("\n", "")
    rows = list(csv.DictReader((tmp_path / "out/errors.csv").open()))
    assert float(rows[0]["force_mae"]) == errors["force_mae"]
    table = (tmp_path / "out/errors.md").read_text().splitlines()
    assert len({len(line) for line in table}) == 1  # aligned
    assert table[2].startswith("| EMT")


def test_what_is_not_labelled_or_not_predicted_has_no_plot(tmp_path):
    energies = plain(tmp_path / "energies.xyz", labels=("energy",))
    result = bench(EMT_NAME, energies, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    plots = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert plots == {"parity_energy.png", "distribution_energy.png"}
    assert "forces" not in result.stdout.rpartition("written to")[2].replace(str(tmp_path), "")


@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_fixed_atoms_have_errors_like_others(tmp_path, suffix):
    frames = read(CUAU / "test_600K.xyz", ":3")
    write(tmp_path / f"free.{suffix}", frames)
    for atoms in frames:
        atoms.set_constraint(FixAtoms([0, 1, 2]))
    write(tmp_path / f"fixed.{suffix}", frames)
    files = [tmp_path / f"{name}.{suffix}" for name in ("free", "fixed")]
    result = bench("ase.calculators.lj:LennardJones", *files, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    errors = json.loads((tmp_path / "out/errors.json").read_text())["errors"]["LennardJones"]
    free, fixed = errors.values()
    assert fixed == free
    assert free["force_max"] > 0


def test_ref_keys_and_own_keys(tmp_path):
    atoms, true = copper()
    atoms.info["REF_energy"] = true["energy"]
    atoms.arrays["REF_forces"] = true["forces"]
    write(tmp_path / "ref.xyz", atoms)
    (frame,) = read_labelled(tmp_path / "ref.xyz")
    assert frame.energy == pytest.approx(true["energy"])
    np.testing.assert_allclose(frame.forces, true["forces"], atol=1e-7)
    assert frame.stress is None

    atoms.arrays["dft_forces"] = 2 * true["forces"]
    write(tmp_path / "own.xyz", atoms)
    (frame,) = read_labelled(tmp_path / "own.xyz", {"dft_forces": "forces"})
    np.testing.assert_allclose(frame.forces, 2 * true["forces"], atol=1e-7)


def test_a_key_of_the_users_beats_the_plain_one(tmp_path):
    path = plain(tmp_path / "a.xyz", seeds=(0,))
    atoms = read(path)
    atoms.arrays["dft_forces"] = 2 * atoms.get_forces()
    write(path, atoms)
    (frame,) = read_labelled(path, {"dft_forces": "forces"})
    np.testing.assert_allclose(frame.forces, atoms.arrays["dft_forces"])
    assert frame.energy is not None


def test_keys_that_disagree_are_not_chosen_between(tmp_path):
    path = plain(tmp_path / "a.xyz", seeds=(0,))
    atoms = read(path)
    atoms.info["REF_energy"] = atoms.get_potential_energy() + 1
    write(path, atoms)
    with pytest.raises(EqPluginError, match="disagree about the energy"):
        read_labelled(path)
    (frame,) = read_labelled(path, {"REF_energy": "energy"})
    assert frame.energy == pytest.approx(atoms.get_potential_energy() + 1)


def test_isolated_atoms_are_left_out_and_absent_labels_are_dashes(tmp_path):
    path = plain(tmp_path / "a.xyz", labels=("energy",))
    lone = molecule("O")
    lone.info["config_type"] = "IsolatedAtom"
    lone.calc = SinglePointCalculator(lone, energy=-1.0)
    write(path, lone, append=True)
    assert len(read_labelled(path)) == 2
    full = plain(tmp_path / "b.xyz", seeds=(2,))
    result = bench(EMT_NAME, path, full)
    assert result.exit_code == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if " a " in line)
    assert row.split()[:4] == ["EMT", "a", "2", "-"]


class WithoutStress(EMT):
    """A model of somebody else's that offers energies and forces alone."""

    implemented_properties = ("energy", "free_energy", "forces")

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results.pop("stress", None)


def test_a_model_without_stress_has_a_dash_in_a_table_with_others(tmp_path):
    path = plain(tmp_path / "a.xyz")
    result = bench(EMT_NAME, f"{__name__}:WithoutStress", path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    errors = json.loads((tmp_path / "out/errors.json").read_text())["errors"]
    assert errors["EMT"]["a"]["stress_mae"] is not None
    assert errors["WithoutStress"]["a"]["stress_mae"] is None
    assert errors["WithoutStress"]["a"]["force_mae"] == errors["EMT"]["a"]["force_mae"]


def test_config_types(tmp_path):
    path = plain(tmp_path / "a.xyz", config_type="bulk")
    result = bench(EMT_NAME, path, "--by", "config_type")
    assert "bulk" in result.stdout


def test_shared_frames_are_reported(tmp_path):
    train = plain(tmp_path / "train.xyz", seeds=(0, 1))
    test = plain(tmp_path / "test.xyz", seeds=(1, 2))
    result = bench(EMT_NAME, test, "--train", train)
    assert result.exit_code == 0
    assert "share 1 frame " in " ".join(result.stderr.split())
    assert result.stderr.startswith("eqplugin: warning: ")
    result = bench(EMT_NAME, plain(tmp_path / "other.xyz", seeds=(3,)), "--train", train)
    assert "share" not in result.stderr


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        ([EMT_NAME], "No file of labelled frames"),
        (["a.xyz"], "No model"),
        ([EMT_NAME, "missing.xyz"], "missing.xyz"),
        ([EMT_NAME, "unlabelled.xyz"], "unlabelled.xyz: no frame has a label"),
        ([EMT_NAME, "nan.xyz"], "nan.xyz, frame 1"),
        ([EMT_NAME, "a.xyz", "silicon.xyz"], "EMT on silicon, frame 0"),
        ([EMT_NAME, "a.xyz", "--by", "colour"], "--by colour"),
        (["ase.calculators.emt:Nothing", "a.xyz"], "ase.calculators.emt:Nothing"),
        (["no_such_module:EMT", "a.xyz"], "no_such_module"),
        (["builtins:dict", "a.xyz"], "does not return an ASE calculator"),
        ([EMT_NAME, "a.xyz", "--train", "typo.xyz"], "--train: typo.xyz"),
    ],
)
def test_mistakes_are_one_sentence(arguments, culprit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain("a.xyz")
    write("unlabelled.xyz", copper()[0])
    frames = read(plain("nan.xyz"), ":")
    frames[1].calc.results["forces"][0, 0] = np.nan
    write("nan.xyz", frames)
    silicon = bulk("Si")
    silicon.calc = SinglePointCalculator(silicon, energy=-10.0)
    write("silicon.xyz", silicon)
    result = bench(*arguments, "--out", "out")
    assert result.exit_code == 1
    assert culprit in " ".join(result.stderr.split())
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_labels_are_short_but_differ():
    assert labels_of(["demo/a/best.ckpt", "demo/b/best.ckpt"]) == ["a/best", "b/best"]
    assert labels_of(["x/water.model", EMT_NAME]) == ["water", "EMT"]
    assert labels_of(["model.nequip.zip"]) == ["model"]


def test_what_a_model_is():
    assert is_model("best.ckpt")
    assert is_model("a.nequip.pt2")
    assert is_model(EMT_NAME)
    assert not is_model("test.xyz")
    assert not is_model("C:/data/test.xyz")
    assert isinstance(open_model(EMT_NAME), EMT)


def test_ml_peg_passes_device_and_dtype(monkeypatch):
    import eqplugin.measure.models as models

    asked = []
    monkeypatch.setattr(models, "open_model", lambda *arguments: asked.append(arguments))
    models.ml_peg_calculator(model="best.ckpt", device="cuda", default_dtype="float32")
    assert asked == [("best.ckpt", "cuda", "float32")]
