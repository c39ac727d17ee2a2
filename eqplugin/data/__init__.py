"""Labelled data, checked.

Names are looked up on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eqplugin.data._labels import Labels
    from eqplugin.data.check import check_files, read_e0s
    from eqplugin.data.errors import DataError, Problem
    from eqplugin.data.report import DataReport, FileSummary, raise_on_errors

__all__ = [
    "DataError",
    "DataReport",
    "FileSummary",
    "Labels",
    "Problem",
    "check_files",
    "raise_on_errors",
    "read_e0s",
]

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


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
