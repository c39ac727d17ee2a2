"""Names of other packages, exchanged for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exchanged(*exchanges: tuple[object, str, object]) -> Iterator[None]:
    """Set attributes to other values and put them back, whatever happens.

    Args:
        *exchanges: owner (a module, class or instance), name, value.
    """
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in exchanges]
    try:
        for owner, name, value in exchanges:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
