"""What the subcommands share: error sentences and option parsing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from eqplugin.errors import EqPluginError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["integer_range", "print_error", "print_warning", "read_structure", "user_errors"]


def print_error(sentence: str) -> None:
    """Print one sentence on stderr the way all commands do."""
    typer.echo(f"eqplugin: error: {sentence}", err=True)


def print_warning(sentence: str) -> None:
    """Print one sentence on stderr; the command goes on."""
    typer.echo(f"eqplugin: warning: {sentence}", err=True)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into one sentence on stderr and exit status 1."""
    try:
        yield
    except EqPluginError as error:
        print_error(str(error))
        raise typer.Exit(1) from None


def integer_range(option: str, text: str) -> list[int]:
    """Parse ``2``, ``0,1,4`` or ``0..6`` (both ends included) into a list of integers.

    >>> integer_range("--l-max", "0..3")
    [0, 1, 2, 3]

    Raises:
        EqPluginError: naming the option, for anything else.
    """
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split(".."))
            values = list(range(first, last + 1))
        else:
            values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values:
        raise EqPluginError(f"{option}={text} is not a range: write 2, or 0,1,4, or 0..6.")
    return values


def read_structure(path: Path, frame: int = 0) -> Atoms:
    """Read one frame of a structure file.

    Raises:
        EqPluginError: naming the file, or the frame that it does not have.
    """
    from ase.io import read

    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is missing"
        raise EqPluginError(f"The structure {path} {what}: check the path.")
    try:
        return read(path, index=frame)
    except Exception as error:  # ASE's readers raise whatever their parsing meets
        if isinstance(error, IndexError | StopIteration) and frame:
            raise EqPluginError(f"{path} has no frame {frame}: give a lower --frame.") from None
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise EqPluginError(
            f"{path} cannot be read as a structure ({reason}): give a file in a format that ASE "
            f"knows."
        ) from None
