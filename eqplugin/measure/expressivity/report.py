"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from eqplugin import files
from eqplugin.measure.expressivity.run import Result
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.resources import installed_version
from eqplugin.style import STYLE, plt, save_figure

# Position on the logarithmic scale from 1e-17 to 1: pale below the thresholds, blue above.
_COLOURS = LinearSegmentedColormap.from_list(
    "told apart",
    [(0, "#ffffff"), (0.335, "#f1f1f1"), (0.394, "#d6e6f2"), (0.7, "#6baed6"), (1, "#08519c")],
)
_ANSWERS = {True: "yes", False: "no", None: "-"}


def results_table(subject: Subject, results: Sequence[Result]) -> Table:
    """One row per pair: measured, verdict, expectation and why."""
    table = Table(
        title=f"{subject.name}: {subject.architecture}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        caption_justify="left",
        caption="difference: largest over the draws of the weights, relative to the response to "
        "noise (stars: to the size of the features), 0: to the last digit; "
        f"{_limits(results)}; '!': measurement and theory disagree",
    )
    table.add_column("pair", overflow="fold")
    table.add_column("differ-\nence", justify="right", no_wrap=True)
    if subject.trained:
        table.add_column("own\nweights", justify="right", no_wrap=True)
    table.add_column("tells\napart", no_wrap=True)
    table.add_column("theory", no_wrap=True)
    table.add_column("why", overflow="fold", style="dim")
    suite = None
    for result in results:
        if suite not in (None, result.suite):
            table.add_section()
        suite = result.suite
        table.add_row(*_row(result, subject.trained))
    return table


def _limits(results: Sequence[Result]) -> str:
    """The thresholds in words; with the suites they hold for, if these differ."""
    suites: dict[tuple[float, float], dict[str, None]] = {}
    for result in results:
        suites.setdefault(result.thresholds, {})[result.suite] = None
    return "; ".join(
        f"{', '.join(names) + ': ' if len(suites) > 1 else ''}yes above {high:.0e}, "
        f"no below {low:.0e}"
        for (low, high), names in suites.items()
    )


def _row(result: Result, trained: bool) -> list[str | Text]:
    colours = {"separates": "green", "cannot separate": "cyan", "undecided": "yellow"}
    short = {"separates": "yes", "cannot separate": "no", "undecided": "?"}
    verdict = Text(short[result.verdict], colours[result.verdict])
    if result.agrees is False:
        verdict = Text(f"{short[result.verdict]} !", "bold red")
    row: list[str | Text] = [result.case, _number(result.difference)]
    if trained:
        row.append("-" if result.own is None else _number(result.own))
    return [*row, verdict, _ANSWERS[result.expected], result.why]


def _number(value: float) -> str:
    return "0" if value == 0 else "-" if np.isnan(value) else f"{value:.0e}"


def write_json(path: Path, models: Mapping[str, tuple[Subject, Sequence[Result]]]) -> None:
    """Write everything that was measured, with versions; replaces the file at once."""
    records = [
        {
            "model": name,
            "architecture": str(subject.architecture),
            "r_max": subject.r_max,
            "species": list(subject.symbols),
            "trained": subject.trained,
            "results": [_finite(asdict(result)) for result in results],
        }
        for name, (subject, results) in models.items()
    ]
    packages = ("eqplugin", "torch", "e3nn", "nequip", "mace-torch")
    versions = {name: installed_version(name) for name in packages}
    files.write_json(path, {"versions": versions, "models": records})


def _finite(record: dict) -> dict:
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in record.items()
    }


def plot_heat_map(
    path: Path, models: Mapping[str, tuple[Subject, Sequence[Result]]], title: str
) -> None:
    """Models across, pairs down: how clearly each pair is told apart, as a PNG.

    Colours are the measured differences, from white (exactly nothing) to blue; a dot marks what
    theory expects to be separated, a cross a disagreement. All models have the same suites.
    """
    names = list(models)
    rows = [result for result in models[names[0]][1]]
    values = np.array([[r.difference for r in results] for _, results in models.values()]).T
    shown = np.clip(np.nan_to_num(values, nan=1e-17), 1e-17, 1.0)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axis = plt.subplots(
            figsize=(3.6 + 0.95 * len(names), 1.6 + 0.24 * len(rows)), layout="constrained"
        )
        image = axis.imshow(shown, cmap=_COLOURS, norm=LogNorm(1e-17, 1.0), aspect="auto")
        for column, (_, results) in enumerate(models.values()):
            for row, result in enumerate(results):
                dark = shown[row, column] > 1e-4
                axis.text(column, row, _number(values[row, column]), ha="center", va="center",
                          fontsize=6.5, color="white" if dark else "0.15")  # fmt: skip
                mark = {True: "o"}.get(result.expected)
                if result.agrees is False:
                    axis.plot(column - 0.38, row, "x", color="#D00000", ms=5, mew=1.6)
                elif mark:
                    axis.plot(column - 0.38, row, mark, color="0.1", ms=2.4)
        axis.set_xticks(range(len(names)), [_wrapped(name) for name in names], fontsize=7)
        axis.xaxis.tick_top()
        axis.set_yticks(range(len(rows)), [result.case for result in rows], fontsize=7)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
        for edge in np.flatnonzero(
            [above.suite != below.suite for above, below in itertools.pairwise(rows)]
        ):
            axis.axhline(edge + 0.5, color="0.35", lw=0.8)
        for edge in range(1, len(names)):
            axis.axvline(edge - 0.5, color="white", lw=1.5)
        bar = figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02)
        bar.set_label("difference / response to noise", fontsize=7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.axhspan(5e-12, 5e-11, color="0.2", lw=0)
        figure.suptitle(title, fontsize=9)
        figure.supxlabel("● theory: separates    ✕ disagreement    grey band: thresholds",
                         fontsize=6.5)  # fmt: skip
        save_figure(figure, path)


def _wrapped(name: str) -> str:
    """Break a model's name so that columns stay narrow."""
    stem = name.replace(":", ":\n").replace(",", ",\n")
    return "\n".join(part if len(part) < 18 else f"{part[:16]}…" for part in stem.split("\n"))
