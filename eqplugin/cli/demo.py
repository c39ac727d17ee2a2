"""`eqplugin demo`: the main job, end to end, on the shipped quick-start data."""

from __future__ import annotations

from pathlib import Path

import typer

from eqplugin.cli._common import user_errors


def demo(
    out: Path = typer.Option(Path("demo"), help="Folder for models, tables and plots."),
    epochs: int = typer.Option(10, min=1, help="Passes over the 450 training frames."),
    workers: int = typer.Option(2, min=1, help="Models trained at the same time, one core each."),
) -> None:
    """Train five models at one feature dimension on ethanol, compare them, run MD, report.

    Real `nequip-train` and `eqplugin mace-train` runs on quantum-chemistry data made by this
    project (GFN2-xTB), all with D=128: NequIP with L=1, L=2 and reset every 2 hops, MACE with L=1
    and reset every hop. About ten minutes on two cores. Run it again and it reuses or resumes
    what is there; the result is `demo/report.md`.
    """
    # plots and torch load only when the command really runs
    from eqplugin.study.demo import run_demo

    with user_errors():
        run_demo(out, epochs, workers)
