"""Faster products inside MACE's blocks, for models on the CPU, and back.

MACE's ``conv_tp`` followed by ``scatter_sum`` is NequIP's tensor product and scatter: the same C++
operator does both (docs/compiled-product.md). The symmetric contractions are formed from distinct
monomials (:mod:`eqplugin.mace.products_contraction`). Nothing is rebuilt: weights, state dict and
the Clebsch-Gordan coefficients of the model stay as they are, and :func:`restore_products` undoes
it exactly. A converted file can be read only where eqplugin is installed and its operators can be
built; exports are made of the plain form. On the command line: ``eqplugin products``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from e3nn import o3

from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file
from eqplugin.mace.model_file import ModelFileError, read_model_file, save_model
from eqplugin.mace.products_contraction import (
    MonomialContraction,
    fasten_contractions,
    restore_contractions,
)
from eqplugin.nn.product.compiled import CompiledProduct, load_operators
from eqplugin.nn.product.plan import why_not


class CompiledConvolution(o3.TensorProduct):
    """MACE's ``conv_tp`` with the gather and the scatter inside; made by :func:`compile_products`.

    Where MACE sees ``conv_fusion`` on a block, it calls ``conv_tp`` with the nodes' features and
    the edge index. On other devices than the CPU the stock product does the work.
    """

    def forward(
        self,
        node_feats: torch.Tensor,
        edge_attrs: torch.Tensor,
        tp_weights: torch.Tensor,
        edge_index: torch.Tensor,
    ) -> torch.Tensor:
        """Messages summed at their receivers, (num_nodes, dim of irreps_out).

        Args:
            node_feats: (num_nodes, dim of irreps_in1).
            edge_attrs: spherical harmonics, (num_edges, dim of irreps_in2).
            tp_weights: radial weights, (num_edges, weight_numel).
            edge_index: senders and receivers, (2, num_edges).
        """
        sender, receiver = edge_index[0], edge_index[1]
        if node_feats.device.type == "cpu":
            return self.compiled(node_feats, edge_attrs, tp_weights, receiver, sender)
        messages = super().forward(node_feats[sender], edge_attrs, tp_weights)
        summed = messages.new_zeros(node_feats.shape[0], messages.shape[1])
        return summed.index_add(0, receiver, messages)


def compile_products(model: torch.nn.Module) -> torch.nn.Module:
    """Convert, in place, every interaction block of a MACE model and its contractions; returns it.

    Energies, forces, stress and gradients stay the same to rounding, the state dict exactly. The
    converted model can be trained.

    Raises:
        EqPluginError: the operators cannot be built here, the model is no MACE model or is
            already converted (to this or to another library), or a product is of another kind.
            The model is then what it was.
    """
    reason = load_operators()
    if reason is not None:
        raise EqPluginError(reason)
    blocks = _blocks(model)
    if any(count_converted(model)):
        raise EqPluginError("The model already has faster products: nothing to convert.")
    compiled = [_compiled(number, block) for number, block in enumerate(blocks)]
    for block, product in zip(blocks, compiled, strict=True):
        block.conv_tp.__class__ = CompiledConvolution
        block.conv_tp.compiled = product
        block.conv_fusion = True
    fasten_contractions(model)
    return model


def _compiled(number: int, block: torch.nn.Module) -> CompiledProduct:
    """The C++ product of an interaction block, which is not changed."""
    if type(block.conv_tp) is not o3.TensorProduct or hasattr(block, "conv_fusion"):
        raise EqPluginError(
            f"Interaction {number} has a {type(block.conv_tp).__name__} in place of e3nn's "
            "TensorProduct: convert the model back to plain e3nn first."
        )
    reason = why_not(block.conv_tp)
    if reason is None:
        try:
            return CompiledProduct(block.conv_tp)
        except ValueError as error:  # coefficients that are not e3nn's
            reason = str(error).rstrip(".")
    raise EqPluginError(f"Interaction {number} cannot be compiled: {reason}.")


def restore_products(model: torch.nn.Module) -> torch.nn.Module:
    """Undo :func:`compile_products`, in place; returns `model`.

    Raises:
        EqPluginError: the model is not a converted one.
    """
    blocks = _blocks(model)
    if not all(isinstance(block.conv_tp, CompiledConvolution) for block in blocks):
        raise EqPluginError("The model has no faster products: nothing to convert back.")
    for block in blocks:
        del block.conv_fusion, block.conv_tp.compiled
        block.conv_tp.__class__ = o3.TensorProduct
    restore_contractions(model)
    return model


@contextmanager
def products_while(wanted: bool, *models: torch.nn.Module) -> Iterator[None]:
    """Faster products in models for the length of a block, where wanted.

    Raises:
        EqPluginError: as in :func:`compile_products`.
    """
    if not wanted:
        yield
        return
    with ExitStack() as stack:
        for model in models:
            compile_products(model)
            stack.callback(restore_products, model)
        yield


def convert_products(path: str | Path, out: str | Path, back: bool = False) -> torch.nn.Module:
    """Convert a ``.model`` file to faster products, or ``back``; ``out`` is replaced only when
    complete. Returns the model.

    Raises:
        EqPluginError: as in :func:`compile_products` and :func:`restore_products`, or for a file
            that cannot be read or written.
    """
    model = read_model_file(path)
    try:
        model = restore_products(model) if back else compile_products(model)
    except EqPluginError as error:
        raise EqPluginError(f"{path} was not converted: {error}") from error
    with whole_file(out, error=ModelFileError) as temporary:
        save_model(model, temporary)
    return model


def count_converted(model: torch.nn.Module) -> tuple[int, int]:
    """How many convolutions and how many symmetric contractions of a model are converted."""
    convolutions = sum(isinstance(m, CompiledConvolution) for m in model.modules())
    return convolutions, sum(isinstance(m, MonomialContraction) for m in model.modules())


def make_plain(model: torch.nn.Module) -> None:
    """MACE's own products, in place, where there are faster ones, which only eqplugin can read."""
    if any(count_converted(model)):
        restore_products(model)


def require_operators(model: torch.nn.Module, path: str | Path) -> None:
    """Refuse, right after reading, a converted model that could not be called here.

    Raises:
        EqPluginError: it has faster products, and the operators cannot be built.
    """
    if not any(isinstance(module, CompiledConvolution) for module in model.modules()):
        return
    reason = load_operators()
    if reason is not None:
        raise EqPluginError(
            f"{path} has faster products, which cannot run here: {reason} "
            f"`eqplugin products {path} OUT.model --back` converts it back."
        )


def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    blocks = list(getattr(model, "interactions", []))
    if not blocks or not all(hasattr(block, "conv_tp") for block in blocks):
        raise EqPluginError(f"A {type(model).__name__} is not a MACE model with interactions.")
    return blocks
