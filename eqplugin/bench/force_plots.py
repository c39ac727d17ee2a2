"""Parity and error distributions of a comparison of models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from eqplugin.bench.compare import Comparison
from eqplugin.bench.forces import Predictions
from eqplugin.bench.plots import _save, plt
from eqplugin.style import COLOURS, STYLE

__all__ = ["plot_error_distribution", "plot_force_parity"]

_MOST = 20000  # points per panel: more cannot be told apart, and make slow files


def plot_force_parity(comparison: Comparison, path: Path) -> None:
    """Predicted against reference force components: a row per file, a column per model."""
    pairs = _force_pairs(comparison)
    if not pairs:
        return
    models, files = list(comparison.models), list(dict.fromkeys(file for _, file in pairs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(files), len(models), figsize=(0.6 + 2.4 * len(models), 0.5 + 2.3 * len(files)),
            layout="constrained", squeeze=False, sharex="row", sharey="row",
        )  # fmt: skip
        for row, file in zip(axes, files, strict=True):
            for axis, model in zip(row, models, strict=True):
                values = pairs[model, file]
                shown = values[:: max(1, len(values) // _MOST)]
                axis.plot(*shown.T, ".", ms=1.5, color=COLOURS[0], alpha=0.4, rasterized=True)
                axis.axline((0, 0), slope=1, color="0.35", lw=0.8, zorder=3)
                mae = 1e3 * np.abs(values[:, 1] - values[:, 0]).mean()
                axis.set_box_aspect(1)
                axis.set_title(f"{model}\n{file}: {mae:.1f} meV/Å", fontsize=8)
            low, high = _range(pairs[model, file] for model in models)
            axis.set(xlim=(low, high), ylim=(low, high))  # shared by the row
            row[0].set_ylabel("predicted force (eV/Å)")
        for axis in axes[-1]:
            axis.set_xlabel("reference force (eV/Å)")
        _save(figure, path)


def plot_error_distribution(comparison: Comparison, path: Path) -> None:
    """Share of force components with an error above x: a panel per file, a line per model."""
    pairs = _force_pairs(comparison)
    if not pairs:
        return
    files = list(dict.fromkeys(file for _, file in pairs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(files), figsize=(0.6 + 3.1 * len(files), 3.0), layout="constrained",
            squeeze=False, sharey=True,
        )  # fmt: skip
        for axis, file in zip(axes[0], files, strict=True):
            for number, model in enumerate(comparison.models):
                _, error = _errors(pairs[model, file])
                above = 1 - np.arange(len(error)) / len(error)
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(np.maximum(error, 1e-3), above, color=colour, lw=1.4, label=model)
            axis.set(xscale="log", yscale="log", xlabel="force error x (meV/Å)")
            axis.set_title(file, fontsize=9)
            low = min(_errors(pairs[model, file])[0] for model in comparison.models)
            axis.set_xlim(left=max(low, 0.1))
        axes[0, 0].set_ylabel("share of components with error > x")
        axes[0, 0].legend(loc="lower left")
        _save(figure, path)


def _range(pairs: Iterable[np.ndarray]) -> tuple[float, float]:
    """Limits of both axes: the references with a margin; predictions far off leave the frame."""
    reference = np.concatenate([values[:, 0] for values in pairs])
    margin = 0.08 * (np.ptp(reference) or 1.0)
    return float(reference.min() - margin), float(reference.max() + margin)


def _errors(pairs: np.ndarray) -> tuple[float, np.ndarray]:
    """The error that 98 % exceed, and all errors, sorted; meV/A."""
    error = np.sort(1e3 * np.abs(pairs[:, 1] - pairs[:, 0]))
    return float(np.percentile(error, 2)), error


def _force_pairs(comparison: Comparison) -> dict[tuple[str, str], np.ndarray]:
    pairs = {key: Predictions.of(results).forces for key, results in comparison.results.items()}
    labelled = {file for (_, file), values in pairs.items() if len(values)}
    return {key: values for key, values in pairs.items() if key[1] in labelled}
