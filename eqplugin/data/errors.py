"""The error of this room: a data problem the user can mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eqplugin.errors import EqPluginError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eqplugin.data.report import Problem

__all__ = ["DataError"]


class DataError(EqPluginError):
    """A data file, label or option that cannot be used as it stands.

    Args:
        message: one sentence that names the culprit and says what to do
        problems: everything that was found, when more than one thing was looked at

    Attributes:
        problems: tuple of :class:`eqplugin.data.report.Problem`, possibly empty
    """

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[Problem, ...] = tuple(problems)
