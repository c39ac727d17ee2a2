"""What all threads of a process share: one loads a model at a time, while nobody evaluates one.

Building and reading models changes torch for everybody in the process: the default dtype, e3nn's
modes, and, while torch.fx traces a module, ``torch.nn.Module.__call__`` itself. Two threads that
put back what they found leave the other's change behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Gate:
    """Many may be inside to evaluate, or one to load; a thread may enter again in any order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._evaluating: dict[int, int] = {}  # thread -> how many times it is inside
        self._loading: int | None = None  # thread
        self._depth = 0
        self._waiting = 0  # threads that want to load: nobody new evaluates before them

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            if me not in self._evaluating:
                self._changed.wait_for(
                    lambda: self._loading == me or (self._loading is None and not self._waiting)
                )
            self._evaluating[me] = self._evaluating.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._evaluating[me] -= 1
                if not self._evaluating[me]:
                    del self._evaluating[me]
                self._changed.notify_all()

    @contextmanager
    def loading(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            # it waits for the others, not for itself
            inside = self._evaluating.pop(me, 0)
            self._changed.notify_all()
            self._waiting += 1
            try:
                self._changed.wait_for(
                    lambda: self._loading == me or (self._loading is None and not self._evaluating)
                )
            finally:
                self._waiting -= 1
            self._loading = me
            self._depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._loading = None
                if inside:
                    self._evaluating[me] = inside
                self._changed.notify_all()


_gate = _Gate()
if hasattr(os, "register_at_fork"):
    # the threads that were inside do not exist in a forked process
    os.register_at_fork(after_in_child=_gate.__init__)  # type: ignore[misc]


@contextmanager
def loading() -> Iterator[None]:
    """Be the only thread that loads or builds a model, and let none evaluate one meanwhile.

    torch's default dtype is afterwards what it was before.
    """
    import torch

    with _gate.loading():
        before = torch.get_default_dtype()
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def evaluating() -> Iterator[None]:
    """Evaluate a model while no thread loads one; others may evaluate theirs."""
    with _gate.evaluating():
        yield
