"""Symmetric powers of a node's features, coupled: what MACE calls its symmetric contraction.

MACE's product basis raises the features A of a node, (channels, n), to the powers 1 .. correlation
and couples them with generalised Clebsch-Gordan tensors U, channel by channel (Batatia et al.,
NeurIPS 2022, eq. 10 and 11)::

    out[w] = sum_nu sum_{i1 .. i_nu} sum_k U_nu[w, i1 .. i_nu, k] W_nu[k] A[i1] ... A[i_nu]

U does not care for the order of its factors, and most of its n^nu entries are zero. So the distinct
monomials A[i1] ... A[i_nu] with i1 <= ... <= i_nu that occur are formed once, 816 of degree three
for n = 16 in place of 4096, and one GEMM with a constant matrix couples them for all channels::

    basis[w, k] = sum_monomials C[(w, k), monomial] monomial        out[w] = sum_k W[k] basis[w, k]

Derivatives of any order are of the same kind. See docs/products.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def symmetric_monomials(coupling: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct monomials of a coupling tensor, and their coefficients.

    Args:
        coupling: (dim_out, n, ..., n, num_paths) with `degree` factors of size n.

    Returns:
        factors: (num_monomials, degree) int64, ascending in each row; without those whose
            coefficients all vanish.
        matrix: (dim_out * num_paths, num_monomials) float64.
    """
    dim_out, *sizes, num_paths = coupling.shape
    degree, n = len(sizes), sizes[0]
    grid = torch.cartesian_prod(*[torch.arange(n)] * degree).view(-1, degree)
    factors, place = grid.sort(dim=1).values.unique(dim=0, return_inverse=True)
    entries = coupling.detach().to("cpu", torch.float64).reshape(dim_out, -1, num_paths)
    summed = entries.new_zeros(dim_out, len(factors), num_paths).index_add(1, place, entries)
    matrix = summed.transpose(1, 2).reshape(dim_out * num_paths, -1)
    occurs = (matrix != 0).any(dim=0)
    return factors[occurs], matrix[:, occurs].contiguous()


class SymmetricProduct(torch.nn.Module):
    """Coupled symmetric powers of features, channel by channel, for one irrep of the output.

    Args:
        couplings: for the degrees 1, 2, ... the tensor U, (dim_out, n, ..., n, num_paths).

    The monomials and matrices are buffers outside the state dict; the matrices stay float64 and are
    cast to the features' dtype when they are used.
    """

    def __init__(self, couplings: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.dim_out = couplings[0].shape[0]
        self.degrees = len(couplings)
        wanted = [symmetric_monomials(coupling) for coupling in couplings]
        self.num_monomials = [len(factors) for factors, _ in wanted]
        # every monomial is a shorter one times a feature: the shorter ones have to be there, too
        longer: torch.Tensor | None = None
        for degree in range(self.degrees, 0, -1):
            factors, matrix = wanted[degree - 1]
            formed = factors
            if longer is not None:
                formed = torch.cat([factors, longer[:, :-1]]).unique(dim=0)
                shorter = _places(longer[:, :-1], formed)
                self.register_buffer(f"shorter_{degree + 1}", shorter, persistent=False)
            widened = matrix.new_zeros(len(matrix), len(formed))
            widened[:, _places(factors, formed)] = matrix
            self.register_buffer(f"matrix_{degree}", widened, persistent=False)
            self.register_buffer(f"last_{degree}", formed[:, -1].clone(), persistent=False)
            longer = formed

    def forward(self, x: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """Coupled powers of every node.

        Args:
            x: (num_nodes, channels, n).
            weights: for the degrees 1, 2, ..., (num_nodes, num_paths, channels).

        Returns:
            (num_nodes, channels, dim_out).
        """
        nodes, channels, _ = x.shape
        # one row per component: gathering whole rows is a copy, their gradient a plain sum
        rows = x.permute(2, 0, 1).reshape(x.shape[2], -1)
        out = x.new_zeros(self.dim_out, nodes, channels)
        monomials = rows
        for degree in range(1, self.degrees + 1):
            last = rows.index_select(0, getattr(self, f"last_{degree}"))
            if degree == 1:
                monomials = last
            else:
                monomials = monomials.index_select(0, getattr(self, f"shorter_{degree}")) * last
            matrix = getattr(self, f"matrix_{degree}").to(x.dtype)
            paths = len(matrix) // self.dim_out
            basis = (matrix @ monomials).view(self.dim_out, paths, nodes, channels)
            out = out + (basis * weights[degree - 1].transpose(0, 1)).sum(dim=1)
        return out.permute(1, 2, 0)

    def extra_repr(self) -> str:
        """How many monomials of each degree."""
        return f"monomials: {', '.join(map(str, self.num_monomials))}"


def _places(rows: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Index of each row in `among`, which contains it."""
    index = {tuple(row): number for number, row in enumerate(among.tolist())}
    return torch.tensor([index[tuple(row)] for row in rows.tolist()], dtype=torch.int64)
