"""The key lemma as code: steerable features and their corresponding invariants.

Every node gets a frame, a rotation (or rotoinversion) R that turns its environment into a standard
orientation: g_x^-1 in the paper. For an equivariant feature f(x) = D(g) f(g^-1 x) the numbers
lambda(x) = D(R) f(x) are invariant, and f(x) = D(R)^-1 lambda(x): D invariants say the same as D
numbers of any types. Conversely lambda gives an equivariant feature iff it lies in V^Stab of the
canonical environment, see :mod:`eqplugin.theory.stabilizer`.

**A diagnostic, never part of an energy.** No frame is continuous: near symmetric environments it
jumps, and lambda with it, while f does not (docs/theory.md shows by how much). The layers of this
project forbid models to import this module.

Source: Wang et al., ICLR 2024, key lemma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from ase import Atoms
from e3nn.o3 import Irreps

from eqplugin.errors import EqPluginError
from eqplugin.theory.frames import MIN_SINGULAR_VALUE, reference_vectors
from eqplugin.theory.point_group import find_point_group
from eqplugin.theory.representation import rotate

__all__ = ["DegenerateFrameError", "Frames", "find_frames", "from_invariants", "to_invariants"]

Group = Literal["SO(3)", "O(3)"]


class DegenerateFrameError(EqPluginError):
    """No frame exists, or none that could be told from noise: the environment is symmetric."""

    def __init__(self, node: int, singular_values: torch.Tensor, symmetry: str, group: str) -> None:
        self.node = node  # the first without a frame; -1: the whole structure
        self.singular_values = singular_values  # (3,) of its reference vectors, A
        self.symmetry = symmetry  # Schoenflies symbol of its point group
        values = ", ".join(f"{value:.1e}" for value in singular_values.tolist())
        place = f"Node {node}" if node >= 0 else "The structure as a whole"
        why = (
            f"its environment has the symmetry {symmetry}"
            if symmetry != "C1"
            else "its reference vectors are nearly dependent, although no symmetry is found"
        )
        rank = "two" if group == "SO(3)" else "three"
        super().__init__(
            f"{place} has no {group} frame: {why} (singular values {values} A; {rank} must be "
            f"above the threshold); leave it out, or ask which dimensions survive there."
        )


@dataclass(frozen=True)
class Frames:
    """One frame per node."""

    matrices: torch.Tensor  # (num_nodes, 3, 3) orthogonal, float64; the canonical position is R x
    # (num_nodes, 3) of the reference vectors, A: the smaller the second (SO(3)) or third (O(3)),
    # the closer the frame is to a jump
    singular_values: torch.Tensor
    group: str  # "SO(3)" (determinant 1) or "O(3)" (either sign)


def find_frames(
    positions: torch.Tensor | Atoms,
    *,
    group: Group = "SO(3)",
    numbers: torch.Tensor | None = None,
    about: Literal["nodes", "centroid"] = "nodes",
    r_max: float | None = None,
    threshold: float = MIN_SINGULAR_VALUE,
) -> Frames:
    """Frames of all nodes, equivariant under rotations and permutations of equal atoms.

    Args:
        positions: (num_nodes, 3) in A, or an ``ase.Atoms`` (periodic ones need ``r_max``), whose
            species then enter.
        group: ``"SO(3)"`` for features of rotations alone; ``"O(3)"`` when parity counts: an SO(3)
            frame does not turn an inverted input back, and lambda would change.
        numbers: (num_nodes,) atomic numbers or types, if neighbours differ by them.
        about: ``"nodes"``: one frame per node, from its neighbours; ``"centroid"``: one frame for
            the whole structure, returned for every node.
        r_max: neighbours farther away are left out, A; default: all.
        threshold: the 2nd (SO(3)) or 3rd (O(3)) singular value of the reference vectors must
            exceed this times the reach of the environment. 0 takes any frame: only to show what
            then goes wrong.

    Raises:
        DegenerateFrameError: for the first node without a frame.
        EqPluginError: for positions or options that are not possible.
    """
    if group not in ("SO(3)", "O(3)"):
        raise EqPluginError(f"group={group!r} is not known: use 'SO(3)' or 'O(3)'.")
    if not threshold >= 0:
        raise EqPluginError(f"threshold={threshold} is not valid: give a number >= 0.")
    vectors, singular_values, reach, environments = reference_vectors(
        positions, numbers, about, r_max
    )
    needed = 1 if group == "SO(3)" else 2
    poor = singular_values[:, needed] <= threshold * reach
    if poor.any():
        node = int(poor.nonzero()[0])
        # the frame may fail a little before the symmetry is exact
        symmetry = find_point_group(*environments(node), tolerance=10 * max(threshold, 1e-6)).name
        raise DegenerateFrameError(
            node if about == "nodes" else -1, singular_values[node], symmetry, group
        )
    matrices = _orthonormal(vectors, group)
    if about == "centroid":
        count = len(positions)
        matrices, singular_values = matrices.expand(count, 3, 3), singular_values.expand(count, 3)
    return Frames(matrices, singular_values, group)


def _orthonormal(vectors: torch.Tensor, group: str) -> torch.Tensor:
    """Orthonormalise reference vectors (n, 3, 3), one per row, from the first to the last."""
    q, r = torch.linalg.qr(vectors.mT)
    rows = torch.where(r.diagonal(dim1=1, dim2=2)[..., None] < 0, -q.mT, q.mT)
    if group == "SO(3)":
        rows[:, 2] = torch.linalg.cross(rows[:, 0], rows[:, 1])
    return rows


def to_invariants(
    features: torch.Tensor,
    irreps: Irreps | str,
    positions: torch.Tensor | Atoms | Frames,
    **options: object,
) -> torch.Tensor:
    """Turn steerable node features into the corresponding invariants, lambda = D(R) f.

    Args:
        features: (num_nodes, D), e3nn's mul_ir layout.
        irreps: of the features, any.
        positions: what :func:`find_frames` takes, or frames it returned.
        **options: of :func:`find_frames`.

    Returns:
        (num_nodes, D): every entry is invariant under rotations (and, with ``group="O(3)"``,
        inversions) of the structure.

    Raises:
        DegenerateFrameError: for a symmetric environment.
        EqPluginError: for features that do not fit the irreps or the nodes.
    """
    frames = _frames(features, irreps, positions, options)
    return rotate(features, irreps, frames.matrices)


def from_invariants(
    invariants: torch.Tensor,
    irreps: Irreps | str,
    positions: torch.Tensor | Atoms | Frames,
    **options: object,
) -> torch.Tensor:
    """Turn invariants into steerable features of the given types, f = D(R)^-1 lambda.

    The exact inverse of :func:`to_invariants`, with the same options and errors; the types are
    free, only the dimension must agree.

    Args:
        invariants: (num_nodes, D), any invariants.
        irreps: what the features are to be.
        positions: as there; the features are equivariant in them.
        **options: as there.
    """
    frames = _frames(invariants, irreps, positions, options)
    return rotate(invariants, irreps, frames.matrices.mT)


def _frames(
    features: torch.Tensor,
    irreps: Irreps | str,
    positions: torch.Tensor | Atoms | Frames,
    options: dict,
) -> Frames:
    dimension = Irreps(irreps).dim
    if features.dim() != 2 or features.shape[1] != dimension:
        raise EqPluginError(
            f"features have the shape {tuple(features.shape)} instead of (num_nodes, {dimension}), "
            f"as irreps {irreps} require: give the layer's own irreps."
        )
    frames = positions if isinstance(positions, Frames) else find_frames(positions, **options)
    if len(frames.matrices) != len(features):
        raise EqPluginError(
            f"{len(features)} nodes have features but {len(frames.matrices)} have frames: give "
            f"the positions of the same structure."
        )
    return frames
