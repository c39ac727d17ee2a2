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
        None,
        metavar="[COMMAND [ARGUMENTS]...]",
        help="A MACE command and its arguments; without one, list the commands.",
    ),
) -> None:
    """Run one of MACE's own commands, with MACE repaired for e3nn 0.6.

    The prefix mace_ may be left out. What follows the command's name goes to MACE.

    **Examples**

        eqplugin mace

        eqplugin mace -- eval_configs --help
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
    out: Path = typer.Argument(..., metavar="OUT", help="File to write; replaced if it exists."),
    e3nn: Literal["0.4", "0.6"] = typer.Option(
        ...,
        "--e3nn",
        help="0.4: for a plain MACE installation; 0.6: for e3nn 0.5 and newer.",
    ),
) -> None:
    """Write a MACE model for another version of e3nn; no number changes.

    **Examples**

        eqplugin mace-convert mine.model for_plain_mace.model --e3nn 0.4

        eqplugin mace-convert old.model new.model --e3nn 0.6
    """
    _import_mace()
    from eqplugin.mace.compat.convention import convention_of
    from eqplugin.mace.convert import convert_model

    model = convert_model(path, out, e3nn)
    signs = convention_of(model)
    typer.echo(f"{out}: {type(model).__name__} for e3nn {e3nn}, signs: {signs}")


@user_errors()
def mace_train(context: typer.Context) -> None:
    """Train a MACE model: all options of mace_run_train, and dimension-matched models.

    `--model SteerableMACE --feature_dim D --max_L L`, with `--hops h` for k-hop invariant models.
    `eqplugin mace-train --help` lists all options.
    """
    from eqplugin.mace.train import train

    train(context.args)


@user_errors()
def mace_export(
    model: Path = typer.Argument(help="A .model or .eqm file of MACE or eqplugin."),
    out: Path = typer.Option(
        None, help="File to write; default: MODEL-lammps.pt, or MODEL-mliap_lammps.pt for mliap."
    ),
    format: str = typer.Option(
        "libtorch", help="libtorch (pair_style mace) or mliap (ML-IAP unified)."
    ),
    head: str = typer.Option(
        None, help="Head to export, if the model has several; default: the last."
    ),
    dtype: str = typer.Option("float64", help="float64 or float32."),
) -> None:
    """Write a MACE model for LAMMPS; cuEquivariance is not needed.

    **Examples**

        eqplugin mace-export water.model

        eqplugin mace-export water.model --format mliap --dtype float32 --out water.pt
    """
    import torch

    from eqplugin.mace.export import export_lammps
    from eqplugin.mace.loading import read_model

    if dtype not in ("float32", "float64"):
        raise EqPluginError(f"--dtype {dtype} is not valid: use float32 or float64.")
    suffix = "-mliap_lammps.pt" if format == "mliap" else "-lammps.pt"
    target = out or model.with_name(model.name + suffix)
    written = export_lammps(read_model(model), target, format, head, getattr(torch, dtype))
    typer.echo(f"{written} is ready for LAMMPS.")


@user_errors()
def products(
    path: Path = typer.Argument(..., metavar="IN", help="A MACE .model file."),
    out: Path = typer.Argument(..., metavar="OUT", help="File to write; replaced if it exists."),
    back: bool = typer.Option(False, "--back", help="Convert back to the plain form, bit for bit."),
) -> None:
    """Make a MACE model faster on a CPU without changing its numbers, or make it plain again.

    One C++ operator replaces the tensor product and the sum over neighbours, and the symmetric
    contractions are formed from distinct monomials. Energies, forces, stress and gradients stay
    the same to rounding, weights and state dict exactly. MACECalculator and `eqplugin md` run OUT
    like IN.

    OUT runs on CPUs, where eqplugin and a C++ compiler are installed (half a minute, once). Convert
    it `--back` before you share it and before MACE's own GPU converters (cuEquivariance,
    OpenEquivariance). `mace-export` and `mace-convert --e3nn 0.4` write the plain form anyway.
    NequIP models need no converted file: use the modifier `enable_CompiledTP`.

    **Examples**

        eqplugin products water.model water_fast.model

        eqplugin products water_fast.model water.model --back
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
