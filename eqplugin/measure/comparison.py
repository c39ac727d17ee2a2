"""Several models on several files of labelled frames: `eqplugin bench forces`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from ase.calculators.calculator import Calculator

from eqplugin.data import check_files
from eqplugin.errors import EqPluginError
from eqplugin.files import write_json, write_text
from eqplugin.measure.force_errors import (
    ErrorMetrics,
    error_metrics,
    metrics_by_config_type,
    metrics_by_element,
)
from eqplugin.measure.forces import FrameResult, evaluate
from eqplugin.measure.labels import LabelledFrame
from eqplugin.measure.plots import plot_comparison
from eqplugin.measure.tables import Table, cell

__all__ = ["GROUPINGS", "Comparison", "compare_forces", "shared_frames", "write_comparison"]

GROUPINGS = {"element": metrics_by_element, "config_type": metrics_by_config_type}
_KEYS = ("model", "data")
# metric -> (head, format): what fits on a screen; errors.json and errors.csv hold all of them
_COLUMNS = {
    "frames": ("frames", "d"),
    "force_mae": ("F MAE\nmeV/Å", ".1f"),
    "force_rmse": ("F RMSE\nmeV/Å", ".1f"),
    "force_cosine": ("F cos", ".3f"),
    "energy_mae": ("E MAE\nmeV/at", ".2f"),
    "relative_energy_mae": ("E rel\nmeV/at", ".2f"),
    "stress_mae": ("S MAE\nmeV/Å³", ".2f"),
}
_UNREAD = ("missing_file", "unreadable", "empty")
_Metrics = dict[tuple[str, ...], ErrorMetrics]


@dataclass(frozen=True)
class Comparison:
    """Predictions of every model on every file, under short labels."""

    models: Mapping[str, str]  #: label -> as the user named it
    files: Mapping[str, str]  #: label -> as the user named it
    results: Mapping[tuple[str, str], list[FrameResult]]  #: (model label, file label) -> frames

    def metrics(self) -> _Metrics:
        """Metrics of every model on every file; file by file, so that models compare."""
        return {key: error_metrics(self.results[key]) for key in self._pairs()}

    def metrics_by(self, grouping: str) -> _Metrics:
        """Metrics by ``element`` or ``config_type``: keys (model, file, group)."""
        return {
            (*key, group): metrics
            for key in self._pairs()
            for group, metrics in GROUPINGS[grouping](self.results[key]).items()
        }

    def _pairs(self) -> list[tuple[str, str]]:
        return [(model, file) for file in self.files for model in self.models]

    def table(self, grouping: str | None = None) -> Table:
        """The metrics that any row has, of every model on every file or of their groups."""
        metrics = self.metrics_by(grouping) if grouping else self.metrics()
        used = [n for n in _COLUMNS if any(getattr(m, n) is not None for m in metrics.values())]
        rows = [
            [*key, *(cell(getattr(row, name), _COLUMNS[name][1]) for name in used)]
            for key, row in metrics.items()
        ]
        keys = (*_KEYS, grouping) if grouping else _KEYS
        return Table(keys, [_COLUMNS[name][0] for name in used], rows)

    def to_csv(self) -> str:
        """All metrics at full precision; an empty field where there is no label."""
        rows = [
            dict(zip(_KEYS, key, strict=True)) | asdict(row) for key, row in self.metrics().items()
        ]
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def compare_forces(
    models: Mapping[str, Calculator],
    files: Mapping[str, Sequence[LabelledFrame]],
    tick: Callable[[], None] = lambda: None,
) -> dict[tuple[str, str], list[FrameResult]]:
    """Evaluate every model on every file: (model label, file label) -> frames.

    Args:
        models: label -> calculator.
        files: label -> frames.
        tick: called after each frame, for a progress bar.
    """
    results = {}
    for model, calculator in models.items():
        for file, frames in files.items():
            try:
                results[model, file] = evaluate(calculator, frames, tick)
            except EqPluginError as error:
                raise EqPluginError(f"{model} on {file}, {error}") from error
    return results


def shared_frames(train: Sequence[str], tests: Sequence[str]) -> list[str]:
    """Sentences about test files that share frames with the training files, or with each other."""
    report = check_files([*train, *tests], required=())
    unread = [e for e in report.errors if e.code in _UNREAD and str(e.file) in map(str, train)]
    if unread:
        raise EqPluginError(f"--train: {unread[0].message}")
    return [problem.message for problem in report.leaks]


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write errors.json, errors.csv, errors.md and the plots, and return what was written.

    There are plots only of labels that some frame has and some model predicts.
    """
    content = {
        "schema": "eqplugin.measure.forces/1",
        "units": {"energy": "meV/atom", "force": "meV/A", "stress": "meV/A^3"},
        "models": dict(comparison.models),
        "data": dict(comparison.files),
        "errors": _nested(comparison.metrics()),
        **{f"by_{name}": _nested(comparison.metrics_by(name)) for name in GROUPINGS},
    }
    write_json(out / "errors.json", content)
    write_text(out / "errors.csv", comparison.to_csv())
    write_text(out / "errors.md", comparison.table().to_markdown() + "\n")
    tables = [out / f"errors.{ending}" for ending in ("json", "csv", "md")]
    return tables + plot_comparison(comparison.results, out)


def _nested(metrics: _Metrics) -> dict:
    tree: dict = {}
    for (*path, last), value in metrics.items():
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = asdict(value)
    return tree
