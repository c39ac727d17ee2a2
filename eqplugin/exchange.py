"""Names of other packages, and torch's default dtype, exchanged for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let torch make tensors of this dtype where none is named."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
