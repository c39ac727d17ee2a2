"""Are two structures the same, turned? No model can tell congruent ones apart, nor should it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqplugin.theory.point_group import line_through, matching_operations

__all__ = ["Congruence", "congruence"]

Congruence = Literal["proper", "mirror", "none"]

Array = NDArray[np.float64]


def congruence(first: Atoms, second: Atoms, tolerance: float = 1e-6) -> Congruence:
    """Compare two molecules up to shifts, rotations, reflections and the order of equal atoms.

    Returns:
        ``"proper"`` when a rotation maps one onto the other, within the tolerance in A,
        ``"mirror"`` when only a reflection does (enantiomers), ``"none"`` when they differ.
    """
    if sorted(first.numbers) != sorted(second.numbers):
        return "none"
    if not len(first):
        return "proper"
    (a, kinds_a), (b, kinds_b) = _centred(first, tolerance), _centred(second, tolerance)
    if sorted(kinds_a) != sorted(kinds_b):
        return "none"
    if not len(a):
        return "proper"
    axes = [line_through(vectors, tolerance) for vectors in (a, b)]
    if axes[0] is not None and axes[1] is not None:
        return _compare_lines([a @ axes[0], b @ axes[1]], kinds_a, kinds_b, tolerance)
    if axes[0] is not None or axes[1] is not None:
        return "none"
    found = matching_operations(a, kinds_a, b, kinds_b, tolerance)
    if not found:
        return "none"
    return "proper" if max(np.linalg.det(found)) > 0 else "mirror"


def _centred(atoms: Atoms, tolerance: float) -> tuple[Array, NDArray[np.int64]]:
    """Vectors from the centroid, without an atom that stands on it (all distances fix that)."""
    vectors = atoms.positions - atoms.positions.mean(axis=0)
    away = np.linalg.norm(vectors, axis=1) > tolerance
    return vectors[away], atoms.numbers[away]


def _compare_lines(
    lines: list[Array], kinds_a: NDArray, kinds_b: NDArray, tolerance: float
) -> Congruence:
    for sign in (1.0, -1.0):
        orders = [np.lexsort((line, kinds)) for line, kinds in
                  ((lines[0], kinds_a), (sign * lines[1], kinds_b))]  # fmt: skip
        if abs(lines[0][orders[0]] - sign * lines[1][orders[1]]).max() <= tolerance:
            return "proper"
    return "none"
