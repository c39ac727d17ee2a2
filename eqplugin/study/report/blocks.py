"""The parts of a report, and how each is written in Markdown and in HTML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eqplugin.measure.tables import markdown as aligned

__all__ = ["Block", "Bullets", "Heading", "Image", "Table", "Text", "to_html", "to_markdown"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 1rem 0; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th.key, td.key { text-align: left; }
.wide { overflow-x: auto; }
img { max-width: 100%; }
"""


@dataclass(frozen=True)
class Heading:
    """A title; level 1 to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; ``**bold**`` and `` `code` `` are understood."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table, its first ``keys`` columns left-aligned."""

    keys: Sequence[str]
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Image:
    """A PNG."""

    path: Path
    alt: str


Block = Heading | Text | Bullets | Table | Image


def to_markdown(blocks: Sequence[Block]) -> str:
    """The report as Markdown; images are named, beside it."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(keys, heads, rows):
            return aligned(keys, heads, rows)
        case Image(path, alt):
            return f"![{alt}]({path.name})"


def to_html(blocks: Sequence[Block]) -> str:
    """The report as one HTML file, images inside."""
    title = next((b.text for b in blocks if isinstance(b, Heading)), "report")
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table(keys, heads, rows):
            return _html_table(len(keys), [*keys, *heads], rows)
        case Image(path, alt):
            data = base64.b64encode(path.read_bytes()).decode()
            return f'<p><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"></p>'


def _html_table(keys: int, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="key"' if i < keys else "" for i in range(len(cells))]
        inner = "".join(
            f"<{tag}{kind}>{_inline(cell).replace(chr(10), '<br>')}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    return f'<div class="wide"><table>\n{row(heads, "th")}\n{body}\n</table></div>'


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
