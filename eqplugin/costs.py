"""What a NequIP design costs: paths, radial outputs, parameters and memory, counted exactly.

The counts repeat, without building anything, which irreps NequIP's ConvNetLayer and
InteractionBlock end up with; the tests compare them with built models parameter by parameter.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations_with_replacement, pairwise

from e3nn.o3 import Irrep, Irreps

from eqplugin.design import Design, DesignError, minimum_feature_dim

__all__ = ["ModelCost", "NequIPOptions", "count_costs", "match_parameters"]

_Muls = Counter  # channels per irrep, in any order


@dataclass(frozen=True)
class NequIPOptions:
    """What the counts depend on beside the design; defaults of ``eqplugin.nequip.SteerableModel``.

    ``bilinear_channels`` is that of :class:`eqplugin.nn.contraction.InvariantContraction`.
    """

    num_types: int = 3
    type_embed_num_features: int = 32
    num_bessels: int = 8
    radial_mlp_depth: int = 1
    radial_mlp_width: int = 128
    bilinear_channels: int = 4


@dataclass(frozen=True)
class ModelCost:
    """Counts of one model; parameters are numbers of scalars, memory is in bytes per edge."""

    paths: int = 0  # tensor-product paths of the widest layer
    radial_outputs: int = 0  # radial weights per edge of the widest layer
    radial: int = 0  # parameters of the radial networks
    linear: int = 0  # parameters of the linear layers before and after the products
    self_connection: int = 0  # parameters of the type-dependent self-connections
    contraction: int = 0  # parameters of the invariant contractions
    other: int = 0  # type embedding and readout
    edge_values: int = 0  # values held per edge by one forward pass, all layers

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return self.radial + self.linear + self.self_connection + self.contraction + self.other

    def training_bytes_per_edge(self, itemsize: int = 4) -> int:
        """Predicted memory of a training step on forces, in bytes per edge.

        A training step on forces keeps the forward values of all layers and those of the
        backward pass through them. Counted on stock NequIP eager models this is 2.6 (D = 512)
        to 4.0 (D = 128, L = 0) times the forward values alone; 3.3 is used, a prediction good to
        about 30 %. Memory per atom is this times the number of neighbours.
        """
        return int(3.3 * self.edge_values * itemsize)

    def __add__(self, other: ModelCost) -> ModelCost:
        joined = {}
        for field in fields(self):
            join = max if field.name in ("paths", "radial_outputs") else operator.add
            joined[field.name] = join(getattr(self, field.name), getattr(other, field.name))
        return ModelCost(**joined)


DEFAULTS = NequIPOptions()


def count_costs(design: Design, options: NequIPOptions = DEFAULTS) -> ModelCost:
    """Count a model's tensor-product paths, parameters by part, and values per edge.

    Args:
        design: a NequIP design.
        options: the rest of the architecture.

    Returns:
        ModelCost; ``total`` equals the number of trainable parameters of the built model.
    """
    harmonics = Irreps.spherical_harmonics(design.l_max)
    features = _Muls({Irrep("0e"): options.type_embed_num_features})
    cost = ModelCost()
    for layer, outgoing in enumerate(design.layers()):
        contracted = design.contracts_after(layer)
        hidden = _muls(design.irreps if contracted else outgoing)
        layer_cost, features = _convolution(features, harmonics, hidden, layer, options)
        cost += layer_cost
        if contracted:
            parameters = _contraction(features, outgoing.dim, design, options)
            cost += ModelCost(contraction=parameters)
            features = _muls(outgoing)
    readout = features[Irrep("0e")]
    return cost + ModelCost(other=options.num_types * options.type_embed_num_features + readout)


def _muls(irreps: Irreps) -> _Muls:
    return _Muls({ir: mul for mul, ir in irreps})


def _convolution(
    features: _Muls, harmonics: Irreps, hidden: _Muls, layer: int, options: NequIPOptions
) -> tuple[ModelCost, _Muls]:
    """Cost of one ConvNetLayer and the irreps it returns."""
    reachable = {out for ir in features for _, edge in harmonics for out in ir * edge}
    kept = _Muls({ir: mul for ir, mul in hidden.items() if ir in reachable})
    gates = sum(mul for ir, mul in kept.items() if ir.l > 0)
    convolved = kept + _Muls({Irrep("0e"): gates})

    paths = [
        (mul, out)
        for ir, mul in features.items()
        for _, edge in harmonics
        for out in ir * edge
        if out in convolved
    ]
    mid: _Muls = _Muls()
    for mul, out in paths:
        mid[out] += mul
    radial_outputs = sum(mul for mul, _ in paths)
    hidden_layers = [options.radial_mlp_width] * options.radial_mlp_depth
    mlp = [options.num_bessels, *hidden_layers, radial_outputs]
    linear = sum(mul * mul for mul in features.values())
    linear += sum(mul * mid[ir] for ir, mul in convolved.items())
    self_connection = 0
    if layer > 0:  # none in the first layer, for the isolated-atom limit
        self_connection = options.type_embed_num_features * sum(
            mul * features[ir] for ir, mul in convolved.items()
        )
    cost = ModelCost(
        paths=len(paths),
        radial_outputs=radial_outputs,
        radial=sum(a * b for a, b in pairwise(mlp)),
        linear=linear,
        self_connection=self_connection,
        edge_values=_dim(features) + radial_outputs + sum(hidden_layers) + _dim(mid),
    )
    return cost, kept


def _dim(muls: _Muls) -> int:
    return sum(mul * ir.dim for ir, mul in muls.items())


def _contraction(features: _Muls, width: int, design: Design, options: NequIPOptions) -> int:
    """Parameters of an InvariantContraction of these features to ``width`` scalars."""
    scalar = Irrep("0e")
    steerable = sorted((ir for ir in features if ir != scalar), key=lambda ir: ir.l)
    grams = sum(features[ir] * min(features[ir], ir.dim) for ir in steerable)
    mixings, invariants = grams, features[scalar] + grams
    if design.contraction == "bispectrum":
        triples = [
            (first, second, third)
            for first, second, third in combinations_with_replacement(steerable, 3)
            if third in first * second
        ]
        channels = options.bilinear_channels
        invariants += channels * sum(features[third] for *_, third in triples)
        for factor in (0, 1):
            mixed = {triple[factor] for triple in triples}
            mixings += channels * sum(features[ir] for ir in mixed)
    return mixings + invariants * width


def match_parameters(
    reference: Design,
    degrees: Sequence[int],
    options: NequIPOptions = DEFAULTS,
    tolerance: float = 0.02,
) -> list[Design]:
    """Choose a feature dimension for each degree so that all parameter totals agree.

    Args:
        reference: the design that sets the number of parameters; all but degree and feature
            dimension are taken from it, and its own degree keeps its feature dimension.
        degrees: highest degrees to match.
        options: the rest of the architecture.
        tolerance: largest total over smallest total, minus one.

    Returns:
        A design per degree, with as few left-over scalars as the tolerance allows.

    Raises:
        DesignError: when some degree has no feature dimension that fits.
    """
    target = count_costs(reference, options).total
    # per degree: {total: feature_dim}, evenly dividing dimensions first
    choices: list[Mapping[int, int | None]] = []
    for l_max in degrees:
        if l_max == reference.l_max:
            choices.append({target: reference.feature_dim})
        else:
            choices.append(_close_dims(reference, l_max, target, options, tolerance))
    # The totals come in steps, so slide a window of the tolerance over them until it holds one of
    # each degree; the window nearest to the target wins.
    totals = sorted({total for found in choices for total in found}, key=lambda t: target - t)
    for low in (total for total in totals if total <= target):
        high = (1 + tolerance) * low
        if high < target:
            continue
        fitting = [[d for t, d in found.items() if low <= t <= high] for found in choices]
        if all(fitting):
            return [
                replace(reference, l_max=l_max, feature_dim=dims[0])
                for l_max, dims in zip(degrees, fitting, strict=True)
            ]
    raise DesignError(
        f"the parameter counts cannot be matched within {tolerance:.0%} for l_max in "
        f"{[*degrees]}: raise feature_dim, so that a single scalar changes them less."
    )


def _close_dims(
    reference: Design, l_max: int, target: int, options: NequIPOptions, tolerance: float
) -> dict[int, int]:
    """Totals near the target and their feature dimensions, fewest left-over scalars first."""

    def total(dim: int) -> int:
        return count_costs(replace(reference, l_max=l_max, feature_dim=dim), options).total

    # Dimensions that divide evenly have strictly rising counts, so bisect those; between two of
    # them the left-over scalars make the count jump up and down, so scan there.
    unit = minimum_feature_dim(l_max, reference.parity)
    copies = range(1, 1 + target)  # each adds parameters
    below = unit * max(1, bisect_right(copies, target, key=lambda number: total(number * unit)))
    nearby = range(max(unit, below - 2 * unit), below + 3 * unit)
    found = {total(dim): dim for dim in sorted(nearby, key=lambda dim: dim % unit, reverse=True)}
    close = {t: dim for t, dim in found.items() if abs(t - target) <= tolerance * target}
    if not close:
        nearest = min(found, key=lambda t: abs(t - target))
        raise DesignError(
            f"no feature dimension at l_max={l_max} gives {target} parameters within "
            f"{tolerance:.0%}: the closest, {found[nearest]}, gives {nearest}."
        )
    return dict(sorted(close.items(), key=lambda item: (item[1] % unit, abs(item[0] - target))))
