"""The command `eqplugin bench physics`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eqplugin.cli._common import read_structure, user_errors
from eqplugin.errors import EqPluginError

__all__ = ["physics"]


@user_errors()
def physics(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="models")],
    structure: Annotated[
        Path, typer.Option(help="file whose first frame is examined; its elements make the pairs")
    ],
    md_steps: Annotated[
        int, typer.Option(help="steps of 0.5 fs of NVE at 300 K; 0: no dynamics, the costly part")
    ] = 2000,
    out: Annotated[Path | None, typer.Option(help="folder for physics.json and pairs.png")] = None,
    device: Annotated[str, typer.Option(help="`cpu` or `cuda`")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="`float64` finds small faults, `float32` is as in dynamics")
    ] = "float64",
) -> None:
    """Is it a potential: symmetries, forces = -dE/dx, extensivity, smooth pairs, energy drift.

    A number above its limit is marked and makes the exit status 1. MODEL is a file of NequIP or
    MACE, or any ASE calculator as `module:factory`. Rotation and inversion are those of a molecule
    or a cell as a whole; a potential that breaks them is not one.

    **Examples**

        eqplugin bench physics demo/*/best.ckpt --structure examples/data/ethanol_xtb/test_300K.xyz

        eqplugin bench physics ase.calculators.emt:EMT --structure copper.xyz --md-steps 0
    """
    from eqplugin.bench.models import labels_of, open_model
    from eqplugin.bench.physics.run import examine, table_of
    from eqplugin.bench.physics.symmetry import Precision
    from eqplugin.bench.tables import rich_table

    if dtype not in ("float32", "float64"):
        raise EqPluginError(f"--dtype {dtype} is not possible: use float32 or float64.")
    if md_steps < 0:
        raise EqPluginError(f"--md-steps {md_steps} is not possible: use 0 or more.")
    atoms = read_structure(structure)
    atoms.calc = None
    results = {}
    console = Console(stderr=True)
    for label, model in zip(labels_of(models), models, strict=True):
        with console.status(label) as status:
            calculator = open_model(model, device, dtype)
            results[label] = examine(
                calculator, atoms, Precision.of(dtype), md_steps,
                lambda what, label=label, status=status: status.update(f"{label}: {what}"),
            )  # fmt: skip
    heads, rows = table_of(results)
    out_console = Console()
    out_console.print(rich_table("", ("check", "unit", "limit"), heads, rows))
    if out is not None:
        _write(results, out)
        out_console.print(f"written: {out}/physics.json, pairs.png")
    if any(found.failures for found in results.values()):
        raise typer.Exit(1)


def _write(results: dict, out: Path) -> None:
    from eqplugin.bench.physics.plots import plot_pairs
    from eqplugin.files import write_json

    content = {
        model: [_finite({**asdict(c), "passed": c.passed}) for c in found.checks]
        for model, found in results.items()
    }
    write_json(out / "physics.json", {"schema": "eqplugin.bench.physics/1", "models": content})
    plot_pairs({model: found.curves for model, found in results.items()}, out / "pairs.png")


def _finite(check: dict) -> dict:
    # JSON has no NaN: a check that could not be measured has no value
    return {**check, "value": check["value"] if check["value"] == check["value"] else None}
