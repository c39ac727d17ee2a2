"""Pairs found by the libraries: the same from each, in one order, and those that there are."""

import numpy as np
import pytest
import torch
from calculators_under_test import STRUCTURES, by_hand, structure
from hypothesis import given, settings
from hypothesis import strategies as st

from eqplugin.calculator.neighbors import SEARCHES, choose_search, find_pairs
from eqplugin.errors import EqPluginError

CPU = torch.device("cpu")


def pairs(atoms, cutoff, library):
    index, shifts = find_pairs(
        SEARCHES[library], atoms.positions, atoms.cell.array, atoms.pbc, cutoff, CPU
    )
    return torch.cat((index, shifts.T)).T.tolist()


@pytest.mark.parametrize("library", SEARCHES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_pairs_are_those_found_by_hand(name, library):
    atoms = structure(name)
    assert pairs(atoms, 4.5, library) == by_hand(atoms, 4.5)


@settings(max_examples=40, deadline=None)
@given(
    cell=st.lists(st.floats(-4, 4), min_size=9, max_size=9),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    positions=st.lists(st.tuples(*[st.floats(-9, 9)] * 3), min_size=1, max_size=5),
    cutoff=st.floats(1.0, 4.0),
)
def test_any_cell_any_periodicity(cell, pbc, positions, cutoff):
    cell, pbc, positions = np.reshape(cell, (3, 3)), np.array(pbc), np.array(positions)
    rows = cell[pbc]
    if pbc.any():
        lengths = np.linalg.norm(rows, axis=1)
        if lengths.min() < 0.8 or np.linalg.svd(rows / lengths[:, None])[1].min() < 0.4:
            return  # nearly flat cells have thousands of images; checks refuse the flat ones

    class Structure:
        pass

    atoms = Structure()
    atoms.positions, atoms.pbc = positions, pbc

    class Cell:
        array = cell

    atoms.cell = Cell
    expected = by_hand(atoms, cutoff)
    distances = []
    for i, j, *shift in by_hand(atoms, cutoff + 1e-6):
        distances.append(np.linalg.norm(positions[j] - positions[i] + np.array(shift) @ cell))
    if any(abs(d - cutoff) < 1e-6 or d < 1e-6 for d in distances):
        return  # on the edge libraries may decide either way; the calculator decides itself
    for library in ("vesin", "matscipy"):
        assert pairs(atoms, cutoff, library) == expected


def test_a_dense_structure_is_refused_before_memory_runs_out():
    positions, cell = np.zeros((1, 3)), 0.005 * np.eye(3)
    with pytest.raises(EqPluginError, match="too dense"):
        find_pairs(SEARCHES["vesin"], positions, cell, np.array([True] * 3), 5.0, CPU)


@pytest.mark.parametrize("library", ["vesin", "matscipy"])
@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 1), (0, 1, 0)])
def test_atoms_far_away_neither_slow_the_search_nor_disturb_it(library, pbc):
    atoms = structure("bulk")
    atoms.pbc = pbc
    atoms.positions[3] += (2e4, 5e4, 1e5)
    atoms.positions[5] += (-7e4, 50.0, 9.1)
    # without closing the gaps vesin takes minutes here, and matscipy runs out of memory
    assert pairs(atoms, 4.5, library) == by_hand(atoms, 4.5)


def test_choice_of_library():
    assert choose_search("auto", CPU) == "vesin"
    assert choose_search("auto", torch.device("cuda")) == "nvalchemi"
    assert choose_search("matscipy", CPU) == "matscipy"
    with pytest.raises(EqPluginError, match="neighbors='ase' is not known"):
        choose_search("ase", CPU)


def test_a_library_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr("eqplugin.calculator.neighbors.find_spec", lambda name: None)
    assert choose_search("auto", torch.device("cuda")) == "vesin"
    with pytest.raises(EqPluginError, match="pip install nvalchemi-toolkit-ops"):
        choose_search("nvalchemi", torch.device("cuda"))


def test_large_indices_are_ordered_too(monkeypatch):
    atoms = structure("bulk")
    expected = pairs(atoms, 4.5, "vesin")
    # as with so many atoms that one integer cannot hold (i, j, S)
    monkeypatch.setattr("eqplugin.calculator.neighbors.MAX_KEY", 1)
    assert pairs(atoms, 4.5, "vesin") == expected
