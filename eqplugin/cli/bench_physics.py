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
    models: list[str] = typer.Argument(metavar="MODEL...", help="Models to check."),
    structure: Path = typer.Option(
        help="Structure file: the checks use its first frame, the pair curves its elements."
    ),
    md_steps: int = typer.Option(
        2000, help="Steps of NVE dynamics (0.5 fs, 300 K), the slowest check; 0: leave it out."
    ),
    scan: list[Path] | None = typer.Option(
        None,
        help="Frames along a dihedral or a normal mode, with or without energies. Repeat for "
        "several.",
    ),
    out: Path | None = typer.Option(None, help="Folder for physics.json, pairs.png and scans.png."),
    device: str = typer.Option("cpu", help="`cpu` or `cuda`."),
    dtype: str = typer.Option(
        "float64", help="`float64` finds small faults; `float32` shows what dynamics see."
    ),
    head: str | None = typer.Option(
        None, help="Head of MACE models with several; models with one run as they are."
    ),
) -> None:
    """Is it a sound potential? Symmetries, forces = -dE/dx, extensivity, smooth pairs, drift.

    A number above its limit is marked, and the exit status is then 1. MODEL is a NequIP or MACE
    file, or any ASE calculator as `module:factory`. Rotation and inversion act on the molecule or
    cell as a whole, and the energy must not change. Scans are compared but have no limit.

    **Examples**

        eqplugin bench physics demo/*/best.ckpt --structure examples/data/ethanol_xtb/test_300K.xyz

        eqplugin bench physics ase.calculators.emt:EMT --structure copper.xyz --md-steps 0

        eqplugin bench physics my.model --structure a.xyz --scan dihedral.xyz --scan mode_7.xyz
    """
    from eqplugin.measure.models import check_head, labels_of, open_model
    from eqplugin.measure.physics.scans import read_scan
    from eqplugin.measure.physics.suite import check_physics, check_table, write_physics
    from eqplugin.structures import read_structure

    if dtype not in ("float32", "float64"):
        raise EqPluginError(f"--dtype {dtype} is not valid: use float32 or float64.")
    if md_steps < 0:
        raise EqPluginError(f"--md-steps {md_steps} is not valid: use 0 or more.")
    check_head(models, head)
    atoms = read_structure(structure)
    atoms.calc = None
    scans = [read_scan(path) for path in scan or ()]
    if len({found.name for found in scans}) < len(scans):
        raise EqPluginError(
            "Two --scan files have the same name, which labels the scan: rename one."
        )
    results = {}
    console = Console(stderr=True, markup=False)
    for label, model in zip(labels_of(models), models, strict=True):
        with console.status(Text(label)) as status:
            calculator = open_model(model, device, dtype, head)
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
