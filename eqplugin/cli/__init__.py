"""The `eqplugin` command: thin subcommands over the library."""

from __future__ import annotations

import typer

from eqplugin._version import __version__
from eqplugin.cli.bench_expressivity import expressivity
from eqplugin.cli.bench_forces import forces
from eqplugin.cli.bench_physics import physics
from eqplugin.cli.bench_speed import speed
from eqplugin.cli.budget import budget
from eqplugin.cli.data import app as data_app
from eqplugin.cli.demo import demo
from eqplugin.cli.doctor import doctor
from eqplugin.cli.lammps import lammps
from eqplugin.cli.mace import (
    PASS_ON,
    TRAIN_SETTINGS,
    mace,
    mace_convert,
    mace_export,
    mace_train,
    products,
)
from eqplugin.cli.md import md
from eqplugin.cli.report import report
from eqplugin.cli.study import STUDY_SETTINGS, study
from eqplugin.cli.templates import configs, template
from eqplugin.cli.theory import app as theory_app

__all__ = ["app"]

app = typer.Typer(
    name="eqplugin",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eqplugin {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Which equivariant model should I train, and is it worth its cost?

    Dimension-matched steerable and k-hop invariant models for NequIP and MACE. NequIP models are
    trained with NequIP's own command, `nequip-train`.

    **Examples**

        eqplugin demo

        eqplugin study quickstart --dry-run

        nequip-train -cp $(eqplugin configs)/nequip -cn minimal
    """


bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Measure models: errors on labelled data, physics, speed, and what they can tell apart.

    Each command prints a table; `--out` writes it to files, with plots.

    **Examples**

        eqplugin bench forces best.ckpt test.xyz

        eqplugin bench speed best.ckpt my.model --structure water.xyz
    """,
)
for command in (forces, physics, speed, expressivity):
    bench.command()(command)

for command in (budget, configs, demo, doctor):
    app.command()(command)
app.command(context_settings=PASS_ON)(mace)
app.command()(mace_convert)
app.command(context_settings=TRAIN_SETTINGS, add_help_option=False)(mace_train)
for command in (mace_export, md, lammps, products):
    app.command()(command)
app.command(context_settings=STUDY_SETTINGS)(study)
for command in (report, template):
    app.command()(command)
for group, name in ((bench, "bench"), (data_app, "data"), (theory_app, "theory")):
    app.add_typer(group, name=name)
