"""Builds our models where MACE's trainer builds its own."""

from __future__ import annotations

import argparse
import ast
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from e3nn.o3 import Irreps
from mace import modules

from eqplugin.errors import EqPluginError
from eqplugin.mace._irreps import ModelSpec
from eqplugin.mace.models import FAMILIES

__all__ = ["configure_with_families", "families_built_by", "spec_from"]


def spec_from(args: argparse.Namespace) -> ModelSpec:
    """Read the model's specification from the options of ``mace-train``."""
    return ModelSpec(
        model=args.model,
        feature_dim=args.feature_dim,
        max_L=args.max_L,
        hidden_irreps=args.hidden_irreps,
        num_channels=args.num_channels,
        hops=args.hops,
        reset_width=args.reset_width,
    )


def families_built_by(stock: Callable, spec: ModelSpec) -> Callable:
    """Wrap ``model_script_utils._build_model`` so that it knows our families.

    The arguments are those of its ScaleShiftMACE: scale and shift from the training data, unless
    ``--zero_shift`` asks for an isolated atom at exactly its E0.
    """

    @functools.wraps(stock)
    def build(
        args: argparse.Namespace, config: dict, foundation: Any, heads: Sequence[str]
    ) -> torch.nn.Module:
        if args.model not in FAMILIES:
            return stock(args, config, foundation, heads)
        chosen = {
            "feature_dim": spec.feature_dim,
            "max_L": spec.max_L,
            "hidden_irreps": spec.hidden_irreps,
            "num_channels": spec.num_channels,
        }
        if spec.model == "KHopInvariantMACE":
            chosen |= {"hops": spec.hops, "reset_width": spec.reset_width}
        config = {key: value for key, value in config.items() if key != "hidden_irreps"}
        model = FAMILIES[spec.model](
            **config,
            **chosen,
            pair_repulsion=args.pair_repulsion,
            distance_transform=args.distance_transform,
            correlation=args.correlation,
            gate=modules.gate_dict[args.gate],
            interaction_cls_first=modules.interaction_classes[args.interaction_first],
            MLP_irreps=Irreps(args.MLP_irreps),
            atomic_inter_scale=args.std,
            atomic_inter_shift=[0.0] * len(heads) if args.zero_shift else args.mean,
            radial_MLP=ast.literal_eval(args.radial_MLP),
            radial_type=args.radial_type,
            heads=heads,
            embedding_specs=args.embedding_specs,
            use_embedding_readout=args.use_embedding_readout,
            use_last_readout_only=args.use_last_readout_only,
            use_agnostic_product=args.use_agnostic_product,
        )
        layers = ", ".join(str(product.linear.irreps_out) for product in model.products)
        logging.info(f"{spec.model}: features after each layer: {layers}")
        return model

    return build


def configure_with_families(stock: Callable) -> Callable:
    """Wrap ``configure_model``: fine-tuning starts from a model of the same architecture."""

    @functools.wraps(stock)
    def configure(
        args: argparse.Namespace,
        train_loader: Any,
        atomic_energies: Any,
        model_foundation: torch.nn.Module | None = None,
        *rest: Any,
        **more: Any,
    ) -> tuple:
        ours = args.model in FAMILIES
        if model_foundation is not None and not ours and ModelSpec.of(model_foundation):
            name = ModelSpec.of(model_foundation).model
            raise EqPluginError(
                f"{args.foundation_model} is a {name}, which --model {args.model} cannot "
                f"fine-tune: give --model {name} with the same feature_dim, max_L and hops."
            )
        foundation = None if ours else model_foundation
        model, outputs = stock(args, train_loader, atomic_energies, foundation, *rest, **more)
        if ours and model_foundation is not None:
            copy_foundation(model_foundation, model, args.foundation_model)
        return model, outputs

    return configure


# These describe the new data, not what the foundation has learned.
_OF_THE_DATA = ("atomic_energies_fn.", "scale_shift.")


def copy_foundation(source: torch.nn.Module, target: torch.nn.Module, name: str) -> None:
    """Start a model from the weights of another of the same architecture and elements.

    Args:
        source: the foundation model.
        target: the new model, changed in place; it keeps its own E0s, scale and shift.
        name: of the foundation, for the message.

    Raises:
        EqPluginError: when they differ in irreps, layers, elements or heads.
    """
    elements = [[int(z) for z in model.atomic_numbers] for model in (source, target)]
    if elements[0] != elements[1]:
        raise EqPluginError(
            f"{name} knows the elements {elements[0]}, the data have {elements[1]}: keep all of "
            f"the foundation's with --foundation_model_elements True, or train from scratch."
        )
    old, new = source.state_dict(), target.state_dict()
    kept = [key for key in new if not key.startswith(_OF_THE_DATA)]
    differing = [key for key in kept if key not in old or old[key].shape != new[key].shape]
    if differing or {key for key in old if not key.startswith(_OF_THE_DATA)} != set(kept):
        raise EqPluginError(
            f"{name} has another architecture than the model asked for (first difference: "
            f"{differing[0] if differing else 'number of blocks'}): fine-tune with its own "
            f"feature_dim, max_L, hops and layer options, or train from scratch."
        )
    target.load_state_dict({**new, **{key: old[key].to(new[key].dtype) for key in kept}})
    for old_block, new_block in zip(source.interactions, target.interactions, strict=True):
        new_block.avg_num_neighbors = old_block.avg_num_neighbors
