"""The tables of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from eqplugin.study.report.blocks import Table
from eqplugin.study.report.models import Model, Results, label_of
from eqplugin.study.report.statistics import Difference, holm, paired_difference

__all__ = ["Pair", "accuracy_table", "cost_table", "pairs_along", "pairs_table"]

_MEASURES = (
    ("force_mae", "F MAE\nmeV/Å"),
    ("force_rmse", "F RMSE\nmeV/Å"),
    ("energy_mae", "E MAE\nmeV/atom"),
    ("stress_mae", "S MAE\nmeV/Å³"),
)


def accuracy_table(
    models: Sequence[Model], tests: Sequence[str], ratios: Mapping[str, float] | None = None
) -> Table:
    """Mean and spread over seeds of every measure of every test.

    Args:
        models: a row each.
        tests: labels of the test sets.
        ratios: label of a model -> its matched quantity over the reference's, for a column.
    """
    columns = [
        (test, measure, f"{test} {head}")
        for test in tests
        for measure, head in _MEASURES
        if any(model.spread(test, measure) for model in models)
    ]
    rows = [
        [
            label_of(model),
            str(model.feature_dim),
            f"{model.parameters:,}",
            *([] if ratios is None else [_ratio(ratios.get(model.label))]),
            *(_spread(model, test, measure) for test, measure, _ in columns),
            str(len(model.records)),
        ]
        for model in models
    ]
    matched = [] if ratios is None else ["of reference"]
    heads = ("D", "parameters", *matched, *(head for *_, head in columns), "seeds")
    return Table(("model",), heads, rows)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _spread(model: Model, test: str, measure: str) -> str:
    value = model.spread(test, measure)
    if value is None:
        return "-"
    digits = 2 if measure in ("energy_mae", "stress_mae") else 1
    if value.sd is None:
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} ± {value.sd:.{digits}f}"


def cost_table(models: Sequence[Model]) -> Table:
    """Time and memory of every model."""
    # processor time where every job tells it: a busy machine leaves it as it is
    costs = [record["cost"] for model in models for record in model.records.values()]
    told = all(cost.get("train_cpu_s") is not None for cost in costs)
    clock = "train_cpu_s" if told else "train_s"
    rows = []
    for model in models:
        step, call = model.time("step_ms"), model.time("force_ms")
        trained = [record["cost"][clock] for record in model.records.values()]
        rows.append(
            [
                label_of(model),
                str(model.feature_dim),
                f"{model.parameters:,}",
                f"{step[1]:.1f} ({step[0]:.1f}-{step[2]:.1f})",
                f"{call[1]:.1f} ({call[0]:.1f}-{call[2]:.1f})",
                f"{sum(trained) / len(trained):.0f}",
                _megabytes(model, "train_peak_bytes"),
                _megabytes(model, "force_peak_bytes"),
            ]
        )
    heads = (
        "D", "parameters", "training step\nms, 10-90 %", "force call\nms, 10-90 %",
        "training\nCPU s" if told else "training\ns",
        "peak memory\ntraining, MB", "peak memory\nuse, MB",
    )  # fmt: skip
    return Table(("model",), heads, rows)


def _megabytes(model: Model, what: str) -> str:
    peak = model.peak_megabytes(what)
    return "-" if peak is None else f"{peak:.0f}"


@dataclass(frozen=True)
class Pair:
    """Two models that differ along one axis, compared on one test."""

    test: str
    first: Model
    second: Model
    difference: Difference


def pairs_along(results: Results, match: str, axis: str, measure: str = "force_mae") -> list[Pair]:
    """All pairs of models that differ in ``l_max`` alone (D aside), or in ``hops`` alone.

    Never resetting, which has no contraction, is a neighbour of every contraction.

    The p values are adjusted (Holm) for all pairs of a test, whatever their stack.
    """
    pairs = []
    for test in results.tests:
        found = [
            (a, b, difference)
            for models in _lines(results.under(match), axis)
            for a, b in combinations(models, 2)
            if getattr(a, axis) != getattr(b, axis)
            and len({a.contraction, b.contraction} - {None}) < 2
            and (difference := _difference(a, b, test, measure)) is not None
        ]
        adjusted = holm([difference for *_, difference in found])
        pairs += [Pair(test, a, b, d) for (a, b, _), d in zip(found, adjusted, strict=True)]
    return pairs


def _lines(models: Sequence[Model], axis: str) -> Iterator[list[Model]]:
    lines: dict[tuple, list[Model]] = {}
    for model in models:
        key = model.line if axis == "l_max" else (model.family, model.l_max)
        lines.setdefault(key, []).append(model)
    for line in lines.values():
        if len({getattr(model, axis) for model in line}) > 1:
            yield line


def _difference(a: Model, b: Model, test: str, measure: str) -> Difference | None:
    return paired_difference(a.values(test, measure), b.values(test, measure))


def pairs_table(pairs: Sequence[Pair]) -> Table:
    """Difference, interval, effect size and p of each pair."""
    rows = [
        [
            pair.test,
            label_of(pair.first),
            label_of(pair.second),
            f"{pair.difference.mean:+.1f}",
            _interval(pair.difference),
            "-" if pair.difference.effect is None else f"{pair.difference.effect:+.1f}",
            _p_value(pair.difference.p),
            str(pair.difference.n),
        ]
        for pair in pairs
    ]
    heads = ("second - first\nmeV/Å", "95 % interval", "effect\nd_z", "p\nHolm", "seeds")
    return Table(("test", "first", "second"), heads, rows)


def _p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _interval(difference: Difference) -> str:
    if difference.low is None:
        return "one seed: no test"
    return f"{difference.low:+.1f} .. {difference.high:+.1f}"
