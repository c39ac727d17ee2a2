"""The skin saves searches and changes nothing."""

import numpy as np
import pytest
import torch
from ase import Atoms
from calculators_under_test import STRUCTURES, structure, walk

from eqplugin.calculator.skin import SkinList
from eqplugin.errors import EqPluginError

CPU = torch.device("cpu")
CUTOFF = 4.0


def skin_list(skin, library="vesin"):
    return SkinList(CUTOFF, skin, library, CPU)


def graph(neighbors, atoms):
    return neighbors.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


@pytest.mark.parametrize("name", STRUCTURES)
def test_graphs_along_a_walk_are_bitwise_those_without_a_skin(name):
    wide, none, other = skin_list(0.7), skin_list(0.0), skin_list(0.3, "matscipy")
    for atoms in walk(structure(name), steps=12):
        graphs = [graph(neighbors, atoms) for neighbors in (wide, none, other)]
        for found in graphs[1:]:
            assert torch.equal(found.index, graphs[0].index)
            assert torch.equal(found.vectors, graphs[0].vectors)
            for mine, theirs in zip(found.edges, graphs[0].edges, strict=True):
                assert torch.equal(mine, theirs)
            assert torch.equal(found.edge_shift_vectors, graphs[0].edge_shift_vectors)
    assert none.searches == 12
    assert wide.searches < 12


def test_vectors_belong_to_indices_and_shifts():
    atoms = structure("atoms outside the cell")
    found = graph(skin_list(0.5), atoms)
    index, vectors, shifts = (part.numpy() for part in found.edges)
    expected = atoms.positions[index[1]] - atoms.positions[index[0]] + shifts @ atoms.cell.array
    np.testing.assert_allclose(vectors, expected, atol=1e-12)
    np.testing.assert_allclose(
        found.edge_shift_vectors.numpy(), shifts @ atoms.cell.array, atol=1e-12
    )
    assert np.linalg.norm(vectors, axis=1).max() < CUTOFF


def test_searches_when_an_atom_has_moved_half_the_skin():
    neighbors, atoms = skin_list(0.5), structure("bulk")
    graph(neighbors, atoms)
    atoms.positions[3, 0] += 0.24
    graph(neighbors, atoms)
    assert neighbors.searches == 1
    atoms.positions[3, 0] += 0.02
    graph(neighbors, atoms)
    assert neighbors.searches == 2
    atoms.positions[3, 0] -= 0.24
    graph(neighbors, atoms)
    assert neighbors.searches == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_cell(atoms.cell.array * (1 + 1e-12)),
        lambda atoms: atoms.set_pbc([True, True, False]),
        lambda atoms: atoms.numbers.__setitem__(0, 1),
        lambda atoms: atoms.__delitem__(0),
        lambda atoms: atoms.wrap(),
    ],
    ids=["cell", "pbc", "species", "number of atoms", "wrapping"],
)
def test_searches_when_something_else_changes(change):
    neighbors, atoms = skin_list(0.5), structure("atoms outside the cell")
    graph(neighbors, atoms)
    change(atoms)
    found = graph(neighbors, atoms)
    assert neighbors.searches == 2
    assert torch.equal(found.vectors, graph(skin_list(0.0), atoms).vectors)


def test_the_callers_array_may_change():
    neighbors, atoms = skin_list(0.5), structure("molecule")
    first = graph(neighbors, atoms)
    before = first.positions.clone()
    atoms.positions += 0.2
    assert torch.equal(first.positions, before)
    atoms.positions[0] += 0.2  # 0.35 A from where it was searched
    graph(neighbors, atoms)
    assert neighbors.searches == 2


@pytest.mark.parametrize("pbc", [False, True])
def test_coincident_atoms_are_named(pbc):
    atoms = Atoms("OCH", [[0, 0, 0], [1.2, 0, 0], [1.2, 0, 1e-5]], cell=[9, 9, 9], pbc=pbc)
    with pytest.raises(
        EqPluginError, match=r"C \(atom 1\) and H \(atom 2\) have the same position"
    ):
        graph(skin_list(0.5), atoms)


def test_an_atom_on_the_image_of_another_is_named():
    atoms = Atoms("OC", [[0, 0, 0], [9, 0, 0]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(EqPluginError, match="in a neighbouring cell have the same position"):
        graph(skin_list(0.5), atoms)


def test_usable_again_after_a_refusal():
    neighbors, atoms = skin_list(0.5), structure("bulk")
    broken = atoms.copy()
    broken.positions[1] = broken.positions[0]
    with pytest.raises(EqPluginError):
        graph(neighbors, broken)
    assert torch.equal(graph(neighbors, atoms).vectors, graph(skin_list(0.0), atoms).vectors)


@pytest.mark.parametrize("third", [[0, 0, 0], [3.0, 3.0, 0.0], [3.0, 3.0, 1e-12]])
def test_a_flat_cell_has_no_volume(third):
    atoms = Atoms("OC", [[0, 0, 0], [1, 1, 1]], cell=[[3, 0, 0], [0, 3, 0], third], pbc=[1, 1, 0])
    assert graph(skin_list(0.5), atoms).volume == 0.0
