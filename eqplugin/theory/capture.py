"""Catch the hidden node features of NequIP and MACE models, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from e3nn.o3 import Irreps

from eqplugin.errors import EqPluginError

__all__ = ["LayerFeatures", "capture_features"]

_NODE_FEATURES = "node_features"  # NequIP's key


@dataclass(frozen=True)
class LayerFeatures:
    """What leaves one layer."""

    name: str  # of the module, e.g. layer1_convnet (NequIP) or products.1 (MACE)
    irreps: Irreps  # of the features, e3nn's mul_ir layout
    values: torch.Tensor  # (num_nodes, D), detached


@contextmanager
def capture_features(model: torch.nn.Module) -> Iterator[list[LayerFeatures]]:
    """Collect the node features of every layer while the model is called.

    NequIP: what leaves each convolution, and each invariant contraction after one. MACE: what
    leaves each product. Nothing in the model or its outputs changes; the hooks go with the block.

    >>> with capture_features(model) as layers:  # doctest: +SKIP
    ...     model(data)
    >>> [(layer.name, layer.irreps) for layer in layers]  # doctest: +SKIP

    Args:
        model: of eqplugin or stock; NequIP (also from a package) or MACE.

    Raises:
        EqPluginError: for a model that has no such layers.
    """
    found: list[LayerFeatures] = []
    handles = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        # by name: the classes of a packaged model are its own copies
        inner = type(getattr(module, "operation", None)).__name__
        if kind == "ConvNetLayer" or inner == "InvariantContraction":
            irreps = module.irreps_out[_NODE_FEATURES]
        elif kind == "EquivariantProductBasisBlock":
            irreps = module.linear.irreps_out
        else:
            continue
        catch = _catcher(name, Irreps(str(irreps)), found)
        handles.append(module.register_forward_hook(catch))
    if not handles:
        raise EqPluginError(
            f"{type(model).__name__} has neither NequIP convolutions nor MACE products: give an "
            f"eager (not compiled) NequIP or MACE model."
        )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _catcher(name: str, irreps: Irreps, found: list[LayerFeatures]) -> Callable[..., None]:
    def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        values = output[_NODE_FEATURES] if isinstance(output, dict) else output
        found.append(LayerFeatures(name, irreps, values.detach()))

    return hook
