"""What a feature budget costs: paths, radial outputs, parameters and memory, counted exactly.

The counts repeat, without building anything, which irreps NequIP's ConvNetLayer and
InteractionBlock end up with; the tests compare them with built models parameter by parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

from e3nn.o3 import Irrep, Irreps

from eqplugin.budget import BudgetError, FeatureBudget, minimum_feature_dim

__all__ = ["Architecture", "ModelCost", "count_costs", "match_parameters"]

# Muls per irrep; insertion order is irrelevant for counting.
_Muls = Counter


@dataclass(frozen=True)
class Architecture:
    """Everything besides the feature budget that the counts depend on.

    The defaults are those of :func:`eqplugin.nequip.SteerableModel`; ``hops``, ``contraction`` and
    ``reset_width`` those of :func:`eqplugin.nequip.KHopInvariantModel` (``contraction=None``: the
    steerable model).
    """

    num_layers: int = 4
    num_types: int = 3
    type_embed_num_features: int = 32
    num_bessels: int = 8
    radial_mlp_depth: int = 1
    radial_mlp_width: int = 128
    hops: int | None = None
    contraction: str | None = None
    reset_width: int | None = None
    bilinear_channels: int = 4


@dataclass(frozen=True)
class ModelCost:
    """Counts of one model; parameters are numbers of scalars, memory is in bytes per edge."""

    paths: int  # tensor-product paths of the widest layer
    radial_outputs: int  # radial weights per edge of the widest layer
    radial: int  # parameters of the radial networks
    linear: int  # parameters of the linear layers before and after the products
    self_connection: int  # parameters of the type-dependent self-connections
    contraction: int  # parameters of the invariant contractions
    other: int  # type embedding and readout
    edge_values: int  # values held per edge by one forward pass, all layers

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return (
            self.radial + self.linear + self.self_connection + self.contraction + self.other
        )

    def training_bytes_per_edge(self, itemsize: int = 4) -> int:
        """Predicted memory of a training step on forces, in bytes per edge.

        A training step on forces keeps the forward values of all layers and those of the
        backward pass through them. Counted on stock NequIP eager models this is 2.6 (D = 512)
        to 4.0 (D = 128, L = 0) times the forward values alone; 3.3 is used, a prediction good to
        about 30 %. Memory per atom is this times the number of neighbours.
        """
        return int(3.3 * self.edge_values * itemsize)

    def __add__(self, other: ModelCost) -> ModelCost:
        widest = {"paths", "radial_outputs"}
        return ModelCost(
            **{
                f.name: (max if f.name in widest else lambda a, b: a + b)(
                    getattr(self, f.name), getattr(other, f.name)
                )
                for f in fields(self)
            }
        )


_NOTHING = ModelCost(0, 0, 0, 0, 0, 0, 0, 0)


def count_costs(budget: FeatureBudget, arch: Architecture | None = None) -> ModelCost:
    """Count a model's tensor-product paths, parameters by part, and values per edge.

    Args:
        budget: feature dimension and highest degree.
        arch: the rest of the architecture.

    Returns:
        ModelCost; ``total`` equals the number of trainable parameters of the built model.

    Raises:
        BudgetError: for hops that do not divide the number of layers.
    """
    arch = arch or Architecture()
    harmonics = Irreps.spherical_harmonics(budget.l_max)
    width = arch.reset_width or budget.scalars
    period = _period(arch)
    features = _Muls({Irrep("0e"): arch.type_embed_num_features})
    cost = _NOTHING
    for layer in range(arch.num_layers):
        reset = (layer + 1) % period == 0
        contracted = reset and arch.contraction not in (None, "drop")
        hidden = (
            _Muls({Irrep("0e"): width})
            if reset and not contracted
            else _Muls({ir: mul for mul, ir in budget.irreps})
        )
        layer_cost, features = _convolution(features, harmonics, hidden, layer, arch)
        cost += layer_cost
        if contracted:
            cost += _part(contraction=_contraction(features, width, arch))
            features = _Muls({Irrep("0e"): width})
    readout = features[Irrep("0e")]
    return cost + _part(other=arch.num_types * arch.type_embed_num_features + readout)


def _period(arch: Architecture) -> int:
    """Convolutions between two resets; the steerable model resets once, at the readout."""
    if arch.contraction is None or arch.hops is None:
        return arch.num_layers
    if arch.hops < 1 or arch.num_layers % arch.hops:
        raise BudgetError(
            f"num_layers={arch.num_layers} is not a multiple of hops={arch.hops}: change either."
        )
    return arch.hops


def _part(**counts: int) -> ModelCost:
    return ModelCost(**{f.name: counts.get(f.name, 0) for f in fields(ModelCost)})


def _convolution(
    features: _Muls, harmonics: Irreps, hidden: _Muls, layer: int, arch: Architecture
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
    radial = _mlp(arch.num_bessels, arch.radial_mlp_width, arch.radial_mlp_depth, radial_outputs)
    linear = sum(mul * mul for mul in features.values())
    linear += sum(mul * mid[ir] for ir, mul in convolved.items())
    self_connection = 0
    if layer > 0:  # none in the first layer, for the isolated-atom limit
        self_connection = arch.type_embed_num_features * sum(
            mul * features[ir] for ir, mul in convolved.items()
        )
    hidden_values = arch.radial_mlp_width * arch.radial_mlp_depth
    edge_values = _dim(features) + radial_outputs + hidden_values + _dim(mid)
    cost = _part(
        paths=len(paths),
        radial_outputs=radial_outputs,
        radial=radial,
        linear=linear,
        self_connection=self_connection,
        edge_values=edge_values,
    )
    return cost, kept


def _mlp(n_in: int, width: int, depth: int, n_out: int) -> int:
    sizes = [n_in, *[width] * depth, n_out]
    return sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))


def _dim(muls: _Muls) -> int:
    return sum(mul * ir.dim for ir, mul in muls.items())


def _contraction(features: _Muls, width: int, arch: Architecture) -> int:
    """Parameters of an InvariantContraction of these features to ``width`` scalars."""
    scalar = Irrep("0e")
    steerable = sorted((ir for ir in features if ir != scalar), key=lambda ir: ir.l)
    invariants = features[scalar]
    mixings = 0
    for ir in steerable:
        pivots = min(features[ir], ir.dim)
        invariants += features[ir] * pivots
        mixings += features[ir] * pivots
    if arch.contraction == "bispectrum":
        left, right = set(), set()
        for a, first in enumerate(steerable):
            for b, second in enumerate(steerable[a:], a):
                for third in steerable[b:]:
                    if third in first * second:
                        invariants += arch.bilinear_channels * features[third]
                        left.add(first)
                        right.add(second)
        mixings += arch.bilinear_channels * sum(
            features[ir] for factors in (left, right) for ir in factors
        )
    return mixings + invariants * width


def match_parameters(
    target: int,
    l_max: int,
    arch: Architecture | None = None,
    tolerance: float = 0.01,
    parity: str = "natural",
    profile: str = "uniform",
) -> FeatureBudget:
    """Find the feature dimension whose model has ``target`` parameters within ``tolerance`` (1 %).

    Args:
        target: number of trainable parameters to meet.
        l_max: highest degree.
        arch: the rest of the architecture.
        tolerance: largest relative deviation allowed; 1 % each keeps any two within 2 %.
        parity: as in :class:`FeatureBudget`.
        profile: as in :class:`FeatureBudget`.

    Returns:
        The budget with the fewest left-over scalars among those within the tolerance.

    Raises:
        BudgetError: when no feature dimension comes close enough.
    """

    def total(feature_dim: int) -> int:
        return count_costs(FeatureBudget(feature_dim, l_max, parity, profile), arch).total

    # Dimensions that divide evenly have strictly rising counts, so bisect those; between two of
    # them the left-over scalars make the count jump up and down, so scan there if need be.
    unit = minimum_feature_dim(l_max, parity)
    below = unit * _bisect(lambda copies: total(copies * unit), target)
    even = [below, below + unit]
    between = sorted(range(below, below + unit), key=lambda d: d - below)
    for dim in [*sorted(even, key=lambda d: abs(total(d) - target)), *between]:
        if abs(total(dim) - target) <= tolerance * target:
            return FeatureBudget(dim, l_max, parity, profile)
    closest = min([*even, *between], key=lambda d: abs(total(d) - target))
    raise BudgetError(
        f"no feature dimension at l_max={l_max} gives {target} parameters within "
        f"{tolerance:.0%}: the closest, {closest}, gives {total(closest)}."
    )


def _bisect(count: Callable[[int], int], target: int) -> int:
    """Largest integer >= 1 whose count does not exceed the target, for a rising count."""
    low, high = 1, 2
    while count(high) <= target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= target else (low, middle)
    return low
