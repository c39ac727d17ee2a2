"""`eqplugin products`: faster products inside a MACE model file, and back."""

from __future__ import annotations

from pathlib import Path

import typer

from eqplugin.cli._common import user_errors


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

    Like every pickle, a .model file can run code when it is read: convert files you trust.

    Examples:

      `eqplugin products water.model water_fast.model`

      `eqplugin products water_fast.model water.model --back`
    """
    with user_errors():
        from eqplugin.cli.mace import _import_mace

        _import_mace()
        from eqplugin.mace.products import convert_products, count_converted

        model = convert_products(path, out, back)
        if back:
            typer.echo(f"{out}: {type(model).__name__} with MACE's own products")
        else:
            convolutions, contractions = count_converted(model)
            typer.echo(
                f"{out}: {type(model).__name__} with {convolutions} compiled convolutions and "
                f"{contractions} contractions over monomials"
            )
