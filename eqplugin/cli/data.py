"""The command ``eqplugin data check``."""

from __future__ import annotations

import math
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from eqplugin.cli._common import user_errors
from eqplugin.data.errors import DataError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Check labelled data (extended XYZ; eV, A, eV/A, eV/A^3).",
)


@app.callback()
def _group() -> None:
    """Keep `data check` a subcommand while it is the only one."""


@app.command()
@user_errors()
def check(
    files: list[str] = typer.Argument(help="files that ASE reads, e.g. extended XYZ"),
    forces: bool = typer.Option(True, help="whether every frame must have forces"),
    stress: bool = typer.Option(False, help="whether every frame must have stress"),
    species: str | None = typer.Option(None, help="species of the model: `C,H,O`"),
    e0s: str | None = typer.Option(
        None, help='isolated-atom energies (eV): a file of atoms, or JSON `{"H": -13.6}`'
    ),
    r_max: float | None = typer.Option(None, help="cutoff (A)"),
    key: list[str] | None = typer.Option(None, help="key in the file = label; may be repeated"),
    exclude: list[str] | None = typer.Option(
        None, help="key in the file to ignore; may be repeated"
    ),
    format: str | None = typer.Option(None, help="ASE's name of the file format"),
    json: Path | None = typer.Option(None, help="write the report to this file"),
) -> None:
    """Check data files before training: every problem at once, each in one sentence.

    Exit code 1 if there is an error. Warnings and notes do not fail. Give training and test files
    together, and frames that are in both are reported.

    **Examples**

        eqplugin data check train.xyz test.xyz --species C,H,O --e0s isolated_atoms.xyz

        eqplugin data check train.xyz --key REF_energy=total_energy --key REF_forces=forces

        eqplugin data check isolated_atoms.xyz --no-forces
    """
    from eqplugin.data.check import check_files
    from eqplugin.files import write_json

    mapping = _mapping(key or [])
    wanted = {"energy": True, "forces": forces, "stress": stress}
    report = check_files(
        files,
        required=tuple(label for label, on in wanted.items() if on),
        r_max=r_max,
        species=None if species is None else [s.strip() for s in species.split(",") if s.strip()],
        isolated_atoms=e0s,
        key_mapping=mapping,
        exclude_keys=exclude or (),
        mace_keys=not mapping,
        ase_args={"format": format} if format else None,
    )
    if json:
        write_json(json, report.to_dict())
    if any(file.frames for file in report.files):
        Console().print(_table(report.files))
    for problem in report.problems:
        typer.echo(f"eqplugin: {problem.level}: {problem.message}", err=True)
    if not report.problems:
        typer.echo("Nothing to mend was found.")
    if not report.ok:
        raise typer.Exit(1)


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        source, equals, label = pair.partition("=")
        if not (source and equals and label):
            raise DataError(f"--key {pair}: write KEY=LABEL, such as REF_forces=forces.")
        mapping[source] = label
    return mapping


def _table(files: list) -> Table:
    # eight columns with two-line heads, to fit a terminal of 80 characters
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    names = [Path(file.path).name for file in files]
    table.add_column("file", overflow="fold", min_width=min(14, max(map(len, names))))
    for column in ("frames", "atoms", "types", "pbc"):
        table.add_column(column, overflow="fold", min_width=len(column))
    table.add_column("labels", no_wrap=True)
    table.add_column("energy\n(eV/atom)", no_wrap=True)
    table.add_column("F rms, max\n(eV/A)", no_wrap=True, min_width=10)
    for file, name in zip(files, names, strict=True):
        low, high = file.atoms
        labels = [n if c == file.frames else f"{n} ({c})" for n, c in file.labels.items()]
        table.add_row(
            # the whole path only where it is needed to tell two files apart
            name if names.count(name) == 1 else file.path,
            f"{file.frames}\n{file.duplicates} dup." if file.duplicates else str(file.frames),
            str(low) if low == high else f"{low}..{high}",
            " ".join(file.species),
            file.periodic,
            "\n".join(labels),
            _or_dash("{:.2f}..{:.2f}", *file.energy_per_atom),
            _or_dash("{:.3f}, {:.1f}", file.force_rms, file.force_max),
        )
    return table


def _or_dash(pattern: str, *values: float) -> str:
    return "-" if any(math.isnan(value) for value in values) else pattern.format(*values)
