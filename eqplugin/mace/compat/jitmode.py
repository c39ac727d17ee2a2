"""MACE's ``disable_e3nn_codegen`` leaves e3nn in another mode than it found; this one does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import e3nn
import mace.tools.compile

from eqplugin.mace.compat._rebind import rebind

__all__ = ["disable_e3nn_codegen", "repair"]


@contextmanager
def disable_e3nn_codegen() -> Iterator[None]:
    """Build e3nn modules without TorchScript, then restore e3nn's settings exactly."""
    # e3nn._OPT_DEFAULTS is written directly, because set_optimization_defaults couples the legacy
    # flag to the mode (e3nn/__init__.py:73-77): no order of calls restores every pair of values.
    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn._OPT_DEFAULTS.update(
            jit_script_fx=before["jit_script_fx"], jit_mode=before["jit_mode"]
        )


def repair() -> None:
    """Repair mace/tools/compile.py:35-40.

    There, ``set_optimization_defaults(jit_script_fx=True)`` at the end turns e3nn's ``jit_mode``
    from "eager" (its default on torch >= 2.10) into "script", for NequIP as well; after an
    exception nothing is restored at all.
    """
    original = mace.tools.compile.disable_e3nn_codegen
    if original is not disable_e3nn_codegen:
        rebind(original, disable_e3nn_codegen)
