"""Plots of models beside each other: parity, errors, time, memory, energy drift."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eqplugin.measure.forces import FrameResult
from eqplugin.style import colour, marker, panels, plt

if TYPE_CHECKING:
    from eqplugin.md.nve import NveRun
    from eqplugin.measure.scaling import SizeTiming

__all__ = [
    "plot_comparison",
    "plot_energy_drift",
    "plot_errors",
    "plot_parity",
    "plot_scaling",
]

_MOST = 20000  # points per panel: more cannot be told apart, and make slow files
_Pairs = dict[tuple[str, str], np.ndarray]  # (model, file) -> (n, 2), reference and prediction


@dataclass(frozen=True)
class _Quantity:
    """A label that models are compared by."""

    name: str  # in words, and in the names of files
    counted: str  # what one error belongs to, plural
    unit: str  # of the axes; errors are in thousandths of it
    # of a frame, (n, 2), reference and prediction; None where either is absent
    values: Callable[[FrameResult], np.ndarray | None]


def _energy_per_atom(result: FrameResult) -> np.ndarray | None:
    return None if result.energy is None else (result.energy / len(result.numbers))[None]


def _force_components(result: FrameResult) -> np.ndarray | None:
    return None if result.forces is None else result.forces.reshape(-1, 2)


_QUANTITIES = (
    _Quantity("forces", "components", "eV/Å", _force_components),
    _Quantity("energy", "frames", "eV/atom", _energy_per_atom),
    _Quantity("stress", "components", "eV/Å³", lambda result: result.stress),
)


def plot_comparison(
    results: Mapping[tuple[str, str], Sequence[FrameResult]], out: Path
) -> list[Path]:
    """Plot parity and error distribution of every label that some frame has and some model gives.

    Args:
        results: (model, file) -> predictions of every frame.
        out: folder of ``parity_forces.png``, ``distribution_forces.png`` and so on.

    Returns:
        What was written.
    """
    models, written = list(dict.fromkeys(model for model, _ in results)), []
    for quantity in _QUANTITIES:
        pairs = _labelled_pairs(results, quantity)
        if not pairs:
            continue
        for name, plot in (("parity", _plot_parities), ("distribution", _plot_distributions)):
            path = out / f"{name}_{quantity.name}.png"
            plot(pairs, models, quantity, path)
            written.append(path)
    return written


def _labelled_pairs(
    results: Mapping[tuple[str, str], Sequence[FrameResult]], quantity: _Quantity
) -> _Pairs:
    """The values on files that have the label and a model that predicts it."""
    pairs = {
        key: np.concatenate(
            [np.empty((0, 2)), *(v for v in map(quantity.values, frames) if v is not None)]
        )
        for key, frames in results.items()
    }
    labelled = {file for (_, file), values in pairs.items() if len(values)}
    return {key: values for key, values in pairs.items() if key[1] in labelled}


def _plot_parities(pairs: _Pairs, models: Sequence[str], quantity: _Quantity, path: Path) -> None:
    """Predicted against reference values: a row per file, a column per model."""
    files = list(dict.fromkeys(file for _, file in pairs))
    size = (0.6 + 2.4 * len(models), 0.5 + 2.3 * len(files))
    options = {"layout": "compressed", "sharex": "row", "sharey": "row", "figsize": size}
    with panels(path, len(files), len(models), **options) as (_, axes):
        for row, file in zip(axes, files, strict=True):
            for axis, model in zip(row, models, strict=True):
                error = _draw_parity(axis, pairs[model, file], quantity)
                axis.set_title(f"{model}\n{file}: {error}", fontsize=8)
            limits = _axis_limits(pairs[model, file] for model in models)
            axis.set(xlim=limits, ylim=limits)  # shared by the row
            row[0].set_ylabel(f"predicted {quantity.name} ({quantity.unit})")
        for axis in axes[-1]:
            axis.set_xlabel(f"reference {quantity.name} ({quantity.unit})")


def _draw_parity(axis: plt.Axes, values: np.ndarray, quantity: _Quantity) -> str:
    """Draw one model on one file; returns its mean absolute error in words."""
    shown = values[:: max(1, len(values) // _MOST)]
    size = 1.5 if len(shown) > 1000 else 5.0
    axis.plot(*shown.T, ".", ms=size, color=colour(0), alpha=0.4, mew=0, rasterized=True)
    axis.axline((0, 0), slope=1, color="0.35", lw=0.8, zorder=3)
    axis.set_box_aspect(1)
    if not len(values):
        return "not predicted"
    return f"{1e3 * np.abs(values[:, 1] - values[:, 0]).mean():.3g} m{quantity.unit}"


def _axis_limits(pairs: Iterable[np.ndarray]) -> tuple[float, float]:
    """The references with a margin; predictions far off leave the frame."""
    reference = np.concatenate([values[:, 0] for values in pairs])
    margin = 0.08 * (np.ptp(reference) or 1.0)
    return float(reference.min() - margin), float(reference.max() + margin)


def _plot_distributions(
    pairs: _Pairs, models: Sequence[str], quantity: _Quantity, path: Path
) -> None:
    """Share of values with an error above x: a panel per file, a line per model."""
    files = list(dict.fromkeys(file for _, file in pairs))
    size = (0.6 + 3.1 * len(files), 3.0)
    with panels(path, 1, len(files), figsize=size, sharey=True) as (_, axes):
        for axis, file in zip(axes[0], files, strict=True):
            _draw_distribution(axis, {model: pairs[model, file] for model in models})
            axis.set(xscale="log", yscale="log")
            axis.set_xlabel(f"error x of {quantity.name} (m{quantity.unit})")
            axis.set_title(file, fontsize=9)
        axes[0, 0].set_ylabel(f"share of {quantity.counted} with error > x")
        axes[0, 0].legend(loc="lower left")


def _draw_distribution(axis: plt.Axes, values: dict[str, np.ndarray]) -> None:
    errors = {model: np.sort(1e3 * np.abs(np.diff(pair)[:, 0])) for model, pair in values.items()}
    predicted = [error for error in errors.values() if len(error)]
    # the axis begins where the most accurate model has 98 % of its errors above; errors below a
    # ten-thousandth of the largest (a model compared with itself) are drawn at that edge
    edge = max(1e-4 * max(error[-1] for error in predicted), 1e-9)
    for number, (model, error) in enumerate(errors.items()):
        above = 1 - np.arange(len(error)) / max(len(error), 1)
        axis.plot(np.maximum(error, edge), above, color=colour(number), lw=1.4, label=model)
    axis.set_xlim(left=max(edge, min(np.percentile(error, 2) for error in predicted)))


def plot_scaling(timings: Mapping[str, Sequence[SizeTiming]], path: Path) -> None:
    """Time per atom, and memory where it was measured, against the number of atoms.

    Args:
        timings: model -> sizes; bars go from 10 to 90 %.
        path: PNG to write.
    """
    memory = any(timing.peak_mib is not None for sizes in timings.values() for timing in sizes)
    size = (7.0 if memory else 3.8, 3.0)
    with panels(path, 1, 2 if memory else 1, figsize=size) as (_, axes):
        for number, (model, sizes) in enumerate(timings.items()):
            look = {"color": colour(number), "marker": marker(number), "ms": 5, "lw": 1.3}
            atoms = [timing.atoms for timing in sizes]
            middle = [timing.us_per_atom for timing in sizes]
            bars = [
                [m - 1e3 * t.spread_ms[0] / t.atoms for m, t in zip(middle, sizes, strict=True)],
                [1e3 * t.spread_ms[1] / t.atoms - m for m, t in zip(middle, sizes, strict=True)],
            ]
            axes[0, 0].errorbar(atoms, middle, yerr=bars, capsize=2, label=model, **look)
            if memory:
                axes[0, 1].plot(atoms, [t.peak_mib for t in sizes], label=model, **look)
        axes[0, 0].set(xscale="log", yscale="log", xlabel="atoms", ylabel="force call (µs/atom)")
        axes[0, 0].legend()
        if memory:
            axes[0, 1].set(xscale="log", yscale="log", xlabel="atoms", ylabel="peak memory (MiB)")


def plot_errors(
    force_mae: Mapping[str, Sequence[float]],
    temperatures: Sequence[int],
    call_ms: Mapping[str, tuple[float, float, float]],
    path: Path,
    title: str,
) -> None:
    """Force error against test temperature, and against the time of a force call.

    Args:
        force_mae: model label to force MAE in meV/A, one per temperature.
        temperatures: K.
        call_ms: model label to 10, 50 and 90 % of the times of a force call, ms.
        path: PNG to write.
        title: above both panels.
    """
    with panels(path, 1, 2, figsize=(7.4, 3.2)) as (figure, axes):
        left, right = axes[0]
        for number, (label, values) in enumerate(force_mae.items()):
            look = {"color": colour(number), "marker": marker(number), "label": label}
            left.plot(temperatures, values, lw=1.4, ms=5, **look)
            low, middle, high = call_ms[label]
            bars = [[middle - low], [high - middle]]
            right.errorbar(middle, values[0], xerr=bars, ms=7, capsize=2, lw=1, ls="none", **look)
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


def plot_parity(forces: Mapping[str, Mapping[str, np.ndarray]], path: Path, title: str) -> None:
    """Predicted against reference force components, one panel per model, the last test behind.

    Args:
        forces: model label -> test -> reference and prediction, eV/A, (num_components, 2).
        path: PNG to write.
        title: above all panels.
    """
    size, columns = (2.6 * len(forces), 2.8), len(forces)
    with panels(path, 1, columns, figsize=size, sharex=True, sharey=True) as (figure, axes):
        for axis, (label, by_test) in zip(axes[0], forces.items(), strict=True):
            shades = plt.get_cmap("plasma")(np.linspace(0.75, 0.1, len(by_test)))
            for shade, (test, values) in zip(shades, reversed([*by_test.items()]), strict=True):
                look = {"ms": 1.6, "color": shade, "rasterized": True}
                axis.plot(*values.T, ".", label=test, **look)
            axis.axline((0, 0), slope=1, color="0.4", lw=0.8, zorder=0)
            axis.set_title(label, fontsize=9)
            axis.set_xlabel("reference force (eV/Å)")
            axis.set_aspect("equal")
        axes[0, 0].set_ylabel("predicted force (eV/Å)")
        axes[0, 0].legend(markerscale=5, handletextpad=0.1)
        figure.suptitle(title, fontsize=10)


def plot_energy_drift(runs: Mapping[str, NveRun], path: Path, title: str) -> None:
    """Total energy per atom and temperature along NVE runs."""
    with panels(path, 2, 1, figsize=(6.4, 4.0), sharex=True) as (figure, axes):
        upper, lower = axes[:, 0]
        for number, (label, run) in enumerate(runs.items()):
            drift = f"{label}: {run.drift:+.3f} meV/atom/ps"
            upper.plot(run.time, run.energy, color=colour(number), lw=0.9, label=drift)
            lower.plot(run.time, run.temperature, color=colour(number), lw=0.6)
        upper.set_ylabel("total energy\nchange (meV/atom)")
        upper.legend(loc="upper left", fontsize=8)
        low, high = upper.get_ylim()
        upper.set_ylim(low, high + 0.16 * len(runs) * (high - low))  # room for the legend
        lower.set(xlabel="time (ps)", ylabel="temperature (K)")
        figure.suptitle(title, fontsize=10)
