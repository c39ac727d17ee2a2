"""Point groups of atomic environments, found numerically, with their Schoenflies names.

An environment is a set of labelled vectors from a centre. Its point group is every rotation or
rotoinversion about the centre that maps equal labels onto each other. Crystals are treated the
same way, through the neighbours within a cutoff, so no space-group library is needed: a site's
symmetry is a local question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError

__all__ = ["TOLERANCE", "PointGroup", "find_point_group", "matching_operations"]

Array = NDArray[Any]

TOLERANCE = 0.01  # A
_INFINITE = ("C_inf_v", "D_inf_h", "K_h")


@dataclass(frozen=True)
class PointGroup:
    """A finite point group, or one of the three that an isolated or linear environment has."""

    # Schoenflies symbol: "C3v", "Td"; "C_inf_v" and "D_inf_h" for linear environments; "K_h", all
    # of O(3), for an atom alone
    name: str
    operations: Array  # (order, 3, 3), the identity first and, in the infinite groups, alone
    axis: Array | None = None  # (3,) unit vector of a linear environment

    @property
    def is_finite(self) -> bool:
        """False for the linear groups and for an atom alone."""
        return self.name not in _INFINITE

    @property
    def order(self) -> float:
        """Number of operations; infinite for the linear groups and an atom alone."""
        return float(len(self.operations)) if self.is_finite else float("inf")

    @property
    def proper(self) -> Array:
        """The rotations among the operations: the stabiliser in SO(3)."""
        return self.operations[np.linalg.det(self.operations) > 0]

    def is_closed(self, tolerance: float = 0.05) -> bool:
        """Whether products of operations are operations (entries compared)."""
        products = np.einsum("aij,bjk->abik", self.operations, self.operations).reshape(-1, 9)
        known = cKDTree(self.operations.reshape(-1, 9))
        return bool(known.query(products)[0].max() < 3 * tolerance)


def find_point_group(
    vectors: ArrayLike, labels: Sequence[object] | Array, tolerance: float = TOLERANCE
) -> PointGroup:
    """Find the point group of an environment.

    Args:
        vectors: (num_neighbors, 3) from the centre, A; entries shorter than the tolerance are the
            centre itself and are ignored.
        labels: what must map onto what, usually atomic numbers, one per vector.
        tolerance: largest distance in A between an image and the atom it falls on. If the
            operations found do not form a group, some stand just inside the limit and others just
            outside: up to twice the tolerance is tried, then less and less.

    Raises:
        EqPluginError: for a tolerance that is not positive or labels that do not fit.
    """
    neighbors = np.asarray(vectors, dtype=float).reshape(-1, 3)
    kinds = np.unique(np.asarray(list(labels)), return_inverse=True)[1]
    if len(kinds) != len(neighbors):
        raise EqPluginError(
            f"{len(labels)} labels for {len(neighbors)} neighbours: give one for each."
        )
    if not tolerance > 0:
        raise EqPluginError(f"tolerance={tolerance} is not valid: give a length in A > 0.")
    away = np.linalg.norm(neighbors, axis=1) > tolerance
    neighbors, kinds = neighbors[away], kinds[away]
    if not len(neighbors):
        return PointGroup("K_h", np.eye(3)[None])
    axis = line_axis(neighbors, tolerance)
    if axis is not None:
        inverted = match(-neighbors, kinds, labelled_tree(neighbors, kinds), tolerance)
        return PointGroup("C_inf_v" if inverted is None else "D_inf_h", np.eye(3)[None], axis)
    for factor in (1.0, 1.4, 2.0, *(0.5**n for n in range(1, 20))):
        found = matching_operations(neighbors, kinds, neighbors, kinds, factor * tolerance)
        others = [operation for operation in found if abs(operation - np.eye(3)).max() > 0.05]
        operations = np.array([np.eye(3), *others])
        group = PointGroup(schoenflies(operations), operations)
        if group.is_closed():
            return group
    return PointGroup("C1", np.eye(3)[None])  # pragma: no cover - the identity alone is closed


# ---- operations


def line_axis(vectors: Array, tolerance: float) -> Array | None:
    """Unit vector of the line through the origin that holds all vectors; None if there is none."""
    axis = np.linalg.svd(vectors, full_matrices=False)[2][0]
    off = np.linalg.norm(vectors - np.outer(vectors @ axis, axis), axis=1)
    return axis if off.max() <= tolerance else None


def _labelled(vectors: Array, kinds: NDArray) -> Array:
    """Vectors with a further coordinate, which keeps unequal labels far apart."""
    return np.column_stack([vectors, 1e9 * kinds])


def labelled_tree(vectors: Array, kinds: NDArray) -> cKDTree:
    """Tree of targets for :func:`match`."""
    return cKDTree(_labelled(vectors, kinds))


def match(
    vectors: Array, kinds: NDArray, targets: cKDTree, tolerance: float | Array
) -> NDArray | None:
    """Index of the target of equal label that each vector falls on; None if not one to one."""
    distance, nearest = targets.query(_labelled(vectors, kinds))
    if (distance > tolerance).any() or len(np.unique(nearest)) < targets.n:
        return None
    return nearest


def _shells(vectors: Array, kinds: NDArray, tolerance: float) -> list[NDArray]:
    """Indices of equal label and, within the tolerance, equal distance; smallest shells first."""
    radii = np.linalg.norm(vectors, axis=1)
    shells = []
    for kind in np.unique(kinds):
        where = np.flatnonzero(kinds == kind)
        where = where[np.argsort(radii[where])]
        gaps = np.flatnonzero(np.diff(radii[where]) > 2 * tolerance) + 1
        shells += np.split(where, gaps)
    return sorted(shells, key=lambda shell: (len(shell), radii[shell[0]]))


def _reference_pair(vectors: Array, shells: list[NDArray]) -> tuple[int, int]:
    """Two vectors that span a plane, from the smallest shells."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for least in (0.3, 0.03, 0.0):
        for n, first in enumerate(shells):
            for second in shells[n:]:
                sines = np.linalg.norm(np.cross(units[first[0]], units[second]), axis=1)
                if sines.max() > least:
                    return int(first[0]), int(second[np.argmax(sines)])
    raise AssertionError("a linear environment was excluded before")  # pragma: no cover


def _frame(first: Array, second: Array) -> Array:
    """Orthonormal right-handed frame in columns, from two vectors."""
    a = first / np.linalg.norm(first)
    b = second - (second @ a) * a
    b /= np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)], axis=1)


def matching_operations(
    vectors: Array, kinds: NDArray, targets: Array, target_kinds: NDArray, tolerance: float
) -> list[Array]:
    """All rotations and rotoinversions that map one set of labelled vectors onto another.

    Args:
        vectors: (n, 3), not all on one line, none zero.
        kinds: (n,) integer labels.
        targets: (n, 3).
        target_kinds: (n,), the same labels equally often.
        tolerance: A.
    """
    tree = labelled_tree(targets, target_kinds)
    a, b = _reference_pair(vectors, _shells(vectors, kinds, tolerance))
    frame = _frame(vectors[a], vectors[b])
    # an error of a reference vector is magnified at long arms, until the fit to all removes it
    lever = min(np.linalg.norm(vectors[a]), abs(vectors[b] @ frame[:, 1]))
    loose = 4 * tolerance * np.maximum(1.0, np.linalg.norm(vectors, axis=1) / lever)
    inner = vectors[a] @ vectors[b]
    slack = 3 * tolerance * (np.linalg.norm(vectors[a]) + np.linalg.norm(vectors[b]))
    radii = np.linalg.norm(targets, axis=1)
    a_shell, b_shell = (
        np.flatnonzero(
            (target_kinds == kinds[i]) & (abs(radii - np.linalg.norm(vectors[i])) <= 2 * tolerance)
        )
        for i in (a, b)
    )
    found: list[Array] = []
    for i in a_shell:
        for j in b_shell:
            if i == j or abs(targets[i] @ targets[j] - inner) > slack:
                continue
            other = _frame(targets[i], targets[j])
            for sign in (1.0, -1.0):
                rough = other @ np.diag([1.0, 1.0, sign]) @ frame.T
                image = match(vectors @ rough.T, kinds, tree, loose)
                if image is None:
                    continue
                fit, _ = Rotation.align_vectors(targets[image], sign * vectors)
                operation = sign * fit.as_matrix()
                misfit = np.linalg.norm(vectors @ operation.T - targets[image], axis=1)
                if misfit.max() <= tolerance and all(
                    abs(operation - known).max() > 0.05 for known in found
                ):
                    found.append(operation)
    return found


# ---- names


def schoenflies(operations: Array) -> str:
    """Name of a finite point group from its operations, (order, 3, 3)."""
    improper = np.linalg.det(operations) < 0
    rotations = operations[~improper]
    kind, n = _rotation_group(rotations)
    if not improper.any():
        return kind if kind in "TOI" else f"{kind}{n}"
    traces = np.trace(operations[improper], axis1=1, axis2=2)
    inversion = (traces < -2.9).any()
    mirrors = int((abs(traces - 1.0) < 0.1).sum())
    if kind in "TOI":
        return f"{kind}h" if inversion else "Td"
    if kind == "D":
        # the horizontal mirror of an odd D_nh comes on top of its n vertical ones
        return f"D{n}h" if (n % 2 == 0) == inversion else f"D{n}d"
    if n == 1:
        return "Ci" if inversion else "Cs"
    if mirrors == n and not inversion:
        return f"C{n}v"
    return f"C{n}h" if mirrors else f"S{2 * n}"


def _rotation_group(rotations: Array) -> tuple[str, int]:
    """Kind (C, D, T, O, I) and order of the principal axis of a group of rotations."""
    cosines = np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1)
    angles = np.arccos(cosines)
    turning = angles > 0.05
    n = round(2 * np.pi / angles[turning].min()) if turning.any() else 1
    order = len(rotations)
    if order == n:
        return "C", n
    if order == 2 * n:
        return "D", n
    return {12: "T", 24: "O", 60: "I"}.get(order, "?"), n
