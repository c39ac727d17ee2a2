"""Files, keys and E0s of each head of a MACE training, from its options."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from mace.tools.scripts_utils import check_path_ase_read

from eqplugin.errors import EqPluginError
from eqplugin.mace._hdf5_checks import hdf5_files
from eqplugin.mace._label_checks import LABELS

# pretraining sets that MACE downloads by name
_NAMED_SETS = ("mp", "matpes_pbe", "matpes_r2scan", "omat")
ROLES = ("train", "valid", "test")


@dataclass(frozen=True)
class HeadData:
    """Files and keys of one head."""

    name: str
    files: dict[str, list[str]]  # role (train, valid, test) -> paths that ASE can read
    prepared: dict[str, list[str]]  # role -> HDF5 files or folders of mace_prepare_data
    others: bool  # there are training data of other kinds (LMDB, sets that MACE downloads)
    keys: dict[str, str]  # label -> key in the file
    e0s: Any  # as given by the user
    elements: list[int] | None  # atomic numbers given by the user
    valid_fraction: float  # of the training data, where there is no validation file


def is_isolated_atom(atoms: Atoms) -> bool:
    """Whether MACE takes the frame for an E0 and not for training."""
    return len(atoms) == 1 and atoms.info.get("config_type") == "IsolatedAtom"


def literal(text: str, refusal: str) -> Any:
    """What a Python literal says.

    Raises:
        EqPluginError: with the refusal, where the text is not one.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise EqPluginError(refusal) from error


def heads_of(given: Any) -> dict[str, Any]:
    """``--heads`` as a dictionary."""
    if not isinstance(given, Mapping):
        given = literal(str(given), "--heads cannot be read: write a Python dictionary.")
    if not isinstance(given, Mapping) or not given:
        raise EqPluginError("--heads must be a dictionary, such as {'name': {...}}.")
    for name, options in given.items():
        if not isinstance(options, Mapping):
            raise EqPluginError(f"--heads: '{name}' must be a dictionary of files and E0s.")
    return dict(given)


def head_data(name: str, options: Mapping[str, Any]) -> HeadData:
    """One head's data.

    Args:
        name: of the head.
        options: of ``mace-train``, those of the head over those of the command.

    Raises:
        EqPluginError: for missing files and options that cannot be read.
    """
    files: dict[str, list[str]] = {}
    prepared: dict[str, list[str]] = {}
    others = False
    for role in ROLES:
        given = options.get(f"{role}_file") or []
        paths = [given] if isinstance(given, str) else list(given)
        if role == "train" and not paths:
            raise EqPluginError(f"No training data for head {name}: give --train_file.")
        local = [path for path in paths if path not in _NAMED_SETS]
        files[role] = [path for path in local if _readable_by_ase(path)]
        prepared[role] = [path for path in local if hdf5_files(path)]
        others |= role == "train" and len(files[role]) + len(prepared[role]) < len(paths)
    keys = {
        label: options.get("info_keys", {}).get(label)
        or options.get("arrays_keys", {}).get(label)
        or options[f"{label}_key"]
        for label in LABELS
    }
    fraction = float(options.get("valid_fraction") or 0.0)
    elements = _elements(options.get("atomic_numbers"))
    return HeadData(name, files, prepared, others, keys, options.get("E0s"), elements, fraction)


def _elements(given: Any) -> list[int] | None:
    if not isinstance(given, str):
        return None if given is None else list(given)
    refusal = f"--atomic_numbers {given} cannot be read: write a list such as [1, 6, 8]."
    try:
        return [int(z) for z in literal(given, refusal)]
    except (TypeError, ValueError) as error:
        raise EqPluginError(refusal) from error


def _readable_by_ase(path: str) -> bool:
    if not Path(path).exists():
        raise EqPluginError(f"{path} does not exist: check the path.")
    return check_path_ase_read(path)
