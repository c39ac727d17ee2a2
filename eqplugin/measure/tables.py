"""A table of text in every form: screen, Markdown; units in the head, '-' for what is absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich import table as rich_table


@dataclass(frozen=True)
class Table:
    """Rows of text: keys on the left, numbers on the right."""

    keys: Sequence[str]  # heads of the first columns, aligned left
    heads: Sequence[str]  # heads of the other columns, aligned right; the unit on a second line
    rows: Sequence[Sequence[str]]  # cells, keys first

    def to_rich(self, title: str = "") -> rich_table.Table:
        """The table for the terminal."""
        table = rich_table.Table(
            title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for index, key in enumerate(self.keys):
            longest = max((len(row[index]) for row in self.rows), default=0)
            table.add_column(key, overflow="fold", min_width=min(12, longest))
        for head in self.heads:
            table.add_column(head, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """The table as Markdown, its columns aligned as text too."""
        heads = [head.replace("\n", " (") + ")" * ("\n" in head) for head in self.heads]
        rows = [[cell.replace("|", r"\|") for cell in row] for row in self.rows]
        columns = zip(*([*self.keys, *heads], *rows), strict=True)
        padded = [_padded(column, index >= len(self.keys)) for index, column in enumerate(columns)]
        return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def _padded(column: Sequence[str], is_number: bool) -> list[str]:
    """Head, rule and cells of a column, all of one width."""
    width = max(map(len, column))
    head, *cells = (c.rjust(width) if is_number else c.ljust(width) for c in column)
    return [head, "-" * (width - 1) + ":" if is_number else "-" * width, *cells]


def cell(value: object, form: str) -> str:
    """A value as text; '-' for None."""
    return "-" if value is None else format(value, form)
