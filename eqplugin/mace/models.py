"""The MACE model: dimension-matched steerable, and k-hop invariant where it resets.

It is :class:`mace.modules.ScaleShiftMACE` with its own forward pass; what is new is which irreps
each layer gets. Every block in it is MACE's, so it pickles as plain ScaleShiftMACE and loads in a
MACE installation that has never heard of eqplugin.
"""

from __future__ import annotations

import copy
import copyreg
from typing import Any, SupportsIndex

import torch
from e3nn.o3 import Irreps
from e3nn.util.jit import compile_mode
from mace.modules.models import ScaleShiftMACE

from eqplugin.design import DesignError
from eqplugin.mace._layers import fit_layers
from eqplugin.mace.compat.jitmode import building_eagerly
from eqplugin.mace.plan import design_from, family_name, plan_layers, record_design


@compile_mode("script")
class SteerableMACE(ScaleShiftMACE):
    """Dimension-matched MACE: the same feature dimension D at every ``max_L``.

    MACE wants equally many channels of every degree. Only its product basis needs that; here the
    basis keeps C equal channels and its linear layer maps them to exactly the wanted irreps. With
    irreps that stock MACE can build, weights and outputs are those of ScaleShiftMACE.

    With ``hops`` the model is k-hop invariant: after every h-th product only the scalars (0e) go
    on, and the geometry *between* neighbourhoods of h hops is not seen: a scientific control and a
    cheap model, not an upgrade. With ``hops=1`` this is MACE with 0e features alone.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1) of the features between layers, met exactly; what
            does not divide evenly becomes extra scalars. After the last layer only the scalars
            remain, as in MACE.
        max_L: highest degree of the features. At fixed D a higher one means fewer channels: fewer
            parameters, more tensor-product paths and a longer step.
        hidden_irreps: instead of the two: any irreps with scalars, such as ``"64x0e+32x1o"``.
        num_channels: C of the product basis; default: the largest multiplicity (the scalars),
            layer by layer. Time and memory per step are about linear in C; below the largest
            multiplicity the features are linear combinations of C products.
        hops: products between two resets, h >= 1, at most ``num_interactions``; None never
            resets. h = 1 makes the cheapest step.
        reset_width: scalars that a reset keeps; default: those of the features. With ``hops=1``
            every layer is a reset, so ``reset_width=feature_dim`` (or ``max_L=0``) holds the
            feature dimension.
        **kwargs: all other arguments of :class:`mace.modules.ScaleShiftMACE` (``r_max``,
            ``num_interactions``, ``correlation``, ``max_ell``, ``interaction_cls``, ``heads``,
            ...), which builds and runs the model.

    Returns of a call: MACE's dictionary; ``energy`` (num_graphs,) in eV, ``forces`` (num_nodes, 3)
    in eV/A, ``stress`` (num_graphs, 3, 3) in eV/A^3, ``node_feats`` (num_nodes, sum of the layers'
    dimensions).

    Raises:
        DesignError: for an impossible design or a backend that cannot hold it.

    Source: Wang et al., ICLR 2024 (constant feature dimension, k-hop invariant GNNs); Batatia et
    al., NeurIPS 2022.
    """

    def __init__(
        self,
        *,
        feature_dim: int | None = None,
        max_L: int | None = None,
        hidden_irreps: str | Irreps | None = None,
        num_channels: int | None = None,
        hops: int | None = None,
        reset_width: int | None = None,
        **kwargs: Any,
    ) -> None:
        chosen = {
            "feature_dim": feature_dim,
            "max_L": max_L,
            "hidden_irreps": None if hidden_irreps is None else str(hidden_irreps),
            "num_channels": num_channels,
            "hops": hops,
            "reset_width": reset_width,
        }
        design = design_from(chosen, kwargs["num_interactions"])
        _refuse_backends(kwargs)
        plan = plan_layers(
            design, kwargs.get("use_so3", False), kwargs.get("keep_last_layer_irreps", False)
        )
        check_degrees(plan.uniform_base.lmax, kwargs["max_ell"])
        with building_eagerly():
            super().__init__(hidden_irreps=plan.uniform_base, **kwargs)
            fit_layers(self, plan, kwargs)
        record_design(self, design)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Pickle as plain ScaleShiftMACE, so that no file ever needs eqplugin to be read."""
        # the standard library's own reconstructor: __newobj__ insists on the object's class
        rebuild = copyreg._reconstructor  # type: ignore[attr-defined]
        return rebuild, (ScaleShiftMACE, object, None), self.__getstate__()

    def __deepcopy__(self, memo: dict[int, Any]) -> SteerableMACE:
        """Copy within Python, where the class is to stay."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other


@compile_mode("script")
class KHopInvariantMACE(SteerableMACE):
    """:class:`SteerableMACE` with hops, under the name that older configs and files use."""


FAMILIES: dict[str, type[SteerableMACE]] = {
    "SteerableMACE": SteerableMACE,
    "KHopInvariantMACE": KHopInvariantMACE,
}


def as_stock(model: torch.nn.Module) -> torch.nn.Module:
    """Return the same model under MACE's own class (weights shared, numbers unchanged).

    MACE decides by class name in a few places; files are written this way in any case.
    """
    if not isinstance(model, SteerableMACE):
        return model
    stock = ScaleShiftMACE.__new__(ScaleShiftMACE)
    stock.__dict__ = model.__dict__.copy()
    return stock


def as_family(model: torch.nn.Module) -> torch.nn.Module:
    """Give a loaded model, in place, the class that its file says it was built by."""
    name = family_name(model)
    if name is not None:
        model.__class__ = FAMILIES[name]
    return model


def _refuse_backends(kwargs: dict[str, Any]) -> None:
    for name, backend in (("cueq_config", "cuEquivariance"), ("oeq_config", "OpenEquivariance")):
        config = kwargs.get(name)
        if config is not None and getattr(config, "enabled", True):
            raise DesignError(
                f"{name} is set, but {backend} kernels assume the same irreps in every layer, "
                f"which this model does not have: leave {name} out."
            )


def check_degrees(max_L: int, max_ell: int) -> None:
    """Refuse features of a higher degree than the edge harmonics that they are made of."""
    if max_L > max_ell:
        raise DesignError(
            f"max_L={max_L} is higher than max_ell={max_ell}, the degree of the edge harmonics "
            f"that features are made of: raise max_ell to {max_L} or lower max_L."
        )
