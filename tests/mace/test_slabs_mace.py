"""Slabs and wires in MACE: the stress is over the structure's own volume, wherever it lies."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT
from ase.io import read, write
from mace import tools
from mace.cli import preprocess_data
from mace_training import arguments
from vesin import NeighborList

from eqplugin import EqCalculator
from eqplugin.errors import EqPluginError
from eqplugin.mace import _neighborhood
from eqplugin.mace.commands import run_command
from eqplugin.mace.train import train

pytestmark = pytest.mark.usefixtures("without_torchscript")
CUTOFF = 4.0


def slab(seed=0):
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    atoms.info, atoms.arrays = {}, {k: atoms.arrays[k] for k in ("numbers", "positions")}
    atoms.rattle(0.08, seed=seed)
    return atoms


def wire(seed=0):
    atoms = Atoms(
        "Cu3", [[0, 0, 0.1], [0, 1.9, 1.3], [1.7, 0.2, 2.5]], cell=[14, 15, 5], pbc=[0, 0, 1]
    )
    atoms.rattle(0.08, seed=seed)
    return atoms


def turned(atoms, angle, axis, shift=(0, 0, 0)):
    atoms = atoms.copy()
    atoms.rotate(angle, axis, rotate_cell=True)
    atoms.translate(shift)
    return atoms


def edges(atoms):
    cell = atoms.cell.array.copy()
    return _neighborhood.get_neighborhood(atoms.positions, CUTOFF, tuple(atoms.pbc), cell)


def vectors(positions, index, shifts):
    found = positions[index[1]] - positions[index[0]] + shifts
    return sorted(map(tuple, np.round(np.column_stack((index.T, found)), 6) + 0.0))


@pytest.mark.parametrize("make", [slab, wire])
@pytest.mark.parametrize("shift", [(0, 0, 0), (-30, 8, 40)])
@pytest.mark.parametrize("angle, axis", [(0, "x"), (90, "x"), (90, "y"), (40, "y"), (89, "z")])
def test_edges_and_volume_are_the_structures_own(make, angle, axis, shift):
    atoms = turned(make(), angle, axis, shift)
    index, shifts, unit_shifts, cell = edges(atoms)
    i, j, found = NeighborList(cutoff=CUTOFF, full_list=True).compute(
        points=atoms.positions, box=atoms.cell.array, periodic=atoms.pbc, quantities="ijS"
    )
    expected = vectors(atoms.positions, np.array([i, j]), found @ atoms.cell.array)
    assert vectors(atoms.positions, index, shifts) == expected
    assert np.allclose(shifts, unit_shifts @ cell)
    assert np.array_equal(cell, atoms.cell.array)


@pytest.mark.parametrize("angle", [0, 90])
def test_without_a_volume_the_box_is_mace_s_and_fits_the_edges(angle):
    atoms = turned(slab(), angle, "x")
    whole = edges(atoms)
    atoms.cell[2] = 0
    index, shifts, _, cell = edges(atoms)
    assert vectors(atoms.positions, index, shifts) == vectors(atoms.positions, *whole[:2])
    assert np.linalg.det(cell) > 1000


def test_far_from_the_origin_nothing_changes():
    near, far = edges(wire()), edges(turned(wire(), 0, "x", (40000, 0, -3000)))
    one, other = (
        sorted(map(tuple, np.column_stack((index.T, shifts)).astype(int)))
        for index, _, shifts, _ in (near, far)
    )
    assert one == other


@pytest.mark.parametrize("make", [slab, lambda: Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]])])
def test_edges_are_mace_s_to_the_last_bit_where_mace_is_right(make):
    atoms = make()
    ours = edges(atoms)
    stock = _neighborhood.STOCK(atoms.positions, CUTOFF, tuple(atoms.pbc), atoms.cell.array.copy())
    assert all(np.array_equal(one, other) for one, other in zip(ours[:3], stock[:3], strict=True))


def labelled(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    stress = atoms.get_stress(voigt=False)
    atoms.calc = None
    atoms.info |= {"REF_energy": energy, "REF_stress": stress}
    atoms.arrays["REF_forces"] = forces
    return atoms


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slabs")
    for name, many in (("train", 8), ("valid", 4), ("test", 4)):
        kinds = [
            slab(1),
            turned(slab(2), 90, "x", (3, -40, 9)),
            turned(slab(3), 90, "y"),
            turned(wire(4), 90, "x", (-5, 0, 70)),
        ]
        found = [labelled(kinds[k % 4]) for k in range(many)]
        for k, atoms in enumerate(found):
            atoms.rattle(0.01, seed=k)
        write(folder / f"{name}.xyz", found)
    return folder


STRESS = {
    "model": "SteerableMACE", "feature_dim": 16, "max_L": 1, "E0s": "{29: 3.51}", "r_max": CUTOFF,
    "energy_key": "REF_energy", "forces_key": "REF_forces", "loss": "stress",
    "stress_weight": 100.0, "max_num_epochs": 1, "error_table": "PerAtomRMSEstressvirials",
}  # fmt: skip


def rmse(model, path):
    """Of the stress, in meV/A^3, as EqCalculator has it."""
    errors = []
    for atoms in read(path, ":"):
        reference = np.reshape(atoms.info["REF_stress"], (3, 3))
        atoms.calc = EqCalculator(model)
        errors.append(atoms.get_stress(voigt=False) - reference)
    return 1e3 * float(np.sqrt(np.mean(np.square(errors))))


def logged(folder):
    """RMSE of the stress after the epoch, from the lines that MACE writes for its figures."""
    lines = next((folder / "results").glob("*_train.txt")).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return 1e3 * next(
        row["rmse_stress"] for row in rows if row.get("epoch") == 0 and row["mode"] == "eval"
    )


def test_a_training_on_the_stress_of_slabs_divides_by_their_own_volume(frames, tmp_path):
    train(arguments(frames, tmp_path, **STRESS, test_file=frames / "test.xyz"))
    model = tmp_path / "run.model"
    assert logged(tmp_path) == pytest.approx(rmse(model, frames / "valid.xyz"), rel=1e-6)
    log = next((tmp_path / "logs").glob("*[0-9].log")).read_text()
    tables = {
        line.split("|")[1].strip(): float(line.split("|")[5])
        for line in log.splitlines()
        if line.startswith("|") and "Default" in line
    }
    for name, key in (
        ("train", "train_Default"),
        ("valid", "valid_Default"),
        ("test", "Default_Default"),
    ):
        assert tables[key] == pytest.approx(rmse(model, frames / f"{name}.xyz"), abs=0.06)

    out = tmp_path / "evaluated.xyz"
    line = ["--configs", frames / "test.xyz", "--model", model, "--output", out, "--compute_stress"]
    run_command("mace_eval_configs", [str(part) for part in line])
    for atoms in read(out, ":"):
        expected = atoms.copy()
        expected.calc = EqCalculator(model)
        found = np.reshape(atoms.info["MACE_stress"], (3, 3))
        assert np.allclose(found, expected.get_stress(voigt=False), rtol=1e-6, atol=1e-9)


def test_prepared_data_give_the_same_stress(frames, tmp_path):
    options = {
        "train_file": frames / "train.xyz", "valid_file": frames / "valid.xyz", "r_max": CUTOFF,
        "h5_prefix": f"{tmp_path}/", "num_process": 1, "work_dir": tmp_path,
    }  # fmt: skip
    line = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    preprocess_data.run(tools.build_preprocess_arg_parser().parse_args(line))
    prepared = {"train_file": tmp_path / "train", "valid_file": tmp_path / "val"}
    train(arguments(frames, tmp_path / "run", **STRESS | prepared, atomic_numbers="[29]"))
    model = tmp_path / "run/run.model"
    assert logged(tmp_path / "run") == pytest.approx(rmse(model, frames / "valid.xyz"), rel=1e-6)


# ---- mace_eval_configs refuses in sentences


@pytest.fixture(scope="module")
def models(frames, tmp_path_factory):
    """Models of one head and of two, trained for an epoch."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eqplugin.mace.train.jit.compile", refuse)
        train(arguments(frames, folder / "one", **STRESS))
        files = {f"{role}_file": str(frames / f"{role}.xyz") for role in ("train", "valid")}
        heads = repr({"first": files, "second": files})
        several = {**STRESS, "heads": heads, "train_file": None, "valid_file": None}
        train(arguments(frames, folder / "two", **several))
    return {name: folder / name / "run.model" for name in ("one", "two")}


def refuse(*_args, **_kwargs):
    raise RuntimeError("left out in this test")


def evaluated(model, configs, out, *more):
    line = ["--configs", configs, "--model", model, "--output", out, *more]
    run_command("eval_configs", [str(part) for part in line])
    return read(out, ":")


@pytest.mark.parametrize(
    "model, change, more, words",
    [
        ("one", lambda a: a.symbols.__setitem__(0, "Au"), (), "frame 1: Au is not among the ele"),
        ("one", lambda a: a.positions.__setitem__(0, np.nan), (), "frame 1: atom 0 (Cu) has the"),
        ("one", lambda a: None, ("--return_contributions",), "no contributions by body order"),
        ("one", lambda a: None, ("--head", "third"), "has no head 'third': it has Default"),
        ("two", lambda a: None, (), "several heads: give --head first or second"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(frames, models, tmp_path, model, change, more, words):
    found = read(frames / "test.xyz", ":")
    change(found[1])
    write(tmp_path / "frames.xyz", found)
    with pytest.raises(EqPluginError) as caught:
        evaluated(models[model], tmp_path / "frames.xyz", tmp_path / "out.xyz", *more)
    assert words in str(caught.value)
    assert not (tmp_path / "out.xyz").exists()


def test_a_head_is_evaluated_as_eq_calculator_does(frames, models, tmp_path):
    found = evaluated(models["two"], frames / "test.xyz", tmp_path / "out.xyz", "--head", "second")
    for atoms in found:
        energy = atoms.info["MACE_energy"]
        atoms.calc = EqCalculator(models["two"], head="second")
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_other_failures_of_mace_s_commands_are_sentences(frames, models, tmp_path):
    more = ("--compute_bec",)
    with pytest.raises(EqPluginError, match="mace_eval_configs stopped with ValueError: BEC can"):
        evaluated(models["one"], frames / "test.xyz", tmp_path / "out.xyz", *more)
