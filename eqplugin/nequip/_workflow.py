"""How a user's mistake leaves nequip-train: as one sentence, not as a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nequip.scripts._workflow_utils import get_workflow_state

from eqplugin.errors import EqPluginError


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """End the process with the error's sentence when a NequIP command is running.

    In Python code the :class:`EqPluginError` is raised as usual. Inside ``nequip-train`` and its
    kin Hydra would bury it under a page of traceback; ``SystemExit`` passes through Hydra and
    Lightning, prints the sentence on stderr and gives exit status 1.
    """
    try:
        yield
    except EqPluginError as error:
        if get_workflow_state() is None:
            raise
        raise SystemExit(f"eqplugin: error: {error}") from None
