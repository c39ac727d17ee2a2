"""The report's Markdown as one HTML page that stands alone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; margin-top: 2rem; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.9rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; white-space: normal; vertical-align: bottom; }
img { max-width: 100%; }
"""


def html_page(markdown: str, folder: Path) -> str:
    """Render Markdown with the images inside.

    Args:
        markdown: begins with a heading, which becomes the title.
        folder: where the images lie that the text names.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    _embed_images(tokens, folder)
    body = parser.renderer.render(tokens, parser.options, {})
    title = html.escape(markdown.split("\n", 1)[0].lstrip("# "))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _embed_images(tokens: Sequence[Token], folder: Path) -> None:
    for token in tokens:
        if token.type == "image":
            data = base64.b64encode((folder / token.attrs["src"]).read_bytes()).decode()
            token.attrs["src"] = f"data:image/png;base64,{data}"
        _embed_images(token.children or (), folder)
