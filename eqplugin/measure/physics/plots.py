"""Dissociation curves of all pairs, and scans, model beside model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eqplugin.measure.physics.pairs import PairCurve
from eqplugin.measure.physics.scans import COORDINATE, ScanCurve
from eqplugin.style import colour, panels, plt


def plot_pairs(curves: Mapping[str, Sequence[PairCurve]], path: Path) -> None:
    """A panel per pair of elements, a line per model."""
    names = list(dict.fromkeys(curve.name for of_model in curves.values() for curve in of_model))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    size = (0.5 + 2.3 * columns, 0.5 + 1.9 * rows)
    with panels(path, rows, columns, figsize=size) as (figure, axes):
        for axis, name in zip(axes.flat, names, strict=False):
            deepest = 0.0
            for number, (model, of_model) in enumerate(curves.items()):
                for curve in (c for c in of_model if c.name == name):
                    deepest = min(deepest, curve.energy.min())
                    look = {"color": colour(number), "lw": 1.3, "label": model}
                    axis.plot(curve.distance, curve.energy, **look)
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
        _legend_above(figure, axes[0, 0])


def plot_scans(curves: Mapping[str, Sequence[ScanCurve]], path: Path) -> None:
    """A panel per scan, a line per model, the reference as points."""
    names = list(dict.fromkeys(c.scan.name for of_model in curves.values() for c in of_model))
    size = (0.8 + 3.4 * len(names), 3.4)
    with panels(path, 1, len(names), figsize=size) as (figure, axes):
        for axis, name in zip(axes[0], names, strict=True):
            _draw_scan(
                axis,
                {m: c for m, of_model in curves.items() for c in of_model if c.scan.name == name},
            )
            axis.set_title(name, fontsize=9)
        axes[0, 0].set_ylabel("relative energy (meV)")
        _legend_above(figure, axes[0, 0])


def _draw_scan(axis: plt.Axes, curves: Mapping[str, ScanCurve]) -> None:
    first = next(iter(curves.values()))
    scan = first.scan
    if scan.reference is not None:
        look = {"ms": 4, "color": "0.3", "mfc": "white", "label": "reference"}
        axis.plot(scan.coordinate, 1e3 * first.relative(scan.reference), "o", **look)
    for number, (model, curve) in enumerate(curves.items()):
        look = {"lw": 1.4, "color": colour(number), "label": model}
        axis.plot(scan.coordinate, 1e3 * curve.relative(curve.energy), **look)
    has_coordinate = all(COORDINATE in atoms.info for atoms in scan.frames)
    axis.set(xlabel="scan coordinate" if has_coordinate else "frame")


def _legend_above(figure: plt.Figure, axis: plt.Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))
