"""What the subcommands share: error sentences, option parsing and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eqplugin.errors import EqPluginError, is_out_of_memory, reason_of
from eqplugin.files import is_refusal


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
    except OSError as error:
        if not is_refusal(error):
            raise
        name = error.filename or "a file"
        print_error(f"{name} cannot be read or written: {error.strerror}.")
        raise typer.Exit(1) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print_error(
            f"there is not enough memory ({reason_of(error).rstrip('.')}): use fewer atoms, "
            f"smaller batches, or a machine with more memory."
        )
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


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, so that stdout stays a clean table; gives what advances it by one."""
    name = TextColumn(what, markup=False)
    columns = name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
