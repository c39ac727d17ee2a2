"""MACE on e3nn 0.6, beside NequIP, with the numbers it has on the e3nn 0.4.4 that it pins.

``apply`` is called by ``import eqplugin.mace``; it changes the running process only, no file:

* `pickles`: e3nn's classes read what e3nn 0.4.x wrote,
* `signs`: MACE builds with the Clebsch-Gordan signs of e3nn 0.4.x,
* `convention`: models record these signs,
* `copying`: ``copy.deepcopy`` keeps generated code as it is,
* `jitmode`: models are built in e3nn's mode "eager", and the mode is restored afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging

from eqplugin.mace.compat.versions import reason_for_no_repair
from eqplugin.resources import installed_version

__all__ = ["apply", "is_active"]

_LOGGER = logging.getLogger(__name__)
_active = False


def is_active() -> bool:
    """Were MACE's modules repaired in this process?"""
    return _active


def apply() -> bool:
    """Repair MACE in this process; calling it again changes nothing.

    Returns:
        whether MACE is repaired: False where it needs no repair, e.g. a MACE without the pin.

    Raises:
        ImportError: one sentence, when mace-torch is not installed.
    """
    global _active
    if _active:
        return True
    if installed_version("mace-torch") is None:
        raise ImportError(
            "eqplugin.mace needs MACE; install it with: pip install --no-deps mace-torch==0.3.16"
        )
    reason = reason_for_no_repair()
    if reason:
        _LOGGER.info("eqplugin.mace changes nothing: %s.", reason)
        return False
    _import_quietly()
    # imported here: each of them imports MACE, which the lines above may do without
    from eqplugin.mace.compat import convention, copying, jitmode, pickles, signs

    for repair in (pickles, copying, jitmode, signs, convention):
        repair.repair()
    _active = True
    _LOGGER.info("MACE on e3nn %s builds and reads as on e3nn 0.4.", installed_version("e3nn"))
    return True


def _import_quietly() -> None:
    """Import MACE's modules; what they print (mace/tools/cg.py:276) goes to the log instead.

    Otherwise it would be part of every command's output, of JSON as well.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        importlib.import_module("mace.tools.cg")
    for line in printed.getvalue().splitlines():
        _LOGGER.info(line)
