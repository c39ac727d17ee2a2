"""Invariant contractions: steerable features in, scalars (0e) out.

A k-hop invariant model resets its features to invariants after every h convolutions (Wang et
al., ICLR 2024, section on k-hop invariant GNNs). What the reset keeps depends on the contraction:

* ``drop`` keeps the 0e features alone. It needs no module: the last convolution before the reset
  is simply built with scalar outputs.
* ``power`` adds, per irrep, the inner products of the channel vectors (their Gram matrix).
* ``bispectrum`` adds triple products that couple different irreps, which fixes their relative
  orientation.

With C >= d = 2l + 1 channels the Gram matrix of one degree has rank d, so C x d of its entries
determine it. Instead of all C (C + 1) / 2 entries we take the products of every channel with d
learned mixtures of the channels ("pivots"): the same C d - d (d - 1) / 2 independent invariants
from C d numbers.

Products of features grow with their square or cube, and a model resets several times: a feature
of 6 becomes one of 45, of 3500 and of 1e6 after three bispectra, and its gradient overflows
float32. So all factors of a product but one are divided by sqrt((1 + m) / 2), m the mean square of
the node's steerable components: nothing changes at unit size, and large features grow as in any
other layer. m is itself a function of the Gram matrices, so as much is kept. All maps are smooth,
have no bias, and are zero for zero features.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from e3nn.math._normalize_activation import normalize2mom
from e3nn.o3._irreps import Irreps
from e3nn.o3._wigner import wigner_3j

__all__ = ["InvariantContraction"]


def _triples(irreps: Irreps) -> list[tuple[int, int, int]]:
    """Index triples (i <= j <= k) of steerable blocks that couple to 0e, lowest degree first."""
    steerable = [i for i, (_, ir) in enumerate(irreps) if ir != (0, 1)]
    steerable.sort(key=lambda i: irreps[i].ir.l)
    return [
        (i, j, k)
        for i, j, k in combinations_with_replacement(steerable, 3)
        if irreps[k].ir in irreps[i].ir * irreps[j].ir
    ]


class InvariantContraction(torch.nn.Module):
    """Contract steerable node features to scalars: silu(W invariants(x)).

    Args:
        irreps_in: features to contract, (num_nodes, D) in e3nn's mul_ir layout.
        out_features: number of scalars returned. Parameters and time grow linearly with it.
        contraction: ``"power"`` or ``"bispectrum"``. At D = 512, L = 3 the bispectrum doubles the
            number of invariants; beside the convolutions either is cheap (it acts on nodes).
        bilinear_channels: channels of the first two factors of the triple products; 4 are enough
            for D - 3 independent invariants at any D with natural parity.

    The coupling coefficients take the default dtype of the moment: build under float64 for float64
    work, rather than converting a float32 module.

    Raises:
        ValueError: for an unknown contraction or fewer than one output.

    Source: power and bispectrum invariants of point configurations; see docs/khop.md.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        out_features: int,
        contraction: str = "bispectrum",
        bilinear_channels: int = 4,
    ) -> None:
        super().__init__()
        if contraction not in ("power", "bispectrum"):
            raise ValueError(f"contraction={contraction!r}: use 'power' or 'bispectrum'.")
        if out_features < 1:
            raise ValueError(f"out_features={out_features}: at least one scalar is needed.")
        self.irreps_in = Irreps(irreps_in).simplify()
        self.irreps_out = Irreps([(out_features, (0, 1))])
        self.contraction = contraction
        self._muls = [mul for mul, _ in self.irreps_in]
        self._dims = [ir.dim for _, ir in self.irreps_in]
        self._is_scalar = [ir == (0, 1) for _, ir in self.irreps_in]
        self._steerable_dim = sum(mul * ir.dim for mul, ir in self.irreps_in if ir != (0, 1))
        self._triples = _triples(self.irreps_in) if contraction == "bispectrum" else []

        self.pivots = torch.nn.ParameterDict()
        for i, (mul, ir) in enumerate(self.irreps_in):
            if not self._is_scalar[i]:
                self.pivots[str(i)] = self._mixing(mul, min(mul, ir.dim))
        self.left = torch.nn.ParameterDict()
        self.right = torch.nn.ParameterDict()
        for factor, mixing in enumerate((self.left, self.right)):
            for i in sorted({triple[factor] for triple in self._triples}):
                mixing[str(i)] = self._mixing(self._muls[i], bilinear_channels)
        for n, (i, j, k) in enumerate(self._triples):
            degrees = (self.irreps_in[m].ir.l for m in (i, j, k))
            self.register_buffer(f"_cg_{n}", wigner_3j(*degrees), persistent=False)

        self.num_invariants = sum(
            mul if ir == (0, 1) else mul * min(mul, ir.dim) for mul, ir in self.irreps_in
        ) + sum(bilinear_channels * self._muls[k] for *_, k in self._triples)
        self.weight = self._mixing(self.num_invariants, out_features)
        self.act = normalize2mom(torch.nn.functional.silu)

    @staticmethod
    def _mixing(fan_in: int, fan_out: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.randn(fan_in, fan_out))

    def _blocks(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Split (num_nodes, D) into one (num_nodes, mul, 2l + 1) tensor per irrep."""
        shapes = list(zip(self._muls, self._dims, strict=True))
        parts = x.split([mul * dim for mul, dim in shapes], dim=-1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    @staticmethod
    def _mix(block: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Mix channels: (num_nodes, mul, d) x (mul, n) -> (num_nodes, n, d), unit variance kept."""
        return torch.einsum("zud,ua->zad", block, weight) / block.shape[1] ** 0.5

    def _damping(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """1 / sqrt((1 + mean square of a node's steerable components) / 2), (num_nodes, 1, 1)."""
        squares = [
            block.square().sum((1, 2), keepdim=True)
            for block, scalar in zip(blocks, self._is_scalar, strict=True)
            if not scalar
        ]
        return torch.rsqrt(0.5 + sum(squares) / (2 * self._steerable_dim))

    def invariants(self, x: torch.Tensor) -> torch.Tensor:
        """Invariants (num_nodes, num_invariants) of node features (num_nodes, D)."""
        blocks = self._blocks(x)
        damping = self._damping(blocks) if self._steerable_dim else x.new_ones(1)
        out = []
        for i, block in enumerate(blocks):
            if self._is_scalar[i]:
                out.append(block.squeeze(-1))
            else:
                pivots = damping * self._mix(block, self.pivots[str(i)])
                gram = torch.einsum("zud,zad->zua", block, pivots) / self._dims[i] ** 0.5
                out.append(gram.flatten(1))
        for n, (i, j, k) in enumerate(self._triples):
            left = damping * self._mix(blocks[i], self.left[str(i)])
            right = damping * self._mix(blocks[j], self.right[str(j)])
            # w3j has unit norm: without further factors z.x has unit variance per component sum
            z = torch.einsum("zai,zaj,ijk->zak", left, right, getattr(self, f"_cg_{n}"))
            out.append(torch.einsum("zak,zuk->zau", z, blocks[k]).flatten(1))
        return torch.cat(out, dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Contract node features (num_nodes, D) to scalars (num_nodes, out_features)."""
        return self.act(self.invariants(x) @ self.weight / self.num_invariants**0.5)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.contraction}: {self.irreps_in} -> {self.irreps_out})"
