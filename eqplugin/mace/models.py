"""MACE models: dimension-matched steerable and k-hop invariant.

Both are :class:`mace.modules.ScaleShiftMACE` with its own forward pass; what is new is which
irreps each layer gets. Every block in them is MACE's, so they pickle as plain ScaleShiftMACE and
load in a MACE installation that has never heard of eqplugin.
"""

from __future__ import annotations

import copy
import copyreg
from typing import Any

import torch
from e3nn.o3 import Irreps
from e3nn.util.jit import compile_mode
from mace.modules.blocks import NonLinearReadoutBlock
from mace.modules.models import ScaleShiftMACE

from eqplugin.budget import BudgetError
from eqplugin.mace._irreps import SPEC_ATTRIBUTE, ModelSpec
from eqplugin.mace._layers import BlockOptions, fit_layers
from eqplugin.mace.compat.jitmode import building_eagerly

__all__ = ["FAMILIES", "KHopInvariantMACE", "SteerableMACE", "as_family", "as_stock"]


@compile_mode("script")
class SteerableMACE(ScaleShiftMACE):
    """Dimension-matched steerable MACE: the same feature dimension D at every ``max_L``.

    MACE wants equally many channels of every degree. Only its product basis needs that; here the
    basis keeps C equal channels and its linear layer maps them to exactly the wanted irreps. With
    irreps that stock MACE can build, weights and outputs are those of ScaleShiftMACE.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1) of the features between layers, met exactly; what
            does not divide evenly becomes extra scalars. After the last layer only the scalars
            remain, as in MACE.
        max_L: highest degree of the features. At fixed D a higher one means fewer channels: fewer
            parameters, more tensor-product paths and a longer step.
        hidden_irreps: instead of the two: any irreps with scalars, such as ``"64x0e+32x1o"``.
        num_channels: C of the product basis; default: the largest multiplicity (the scalars).
            Time and memory per step are about linear in C; below the largest multiplicity the
            features are linear combinations of C products.
        **kwargs: all other arguments of :class:`mace.modules.ScaleShiftMACE` (``r_max``,
            ``num_interactions``, ``correlation``, ``max_ell``, ``interaction_cls``, ``heads``,
            ...), which builds and runs the model.

    Returns of a call: MACE's dictionary; ``energy`` (num_graphs,) in eV, ``forces`` (num_nodes, 3)
    in eV/A, ``stress`` (num_graphs, 3, 3) in eV/A^3, ``node_feats`` (num_nodes, sum of the layers'
    dimensions).

    Raises:
        BudgetError: for irreps that cannot be met or a backend that cannot hold them.

    Source: Wang et al., ICLR 2024 (constant feature dimension); Batatia et al., NeurIPS 2022.
    """

    def __init__(
        self,
        *,
        feature_dim: int | None = None,
        max_L: int | None = None,
        hidden_irreps: str | Irreps | None = None,
        num_channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._build(
            ModelSpec("SteerableMACE", feature_dim, max_L, _text(hidden_irreps), num_channels),
            kwargs,
        )

    def _build(self, spec: ModelSpec, kwargs: dict[str, Any]) -> None:
        _refuse_backends(kwargs)
        plan = spec.plan(
            kwargs["num_interactions"],
            kwargs.get("use_so3", False),
            kwargs.get("keep_last_layer_irreps", False),
        )
        _check_degrees(plan.uniform_base.lmax, kwargs["max_ell"])
        with building_eagerly():
            # grandparent's constructor by name: a subclass must not run its parent's plan first
            ScaleShiftMACE.__init__(self, hidden_irreps=plan.uniform_base, **kwargs)
            fit_layers(self, plan, _block_options(kwargs))
        setattr(self, SPEC_ATTRIBUTE, spec.to_json())

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Pickle as plain ScaleShiftMACE, so that no file ever needs eqplugin to be read."""
        # the standard library's own reconstructor: __newobj__ insists on the object's class
        return copyreg._reconstructor, (ScaleShiftMACE, object, None), self.__getstate__()

    def __deepcopy__(self, memo: dict[int, Any]) -> SteerableMACE:
        """Copy within Python, where the class is to stay."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other


@compile_mode("script")
class KHopInvariantMACE(SteerableMACE):
    """k-hop invariant MACE: after every h-th product only the scalars (0e) go on.

    Between two resets the features are those of :class:`SteerableMACE`. The geometry *between*
    neighbourhoods of h hops is not seen: a scientific control and a cheap model, not an upgrade.
    With ``hops=1`` this is MACE with 0e features alone.

    Args:
        hops: products between two resets, h >= 1, at most ``num_interactions``; None never
            resets. h = 1 makes the cheapest step.
        reset_width: scalars that a reset keeps; default: those of the feature budget. With
            ``hops=1`` every layer is a reset, so ``reset_width=feature_dim`` (or ``max_L=0``)
            holds the feature dimension.
        feature_dim: as in :class:`SteerableMACE`.
        max_L: as in :class:`SteerableMACE`.
        hidden_irreps: as in :class:`SteerableMACE`.
        num_channels: as in :class:`SteerableMACE`; the default is taken layer by layer.
        **kwargs: as in :class:`SteerableMACE`.

    Raises:
        BudgetError: for ``hops < 1`` and all that :class:`SteerableMACE` refuses.

    Source: Wang et al., ICLR 2024 (k-hop invariant GNNs).
    """

    def __init__(
        self,
        *,
        hops: int | None,
        feature_dim: int | None = None,
        max_L: int | None = None,
        hidden_irreps: str | Irreps | None = None,
        num_channels: int | None = None,
        reset_width: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = ModelSpec(
            "KHopInvariantMACE",
            feature_dim,
            max_L,
            _text(hidden_irreps),
            num_channels,
            hops,
            reset_width,
        )
        self._build(spec, kwargs)


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
    """Return a loaded model under the class that its file says it was built by.

    Args:
        model: any MACE model, e.g. from ``torch.load``; one of ours is changed in place.
    """
    spec = ModelSpec.of(model)
    if spec is not None:
        model.__class__ = FAMILIES[spec.model]
    return model


def _block_options(kwargs: dict[str, Any]) -> BlockOptions:
    return BlockOptions(
        correlation=kwargs["correlation"],
        mlp_irreps=Irreps(kwargs["MLP_irreps"]),
        gate=kwargs["gate"],
        readout_cls=kwargs.get("readout_cls") or NonLinearReadoutBlock,
    )


def _text(irreps: str | Irreps | None) -> str | None:
    return None if irreps is None else str(irreps)


def _refuse_backends(kwargs: dict[str, Any]) -> None:
    for name, backend in (("cueq_config", "cuEquivariance"), ("oeq_config", "OpenEquivariance")):
        config = kwargs.get(name)
        if config is not None and getattr(config, "enabled", True):
            raise BudgetError(
                f"{name} is set, but {backend} kernels assume the same irreps in every layer, "
                f"which this model does not have: leave {name} out."
            )


def _check_degrees(max_L: int, max_ell: int) -> None:
    if max_L > max_ell:
        raise BudgetError(
            f"max_L={max_L} is higher than max_ell={max_ell}, the degree of the edge harmonics "
            f"that features are made of: raise max_ell to {max_L} or lower max_L."
        )
