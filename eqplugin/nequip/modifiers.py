"""eqplugin's model modifiers, offered on every NequIP model.

NequIP finds modifiers as class methods of a model's modules. :func:`attach` hangs ours on NequIP's
own classes, so that ``nequip.model.modify`` in a config, ``nequip-compile --modifiers``,
``nequip-package`` and ``nequip-prepare-lmp-mliap`` know them by name, for stock models as for ours.
The classes of a packaged model are NequIP's at the time of packaging; for those the search itself,
``get_all_modifiers``, is extended. `eqplugin/_extension.py` calls :func:`attach` at the right time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.interaction_block import InteractionBlock

from eqplugin.nequip import factorized_modifier, folded_modifier
from eqplugin.nequip._faster import FasterScatter
from eqplugin.nequip._stock import find_stock

_OFFERED: dict[str, type] = {}  # modifier -> the NequIP class it hangs on
# by name: nequip-package would follow an import statement
_COMPILED = "eqplugin.nequip.compiled_modifier"


def attach(modify_utils: Any) -> None:
    """Hang our modifiers on NequIP's classes.

    Args:
        modify_utils: the module ``nequip.model.modify_utils``.
    """
    for name in ("enable_FoldedSelfConnection", "enable_PermanentlyFoldedSelfConnection"):
        _offer(InteractionBlock, name, getattr(folded_modifier, name))
    _offer(TensorProductScatter, "enable_FactorizedTP", factorized_modifier.enable_FactorizedTP)
    import_module(_COMPILED).attach()
    _OFFERED["enable_CompiledTP"] = TensorProductScatter
    FasterScatter.offer()
    modify_utils.get_all_modifiers = _with_ours(modify_utils.get_all_modifiers)


def _offer(cls: type, name: str, method: classmethod) -> None:
    setattr(cls, name, method)
    _OFFERED[name] = cls


def _with_ours(search: Callable[..., dict[str, Callable]]) -> Callable[..., dict[str, Callable]]:
    """NequIP's search for modifiers, which finds ours on packaged models too."""

    @functools.wraps(search)
    def get_all_modifiers(
        module: torch.nn.Module, _all_modifiers: dict[str, Callable] | None = None
    ) -> dict[str, Callable]:
        found = search(module, _all_modifiers)
        if _all_modifiers is None:  # not one of the search's own recursive calls
            for name, cls in _OFFERED.items():
                if name not in found and any(True for _ in find_stock(module, cls)):
                    found[name] = getattr(cls, name)
        return found

    return get_all_modifiers
