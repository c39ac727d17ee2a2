"""Builds MACE models as MACE's trainer does, ours among them."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mace import modules
from mace.tools import model_script_utils
from mace.tools.arg_parser_tools import check_args
from mace.tools.utils import AtomicNumberTable

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.exchange import exchanged
from eqplugin.mace.models import FAMILIES
from eqplugin.mace.plan import design_arguments, design_from, family_name, plan_layers

_NEIGHBORS = 10.0  # of a model without data: it scales messages and costs nothing


def design_of_arguments(args: argparse.Namespace) -> Design | None:
    """The design that the options of ``mace-train`` ask for; None for a stock model.

    Raises:
        DesignError: for an impossible choice.
    """
    if args.model not in FAMILIES:
        return None
    return design_from(vars(args), args.num_interactions)


def in_stock_words(args: argparse.Namespace) -> argparse.Namespace:
    """A copy of the options that MACE's own checks accept: they know equal channels only.

    The blocks are fitted to the design when the model is built.
    """
    design = design_of_arguments(args)
    args = copy.copy(args)
    if design is not None:
        args.hidden_irreps = str(plan_layers(design, args.use_so3).uniform_base)
        args.num_channels = args.max_L = None
    return args


def build_untrained(
    args: argparse.Namespace, atomic_numbers: Sequence[int], scale: float = 1.0
) -> torch.nn.Module:
    """The model of a training, ours or stock, with random weights and without its data.

    Args:
        args: options of ``mace-train``, as parsed.
        atomic_numbers: of the elements it is to know.
        scale: of the interaction energies.

    Raises:
        EqPluginError: for what MACE itself refuses.
    """
    design, args = design_of_arguments(args), in_stock_words(args)
    try:
        args, _ = check_args(args)
    except AssertionError as error:
        raise EqPluginError(f"MACE refuses the options: {error}.") from error
    args.mean, args.std, args.scaling = [0.0], [scale], "std_scaling"
    args.avg_num_neighbors = args.avg_num_neighbors or _NEIGHBORS
    args.compute_energy, args.compute_forces = True, True
    args.compute_dipole = args.compute_polarizability = False
    energies = np.zeros((1, len(atomic_numbers)))
    table = AtomicNumberTable([int(z) for z in atomic_numbers])
    with building_families(design):
        model, _ = configure_model(args, None, energies, None, ["Default"], table)
    return model


@contextlib.contextmanager
def building_families(design: Design | None) -> Iterator[None]:
    """Let MACE's ``model_script_utils`` build our families, for the length of a block; ``design``
    is None where the model is a stock one.
    """
    if design is None:
        yield
        return
    stock = model_script_utils._build_model

    def build(
        args: argparse.Namespace, config: dict, foundation: Any, heads: Sequence[str]
    ) -> torch.nn.Module:
        # where MACE would build a ScaleShiftMACE: scale and shift from the training data
        options = copy.copy(args)
        options.model = "ScaleShiftMACE"
        if args.zero_shift:  # an isolated atom is to have exactly its E0
            options.mean = [0.0] * len(heads)
        family = functools.partial(FAMILIES[args.model], **design_arguments(design))
        config = {key: value for key, value in config.items() if key != "hidden_irreps"}
        with exchanged((modules, "ScaleShiftMACE", family)):
            model = stock(options, config, foundation, heads)
        layers = ", ".join(str(product.linear.irreps_out) for product in model.products)
        logging.info(f"{args.model}: features after each layer: {layers}")
        return model

    with exchanged((model_script_utils, "_build_model", build)):
        yield


def configure_model(
    args: argparse.Namespace,
    train_loader: Any,
    atomic_energies: Any,
    model_foundation: torch.nn.Module | None = None,
    *rest: Any,
) -> tuple[torch.nn.Module, dict[str, bool]]:
    """MACE's own; fine-tuning of our families starts from a model of the same architecture."""
    ours = args.model in FAMILIES
    name = family_name(model_foundation)
    if not ours and name is not None:
        raise EqPluginError(
            f"{args.foundation_model} is a {name}, which --model {args.model} cannot "
            f"fine-tune: give --model {name} with the same feature_dim, max_L and hops."
        )
    model, outputs = model_script_utils.configure_model(
        args, train_loader, atomic_energies, None if ours else model_foundation, *rest
    )
    if ours and model_foundation is not None:
        copy_foundation(model_foundation, model, args.foundation_model)
    return model, outputs


# These describe the new data, not what the foundation has learned.
_OF_THE_DATA = ("atomic_energies_fn.", "scale_shift.")


def copy_foundation(source: torch.nn.Module, target: torch.nn.Module, name: str) -> None:
    """Start a model from the weights of another of the same architecture and elements.

    The target is changed in place and keeps its own E0s, scale and shift.

    Raises:
        EqPluginError: when they differ in irreps, layers, elements or heads.
    """
    elements = [[int(z) for z in model.atomic_numbers] for model in (source, target)]
    if elements[0] != elements[1]:
        raise EqPluginError(
            f"{name} knows the elements {elements[0]}, but the data contain {elements[1]}: keep "
            f"all of its elements with --foundation_model_elements True, or train from scratch."
        )
    old, new = source.state_dict(), target.state_dict()
    kept = [key for key in new if not key.startswith(_OF_THE_DATA)]
    differing = [key for key in kept if key not in old or old[key].shape != new[key].shape]
    if differing or {key for key in old if not key.startswith(_OF_THE_DATA)} != set(kept):
        raise EqPluginError(
            f"{name} has a different architecture from the requested model (first difference: "
            f"{differing[0] if differing else 'number of blocks'}): fine-tune with its own "
            f"feature_dim, max_L, hops and layer options, or train from scratch."
        )
    target.load_state_dict({**new, **{key: old[key].to(new[key].dtype) for key in kept}})
    for old_block, new_block in zip(source.interactions, target.interactions, strict=True):
        new_block.avg_num_neighbors = old_block.avg_num_neighbors
