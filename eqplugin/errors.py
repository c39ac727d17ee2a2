"""Errors meant for the user: one sentence that names the culprit and says what to do."""

from __future__ import annotations

__all__ = ["EqPluginError", "reason_of"]


class EqPluginError(ValueError):
    """A mistake the user can mend; commands print it as one sentence and exit non-zero."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether NumPy, torch on a CPU or torch on a GPU could not have the memory it asked for."""
    says = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in says or "allocate memory" in says)
    )


def reason_of(error: BaseException, named: bool = False) -> str:
    """First line of a foreign error's message; the error's name where it has none.

    Args:
        error: any exception.
        named: put the name before the message.

    >>> reason_of(KeyError())
    'KeyError'
    >>> reason_of(OSError("disk full"), named=True)
    'OSError: disk full'
    """
    name = type(error).__name__
    line = next(iter(str(error).strip().splitlines()), "")
    return (f"{name}: {line}" if named else line) if line else name
