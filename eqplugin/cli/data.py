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
    help="""Check labelled data before training.

    Units are eV, Å, eV/Å and eV/Å^3; files are any that ASE reads, such as extended XYZ.

    **Examples**

        eqplugin data check train.xyz test.xyz
    """,
)


@app.callback()
def _group() -> None:
    """Keep `data check` a subcommand while it is the only one."""


@app.command()
@user_errors()
def check(
    files: list[str] = typer.Argument(help="Files that ASE reads, e.g. extended XYZ."),
    forces: bool = typer.Option(True, help="Require forces in every frame."),
    stress: bool = typer.Option(False, help="Require stress in every frame."),
    species: str | None = typer.Option(
        None, help="Species of the model, e.g. `C,H,O`; others in the files are errors."
    ),
    e0s: str | None = typer.Option(
        None, help='Isolated-atom energies (eV): a file of single atoms, or JSON `{"H": -13.6}`.'
    ),
    r_max: float | None = typer.Option(None, help="Cutoff of the model (Å)."),
    key: list[str] | None = typer.Option(
        None, help="KEY=LABEL: a key in the files and its label. Repeat for several."
    ),
    exclude: list[str] | None = typer.Option(
        None, help="A key in the files to ignore. Repeat for several."
    ),
    format: str | None = typer.Option(
        None, help="ASE's name for the file format; default: recognised from the file."
    ),
    json: Path | None = typer.Option(None, help="Write the report to this file."),
) -> None:
    """Is this data fit for training? Report every problem at once, each in one sentence.

    Exit status 1 if there is an error; warnings and notes do not change it. Give training and test
    files together to have frames that are in both reported.

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
        Console(markup=False).print(_table(report.files))
    for problem in report.problems:
        typer.echo(f"eqplugin: {problem.level}: {problem.message}", err=True)
    if not report.ok:
        raise typer.Exit(1)
    if not report.problems:
        typer.echo("eqplugin: nothing wrong was found.")


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
    table.add_column("labels", no_wrap=True)  # a key is there to be copied
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
