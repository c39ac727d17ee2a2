"""Are two structures the same, turned? No model can tell congruent ones apart, nor should it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqplugin.theory.point_group import matching_operations

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
    lines = [_along_a_line(vectors, tolerance) for vectors in (a, b)]
    if any(line is not None for line in lines):
        return _compare_lines(lines, kinds_a, kinds_b, tolerance)
    found = matching_operations(a, kinds_a, b, kinds_b, tolerance)
    if not found:
        return "none"
    return "proper" if max(np.linalg.det(found)) > 0 else "mirror"


def _centred(atoms: Atoms, tolerance: float) -> tuple[Array, NDArray[np.int64]]:
    """Vectors from the centroid, without an atom that stands on it (all distances fix that)."""
    vectors = atoms.positions - atoms.positions.mean(axis=0)
    away = np.linalg.norm(vectors, axis=1) > tolerance
    return vectors[away], atoms.numbers[away]


def _along_a_line(vectors: Array, tolerance: float) -> Array | None:
    """Coordinates along the line that holds all vectors; None if there is none."""
    axis = np.linalg.svd(vectors, full_matrices=False)[2][0]
    coordinate = vectors @ axis
    off = np.linalg.norm(vectors - np.outer(coordinate, axis), axis=1)
    return coordinate if off.max() <= tolerance else None


def _compare_lines(
    lines: list[Array | None], kinds_a: NDArray, kinds_b: NDArray, tolerance: float
) -> Congruence:
    if lines[0] is None or lines[1] is None:
        return "none"
    for sign in (1.0, -1.0):
        orders = [np.lexsort((line, kinds)) for line, kinds in
                  ((lines[0], kinds_a), (sign * lines[1], kinds_b))]  # fmt: skip
        if abs(lines[0][orders[0]] - sign * lines[1][orders[1]]).max() <= tolerance:
            return "proper"
    return "none"
