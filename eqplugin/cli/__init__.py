"""The `eqplugin` command: thin subcommands over the library."""

from __future__ import annotations

import typer

from eqplugin._version import __version__
from eqplugin.cli.bench import app as bench_app
from eqplugin.cli.budget import budget
from eqplugin.cli.data import app as data_app
from eqplugin.cli.demo import demo
from eqplugin.cli.doctor import doctor
from eqplugin.cli.mace import PASS_ON, mace, mace_convert
from eqplugin.cli.mace_train import TRAIN_SETTINGS, mace_export, mace_train
from eqplugin.cli.md import md
from eqplugin.cli.products import products
from eqplugin.cli.report import report
from eqplugin.cli.study import STUDY_SETTINGS, study
from eqplugin.cli.templates import configs, template
from eqplugin.cli.theory import app as theory_app

__all__ = ["app"]

app = typer.Typer(
    name="eqplugin",
    help="Which equivariant model should I train, and is it worth its cost?",
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
    """Dimension-matched steerable and k-hop invariant models for NequIP and MACE.

    Train with NequIP's own command: `nequip-train -cp $PWD/configs/nequip -cn minimal`.
    """


app.command()(budget)
app.command()(configs)
app.command()(demo)
app.command()(doctor)
app.command(context_settings=PASS_ON)(mace)
app.command()(mace_convert)
app.command(context_settings=TRAIN_SETTINGS, add_help_option=False)(mace_train)
app.command()(mace_export)
app.command()(md)
app.command()(products)
app.command(context_settings=STUDY_SETTINGS)(study)
app.command()(report)
app.command()(template)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(theory_app, name="theory")
