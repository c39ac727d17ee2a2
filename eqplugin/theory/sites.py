"""The distinct sites of a structure: which atoms have which neighbourhood, and its point group."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.structures import check_structure, close_pairs, pair_description
from eqplugin.theory.point_group import TOLERANCE, PointGroup, find_point_group

__all__ = ["PERIODIC_CUTOFF", "Site", "environments", "find_sites"]

Array = NDArray[np.float64]

PERIODIC_CUTOFF = 6.0  # A, for crystals when none is given


@dataclass(frozen=True)
class Site:
    """Atoms with the same species, point group and neighbour distances.

    Args:
        symbol: chemical symbol.
        indices: atoms of this kind.
        group: point group of the environment, in the frame of the first of them.
        num_neighbors: atoms in the environment.
    """

    symbol: str
    indices: tuple[int, ...]
    group: PointGroup
    num_neighbors: int


def environments(
    atoms: Atoms, cutoff: float | None = None, tolerance: float = TOLERANCE
) -> list[tuple[Array, NDArray[np.int64]]]:
    """For each atom the vectors to its neighbours, (num_neighbors, 3) in A, and atomic numbers.

    Args:
        atoms: molecule or crystal.
        cutoff: radius in A; None: all atoms of a molecule, :data:`PERIODIC_CUTOFF` in a crystal.
        tolerance: shells closer to the cutoff than this are left out, so that none is cut in two.

    Raises:
        EqPluginError: for a structure that :func:`eqplugin.structures.check_structure` refuses, a
            tolerance that is not positive, or a cutoff that is not finite and above it.
    """
    if not 0 < tolerance < np.inf:
        raise EqPluginError(f"tolerance={tolerance} is not possible: give a length in A > 0.")
    periodic = bool(atoms.pbc.any())
    radius = PERIODIC_CUTOFF if periodic and cutoff is None else cutoff
    if radius is not None and not tolerance < radius < np.inf:
        raise EqPluginError(
            f"cutoff={radius} is not possible: give a radius in A above the tolerance, {tolerance}."
        )
    check_structure(atoms)
    if radius is None or not periodic:
        return [_in_a_molecule(atoms, index, radius, tolerance) for index in range(len(atoms))]
    # matscipy's lists are sorted by the first atom
    centre, other, vectors = neighbour_list("ijD", atoms, radius - tolerance)
    bounds = np.searchsorted(centre, np.arange(len(atoms) + 1))
    return [
        (vectors[start:end], atoms.numbers[other[start:end]])
        for start, end in itertools.pairwise(bounds)
    ]


def _in_a_molecule(
    atoms: Atoms, index: int, radius: float | None, tolerance: float
) -> tuple[Array, NDArray[np.int64]]:
    vectors = atoms.positions - atoms.positions[index]
    near = np.arange(len(atoms)) != index
    if radius is not None:
        near &= np.linalg.norm(vectors, axis=1) < radius - tolerance
    return vectors[near], atoms.numbers[near]


def find_sites(
    atoms: Atoms,
    cutoff: float | None = None,
    tolerance: float = TOLERANCE,
    progress: Callable[[], None] | None = None,
) -> list[Site]:
    """Group the atoms of a structure into distinct sites.

    Args:
        atoms: molecule or crystal; only ``positions``, ``numbers``, ``cell`` and ``pbc`` are used.
        cutoff: what a site can see, see :func:`environments`; give a model's cutoff to ask about
            its first layer, leave it out to ask about the whole molecule.
        tolerance: A, see :func:`eqplugin.theory.point_group.find_point_group`.
        progress: called after each atom; some ms of a core each.

    Raises:
        EqPluginError: for two atoms in one place, and what :func:`environments` refuses.
    """
    found: list[tuple[Array, NDArray[np.int64], Site]] = []
    surroundings = environments(atoms, cutoff, tolerance)
    for pair in close_pairs(atoms, tolerance)[:1]:
        raise EqPluginError(
            f"{pair_description(atoms, *pair)}: correct the structure, or lower the tolerance of "
            f"{tolerance} A."
        )
    for index, (symbol, (vectors, numbers)) in enumerate(
        zip(atoms.symbols, surroundings, strict=True)
    ):
        radii = np.linalg.norm(vectors, axis=1)
        group = find_point_group(vectors, numbers, tolerance)
        order = np.lexsort((radii, numbers))
        radii, numbers = radii[order], numbers[order]
        for n, (known_radii, known_numbers, site) in enumerate(found):
            if (
                site.symbol == symbol
                and site.group.name == group.name
                and np.array_equal(known_numbers, numbers)
                and np.allclose(known_radii, radii, rtol=0, atol=2 * tolerance)
            ):
                merged = Site(symbol, (*site.indices, index), site.group, site.num_neighbors)
                found[n] = (known_radii, known_numbers, merged)
                break
        else:
            found.append((radii, numbers, Site(symbol, (index,), group, len(radii))))
        if progress is not None:
            progress()
    return [site for _, _, site in found]
