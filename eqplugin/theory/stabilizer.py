"""How much a feature of degree l can carry at a site: the dimension of V_l^Stab.

An equivariant feature of an environment x obeys f(x) = f(g x) = D(g) f(x) for every g that maps x
onto itself. So its values lie in V^Stab = {v: D(g) v = v for all g in Stab(x)}, and an equivariant
map can take every value in it. Stab is the point group of the site: the neighbours carry no
labels beyond their species, so the rank of the positions is *not* what counts (an octahedron has
rank 3 and keeps nothing of l = 1, 2, 3).

Dimensions are exact: characters averaged over the group, in three flavours (:data:`KINDS`).
Source: Wang et al., ICLR 2024 (key lemma); character formula, any text on point groups.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from e3nn.o3 import Irrep, Irreps, spherical_harmonics
from numpy.polynomial.chebyshev import chebval
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.theory.point_group import PointGroup
from eqplugin.theory.representation import represent

__all__ = [
    "KINDS",
    "characters",
    "cosines_of",
    "irrep_dimension",
    "projector",
    "stabilizer_dimensions",
    "surviving_dimensions",
]

Kind = Literal["so3", "natural", "opposite"]
KINDS: tuple[Kind, ...] = ("so3", "natural", "opposite")
"""so3: rotations only; natural, opposite: O(3) with parity (-1)^l (0e 1o 2e) or the other."""

Array = NDArray[Any]


# ---- dimensions


def stabilizer_dimensions(group: PointGroup, l_max: int, kind: Kind) -> tuple[int, ...]:
    """Dimensions of V_l^Stab for l = 0..l_max; the kinds are :data:`KINDS`.

    >>> from eqplugin.theory.point_group import find_point_group
    >>> octahedron = find_point_group([*np.eye(3), *-np.eye(3)], "HHHHHH")
    >>> octahedron.name, stabilizer_dimensions(octahedron, 6, "natural")
    ('Oh', (1, 0, 0, 0, 1, 0, 1))
    """
    if kind not in KINDS:
        raise EqPluginError(f"kind={kind!r} is not known: use one of {', '.join(KINDS)}.")
    sign = {"so3": None, "natural": 1, "opposite": -1}[kind]
    return tuple(
        _dimension(group, degree, None if sign is None else sign * (-1) ** degree)
        for degree in range(l_max + 1)
    )


def irrep_dimension(group: PointGroup, ir: Irrep | str) -> int:
    """Dimension of V^Stab for one irrep of O(3), such as ``"2e"``."""
    ir = Irrep(ir)
    return _dimension(group, ir.l, ir.p)


def surviving_dimensions(group: PointGroup, irreps: Irreps | str) -> int:
    """How many of a feature's D dimensions an equivariant model can use at this site.

    >>> from eqplugin.theory.point_group import find_point_group
    >>> line = find_point_group([[0, 0, 1.0], [0, 0, -1.0]], "OO")
    >>> surviving_dimensions(line, "12x0e+11x1o+11x2e")
    23
    """
    return sum(mul * irrep_dimension(group, ir) for mul, ir in Irreps(irreps))


def _dimension(group: PointGroup, degree: int, parity: int | None) -> int:
    """Dimension for one degree; parity None: rotations only."""
    if not group.is_finite:
        return _infinite_dimension(group.name, degree, parity)
    operations = group.proper if parity is None else group.operations
    return round(float(characters(cosines_of(operations, len(group.operations)), degree, parity)))


def _infinite_dimension(name: str, degree: int, parity: int | None) -> int:
    """The linear groups keep at most the component along the axis (m = 0)."""
    if name == "K_h":
        return int(degree == 0 and parity != -1)
    if parity is not None and parity != (-1) ** degree:
        return 0  # a mirror that holds the axis reverses it
    return int(name == "C_inf_v" or degree % 2 == 0)


def cosines_of(operations: Array, order: int) -> tuple[Array, Array]:
    """Signs of the determinants, and cosines of the rotation angles, to the last digit.

    The angle of any element of a group of this order, up to an inversion, divides the circle
    into a divisor of twice the order.
    """
    signs = np.sign(np.linalg.det(operations))
    traces = signs * np.trace(operations, axis1=-2, axis2=-1)
    step = np.pi / order
    angles = np.round(np.arccos(np.clip((traces - 1) / 2, -1, 1)) / step) * step
    return signs, np.cos(angles)


def characters(turns: tuple[Array, Array], degree: int, parity: int | None) -> Array:
    """Mean character of degree l over the last axis, (...).

    Args:
        turns: determinants and cosines of rotation angles, (..., order) each.
        degree: l.
        parity: 1, -1, or None for rotations only.
    """
    signs, cosines = turns
    values = chebval(cosines, [1, *[2] * degree])  # 1 + 2 sum_m cos(m angle)
    if parity == -1:
        values = values * signs
    return values.mean(axis=-1)


def projector(group: PointGroup, ir: Irrep | str) -> torch.Tensor:
    """Orthogonal projector onto V^Stab, the average of the irrep over the group.

    Returns:
        (2l + 1, 2l + 1) in e3nn's basis, float64; its trace is :func:`irrep_dimension`.
    """
    ir = Irrep(ir)
    if group.is_finite:
        return represent(ir, torch.as_tensor(group.operations)).mean(dim=0)
    if not irrep_dimension(group, ir):
        return torch.zeros(ir.dim, ir.dim, dtype=torch.float64)
    if group.axis is None:
        return torch.eye(1, dtype=torch.float64)
    # what survives along an axis is the harmonic of the axis itself
    along = spherical_harmonics(
        ir.l, torch.as_tensor(group.axis), normalize=True, normalization="norm"
    )
    return torch.outer(along, along)
