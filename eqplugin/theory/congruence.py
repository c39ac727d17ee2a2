"""Are two structures the same, turned? No model can tell congruent ones apart, nor should it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from eqplugin.theory.point_group import labelled_tree, line_axis, match, matching_operations

__all__ = ["Congruence", "congruence"]

Congruence = Literal["proper", "mirror", "none"]

Array = NDArray[Any]


def congruence(first: Atoms, second: Atoms, tolerance: float = 1e-6) -> Congruence:
    """Compare two molecules up to shifts, rotations, reflections and the order of equal atoms.

    Args:
        first: molecule.
        second: molecule.
        tolerance: A within which atoms must fall on atoms.

    Returns:
        ``"proper"`` when a rotation maps one onto the other, ``"mirror"`` when only a reflection
        does (enantiomers), ``"none"`` when they differ.
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
    axis_a, axis_b = (line_axis(vectors, tolerance) for vectors in (a, b))
    if axis_a is not None and axis_b is not None:
        # only the direction of the line is left to choose
        tree = labelled_tree(b @ axis_b, kinds_b)
        ways = (match(sign * a @ axis_a, kinds_a, tree, tolerance) for sign in (1, -1))
        return "proper" if any(way is not None for way in ways) else "none"
    if axis_a is not None or axis_b is not None:
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
