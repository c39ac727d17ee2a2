"""Is the repair needed? Only while the installed MACE pins e3nn 0.4.x and e3nn is newer."""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["reason_for_no_repair"]

_PINNED_TO_0_4 = re.compile(r"^e3nn\s*\(?\s*(==|~=)\s*0\.4(\.|\s|\)|;|$)")


def reason_for_no_repair(requirements: list[str] | None = None, e3nn: str | None = None) -> str:
    """Why MACE needs no repair here; empty where it does.

    Args:
        requirements: what MACE requires (``Requires-Dist``); by default what is installed.
        e3nn: version of e3nn; by default what is installed.
    """
    if requirements is None:
        requirements = metadata.requires("mace-torch") or []
    if e3nn is None:
        e3nn = metadata.version("e3nn")
    if not any(_PINNED_TO_0_4.match(line.strip()) for line in requirements):
        return "the installed MACE does not pin e3nn 0.4"
    if tuple(int(part) for part in re.findall(r"\d+", e3nn)[:2]) < (0, 5):
        return f"e3nn {e3nn} is what MACE pins"
    return ""
