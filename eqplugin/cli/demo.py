"""`eqplugin demo`: the main job, end to end, on the shipped quick-start data."""

from __future__ import annotations

from pathlib import Path

import typer

from eqplugin.cli._common import user_errors


def demo(
    out: Path = typer.Option(Path("demo"), help="Folder for models, tables and plots."),
    epochs: int = typer.Option(10, min=1, help="Passes over the 450 training frames."),
    workers: int = typer.Option(
        2, min=1, help="Models trained at the same time, each on one core."
    ),
) -> None:
    """Train five models of one feature dimension on ethanol, compare them, run MD, write a report.

    The models are trained with `nequip-train` and `eqplugin mace-train` on this project's own
    quantum-chemistry data (GFN2-xTB). All have D=128: NequIP with L=1, L=2 and a reset every 2
    hops, MACE with L=1 and a reset every hop. This takes about ten minutes on two cores. Run it
    again to resume it or to reuse finished models. The result is `demo/report.md`.

    **Examples**

        eqplugin demo

        eqplugin demo --out demo-long --epochs 30
    """
    # plots and torch load only when the command really runs
    from eqplugin.study.demo import run_demo

    with user_errors():
        run_demo(out, epochs, workers)
