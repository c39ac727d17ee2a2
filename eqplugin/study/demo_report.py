"""The demo's report: one table, three plots, and what they do not show."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from eqplugin.files import whole_file, write_text
from eqplugin.measure.plots import plot_energy_drift, plot_errors, plot_parity
from eqplugin.measure.tables import Table
from eqplugin.report.records import Environment, FinishedJob, SpeedRecord
from eqplugin.study.demo import DemoModel

__all__ = ["write_report"]

_STACKS = {"nequip": "NequIP", "mace": "MACE"}
_NOTES = """\
How to read it:

- One seed and a short training: differences of a few meV/Å are noise. A study with seeds
  and spread is needed before one says that a degree or a hop is worth its cost.
- The models share the feature dimension, not the number of parameters or the time per
  step; `eqplugin budget` shows both, and matches by parameters.
- The two stacks run with recipes of their own (layers, cutoff, schedule: `configs/`), so
  compare within a stack, not across.
- Ethanol fits inside the 5 Å cutoff, so every atom sees the whole molecule in one hop:
  this set does not show what a k-hop invariant model loses. Larger molecules do.
- 600 K and 1200 K are extrapolation; the training data are at 300 K.
- Times: eager models, one thread, in turn, median (10-90 %).
"""


def write_report(
    out: Path, models: Sequence[DemoModel], speed: SpeedRecord, seconds: float, epochs: int
) -> Path:
    """Write report.md, table.csv and the PNG plots into ``out``; returns the report's path."""
    first = models[0].record
    rows = [_row(model, speed) for model in models]
    with whole_file(out / "table.csv") as unfinished, unfinished.open("w", newline="") as file:
        csv.writer(file).writerows([_columns(first), *rows])
    title = (
        f"ethanol, GFN2-xTB, D = {first.feature_dim}, trained on {first.frames['train']} frames at "
        f"300 K"
    )
    _plot(out, models, speed, title)
    test = next(iter(first.errors))
    best = min(models, key=lambda model: model.record.errors[test].force_mae)
    trained = sum(model.record.cost.train_s for model in models if not model.trained_before)
    reused = ", ".join(_label(model.record) for model in models if model.trained_before)
    head, *cells = zip(_columns(first), *rows, strict=True)
    lines = [
        "# Demo report",
        "",
        f"{title}, {epochs} epochs, one seed; tests on independent trajectories.",
        "",
        # a column per model: eleven columns would not fit a page
        Table((head[0],), head[1:], cells).to_markdown(),
        "",
        f"Lowest force error at {_kelvin(test)}: **{_label(best.record)}**. This run took "
        f"{seconds / 60:.1f} minutes ({trained:.0f} s of model training, "
        f"{f'reused from before: {reused}' if reused else 'nothing reused'}).",
        "",
        _NOTES,
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
        _made_with(speed),
        "",
    ]
    report = out / "report.md"
    write_text(report, "\n".join(lines))
    return report


def _label(record: FinishedJob) -> str:
    kind = f"{record.hops}-hop" if record.hops else f"L={record.l_max}"
    return f"{_STACKS[record.family]} {kind}"


def _kelvin(test: str) -> str:
    return f"{test.removesuffix('K')} K"


def _columns(record: FinishedJob) -> list[str]:
    tests = [_kelvin(test) for test in record.errors]
    return [
        "model",
        "parameters",
        *(f"F MAE/RMSE {test} (meV/Å)" for test in tests),
        *(f"E MAE {test} (meV/atom)" for test in tests),
        "force call (ms)",
        "NVE drift (meV/atom/ps)",
        "training (s)",
    ]


def _row(model: DemoModel, speed: SpeedRecord) -> list[str]:
    record, errors = model.record, model.record.errors.values()
    low, middle, high = _force_ms(record, speed)
    return [
        _label(record),
        f"{record.parameters:,}",
        *(f"{error.force_mae:.1f} / {error.force_rmse:.1f}" for error in errors),
        *(f"{error.energy_mae:.2f}" for error in errors),
        f"{middle:.1f} ({low:.1f}-{high:.1f})",
        f"{model.dynamics.drift:+.3f}",
        f"{record.cost.train_s:.0f}",
    ]


def _force_ms(record: FinishedJob, speed: SpeedRecord) -> tuple[float, float, float]:
    return speed.models[record.job.removesuffix(f"-s{record.seed}")].force_ms


def _plot(out: Path, models: Sequence[DemoModel], speed: SpeedRecord, title: str) -> None:
    tests = list(models[0].record.errors)
    labels = {_label(model.record): model for model in models}
    plot_errors(
        {k: [m.record.errors[test].force_mae for test in tests] for k, m in labels.items()},
        [int(test.removesuffix("K")) for test in tests],
        {k: _force_ms(m.record, speed) for k, m in labels.items()},
        out / "errors.png",
        title,
    )
    plot_parity({k: m.forces for k, m in labels.items()}, out / "parity.png", title)
    plot_energy_drift(
        {k: m.dynamics for k, m in labels.items()},
        out / "drift.png",
        "NVE from a 300 K start, 0.5 fs",
    )


def _made_with(made: Environment) -> str:
    packages = ("eqplugin", "nequip", "mace-torch", "e3nn", "torch", "ase")
    versions = ", ".join(f"{name} {made.versions[name]}" for name in packages)
    hardware = made.hardware
    return (
        f"{versions}; Python {made.versions['python']}; {hardware.system}, {hardware.cores} cores "
        f"({hardware.processor})."
    )
