"""The factor of each path of an e3nn uvu product, its sign found by evaluating it.

Clebsch-Gordan coefficients are defined up to a sign per path, and e3nn changed some of them: a
model from a package or a MACE file may have other ones than the installed e3nn.
"""

from __future__ import annotations

import torch
from e3nn.o3._irreps import Irreps
from e3nn.o3._wigner import wigner_3j


def irreps_of(tp: torch.nn.Module) -> tuple[Irreps, Irreps, Irreps]:
    """Irreps of both inputs and of the output, of the class of the installed e3nn."""
    return tuple(Irreps(str(i)) for i in (tp.irreps_in1, tp.irreps_in2, tp.irreps_out))


def constants_of(tp: torch.nn.Module) -> torch.Tensor:
    """Any tensor of the dtype and device that a product keeps its coefficients in."""
    return next((b for b in tp.buffers() if b.is_floating_point()), torch.empty(0))


def path_factors(tp: torch.nn.Module) -> list[float]:
    """Factor of each path of `tp` against e3nn's present wigner_3j: its weight with a sign.

    Raises:
        ValueError: the coefficients differ by more than a sign.
    """
    widths = [i.path_shape[0] for i in tp.instructions]
    if not widths:
        return []
    like = constants_of(tp)
    options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}
    in1, in2, out = irreps_of(tp)
    x, y = torch.randn(1, in1.dim, **options), torch.randn(1, in2.dim, **options)
    # row n has the weights of path n only, all one
    w = torch.block_diag(*(torch.ones(1, width, dtype=torch.float64) for width in widths))
    rows = len(widths)
    with torch.no_grad():
        found = tp(x.expand(rows, -1).to(like), y.expand(rows, -1).to(like), w.to(like))
    found = found.to("cpu", torch.float64)
    tolerance = 1e-3 if like.dtype != torch.float64 else 1e-10
    factors = []
    for n, i in enumerate(tp.instructions):
        mul, ir = in1[i.i_in1]
        degrees = (ir.l, in2[i.i_in2].ir.l, out[i.i_out].ir.l)
        weight = float(i.path_weight)
        cg = weight * wigner_3j(*degrees, dtype=torch.float64)
        x_block = x[0, in1.slices()[i.i_in1]].reshape(mul, ir.dim)
        y_block = y[0, in2.slices()[i.i_in2]]
        expected = torch.einsum("ui,j,ijk->uk", x_block, y_block, cg).flatten()
        value = found[n, out.slices()[i.i_out]]
        sign = 1 if torch.dot(expected, value) >= 0 else -1
        if (value - sign * expected).abs().max() > tolerance * (1 + expected.abs().max()):
            raise ValueError("its coefficients are not e3nn's, by more than the sign of a path.")
        factors.append(sign * weight)
    return factors
