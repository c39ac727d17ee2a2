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
from typing import Any

import torch
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.interaction_block import InteractionBlock

from eqplugin.nequip._stock import find_stock
from eqplugin.nequip.compiled_modifier import enable_CompiledTP
from eqplugin.nequip.factorized_modifier import FasterScatter, enable_FactorizedTP
from eqplugin.nequip.folded_modifier import (
    enable_FoldedSelfConnection,
    enable_PermanentlyFoldedSelfConnection,
)

# modifier -> the NequIP class it hangs on
_OFFERED = {
    enable_FoldedSelfConnection: InteractionBlock,
    enable_PermanentlyFoldedSelfConnection: InteractionBlock,
    enable_FactorizedTP: TensorProductScatter,
    enable_CompiledTP: TensorProductScatter,
}


def attach(modify_utils: Any) -> None:
    """Hang our modifiers on NequIP's classes, and let ``nequip.model.modify_utils`` find them."""
    for modifier, cls in _OFFERED.items():
        setattr(cls, modifier.__name__, modifier)
    FasterScatter.offer()
    modify_utils.get_all_modifiers = _with_ours(modify_utils.get_all_modifiers)


def _with_ours(search: Callable[..., dict[str, Callable]]) -> Callable[..., dict[str, Callable]]:
    """NequIP's search for modifiers, which finds ours on packaged models too."""

    @functools.wraps(search)
    def get_all_modifiers(
        module: torch.nn.Module, _all_modifiers: dict[str, Callable] | None = None
    ) -> dict[str, Callable]:
        found = search(module, _all_modifiers)
        if _all_modifiers is None:  # not one of the search's own recursive calls
            for modifier, cls in _OFFERED.items():
                name = modifier.__name__
                if name not in found and any(True for _ in find_stock(module, cls)):
                    found[name] = getattr(cls, name)
        return found

    return get_all_modifiers
