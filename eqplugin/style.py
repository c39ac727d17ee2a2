"""One look for the plots of the whole project, and one way to write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from eqplugin.files import whole_file

mpl.use("Agg")  # files only: works without a display
from matplotlib import pyplot as plt

# Okabe-Ito: distinguishable with any colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colour(number: int) -> str:
    """The colour of a plot's n-th line; they repeat after six."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of a plot's n-th line; they repeat after six."""
    return MARKERS[number % len(MARKERS)]


@contextmanager
def panels(
    path: Path, rows: int, columns: int, **options: Any
) -> Iterator[tuple[plt.Figure, np.ndarray]]:
    """Give a figure and its axes, (rows, columns), and write it as PNG when the block ends well.

    ``options`` are those of ``plt.subplots``, such as ``figsize`` and ``sharey``.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, squeeze=False, **{"layout": "constrained", **options}
        )
        try:
            yield figure, axes
            save_figure(figure, path)
        finally:
            plt.close(figure)


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Write a figure, whole or not at all, and close it."""
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, bbox_inches="tight")
    finally:
        plt.close(figure)
