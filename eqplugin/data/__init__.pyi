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
