"""MACE on e3nn 0.6, beside NequIP, with the numbers it has on the e3nn 0.4.4 that it pins.

``apply`` is called by ``import eqplugin.mace``; it changes the running process only, no file:

* `pickles`: e3nn's classes read what e3nn 0.4.x wrote, and are copied as they are,
* `signs`: MACE builds with the Clebsch-Gordan signs of e3nn 0.4.x,
* `convention`: models record these signs,
* `jitmode`: models are built in e3nn's mode "eager", and the mode is restored afterwards,
* `opening`: MACE opens pickles as this package does.
"""

from __future__ import annotations

import importlib
import logging
import re
from importlib import metadata

from eqplugin.quiet import quiet
from eqplugin.resources import installed_version

_LOGGER = logging.getLogger(__name__)
# the environment variable that lets torch.load run what it finds
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_active = False
_PINNED_TO_0_4 = re.compile(r"^e3nn\s*\(?\s*(==|~=)\s*0\.4(\.|\s|\)|;|$)")


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
    with quiet(stdout=True):  # mace/tools/cg.py:276 prints, into every command's output
        importlib.import_module("mace.tools.cg")
    # imported here: each of them imports MACE, which the lines above may do without
    from eqplugin.mace.compat import convention, jitmode, pickles, signs

    for repair in (pickles, jitmode, signs, convention):
        repair.repair()
    _active = True
    _LOGGER.info("MACE on e3nn %s builds and reads as on e3nn 0.4.", installed_version("e3nn"))
    return True


def reason_for_no_repair(requirements: list[str] | None = None, e3nn: str | None = None) -> str:
    """Why MACE needs no repair here; empty where it pins e3nn 0.4.x and e3nn is newer.

    By default for the requirements of the installed MACE and the installed version of e3nn.
    """
    if requirements is None:
        requirements = metadata.requires("mace-torch") or []
    if e3nn is None:
        e3nn = metadata.version("e3nn")
    if not any(_PINNED_TO_0_4.match(line.strip()) for line in requirements):
        return "the installed MACE does not pin e3nn 0.4"
    if tuple(int(part) for part in re.findall(r"\d+", e3nn)[:2]) < (0, 5):
        return f"e3nn {e3nn} is what MACE pins"
    return ""
