"""Errors meant for the user: one sentence that names the culprit and says what to do."""

from __future__ import annotations

__all__ = ["EqPluginError", "reason_of"]


class EqPluginError(ValueError):
    """A mistake the user can mend; commands print it as one sentence and exit non-zero."""


def reason_of(error: BaseException) -> str:
    """The first line of what an error of others says; its name where it says nothing.

    >>> reason_of(KeyError())
    'KeyError'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
