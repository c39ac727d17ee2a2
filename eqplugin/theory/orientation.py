"""The smallest degree whose features fix how an environment is turned (its rotor or star order)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from eqplugin.errors import EqPluginError
from eqplugin.theory.point_group import PointGroup
from eqplugin.theory.stabilizer import characters, cosines_of

__all__ = ["recommended_l_max"]

Array = NDArray[np.float64]


def recommended_l_max(group: PointGroup, kind: str = "natural", limit: int = 8) -> int | None:
    """Smallest L such that features up to degree L fix how a site of this point group is turned.

    With a lower L some rotation that does *not* map the environment onto itself leaves every
    feature as it is: turning a rotor against its surroundings goes unseen, whatever the weights
    and the feature dimension. For an n-fold star or rotor this is n.

    Args:
        group: point group of the site.
        kind: ``"natural"``, ``"both"`` (both parities of every degree) or ``"so3"``.
        limit: highest degree tried; None is returned if even that is not enough.
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
        nearest = np.where(turns[0] > 0, np.arccos(np.clip(turns[1], -1, 1)), np.inf).min(axis=-1)
        self.candidates = np.flatnonzero(nearest > self.far)
        self.sampled_turns = turns[0][self.candidates], turns[1][self.candidates]
        self.change = np.zeros(len(self.candidates))

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
        best = self.candidates[np.argsort(self.change)[:24]]
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
        signs, cosines = self._turns(operations)
        nearest = np.where(signs > 0, np.arccos(cosines), np.inf).min(axis=-1)
        return np.where(nearest > self.far / 2, self._changes(operations), np.inf)

    def _changes(self, operations: Array) -> Array:
        turns = self._turns(operations)
        return np.sum([self._lost(turns, *degree) for degree in self.degrees], axis=0)

    def _derivatives(self, operations: Array) -> tuple[Array, Array]:
        """Slope and curvature with respect to a small rotation: (n, 3) and (n, 3, 3)."""
        small = 1e-3
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        unit = np.eye(3)
        along = [unit[i] if i == j else unit[i] + unit[j] for i, j in pairs]
        turns = small * np.array([sign * direction for direction in along for sign in (1, -1)])
        moved = Rotation.from_rotvec(turns).as_matrix()[:, None] @ operations
        values = self._changes(moved.reshape(-1, 3, 3)).reshape(len(turns), -1)
        centre = self._changes(operations)
        slope, second = np.empty((len(operations), 3)), {}
        for n, (i, j) in enumerate(pairs):
            plus, minus = values[2 * n], values[2 * n + 1]
            second[i, j] = (plus + minus - 2 * centre) / small**2
            if i == j:
                slope[:, i] = (plus - minus) / (2 * small)
        curvature = np.empty((len(operations), 3, 3))
        for i, j in pairs:
            mixed = second[i, j]
            if i != j:
                mixed = (mixed - second[i, i] - second[j, j]) / 2
            curvature[:, i, j] = curvature[:, j, i] = mixed
        return slope, curvature
