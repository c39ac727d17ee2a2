"""Labelled data, checked.

Names are looked up on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "DataError": "errors",
    "DataReport": "report",
    "FileSummary": "report",
    "Labels": "_labels",
    "Problem": "errors",
    "check_files": "check",
    "raise_on_errors": "report",
    "read_e0s": "check",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
