"""Stock MACE blocks rebuilt with irreps of their own for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e3nn.o3 import Irrep, Irreps
from mace.modules.blocks import (
    EquivariantProductBasisBlock,
    LinearReadoutBlock,
    NonLinearReadoutBlock,
)
from mace.modules.models import ScaleShiftMACE
from mace.modules.wrapper_ops import Linear

from eqplugin.mace.plan import LayerPlan

# arguments of ScaleShiftMACE that its blocks need and it does not keep
_Options = Mapping[str, Any]


def fit_layers(model: ScaleShiftMACE, plan: LayerPlan, options: _Options) -> None:
    """Replace those blocks of a stock model whose irreps differ from the plan.

    A layer that stock MACE already builds as planned is left alone, weights and all, so that a
    model with stock irreps *is* the stock model of the same seed. The stock model has at least the
    degrees of the plan, and was built with these options of ScaleShiftMACE.
    """
    incoming = _irreps(model.node_embedding.linear.irreps_out)
    for layer, outgoing in enumerate(plan.outputs):
        _fit_interaction(model, layer, incoming, plan)
        _fit_product(model, layer, plan, options)
        incoming = outgoing
    _fit_readouts(model, plan, options)


def _irreps(irreps: Any) -> Irreps:
    """MACE keeps irreps now as objects and now as strings."""
    return Irreps(str(irreps))


def _with_channels(irreps: Irreps, channels: int) -> Irreps:
    return Irreps([(channels, ir) for _, ir in irreps])


def _fit_interaction(model: ScaleShiftMACE, layer: int, incoming: Irreps, plan: LayerPlan) -> None:
    stock = model.interactions[layer]
    target = _with_channels(_irreps(stock.target_irreps), plan.channels[layer])
    outgoing = plan.outputs[layer]
    if (_irreps(stock.node_feats_irreps), _irreps(stock.target_irreps)) == (incoming, target) and (
        _irreps(stock.hidden_irreps) == outgoing
    ):
        return
    model.interactions[layer] = type(stock)(
        node_attrs_irreps=stock.node_attrs_irreps,
        node_feats_irreps=incoming,
        edge_attrs_irreps=stock.edge_attrs_irreps,
        edge_feats_irreps=stock.edge_feats_irreps,
        target_irreps=target,
        hidden_irreps=outgoing,
        edge_irreps=_edge_irreps(model, layer, incoming),
        avg_num_neighbors=stock.avg_num_neighbors,
        radial_MLP=stock.radial_MLP,
    )


def _edge_irreps(model: ScaleShiftMACE, layer: int, incoming: Irreps) -> Irreps | None:
    """User's edge irreps without the degrees that never arrive (after a reset: all but 0e)."""
    if model.edge_irreps is None or (layer == 0 and not model.use_edge_irreps_first):
        return None
    present = {ir for _, ir in incoming}
    return Irreps([(mul, ir) for mul, ir in _irreps(model.edge_irreps) if ir in present])


def _fit_product(model: ScaleShiftMACE, layer: int, plan: LayerPlan, options: _Options) -> None:
    stock = model.products[layer]
    basis, outgoing = plan.product_irreps(layer), plan.outputs[layer]
    contraction = stock.symmetric_contractions
    incoming = _irreps(model.interactions[layer].target_irreps)
    correlation = options["correlation"]
    if (_irreps(contraction.irreps_in), _irreps(contraction.irreps_out)) != (incoming, basis):
        stock = model.products[layer] = EquivariantProductBasisBlock(
            node_feats_irreps=incoming,
            target_irreps=basis,
            correlation=correlation if isinstance(correlation, int) else correlation[layer],
            num_elements=len(model.atomic_numbers),
            use_sc=stock.use_sc,
            use_reduced_cg=model.use_reduced_cg,
            use_agnostic_product=stock.use_agnostic_product,
        )
    if _irreps(stock.linear.irreps_out) != outgoing:
        # The symmetric contraction needs equal channels for every degree; nothing after it does.
        stock.linear = Linear(basis, outgoing, shared_weights=True, internal_weights=True)


def _fit_readouts(model: ScaleShiftMACE, plan: LayerPlan, options: _Options) -> None:
    heads = len(model.heads)
    last = len(plan.outputs) - 1
    one_readout = len(model.readouts) == 1
    for index, stock in enumerate(model.readouts):
        layer = last if one_readout else index
        outgoing = plan.outputs[layer]
        first = stock.linear if isinstance(stock, LinearReadoutBlock) else stock.linear_1
        if _irreps(first.irreps_in) == outgoing:
            continue
        energies = Irreps([(heads, Irrep(0, 1))])
        if isinstance(stock, LinearReadoutBlock):
            model.readouts[index] = LinearReadoutBlock(outgoing, energies)
        else:
            readout_cls = options.get("readout_cls") or NonLinearReadoutBlock
            hidden = (heads * Irreps(options["MLP_irreps"])).simplify()
            model.readouts[index] = readout_cls(outgoing, hidden, options["gate"], energies, heads)
