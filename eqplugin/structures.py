"""Read structures from files and say what is wrong with them: one reader, one set of limits.

A file then means the same to every command, and the same mistake gets the same sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import iread
from ase.io.formats import filetype, open_with_compression
from scipy.spatial import KDTree

from eqplugin.errors import EqPluginError, reason_of

MAX_COORDINATE = 1e6  # A; beyond it float64 no longer resolves bond lengths to 1e-9 A
SAME_PLACE = 0.1  # A; atoms nearer than this are the same atom written twice
MANY_ATOMS = 100_000  # ASE itself says so where smaller frames are cut short
MIN_LENGTH = 1e-6  # A, of a periodic lattice vector
MIN_INDEPENDENCE = 1e-6  # volume spanned by the unit vectors along the periodic lattice vectors
MIN_VOLUME = 1e-6  # A^3


class ReadError(EqPluginError):
    """A file of which no frame, or no further one, can be had."""

    def __init__(self, message: str, code: str, frame: int | None = None) -> None:
        super().__init__(message)
        self.code = code  # missing_file, empty, unreadable or ignored_tail
        self.frame = frame  # index of the frame that is unreadable


def read_structure(path: str | Path, index: int = 0) -> Atoms:
    """Return one frame of a file; raises like :func:`read_frames`."""
    return next(read_frames(path, index))


def read_frames(
    path: str | Path, /, index: str | int = ":", *, constraints: bool = False, **options: object
) -> Iterator[Atoms]:
    """Yield frames of a file, all of them by default.

    Args:
        path: any file that ASE reads; an ``@`` in its name belongs to the name.
        index: of one frame, or a slice as text, such as ``"::10"``.
        constraints: keep fixed atoms and the like, for dynamics. ASE would otherwise set the forces
            on them to zero, those of the reference as well as those of a model.
        **options: for :func:`ase.io.iread`, such as ``format``.

    Raises:
        ReadError: the file is missing or unreadable, has no such frame, or has an empty line that
            hides the frames after it; those before are yielded first.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is missing"
        raise ReadError(f"{path} {what}: check the path.", "missing_file")
    if not path.stat().st_size:
        raise _no_frame(path, 0)
    options = {"do_not_split_by_at_sign": True, **options}
    _refuse_endless_frame(path, options, index)
    count = 0
    try:
        for atoms in iread(path, index, parallel=False, **options):
            if not constraints:
                atoms.set_constraint()
            yield atoms
            count += 1
    except Exception as error:  # ASE's readers raise whatever they trip over
        # formats of a single structure assert that it is asked for
        if index not in (":", 0) and isinstance(error, AssertionError | IndexError):
            _refuse_ignored_tail(path, options, count)
            raise _no_frame(path, index) from None
        raise _unreadable(path, error, index if isinstance(index, int) else count) from error
    if not count or isinstance(index, str) or index < 0:
        _refuse_ignored_tail(path, options, count)
    if not count:
        raise _no_frame(path, index)


def _refuse_endless_frame(path: Path, options: Mapping[str, Any], index: str | int) -> None:
    """Refuse an XYZ frame of more atoms than the file has lines, for which ASE counts for hours."""
    if not _is_extxyz(path, options):
        return
    # ASE counts the lines of the frame after the last one that is wanted as well
    last = index + 1 if isinstance(index, int) and index >= 0 else None
    with open_with_compression(str(path), "rb") as file:
        frame = 0
        while (last is None or frame <= last) and (head := file.readline().strip()).isdigit():
            wanted = int(head)
            found = sum(1 for _ in islice(file, min(wanted + 1, sys.maxsize))) - 1
            if wanted > max(found, MANY_ATOMS):
                raise ReadError(
                    f"{path}, frame {frame}: its first line says {wanted} atoms, but only "
                    f"{max(found, 0)} follow: correct the number.",
                    "unreadable",
                    frame,
                )
            frame += 1


def _is_extxyz(path: Path, options: Mapping[str, Any]) -> bool:
    try:
        return (options.get("format") or filetype(str(path))) == "extxyz"
    except Exception:  # not known to ASE, which then says so itself
        return False


def _refuse_ignored_tail(path: Path, options: Mapping[str, Any], frame: int) -> None:
    """Refuse an empty line, after which ASE drops the rest of an XYZ file without a word."""
    if not _is_extxyz(path, options):
        return
    with open_with_compression(str(path), "rb") as file:
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    at = 0
    while at < len(lines) and lines[at].strip().isdigit():
        at += int(lines[at]) + 2
        while at < len(lines) and lines[at].lstrip().startswith("VEC"):
            at += 1
    lost = sum(1 for line in lines[at + 1 :] if line.strip())
    if at < len(lines) and not lines[at].strip() and lost:
        raise ReadError(
            f"{path}: line {at + 1} is empty, and reading stops there: the {lost} lines after it "
            f"would be ignored; remove the empty line.",
            "ignored_tail",
            frame,
        )


def _no_frame(path: Path, index: str | int) -> ReadError:
    if index in (":", 0):
        return ReadError(f"{path} holds no frames: give a file with at least one.", "empty")
    return ReadError(f"{path} has no frame {index}: give a lower number.", "empty")


def _unreadable(path: Path, error: Exception, frame: int) -> ReadError:
    if path.suffix == ".npz":
        sentence = (
            f"{path} is a NumPy archive, whose arrays have no standard names: build ase.Atoms "
            f"from them and write extended XYZ."
        )
        return ReadError(sentence, "unreadable", frame)
    symbol = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    if symbol.isalpha():
        sentence = (
            f"{path}, frame {frame}: '{symbol}' is not a chemical element; correct the first "
            f"column."
        )
    else:
        sentence = (
            f"{path} cannot be read at frame {frame} ({type(error).__name__}: "
            f"{reason_of(error)}): repair it, or save it in a format that ASE recognises."
        )
    return ReadError(sentence, "unreadable", frame)


class Fault(NamedTuple):
    """What is wrong with a structure."""

    code: str  # no_atoms, no_element, positions, coincident or cell
    sentence: str  # names the culprit and says what to do


def structure_faults(atoms: Atoms, *, strict: bool = True) -> Iterator[Fault]:
    """Yield what is wrong with a structure, at most one fault of a kind.

    Args:
        atoms: structure.
        strict: also refuse what a calculator could evaluate but nobody means: atoms of no element,
            two atoms in one place, a periodic structure whose cell has no volume.
    """
    if len(atoms) == 0:
        yield Fault("no_atoms", "the structure has no atoms; give at least one.")
        return
    if strict and (atoms.numbers == 0).any():
        first = int(np.argmin(atoms.numbers))
        yield Fault("no_element", f"atom {first} has no element (X); write its chemical symbol.")
    usable = np.abs(atoms.positions) < MAX_COORDINATE  # False for NaN, too
    if not usable.all():
        first = int(np.argmin(usable.all(axis=1)))
        yield Fault(
            "positions",
            f"{atom_name(atoms, first)} has the position {atoms.positions[first].tolist()}; "
            f"positions must be finite and within 1e6 A.",
        )
    elif strict:
        for pair in close_pairs(atoms)[:1]:
            yield Fault("coincident", f"{pair_description(atoms, *pair)}; remove one of them.")
    sentence = _cell_fault(atoms, strict)
    if sentence:
        yield Fault("cell", sentence)


def _cell_fault(atoms: Atoms, strict: bool) -> str | None:
    cell, pbc = atoms.cell.array, atoms.pbc
    if not (np.abs(cell) < MAX_COORDINATE).all():
        return f"the cell {cell.tolist()} has entries that are not finite or above 1e6 A."
    lengths = np.linalg.norm(cell, axis=1)
    for axis in np.flatnonzero(pbc & (lengths < MIN_LENGTH)):
        return (
            f"the structure is periodic along lattice vector {'abc'[axis]}, which is zero; give "
            f"the cell, or set pbc to F there."
        )
    # the vectors of directions that are not periodic may be anything, zero included
    rows = cell[pbc] / lengths[pbc, None]
    if len(rows) > 1 and np.sqrt(max(np.linalg.det(rows @ rows.T), 0.0)) < MIN_INDEPENDENCE:
        return (
            f"the periodic lattice vectors {cell[pbc].tolist()} are not independent; correct the "
            f"cell."
        )
    if strict and pbc.any() and atoms.cell.complete().volume < MIN_VOLUME:
        return "the structure is periodic but its cell has no volume; correct the cell."
    return None


def check_structure(atoms: Atoms, where: str = "", *, strict: bool = False) -> None:
    """Raise the first of :func:`structure_faults`.

    Args:
        atoms: the structure.
        where: what the sentence begins with, such as ``"FILE, frame 3: "``.
        strict: see :func:`structure_faults`.

    Raises:
        EqPluginError: naming the atom or the lattice vector.
    """
    for fault in structure_faults(atoms, strict=strict):
        raise EqPluginError(where + fault.sentence)


def close_pairs(atoms: Atoms, limit: float = SAME_PLACE) -> list[tuple[int, int, float]]:
    """Return pairs of atoms nearer than ``limit``, over periodic boundaries too.

    Rounding to the nearest image is exact here, because ``limit`` is far below half a cell.

    Args:
        atoms: structure with finite positions.
        limit: distance in A.

    Returns:
        (i, j, distance in A) with i < j, sorted; none where the cell has no volume.
    """
    cell, pbc = atoms.cell.array.copy(), atoms.pbc
    if len(atoms) < 2 or not np.isfinite(cell).all():
        return []
    if not pbc.all():  # vectors of other directions play no part
        cell[~pbc] = np.linalg.svd(cell[pbc])[2][pbc.sum() :]
    if abs(np.linalg.det(cell)) < MIN_VOLUME:
        return []
    inverse = np.linalg.inv(cell)
    scaled = atoms.positions @ inverse
    scaled[:, pbc] %= 1.0
    # along the normals of the faces, in A, no pair is farther apart than its distance
    heights = 1 / np.linalg.norm(inverse, axis=0)
    # the period is a hair too long, because a coordinate may round to it; 0: not periodic
    tree = KDTree(scaled * heights, boxsize=np.where(pbc, heights * (1 + 1e-12), 0.0))
    i, j = tree.query_pairs(1.001 * limit, p=np.inf, output_type="ndarray").T
    offset = scaled[i] - scaled[j]
    distance = np.linalg.norm((offset - np.where(pbc, np.round(offset), 0.0)) @ cell, axis=1)
    near = distance < limit
    return sorted(zip(i[near].tolist(), j[near].tolist(), distance[near].tolist(), strict=True))


def element_name(number: int) -> str:
    """Return the chemical symbol, or ``"atomic number 150"`` where there is none."""
    known = 0 <= number < len(chemical_symbols)
    return chemical_symbols[number] if known else f"atomic number {number}"


def atom_name(atoms: Atoms, index: int) -> str:
    """Return the name of an atom in sentences, such as ``"atom 2 (H)"``."""
    return f"atom {index} ({element_name(atoms.numbers[index])})"


def pair_description(atoms: Atoms, i: int, j: int, distance: float) -> str:
    """Return ``"atoms 0 (O) and 1 (H) are 0.050 A apart"``."""
    first, second = (element_name(atoms.numbers[index]) for index in (i, j))
    return f"atoms {i} ({first}) and {j} ({second}) are {distance:.3f} A apart"
