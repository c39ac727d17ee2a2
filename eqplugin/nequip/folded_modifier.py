"""``enable_FoldedSelfConnection``: the type embedding folded into NequIP's self-connections."""

from __future__ import annotations

from typing import Any

import torch
from nequip.data import AtomicDataDict
from nequip.nn.embedding.node import NodeTypeEmbed
from nequip.nn.interaction_block import InteractionBlock
from nequip.nn.model_modifier_utils import model_modifier
from nequip.scripts._workflow_utils import get_workflow_state

from eqplugin.errors import EqPluginError
from eqplugin.nequip._stock import find_stock
from eqplugin.nequip._workflow import one_sentence_errors
from eqplugin.nn.folded_selfconnection import SMALLEST, FoldedSelfConnection, foldable, gains

_ATTRS = AtomicDataDict.NODE_ATTRS_KEY
_KEPT = "_eqplugin_node_attrs"


def give_types(block: torch.nn.Module, args: tuple[AtomicDataDict.Type, ...]) -> None:
    """Before a block runs: one-hot types in place of the node attributes.

    Only the self-connection reads them. They keep their width, so that irreps stay valid; there
    are fewer types than columns wherever folding pays.
    """
    data = args[0]
    attrs, types = data[_ATTRS], data[AtomicDataDict.ATOM_TYPE_KEY]
    columns = torch.arange(attrs.size(1), device=types.device)
    data[_KEPT] = attrs
    data[_ATTRS] = (types.view(-1, 1) == columns).to(attrs.dtype)


def give_back_attributes(
    block: torch.nn.Module, args: tuple[AtomicDataDict.Type, ...], out: AtomicDataDict.Type
) -> None:
    """After a block ran: the node attributes again."""
    out[_ATTRS] = out.pop(_KEPT)


def fold_self_connections(
    model: torch.nn.Module, permanent: bool = False, smallest: int = SMALLEST
) -> torch.nn.Module:
    """Fold, in place, the type embedding into every self-connection that gains; returns `model`.

    Args:
        model: any NequIP model.
        permanent: keep only the folded matrices, for deployment: a little faster for small
            systems, but nothing of the self-connection can be trained any more.
        smallest: self-connections of no more than so many weights stay as they are.

    Raises:
        EqPluginError: when node attributes depend on more than the type, or when a permanent fold
            is asked for in training.
    """
    if permanent and get_workflow_state() == "train":
        raise EqPluginError(
            "enable_PermanentlyFoldedSelfConnection drops weights that training needs: "
            "train with enable_FoldedSelfConnection, and fold for good in nequip-compile."
        )
    blocks = [block for block in find_stock(model, InteractionBlock) if block.sc is not None]
    embedding = _type_embedding(model, blocks)
    for block in blocks:
        if not isinstance(block.sc, FoldedSelfConnection):
            if not gains(block.sc, embedding.num_embeddings, smallest):
                continue
            block.sc = FoldedSelfConnection(block.sc, embedding)
            block.register_forward_pre_hook(give_types)
            block.register_forward_hook(give_back_attributes)
        if permanent:
            block.sc.make_permanent()
    return model


def _type_embedding(model: torch.nn.Module, blocks: list[Any]) -> torch.nn.Embedding:
    """The one embedding that makes the node attributes of all blocks."""
    name = "enable_FoldedSelfConnection"
    embeddings = list(find_stock(model, NodeTypeEmbed))
    if len(embeddings) != 1:
        raise EqPluginError(
            f"{name} needs a model with one type embedding, but this one has {len(embeddings)}: "
            "remove the modifier."
        )
    if embeddings[0].do_categorical_graph_field_embed:
        fields = ", ".join(embeddings[0].categorical_graph_field_embed_modules)
        raise EqPluginError(
            f"{name} needs node attributes that depend on the atom type alone, but those of this "
            f"model also embed {fields}: remove the modifier or categorical_graph_field_embed."
        )
    embedding = embeddings[0].embed_module
    for block in blocks:
        irreps = block.irreps_in[_ATTRS]
        known = isinstance(block.sc, FoldedSelfConnection) or foldable(block.sc)
        if not known or irreps.dim != embedding.embedding_dim:
            raise EqPluginError(
                f"{name} needs node attributes that depend on the atom type alone, but this model "
                f"appends to its {embedding.embedding_dim} embedded numbers ({irreps}): "
                "remove the modifier."
            )
    return embedding


@model_modifier(persistent=False, private=False, supported_compile_modes=["aotinductor"])  # type: ignore[misc]
@classmethod
def enable_FoldedSelfConnection(
    cls: type, model: torch.nn.Module, smallest: int = SMALLEST
) -> torch.nn.Module:
    """Type embedding folded into the self-connections: exact, faster where they are wide.

    Same weights, same numbers to rounding, same state dict. Node attributes have to depend on the
    atom type alone; self-connections that would gain nothing (many types, or no more than
    `smallest` weights) stay as they are.
    """
    with one_sentence_errors():
        return fold_self_connections(model, smallest=smallest)


@model_modifier(persistent=True, private=False, supported_compile_modes=["aotinductor"])  # type: ignore[misc]
@classmethod
def enable_PermanentlyFoldedSelfConnection(cls: type, model: torch.nn.Module) -> torch.nn.Module:
    """For deployment: as enable_FoldedSelfConnection, with the folded matrices as the weights.

    For nequip-compile and nequip-package modify, not for training: the self-connections keep no
    weights that could be trained, and the state dict changes.
    """
    with one_sentence_errors():
        return fold_self_connections(model, permanent=True, smallest=0)
