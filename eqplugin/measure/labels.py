"""Labelled frames for a benchmark: reference values apart from the atoms, absent ones as None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from eqplugin.data import DataReport, Labels, check_files
from eqplugin.data._labels import label_faults
from eqplugin.errors import EqPluginError
from eqplugin.structures import read_frames

__all__ = ["MACE_KEYS", "LabelledFrame", "checked_report", "frames_with_labels", "read_labelled"]

# the keys of MACE's data; plain ones are known to eqplugin.data
MACE_KEYS = {f"REF_{label}": label for label in ("energy", "forces", "stress")}


@dataclass(frozen=True)
class LabelledFrame:
    """A structure and what is known of it."""

    atoms: Atoms  # without a calculator
    energy: float | None  # total energy, eV; None if the file does not say
    forces: np.ndarray | None  # eV/A, (num_atoms, 3); None if the file does not say
    # eV/A^3, (6,) in ASE's Voigt order and sign; None if the file does not say
    stress: np.ndarray | None
    config_type: str  # the frame's group, `"-"` if it names none


def read_labelled(
    path: str | Path, key_mapping: Mapping[str, str] | None = None
) -> list[LabelledFrame]:
    """Read the frames of a file with their reference labels.

    Plain keys (``energy``, ``forces``, ``stress``) and MACE's (``REF_energy``, ...) are known;
    frames with ``config_type=IsolatedAtom`` are left out.

    Args:
        path: any file ASE reads.
        key_mapping: key in the file -> ``energy``, ``forces`` or ``stress``; replaces the known
            keys of that label.

    Raises:
        EqPluginError: a file that cannot be read, a label with impossible values, two keys that
            disagree about a label, no label at all.
    """
    given = dict(key_mapping or {})
    replaced = set(given.values()) - set(given)  # the plain keys that a key of the user's replaces
    mapping = {key: label for key, label in MACE_KEYS.items() if label not in replaced} | given
    report = checked_report([path], (), key_mapping=mapping, exclude_keys=sorted(replaced))
    frames = _labelled_frames(path, mapping, replaced)
    if not frames:
        raise EqPluginError(f"{path} holds only isolated atoms: give frames to test on.")
    if all(f.energy is None and f.forces is None and f.stress is None for f in frames):
        have = ", ".join(report.files[0].labels) or "none"
        raise EqPluginError(
            f"{path}: no frame has a label to compare with (label keys in the file: {have}): name "
            f"them with --key KEY=LABEL, such as --key dft_forces=forces."
        )
    return frames


def frames_with_labels(path: str | Path) -> list[LabelledFrame]:
    """Read frames that may have labels or not; the structures are not judged."""
    return _labelled_frames(path, MACE_KEYS, set())


def checked_report(
    paths: Sequence[str | Path], required: Sequence[str], **options: Any
) -> DataReport:
    """What :func:`eqplugin.data.check_files` finds, keys that disagree aside.

    Those are met again when the frames are read, where the advice is how to name the reference.

    Raises:
        EqPluginError: the first error.
    """
    report = check_files(paths, required=required, **options)
    for error in report.errors:
        if not error.code.startswith("conflict_"):
            raise EqPluginError(error.message)
    return report


def _labelled_frames(
    path: str | Path, mapping: Mapping[str, str], exclude: set[str]
) -> list[LabelledFrame]:
    labels = Labels(mapping, exclude)
    frames = []
    for index, atoms in enumerate(read_frames(path)):
        config_type = str(atoms.info.get("config_type", "-"))
        if config_type == "IsolatedAtom":
            continue
        values, conflicts = labels.find(atoms)
        for label, keys in conflicts.items():
            raise EqPluginError(
                f"{path}, frame {index}: the keys {' and '.join(keys)} disagree about the "
                f"{label}: name the reference with --key, such as --key {keys[0]}={label}."
            )
        for fault in label_faults(atoms, values):
            raise EqPluginError(f"{path}, frame {index}: {fault.sentence}")
        energy, forces, stress = (values.get(label) for label in ("energy", "forces", "stress"))
        frames.append(
            LabelledFrame(
                atoms.copy(),
                None if energy is None else float(energy),
                None if forces is None else np.asarray(forces),
                None if stress is None else _voigt(stress),
                config_type,
            )
        )
    return frames


def _voigt(stress: Any) -> np.ndarray:
    stress = np.asarray(stress, dtype=float)
    return stress if stress.shape == (6,) else full_3x3_to_voigt_6_stress(stress.reshape(3, 3))
