"""Checks of a single frame. Each yields :class:`Problem` and looks at one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from eqplugin.data.errors import Problem

__all__ = [
    "TOO_CLOSE",
    "bad_labels",
    "cell_problems",
    "close_pairs",
    "geometry_problems",
    "valid",
]

TOO_CLOSE = 0.1  # A; atoms nearer than this are the same atom written twice
TINY_VOLUME = 1e-6  # A^3
STRESS_SHAPES = ((6,), (9,), (3, 3))


def _name(atoms: Atoms, index: int) -> str:
    return f"atom {index} ({chemical_symbols[atoms.numbers[index]]})"


def cell_problems(atoms: Atoms, where: str, file: str, frame: int) -> Iterator[Problem]:
    """Periodic directions need lattice vectors that span something.

    Args:
        atoms: frame
        where: ``"FILE, frame N"``
        file: path
        frame: index

    Yields:
        at most one error
    """
    if not np.isfinite(atoms.cell.array).all():
        yield Problem(
            "error",
            "cell",
            f"{where}: the cell has NaN or infinite entries; remove the frame.",
            file,
            frame,
        )
        return
    if not atoms.pbc.any():
        return
    zero = atoms.cell.lengths() == 0.0
    empty = ["abc"[axis] for axis in np.flatnonzero(atoms.pbc & zero)]
    if empty or atoms.cell.complete().volume < TINY_VOLUME:
        what = f"lattice vector {empty[0]} is zero" if empty else "the cell has no volume"
        yield Problem(
            "error",
            "cell",
            f"{where}: the frame is periodic but {what}; give the Lattice, or set pbc to F for a "
            "molecule.",
            file,
            frame,
        )


def geometry_problems(atoms: Atoms, where: str, file: str, frame: int) -> Iterator[Problem]:
    """Atoms at unusable places, twice at the same place, or of no element.

    Yields:
        at most one error of each kind
    """
    if len(atoms) == 0:
        yield Problem(
            "error", "no_atoms", f"{where}: the frame has no atoms; remove it.", file, frame
        )
        return
    nowhere = np.flatnonzero(atoms.numbers == 0)
    if nowhere.size:
        yield Problem(
            "error",
            "no_element",
            f"{where}: atom {nowhere[0]} has no element (X); write its chemical symbol.",
            file,
            frame,
        )
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if bad.size:
        yield Problem(
            "error",
            "positions",
            f"{where}: {_name(atoms, bad[0])} has a NaN or infinite position; remove the frame.",
            file,
            frame,
        )
        return
    for i, j, distance in close_pairs(atoms)[:1]:
        yield Problem(
            "error",
            "coincident",
            f"{where}: {_name(atoms, i)} and {_name(atoms, j)} are {distance:.3f} A apart; remove "
            "the doubled atom or the frame.",
            file,
            frame,
        )


def close_pairs(atoms: Atoms, limit: float = TOO_CLOSE) -> list[tuple[int, int, float]]:
    """Pairs of atoms nearer than ``limit``, over periodic boundaries too.

    Atoms are sorted along one axis and compared with the next few only, so that frames of
    thousands of atoms stay cheap. Rounding to the nearest image is exact here, because ``limit``
    is far below half a cell.

    Args:
        atoms: frame with finite positions
        limit: distance (A)

    Returns:
        (i, j, distance in A) with i < j
    """
    cell = atoms.cell.complete().array
    if len(atoms) < 2 or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < TINY_VOLUME:
        return []
    inverse = np.linalg.inv(cell)
    scaled, pbc = atoms.positions @ inverse, atoms.pbc
    scaled = np.where(pbc, scaled - np.floor(scaled), scaled)
    # distance along an axis in A is |scaled| / |column of the inverse|
    spread = np.ptp(scaled, axis=0) / np.linalg.norm(inverse, axis=0)
    axis = int(np.argmax(spread))
    window = limit * np.linalg.norm(inverse[:, axis])

    index, along = np.arange(len(atoms)), scaled[:, axis]
    if pbc[axis]:  # atoms just above the lower face meet those just below the upper one
        ghosts = index[along < window]
        index, along = np.append(index, ghosts), np.append(along, along[ghosts] + 1.0)
    order = np.argsort(along, kind="stable")
    index, along = index[order], along[order]

    pairs: dict[tuple[int, int], float] = {}
    for step in range(1, len(index)):
        near = np.flatnonzero(along[step:] - along[:-step] < window)
        if near.size == 0:
            break
        i, j = index[near], index[near + step]
        delta = scaled[i] - scaled[j]
        distance = np.linalg.norm((delta - np.where(pbc, np.round(delta), 0.0)) @ cell, axis=1)
        for k in np.flatnonzero((distance < limit) & (i != j)):
            pairs[min(i[k], j[k]), max(i[k], j[k])] = distance[k]
    return [(int(i), int(j), float(distance)) for (i, j), distance in sorted(pairs.items())]


def valid(label: str, value: object, num_atoms: int) -> bool:
    """Whether a label has a usable shape and finite numbers only."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    shapes = {"energy": ((), (1,)), "forces": ((num_atoms, 3),), "stress": STRESS_SHAPES}[label]
    return array.shape in shapes and bool(np.isfinite(array).all())


def bad_labels(
    atoms: Atoms, labels: Mapping[str, object], where: str, file: str, frame: int
) -> Iterator[Problem]:
    """Labels that are not numbers, of the wrong shape, NaN or infinite.

    Args:
        atoms: frame
        labels: label -> value as found in the file
        where: ``"FILE, frame N"``
        file: path
        frame: index

    Yields:
        one error per bad label
    """
    for label, value in labels.items():
        if valid(label, value, len(atoms)):
            continue
        yield Problem("error", f"bad_{label}", _fault(atoms, label, value, where), file, frame)


def _fault(atoms: Atoms, label: str, value: object, where: str) -> str:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return f"{where}: the {label} is not a number ({value!r}); correct it or remove the frame."
    if label == "forces" and array.shape != (len(atoms), 3):
        return (
            f"{where}: forces have the shape {array.shape} instead of ({len(atoms)}, 3); write "
            "them as the column `forces:R:3`."
        )
    if label == "forces":
        atom = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        return f"{where}: the force on {_name(atoms, atom)} is NaN or infinite; remove the frame."
    if not np.isfinite(array).all():
        return f"{where}: the {label} is NaN or infinite; remove the frame."
    need = "one number" if label == "energy" else "6 (Voigt) or 9 numbers"
    return f"{where}: the {label} has the shape {array.shape} instead of {need}; correct it."
