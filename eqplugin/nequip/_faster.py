"""What our replacements of NequIP's ``TensorProductScatter`` have in common."""

from __future__ import annotations

import inspect

import torch
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import is_model_modifier


class FasterScatter(TensorProductScatter):
    """In the place of a stock ``TensorProductScatter``, with its product and its state dict.

    Still one for NequIP, so that another modifier finds it and may replace it in turn.

    Args:
        old: the module to replace, of this NequIP or from a package.
    """

    def __init__(self, old: torch.nn.Module) -> None:
        torch.nn.Module.__init__(self)
        for name in ("feature_irreps_in", "irreps_edge_attr", "irreps_mid", "instructions"):
            setattr(self, name, getattr(old, name))
        self.model_dtype = old.model_dtype
        self.tp = old.tp
        self.train(old.training)

    @classmethod
    def offer(cls) -> None:
        """Offer the modifiers of the stock class, once all of them hang there.

        Inherited class methods would be others, and NequIP refuses a model with two of one name.
        """
        for name, method in inspect.getmembers(TensorProductScatter, inspect.ismethod):
            if is_model_modifier(method):
                setattr(cls, name, method)
