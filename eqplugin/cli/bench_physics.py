"""The command `eqplugin bench physics`."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from eqplugin.cli._common import user_errors
from eqplugin.errors import EqPluginError


@user_errors()
def physics(
    models: list[str] = typer.Argument(metavar="MODEL...", help="models"),
    structure: Path = typer.Option(
        help="file whose first frame is examined; its elements make the pairs"
    ),
    md_steps: int = typer.Option(
        2000, help="steps of 0.5 fs of NVE at 300 K; 0: no dynamics, the costly part"
    ),
    scan: list[Path] | None = typer.Option(
        None, help="frames along a dihedral or a normal mode, with energies or without"
    ),
    out: Path | None = typer.Option(None, help="folder for physics.json, pairs.png, scans.png"),
    device: str = typer.Option("cpu", help="`cpu` or `cuda`"),
    dtype: str = typer.Option(
        "float64", help="`float64` finds small faults, `float32` is as in dynamics"
    ),
) -> None:
    """Is it a potential: symmetries, forces = -dE/dx, extensivity, smooth pairs, energy drift.

    A number above its limit is marked and makes the exit status 1. MODEL is a file of NequIP or
    MACE, or any ASE calculator as `module:factory`. Rotation and inversion are those of a molecule
    or a cell as a whole; a potential that breaks them is not one. Scans are compared, not judged.

    **Examples**

        eqplugin bench physics demo/*/best.ckpt --structure examples/data/ethanol_xtb/test_300K.xyz

        eqplugin bench physics ase.calculators.emt:EMT --structure copper.xyz --md-steps 0

        eqplugin bench physics my.model --structure a.xyz --scan dihedral.xyz --scan mode_7.xyz
    """
    from eqplugin.measure.models import labels_of, open_model
    from eqplugin.measure.physics.scans import read_scan
    from eqplugin.measure.physics.suite import check_physics, check_table, write_physics
    from eqplugin.structures import read_structure

    if dtype not in ("float32", "float64"):
        raise EqPluginError(f"--dtype {dtype} is not possible: use float32 or float64.")
    if md_steps < 0:
        raise EqPluginError(f"--md-steps {md_steps} is not possible: use 0 or more.")
    atoms = read_structure(structure)
    atoms.calc = None
    scans = [read_scan(path) for path in scan or ()]
    if len({found.name for found in scans}) < len(scans):
        raise EqPluginError("Two --scan files have one name: rename one, the name is its label.")
    results = {}
    console = Console(stderr=True, markup=False)
    for label, model in zip(labels_of(models), models, strict=True):
        with console.status(Text(label)) as status:
            calculator = open_model(model, device, dtype)
            results[label] = check_physics(
                calculator,
                atoms,
                dtype,
                md_steps,
                lambda what, label=label, status=status: status.update(Text(f"{label}: {what}")),
                scans,
            )
    out_console = Console(markup=False)
    out_console.print(check_table(results).to_rich())
    if out is not None:
        write_physics(results, out)
        out_console.print(f"written: {out}/physics.json, pairs.png" + ", scans.png" * bool(scans))
    if any(found.failures for found in results.values()):
        raise typer.Exit(1)
