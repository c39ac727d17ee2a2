"""`eqplugin mace-train` and `eqplugin mace-export`: MACE's trainer and LAMMPS files."""

from __future__ import annotations

from pathlib import Path

import typer

from eqplugin.cli._common import user_errors

# everything after the command's name belongs to MACE's own parser, --help included
TRAIN_SETTINGS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def mace_train(context: typer.Context) -> None:
    """Train a MACE model: all options of mace_run_train, and two more model families.

    `--model SteerableMACE --feature_dim D --max_L L`, or `--model KHopInvariantMACE` with
    `--hops h` as well. `eqplugin mace-train --help` lists all options.
    """
    with user_errors():
        from eqplugin.mace.train import train  # torch loads only when the command really runs

        train(context.args)


def mace_export(
    model: Path = typer.Argument(help="A .model file of MACE or eqplugin (a pickle: trust it)."),
    out: Path = typer.Option(None, help="File to write; default: MODEL-lammps.pt and the like."),
    format: str = typer.Option("libtorch", help="libtorch (pair_style mace) or mliap (unified)."),
    head: str = typer.Option(None, help="Head of a model with several; default: the last."),
    dtype: str = typer.Option("float64", help="float64 or float32."),
) -> None:
    """Write a MACE model for LAMMPS; needs no cuEquivariance."""
    with user_errors():
        import torch

        from eqplugin.errors import EqPluginError
        from eqplugin.mace.export import export_lammps
        from eqplugin.mace.loading import read_model

        dtypes = {"float32": torch.float32, "float64": torch.float64}
        if dtype not in dtypes:
            raise EqPluginError(f"--dtype {dtype} is not possible: use float32 or float64.")
        suffix = "-mliap_lammps.pt" if format == "mliap" else "-lammps.pt"
        target = out or model.with_name(model.name + suffix)
        written = export_lammps(read_model(model), target, format, head, dtypes[dtype])
        typer.echo(f"{written} is ready for LAMMPS.")
