"""What a uvu tensor product does, path by path: the plan of :mod:`eqplugin.nn.product.factorized`.

A path takes one irrep of the features (degree l1, ``mul`` channels), one of the edge attributes
(l2) and gives one of the output (l3). Paths are collected into *runs*: the same features, the same
way of computing, and neighbours in the output, so that one run is one rectangle of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from e3nn.o3._wigner import wigner_3j

from eqplugin.nn.product.signs import irreps_of, path_factors

NARROW = 64  # fewer scalar outputs than this are no gain


@dataclass
class Run:
    """Paths of one block whose outputs lie side by side and have the same degree."""

    position: int  # index of the first output irrep
    dim: int  # 2 l3 + 1
    paths: list[int]  # indices among those of the block
    edge_irrep: int | None = None  # that a run without kernel multiplies by
    scale: float = 1.0  # constant factor of a run without kernel

    @property
    def num_paths(self) -> int:
        """How many paths the run joins."""
        return len(self.paths)


@dataclass
class Block:
    """All paths of one irrep of the features."""

    mul: int  # channels
    dim: int  # 2 l1 + 1
    num_paths: int = 0  # each with mul radial weights; 0 for features nobody reads
    # runs of single paths that need no kernel, because l1 or l2 is 0, and runs that need one
    direct: list[Run] = field(default_factory=list)
    coupled: list[Run] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # the paths as the runs have them, direct first
    reordered: bool = False  # whether that differs from the order of the radial weights


def unsupported(tp: torch.nn.Module) -> str | None:
    """Why this e3nn ``TensorProduct`` cannot be factorised, as a clause; None where it can."""
    if any(ins.connection_mode != "uvu" or not ins.has_weight for ins in tp.instructions):
        return "it is not a weighted 'uvu' product"
    if any(mul != 1 for mul, _ in tp.irreps_in2):
        return "its edge attributes have several channels"
    outputs = [ins.i_out for ins in tp.instructions]
    if sorted(outputs) != list(range(len(tp.irreps_out))):
        return "its paths do not each have an output of their own"
    if tp.shared_weights or tp.internal_weights:
        return "its weights are not those of the edges"
    if any(mul == 0 for irreps in (tp.irreps_in1, tp.irreps_out) for mul, _ in irreps):
        return "it has irreps without channels"
    return None


def gains(tp: torch.nn.Module) -> bool:
    """Whether factorising pays. Measured, see docs/products.md.

    Not for scalars times scalars, which are one product either way. Nor for the product of a narrow
    last layer, with scalars alone as outputs and fewer than 64 of them: there the number of calls
    decides, not that of the sums. Every other product gains at any number of channels and edges.
    """
    if all(ir.l == 0 for _, ir in (*tp.irreps_in1, *tp.irreps_out)):
        return False
    return any(ir.l > 0 for _, ir in tp.irreps_out) or tp.irreps_out.dim >= NARROW


def plan_blocks(tp: torch.nn.Module) -> tuple[list[Block], list[torch.Tensor | None]]:
    """Plan a supported e3nn ``TensorProduct``, irrep by irrep of its first input.

    Returns:
        the blocks, and for each the constants that turn edge attributes into the kernels of its
        coupled runs: (dim_y, rows * (2 l1 + 1)) in float64, rows being the sum over coupled paths
        of 2 l3 + 1; None where no path is coupled.

    Raises:
        ValueError: its coefficients are not e3nn's, by more than signs.
    """
    in1, in2, out = irreps_of(tp)
    factors = path_factors(tp)
    blocks, kernels = [], []
    for i1, (mul, ir1) in enumerate(in1):
        block = Block(mul, ir1.dim)
        members = [n for n, ins in enumerate(tp.instructions) if ins.i_in1 == i1]
        block.num_paths = len(members)
        rows = []
        # in the order of the output, so that neighbours can join a run
        for path, n in sorted(enumerate(members), key=lambda m: tp.instructions[m[1]].i_out):
            ins, factor = tp.instructions[n], factors[n]
            l2, ir3 = in2[ins.i_in2].ir.l, out[ins.i_out].ir
            if ir1.l == 0 or l2 == 0:
                # w3j is the identity over sqrt(2 l3 + 1)
                scale = factor / ir3.dim**0.5
                block.direct.append(Run(ins.i_out, ir3.dim, [path], ins.i_in2, scale))
                continue
            w3j = wigner_3j(ir1.l, l2, ir3.l, dtype=torch.float64) * factor
            row = torch.zeros(in2.dim, ir3.dim, ir1.dim, dtype=torch.float64)
            row[in2.slices()[ins.i_in2]] = w3j.permute(1, 2, 0)
            rows.append(row)
            _append(block.coupled, Run(ins.i_out, ir3.dim, [path]))
        block.order = [path for run in block.direct + block.coupled for path in run.paths]
        block.reordered = block.order != sorted(block.order)
        blocks.append(block)
        kernels.append(torch.cat(rows, dim=1).flatten(1) if rows else None)
    return blocks, kernels


def _append(runs: list[Run], run: Run) -> None:
    """Append a single path, to the last run where it continues that."""
    if runs and runs[-1].dim == run.dim and runs[-1].position + len(runs[-1].paths) == run.position:
        runs[-1].paths += run.paths
    else:
        runs.append(run)
