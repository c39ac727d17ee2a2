"""e3nn's jit mode: MACE builds in "eager" and leaves the mode as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import e3nn
import mace.tools.compile

from eqplugin.mace.compat._rebind import rebind
from eqplugin.process import loading


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


@contextmanager
def building_eagerly() -> Iterator[None]:
    """Build e3nn modules in the mode "eager", e3nn's default on torch >= 2.10, whatever it is now.

    Built in the mode "script", e3nn 0.6's SphericalHarmonics holds a function that can neither be
    pickled nor copied, so the model could not be saved. The mode need not be the user's choice:
    NequIP's ``conditional_torchscript_mode`` (nequip/utils/compile.py:17-29) leaves "script"
    behind whenever it has built a model for torch.compile in the same process.
    """
    with loading():
        before = e3nn.get_optimization_defaults()["jit_mode"]
        e3nn._OPT_DEFAULTS["jit_mode"] = "eager"
        try:
            yield
        finally:
            e3nn._OPT_DEFAULTS["jit_mode"] = before


def repair() -> None:
    """Repair mace/tools/compile.py:35-40.

    There, ``set_optimization_defaults(jit_script_fx=True)`` at the end turns e3nn's ``jit_mode``
    from "eager" (its default on torch >= 2.10) into "script", for NequIP as well; after an
    exception nothing is restored at all.
    """
    original = mace.tools.compile.disable_e3nn_codegen
    if original is not disable_e3nn_codegen:
        rebind(original, disable_e3nn_codegen)
