"""Silence for a block of code: loading a model makes the stacks talk, and nobody asked."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from eqplugin.errors import TrustWarning


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Give the root logger its level and handlers back, which trainers and Hydra make their own."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
            with contextlib.suppress(OSError):  # of a full disk, which the caller hears of already
                handler.close()


@contextlib.contextmanager
def quiet(log_level: int = logging.WARNING, stdout: bool = False) -> Iterator[None]:
    """Hold back Python warnings, log messages and, if asked, what is printed.

    Args:
        log_level: messages up to this level are dropped; ``logging.NOTSET`` drops none.
        stdout: drop what is printed to ``sys.stdout`` as well.

    >>> with quiet(stdout=True):
    ...     print("Loading ...")
    """
    before = logging.root.manager.disable
    logging.disable(max(log_level, before))
    printed = contextlib.redirect_stdout(io.StringIO()) if stdout else contextlib.nullcontext()
    try:
        with warnings.catch_warnings(), printed:
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", TrustWarning)
            yield
    finally:
        logging.disable(before)
