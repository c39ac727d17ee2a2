"""One look for the plots of the whole project, and one way to write them."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from eqplugin.files import whole_file

mpl.use("Agg")  # files only: works without a display
from matplotlib import pyplot as plt

__all__ = ["COLOURS", "MARKERS", "STYLE", "plt", "save_figure"]

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


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Write a figure, whole or not at all, and close it."""
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, bbox_inches="tight")
    finally:
        plt.close(figure)
