"""Read frames the way NequIP's ``ASEDataset`` does, and find their labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread

from eqplugin.data.errors import DataError

__all__ = ["LABELS", "Labels", "ignored_tail", "label_keys", "normal_mapping", "read_frames"]

LABELS = ("energy", "forces", "stress")

# NequIP calls the energy of a frame ``total_energy``; both names mean it here.
_SAME = {"total_energy": "energy"}

# ``stress`` and the like, alone or with a method's name around it: REF_energy, dft_forces
_LABEL_LIKE = re.compile(r"energy|energies|force|stress|virial", re.IGNORECASE)
_SHORT = {"E", "F", "S", "e", "f"}


def normal_mapping(key_mapping: Mapping[str, str] | None) -> dict[str, str]:
    """Check a key mapping and give its targets this module's names.

    Args:
        key_mapping: key in the file -> ``energy``/``total_energy``, ``forces``, ``stress`` or any
            other NequIP field (which is not looked at here)

    Returns:
        key in the file -> target

    Raises:
        DataError: the mapping is written the wrong way round
    """
    mapping = {key: _SAME.get(target, target) for key, target in (key_mapping or {}).items()}
    for key, target in mapping.items():
        if key in (*LABELS, "total_energy") and target not in LABELS and _LABEL_LIKE.search(target):
            raise DataError(
                f"The key mapping '{key}: {target}' is the wrong way round: write the file's key "
                f"first, '{target}: {key}'."
            )
    return mapping


def read_frames(path: Path, ase_args: Mapping[str, object] | None = None) -> Iterator[Atoms]:
    """Yield the frames of a file.

    Args:
        path: any file ASE reads
        ase_args: keyword arguments for :func:`ase.io.iread`, such as ``format``

    Yields:
        frames

    Raises:
        DataError: ``ase_args`` holds ``index`` or ``filename``; reading itself may raise anything
    """
    options = dict(ase_args or {})
    for forbidden in ("index", "filename"):
        if forbidden in options:
            raise DataError(
                f"ase_args may not hold '{forbidden}': the whole file is read; split the file "
                "instead."
            )
    yield from iread(str(path), index=":", parallel=False, **options)


def ignored_tail(path: Path) -> tuple[int, int] | None:
    """Find what ASE silently leaves out: it stops reading extended XYZ at an empty line.

    Args:
        path: a file in (extended) XYZ format

    Returns:
        (number of the empty line, non-empty lines after it), or None if all is read
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    at = 0
    while at < len(lines) and lines[at].strip().isdigit():
        at += int(lines[at]) + 2
        while at < len(lines) and lines[at].lstrip().startswith("VEC"):
            at += 1
    rest = sum(1 for line in lines[at:] if line.strip())
    blank = at < len(lines) and not lines[at].strip()
    return (at + 1, rest) if blank and rest else None


def label_keys(atoms: Atoms) -> list[str]:
    """Keys of a frame that look like labels, in calculator, info and arrays."""
    results = atoms.calc.results if atoms.calc else {}
    return [
        key
        for key in (*results, *atoms.info, *atoms.arrays)
        if key in _SHORT or _LABEL_LIKE.search(key)
    ]


class Labels:
    """The labels of frames, found as NequIP finds them.

    NequIP looks at arrays, then info, then the calculator, and the later one wins. Hence a plain
    ``energy`` beats a mapped ``REF_energy`` in the same frame unless it is excluded.

    Args:
        key_mapping: key in the file -> label, from :func:`normal_mapping`
        exclude_keys: keys in the file that are not looked at
    """

    def __init__(self, key_mapping: Mapping[str, str], exclude_keys: Collection[str] = ()) -> None:
        self.targets = {"energy": "energy", "forces": "forces", "stress": "stress", **key_mapping}
        self.exclude_keys = frozenset(exclude_keys)

    def of(self, atoms: Atoms) -> tuple[dict[str, object], dict[str, list[str]]]:
        """Find the labels of one frame.

        Args:
            atoms: as read by ASE

        Returns:
            label -> value (unchecked), and label -> keys that offered *different* values
        """
        found: dict[str, object] = {}
        origin: dict[str, list[str]] = {}
        results = atoms.calc.results if atoms.calc else {}
        for source in (atoms.arrays, atoms.info, results):
            for key, value in source.items():
                target = self.targets.get(key)
                if target not in LABELS or key in self.exclude_keys:
                    continue
                if target not in found:
                    origin[target] = [key]
                elif not _same(found[target], value):
                    origin[target].append(key)
                found[target] = value
        return found, {label: keys for label, keys in origin.items() if len(keys) > 1}


def _same(one: object, other: object) -> bool:
    try:
        return bool(np.array_equal(np.asarray(one, float), np.asarray(other, float), True))
    except (TypeError, ValueError):
        return False
