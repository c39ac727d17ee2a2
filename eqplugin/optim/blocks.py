"""Which matrices and tensors the weights of a model are made of.

e3nn stores the weights of `Linear` and of tensor products as one flat vector, an instruction after
the other. A matrix method (SOAP, Muon) that sees the vector treats it as one; here it learns the
blocks. A block is ``(offset, shape, ranks)``: where it begins in the flattened parameter, its
shape, and how many directions of each mode gradients can have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import torch

from eqplugin.errors import EqPluginError

Block = tuple[int, tuple[int, ...], tuple[int, ...]]
# packages whose vectors without instructions are vectors: biases, radial bases, scales
_KNOWN = ("torch", "e3nn", "nequip", "mace", "eqplugin")


def parameter_blocks(model: torch.nn.Module) -> dict[str, list[Block]]:
    """Blocks of every parameter by its name; together they tile it exactly once.

    `Linear`: a matrix (u, w) per instruction. Tensor products: a tensor per instruction, (u, v, w)
    where fully connected. MACE's symmetric contraction: a matrix (path, channel) per element.
    Everything else: its own shape. A flat weight of an unknown package is one vector, and a single
    notice names the modules.

    Raises:
        EqPluginError: where a module's instructions do not cover its weight.
    """
    modules = dict(model.named_modules())
    ranks = _type_ranks(model)
    unknown: dict[str, None] = {}  # an ordered set
    found = {}
    for name, parameter in model.named_parameters():
        owner = _owner(modules, name)
        shapes = _shapes(owner, name.rpartition(".")[2], parameter)
        if shapes is None:
            shapes = [tuple(parameter.shape)]
            package = type(owner).__module__.partition(".")[0]
            if parameter.ndim == 1 and package not in _KNOWN:
                unknown[f"{type(owner).__module__}.{type(owner).__qualname__}"] = None
        found[name] = list(_tiled(name, parameter, shapes, ranks.get(id(owner))))
    if unknown:
        logging.getLogger(__name__).warning(
            f"The flat weights of {', '.join(unknown)} are optimised as vectors: "
            "which matrices they hold is not known."
        )
    return found


def block_groups(model: torch.nn.Module, **options: Any) -> list[dict[str, Any]]:
    """One parameter group with its blocks; NequIP's configs name it as ``param_groups``.

    Args:
        model: any NequIP or MACE model.
        **options: of the group, such as ``lr``.

    Raises:
        EqPluginError: as :func:`parameter_blocks`.
    """
    groups = [{"params": list(model.parameters()), **options}]
    return with_blocks(groups, model)


def with_blocks(groups: Iterable[dict[str, Any]], model: torch.nn.Module) -> list[dict[str, Any]]:
    """Copies of parameter groups of `model` with ``blocks``, a list per parameter, added."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    blocks = parameter_blocks(model)
    complete = []
    for group in groups:
        parameters = list(group["params"])
        listed = [blocks[names[id(parameter)]] for parameter in parameters]
        complete.append({**group, "params": parameters, "blocks": listed})
    return complete


def check_cover(parameter: torch.Tensor, blocks: Iterable[Block], name: str) -> None:
    """Refuse blocks that leave out or repeat an element of a parameter.

    Raises:
        EqPluginError: naming the parameter.
    """
    end = 0
    for offset, shape, _ in blocks:
        if offset != end:
            break
        end += prod(shape)
    else:
        if end == parameter.numel():
            return
    raise EqPluginError(
        f"The blocks of {name} do not cover its {parameter.numel()} elements exactly once: "
        "give consecutive blocks, or none for a plain vector."
    )


def _owner(modules: dict[str, torch.nn.Module], name: str) -> torch.nn.Module:
    """The module that a parameter belongs to; containers of parameters belong to their parent."""
    path = name.rpartition(".")[0]
    while isinstance(modules[path], torch.nn.ParameterList | torch.nn.ParameterDict):
        path = path.rpartition(".")[0]
    return modules[path]


def _shapes(
    owner: torch.nn.Module, name: str, parameter: torch.nn.Parameter
) -> list[tuple[int, ...]] | None:
    """Shapes of the consecutive blocks; None where the parameter's own shape is all there is."""
    instructions = getattr(owner, "instructions", None)
    if instructions is not None and all(hasattr(i, "path_shape") for i in instructions):
        if name not in ("weight", "bias"):
            return None
        shapes = [
            tuple(i.path_shape)
            for i in instructions
            if getattr(i, "has_weight", True)
            and (getattr(i, "i_in", 0) == -1) is (name == "bias")
            and 0 not in i.path_shape
        ]
        # a Linear over further channels (f_in, f_out) has all blocks for each pair of them
        return shapes * prod(parameter.shape[:-1])
    if parameter.ndim == 3 and hasattr(owner, "U_tensors"):  # of MACE's symmetric contraction
        elements, paths, channels = parameter.shape
        return [(paths, channels)] * elements
    return None


def _tiled(
    name: str,
    parameter: torch.nn.Parameter,
    shapes: list[tuple[int, ...]],
    type_rank: int | None,
) -> Iterator[Block]:
    if sum(map(prod, shapes)) != parameter.numel():
        raise EqPluginError(
            f"The instructions that belong to {name} describe {sum(map(prod, shapes))} weights, "
            f"but it has {parameter.numel()}: its module was changed after it was built."
        )
    offset = 0
    for shape in shapes:
        ranks = shape
        if type_rank is not None and len(shape) == 3:
            ranks = (shape[0], min(shape[1], type_rank), shape[2])
        yield offset, shape, ranks
        offset += prod(shape)


def _type_ranks(model: torch.nn.Module) -> dict[int, int]:
    """Number of types by the id of each self-connection whose second input is a type embedding.

    That input takes no more values than there are types, and the gradient no more directions.
    """
    named = [(type(module).__name__, module) for module in model.modules()]
    embeddings = [module for name, module in named if name == "NodeTypeEmbed"]
    if len(embeddings) != 1 or embeddings[0].do_categorical_graph_field_embed:
        return {}
    table = embeddings[0].embed_module
    connections = [module.sc for name, module in named if name == "InteractionBlock"]
    return {
        id(connection): table.num_embeddings
        for connection in connections
        if getattr(getattr(connection, "irreps_in2", None), "dim", None) == table.embedding_dim
    }
