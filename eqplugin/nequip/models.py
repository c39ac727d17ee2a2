"""The NequIP model builder: dimension-matched steerable, and k-hop invariant where it resets.

It assembles NequIP's own modules through NequIP's own builder; what is new is which irreps each
layer gets, and the invariant contraction at a reset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from e3nn import o3
from nequip.data import AtomicDataDict
from nequip.model import FullNequIPGNNModel
from nequip.model.utils import model_builder
from nequip.nn import AtomwiseOperation, ConvNetLayer, GraphModel, SequentialGraphNetwork

from eqplugin.design import Design, DesignError, Parity, Profile
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.nequip.modify import modify_model
from eqplugin.nn.contraction import InvariantContraction


@model_builder
def SteerableModel(
    feature_dim: int,
    l_max: int,
    num_layers: int = 4,
    parity: Parity | bool = "natural",
    profile: Profile = "uniform",
    hops: int | None = None,
    contraction: str | None = None,
    reset_width: int | None = None,
    type_embed_num_features: int = 32,
    radial_mlp_depth: int = 1,
    radial_mlp_width: int = 128,
    modifiers: Sequence[str] = (),
    **kwargs: Any,
) -> GraphModel:
    """Dimension-matched NequIP model: the same feature dimension D at every l_max.

    Without ``hops`` features stay steerable up to the readout; everything else is stock NequIP:
    with the same irreps the weights and outputs are those of
    :func:`nequip.model.NequIPGNNModel`, whose remaining arguments (``seed``, ``model_dtype``,
    ``r_max``, ``type_names``, ``avg_num_neighbors``, ``per_type_energy_shifts``, ``num_bessels``,
    ``pair_potential``, ``do_derivatives``, ...) are accepted unchanged.

    With ``hops`` the model is k-hop invariant: only scalars (0e) cross from one block of ``hops``
    convolutions to the next. It sees geometry within ``hops`` neighbour shells exactly and the
    geometry *between* such local structures not at all: a scientific control and a cheap model,
    not an upgrade. With ``hops=1`` torsions are visible only through a long cutoff. No bias stands
    anywhere on the path, so an isolated atom has exactly its per-type energy shift.

    Args:
        feature_dim: D = sum_l mul_l (2l + 1) of a node's steerable features, met exactly.
        l_max: highest degree L, of features and of edge harmonics. At fixed D, time per training
            step grows about 5-fold from L = 1 to L = 4; parameters fall.
        hops: convolutions between two resets to scalars, a divisor of ``num_layers``; None never
            resets.
        contraction: what a reset keeps: ``"bispectrum"`` D - 3 independent invariants (the default
            where there are hops; use it in sweeps at constant D), ``"power"`` loses the relative
            orientation of different degrees, ``"drop"`` keeps the 0e features alone and is the
            cheapest. Without hops it contracts once, for the readout.
        reset_width: number of scalars a reset keeps; default: the scalars of the features. At
            D = 512, L = 1, keeping 128 costs 1.1x (h = 2) or 0.7x (h = 1) of a never-resetting
            training step, keeping 512 costs 1.5x or 2.1x.
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
        DesignError: for an impossible design, cutoff or incomplete per-type energies.

    Source: Wang et al., ICLR 2024 (constant feature dimension, k-hop invariant GNNs); Batzner et
    al., Nat. Commun. 2022.
    """
    with one_sentence_errors():
        # a design takes NequIP's booleans too, and keeps their names
        named = cast(Parity, parity)
        design = Design(
            feature_dim, l_max, hops, contraction, reset_width, num_layers, named, profile
        )
        _check_common(**kwargs)
    radial = {"radial_mlp_depth": radial_mlp_depth, "radial_mlp_width": radial_mlp_width}
    # The stock builder with scalars at every reset is the "drop" member of the family: outputs
    # that would be dropped are not computed. The other contractions replace just those layers.
    model = FullNequIPGNNModel(
        irreps_edge_sh=repr(o3.Irreps.spherical_harmonics(l_max)),
        type_embed_num_features=type_embed_num_features,
        feature_irreps_hidden=[repr(irreps) for irreps in design.layers()],
        **{name: [value] * num_layers for name, value in radial.items()},
        **kwargs,
    )
    for layer, outgoing in enumerate(design.layers()):
        if design.contracts_after(layer):
            _contract_layer(model.func, layer, design, outgoing.dim, radial, kwargs)
    with one_sentence_errors():
        return modify_model(model, modifiers)


@model_builder
def KHopInvariantModel(
    feature_dim: int,
    l_max: int,
    hops: int | None,
    num_blocks: int | None = None,
    num_layers: int | None = None,
    contraction: str = "bispectrum",
    **kwargs: Any,
) -> GraphModel:
    """:func:`SteerableModel` with hops, under the name that older configs and files use.

    Args:
        feature_dim: as there.
        l_max: as there.
        hops: as there, and asked for.
        num_blocks: number of blocks of ``hops`` convolutions, in place of ``num_layers``.
        num_layers: as there.
        contraction: as there; also the readout is contracted where ``hops`` is None.
        **kwargs: as there.

    Raises:
        DesignError: as there, and for blocks beside layers or without hops.
    """
    if num_blocks is not None:
        with one_sentence_errors():
            num_layers = _layers_in_blocks(hops, num_blocks, num_layers)
    if num_layers is not None:
        kwargs["num_layers"] = num_layers
    return SteerableModel(feature_dim, l_max, hops=hops, contraction=contraction, **kwargs)


def _layers_in_blocks(hops: int | None, num_blocks: int, num_layers: int | None) -> int:
    if num_layers is not None:
        raise DesignError("num_blocks and num_layers are both given: give one of the two.")
    if hops is None:
        raise DesignError(
            "num_blocks has no effect with hops=null, which never resets: "
            "give num_layers, the number of convolutions, instead."
        )
    for name, value in (("hops", hops), ("num_blocks", num_blocks)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DesignError(f"{name}={value!r} is not valid: give an integer >= 1.")
    return hops * num_blocks


def _contract_layer(
    network: SequentialGraphNetwork,
    layer: int,
    design: Design,
    width: int,
    radial: Mapping[str, int],
    kwargs: Mapping[str, Any],
) -> None:
    """Let convolution ``layer`` return steerable features, contracted to ``width`` scalars."""
    name = f"layer{layer}_convnet"
    stock = getattr(network, name)
    convolution = ConvNetLayer(
        irreps_in=stock.irreps_in,
        feature_irreps_hidden=design.irreps,
        convolution_kwargs={
            **radial,
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
        InvariantContraction(features, width, cast(str, design.contraction)),
        field=AtomicDataDict.NODE_FEATURES_KEY,
        irreps_in=convolution.irreps_out,
    )
    # in and out irreps are those of the layer it replaces, so the neighbours stay valid
    network._modules[name] = SequentialGraphNetwork(
        {"convolution": convolution, "contraction": reset}
    )


def _check_common(
    r_max: float | None = None,
    type_names: Sequence[str] = (),
    per_type_energy_shifts: Any = None,
    per_type_energy_scales: Any = None,
    **_: Any,
) -> None:
    """Checks that NequIP leaves to asserts deep inside, with a sentence instead."""
    if r_max is None or not r_max > 0:
        raise DesignError(f"r_max={r_max!r} is not valid: give a cutoff radius > 0 in A.")
    for name, values in (
        ("per_type_energy_shifts", per_type_energy_shifts),
        ("per_type_energy_scales", per_type_energy_scales),
    ):
        if isinstance(values, Mapping):
            missing = [t for t in type_names if t not in values]
            if missing:
                raise DesignError(
                    f"{name} has no entry for {', '.join(missing)}: give one value for each of "
                    f"{', '.join(type_names)} (isolated-atom energies in eV for the shifts)."
                )
