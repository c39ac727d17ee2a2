"""Dissociation curves of all pairs, model beside model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eqplugin.bench.physics.pairs import PairCurve
from eqplugin.bench.plots import _save, plt
from eqplugin.style import COLOURS, STYLE

__all__ = ["plot_pairs"]


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
        _save(figure, path)
