"""An e3nn uvu tensor product as the two tensors that the C++ operators read.

``plan`` (int32) lists blocks, paths and the places of the Clebsch-Gordan coefficients,
``coefficients`` (float64) their values times e3nn's path weights; the layout is that of ``Plan`` in
``eqplugin/csrc/uvu_kernels.h``. Paths that couple the same degrees of the same harmonic (features
of both parities) share one set of coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from e3nn.o3._irreps import Irreps
from e3nn.o3._wigner import wigner_3j

__all__ = ["MAX_DEGREE", "NARROW_SCALARS", "ProductPlan", "gains", "make_plan", "why_not"]

MAX_DEGREE: Final = 6
NARROW_SCALARS: Final = 64  # products of scalars with fewer channels are no gain
_ZERO: Final = 1e-14  # entries of wigner_3j that vanish come out below this


@dataclass(frozen=True)
class ProductPlan:
    """What :class:`~eqplugin.nn.compiled_product.CompiledProduct` keeps as buffers.

    Attributes:
        plan: (size,) int32.
        coefficients: (num_entries,) float64.
        dim_out: width of the product.
    """

    plan: torch.Tensor
    coefficients: torch.Tensor
    dim_out: int


def why_not(tp: torch.nn.Module) -> str | None:
    """Return why a tensor product is not of the supported kind, as a clause; None if it is.

    Supported are e3nn ``TensorProduct`` with external weights per edge, paths "uvu" that all carry
    weights, one copy of each harmonic, and degrees up to 6.
    """
    if tp.internal_weights or tp.shared_weights:
        return "its weights are not given per edge"
    if any(i.connection_mode != "uvu" or not i.has_weight for i in tp.instructions):
        return 'it has paths other than "uvu" with weights'
    if any(mul != 1 for mul, _ in tp.irreps_in2):
        return "it has several copies of a harmonic"
    used = (tp.irreps_in1, tp.irreps_in2, tp.irreps_out)
    highest = max((ir.l for irreps in used for _, ir in irreps), default=0)
    if highest > MAX_DEGREE:
        return f"it has degree {highest}, and {MAX_DEGREE} is the highest"
    return None


def gains(tp: torch.nn.Module) -> bool:
    """Whether the operator pays. Measured, see docs/products.md.

    Not for scalars times scalars with fewer than 64 channels: one product of a few numbers per
    edge, to which grouping the edges and packing the channels add more than they save.
    """
    if any(ir.l > 0 for _, ir in (*tp.irreps_in1, *tp.irreps_out)):
        return True
    return max((mul for mul, _ in tp.irreps_in1), default=0) >= NARROW_SCALARS


def _offsets(sizes: list[int]) -> list[int]:
    return [sum(sizes[:n]) for n in range(len(sizes))]


def make_plan(tp: torch.nn.Module) -> ProductPlan:
    """Plan of a supported product; see :func:`why_not`.

    The signs are those of `tp` itself, which may come from another version of e3nn than the one
    that is installed.

    Raises:
        ValueError: the product is not supported, or not e3nn's by more than signs.
    """
    reason = why_not(tp)
    if reason is not None:
        raise ValueError(f"this tensor product cannot be compiled: {reason}.")
    in1, in2, out = _irreps(tp)
    x_offsets, y_offsets, out_offsets = ([s.start for s in i.slices()] for i in (in1, in2, out))
    w_offsets = _offsets([i.path_shape[0] for i in tp.instructions])
    signs = _signs(tp)

    groups, paths, entries = [], [], {j: [] for j in range(in2.dim)}
    kernels: dict[tuple, int] = {}
    kernel_size = 0
    for block, (mul, ir) in enumerate(in1):
        members = [n for n, i in enumerate(tp.instructions) if i.i_in1 == block and mul > 0]
        if not members:
            continue
        groups.append((ir.dim, mul, x_offsets[block], len(paths), len(members)))
        for n in members:
            i = tp.instructions[n]
            degrees = (ir.l, in2[i.i_in2].ir.l, out[i.i_out].ir.l)
            factor = signs[n] * float(i.path_weight)
            key = (*degrees, i.i_in2, factor)
            if key not in kernels:
                kernels[key] = kernel_size
                cg = factor * wigner_3j(*degrees, dtype=torch.float64)
                for a, b, c in (cg.abs() > _ZERO).nonzero().tolist():
                    place = kernel_size + c * ir.dim + a
                    entries[y_offsets[i.i_in2] + b].append((place, cg[a, b, c].item()))
                kernel_size += ir.dim * out[i.i_out].ir.dim
            paths.append((out[i.i_out].ir.dim, out_offsets[i.i_out], w_offsets[n], kernels[key]))

    ordered = [entry for j in entries for entry in sorted(entries[j])]
    first = [*_offsets([len(entries[j]) for j in entries]), len(ordered)]
    header = (len(groups), len(paths), in1.dim, in2.dim, out.dim, tp.weight_numel, kernel_size,
              len(ordered))  # fmt: skip
    flat = [*header, *sum(groups, ()), *sum(paths, ()), *first, *(place for place, _ in ordered)]
    return ProductPlan(
        torch.tensor(flat, dtype=torch.int32),
        torch.tensor([value for _, value in ordered], dtype=torch.float64),
        out.dim,
    )


def _irreps(tp: torch.nn.Module) -> tuple[Irreps, Irreps, Irreps]:
    """By their names: the irreps of a packaged model are of another class."""
    return tuple(Irreps(str(i)) for i in (tp.irreps_in1, tp.irreps_in2, tp.irreps_out))


def _signs(tp: torch.nn.Module) -> list[int]:
    """Sign of each path of `tp` against e3nn's present wigner_3j, from one evaluation per path."""
    widths = [i.path_shape[0] for i in tp.instructions]
    if not widths:
        return []
    like = next((b for b in tp.buffers() if b.is_floating_point()), torch.empty(0))
    options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}
    in1, in2, out = _irreps(tp)
    x, y = torch.randn(1, in1.dim, **options), torch.randn(1, in2.dim, **options)
    # row n has the weights of path n only, all one
    w = torch.block_diag(*(torch.ones(1, width, dtype=torch.float64) for width in widths))
    rows = len(widths)
    cast = {"dtype": like.dtype, "device": like.device}
    with torch.no_grad():
        found = tp(x.expand(rows, -1).to(**cast), y.expand(rows, -1).to(**cast), w.to(**cast))
    found = found.to("cpu", torch.float64)
    tolerance = 1e-3 if like.dtype != torch.float64 else 1e-10
    signs = []
    for n, i in enumerate(tp.instructions):
        mul, ir = in1[i.i_in1]
        degrees = (ir.l, in2[i.i_in2].ir.l, out[i.i_out].ir.l)
        cg = float(i.path_weight) * wigner_3j(*degrees, dtype=torch.float64)
        x_block = x[0, in1.slices()[i.i_in1]].reshape(mul, ir.dim)
        y_block = y[0, in2.slices()[i.i_in2]]
        expected = torch.einsum("ui,j,ijk->uk", x_block, y_block, cg).flatten()
        value = found[n, out.slices()[i.i_out]]
        sign = 1 if torch.dot(expected, value) >= 0 else -1
        if (value - sign * expected).abs().max() > tolerance * (1 + expected.abs().max()):
            raise ValueError("its coefficients are not e3nn's, by more than the sign of a path.")
        signs.append(sign)
    return signs
