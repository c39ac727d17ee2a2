"""NequIP's tensor product and scatter, factorised: the same function from the same weights, faster.

For a path (l1, l2 -> l3) the product sums over a channel's 2 l1 + 1 numbers x, the harmonics Y of
the edge and the coupling coefficients, once per channel. Only x and the radial weight depend on the
channel, so the rest is a small matrix per edge, made once for all channels::

    K[m3, m1] = c sum_m2 w3j[m1, m2, m3] Y[m2]        one GEMM with a constant matrix
    out[m3, channel] = w[channel] sum_m1 K[m3, m1] x[m1, channel]        one bmm, one product

The features are brought to irrep-major layout (m1 before channel) on the nodes, not on the many
more edges, and back after the sum over edges. Where l1 or l2 is 0 no kernel is needed at all: the
product is a scaled outer product. That makes l_max = 1 with natural parity Cartesian: scalars times
vectors and dot products. See docs/products.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eqplugin.nn.product.paths import Block, plan_blocks, unsupported


class FactorizedTensorProduct(torch.nn.Module):
    """Sum over edges of uvu tensor products, in plain torch, for any degrees and parities.

    Time falls 1.3- to 8-fold against e3nn's product, most where there are many paths; nothing is
    gained where the features are scalars only. It can be differentiated any number of times.

    Args:
        tp: e3nn ``TensorProduct`` of the supported kind, see
            :func:`eqplugin.nn.product.paths.unsupported`. It is read, not kept.

    Raises:
        ValueError: for a product of another kind, or of coefficients that are not e3nn's.

    The coupling coefficients are computed in float64 and kept in the dtype of `tp` as buffers that
    are not part of the state dict.
    """

    def __init__(self, tp: torch.nn.Module) -> None:
        super().__init__()
        reason = unsupported(tp)
        if reason is not None:
            raise ValueError(f"this tensor product cannot be factorised: {reason}.")
        self.blocks, kernels = plan_blocks(tp)
        self.edge_dims = [ir.dim for _, ir in tp.irreps_in2]
        mask = tp.output_mask
        for i, (block, kernel) in enumerate(zip(self.blocks, kernels, strict=True)):
            if kernel is not None:
                self.register_buffer(f"kernel_{i}", kernel.to(mask), persistent=False)
            if block.reordered:
                order = torch.tensor(block.order, device=mask.device)
                self.register_buffer(f"order_{i}", order, persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        edge_attr: torch.Tensor,
        edge_weight: torch.Tensor,
        edge_dst: torch.Tensor,
        edge_src: torch.Tensor,
    ) -> torch.Tensor:
        """Messages ``tp(x[edge_src], edge_attr, edge_weight)`` summed at their destinations.

        Args:
            x: node features, (num_nodes, D).
            edge_attr: spherical harmonics, (num_edges, dim_y).
            edge_weight: radial weights, (num_edges, weight_numel).
            edge_dst: receiving node of each edge, (num_edges,), in any order.
            edge_src: sending node of each edge, (num_edges,).

        Returns:
            (num_nodes, dim of irreps_out); zero for nodes without edges.
        """
        features = x.split([block.mul * block.dim for block in self.blocks], dim=-1)
        weights = edge_weight.split([block.mul * block.num_paths for block in self.blocks], dim=-1)
        harmonics = edge_attr.split(self.edge_dims, dim=-1)
        summed: list[tuple[int, torch.Tensor]] = []
        for i, block in enumerate(self.blocks):
            if block.num_paths == 0:
                continue
            sent = self._send(features[i], block.mul, block.dim, edge_src)
            weight = weights[i].view(-1, block.num_paths, block.mul)
            if block.reordered:
                weight = weight.index_select(1, getattr(self, f"order_{i}"))
            if block.dim == 1:
                # the two small factors first: only one product is of the size of the message
                weight = weight * sent
            runs = block.direct + block.coupled
            per_run = weight.split([run.num_paths for run in runs], dim=1)
            messages = _direct(block, sent, per_run, harmonics)
            if block.coupled:
                kernel = edge_attr @ getattr(self, f"kernel_{i}")
                rows = torch.bmm(kernel.view(-1, kernel.size(1) // block.dim, block.dim), sent)
                messages += _coupled(block, rows, per_run[len(block.direct) :])
            for run, message in zip(runs, messages, strict=True):
                out = message.new_zeros(x.size(0), run.num_paths * run.dim * block.mul)
                out = out.index_add(0, edge_dst, message.flatten(1))
                out = out.view(-1, run.num_paths, run.dim, block.mul)
                summed.append((run.position, out.transpose(2, 3).flatten(1)))
        summed.sort(key=lambda pair: pair[0])
        return torch.cat([out for _, out in summed], dim=-1)

    @staticmethod
    def _send(x: torch.Tensor, mul: int, dim: int, edge_src: torch.Tensor) -> torch.Tensor:
        """Features of the sending nodes in irrep-major layout, (num_edges, dim, mul)."""
        if dim > 1:
            x = x.reshape(-1, mul, dim).transpose(1, 2).flatten(1)
        return x.index_select(0, edge_src).view(-1, dim, mul)

    def extra_repr(self) -> str:
        """Number of paths, and how many of them need a kernel."""
        paths = sum(block.num_paths for block in self.blocks)
        coupled = sum(run.num_paths for block in self.blocks for run in block.coupled)
        return f"{paths} paths, {coupled} with a kernel"


def _direct(
    block: Block,
    sent: torch.Tensor,
    weights: Sequence[torch.Tensor],
    harmonics: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """Messages (num_edges, 2 l3 + 1, mul) of the paths with l1 = 0 or l2 = 0."""
    messages = []
    for run, weight in zip(block.direct, weights, strict=False):
        harmonic = harmonics[run.edge_irrep]
        if abs(run.scale - 1) > 1e-12:  # with NequIP's normalisation it is 1
            harmonic = harmonic * run.scale
        weighted = weight * harmonic.unsqueeze(2)
        # scalars are in the weight already
        messages.append(weighted if block.dim == 1 else sent * weighted)
    return messages


def _coupled(
    block: Block, rows: torch.Tensor, weights: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Messages (num_edges, paths, 2 l3 + 1, mul): rows of kernel times features, weighted."""
    # split, not slices: the backward of a slice fills the whole tensor with zeros
    parts = rows.split([run.num_paths * run.dim for run in block.coupled], dim=1)
    return [
        part.view(-1, run.num_paths, run.dim, block.mul) * weight.unsqueeze(2)
        for run, part, weight in zip(block.coupled, parts, weights, strict=True)
    ]
