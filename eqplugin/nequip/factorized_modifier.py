"""``enable_FactorizedTP``: NequIP's tensor product and scatter, factorised, in plain torch."""

from __future__ import annotations

import inspect

import torch
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import is_model_modifier, model_modifier

from eqplugin.nequip._stock import replace_stock
from eqplugin.nn.product.factorized import FactorizedTensorProduct
from eqplugin.nn.product.paths import gains, unsupported


class FasterScatter(TensorProductScatter):
    """In the place of a stock ``TensorProductScatter``, of this NequIP or from a package, with its
    product and its state dict.

    Still one for NequIP, so that another modifier finds it and may replace it in turn.
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


class FactorizedTensorProductScatter(FasterScatter):
    """Computes with :class:`FactorizedTensorProduct`.

    Raises:
        ValueError: its product is of an unsupported kind.
    """

    def __init__(self, old: torch.nn.Module) -> None:
        super().__init__(old)
        self.factorized = FactorizedTensorProduct(old.tp)

    def forward(
        self,
        x: torch.Tensor,
        edge_attr: torch.Tensor,
        edge_weight: torch.Tensor,
        edge_dst: torch.Tensor,
        edge_src: torch.Tensor,
    ) -> torch.Tensor:
        """As the stock module: node features (num_nodes, D) to (num_nodes, dim of irreps_mid)."""
        return self.factorized(x, edge_attr, edge_weight, edge_dst, edge_src)


def factorize_products(model: torch.nn.Module) -> torch.nn.Module:
    """Replace, in place, every tensor product that gains from it; returns `model`.

    Products that are compiled (``enable_CompiledTP``) or factorised already stay what they are.
    """

    def factory(old: torch.nn.Module) -> torch.nn.Module:
        if isinstance(old, FasterScatter) or unsupported(old.tp) is not None or not gains(old.tp):
            return old
        try:
            return FactorizedTensorProductScatter(old)
        except ValueError:  # coefficients that are not e3nn's
            return old

    return replace_stock(model, TensorProductScatter, factory)


@model_modifier(persistent=False, private=False, supported_compile_modes=["aotinductor"])  # type: ignore[misc]
@classmethod
def enable_FactorizedTP(cls: type, model: torch.nn.Module) -> torch.nn.Module:
    """Tensor products and scatters factorised in plain torch: exact, faster with every degree.

    Same weights, same numbers to rounding, same state dict; in training, train-time compile,
    AOTInductor and packages. Products that would gain nothing (scalars only, narrow last layers)
    stay as they are.
    """
    return factorize_products(model)
