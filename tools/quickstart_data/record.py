"""Frames and the record kept beside them (``dataset.json``)."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from pathlib import Path

from ase import Atoms
from ase.io import write

from eqplugin.data.errors import DataError
from eqplugin.files import write_text

__all__ = ["RECORD", "read_record", "sha256", "write_frames"]

RECORD = "dataset.json"


def write_frames(path: Path, frames: list[Atoms]) -> None:
    """Write labelled frames as extended XYZ, all or nothing.

    Args:
        path: target
        frames: with a calculator that holds the labels

    Raises:
        DataError: the folder cannot be written
    """
    text = StringIO()
    write(text, frames, format="extxyz")
    write_text(path, text.getvalue(), error=DataError)


def read_record(folder: Path) -> dict | None:
    """Read the ``dataset.json`` of a folder; None if there is none.

    Raises:
        DataError: it is there but is not a record of ours
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["files"], dict) or not isinstance(record["name"], str):
            raise TypeError("wrong structure")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a record that eqplugin wrote ({error!r}): restore it, or delete it and "
            "make the data again."
        ) from error
    return record


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
