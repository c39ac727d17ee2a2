"""`eqplugin model`: what a model file is, and the same model in a file without code."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from eqplugin.cli._common import user_errors

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Model files: what they hold, and the same models without code in the file (.eqm).",
)


@app.command()
@user_errors()
def convert(
    model: Path = typer.Argument(
        metavar="IN", help="NequIP .ckpt or .nequip.zip, or MACE .model; it is left as it is."
    ),
    out: Path = typer.Argument(metavar="OUT", help="The .eqm file; replaced if it exists."),
) -> None:
    """Write a model as an .eqm file: tensors and options as text, nothing that runs when opened.

    The numbers are the same. Nothing in a MACE .model is run for it, whoever made the file; a
    checkpoint is walked first and refused where it would run what no honest checkpoint does.

    Example: `eqplugin model convert stranger.model stranger.eqm`
    """
    from eqplugin.quiet import quiet
    from eqplugin.stacks import convert_model

    with quiet(stdout=True):
        header = convert_model(model, out)
    typer.echo(f"{out}: {header.builder}, {header.dtype}, {', '.join(header.species)}")


@app.command()
@user_errors()
def info(
    model: Path = typer.Argument(help="Any model file: .eqm, .ckpt, .nequip.zip or .pt2, .model."),
) -> None:
    """Print what a model file says of itself; nothing in it is run.

    Example: `eqplugin model info best.eqm`
    """
    from eqplugin.model_info import describe_file

    table = Table(show_header=False, box=None)
    for name, text in describe_file(model).items():
        table.add_row(name, text)
    Console(markup=False).print(table)
