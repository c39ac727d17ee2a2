"""Files that are either whole or absent, and the record kept beside them (``dataset.json``)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from ase import Atoms
from ase.io import write

from eqplugin.data.errors import DataError

__all__ = ["RECORD", "read_record", "sha256", "write_frames", "write_json"]

RECORD = "dataset.json"


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the name ``path`` only if the block ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; data is not private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    with _whole_file(path) as temporary:
        # newline: the same bytes, hence the same hash, on every system
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, all or nothing.

    Raises:
        DataError: the folder cannot be written
    """
    with _whole_file(path) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")


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
