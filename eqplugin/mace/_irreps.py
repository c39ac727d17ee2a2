"""Which irreps each layer of a MACE model gets: checked, and written down as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from e3nn.o3 import Irrep, Irreps

from eqplugin.budget import BudgetError, FeatureBudget

__all__ = ["SPEC_ATTRIBUTE", "LayerPlan", "ModelSpec"]

# A string on the model survives pickling, `model.__class__ = ScaleShiftMACE` and TorchScript, and
# plain MACE ignores it; our loaders recognise their models by it.
SPEC_ATTRIBUTE = "eqplugin_spec"


def _require_int(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BudgetError(f"{name}={value!r} is not possible: give an integer >= {least}.")
    return value


@dataclass(frozen=True)
class ModelSpec:
    """What the user chose, in plain types.

    Args:
        model: ``"SteerableMACE"`` or ``"KHopInvariantMACE"``.
        feature_dim: D = sum_l mul_l (2l + 1) of a layer's features, met exactly.
        max_L: highest degree of the features. Cost rises steeply with it.
        hidden_irreps: the irreps themselves instead of the two numbers above; any multiplicities.
        num_channels: copies of every degree inside the product basis; None: the largest
            multiplicity of the layer. Time per step is about linear in it.
        hops: products between two resets; None never resets.
        reset_width: scalars a reset keeps; None: those of the feature budget.
    """

    model: str
    feature_dim: int | None = None
    max_L: int | None = None
    hidden_irreps: str | None = None
    num_channels: int | None = None
    hops: int | None = None
    reset_width: int | None = None

    def to_json(self) -> str:
        """One line, for :data:`SPEC_ATTRIBUTE`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, model: object) -> ModelSpec | None:
        """Return the spec a model carries, or None for a model that is not ours."""
        text = getattr(model, SPEC_ATTRIBUTE, None)
        return None if text is None else cls(**json.loads(text))

    def irreps(self, use_so3: bool = False) -> Irreps:
        """Features between two resets, scalars first, degrees rising.

        Args:
            use_so3: MACE's option that drops parity: every degree becomes even.

        Raises:
            BudgetError: for an impossible or ambiguous choice.
        """
        if self.hidden_irreps is not None:
            if self.feature_dim is not None or self.max_L is not None:
                raise BudgetError(
                    "hidden_irreps says the same as feature_dim and max_L: give either "
                    "hidden_irreps or the other two, not both."
                )
            return _parsed(self.hidden_irreps)
        if self.feature_dim is None or self.max_L is None:
            missing = "feature_dim" if self.feature_dim is None else "max_L"
            raise BudgetError(
                f"{missing} is missing: give feature_dim and max_L, such as 128 and 1."
            )
        _require_int("max_L", self.max_L, 0)
        try:
            irreps = FeatureBudget(self.feature_dim, self.max_L).irreps
        except BudgetError as error:  # MACE's own word for the highest degree
            raise BudgetError(str(error).replace("l_max", "max_L")) from None
        if use_so3:
            irreps = Irreps([(mul, (ir.l, 1)) for mul, ir in irreps])
        return irreps

    def plan(
        self, num_interactions: int, use_so3: bool = False, keep_last_layer_irreps: bool = False
    ) -> LayerPlan:
        """Irreps and channels of every layer.

        Args:
            num_interactions: number of layers.
            use_so3: see :meth:`irreps`.
            keep_last_layer_irreps: keep l > 0 after the last product, which MACE drops.

        Raises:
            BudgetError: for an impossible choice, such as ``hops < 1``.
        """
        num_interactions = _require_int("num_interactions", num_interactions, 1)
        irreps = self.irreps(use_so3)
        if self.num_channels is not None:
            _require_int("num_channels", self.num_channels, 1)
        scalars = _only_scalars(irreps)
        reset = scalars
        if self.reset_width is not None:
            reset = Irreps([(_require_int("reset_width", self.reset_width, 1), (0, 1))])
        outputs = []
        for layer in range(num_interactions):
            if self._resets_after(layer, num_interactions):
                outputs.append(reset)
            elif layer == num_interactions - 1 and not keep_last_layer_irreps:
                outputs.append(scalars)
            else:
                outputs.append(irreps)
        return LayerPlan(
            tuple(outputs),
            tuple(self.num_channels or max(out.mul for out in o) for o in outputs),
        )

    def _resets_after(self, layer: int, num_interactions: int) -> bool:
        if self.hops is None:
            return False
        hops = _require_int("hops", self.hops, 1)
        if hops > num_interactions:
            raise BudgetError(
                f"hops={hops} is more than num_interactions={num_interactions}, so nothing would "
                f"ever be reset: lower hops, raise num_interactions, or leave hops out."
            )
        return (layer + 1) % hops == 0


@dataclass(frozen=True)
class LayerPlan:
    """Irreps that leave each product, and channels inside it.

    Args:
        outputs: features after each layer.
        channels: copies of every degree in each layer's interaction and product basis.
    """

    outputs: tuple[Irreps, ...]
    channels: tuple[int, ...]

    @property
    def uniform_base(self) -> Irreps:
        """Equal-channel irreps with every degree that occurs: what stock MACE can build."""
        found = sorted({ir for out in self.outputs for _, ir in out}, key=_order)
        return Irreps([(self.channels[0], ir) for ir in found])

    @property
    def is_stock(self) -> bool:
        """Whether MACE itself can build these layers: one irreps, equal channels everywhere."""
        first, channels = self.outputs[0], self.channels[0]
        return (
            all(out == first for out in self.outputs[:-1])
            and self.outputs[-1] == (_only_scalars(first) if len(self.outputs) > 1 else first)
            and {out.mul for out in first} == set(self.channels) == {channels}
        )

    def product_irreps(self, layer: int) -> Irreps:
        """Equal-channel irreps that the symmetric contraction of a layer produces."""
        return Irreps([(self.channels[layer], ir) for _, ir in self.outputs[layer]])


def _order(ir: Irrep) -> tuple[int, int]:
    return ir.l, -ir.p * (-1) ** ir.l


def _only_scalars(irreps: Irreps) -> Irreps:
    return Irreps([(mul, ir) for mul, ir in irreps if ir == Irrep(0, 1)])


def _parsed(text: str) -> Irreps:
    try:
        irreps = Irreps(text)
    except (ValueError, TypeError, IndexError) as error:
        raise BudgetError(
            f"hidden_irreps={text!r} cannot be read: write them like 64x0e+32x1o."
        ) from error
    gathered = _gathered(irreps)
    if gathered.count(Irrep(0, 1)) == 0:
        raise BudgetError(
            f"hidden_irreps={text!r} holds no scalars (0e): energies are read from them, add some."
        )
    return gathered


def _gathered(irreps: Sequence) -> Irreps:
    """One entry per irrep, degrees rising, natural parity first."""
    total: dict[Irrep, int] = {}
    for mul, ir in irreps:
        total[ir] = total.get(ir, 0) + mul
    return Irreps([(total[ir], ir) for ir in sorted(total, key=_order) if total[ir]])
