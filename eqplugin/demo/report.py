"""The demo's report: one table, three plots, and what they do not show."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from eqplugin.demo.measuring import TEMPERATURES, load_errors, load_nve, load_parity
from eqplugin.demo.training import TrainedModel
from eqplugin.demo.variants import FEATURE_DIM
from eqplugin.files import write_text
from eqplugin.measure.plots import plot_energy_drift, plot_errors, plot_parity

__all__ = ["write_report"]

COLUMNS = (
    "model",
    "parameters",
    *(f"F MAE/RMSE {t} K (meV/Å)" for t in TEMPERATURES),
    *(f"E MAE {t} K (meV/atom)" for t in TEMPERATURES),
    "force call (ms)",
    "NVE drift (meV/atom/ps)",
    "training (s)",
)
TITLE = f"ethanol, GFN2-xTB, D = {FEATURE_DIM}, trained on 450 frames at 300 K"


def write_report(
    out: Path,
    models: list[TrainedModel],
    times: Mapping[str, np.ndarray],
    seconds: float,
    epochs: int,
    processor: str,
) -> Path:
    """Write report.md, table.csv and the PNG plots into ``out``; returns the report's path."""
    rows = [_row(model, times[model.variant.name]) for model in models]
    with (out / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    _plots(out, models, times)
    best = min(models, key=lambda m: load_errors(m.checkpoint.parent)[300].force_mae)
    trained = sum(model.seconds for model in models if not model.reused)
    reused = [model.variant.label for model in models if model.reused]
    lines = [
        "# Demo report",
        "",
        f"{TITLE}, {epochs} epochs, one seed; tests on independent trajectories.",
        "",
        _markdown(rows),
        "",
        f"Lowest force error at 300 K: **{best.variant.label}**. "
        f"This run took {seconds / 60:.1f} minutes ({trained:.0f} s of model training, "
        + (f"reused from before: {', '.join(reused)}" if reused else "nothing reused")
        + ").",
        "",
        "How to read it:",
        "",
        "- One seed and a short training: differences of a few meV/Å are noise. A study with seeds",
        "  and spread is needed before one says that a degree or a hop is worth its cost.",
        "- The models share the feature dimension, not the number of parameters or the time per",
        "  step; `eqplugin budget` shows both, and matches by parameters.",
        "- The two stacks run with recipes of their own (layers, cutoff, schedule: `configs/`), so",
        "  compare within a stack, not across.",
        "- Ethanol fits inside the 5 Å cutoff, so every atom sees the whole molecule in one hop:",
        "  this set does not show what a k-hop invariant model loses. Larger molecules do.",
        "- 600 K and 1200 K are extrapolation; the training data are at 300 K.",
        "- Times: eager models, one thread, alternated, median of 60 calls on 9 atoms.",
        "",
        "## Plots",
        "",
        "![errors](errors.png)",
        "",
        "![parity](parity.png)",
        "",
        "![energy drift](drift.png)",
        "",
        "## Made with",
        "",
        _made_with(processor),
        "",
    ]
    report = out / "report.md"
    write_text(report, "\n".join(lines))
    return report


def num_parameters(checkpoint: Path) -> int:
    """Parameters of a trained model."""
    from eqplugin.calculator import EqCalculator

    # the calculator freezes parameters, so count them all
    (backend,) = EqCalculator(str(checkpoint)).backends
    return sum(parameter.numel() for parameter in backend.model.parameters())


def _row(model: TrainedModel, times: np.ndarray) -> list[str]:
    folder = model.checkpoint.parent
    errors = load_errors(folder)
    low, middle, high = np.percentile(times, [10, 50, 90])
    return [
        model.variant.label,
        f"{num_parameters(model.checkpoint):,}",
        *(f"{errors[t].force_mae:.1f} / {errors[t].force_rmse:.1f}" for t in TEMPERATURES),
        *(f"{errors[t].energy_mae_per_atom:.2f}" for t in TEMPERATURES),
        f"{middle:.1f} ({low:.1f}-{high:.1f})",
        f"{load_nve(folder).drift:+.3f}",
        f"{model.seconds:.0f}",
    ]


def _markdown(rows: list[list[str]]) -> str:
    """An aligned Markdown table with a column per model: eleven columns would not fit a page."""
    table = [list(column) for column in zip(COLUMNS, *rows, strict=True)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    out = []
    for n, row in enumerate(table):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        out.append("| " + " | ".join(cells) + " |")
        if n == 0:
            rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            out.append("| " + " | ".join(rule) + " |")
    return "\n".join(out)


def _plots(out: Path, models: list[TrainedModel], times: Mapping[str, np.ndarray]) -> None:
    folders = {model.variant.label: model.checkpoint.parent for model in models}
    plot_errors(
        {
            label: [load_errors(folder)[t].force_mae for t in TEMPERATURES]
            for label, folder in folders.items()
        },
        TEMPERATURES,
        {model.variant.label: times[model.variant.name] for model in models},
        out / "errors.png",
        TITLE,
    )
    plot_parity(
        {label: load_parity(folder) for label, folder in folders.items()},
        out / "parity.png",
        TITLE,
    )
    plot_energy_drift(
        {label: load_nve(folder) for label, folder in folders.items()},
        out / "drift.png",
        "NVE from a 300 K start, 0.5 fs",
    )


def _made_with(processor: str) -> str:
    packages = ", ".join(
        f"{p} {version(p)}" for p in ("eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase")
    )
    return (
        f"{packages}; Python {platform.python_version()}; {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores{f' ({processor})' if processor else ''}."
    )
