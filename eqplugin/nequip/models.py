"""NequIP model builders: dimension-matched steerable and k-hop invariant.

Both assemble NequIP's own modules through NequIP's own builder; what is new is which irreps each
layer gets, and the invariant contraction between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e3nn import o3
from nequip.data import AtomicDataDict
from nequip.model import FullNequIPGNNModel, modify
from nequip.model.modify_utils import get_all_modifiers
from nequip.model.utils import model_builder
from nequip.nn import AtomwiseOperation, ConvNetLayer, GraphModel, SequentialGraphNetwork

from eqplugin.budget import BudgetError, FeatureBudget
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.nn.contraction import CONTRACTIONS, InvariantContraction

__all__ = ["KHopInvariantModel", "SteerableModel"]


@model_builder
def SteerableModel(
    feature_dim: int,
    l_max: int,
    num_layers: int = 4,
    parity: str | bool = "natural",
    profile: str = "uniform",
    type_embed_num_features: int = 32,
    radial_mlp_depth: int = 1,
    radial_mlp_width: int = 128,
    modifiers: Sequence[str] = (),
    **kwargs: Any,
) -> GraphModel:
    """Dimension-matched steerable NequIP model: the same feature dimension D at every l_max.

    Everything else is stock NequIP: with the same irreps the weights and outputs are those of
    :func:`nequip.model.NequIPGNNModel`, whose remaining arguments (``seed``, ``model_dtype``,
    ``r_max``, ``type_names``, ``avg_num_neighbors``, ``per_type_energy_shifts``, ``num_bessels``,
    ``pair_potential``, ``do_derivatives``, ...) are accepted unchanged.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1) of a node's features, met exactly.
        l_max: highest degree L, of features and of edge harmonics. At fixed D, time per training
            step grows about 5-fold from L = 1 to L = 4; parameters fall.
        num_layers: number of convolutions. Time and memory grow linearly; the receptive field is
            ``num_layers * r_max``. The last convolution returns scalars only, as in NequIP.
        parity: ``"natural"`` (NequIP's ``parity=False``) or ``"both"`` (``True``).
        profile: ``"uniform"`` or ``"decreasing"`` multiplicities over l.
        type_embed_num_features: width of the type embedding. NequIP's default, the number of
            scalars, makes the self-connection grow as its cube; a fixed width keeps parameter
            counts comparable over l_max.
        radial_mlp_depth: hidden layers of the radial network, cost per edge.
        radial_mlp_width: their width, cost per edge.
        modifiers: names of NequIP model modifiers to train with, such as ``enable_CompiledTP`` and
            ``enable_FoldedSelfConnection``: the same weights and numbers, less time. A loaded
            model is a stock one again; they are named anew where it is used.

    Returns:
        GraphModel: energies in eV, forces in eV/A, stress in eV/A^3 for positions in A.

    Raises:
        BudgetError: for an impossible budget, layer count, cutoff or incomplete per-type energies.

    Source: Wang et al., ICLR 2024 (constant feature dimension); Batzner et al., Nat. Commun. 2022.
    """
    with one_sentence_errors():
        budget = FeatureBudget(feature_dim, l_max, parity, profile)
        _check_common(num_layers=num_layers, **kwargs)
    hidden = [budget.irreps] * (num_layers - 1) + [o3.Irreps([(budget.scalars, (0, 1))])]
    model = _full_model(
        hidden, l_max, type_embed_num_features, radial_mlp_depth, radial_mlp_width, kwargs
    )
    return _modified(model, modifiers)


@model_builder
def KHopInvariantModel(
    feature_dim: int,
    l_max: int,
    hops: int | None,
    num_blocks: int | None = None,
    num_layers: int | None = None,
    contraction: str = "bispectrum",
    reset_width: int | None = None,
    parity: str | bool = "natural",
    profile: str = "uniform",
    type_embed_num_features: int = 32,
    radial_mlp_depth: int = 1,
    radial_mlp_width: int = 128,
    modifiers: Sequence[str] = (),
    **kwargs: Any,
) -> GraphModel:
    """k-hop invariant NequIP model: only scalars (0e) cross from one block to the next.

    A block is ``hops`` stock steerable convolutions followed by an invariant contraction. The
    model sees geometry within ``hops`` neighbour shells exactly and the geometry *between* such
    local structures not at all: a scientific control and a cheap model, not an upgrade. With
    ``hops=1`` torsions are visible only through a long cutoff. No bias stands anywhere on the
    path, so an isolated atom has exactly its per-type energy shift.

    Args:
        feature_dim: D of the steerable features inside a block, met exactly.
        l_max: highest degree L inside a block.
        hops: convolutions per block, h >= 1; ``None`` never resets: one block of ``num_layers``
            convolutions, contracted once for the readout.
        num_blocks: number of blocks; the model has ``hops * num_blocks`` convolutions.
        num_layers: the same given as the total number of convolutions (a multiple of ``hops``),
            so that a sweep over ``hops`` keeps the depth. Give one of the two; 4 layers otherwise.
        contraction: ``"bispectrum"`` keeps D - 3 independent invariants (use it in sweeps at
            constant D), ``"power"`` loses the relative orientation of different degrees,
            ``"drop"`` keeps the 0e features alone and is the cheapest.
        reset_width: number of scalars a reset keeps; default: the scalars of the budget. At
            D = 512, L = 1, keeping 128 costs 1.1x (h = 2) or 0.7x (h = 1) of a never-resetting
            training step, keeping 512 costs 1.5x or 2.1x.
        parity: as in :func:`SteerableModel`.
        profile: as in :func:`SteerableModel`.
        type_embed_num_features: as in :func:`SteerableModel`.
        radial_mlp_depth: as in :func:`SteerableModel`.
        radial_mlp_width: as in :func:`SteerableModel`.
        modifiers: as in :func:`SteerableModel`.

    Returns:
        GraphModel: energies in eV, forces in eV/A, stress in eV/A^3 for positions in A.

    Raises:
        BudgetError: for an impossible budget, hops, layer count, contraction, width or cutoff.

    Source: Wang et al., ICLR 2024 (k-hop invariant GNNs).
    """
    with one_sentence_errors():
        budget = FeatureBudget(feature_dim, l_max, parity, profile)
        num_layers = _resolve_layers(hops, num_blocks, num_layers)
        if contraction not in CONTRACTIONS:
            raise BudgetError(
                f"contraction={contraction!r} is not known: use one of {', '.join(CONTRACTIONS)}."
            )
        width = budget.scalars if reset_width is None else reset_width
        _require_positive_int("reset_width", width)
        _check_common(num_layers=num_layers, **kwargs)

    period = num_layers if hops is None else hops
    resets = [layer for layer in range(num_layers) if (layer + 1) % period == 0]
    scalars = o3.Irreps([(width, (0, 1))])
    # The stock builder with scalars at every reset is the "drop" member of the family: outputs
    # that would be dropped are not computed. The other members replace just those layers.
    hidden = [scalars if layer in resets else budget.irreps for layer in range(num_layers)]
    model = _full_model(
        hidden, l_max, type_embed_num_features, radial_mlp_depth, radial_mlp_width, kwargs
    )
    if contraction != "drop":
        for layer in resets:
            _contract_layer(model.func, layer, budget, width, contraction, radial_mlp_depth,
                            radial_mlp_width, kwargs)  # fmt: skip
    return _modified(model, modifiers)


def _modified(model: GraphModel, modifiers: Sequence[str]) -> GraphModel:
    """Apply modifiers by name, as NequIP's ``modify`` around the builder would."""
    if not modifiers:
        return model
    available = get_all_modifiers(model)
    for name in modifiers:
        if name not in available:
            with one_sentence_errors():
                raise BudgetError(
                    f"modifiers={name!r} is not a model modifier: use some of "
                    f"{', '.join(sorted(available))}."
                )
    return modify(model, [{"modifier": name} for name in modifiers])


def _full_model(
    hidden: Sequence[o3.Irreps],
    l_max: int,
    type_embed_num_features: int,
    radial_mlp_depth: int,
    radial_mlp_width: int,
    kwargs: Mapping[str, Any],
) -> GraphModel:
    """NequIP's full builder with one feature irreps per layer."""
    return FullNequIPGNNModel(
        irreps_edge_sh=repr(o3.Irreps.spherical_harmonics(l_max)),
        type_embed_num_features=type_embed_num_features,
        feature_irreps_hidden=[repr(irreps) for irreps in hidden],
        radial_mlp_depth=[radial_mlp_depth] * len(hidden),
        radial_mlp_width=[radial_mlp_width] * len(hidden),
        **kwargs,
    )


def _contract_layer(
    network: SequentialGraphNetwork,
    layer: int,
    budget: FeatureBudget,
    width: int,
    contraction: str,
    radial_mlp_depth: int,
    radial_mlp_width: int,
    kwargs: Mapping[str, Any],
) -> None:
    """Let convolution ``layer`` return steerable features, contracted to ``width`` scalars."""
    name = f"layer{layer}_convnet"
    stock = getattr(network, name)
    convolution = ConvNetLayer(
        irreps_in=stock.irreps_in,
        feature_irreps_hidden=budget.irreps,
        convolution_kwargs={
            "radial_mlp_depth": radial_mlp_depth,
            "radial_mlp_width": radial_mlp_width,
            "use_sc": stock.conv.use_sc,
            "is_first_layer": layer == 0,
            "avg_num_neighbors": kwargs.get("avg_num_neighbors"),
            "type_names": kwargs["type_names"],
        },
        # never in the first layer, as in stock NequIP: an isolated atom would lose its shift
        resnet=(layer > 0 or kwargs.get("learnable_shift", False))
        and kwargs.get("convnet_resnet", False),
        nonlinearity_type=kwargs.get("convnet_nonlinearity_type", "gate"),
        nonlinearity_scalars=kwargs.get("convnet_nonlinearity_scalars", {"e": "silu", "o": "tanh"}),
        nonlinearity_gates=kwargs.get("convnet_nonlinearity_gates", {"e": "silu", "o": "tanh"}),
    )
    features = convolution.irreps_out[AtomicDataDict.NODE_FEATURES_KEY]
    reset = AtomwiseOperation(
        InvariantContraction(features, width, contraction),
        field=AtomicDataDict.NODE_FEATURES_KEY,
        irreps_in=convolution.irreps_out,
    )
    # in and out irreps are those of the layer it replaces, so the neighbours stay valid
    network._modules[name] = SequentialGraphNetwork(
        {"convolution": convolution, "contraction": reset}
    )


def _resolve_layers(hops: int | None, num_blocks: int | None, num_layers: int | None) -> int:
    """Number of convolutions from hops and either blocks or layers."""
    if hops is not None:
        _require_positive_int("hops", hops, " (or null to never reset)")
    if num_blocks is not None and num_layers is not None:
        raise BudgetError("num_blocks and num_layers are both given: give one of the two.")
    if num_blocks is not None:
        _require_positive_int("num_blocks", num_blocks)
        if hops is None:
            raise BudgetError(
                "num_blocks has no meaning with hops=null, which never resets: "
                "give num_layers, the number of convolutions, instead."
            )
        return hops * num_blocks
    num_layers = 4 if num_layers is None else num_layers
    _require_positive_int("num_layers", num_layers)
    if hops is not None and num_layers % hops:
        raise BudgetError(
            f"num_layers={num_layers} is not a multiple of hops={hops}: "
            f"use {hops * (num_layers // hops + 1)} layers or other hops."
        )
    return num_layers


def _require_positive_int(name: str, value: object, hint: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BudgetError(f"{name}={value!r} is not possible: give an integer >= 1{hint}.")


def _check_common(
    num_layers: int,
    r_max: float | None = None,
    type_names: Sequence[str] = (),
    per_type_energy_shifts: Any = None,
    per_type_energy_scales: Any = None,
    **_: Any,
) -> None:
    """Checks that NequIP leaves to asserts deep inside, with a sentence instead."""
    _require_positive_int("num_layers", num_layers)
    if r_max is None or not r_max > 0:
        raise BudgetError(f"r_max={r_max!r} is not possible: give a cutoff radius > 0 in A.")
    for name, values in (
        ("per_type_energy_shifts", per_type_energy_shifts),
        ("per_type_energy_scales", per_type_energy_scales),
    ):
        if isinstance(values, Mapping):
            missing = [t for t in type_names if t not in values]
            if missing:
                raise BudgetError(
                    f"{name} has no entry for {', '.join(missing)}: give one value for each of "
                    f"{', '.join(type_names)} (isolated-atom energies in eV for the shifts)."
                )
