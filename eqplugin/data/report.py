"""What a check found: problems in sentences, and a summary per file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from eqplugin.data.errors import DataError, Problem

LEVELS = ("error", "warning", "note")


@dataclass
class FileSummary:
    """Numbers of one file. Undefined ones (no labels, no frames) are NaN."""

    path: str  #: as given
    frames: int = 0  #: number of frames read
    atoms: tuple[int, int] = (0, 0)  #: smallest and largest number of atoms
    species: tuple[str, ...] = ()  #: chemical symbols, by atomic number
    periodic: str = "no"  #: `yes`, `no`, `mixed` (between frames) or `partly` (some directions)
    #: label-like keys as they stand in the file -> frames that have them
    labels: dict[str, int] = field(default_factory=dict)
    energy_per_atom: tuple[float, float] = (math.nan, math.nan)  #: smallest and largest (eV)
    force_rms: float = math.nan  #: root mean square force component (eV/A)
    force_max: float = math.nan  #: largest force on an atom, its norm (eV/A)
    duplicates: int = 0  #: frames that repeat an earlier frame of the file


@dataclass
class DataReport:
    """Result of :func:`eqplugin.data.check_files`."""

    #: one summary per file that could be read
    files: list[FileSummary] = field(default_factory=list)
    #: everything found, in the order of files and frames
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
    def leaks(self) -> list[Problem]:
        """Frames that files share, or that are of one trajectory: errors on such tests flatter."""
        return [p for p in self.problems if p.code in ("overlap", "same_trajectory")]

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
    """Raise a :class:`DataError` with the first error's sentence, if there is an error."""
    if not report.errors:
        return
    first, *others = report.errors
    message = first.message
    if others:
        where = first.file or "FILE"
        message += f" (and {len(others)} more; run `eqplugin data check {where}`)"
    raise DataError(message, report.errors)
