"""Plots of force errors, cost and energy drift, one look for the whole project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eqplugin.md.nve import NveRun
from eqplugin.measure.forces import Predictions
from eqplugin.style import COLOURS, MARKERS, STYLE, plt, save_figure

__all__ = ["plot_energy_drift", "plot_errors", "plot_parity"]


def plot_errors(
    force_mae: Mapping[str, Sequence[float]],
    temperatures: Sequence[int],
    call_ms: Mapping[str, np.ndarray],
    path: Path,
    title: str,
) -> None:
    """Force error against test temperature, and against the time of a force call.

    Args:
        force_mae: model label to force MAE in meV/A, one per temperature.
        temperatures: K.
        call_ms: model label to times of a force call in ms, (repeats,).
        path: PNG to write.
        title: above both panels.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2), layout="constrained")
        for i, (label, values) in enumerate(force_mae.items()):
            look = {"color": COLOURS[i % 6], "marker": MARKERS[i % 6]}
            left.plot(temperatures, values, label=label, lw=1.4, ms=5, **look)
            low, middle, high = np.percentile(call_ms[label], [10, 50, 90])
            right.errorbar(
                middle,
                values[0],
                xerr=[[middle - low], [high - middle]],
                ms=7,
                capsize=2,
                lw=1,
                ls="none",
                label=label,
                **look,
            )
        left.set(xlabel="test temperature (K)", ylabel="force MAE (meV/Å)", xticks=temperatures)
        left.set_ylim(bottom=0)
        left.legend()
        right.set(
            xlabel="one force call (ms, median, 10-90 %)",
            ylabel=f"force MAE at {temperatures[0]} K (meV/Å)",
        )
        right.set_xlim(left=0)
        right.set_ylim(0, 1.25 * max(values[0] for values in force_mae.values()))
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def plot_parity(
    predictions: Mapping[str, Mapping[int, Predictions]], path: Path, title: str
) -> None:
    """Predicted against reference force components, one panel per model, hot frames behind."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(predictions),
            figsize=(2.6 * len(predictions), 2.8),
            layout="constrained",
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for axis, (label, by_temperature) in zip(axes[0], predictions.items(), strict=True):
            shades = plt.get_cmap("plasma")(np.linspace(0.75, 0.1, len(by_temperature)))
            for shade, (temperature, values) in zip(
                shades, sorted(by_temperature.items(), reverse=True), strict=True
            ):
                axis.plot(
                    *values.forces.T,
                    ".",
                    ms=1.6,
                    color=shade,
                    rasterized=True,
                    label=f"{temperature} K",
                )
            axis.axline((0, 0), slope=1, color="0.4", lw=0.8, zorder=0)
            axis.set_title(label, fontsize=9)
            axis.set_xlabel("reference force (eV/Å)")
            axis.set_aspect("equal")
        axes[0, 0].set_ylabel("predicted force (eV/Å)")
        axes[0, 0].legend(markerscale=5, handletextpad=0.1)
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def plot_energy_drift(runs: Mapping[str, NveRun], path: Path, title: str) -> None:
    """Total energy per atom and temperature along NVE runs."""
    with plt.rc_context(STYLE):
        figure, (upper, lower) = plt.subplots(
            2, 1, figsize=(6.4, 4.0), sharex=True, layout="constrained"
        )
        for i, (label, run) in enumerate(runs.items()):
            drift = f"{label}: {run.drift:+.3f} meV/atom/ps"
            upper.plot(run.time, run.energy, color=COLOURS[i % 6], lw=0.9, label=drift)
            lower.plot(run.time, run.temperature, color=COLOURS[i % 6], lw=0.6)
        upper.set_ylabel("total energy\nchange (meV/atom)")
        upper.legend(loc="upper left", fontsize=8)
        low, high = upper.get_ylim()
        upper.set_ylim(low, high + 0.45 * (high - low))  # room for the legend
        lower.set(xlabel="time (ps)", ylabel="temperature (K)")
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)
