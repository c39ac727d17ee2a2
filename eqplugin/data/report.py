"""What a check found: problems in sentences, and a summary per file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from eqplugin.data.errors import DataError, Problem

LEVELS = ("error", "warning", "note")


@dataclass
class FileSummary:
    """Numbers of one file. Undefined ones (no labels, no frames) are NaN.

    Args:
        path: as given
        frames: number of frames read
        atoms: smallest and largest number of atoms
        species: chemical symbols, by atomic number
        periodic: ``yes``, ``no``, ``mixed`` (between frames) or ``partly`` (some directions)
        labels: label-like keys as they stand in the file -> frames that have them
        energy_per_atom: smallest and largest (eV)
        force_rms: root mean square force component (eV/A)
        force_max: largest force on an atom, its norm (eV/A)
        duplicates: frames that repeat an earlier frame of the file
    """

    path: str
    frames: int = 0
    atoms: tuple[int, int] = (0, 0)
    species: tuple[str, ...] = ()
    periodic: str = "no"
    labels: dict[str, int] = field(default_factory=dict)
    energy_per_atom: tuple[float, float] = (math.nan, math.nan)
    force_rms: float = math.nan
    force_max: float = math.nan
    duplicates: int = 0


@dataclass
class DataReport:
    """Result of :func:`eqplugin.data.check_files`.

    Args:
        files: one summary per file that could be read
        problems: everything found, in the order of files and frames
    """

    files: list[FileSummary] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def _at_level(self, level: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == level]

    @property
    def errors(self) -> list[Problem]:
        """Problems that make the data unusable."""
        return self._at_level("error")

    @property
    def warnings(self) -> list[Problem]:
        """Problems to look at."""
        return self._at_level("warning")

    @property
    def notes(self) -> list[Problem]:
        """Harmless remarks."""
        return self._at_level("note")

    @property
    def ok(self) -> bool:
        """Whether no error was found."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready content; undefined numbers are None, since JSON has no NaN."""
        return _jsonable({"ok": self.ok, **asdict(self)})


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def raise_on_errors(report: DataReport) -> None:
    """Raise if the report holds an error, with the first one's sentence.

    Raises:
        DataError: its message is the first error's sentence; ``.problems`` holds all errors
    """
    errors = report.errors
    if not errors:
        return
    message = errors[0].message
    if len(errors) > 1:
        where = errors[0].file or "FILE"
        message += f" (and {len(errors) - 1} more; run `eqplugin data check {where}`)"
    raise DataError(message, errors)
