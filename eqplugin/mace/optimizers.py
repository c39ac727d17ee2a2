"""Optimisers of `eqplugin mace-train` beside MACE's own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from mace.tools import scripts_utils
from nequip.train import MuonWithAuxAdam

from eqplugin.errors import EqPluginError
from eqplugin.optim.blocks import with_blocks
from eqplugin.optim.soap import SOAP

OPTIMIZERS = ("adam", "adamw", "amsgrad", "schedulefree", "soap", "muon")
_ON_BLOCKS = ("soap", "muon")
# groups of MACE between the embedding and the readouts
_HIDDEN = ("interactions_decay", "interactions_no_decay", "products")


def check_optimizer(args: argparse.Namespace) -> None:
    """Refuse options with which no training could begin.

    Raises:
        EqPluginError: naming the option.
    """
    rates = ("lr", "swa_lr") if args.swa else ("lr",)
    for name in rates:
        if not getattr(args, name) > 0:
            value = getattr(args, name)
            raise EqPluginError(f"{name}={value} is not valid: give a learning rate > 0.")
    if args.optimizer == "schedulefree" and find_spec("schedulefree") is None:
        raise EqPluginError(
            "optimizer=schedulefree needs a package that is not installed: "
            "run `pip install schedulefree`, or choose another optimizer."
        )


def get_params_options(args: argparse.Namespace, model: torch.nn.Module) -> dict[str, Any]:
    """MACE's parameter groups, with the blocks of their parameters where they are needed."""
    options = scripts_utils.get_params_options(args, model)
    if args.optimizer in _ON_BLOCKS:
        options["params"] = with_blocks(options["params"], model)
    return options


def get_optimizer(args: argparse.Namespace, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that `args` names, on the groups of :func:`get_params_options`."""
    groups = options["params"]
    if args.optimizer == "soap":
        return SOAP(groups, lr=args.lr)
    if args.optimizer == "muon":
        return MuonWithAuxAdam(list(_muon_groups(groups, args.lr)))
    if args.optimizer == "amsgrad":
        return torch.optim.Adam(**{**options, "amsgrad": True})
    return scripts_utils.get_optimizer(args, options)


def kind_of(optimizer: torch.optim.Optimizer) -> str:
    """What has to be the same when a training is resumed."""
    amsgrad = any(group.get("amsgrad") for group in optimizer.param_groups)
    return type(optimizer).__name__ + (" (amsgrad)" if amsgrad else "")


def _muon_groups(groups: list[dict[str, Any]], lr: float) -> Iterator[dict[str, Any]]:
    """As NequIP splits its parameters: matrices of hidden layers to Muon, the rest to Adam.

    Products with the elements (three indices) and the symmetric contraction belong to the rest.
    """
    for group in groups:
        common = {"lr": group.get("lr", lr), "weight_decay": group["weight_decay"]}
        listed = list(zip(group["params"], group["blocks"], strict=True))
        muon = [pair for pair in listed if group["name"] in _HIDDEN and _is_matrices(*pair)]
        taken = {id(parameter) for parameter, _ in muon}
        adam = [parameter for parameter, _ in listed if id(parameter) not in taken]
        if muon:
            flat = {
                number: [((at, at + a * b, None), (a, b)) for at, (a, b), _ in blocks]
                for number, (parameter, blocks) in enumerate(muon)
                if parameter.ndim == 1
            }
            parameters = [parameter for parameter, _ in muon]
            yield {"params": parameters, "use_muon": True, "e3nn_reshaping": flat, **common}
        if adam:
            yield {"params": adam, "use_muon": False, "betas": (0.9, 0.999), "eps": 1e-8, **common}


def _is_matrices(parameter: torch.Tensor, blocks: list[Any]) -> bool:
    return parameter.ndim <= 2 and all(len(shape) == 2 for _, shape, _ in blocks)


def exchanges(owner: object) -> tuple[tuple[object, str, Callable[..., Any]], ...]:
    """What :func:`eqplugin.exchange.exchanged` has to put into MACE's trainer, `owner`."""
    return (
        (owner, "get_params_options", get_params_options),
        (owner, "get_optimizer", get_optimizer),
    )
