"""A MACE model's design, kept on the model, and which irreps and channels each layer gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from e3nn.o3 import Irrep, Irreps

from eqplugin.design import Design

# A string on the model survives pickling, `model.__class__ = ScaleShiftMACE` and TorchScript, and
# plain MACE ignores it; our loaders recognise their models by it.
_ATTRIBUTE = "eqplugin_spec"

# what a MACE model's design is called among the arguments of our classes and of the trainer
_WORDS = {
    "feature_dim": "feature_dim",
    "max_L": "l_max",
    "hidden_irreps": "hidden_irreps",
    "num_channels": "num_channels",
    "hops": "hops",
    "reset_width": "reset_width",
}


def design_from(arguments: Mapping[str, Any], num_layers: int) -> Design:
    """The design that our MACE classes and ``eqplugin mace-train`` take in MACE's words.

    Raises:
        DesignError: for an impossible or ambiguous choice.
    """
    chosen: dict[str, Any] = {ours: arguments.get(mace) for mace, ours in _WORDS.items()}
    return Design(**chosen, num_layers=num_layers, stack="mace")


def design_arguments(design: Design) -> dict[str, Any]:
    """The inverse of :func:`design_from`, without the number of layers."""
    return {mace: getattr(design, ours) for mace, ours in _WORDS.items()}


def record_design(model: object, design: Design) -> None:
    """Keep the design on a model, with the name of its class."""
    spec = {"model": type(model).__name__, **design_arguments(design)}
    setattr(model, _ATTRIBUTE, json.dumps(spec, sort_keys=True))


def design_of(model: Any) -> Design | None:
    """The design a model carries, or None for a model that is not ours."""
    text = getattr(model, _ATTRIBUTE, None)
    return None if text is None else design_from(json.loads(text), int(model.num_interactions))


def family_name(model: object) -> str | None:
    """Name of the class of ours that a model was built by; None for a model that is not ours."""
    text = getattr(model, _ATTRIBUTE, None)
    return None if text is None else json.loads(text)["model"]


@dataclass(frozen=True)
class LayerPlan:
    """Irreps that leave each product, and channels inside it."""

    outputs: tuple[Irreps, ...]  # features after each layer
    channels: tuple[int, ...]  # of every degree in each layer's interaction and product basis

    @property
    def uniform_base(self) -> Irreps:
        """Equal-channel irreps with every degree that occurs: what stock MACE can build."""
        present = {ir for out in self.outputs for _, ir in out}
        rising = sorted(present, key=lambda ir: (ir.l, -ir.p * (-1) ** ir.l))
        return Irreps([(self.channels[0], ir) for ir in rising])

    @property
    def is_stock(self) -> bool:
        """Whether MACE itself can build these layers: one irreps, equal channels everywhere."""
        first, channels = self.outputs[0], self.channels[0]
        scalars = Irreps([(mul, ir) for mul, ir in first if ir == Irrep(0, 1)])
        return (
            all(out == first for out in self.outputs[:-1])
            and self.outputs[-1] == (scalars if len(self.outputs) > 1 else first)
            and {out.mul for out in first} == set(self.channels) == {channels}
        )

    def product_irreps(self, layer: int) -> Irreps:
        """Equal-channel irreps that the symmetric contraction of a layer produces."""
        return Irreps([(self.channels[layer], ir) for _, ir in self.outputs[layer]])


def plan_layers(
    design: Design, use_so3: bool = False, keep_last_layer_irreps: bool = False
) -> LayerPlan:
    """Irreps and channels of every layer.

    Args:
        design: a MACE design.
        use_so3: MACE's option that drops parity: every degree of a feature dimension becomes even.
        keep_last_layer_irreps: keep l > 0 after the last product, which MACE drops.
    """
    outputs = design.layers(keep_last_layer_irreps)
    if use_so3 and design.hidden_irreps is None:
        outputs = tuple(Irreps([(mul, (ir.l, 1)) for mul, ir in out]) for out in outputs)
    channels = tuple(design.num_channels or max(out.mul for out in o) for o in outputs)
    return LayerPlan(outputs, channels)
