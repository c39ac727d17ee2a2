"""Files that are either whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqplugin.errors import EqPluginError


@contextmanager
def whole_file(path: str | Path, error: type[EqPluginError] = EqPluginError) -> Iterator[Path]:
    """Give a temporary file that takes the name ``path`` only if the block ends well.

    The folder is made if need be; ``error`` is raised where it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"{path} is a directory: name a file to write.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the suffix stays the last part of the name: numpy and matplotlib go by it
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
        )
    except OSError as problem:
        raise error(f"{path} cannot be written: {problem.strerror or problem}.") from problem
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results are not private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, error: type[EqPluginError] = EqPluginError) -> None:
    """Write text, all or nothing, with the same bytes (hence the same hash) on every system."""
    with whole_file(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(
    path: str | Path, content: object, error: type[EqPluginError] = EqPluginError
) -> None:
    """Write indented JSON, all or nothing.

    Raises:
        ValueError: for NaN and infinity, which are not JSON.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", error)
