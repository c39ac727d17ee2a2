"""`eqplugin doctor`: is everything installed, does it work, and what to do if not."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eqplugin.doctor import Verdict, diagnose

_STYLE = {Verdict.ok: "green", Verdict.note: "yellow", Verdict.fault: "bold red"}


def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Does this installation work? Versions, MACE on e3nn 0.6, CUDA, optional kernels, compiler.

    A note concerns something optional. A fault is something that will not work; the exit status is
    then 1. The checks take about ten seconds.

    **Examples**

        eqplugin doctor

        eqplugin doctor --json
    """
    findings = list(diagnose())
    faults = sum(finding.verdict is Verdict.fault for finding in findings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        raise typer.Exit(int(faults > 0))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for finding in findings:
        table.add_row(
            finding.check,
            Text(finding.verdict.value, _STYLE[finding.verdict]),
            finding.found,
            finding.advice,
        )
    console = Console(markup=False)
    console.print(table)
    if faults:
        console.print(f"{faults} fault{'s' if faults > 1 else ''}.", style="bold red")
        raise typer.Exit(1)
    console.print("No faults.", style="green")
