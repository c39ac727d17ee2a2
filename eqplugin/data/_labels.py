"""Find the labels of a frame the way NequIP's ``ASEDataset`` does, and judge them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms

from eqplugin.data.errors import DataError
from eqplugin.structures import Fault, atom_name

LABELS = ("energy", "forces", "stress")
_SAME = {"total_energy": "energy"}  # NequIP's name for the energy of a frame, and ours

# ``stress`` and the like, alone or with a method's name around it: REF_energy, dft_forces
_LABEL_LIKE = re.compile(r"energy|energies|force|stress|virial|dipole|polariz", re.IGNORECASE)
_SHORT = {"E", "F", "S", "e", "f"}
_STRESS_SHAPES = ((6,), (9,), (3, 3))
# where MACE looks for labels unless it is told otherwise
MACE_KEYS = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


def normalized_mapping(key_mapping: Mapping[str, str] | None) -> dict[str, str]:
    """Check a key mapping and give its targets this module's names.

    Args:
        key_mapping: key in the file -> ``energy``/``total_energy``, ``forces``, ``stress`` or any
            other NequIP field (which is not looked at here)

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


def label_keys(atoms: Atoms) -> list[str]:
    """Keys of a frame that look like labels, in calculator, info and arrays."""
    results = atoms.calc.results if atoms.calc else {}
    return [
        key
        for key in (*results, *atoms.info, *atoms.arrays)
        if key in _SHORT or (_LABEL_LIKE.search(key) and not key.endswith("_weight"))
    ]


class Labels:
    """Finds the labels of frames as NequIP does.

    NequIP looks at arrays, then info, then the calculator, and the later one wins. Hence a plain
    ``energy`` beats a mapped ``REF_energy`` in the same frame unless it is excluded.

    Args:
        key_mapping: key in the file -> label, from :func:`normalized_mapping`
        exclude_keys: keys in the file that are not looked at
        fallbacks: label -> key in the file, of a frame that has the label nowhere else
    """

    def __init__(
        self,
        key_mapping: Mapping[str, str],
        exclude_keys: Collection[str] = (),
        fallbacks: Mapping[str, str] | None = None,
    ) -> None:
        self.targets = {"energy": "energy", "forces": "forces", "stress": "stress", **key_mapping}
        self.exclude_keys = frozenset(exclude_keys)
        self.fallbacks = {
            label: key
            for label, key in (fallbacks or {}).items()
            if key not in self.exclude_keys and key not in key_mapping
        }

    def find(self, atoms: Atoms) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Label -> value (unchecked), and label -> keys that offered *different* values."""
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
                elif not same_numbers(found[target], value):
                    origin[target].append(key)
                found[target] = value
        for label, key in self.fallbacks.items():
            if label not in found:
                value = (atoms.arrays if label == "forces" else atoms.info).get(key)
                if value is not None:
                    found[label] = value
        return found, {label: keys for label, keys in origin.items() if len(keys) > 1}


def same_numbers(one: object, other: object) -> bool:
    """Whether two labels are the same numbers in the same shape."""
    try:
        return bool(np.array_equal(np.asarray(one, float), np.asarray(other, float), True))
    except (TypeError, ValueError):
        return False


def is_valid_label(label: str, value: object, num_atoms: int) -> bool:
    """Whether a label has a usable shape and finite numbers only."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    shapes = {"energy": ((), (1,)), "forces": ((num_atoms, 3),), "stress": _STRESS_SHAPES}[label]
    if np.asarray(value).dtype.kind == "b":  # a key without a value reads as True
        return False
    return array.shape in shapes and bool(np.isfinite(array).all())


def label_faults(atoms: Atoms, labels: Mapping[str, object]) -> Iterator[Fault]:
    """Yield a fault for every label that is no number, of the wrong shape, NaN or infinite.

    Their codes are ``bad_energy``, ``bad_forces`` and ``bad_stress``.
    """
    for label, value in labels.items():
        if not is_valid_label(label, value, len(atoms)):
            yield Fault(f"bad_{label}", _label_sentence(atoms, label, value))


def _label_sentence(atoms: Atoms, label: str, value: object) -> str:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return f"the {label} is not a number ({value!r}); correct it or remove the frame."
    if label == "forces" and array.shape != (len(atoms), 3):
        return (
            f"forces have the shape {array.shape} instead of ({len(atoms)}, 3); write them as the "
            "column `forces:R:3`."
        )
    if label == "forces":
        atom = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        return f"the force on {atom_name(atoms, atom)} is NaN or infinite; remove the frame."
    if not np.isfinite(array).all():
        return f"the {label} is NaN or infinite; remove the frame."
    need = "one number" if label == "energy" else "6 (Voigt) or 9 numbers"
    return f"the {label} has the shape {array.shape} instead of {need}; correct it."
