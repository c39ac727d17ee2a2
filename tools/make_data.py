"""Make the quick-start data in ``examples/data`` from their seeds, or verify their labels.

    python tools/make_data.py make ethanol-xtb --out examples/data/ethanol_xtb
    python tools/make_data.py verify examples/data/ethanol_xtb --every 1

Ethanol needs tblite: ``pip install eqplugin[xtb]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from quickstart_data.make import make_dataset
from quickstart_data.verify import verify_labels
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eqplugin.cli._common import print_error, user_errors

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=__doc__.splitlines()[0])


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per file, on stderr so that stdout stays a clean table."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bars: dict[str, int] = {}
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:

        def advance(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = bar.add_task(name, total=total)
            bar.update(bars[name], completed=done)

        yield advance


@app.command()
@user_errors()
def make(
    name: Annotated[str, typer.Argument(help="`ethanol-xtb` or `cuau-emt`")],
    out: Annotated[Path, typer.Option(help="folder for the files; made if needed")],
    only: Annotated[list[str] | None, typer.Option(help="one file; may be repeated")] = None,
    force: Annotated[bool, typer.Option("--force", help="make existing files again")] = False,
) -> None:
    """Make a quick-start dataset from its seeds (five minutes for ethanol on one core).

    A file appears only when it is whole: run the command again after an interruption and it goes
    on with what is missing.

    **Examples**

        python tools/make_data.py make cuau-emt --out data/cuau_emt

        python tools/make_data.py make ethanol-xtb --out data/ethanol_xtb --only test_300K
    """
    with _progress() as progress:
        made = make_dataset(name, out, only=only or (), force=force, progress=progress)
    for file in made:
        state = "already there" if file.reused else "made"
        typer.echo(f"{file.path}: {file.frames} frames, {state}")


@app.command()
@user_errors()
def verify(
    folder: Annotated[Path, typer.Argument(help="a folder that the command `make` filled")],
    every: Annotated[int, typer.Option(help="recompute every n-th frame")] = 10,
) -> None:
    """Recompute labels with the method in `dataset.json` and compare.

    This is the test of shipped data: MD is chaotic, so another machine may make other frames from
    the same seed, but the labels of given frames agree everywhere. Fails above 1e-5 eV, 1e-4 eV/A
    or 1e-6 eV/A^3, and if a file has other bytes than recorded.

    **Example**

        python tools/make_data.py verify examples/data/ethanol_xtb --every 1
    """
    with _progress() as progress:
        verdict = verify_labels(folder, every=every, progress=progress)
    table = Table("file", "frames", "checked", "|dE| (eV)", "|dF| (eV/A)", "|dS| (eV/A^3)")
    for file in verdict.files:
        differences = (file.energy, file.forces, file.stress)
        worst = ["-" if value is None else f"{value:.1e}" for value in differences]
        table.add_row(file.file, str(file.frames), str(file.checked), *worst)
    Console().print(table)
    for problem in verdict.problems:
        print_error(problem)
    if not verdict.ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
