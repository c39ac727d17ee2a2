"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, on blocks of parameters.

Vyas et al., 2024 (arXiv:2409.11321). The libraries (pytorch-optimizer, heavyball) precondition a
parameter in its own shape, one at a time; e3nn's flat weights hold many matrices, and a model has
dozens of equal ones. Here all blocks of one shape are one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch

from eqplugin.errors import EqPluginError
from eqplugin.optim.blocks import check_cover
from eqplugin.optim.modes import along, eigenbasis, products, turned

State = dict[str, Any]


class SOAP(torch.optim.Optimizer):
    """SOAP over blocks of parameters; the first step only starts the statistics.

    Args:
        params: parameters or groups. A group may have ``blocks``, a list of ``(offset, shape,
            ranks)`` per parameter (:func:`eqplugin.optim.block_groups`); without them, each
            parameter is a block of its own shape.
        lr: learning rate > 0.
        betas: decay of the mean gradient, and of its square and the preconditioner.
        eps: added to the root of the mean square.
        weight_decay: decoupled, as in AdamW.
        freq: steps between two updates of a block's eigenbasis; batches take turns.
        warmup: steps over which the learning rate rises linearly.
        max_dim: modes longer than this are not rotated. Time grows with the sum of the others.

    Raises:
        EqPluginError: for impossible numbers, blocks that do not tile a parameter, or the saved
            state of another optimiser or model.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        freq: int = 20,
        warmup: int = 20,
        max_dim: int = 256,
    ) -> None:
        if not lr > 0:
            raise EqPluginError(f"lr={lr} is not valid: give a learning rate > 0.")
        options = dict(eps=eps, weight_decay=weight_decay, freq=freq, warmup=warmup)
        super().__init__(params, dict(lr=lr, betas=tuple(betas), max_dim=max_dim, **options))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its numbers and blocks checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check(group)
        for p in group["params"]:
            p.data = p.data.contiguous()
        group.setdefault("blocks", [[(0, tuple(p.shape), tuple(p.shape))] for p in group["params"]])
        if len(group["blocks"]) != len(group["params"]):
            raise EqPluginError("A group needs a list of blocks for each of its parameters.")
        for number, (p, blocks) in enumerate(zip(group["params"], group["blocks"], strict=True)):
            check_cover(p, blocks, f"parameter {number}")

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a saved state, to the last bit."""
        groups = (self.param_groups, state_dict["param_groups"])
        ours, theirs = ([group.get("blocks") for group in listed] for listed in groups)
        if ours != theirs:
            raise EqPluginError(
                "The saved state does not belong to SOAP on this model: resume with the "
                "optimiser and the model of the interrupted run, or start again."
            )
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters by one step; one without a gradient counts as having zero."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decayed = [p for p in group["params"] if p.grad is not None]
            if group["weight_decay"] and decayed:
                torch._foreach_mul_(decayed, 1 - group["lr"] * group["weight_decay"])
            for turn, ((shape, ranks, *_), members) in enumerate(_batches(group).items()):
                state = self.state[members[0][0]].setdefault(f"{shape} {ranks}", {})
                grads = torch.stack([_part(p, p.grad, at, shape) for p, at in members])
                if not state:
                    _start(state, grads, ranks, group)
                    continue
                update = _update(state, grads, group, turn)
                lr = group["lr"] * min(1.0, state["n"] / max(1, group["warmup"]))
                parts = [_part(p, p, at, shape) for p, at in members]
                torch._foreach_add_(parts, list(update.unbind()), alpha=-lr)
        return loss


def _update(state: State, grads: torch.Tensor, group: State, turn: int) -> torch.Tensor:
    """The direction of a step for a batch of blocks, (n, *shape); brings `state` up to date."""
    b1, b2 = group["betas"]
    state["n"] += 1
    n, bases = state["n"], state["Q"]
    # a basis that shortens its mode goes first
    modes = sorted(bases, key=lambda mode: bases[mode].shape[-1] / bases[mode].shape[-2])
    rotated = grads
    for mode in modes:
        # turning the other modes leaves these products as they are, and shrinking makes them cheap
        state["L"][mode].lerp_(products(rotated, mode), 1 - b2)
        rotated = along(rotated, bases[mode], mode)
    state["m"].lerp_(rotated, 1 - b1)
    state["v"].lerp_(rotated.square_() if bases else rotated.square(), 1 - b2)
    root = (state["v"] / (1 - b2**n)).sqrt_().add_(group["eps"])
    update = (state["m"] / root).div_(1 - b1**n)
    for mode in reversed(modes):
        update = along(update, bases[mode].mT, mode)
    if (n + turn) % group["freq"] == 0:
        for mode in bases:
            _turn_basis(state, mode)
    return update


def _start(state: State, grads: torch.Tensor, ranks: tuple[int, ...], group: State) -> None:
    """Statistics of the first gradient; a mode is rotated unless it is too long or the only one."""
    shape = grads.shape[1:]
    longest = group["max_dim"] if len(shape) > 1 else 0
    modes = [i + 1 for i, d in enumerate(shape) if 1 < d <= longest]
    state["L"] = {mode: products(grads, mode) * (1 - group["betas"][1]) for mode in modes}
    state["Q"] = {}
    kept = list(grads.shape)
    for mode, inner in state["L"].items():
        state["Q"][mode] = eigenbasis(inner)[..., : ranks[mode - 1]].contiguous()
        kept[mode] = ranks[mode - 1]
    state["m"], state["v"] = grads.new_zeros(kept), grads.new_zeros(kept)
    state["n"] = 0


def _turn_basis(state: State, mode: int) -> None:
    """One step of subspace iteration; moments follow, the second in the order of the vectors."""
    basis = state["Q"][mode]
    image = state["L"][mode] @ basis
    values, order = (basis * image).sum(-2).sort(-1, descending=True)
    columns = order.unsqueeze(-2).expand_as(image)
    new = turned(basis.gather(-1, columns), image.gather(-1, columns), values)
    state["m"] = along(state["m"], basis.mT @ new, mode)
    index = order.view(*(s if i in (0, mode) else 1 for i, s in enumerate(state["v"].shape)))
    state["v"] = state["v"].gather(mode, index.expand_as(state["v"]))
    state["Q"][mode] = new


def _batches(group: State) -> dict[Any, list[tuple[torch.Tensor, int]]]:
    """Parameter and offset of all blocks of one shape, ranks, type and device."""
    batches: dict[Any, list[tuple[torch.Tensor, int]]] = {}
    for p, blocks in zip(group["params"], group["blocks"], strict=True):
        for offset, shape, ranks in blocks if p.requires_grad else ():
            batches.setdefault((shape, ranks, p.dtype, p.device), []).append((p, offset))
    return batches


def _part(
    p: torch.Tensor, of: torch.Tensor | None, offset: int, shape: tuple[int, ...]
) -> torch.Tensor:
    if of is None:
        return p.new_zeros(shape)
    return of.reshape(-1)[offset : offset + prod(shape)].view(shape)


def _check(group: State) -> None:
    """Refuse numbers that cannot be meant."""
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise EqPluginError(f"betas={group['betas']} is not valid: give two numbers in [0, 1).")
    for name, least in (("lr", 0), ("freq", 1), ("warmup", 0), ("weight_decay", 0), ("eps", 0)):
        if not group[name] >= least:
            raise EqPluginError(f"{name}={group[name]} is not valid: give a number >= {least}.")
