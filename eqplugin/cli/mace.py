"""MACE's commands, its trainer, and its files converted, exported and made faster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from eqplugin.cli._common import user_errors
from eqplugin.errors import EqPluginError

# context settings: everything after the first word belongs to MACE's command, --help too
PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
# everything after the command's name belongs to MACE's own parser, --help included
TRAIN_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _import_mace() -> None:
    """Import eqplugin.mace, or say in one sentence why not."""
    try:
        import eqplugin.mace  # noqa: F401
    except ImportError as error:
        raise EqPluginError(str(error)) from error


@user_errors()
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
    _import_mace()
    from eqplugin.mace.commands import available_commands, run_command

    if not command:
        typer.echo("MACE's commands (the prefix mace_ may be left out):")
        for name in available_commands():
            typer.echo(f"  {name}")
        return
    name, *arguments = command
    raise typer.Exit(run_command(name, arguments))


@user_errors()
def mace_convert(
    path: Path = typer.Argument(..., metavar="IN", help="A MACE .model file."),
    out: Path = typer.Argument(..., metavar="OUT", help="Where to write; replaced if it exists."),
    e3nn: Literal["0.4", "0.6"] = typer.Option(
        ..., "--e3nn", help="0.4: for a plain MACE installation; 0.6: for e3nn 0.5 and newer."
    ),
) -> None:
    """Write a MACE model in the form that another version of e3nn reads; no number changes.

    Example: `eqplugin mace-convert here.model there.model --e3nn 0.4`
    """
    _import_mace()
    from eqplugin.mace.compat.convention import convention_of
    from eqplugin.mace.convert import convert_model

    model = convert_model(path, out, e3nn)
    signs = convention_of(model)
    typer.echo(f"{out}: {type(model).__name__} for e3nn {e3nn}, signs: {signs}")


@user_errors()
def mace_train(context: typer.Context) -> None:
    """Train a MACE model: all options of mace_run_train, and two more model families.

    `--model SteerableMACE --feature_dim D --max_L L`, or `--model KHopInvariantMACE` with
    `--hops h` as well. `eqplugin mace-train --help` lists all options.
    """
    from eqplugin.mace.train import train

    train(context.args)


@user_errors()
def mace_export(
    model: Path = typer.Argument(help="A .model or .eqm file of MACE or eqplugin."),
    out: Path = typer.Option(None, help="File to write; default: MODEL-lammps.pt and the like."),
    format: str = typer.Option("libtorch", help="libtorch (pair_style mace) or mliap (unified)."),
    head: str = typer.Option(None, help="Head of a model with several; default: the last."),
    dtype: str = typer.Option("float64", help="float64 or float32."),
) -> None:
    """Write a MACE model for LAMMPS; needs no cuEquivariance."""
    import torch

    from eqplugin.mace.export import export_lammps
    from eqplugin.mace.loading import read_model

    if dtype not in ("float32", "float64"):
        raise EqPluginError(f"--dtype {dtype} is not possible: use float32 or float64.")
    suffix = "-mliap_lammps.pt" if format == "mliap" else "-lammps.pt"
    target = out or model.with_name(model.name + suffix)
    written = export_lammps(read_model(model), target, format, head, getattr(torch, dtype))
    typer.echo(f"{written} is ready for LAMMPS.")


@user_errors()
def products(
    path: Path = typer.Argument(..., metavar="IN", help="A MACE .model file."),
    out: Path = typer.Argument(..., metavar="OUT", help="Where to write; replaced if it exists."),
    back: bool = typer.Option(False, "--back", help="From converted to plain, bit for bit."),
) -> None:
    """Make a MACE model faster on a CPU without changing its numbers, or make it plain again.

    Tensor product and sum over neighbours become one C++ operator, and the symmetric contractions
    are formed from distinct monomials: energies, forces, stress and gradients stay the same to
    rounding, weights and state dict exactly. MACECalculator and `eqplugin md` run OUT like IN.

    OUT is for CPUs and for machines with eqplugin and a C++ compiler (half a minute, once): convert
    it `--back` before handing it on, and before MACE's own converters for a GPU (cuEquivariance,
    OpenEquivariance); `mace-export` and `mace-convert --e3nn 0.4` write the plain form by
    themselves. NequIP models need no file of their own: there, name the modifier
    `enable_CompiledTP`.

    Examples:

      `eqplugin products water.model water_fast.model`

      `eqplugin products water_fast.model water.model --back`
    """
    _import_mace()
    from eqplugin.mace.products import convert_products, count_converted

    model = convert_products(path, out, back)
    kind = type(model).__name__
    if back:
        typer.echo(f"{out}: {kind} with MACE's own products")
    else:
        convolutions, contractions = count_converted(model)
        typer.echo(
            f"{out}: {kind} with {convolutions} compiled convolutions and {contractions} "
            f"contractions over monomials"
        )
