"""The uvu tensor product of a message-passing layer in one C++ operator.

Gather, kernel, radial weights and scatter run in one pass over the edges of each node, with the
channels in vector registers; nothing of size (num_edges, width of the product) is ever stored. The
numbers are those of e3nn's product to rounding, so weights and checkpoints are interchangeable.
See docs/compiled-product.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch.autograd.forward_ad import unpack_dual

from eqplugin.nn.product.plan import make_plan

# Imported by name only: nequip-package puts this file into model packages, whose copy has to use
# the operators of the installed eqplugin, and torch.package follows import statements.
OPS_MODULE = "eqplugin.nn.product.operators"


@dataclass(frozen=True)
class Status:
    """Whether the compiled operators can be used here."""

    available: bool  # False: products fall back to torch
    found: str  # what is there, a clause
    advice: str = ""  # what to do about it


def status() -> Status:
    """Look for the operators without building them; never raises."""
    try:
        path = import_module("eqplugin.nn.product.build").library_path()
    except Exception as error:
        return Status(False, str(error), "Products run in torch: slower, with the same numbers.")
    if path.exists():
        return Status(True, f"built: {path}")
    return Status(True, "not built yet: compiled on first use, about half a minute")


def load_operators() -> str | None:
    """Build and load the operators; return None, or in one sentence why they cannot be used."""
    try:
        import_module(OPS_MODULE)
    except ImportError as error:
        return (
            f"eqplugin's compiled operators cannot be used: {error} (is eqplugin installed here?)"
        )
    except ValueError as error:  # EqPluginError
        return str(error)
    return None


class CompiledProduct(torch.nn.Module):
    """Sum over edges of uvu tensor products, on the CPU, in float32 or float64.

    Args:
        tp: e3nn ``TensorProduct`` of the supported kind (see :func:`why_not`). It is not kept.

    Raises:
        ValueError: `tp` is of another kind.
        RuntimeError: the operators cannot be used here (call :func:`load_operators` first). One
            that was read from a file raises this when it is called, so that the file can be read.
    """

    # non-persistent: the state dict stays that of the stock product
    plan: torch.Tensor
    coefficients: torch.Tensor
    missing: str | None  # why there are no operators here

    def __init__(self, tp: torch.nn.Module) -> None:
        super().__init__()
        self.missing = load_operators()
        if self.missing is not None:
            raise RuntimeError(self.missing)
        plan, coefficients = make_plan(tp)
        self.dim_out = tp.irreps_out.dim
        self.register_buffer("plan", plan, persistent=False)
        self.register_buffer("coefficients", coefficients, persistent=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.missing = load_operators()

    def forward(
        self,
        x: torch.Tensor,
        edge_attr: torch.Tensor,
        edge_weight: torch.Tensor,
        edge_dst: torch.Tensor,
        edge_src: torch.Tensor,
    ) -> torch.Tensor:
        """Messages ``tp(x[edge_src], edge_attr, edge_weight)`` summed at their destinations.

        Shapes are those of the factorised product, see
        :meth:`eqplugin.nn.product.factorized.FactorizedTensorProduct.forward`.

        Raises:
            NotImplementedError: for derivatives in forward mode.
        """
        if self.missing is not None:
            raise RuntimeError(self.missing)
        if any(unpack_dual(t).tangent is not None for t in (x, edge_attr, edge_weight)):
            # left to itself, the operator would answer with a tangent of zero
            raise NotImplementedError(
                "The compiled product has derivatives in reverse mode only (torch.autograd): for "
                "forward mode (torch.func.jvp) use the stock or the factorised product."
            )
        return torch.ops.eqplugin.uvu_scatter(
            x,
            edge_attr,
            edge_weight,
            edge_dst,
            edge_src,
            self.plan,
            self.coefficients.to(x.dtype),
            self.dim_out,
        )
