"""The smallest degree whose features fix how an environment is turned (its rotor or star order)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError
from eqplugin.theory.point_group import PointGroup
from eqplugin.theory.stabilizer import characters, cosines_of

__all__ = ["recommended_l_max"]

Array = NDArray[Any]


def recommended_l_max(group: PointGroup, kind: str = "natural", limit: int = 8) -> int | None:
    """Smallest L such that features up to degree L fix how the environment is turned.

    With a lower L some rotation that does *not* map the environment onto itself leaves every
    feature as it is: turning a rotor against its surroundings goes unseen, whatever the weights
    and the feature dimension. For an n-fold star or rotor this is n.

    Args:
        group: point group of the site.
        kind: ``"natural"``, ``"both"`` (both parities of every degree) or ``"so3"``.
        limit: highest degree tried.

    Returns:
        L, or None if even ``limit`` is not enough.
    """
    if kind not in ("natural", "both", "so3"):
        raise EqPluginError(f"kind={kind!r} is not known: use natural, both or so3.")
    if not group.is_finite:
        return {"K_h": 0, "C_inf_v": 1, "D_inf_h": 2}[group.name]
    search = _Search(group, kind)
    for degree in range(limit + 1):
        search.add(degree)
        if search.fixes_orientation():
            return degree
    return None


class _Search:
    """Looks for operations outside the group that leave V_{<=L}^Stab as it is.

    The change of all of V^Stab under g is sum_l dim V_l^Stab - tr(P_l D_l(g)), and the trace is
    the mean of the characters of h g over the group: no matrices are needed.
    """

    far = 0.2  # rad: closer to the group no further operation of a point group can stand

    def __init__(self, group: PointGroup, kind: str) -> None:
        self.parities = {"so3": (None,), "natural": (1,), "both": (1, -1)}[kind]
        self.members = group.proper if kind == "so3" else group.operations
        self.order = len(group.operations)
        self.degrees: list[tuple[int, int | None]] = []
        sample = Rotation.random(4000, random_state=np.random.default_rng(0)).as_matrix()
        self.sample = sample if kind == "so3" else np.concatenate([sample, -sample])
        turns = self._turns(self.sample)
        far = _distance(turns) > self.far
        self.sample = self.sample[far]
        self.sampled_turns = turns[0][far], turns[1][far]
        self.change = np.zeros(len(self.sample))

    def _turns(self, operations: Array) -> tuple[Array, Array]:
        """Determinants and cosines of h g for all members h: (num_operations, order) each."""
        members = self.members.reshape(len(self.members), 9)
        # the group holds inverses, so tr(h g) over h is the inner product of g with every h
        traces = operations.reshape(-1, 9) @ members.T
        signs = np.outer(np.sign(np.linalg.det(operations)), np.sign(np.linalg.det(self.members)))
        return signs, np.clip((signs * traces - 1) / 2, -1, 1)

    def _lost(self, turns: tuple[Array, Array], degree: int, parity: int | None) -> Array:
        own = cosines_of(self.members, self.order)
        return characters(own, degree, parity) - characters(turns, degree, parity)

    def add(self, degree: int) -> None:
        """Let features of one more degree take part."""
        for sign in self.parities:
            parity = None if sign is None else sign * (-1) ** degree
            self.degrees.append((degree, parity))
            self.change += self._lost(self.sampled_turns, degree, parity)

    def fixes_orientation(self) -> bool:
        """Whether nothing outside the group leaves the features unchanged."""
        best = np.argsort(self.change)[:24]
        return bool(self._refined(self.sample[best]).min() > 1e-6)

    def _refined(self, operations: Array) -> Array:
        """Smallest change near each operation; infinite where the path leads back to the group.

        Newton's method with the signs of the curvatures turned upwards, all starts at once.
        """
        for _ in range(25):
            slope, curvature = self._derivatives(operations)
            values, vectors = np.linalg.eigh(curvature)
            along = np.einsum("nij,ni->nj", vectors, slope) / (np.abs(values) + 1e-4)
            step = -np.einsum("nij,nj->ni", vectors, along)
            length = np.linalg.norm(step, axis=1, keepdims=True)
            step *= np.minimum(1.0, 0.15 / np.maximum(length, 1e-12))
            operations = Rotation.from_rotvec(step).as_matrix() @ operations
        outside = _distance(self._turns(operations)) > self.far / 2
        return np.where(outside, self._changes(operations), np.inf)

    def _changes(self, operations: Array) -> Array:
        turns = self._turns(operations)
        return np.sum([self._lost(turns, *degree) for degree in self.degrees], axis=0)

    def _derivatives(self, operations: Array) -> tuple[Array, Array]:
        """Slope (n, 3) and curvature (n, 3, 3) with respect to a small rotation.

        Those of the quadratic function through thirteen rotations.
        """
        small = 1e-3
        pairs = list(itertools.combinations_with_replacement(range(3), 2))
        sums = np.array([np.eye(3)[i] + np.eye(3)[j] for i, j in pairs])
        points = np.concatenate([np.zeros((1, 3)), sums, -sums])
        moved = Rotation.from_rotvec(small * points).as_matrix()[:, None] @ operations
        values = self._changes(moved.reshape(-1, 3, 3)).reshape(len(points), -1)
        products = [points[:, i] * points[:, j] for i, j in pairs]
        terms = np.column_stack([np.ones(len(points)), points, *products])
        fit = np.linalg.pinv(terms) @ values
        curvature = np.zeros((len(operations), 3, 3))
        for (i, j), factor in zip(pairs, fit[4:], strict=True):
            curvature[:, i, j] += factor / small**2
            curvature[:, j, i] += factor / small**2
        return fit[1:4].T / small, curvature


def _distance(turns: tuple[Array, Array]) -> Array:
    """Angle of the smallest rotation that leads to a member of the group; infinite if none does."""
    signs, cosines = turns
    return np.where(signs > 0, np.arccos(cosines), np.inf).min(axis=-1)
