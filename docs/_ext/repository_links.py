"""Links from a page to files elsewhere in the repository, which GitHub shows and a site does not.

A few such files become pages of the site; any other is offered for download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
# file of the repository: its copy on the site
COPIES = {
    "benchmarks/README.md": "reference/generated/record.md",
    "examples/data/README.md": "reference/generated/data.md",
    "CHANGELOG.md": "reference/generated/changelog.md",
}
LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^):#\s]+)(#[^)\s]*)?\)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite the links when a page is read."""
    app.connect("source-read", _rewrite_page)
    return {"parallel_read_safe": True}


def site_text(path: str) -> str:
    """The text of a file of the repository, with links that work on the site."""
    return _site_links((ROOT / path).read_text(encoding="utf-8"), os.path.dirname(path))


def _rewrite_page(app: Sphinx, page: str, source: list[str]) -> None:
    if not page.startswith("reference/generated/"):
        source[0] = _site_links(source[0], os.path.join("docs", os.path.dirname(page)))


def _site_links(text: str, folder: str) -> str:
    def link(match: re.Match[str]) -> str:
        image, label, target, anchor = match.groups(default="")
        path = os.path.normpath(os.path.join(folder, target))
        if path in COPIES:
            return f"[{label}](/{COPIES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{image}[{label}](/{path.removeprefix('docs/')}{anchor})"
        if not (ROOT / path).is_file():
            return match.group(0)
        if image:
            return f"![{label}](/../{path})"
        return f"{{download}}`{label.replace('`', '')} </../{path}>`"

    return LINK.sub(link, text)
