"""Labelled data, checked.

Names are looked up on first use, so that importing this package costs nothing.
"""

from eqplugin._lazy import lazy_exports

_HOMES = {
    "_labels": "Labels",
    "check": "check_files read_e0s",
    "errors": "DataError Problem",
    "report": "DataReport FileSummary raise_on_errors",
}
__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)
