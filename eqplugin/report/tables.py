"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eqplugin.measure.tables import Table, cell
from eqplugin.report.models import ModelResults, StudyResults, architecture_label
from eqplugin.report.statistics import (
    PairedDifference,
    detectable_difference,
    holm_adjusted,
)

# metric -> (head, format)
_METRICS = {
    "force_mae": ("F MAE\nmeV/Å", ".1f"),
    "force_rmse": ("F RMSE\nmeV/Å", ".1f"),
    "energy_mae": ("E MAE\nmeV/atom", ".2f"),
    "stress_mae": ("S MAE\nmeV/Å³", ".2f"),
}


def accuracy_table(
    models: Sequence[ModelResults], tests: Sequence[str], ratios: Mapping[str, float] | None = None
) -> Table:
    """Mean and spread over seeds of every metric on every test, a row for each model.

    ``ratios`` (label of a model -> its matched quantity over the reference's) make a column.
    """
    columns = [
        (test, metric)
        for test in tests
        for metric in _METRICS
        if any(model.spread(test, metric) for model in models)
    ]
    rows = [
        [
            *_model_cells(model),
            *([] if ratios is None else [cell(ratios.get(model.label), ".2f")]),
            *(cell(model.spread(test, metric), _METRICS[metric][1]) for test, metric in columns),
            str(len(model.records)),
        ]
        for model in models
    ]
    matched = [] if ratios is None else ["of reference"]
    errors = [f"{test} {_METRICS[metric][0]}" for test, metric in columns]
    return Table(("model",), ("D", "parameters", *matched, *errors, "seeds"), rows)


def _model_cells(model: ModelResults) -> list[str]:
    return [architecture_label(model), str(model.feature_dim), f"{model.parameters:,}"]


def cost_table(models: Sequence[ModelResults]) -> Table:
    """Time and memory of every model."""
    # processor time where every job tells it: a busy machine leaves it as it is
    costs = [record.cost for model in models for record in model.records.values()]
    has_cpu_time = all(cost.train_cpu_s is not None for cost in costs)
    clock = "train_cpu_s" if has_cpu_time else "train_s"
    rows = [
        [
            *_model_cells(model),
            str(model.step_ms),
            str(model.force_ms),
            f"{np.mean([getattr(record.cost, clock) for record in model.records.values()]):.0f}",
            cell(model.peak_megabytes("train_peak_bytes"), ".0f"),
            cell(model.peak_megabytes("force_peak_bytes"), ".0f"),
        ]
        for model in models
    ]
    heads = (
        "D", "parameters", "training step\nms, 10-90 %", "force call\nms, 10-90 %",
        "training\nCPU s" if has_cpu_time else "training\ns",
        "peak memory\ntraining, MB", "peak memory\nuse, MB",
    )  # fmt: skip
    return Table(("model",), heads, rows)


@dataclass(frozen=True)
class ModelPair:
    """Two models that differ along one axis, compared on one test."""

    test: str
    first: ModelResults
    second: ModelResults
    difference: PairedDifference


def pairs_along(results: StudyResults, match: str, axis: str) -> list[ModelPair]:
    """Force MAE of all pairs that differ in ``l_max`` alone (D aside), or in ``hops`` alone.

    Never resetting, which has no contraction, is a neighbour of every contraction.

    The p values are adjusted (Holm) for all pairs of a test, whatever their stack.
    """
    pairs = []
    for test in results.tests:
        found = [
            (a, b, difference)
            for models in _groups_along(results.matched_by(match), axis)
            for a, b in combinations(models, 2)
            if getattr(a, axis) != getattr(b, axis)
            and len({a.contraction, b.contraction} - {None}) < 2
            and (difference := a.difference(b, test)) is not None
        ]
        adjusted = holm_adjusted([difference for *_, difference in found])
        pairs += [ModelPair(test, a, b, d) for (a, b, _), d in zip(found, adjusted, strict=True)]
    return pairs


def _groups_along(models: Sequence[ModelResults], axis: str) -> list[list[ModelResults]]:
    """Models that differ along the axis, those of a group in nothing else (D aside)."""
    groups: dict[tuple, list[ModelResults]] = {}
    for model in models:
        key = (model.family, model.series if axis == "l_max" else model.l_max)
        groups.setdefault(key, []).append(model)
    return [group for group in groups.values() if len({getattr(m, axis) for m in group}) > 1]


def pairs_table(pairs: Sequence[ModelPair]) -> Table:
    """Difference, interval, effect size and p of each pair."""
    rows = [
        [
            pair.test,
            architecture_label(pair.first),
            architecture_label(pair.second),
            f"{pair.difference.mean:+.1f}",
            pair.difference.interval,
            cell(pair.difference.effect, "+.1f"),
            _p_value_cell(pair.difference.p),
            str(pair.difference.n),
        ]
        for pair in pairs
    ]
    heads = ("second - first\nmeV/Å", "95 % interval", "effect\nd_z", "p\nHolm", "seeds")
    return Table(("test", "first", "second"), heads, rows)


def equivalence_table(pairs: Sequence[ModelPair], margin: float) -> Table:
    """Within which margin two models are equal, and the p value of the stated one.

    Args:
        pairs: compared models.
        margin: relative to the first model's mean error.
    """
    rows = []
    for pair in pairs:
        error = pair.first.spread(pair.test, "force_mae")
        within, sd = pair.difference.equal_within, pair.difference.sd
        if error is None or within is None or sd is None:
            continue
        seen = detectable_difference(sd, pair.difference.n) if sd else 0.0
        rows.append(
            [
                pair.test,
                architecture_label(pair.first),
                architecture_label(pair.second),
                f"± {within:.1f} ({within / error.mean:.0%})",
                _p_value_cell(pair.difference.equivalence_p(margin * error.mean)),
                f"{seen:.1f} ({seen / error.mean:.0%})",
            ]
        )
    heads = ("equal within\nmeV/Å", f"p, not within {margin:.0%}", "shown in 80 %\nmeV/Å")
    return Table(("test", "first", "second"), heads, rows)


def _p_value_cell(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.0005 else cell(p, ".3f")
