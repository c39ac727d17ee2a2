"""Look into the HDF5 files of ``mace_prepare_data``: there, too, absent labels have zero weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eqplugin.errors import EqPluginError
from eqplugin.mace._label_checks import LABELS, label_fault, weight_fault
from eqplugin.mace._losses import LOSSES

_SUFFIXES = (".h5", ".hdf5")


def hdf5_files(path: str | Path) -> list[Path]:
    """The HDF5 files that MACE reads for ``path``: the file itself, or the shards of a folder."""
    path = Path(path)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    return [path] if path.suffix.lower() in _SUFFIXES else []


def check_hdf5(path: str | Path, needed: Sequence[str], loss: str, allow_missing: bool) -> int:
    """Refuse preprocessed data without the labels that the loss needs; return how many frames.

    Args:
        path: a file, or a folder of shards, which are taken together.
        needed: labels by MACE's names (``energy``, ``forces``, ``stress``, ``virials``, ...).
        loss: name of the loss.
        allow_missing: accept single frames without them, at zero weight.

    Raises:
        EqPluginError: for a file that is not such data; for labels that no frame has, that some
            lack, that are misshapen or not finite.
    """
    frames = [
        (where, {label: _is_labelled(frame, label, where, needed) for label in LABELS})
        for file in hdf5_files(path)
        for where, frame in _frames(file)
    ]
    if not frames:
        raise EqPluginError(f"{path} holds no frames: create it with mace_prepare_data.")
    for label in needed:
        missing = [where for where, has in frames if not has[label]]
        if len(missing) == len(frames):
            raise EqPluginError(
                f"{path}: no frame has the label {label}: prepare it again with "
                f"mace_prepare_data --{label}_key KEY, the key of your file."
            )
        heeded = label in LOSSES[loss].own_weight
        if missing and not (allow_missing and heeded):
            what = f"{path}: {len(missing)} of {len(frames)} frames (first: {missing[0]})"
            if not heeded:
                raise EqPluginError(
                    f"{what} have no {label} and would be trained towards zero, because --loss "
                    f"{loss} ignores weights of the {label}: label or remove them and prepare the "
                    f"data again."
                )
            raise EqPluginError(
                f"{what} have no {label} and would get zero weight: label or remove them and "
                f"prepare the data again, or add --allow_missing_labels."
            )
    return len(frames)


def _frames(file: Path) -> Iterator[tuple[str, Any]]:
    """(where, group) of each frame, as mace/data/utils.py:594-610 writes them."""
    try:
        with h5py.File(file, "r") as opened:
            for batch in opened.values():
                for name, frame in batch.items():
                    if "properties" not in frame or "property_weights" not in frame:
                        raise KeyError(name)
                    if not _is_isolated_atom(frame):
                        yield f"{file.name}:{frame.name}", frame
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise EqPluginError(
            f"{file} cannot be read as data of mace_prepare_data "
            f"({type(error).__name__}): create it again."
        ) from error


def _is_isolated_atom(frame: Any) -> bool:
    kind = frame["config_type"][()] if "config_type" in frame else b""
    return len(frame["atomic_numbers"]) == 1 and kind == b"IsolatedAtom"


def _is_labelled(frame: Any, label: str, where: str, needed: Sequence[str]) -> bool:
    """Whether a frame has a label that counts; refuses one that would stop or spoil a training."""
    weights = {f"config_{label}_weight": _stored(frame["property_weights"], label)}
    if "weight" in frame:
        weights["config_weight"] = frame["weight"][()]
    values = _stored(frame["properties"], label)
    num_atoms = len(frame["atomic_numbers"])
    faults = [weight_fault(name, weight) for name, weight in weights.items() if weight is not None]
    if values is not None:
        faults.append(label_fault(label, values, num_atoms, label in needed))
    for fault in filter(None, faults):
        raise EqPluginError(f"{where}: {fault}, and prepare the data again.")
    return values is not None and bool(np.any(weights[f"config_{label}_weight"]))


def _stored(group: Any, label: str) -> Any:
    values = group[label][()] if label in group else None
    return None if isinstance(values, bytes) else values  # MACE writes None as the text "None"
