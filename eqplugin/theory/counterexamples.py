"""Pairs of neighbourhoods that agree in all their n-body fingerprints, and two that only seem to.

An environment is a centre, atom 0, and neighbours that are to be joined to it *alone*: use the
edges of :func:`star_edges`, not a neighbour list. A model that forms only products of n neighbours
cannot tell an n-body pair apart.

* 2-body: the same distances, another angle.
* 3-body: the same distances and the same list of angles.
* 4-body: the same list of triangles as well. It needs a *scalene* ring of three, its mirror image
  turned about the axis, and one atom above or below.

The 4-body pairs in circulation use a ring with a mirror of its own (or three atoms in a plane), so
that a rotation maps one member onto the other: :func:`congruent_pair`. No model can separate those.

Source: Pozdnyakov et al., Phys. Rev. Lett. 125, 166001 (2020); the environments in the form of
Joshi et al., ICML 2023.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError

__all__ = ["congruent_pair", "many_body_pair", "star_edges"]

Array = NDArray[Any]

_SCALENE = np.array([[3, 2, -4], [0, 2, 5], [-4, 2, -3]], dtype=float)
_ISOSCELES = np.array([[3, 2, -4], [0, 2, 5], [-3, 2, -4]], dtype=float)
_TOP = np.array([[0.0, 5.0, 0.0]])


def many_body_pair(order: Literal[2, 3, 4], radius: float = 1.3) -> tuple[Atoms, Atoms]:
    """Return two environments with equal n-body fingerprints that are not congruent.

    Args:
        order: 2, 3 or 4.
        radius: distance of the farthest neighbour from the centre in A.
    """
    if order == 2:
        first, second = ([[5, 0, 0], [3, 0, 4]], [[5, 0, 0], [-5, 0, 0]])
    elif order == 3:
        common = [[5, 0, 5], [5, 5, 5], [-5, -5, 5]]
        first, second = ([*common, [0, 5, 5]], [*common, [0, -5, 5]])
    elif order == 4:
        rings = np.concatenate([_SCALENE, _turned_mirror_image(_SCALENE)])
        first, second = ([*rings, *(sign * _TOP)] for sign in (1, -1))
    else:
        raise EqPluginError(f"order={order!r} is not valid: there are pairs for 2, 3 and 4.")
    return _environment(first, radius), _environment(second, radius)


def congruent_pair(
    kind: Literal["chiral", "nonchiral"], radius: float = 1.3
) -> tuple[Atoms, Atoms]:
    """Return a pair of public teaching code that is congruent by a proper rotation.

    Args:
        kind: which of the two.
        radius: see :func:`many_body_pair`.
    """
    if kind == "nonchiral":
        common = np.concatenate([_ISOSCELES, _turned_mirror_image(_ISOSCELES)])
    elif kind == "chiral":
        common = _ISOSCELES * [1.0, 0.0, 1.0]
    else:
        raise EqPluginError(f"kind={kind!r} is not known: use 'chiral' or 'nonchiral'.")
    first, second = (np.concatenate([common, sign * _TOP]) for sign in (1, -1))
    return _environment(first, radius), _environment(second, radius)


def star_edges(atoms: Atoms) -> NDArray[np.int64]:
    """Edges between the centre and each neighbour, both ways: (2, num_edges)."""
    others = np.arange(1, len(atoms))
    centre = np.zeros_like(others)
    return np.stack([np.concatenate([centre, others]), np.concatenate([others, centre])])


def _turned_mirror_image(ring: Array) -> Array:
    """Reflect in the xz plane, then turn about y."""
    return Rotation.from_euler("y", -36, degrees=True).apply(ring * [1, -1, 1])


def _environment(neighbours: ArrayLike, radius: float) -> Atoms:
    positions = np.concatenate([np.zeros((1, 3)), np.asarray(neighbours, dtype=float)])
    positions *= radius / np.linalg.norm(positions, axis=1).max()
    return Atoms(f"CH{len(positions) - 1}", positions)
