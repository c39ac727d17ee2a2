"""The distinct sites of a structure: their neighbours, their point groups, what survives there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.structures import check_structure, close_pairs, pair_description
from eqplugin.theory.orientation import recommended_l_max
from eqplugin.theory.point_group import TOLERANCE, PointGroup, find_point_group
from eqplugin.theory.stabilizer import KINDS, stabilizer_dimensions, surviving_dimensions

__all__ = ["PERIODIC_CUTOFF", "Site", "environments", "find_sites", "site_report"]

Array = NDArray[Any]

PERIODIC_CUTOFF = 6.0  # A, for crystals when none is given


@dataclass(frozen=True)
class Site:
    """Atoms with the same species, point group and neighbour distances."""

    symbol: str
    indices: tuple[int, ...]  # atoms of this kind
    group: PointGroup  # of the environment, in the frame of the first of them
    num_neighbors: int  # atoms in the environment


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
        raise EqPluginError(f"tolerance={tolerance} is not valid: give a length in A > 0.")
    radius = cutoff
    if cutoff is None and atoms.pbc.any():
        radius = PERIODIC_CUTOFF
    if radius is not None and not tolerance < radius < np.inf:
        raise EqPluginError(
            f"cutoff={radius} is not valid: give a radius in A above the tolerance, {tolerance}."
        )
    check_structure(atoms)
    if radius is not None and atoms.pbc.any():
        # matscipy's lists are sorted by the first atom
        centre, other, vectors = neighbour_list("ijD", atoms, radius - tolerance)
        bounds = np.searchsorted(centre, np.arange(len(atoms) + 1))
        return [
            (vectors[start:end], atoms.numbers[other[start:end]])
            for start, end in itertools.pairwise(bounds)
        ]
    found = []
    for index, position in enumerate(atoms.positions):
        vectors = atoms.positions - position
        near = np.arange(len(atoms)) != index
        if radius is not None:
            near &= np.linalg.norm(vectors, axis=1) < radius - tolerance
        found.append((vectors[near], atoms.numbers[near]))
    return found


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
    found: list[tuple[Array, Array, Site]] = []
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
                merged = replace(site, indices=(*site.indices, index))
                found[n] = (known_radii, known_numbers, merged)
                break
        else:
            found.append((radii, numbers, Site(symbol, (index,), group, len(radii))))
        if progress is not None:
            progress()
    return [site for _, _, site in found]


def site_report(
    atoms: Atoms,
    designs: Sequence[Design],
    cutoff: float | None = None,
    tolerance: float = TOLERANCE,
    l_max: int = 6,
    progress: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """One record per distinct site.

    Args:
        atoms: molecule or crystal.
        designs: features to count; all of one parity.
        cutoff: see :func:`find_sites`.
        tolerance: A.
        l_max: highest degree of the dimension lists, raised to the highest of the designs.
        progress: called after each atom.

    Returns:
        records with ``symbol``, ``indices``, ``group``, ``num_neighbors``, the dimensions of
        V_l^Stab under ``so3``, ``natural`` and ``opposite``, ``surviving_dimensions`` by L and
        ``l_max_needed`` (None: more than 8).
    """
    highest = max([l_max, *(design.irreps.lmax for design in designs)])
    parity = designs[0].parity if designs else "natural"
    needed: dict[str, int | None] = {}
    records: list[dict[str, Any]] = []
    for site in find_sites(atoms, cutoff, tolerance, progress):
        group = site.group
        if group.name not in needed:  # a property of the group, whatever its axes
            needed[group.name] = recommended_l_max(group, parity)
        dimensions: dict[str, list[int]] = {
            kind: list(stabilizer_dimensions(group, highest, kind)) for kind in KINDS
        }
        records.append(
            {
                "symbol": site.symbol,
                "indices": list(site.indices),
                "group": group.name,
                "num_neighbors": site.num_neighbors,
                **dimensions,
                "surviving_dimensions": {
                    str(design.l_max): surviving_dimensions(group, design.irreps)
                    for design in designs
                },
                "l_max_needed": needed[group.name],
            }
        )
    return records
