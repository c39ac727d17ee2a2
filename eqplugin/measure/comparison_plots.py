"""Parity and error distributions of a comparison of models, for each label that frames have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqplugin.measure.compare import Comparison
from eqplugin.measure.forces import FrameResult
from eqplugin.style import COLOURS, STYLE, plt, save_figure

__all__ = ["QUANTITIES", "Quantity", "plot_comparison"]

_MOST = 20000  # points per panel: more cannot be told apart, and make slow files
_Pairs = dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class Quantity:
    """A label that models are compared by.

    Attributes:
        name: in words, and in the names of files.
        counted: what one error belongs to, plural.
        unit: of the axes; errors are in thousandths of it.
        values: of a frame, (n, 2), reference and prediction; None where either is absent.
    """

    name: str
    counted: str
    unit: str
    values: Callable[[FrameResult], np.ndarray | None]


def _energy(result: FrameResult) -> np.ndarray | None:
    return None if result.energy is None else (result.energy / len(result.numbers))[None]


def _forces(result: FrameResult) -> np.ndarray | None:
    return None if result.forces is None else result.forces.reshape(-1, 2)


QUANTITIES = (
    Quantity("forces", "components", "eV/Å", _forces),
    Quantity("energy", "frames", "eV/atom", _energy),
    Quantity("stress", "components", "eV/Å³", lambda result: result.stress),
)


def plot_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Plot parity and error distribution of every label that some frame has and some model gives.

    Args:
        comparison: predictions of every model on every file.
        out: folder of ``parity_forces.png``, ``distribution_forces.png`` and so on.

    Returns:
        What was written.
    """
    written = []
    for quantity in QUANTITIES:
        pairs = _pairs(comparison, quantity)
        if not pairs:
            continue
        for name, plot in (("parity", _parity), ("distribution", _distribution)):
            path = out / f"{name}_{quantity.name}.png"
            plot(pairs, list(comparison.models), quantity, path)
            written.append(path)
    return written


def _parity(pairs: _Pairs, models: Sequence[str], quantity: Quantity, path: Path) -> None:
    """Predicted against reference values: a row per file, a column per model."""
    files = list(dict.fromkeys(file for _, file in pairs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(files), len(models), figsize=(0.6 + 2.4 * len(models), 0.5 + 2.3 * len(files)),
            layout="compressed", squeeze=False, sharex="row", sharey="row",
        )  # fmt: skip
        for row, file in zip(axes, files, strict=True):
            for axis, model in zip(row, models, strict=True):
                title = f"{model}\n{file}: {_panel(axis, pairs[model, file], quantity)}"
                axis.set_title(title, fontsize=8)
            low, high = _range(pairs[model, file] for model in models)
            axis.set(xlim=(low, high), ylim=(low, high))  # shared by the row
            row[0].set_ylabel(f"predicted {quantity.name} ({quantity.unit})")
        for axis in axes[-1]:
            axis.set_xlabel(f"reference {quantity.name} ({quantity.unit})")
        save_figure(figure, path)


def _panel(axis: plt.Axes, values: np.ndarray, quantity: Quantity) -> str:
    """Draw one model on one file; returns its error in words."""
    shown = values[:: max(1, len(values) // _MOST)]
    size = 1.5 if len(shown) > 1000 else 5.0
    axis.plot(*shown.T, ".", ms=size, color=COLOURS[0], alpha=0.4, mew=0, rasterized=True)
    axis.axline((0, 0), slope=1, color="0.35", lw=0.8, zorder=3)
    axis.set_box_aspect(1)
    if not len(values):
        return "not predicted"
    return f"{1e3 * np.abs(values[:, 1] - values[:, 0]).mean():.3g} m{quantity.unit}"


def _distribution(pairs: _Pairs, models: Sequence[str], quantity: Quantity, path: Path) -> None:
    """Share of values with an error above x: a panel per file, a line per model."""
    files = list(dict.fromkeys(file for _, file in pairs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(files), figsize=(0.6 + 3.1 * len(files), 3.0), layout="constrained",
            squeeze=False, sharey=True,
        )  # fmt: skip
        for axis, file in zip(axes[0], files, strict=True):
            _tail(axis, {model: pairs[model, file] for model in models})
            axis.set(xscale="log", yscale="log")
            axis.set_xlabel(f"error x of {quantity.name} (m{quantity.unit})")
            axis.set_title(file, fontsize=9)
        axes[0, 0].set_ylabel(f"share of {quantity.counted} with error > x")
        axes[0, 0].legend(loc="lower left")
        save_figure(figure, path)


def _tail(axis: plt.Axes, values: dict[str, np.ndarray]) -> None:
    errors = {model: np.sort(1e3 * np.abs(np.diff(pair)[:, 0])) for model, pair in values.items()}
    predicted = [error for error in errors.values() if len(error)]
    # the axis begins where the most accurate model has 98 % of its errors above; errors below a
    # ten-thousandth of the largest (a model compared with itself) are drawn at that edge
    edge = max(1e-4 * max(error[-1] for error in predicted), 1e-9)
    for number, (model, error) in enumerate(errors.items()):
        above = 1 - np.arange(len(error)) / max(len(error), 1)
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(np.maximum(error, edge), above, color=colour, lw=1.4, label=model)
    axis.set_xlim(left=max(edge, min(np.percentile(error, 2) for error in predicted)))


def _range(pairs: Iterable[np.ndarray]) -> tuple[float, float]:
    """Limits of both axes: the references with a margin; predictions far off leave the frame."""
    reference = np.concatenate([values[:, 0] for values in pairs])
    margin = 0.08 * (np.ptp(reference) or 1.0)
    return float(reference.min() - margin), float(reference.max() + margin)


def _pairs(comparison: Comparison, quantity: Quantity) -> _Pairs:
    """(model, file) -> (n, 2), of the files that have the label and a model that predicts it."""
    pairs = {
        key: np.concatenate(
            [np.empty((0, 2))]
            + [v for v in map(quantity.values, results) if v is not None]
        )
        for key, results in comparison.results.items()
    }  # fmt: skip
    labelled = {file for (_, file), values in pairs.items() if len(values)}
    return {key: values for key, values in pairs.items() if key[1] in labelled}
