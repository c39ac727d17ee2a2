"""Dissociation curves of all pairs, and scans, model beside model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eqplugin.measure.physics.pairs import PairCurve
from eqplugin.measure.physics.scans import COORDINATE, ScanCurve
from eqplugin.style import COLOURS, STYLE, plt, save_figure

__all__ = ["plot_pairs", "plot_scans"]


def plot_pairs(curves: Mapping[str, Sequence[PairCurve]], path: Path) -> None:
    """A panel per pair of elements, a line per model.

    Args:
        curves: model -> curves.
        path: PNG to write.
    """
    names = list(dict.fromkeys(curve.name for of_model in curves.values() for curve in of_model))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(0.5 + 2.3 * columns, 0.5 + 1.9 * rows), layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axis, name in zip(axes.flat, names, strict=False):
            deepest = 0.0
            for number, (model, of_model) in enumerate(curves.items()):
                curve = next((c for c in of_model if c.name == name), None)
                if curve is None:
                    continue
                deepest = min(deepest, curve.energy.min())
                colour = COLOURS[number % len(COLOURS)]
                axis.plot(curve.distance, curve.energy, color=colour, lw=1.3, label=model)
            depth = max(-deepest, 0.5)
            axis.set(ylim=(-1.15 * depth, 1.15 * depth), xlim=(0, 8))
            axis.set_title(name, fontsize=9)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("energy (eV)")
        for axis in axes[-1]:
            axis.set_xlabel("distance (Å)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
        save_figure(figure, path)


def plot_scans(curves: Mapping[str, Sequence[ScanCurve]], path: Path) -> None:
    """A panel per scan, a line per model, the reference as points.

    Args:
        curves: model -> curves.
        path: PNG to write.
    """
    names = list(dict.fromkeys(c.scan.name for of_model in curves.values() for c in of_model))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(names), figsize=(0.8 + 3.4 * len(names), 3.4), layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axis, name in zip(axes[0], names, strict=True):
            found = {
                m: c for m, of_model in curves.items() for c in of_model if c.scan.name == name
            }
            curve = next(iter(found.values()))
            scan = curve.scan
            if scan.reference is not None:
                axis.plot(scan.coordinate, 1e3 * curve.relative(scan.reference), "o", ms=4,
                          color="0.3", mfc="white", label="reference")  # fmt: skip
            for number, (model, curve) in enumerate(found.items()):
                axis.plot(scan.coordinate, 1e3 * curve.relative(curve.energy), lw=1.4,
                          color=COLOURS[number % len(COLOURS)], label=model)  # fmt: skip
            told = all(COORDINATE in atoms.info for atoms in scan.frames)
            axis.set(xlabel="scan coordinate" if told else "frame")
            axis.set_title(name, fontsize=9)
        axes[0, 0].set_ylabel("relative energy (meV)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
        save_figure(figure, path)
