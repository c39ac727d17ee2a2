"""The plots of a report: error against cost, error against L, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from eqplugin.study.report.models import Model, Results, label_of
from eqplugin.style import COLOURS, MARKERS, STYLE, plt, save_figure

__all__ = ["plot_curves", "plot_degrees", "plot_pareto"]


def plot_pareto(results: Results, test: str, path: Path) -> None:
    """Force error against the time of a training step and of a force call, the front as a line."""
    models = [model for model in results.models if model.spread(test, "force_mae")]
    if not models:
        return
    panels = (("step_ms", "one training step (ms)"), ("force_ms", "one force call (ms)"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2, figsize=(9.6, 4.2), layout="constrained", sharey=True
        )  # fmt: skip
        for axis, (what, label) in zip(axes, panels, strict=True):
            for model in models:
                _point(axis, model, model.time(what), test)
            front = _front([(m.time(what)[1], m.spread(test, "force_mae").mean) for m in models])
            axis.plot(*zip(*front, strict=True), color="0.6", lw=1, ls="--", zorder=0)
            axis.set(xscale="log", yscale="log", xlabel=label)
            _plain(axis.xaxis, axis.yaxis)
            axis.margins(0.12)
        axes[0].set_ylabel(f"force MAE, {test} (meV/Å)")
        figure.legend(
            *_unique(axes[0]), loc="outside right center", fontsize=8, title_fontsize=8,
            title="mean ± sd over seeds;\nnumbers: D",
        )  # fmt: skip
        save_figure(figure, path)


def _point(axis: plt.Axes, model: Model, times: list[float], test: str) -> None:
    error = model.spread(test, "force_mae")
    axis.errorbar(
        times[1], error.mean, yerr=error.sd, xerr=[[times[1] - times[0]], [times[2] - times[1]]],
        color=COLOURS[model.l_max % len(COLOURS)], marker=_marker(model), ms=7, lw=1, capsize=2,
        ls="none", mfc="white" if model.hops else None, label=model.label,
    )  # fmt: skip
    axis.annotate(
        f"{model.feature_dim}", (times[1], error.mean), xytext=(5, 4),
        textcoords="offset points", fontsize=7, color="0.3",
    )  # fmt: skip


def _plain(*scales: Axis) -> None:
    """Logarithmic, with numbers one can read and enough of them over a short range."""
    for scale in scales:
        scale.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())


def _marker(model: Model) -> str:
    base = 0 if model.family == "nequip" else 1
    return MARKERS[(base + 2 * (model.hops or 0)) % len(MARKERS)]


def _unique(axis: plt.Axes) -> tuple[list, list]:
    handles, labels = axis.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats in both time and error, fastest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def plot_degrees(results: Results, test: str, path: Path) -> None:
    """Force error against L, a panel per matching rule, every seed a point, lines the means."""
    rules = [r for r in ("dimension", "parameters", "time") if len(results.under(r)) > 1]
    if not rules:
        return
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(rules), figsize=(0.8 + 3.2 * len(rules), 3.4), layout="constrained",
            sharey=True, squeeze=False,
        )  # fmt: skip
        lines = list(dict.fromkeys(model.line for model in results.models))
        for axis, rule in zip(axes[0], rules, strict=True):
            for number, line in enumerate(lines):
                models = [m for m in results.under(rule) if m.line == line]
                _line(axis, models, test, number)
            axis.set_title(f"equal {rule}", fontsize=9)
            axis.set(xlabel="highest degree L", yscale="log")
            axis.xaxis.get_major_locator().set_params(integer=True)
            _plain(axis.yaxis)
        axes[0, 0].set_ylabel(f"force MAE, {test} (meV/Å)")
        pairs = [_unique(axis) for axis in axes[0]]
        found = {l: h for handles, labels in pairs for l, h in zip(labels, handles, strict=True)}  # noqa: E741
        figure.legend(list(found.values()), list(found), loc="outside right upper", fontsize=8)
        save_figure(figure, path)


def _line(axis: plt.Axes, models: Sequence[Model], test: str, number: int) -> None:
    models = [model for model in models if model.values(test, "force_mae")]
    if not models:
        return
    colour = COLOURS[number % len(COLOURS)]
    family, hops, contraction = models[0].line
    label = label_of({"family": family, "l_max": "", "hops": hops, "contraction": contraction})
    means = [model.spread(test, "force_mae").mean for model in models]
    marker = MARKERS[number % len(MARKERS)]
    axis.plot(
        [m.l_max for m in models], means, color=colour, marker=marker, ms=5, lw=1.3,
        label=label.replace(" L=", ""),
    )  # fmt: skip
    for model in models:
        values = list(model.values(test, "force_mae").values())
        axis.plot([model.l_max] * len(values), values, "_", color=colour, ms=9, alpha=0.7)


def plot_curves(results: Results, path: Path) -> None:
    """Validation force error along training: a panel per line of models, one colour per L."""
    lines = list(dict.fromkeys(model.line for model in results.models))
    if not lines:
        return
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(lines), figsize=(0.6 + 3.0 * len(lines), 3.2), layout="constrained",
            sharey=True, squeeze=False,
        )  # fmt: skip
        for axis, line in zip(axes[0], lines, strict=True):
            for model in (m for m in results.models if m.line == line):
                _curve(axis, model)
            title = label_of(next(m for m in results.models if m.line == line))
            axis.set_title(title.replace(title.split(",")[0], title.split(" ")[0]), fontsize=9)
            axis.set(xlabel="epoch", yscale="log")
            axis.xaxis.get_major_locator().set_params(integer=True)
            _plain(axis.yaxis)
            many = len(axis.get_legend_handles_labels()[1]) > 6
            axis.legend(fontsize=6 if many else 7, ncols=2 if many else 1, columnspacing=1)
        low, high = axes[0, 0].get_ylim()
        axes[0, 0].set_ylim(low, high * (high / low) ** 0.25)  # room above the curves for legends
        axes[0, 0].set_ylabel("validation force MAE (meV/Å)")
        save_figure(figure, path)


def _curve(axis: plt.Axes, model: Model) -> None:
    colour = COLOURS[model.l_max % len(COLOURS)]
    dash = {"dimension": "-", "parameters": "--", "time": ":"}[model.matches[0]]
    curves = list(model.curves().values())
    for curve in curves:
        axis.plot(*np.array(curve).T, color=colour, lw=0.6, alpha=0.5, ls=dash)
    epochs = min(map(len, curves))
    mean = np.mean([np.array(curve)[:epochs, 1] for curve in curves], axis=0)
    label = f"L={model.l_max}, D={model.feature_dim}"
    axis.plot(np.array(curves[0])[:epochs, 0], mean, color=colour, lw=1.6, ls=dash, label=label)
