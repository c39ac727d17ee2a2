"""Importing this module makes ``torch.ops.eqplugin.uvu_scatter`` and its derivatives usable.

Compiled packages (``.nequip.pt2``) that contain the operators name this module, and NequIP imports
it before it opens them. A program without Python (LAMMPS) needs the library alone:
``python -m eqplugin.nn.product.operators`` prints its path, to be put into ``LD_PRELOAD``.

Shapes: ``x`` (num_nodes, dim_x), ``y`` (num_edges, dim_y), ``w`` (num_edges, num_weights), ``dst``
and ``src`` (num_edges,) int64, result (num_nodes, dim_out); ``plan`` and ``coefficients`` come from
:mod:`eqplugin.nn.product.plan`.

With Phi(x, y, w, g) = <g, uvu_scatter(x, y, w)>, which is linear in each argument,
``uvu_scatter_backward`` returns dPhi/dx, dPhi/dy, dPhi/dw, and ``uvu_scatter_double_backward`` the
derivatives of Phi(hx, y, w, g) + Phi(x, hy, w, g) + Phi(x, y, hw, g) by g, x, y and w in one pass.
Higher derivatives are composed from the first two operators, so they exist to any order.

Raises:
    EqPluginError: on import, where the operators cannot be built.
"""

from __future__ import annotations

import torch

from eqplugin.errors import EqPluginError
from eqplugin.nn.product.build import Unavailable, build


def _load() -> str:
    try:
        path = build()
        torch.ops.load_library(str(path))
    except (Unavailable, OSError) as error:
        raise EqPluginError(f"eqplugin's compiled operators cannot be used: {error}.") from error
    return str(path)


LIBRARY_PATH = _load()
_ops = torch.ops.eqplugin


@torch.library.register_fake("eqplugin::uvu_scatter")
def _forward_shapes(x, y, w, dst, src, plan, coefficients, dim_out):  # noqa: ANN001
    return x.new_empty((x.shape[0], dim_out))


@torch.library.register_fake("eqplugin::uvu_scatter_backward")
def _backward_shapes(grad, x, y, w, dst, src, plan, coefficients):  # noqa: ANN001
    return tuple(t.new_empty(t.shape) for t in (x, y, w))


@torch.library.register_fake("eqplugin::uvu_scatter_double_backward")
def _double_shapes(hx, hy, hw, grad, x, y, w, dst, src, plan, coefficients):  # noqa: ANN001
    return tuple(t.new_empty(t.shape) for t in (grad, x, y, w))


def _save_forward(ctx, inputs, output) -> None:  # noqa: ANN001
    *tensors, ctx.dim_out = inputs
    ctx.save_for_backward(*tensors)


def _forward_gradients(ctx, grad):  # noqa: ANN001
    gx, gy, gw = _ops.uvu_scatter_backward(grad, *ctx.saved_tensors)
    return gx, gy, gw, None, None, None, None, None


def _save_backward(ctx, inputs, output) -> None:  # noqa: ANN001
    ctx.save_for_backward(*inputs)


def _backward_gradients(ctx, hx, hy, hw):  # noqa: ANN001
    inputs = ctx.saved_tensors
    derive = _composed if torch.is_grad_enabled() else _ops.uvu_scatter_double_backward
    return *derive(hx, hy, hw, *inputs), None, None, None, None


def _composed(hx, hy, hw, grad, x, y, w, *graph):  # noqa: ANN001
    """``uvu_scatter_double_backward`` from operators that can be differentiated further."""
    dim_out = grad.shape[1]

    def forward(*factors: torch.Tensor) -> torch.Tensor:
        return _ops.uvu_scatter(*factors, *graph, dim_out)

    def backward(*factors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _ops.uvu_scatter_backward(grad, *factors, *graph)

    gg = forward(hx, y, w) + forward(x, hy, w) + forward(x, y, hw)
    _, gy_of_hx, gw_of_hx = backward(hx, y, w)
    gx_of_hy, _, gw_of_hy = backward(x, hy, w)
    gx_of_hw, gy_of_hw, _ = backward(x, y, hw)
    return gg, gx_of_hy + gx_of_hw, gy_of_hx + gy_of_hw, gw_of_hx + gw_of_hy


def _refuse(ctx, *grads):  # noqa: ANN001
    raise NotImplementedError(
        "uvu_scatter_double_backward is not differentiable: call torch.autograd.grad with "
        "create_graph=True on uvu_scatter_backward, which composes it from operators that are."
    )


torch.library.register_autograd(
    "eqplugin::uvu_scatter", _forward_gradients, setup_context=_save_forward
)
torch.library.register_autograd(
    "eqplugin::uvu_scatter_backward", _backward_gradients, setup_context=_save_backward
)
torch.library.register_autograd("eqplugin::uvu_scatter_double_backward", _refuse)


if __name__ == "__main__":
    print(LIBRARY_PATH)
