"""The distinct sites of a structure: which atoms have which neighbourhood, and its point group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.theory.point_group import TOLERANCE, PointGroup, find_point_group

__all__ = ["PERIODIC_CUTOFF", "Site", "environment", "find_sites"]

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


def environment(
    atoms: Atoms, index: int, cutoff: float | None = None, tolerance: float = TOLERANCE
) -> tuple[Array, NDArray[np.int64]]:
    """Vectors to the neighbours of an atom, (num_neighbors, 3) in A, and their atomic numbers.

    Args:
        atoms: molecule or crystal.
        index: the atom.
        cutoff: radius in A; None: all atoms of a molecule, :data:`PERIODIC_CUTOFF` in a crystal.
        tolerance: shells closer to the cutoff than this are left out, so that none is cut in two.

    Raises:
        EqPluginError: for a cutoff that is not positive, or an infinite one in a crystal.
    """
    if cutoff is not None and not 0 < cutoff < np.inf:
        raise EqPluginError(f"cutoff={cutoff} is not possible: give a radius in A > 0.")
    if atoms.pbc.any():
        radius = PERIODIC_CUTOFF if cutoff is None else cutoff
        centre, other, vectors = neighbour_list("ijD", atoms, radius - tolerance)
        mine = centre == index
        return vectors[mine], atoms.numbers[other[mine]]
    vectors = atoms.positions - atoms.positions[index]
    near = np.arange(len(atoms)) != index
    if cutoff is not None:
        near &= np.linalg.norm(vectors, axis=1) < cutoff - tolerance
    return vectors[near], atoms.numbers[near]


def find_sites(
    atoms: Atoms, cutoff: float | None = None, tolerance: float = TOLERANCE
) -> list[Site]:
    """Group the atoms of a structure into distinct sites.

    Args:
        atoms: molecule or crystal; only ``positions``, ``numbers``, ``cell`` and ``pbc`` are used.
        cutoff: what a site can see, see :func:`environment`; give a model's cutoff to ask about
            its first layer, leave it out to ask about the whole molecule.
        tolerance: A, see :func:`eqplugin.theory.point_group.find_point_group`.

    Raises:
        EqPluginError: for a structure without atoms or two atoms in one place.
    """
    if not len(atoms):
        raise EqPluginError("The structure holds no atoms: give one with at least one atom.")
    found: list[tuple[Array, Array, Site]] = []
    for index, symbol in enumerate(atoms.symbols):
        vectors, numbers = environment(atoms, index, cutoff, tolerance)
        radii = np.linalg.norm(vectors, axis=1)
        if len(radii) and radii.min() < tolerance:
            raise EqPluginError(
                f"Atom {index} ({symbol}) has another atom in the same place: correct the "
                f"structure, or lower the tolerance of {tolerance} A."
            )
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
    return [site for _, _, site in found]
