"""The plots of a report: error against cost, error against L, learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from eqplugin.design import STACKS
from eqplugin.report.efficiency import has_processor_time, time_curves
from eqplugin.report.models import MATCHES, ModelResults, StudyResults
from eqplugin.report.records import Quantiles
from eqplugin.report.statistics import Spread
from eqplugin.style import colour, marker, panels, plt


def plot_pareto(results: StudyResults, path: Path) -> None:
    """Force error against the time of a training step and of a force call, the front as a line."""
    test = results.tests[0]
    models = [model for model in results.models if model.spread(test, "force_mae")]
    if not models:
        return
    columns = (
        ("one training step (ms)", [model.step_ms for model in models]),
        ("one force call (ms)", [model.force_ms for model in models]),
    )
    errors = [model.spread(test, "force_mae") for model in models]
    with panels(path, 1, 2, figsize=(9.6, 4.2), sharey=True) as (figure, axes):
        for axis, (label, times) in zip(axes[0], columns, strict=True):
            for model, error, time in zip(models, errors, times, strict=True):
                _draw_point(axis, model, error, time)
            points = [(t.median, error.mean) for t, error in zip(times, errors, strict=True)]
            front = zip(*_pareto_front(points), strict=True)
            axis.plot(*front, color="0.6", lw=1, ls="--", zorder=0)
            axis.set(xscale="log", yscale="log", xlabel=label)
            _set_readable_ticks(axis.xaxis, axis.yaxis)
            axis.margins(0.12)
        axes[0, 0].set_ylabel(f"force MAE, {test} (meV/Å)")
        figure.legend(
            *_legend_entries(axes[0, :1]), loc="outside right center", fontsize=8,
            title_fontsize=8, title="mean ± sd over seeds;\nnumbers: D",
        )  # fmt: skip


def _draw_point(axis: plt.Axes, model: ModelResults, error: Spread, time: Quantiles) -> None:
    number = STACKS.index(model.family) + 2 * (model.hops or 0)
    axis.errorbar(
        time.median, error.mean, yerr=error.sd,
        xerr=[[time.median - time.low], [time.high - time.median]],
        color=colour(model.l_max), marker=marker(number), ms=7, lw=1, capsize=2,
        ls="none", mfc="white" if model.hops else None, label=model.label,
    )  # fmt: skip
    axis.annotate(
        f"{model.feature_dim}", (time.median, error.mean), xytext=(5, 4),
        textcoords="offset points", fontsize=7, color="0.3",
    )  # fmt: skip


def _set_readable_ticks(*scales: Axis) -> None:
    """Logarithmic, with numbers one can read and enough of them over a short range."""
    for scale in scales:
        scale.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())


def _legend_entries(axes: Iterable[plt.Axes]) -> tuple[list, list]:
    """Handles and labels of several panels, each label once."""
    pairs = [zip(*axis.get_legend_handles_labels()[::-1], strict=True) for axis in axes]
    by_label = {label: handle for panel in pairs for label, handle in panel}
    return list(by_label.values()), list(by_label)


def _pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats in both time and error, fastest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def plot_degrees(results: StudyResults, path: Path) -> None:
    """Force error against L, a panel per matching rule, every seed a point, lines the means."""
    test = results.tests[0]
    rules = [rule for rule in MATCHES if len(results.matched_by(rule)) > 1]
    if not rules:
        return
    size, series = (0.8 + 3.2 * len(rules), 3.4), _all_series(results)
    with panels(path, 1, len(rules), figsize=size, sharey=True) as (figure, axes):
        for axis, rule in zip(axes[0], rules, strict=True):
            for number, one in enumerate(series):
                models = [m for m in results.matched_by(rule) if m.series == one]
                _draw_series(axis, [m for m in models if m.values(test, "force_mae")], test, number)
            axis.set_title(f"equal {rule}", fontsize=9)
            axis.set(xlabel="highest degree L", yscale="log")
            axis.xaxis.get_major_locator().set_params(integer=True)
            _set_readable_ticks(axis.yaxis)
        axes[0, 0].set_ylabel(f"force MAE, {test} (meV/Å)")
        figure.legend(*_legend_entries(axes[0]), loc="outside right upper", fontsize=8)


def _all_series(results: StudyResults) -> list[str]:
    return list(dict.fromkeys(model.series for model in results.models))


def _draw_series(axis: plt.Axes, models: Sequence[ModelResults], test: str, number: int) -> None:
    if not models:
        return
    look = {"color": colour(number), "marker": marker(number), "ms": 5, "lw": 1.3}
    means = [model.spread(test, "force_mae").mean for model in models]
    axis.plot([model.l_max for model in models], means, label=models[0].series, **look)
    for model in models:
        values = list(model.values(test, "force_mae").values())
        degrees = [model.l_max] * len(values)
        axis.plot(degrees, values, "_", color=colour(number), ms=9, alpha=0.7)


def plot_curves(results: StudyResults, path: Path) -> None:
    """Validation force error along training: a panel per series of models, one colour per L."""
    series = _all_series(results)
    size = (0.6 + 3.0 * len(series), 3.2)
    with panels(path, 1, len(series), figsize=size, sharey=True) as (_, axes):
        for axis, one in zip(axes[0], series, strict=True):
            for model in (m for m in results.models if m.series == one):
                _draw_curves(axis, model)
            axis.set_title(one, fontsize=9)
            axis.set(xlabel="epoch", yscale="log")
            axis.xaxis.get_major_locator().set_params(integer=True)
            _set_readable_ticks(axis.yaxis)
            many = len(axis.get_legend_handles_labels()[1]) > 6
            axis.legend(fontsize=6 if many else 7, ncols=2 if many else 1, columnspacing=1)
        low, high = axes[0, 0].get_ylim()
        axes[0, 0].set_ylim(low, high * (high / low) ** 0.25)  # room above the curves for legends
        axes[0, 0].set_ylabel("validation force MAE (meV/Å)")


def plot_time(results: StudyResults, path: Path) -> None:
    """Lowest validation error so far against seconds of training, the mean over seeds."""
    clock = has_processor_time(results)
    with panels(path, 1, 1, figsize=(7.6, 4.0)) as (figure, axes):
        axis = axes[0, 0]
        for model in results.models:
            curves = [np.array(curve) for curve in time_curves(model, clock).values() if curve]
            if not curves:
                continue
            epochs = min(map(len, curves))
            seconds, errors = np.mean([curve[:epochs] for curve in curves], axis=0).T
            number = _all_series(results).index(model.series)
            axis.plot(
                seconds, errors, color=colour(model.l_max), ls=("-", "--", ":", "-.")[number % 4],
                lw={"dimension": 1.8, "parameters": 1.0, "time": 0.6}[model.matches[0]],
                label=model.label,
            )  # fmt: skip
        unit = "processor seconds" if clock else "seconds"
        axis.set(xscale="log", yscale="log", xlabel=f"{unit} of training")
        axis.set_ylabel("lowest validation force MAE so far (meV/Å)")
        _set_readable_ticks(axis.xaxis, axis.yaxis)
        figure.legend(loc="outside right center", fontsize=8)


def _draw_curves(axis: plt.Axes, model: ModelResults) -> None:
    look = {
        "color": colour(model.l_max),
        "ls": {"dimension": "-", "parameters": "--", "time": ":"}[model.matches[0]],
    }
    curves = [np.array(curve) for curve in model.curves().values() if curve]
    if not curves:
        return
    for curve in curves:
        axis.plot(*curve.T, lw=0.6, alpha=0.5, **look)
    epochs = min(map(len, curves))
    mean = np.mean([curve[:epochs, 1] for curve in curves], axis=0)
    label = f"L={model.l_max}, D={model.feature_dim}"
    axis.plot(curves[0][:epochs, 0], mean, lw=1.6, label=label, **look)
