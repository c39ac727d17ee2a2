"""Sites and what survives there, as plain data for tables and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ase import Atoms

from eqplugin.design import Design
from eqplugin.theory.orientation import recommended_l_max
from eqplugin.theory.point_group import TOLERANCE, PointGroup
from eqplugin.theory.sites import find_sites
from eqplugin.theory.stabilizer import KINDS, stabilizer_dimensions, surviving_dimensions

__all__ = ["site_report"]


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
        cutoff: see :func:`eqplugin.theory.sites.find_sites`.
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
    records = []
    for site in find_sites(atoms, cutoff, tolerance, progress):
        group: PointGroup = site.group
        if group.name not in needed:  # a property of the group, whatever its axes
            needed[group.name] = recommended_l_max(group, parity)
        records.append(
            {
                "symbol": site.symbol,
                "indices": list(site.indices),
                "group": group.name,
                "num_neighbors": site.num_neighbors,
                **{str(kind): list(stabilizer_dimensions(group, highest, kind)) for kind in KINDS},
                "surviving_dimensions": {
                    str(design.l_max): surviving_dimensions(group, design.irreps)
                    for design in designs
                },
                "l_max_needed": needed[group.name],
            }
        )
    return records
