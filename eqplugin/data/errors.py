"""What can be wrong with data: a problem in a sentence, and the error that carries problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eqplugin.errors import EqPluginError


@dataclass(frozen=True)
class Problem:
    """One thing that was found."""

    level: str  #: `error` (unusable), `warning` (look at it) or `note` (harmless)
    code: str  #: short stable name, e.g. `missing_forces`
    message: str  #: one sentence that names file, frame and culprit, and says what to do
    file: str | None = None  #: path as given, or None
    frame: int | None = None  #: index of the first frame concerned, or None


class DataError(EqPluginError):
    """A data file, label or option that cannot be used as it stands.

    Args:
        message: one sentence that names the culprit and says what to do
        problems: everything that was found, when more than one thing was looked at
    """

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[Problem, ...] = tuple(problems)
