"""One table in every form: screen, CSV, Markdown; units in the head, '-' for what is absent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from eqplugin.measure.force_errors import Errors

__all__ = ["ERROR_COLUMNS", "error_rows", "markdown", "rich_table", "to_csv"]

# measure -> (head, format): what fits on a screen; errors.json and errors.csv hold all of them
ERROR_COLUMNS: dict[str, tuple[str, str]] = {
    "frames": ("frames", "d"),
    "force_mae": ("F MAE\nmeV/Å", ".1f"),
    "force_rmse": ("F RMSE\nmeV/Å", ".1f"),
    "force_cosine": ("F cos", ".3f"),
    "energy_mae": ("E MAE\nmeV/at", ".2f"),
    "relative_energy_mae": ("E rel\nmeV/at", ".2f"),
    "stress_mae": ("S MAE\nmeV/Å³", ".2f"),
}


def error_rows(errors: Mapping[tuple[str, ...], Errors]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the measures that any row has; the keys of ``errors`` come first.

    Returns:
        heads of the measures, and rows of text (key parts, then measures).
    """
    used = [n for n in ERROR_COLUMNS if any(getattr(e, n) is not None for e in errors.values())]
    rows = [
        [*key, *(_cell(getattr(error, name), ERROR_COLUMNS[name][1]) for name in used)]
        for key, error in errors.items()
    ]
    return [ERROR_COLUMNS[name][0] for name in used], rows


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def rich_table(
    title: str, keys: Sequence[str], heads: Sequence[str], rows: Iterable[Sequence[str]]
) -> Table:
    """A table for the terminal: keys on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows = list(rows)
    for index, key in enumerate(keys):
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(key, overflow="fold", min_width=min(12, longest))
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(keys: Sequence[str], heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same as Markdown, its columns aligned as text too."""
    cells = [[*keys, *(head.replace("\n", " (") + ")" * ("\n" in head) for head in heads)], *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    numbers = [False] * len(keys) + [True] * len(heads)
    lines = [_line(cells[0], widths, numbers)]
    marks = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numbers, strict=True)]
    lines.append(_line(marks, widths, numbers))
    lines += [_line(row, widths, numbers) for row in cells[1:]]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, numbers, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def to_csv(keys: Sequence[str], errors: Mapping[tuple[str, ...], Errors]) -> str:
    """All measures at full precision; an empty field where there is no label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *Errors.names()])
    for key, error in errors.items():
        values = (getattr(error, name) for name in Errors.names())
        writer.writerow([*key, *("" if value is None else repr(value) for value in values)])
    return text.getvalue()
