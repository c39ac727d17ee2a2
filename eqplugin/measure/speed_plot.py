"""Time per atom, and memory, against the number of atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eqplugin.measure.scaling import Timing
from eqplugin.style import COLOURS, MARKERS, STYLE, plt, save_figure

__all__ = ["plot_scaling"]


def plot_scaling(
    timings: Mapping[str, Sequence[Timing]], peaks: Mapping[str, Sequence[float]], path: Path
) -> None:
    """One line per model; bars from the 10th to the 90th percentile.

    Args:
        timings: model -> sizes.
        peaks: model -> MiB at these sizes; may be empty.
        path: PNG to write.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2 if peaks else 1, figsize=(7.0 if peaks else 3.8, 3.0), layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for number, (model, sizes) in enumerate(timings.items()):
            look = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6], "ms": 5, "lw": 1.3}
            atoms = [timing.atoms for timing in sizes]
            middle = [timing.us_per_atom for timing in sizes]
            bars = [
                [m - 1e3 * t.spread_ms[0] / t.atoms for m, t in zip(middle, sizes, strict=True)],
                [1e3 * t.spread_ms[1] / t.atoms - m for m, t in zip(middle, sizes, strict=True)],
            ]
            axes[0, 0].errorbar(atoms, middle, yerr=bars, capsize=2, label=model, **look)
            if model in peaks:
                axes[0, 1].plot(atoms, peaks[model], label=model, **look)
        axes[0, 0].set(xscale="log", yscale="log", xlabel="atoms", ylabel="force call (µs/atom)")
        axes[0, 0].legend()
        if peaks:
            axes[0, 1].set(xscale="log", yscale="log", xlabel="atoms", ylabel="peak memory (MiB)")
        save_figure(figure, path)
