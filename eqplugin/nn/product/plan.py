"""An e3nn uvu tensor product as the two tensors that the C++ operators read.

``plan`` (int32) lists blocks, paths and the places of the Clebsch-Gordan coefficients,
``coefficients`` (float64) their values times e3nn's path weights; the layout is that of ``Plan`` in
``csrc/uvu_kernels.h``. Paths that couple the same degrees of the same harmonic (features of both
parities) share one set of coefficients.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import torch
from e3nn.o3._wigner import wigner_3j

from eqplugin.nn.product.signs import constants_of, irreps_of, path_factors

MAX_DEGREE: Final = 6
NARROW_SCALARS: Final = 64  # products of scalars with fewer channels are no gain
_ZERO: Final = 1e-14  # entries of wigner_3j that vanish come out below this


def why_not(tp: torch.nn.Module) -> str | None:
    """Return why a tensor product is not of the supported kind, as a clause; None if it is.

    Supported are e3nn ``TensorProduct`` with external weights per edge, paths "uvu" that all carry
    weights, one copy of each harmonic, and degrees up to 6, in float32 or float64.
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
    if any(mul == 0 for irreps in used for mul, _ in irreps):
        return "it has irreps without channels"
    dtype = constants_of(tp).dtype
    if dtype not in (torch.float32, torch.float64):
        return f"it is of {dtype}, not of float32 or float64"
    return None


def gains(tp: torch.nn.Module) -> bool:
    """Whether the operator pays. Measured, see docs/products.md.

    Not for scalars times scalars with fewer than 64 channels: one product of a few numbers per
    edge, to which grouping the edges and packing the channels add more than they save.
    """
    if any(ir.l > 0 for _, ir in (*tp.irreps_in1, *tp.irreps_out)):
        return True
    return max((mul for mul, _ in tp.irreps_in1), default=0) >= NARROW_SCALARS


def _as_kept(w3j: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Coefficients as e3nn keeps them: a model of float32 that runs in float64 has rounded ones.

    Not where a degree is 0: there e3nn multiplies by a Python number.
    """
    return w3j if 1 in w3j.shape else w3j.to(dtype).double()


def make_plan(tp: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Plan (size,) int32 and coefficients (num_entries,) float64 of a supported product.

    The signs are those of `tp` itself, which may come from another version of e3nn than the one
    that is installed.

    Raises:
        ValueError: for one that is not (see :func:`why_not`), or not e3nn's by more than signs.
    """
    reason = why_not(tp)
    if reason is not None:
        raise ValueError(f"this tensor product cannot be compiled: {reason}.")
    in1, in2, out = irreps_of(tp)
    x_offsets, y_offsets, out_offsets = ([s.start for s in i.slices()] for i in (in1, in2, out))
    w_offsets = list(accumulate((i.path_shape[0] for i in tp.instructions), initial=0))
    factors, rounded = path_factors(tp), constants_of(tp).dtype

    groups, paths, entries = [], [], {j: [] for j in range(in2.dim)}
    kernels: dict[tuple, int] = {}
    kernel_size = 0
    for block, (mul, ir) in enumerate(in1):
        members = [n for n, i in enumerate(tp.instructions) if i.i_in1 == block]
        if not members:
            continue
        groups.append((ir.dim, mul, x_offsets[block], len(paths), len(members)))
        for n in members:
            i = tp.instructions[n]
            degrees = (ir.l, in2[i.i_in2].ir.l, out[i.i_out].ir.l)
            key = (*degrees, i.i_in2, factors[n])
            if key not in kernels:
                kernels[key] = kernel_size
                cg = factors[n] * _as_kept(wigner_3j(*degrees, dtype=torch.float64), rounded)
                for a, b, c in (cg.abs() > _ZERO).nonzero().tolist():
                    place = kernel_size + c * ir.dim + a
                    entries[y_offsets[i.i_in2] + b].append((place, cg[a, b, c].item()))
                kernel_size += ir.dim * out[i.i_out].ir.dim
            paths.append((out[i.i_out].ir.dim, out_offsets[i.i_out], w_offsets[n], kernels[key]))

    ordered = [entry for j in entries for entry in sorted(entries[j])]
    first = accumulate(map(len, entries.values()), initial=0)
    header = (len(groups), len(paths), in1.dim, in2.dim, out.dim, tp.weight_numel, kernel_size,
              len(ordered))  # fmt: skip
    flat = [*header, *sum(groups, ()), *sum(paths, ()), *first, *(place for place, _ in ordered)]
    values = [value for _, value in ordered]
    return torch.tensor(flat, dtype=torch.int32), torch.tensor(values, dtype=torch.float64)
