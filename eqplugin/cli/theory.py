"""`eqplugin theory`: what steerable features can carry in a structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eqplugin.cli._common import counting, integer_range, user_errors

if TYPE_CHECKING:
    from eqplugin.design import Design

_ENDLESS = 10_000  # characters: a width at which no table is cut
_COUNTS_PER_TABLE = 8

app = typer.Typer(
    help="""What can steerable features carry in a structure of this symmetry?

    For each site: the feature dimensions that its symmetry leaves, and the degree it needs.

    **Examples**

        eqplugin theory info butyne.xyz
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _group() -> None:
    """Keep `theory info` a subcommand while it is the only one."""


@app.command()
@user_errors()
def info(
    structure: Path = typer.Argument(help="Any file that ASE reads (.xyz, .cif, POSCAR, ...)."),
    feature_dim: int = typer.Option(
        512, "--feature-dim", "-D", help="Feature dimension D: sum over l of mul_l (2l + 1)."
    ),
    l_max: str = typer.Option(
        "1..4", "--l-max", "-L", help="Highest degrees L: 2, or 0,1,4, or 0..6."
    ),
    cutoff: float | None = typer.Option(
        None,
        help="Radius in Å of a site's neighbourhood, such as the model's cutoff. Default: the "
        "whole molecule; 6 Å in a crystal.",
    ),
    parity: Literal["natural", "both"] = typer.Option(
        "natural", help="natural: 0e, 1o, 2e, ...; both: every degree with both parities."
    ),
    profile: Literal["uniform", "decreasing"] = typer.Option(
        "uniform", help="uniform: equal multiplicities; decreasing: halved with each degree."
    ),
    tolerance: float = typer.Option(
        0.01,
        help="Largest distance in Å between an atom's image and an atom for a symmetry to count; "
        "use 0.1 for MD frames.",
    ),
    frame: int = typer.Option(0, help="Index of the frame in the file."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Which feature dimensions survive at each site, and which degree does the site need?

    Every rotation that maps a site's neighbourhood onto itself leaves the site's features
    unchanged. This confines them to V_l^Stab, whatever the weights. L needed is the smallest degree
    at which features see every rotation of the neighbourhood: n for an n-fold rotor.

    **Examples**

        eqplugin theory info butyne.xyz --feature-dim 512 --l-max 1..4

        eqplugin theory info diamond.cif --cutoff 4.0 --json
    """
    from eqplugin.design import Design
    from eqplugin.structures import read_structure
    from eqplugin.theory.sites import site_report

    designs = [
        Design(feature_dim, degree, parity=parity, profile=profile)
        for degree in dict.fromkeys(integer_range("--l-max", l_max))
    ]
    atoms = read_structure(structure, frame)
    with counting("sites", len(atoms)) as advance:
        rows = site_report(atoms, designs, cutoff, tolerance, progress=advance)
    if as_json:
        typer.echo(json.dumps({"structure": str(structure), "sites": rows}, indent=2))
    else:
        _print(structure, rows, designs)


def _print(path: Path, rows: list[dict], designs: list[Design]) -> None:
    console = Console(markup=False)
    console.print(f"\n{path}", style="bold")
    table = _table(rows, designs, sites=True, counts=True)
    if Console(width=_ENDLESS, markup=False).measure(table).maximum <= console.width:
        console.print(table)
    else:  # nothing may be cut off: one table below the other
        console.print(_table(rows, designs, sites=True, counts=False))
        for start in range(0, len(designs), _COUNTS_PER_TABLE):
            some = designs[start : start + _COUNTS_PER_TABLE]
            console.print(_table(rows, some, sites=False, counts=True))
    console.print(_advice(rows))


def _table(rows: list[dict], designs: list[Design], *, sites: bool, counts: bool) -> Table:
    """Sites with the dimensions of V_l^Stab, the surviving counts per L, or both."""
    degrees = max(design.l_max for design in designs)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), caption_justify="left")
    captions = []
    table.add_column("atoms", overflow="fold")
    if sites:
        table.add_column("site\ngroup", no_wrap=True)
        table.add_column("neigh-\nbours", justify="right")
        table.add_column(f"l = 0..{degrees}")
        captions.append(f"dimensions of V_l^Stab for l = 0..{degrees}, natural parity")
    if counts:
        for design in designs:
            table.add_column(f"L={design.l_max}", justify="right", no_wrap=True)
        captions.append(
            f"how many of the {designs[0].feature_dim} feature dimensions survive at each L"
        )
    if sites:
        table.add_column("L\nneeded", justify="right", no_wrap=True)
        captions.append("L needed: below it, some rotation of the neighbourhood goes unseen")
    table.caption = "; ".join(captions)
    for row in rows:
        needed = row["l_max_needed"]
        cells: list[str | Text] = [f"{row['symbol']} {_indices(row['indices'])}"]
        if sites:
            natural = " ".join(map(str, row["natural"][: degrees + 1]))
            cells += [row["group"], str(row["num_neighbors"]), natural]
        if counts:
            cells += [_count(row, design.l_max) for design in designs]
        if sites:
            cells.append("> 8" if needed is None else str(needed))
        table.add_row(*cells)
    return table


def _count(row: dict, level: int) -> Text:
    count, needed = row["surviving_dimensions"][str(level)], row["l_max_needed"]
    return Text(str(count), "red" if needed is None or level < needed else "")


def _indices(indices: list[int]) -> str:
    shown = ",".join(map(str, indices[:6]))
    return f"{shown},... ({len(indices)})" if len(indices) > 6 else shown


def _advice(rows: list[dict]) -> str:
    needs = [row["l_max_needed"] for row in rows]
    if None in needs:
        return "At least one site needs more than L = 8: no practical model sees its orientation."
    most = max(needs)
    culprits = [row for row in rows if row["l_max_needed"] == most]
    where = ", ".join(
        f"{row['symbol']} {_indices(row['indices'])} ({row['group']})" for row in culprits[:3]
    )
    if most <= 1:
        return "L = 1 is enough for every site: a higher L adds cost here, not information."
    return (
        f"L = {most} keeps every direction at every site; it is needed by {where}. A lower L can "
        f"be enough if the sites' orientations do not matter, or away from these "
        f"symmetric geometries."
    )
