"""`eqplugin mace` and `eqplugin mace-convert`: MACE's commands and files beside NequIP."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from eqplugin.cli._common import user_errors
from eqplugin.errors import EqPluginError

# context settings: everything after the first word belongs to MACE's command, --help too
PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}


class E3NN(StrEnum):
    """Which e3nn is to read the file."""

    old = "0.4"
    new = "0.6"


def _import_mace() -> None:
    """Import eqplugin.mace, or say in one sentence why not."""
    try:
        import eqplugin.mace  # noqa: F401
    except ImportError as error:
        raise EqPluginError(str(error)) from error


def mace(
    command: list[str] = typer.Argument(
        None, metavar="[COMMAND [ARGUMENTS]...]", help="One of MACE's commands and its arguments."
    ),
) -> None:
    """Run one of MACE's own commands with MACE repaired for e3nn 0.6; without one, list them.

    Examples:

      `eqplugin mace -- mace_run_train --name my_model --train_file train.xyz ...`

      `eqplugin mace -- eval_configs --help`
    """
    with user_errors():
        _import_mace()
        from eqplugin.mace.commands import available_commands, run_command

        if not command:
            typer.echo("MACE's commands (the prefix mace_ may be left out):")
            for name in available_commands():
                typer.echo(f"  {name}")
            return
        name, *arguments = command
        raise typer.Exit(run_command(name, arguments))


def mace_convert(
    path: Path = typer.Argument(..., metavar="IN", help="A MACE .model file."),
    out: Path = typer.Argument(..., metavar="OUT", help="Where to write; replaced if it exists."),
    e3nn: E3NN = typer.Option(
        ..., "--e3nn", help="0.4: for a plain MACE installation; 0.6: for e3nn 0.5 and newer."
    ),
) -> None:
    """Write a MACE model in the form that another version of e3nn reads; no number changes.

    Like every pickle, a .model file can run code when it is read: convert files you trust.

    Example: `eqplugin mace-convert here.model there.model --e3nn 0.4`
    """
    with user_errors():
        _import_mace()
        from eqplugin.mace.compat.convention import convention_of
        from eqplugin.mace.convert import convert_model

        model = convert_model(path, out, e3nn.value)
        signs = convention_of(model)
        typer.echo(f"{out}: {type(model).__name__} for e3nn {e3nn.value}, signs: {signs}")
