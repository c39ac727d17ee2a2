"""Structures broken in every way: a right number or one sentence, never anything else."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from calculators_under_test import (
    R_MAX,
    TYPES,
    assert_same,
    by_hand,
    evaluate,
    random_structure,
    shared,
    stock,
)
from nequip.data import AtomicDataDict

from eqplugin import EqCalculator
from eqplugin.calculator.graph import Graph, PairList
from eqplugin.calculator.results import as_results
from eqplugin.errors import EqPluginError

NOT_NUMBERS = (np.nan, np.inf, -np.inf, 1e300, 1e12, 1e7)


def _position(atoms, rng):
    atoms.positions[rng.integers(len(atoms)), rng.integers(3)] = rng.choice(NOT_NUMBERS)


def _far(atoms, rng):
    atoms.positions[rng.integers(len(atoms))] += rng.normal(size=3) * 10 ** rng.uniform(1, 5)


def _cell_entry(atoms, rng):
    cell = atoms.cell.array.copy()
    cell[rng.integers(3), rng.integers(3)] = rng.choice((*NOT_NUMBERS, 0.0, 1e-9, -5.0))
    atoms.set_cell(cell)


def _zero_vector(atoms, rng):
    cell = atoms.cell.array.copy()
    cell[rng.integers(3)] = 0.0
    atoms.set_cell(cell)


def _flat_cell(atoms, rng):
    cell = atoms.cell.array.copy()
    cell[2] = rng.normal() * cell[0] + rng.normal() * cell[1] + rng.choice((0.0, 1e-12, 1e-5))
    atoms.set_cell(cell)


def _small_cell(atoms, rng):
    # dense enough to be refused, or not too dense to be evaluated often
    atoms.set_cell(atoms.cell.array * rng.choice((1e-8, 1e-4, 1e-2, 0.4, 0.6)))


def _big_cell(atoms, rng):
    atoms.set_cell(atoms.cell.array * 10 ** rng.uniform(1, 9))


def _no_cell(atoms, rng):
    atoms.set_cell(None)


def _coincident(atoms, rng):
    first, second = rng.integers(len(atoms), size=2)
    atoms.positions[first] = atoms.positions[second] + 10 ** rng.uniform(-12, -2)


def _image(atoms, rng):
    first, second = rng.integers(len(atoms), size=2)
    atoms.positions[first] = atoms.positions[second] + rng.integers(-2, 3, 3) @ atoms.cell.array


def _species(atoms, rng):
    atoms.numbers[rng.integers(len(atoms))] = rng.choice((-1, 0, 2, 79, 118, 119, 10**6))


def _collapsed(atoms, rng):
    atoms.positions *= 10 ** rng.uniform(-6, -0.5)


def _empty(atoms, rng):
    del atoms[:]


BREAKS = [_position, _far, _cell_entry, _zero_vector, _flat_cell, _small_cell, _big_cell, _no_cell,
          _coincident, _image, _species, _collapsed, _empty]  # fmt: skip


def broken(seed):
    """Return a random structure with one or two faults, some of which are none."""
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng, atoms=int(rng.integers(1, 7)), size=rng.uniform(3, 9))
    for fault in rng.choice(len(BREAKS), size=rng.integers(1, 3)):
        if len(atoms):
            with np.errstate(all="ignore"):
                BREAKS[fault](atoms, rng)
    return atoms


def by_definition(atoms):
    """The model on all edges found by trying all images: libraries' searches have limits too."""
    found = np.array(by_hand(atoms, R_MAX), dtype=np.int64).reshape(-1, 5)
    index = np.concatenate((found[:, :2], found[:, 1::-1])).T
    out = shared()(
        {
            AtomicDataDict.POSITIONS_KEY: torch.tensor(atoms.positions),
            AtomicDataDict.EDGE_INDEX_KEY: torch.tensor(index),
            AtomicDataDict.ATOM_TYPE_KEY: torch.tensor([TYPES.index(s) for s in atoms.symbols]),
            AtomicDataDict.CELL_KEY: torch.tensor(atoms.cell.array).unsqueeze(0),
            AtomicDataDict.EDGE_CELL_SHIFT_KEY: torch.tensor(
                np.concatenate((found[:, 2:], -found[:, 2:])), dtype=torch.float64
            ),
        }
    )
    stress = out[AtomicDataDict.STRESS_KEY].detach().numpy()[0]
    return {
        "energy": out[AtomicDataDict.TOTAL_ENERGY_KEY].detach().numpy().item(),
        "energies": out[AtomicDataDict.PER_ATOM_ENERGY_KEY].detach().numpy()[:, 0],
        "forces": out[AtomicDataDict.FORCE_KEY].detach().numpy(),
        "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
    }


def mace_by_definition(calculator):
    """Return what evaluates a MACE model on all edges found by trying all images."""

    def expected(atoms):
        found = np.array(by_hand(atoms, calculator.r_max), dtype=np.int64).reshape(-1, 5)
        index, shifts = torch.tensor(found[:, :2].T.copy()), torch.tensor(found[:, 2:]).double()
        positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
        vectors = positions[index[1]] - positions[index[0]] + shifts @ cell
        volume = abs(float(np.linalg.det(atoms.cell.array)))
        pairs = PairList(index, shifts, cell, periodic=True)
        graph = Graph(atoms.numbers.copy(), positions, cell, volume, pairs, None, vectors)
        return as_results([calculator.backends[0].evaluate(graph, volume > 0)])

    return expected


def check(seed, calculator, definition):
    """Return whether the structure was refused; anything but a sentence or a right number fails."""
    atoms = broken(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an overflow is the start of a wrong number
        try:
            found = evaluate(atoms, calculator)
        except EqPluginError as error:
            message = str(error)
            assert len(message) > 20, seed
            assert "\n" not in message, seed
            assert calculator.results == {}, seed
            return True
    for key, value in found.items():
        assert np.isfinite(value).all(), (seed, key)
    expected = definition(atoms)
    expected = {key: value for key, value in expected.items() if key in found}
    # atoms a hundredth of an Angstrom apart have huge forces; assert_same is relative to them
    assert_same(found, expected, 1e-7)
    return False


def run(seeds, calculator, definition):
    refused = [check(seed, calculator, definition) for seed in seeds]
    share = np.mean(refused)
    assert 0.2 < share < 0.9  # both outcomes were tried
    # and the calculator still works, with the neighbour list of no earlier structure
    atoms = random_structure(np.random.default_rng(1), size=2 * R_MAX)
    expected = definition(atoms)
    assert_same(evaluate(atoms, calculator), {k: expected[k] for k in KEYS}, 1e-10)


KEYS = ("energy", "energies", "forces", "stress")


@pytest.fixture(scope="module")
def mace_calculator():
    pytest.importorskip("mace", reason="mace-torch is not installed")
    sys.path.append(str(Path(__file__).resolve().parents[1] / "mace"))
    from mace_under_test import steerable

    return EqCalculator(steerable("4x0e+2x1o", r_max=3.0, avg_num_neighbors=6.0))


def test_a_hundred_broken_structures():
    calculator = EqCalculator(shared())
    run(range(100), calculator, by_definition)
    atoms = random_structure(np.random.default_rng(1), size=2 * R_MAX)
    assert_same(evaluate(atoms, calculator), evaluate(atoms, stock(shared())), 1e-10)


def test_broken_structures_for_mace(mace_calculator):
    run(range(40), mace_calculator, mace_by_definition(mace_calculator))


@pytest.mark.slow
def test_a_thousand_broken_structures():
    run(range(100, 1100), EqCalculator(shared()), by_definition)


@pytest.mark.slow
def test_a_thousand_broken_structures_for_mace(mace_calculator):
    run(range(100, 1100), mace_calculator, mace_by_definition(mace_calculator))


def test_arrays_of_the_wrong_kind():
    atoms = Atoms("OC", [[0, 0, 0], [0, 0, 1.2]])
    atoms.calc = EqCalculator(shared())
    atoms.arrays["positions"] = atoms.positions.astype(np.float32)
    assert np.isfinite(atoms.get_forces()).all()
