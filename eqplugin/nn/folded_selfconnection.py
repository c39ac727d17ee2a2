"""NequIP's self-connection with the type embedding folded into its weights: exact and cheaper.

The self-connection is a fully connected product of a node's features x with its attributes a,
``sum_uv W[u, v, w] x[u] a[v]``. Where the attributes are the embedding of the node's type alone,
a = table[type], the sum over v can be done once per type instead of once per node::

    W_type[u, w] = sum_v W[u, v, w] table[type, v]        out[w] = sum_u W_type[u, w] x[u]

The parameters stay W and the table, so training is unchanged; for deployment the W_type can be kept
in their place. The types come as one-hot vectors: sizes then depend on no data, as export and
compilation need, and a node pays for the number of types instead of the embedding width.
"""

from __future__ import annotations

import torch
from e3nn.o3._irreps import Irreps


def foldable(sc: torch.nn.Module) -> bool:
    """Whether `sc` is a fully connected product with scalar attributes, as NequIP builds it."""
    return (
        len(sc.irreps_in2) == 1
        and str(sc.irreps_in2[0].ir) == "0e"
        and all(ins.connection_mode == "uvw" and ins.has_weight for ins in sc.instructions)
        and set(sc.state_dict()) == {"weight", "output_mask"}
    )


SMALLEST = 2**15  # weights; below, the calls of the fold cost more than it saves on few atoms


def gains(sc: torch.nn.Module, num_types: int, smallest: int = SMALLEST) -> bool:
    """Whether folding pays: a node then costs `num_types` instead of the embedding's width.

    Folding itself costs both, once per step; with a quarter of the width it has paid at 15 atoms.
    Self-connections of no more than `smallest` weights are too narrow: on 3 atoms models of
    D = 32 took 1 to 7 % longer with it (docs/products.md).
    """
    return 4 * num_types <= sc.irreps_in2.dim and sc.weight_numel > smallest


class FoldedSelfConnection(torch.nn.Module):
    """Self-connection of nodes whose attributes are an embedding of their type.

    Args:
        sc: e3nn ``FullyConnectedTensorProduct`` of features and attributes (see :func:`foldable`).
            Its weight is taken over under the same name, so that the state dict stays as it was.
        embedding: the ``torch.nn.Embedding`` of the types. It stays a part of the model that owns
            it; only a reference is kept here.

    Raises:
        ValueError: for a product of another kind.
    """

    def __init__(self, sc: torch.nn.Module, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        if not foldable(sc):
            raise ValueError(
                "this self-connection cannot be folded: its attributes are not scalars alone."
            )
        irreps_in, irreps_out = Irreps(str(sc.irreps_in1)), Irreps(str(sc.irreps_out))
        self.num_types = embedding.num_embeddings
        self._in = [(mul, ir.dim) for mul, ir in irreps_in]
        self._out = [(mul, ir.dim) for mul, ir in irreps_out]
        self._paths = [(ins.i_in1, ins.i_out) for ins in sc.instructions]
        # e3nn's w3j of (l, 0, l) is the identity over sqrt(2 l + 1)
        self._scales = [
            ins.path_weight / irreps_out[ins.i_out].ir.dim ** 0.5 for ins in sc.instructions
        ]
        self._shapes = [tuple(ins.path_shape) for ins in sc.instructions]
        self.register_buffer("output_mask", sc.output_mask)
        self.weight = sc.weight
        self._embedding = (embedding,)  # in a tuple: not a submodule, its weight is not ours

    @property
    def permanent(self) -> bool:
        """Whether the folded matrices have taken the place of the weight."""
        return self.weight is None

    @torch.no_grad()
    def make_permanent(self) -> None:
        """Fold once, now, and drop the weight: nothing is left to train here.

        Later changes of the embedding have no effect, and the state dict is no longer that of the
        stock module.
        """
        if self.permanent:
            return
        for i, matrix in enumerate(self._fold()):
            self.register_buffer(f"folded_{i}", matrix.clone())
        self.weight = None
        self._embedding = ()

    def _fold(self) -> list[torch.Tensor]:
        """One (features * types, outputs) matrix per path."""
        if self.permanent:
            return [getattr(self, f"folded_{i}") for i in range(len(self._paths))]
        table = self._embedding[0].weight
        parts = self.weight.split([u * v * w for u, v, w in self._shapes])
        # bmm, since matmul would copy the weights and their gradients into another order
        return [
            torch.bmm((table * scale).expand(shape[0], -1, -1), part.view(shape)).flatten(0, 1)
            for part, shape, scale in zip(parts, self._shapes, self._scales, strict=True)
        ]

    def forward(self, x: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Self-connection of every node.

        Args:
            x: node features, (num_nodes, dim of irreps_in).
            types: one-hot types, (num_nodes, num_types); further columns are ignored.

        Returns:
            (num_nodes, dim of irreps_out).
        """
        types = types[:, : self.num_types]
        features = x.split([mul * dim for mul, dim in self._in], dim=-1)
        sums: list[torch.Tensor | None] = [None] * len(self._out)
        for (i, o), matrix in zip(self._paths, self._fold(), strict=True):
            mul, dim = self._in[i]
            channels = features[i].reshape(-1, mul, dim).transpose(1, 2)
            if dim * self.num_types <= 2 * (dim + self.num_types):
                # every node times the matrices of all types, by one GEMM
                by_type = channels.unsqueeze(-1) * types[:, None, None, :]
                product = by_type.reshape(-1, mul * self.num_types) @ matrix
                product = product.view(-1, dim, self._out[o][0])
            else:
                # first the matrix of every node
                matrices = matrix.view(mul, self.num_types, -1).transpose(0, 1).flatten(1)
                product = torch.bmm(channels, (types @ matrices).view(-1, mul, self._out[o][0]))
            product = product.transpose(1, 2).flatten(1)
            sums[o] = product if sums[o] is None else sums[o] + product
        return torch.cat(
            [
                x.new_zeros(x.size(0), mul * dim) if out is None else out
                for out, (mul, dim) in zip(sums, self._out, strict=True)
            ],
            dim=-1,
        )

    def extra_repr(self) -> str:
        """Types, and whether the weights are still there."""
        return f"{self.num_types} types{', permanent' if self.permanent else ''}"
