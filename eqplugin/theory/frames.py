"""Three reference vectors per environment, equivariant and blind to the order of equal atoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from matscipy.neighbours import neighbour_list

from eqplugin.errors import EqPluginError

MIN_SINGULAR_VALUE = 1e-4
"""Times the reach of the environment: below it, a frame is made of noise."""

# The three weights are cosines of the distance over the reach: an eighth of a wave, a half, and
# one. None of them vanishes at the reach, where all neighbours may stand.
_ORDERS = (0.25, 1.0, 2.0)

Environments = Callable[[int], tuple[np.ndarray, np.ndarray]]


def reference_vectors(
    positions: torch.Tensor | Atoms,
    numbers: torch.Tensor | None,
    about: str,
    r_max: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Environments]:
    """Reference vectors of each environment.

    They are v_a = sum_j w_a(r_j) r_j with three weights. Neighbours that all stand equally far
    would let the three fall together, so images of the first under the traceless second moment of
    the environment are added to the others.

    The arguments are those of :func:`eqplugin.theory.canonical.find_frames`.

    Returns:
        vectors (num_frames, 3, 3) in A, one per row; their singular values (num_frames, 3),
        descending; reach (num_frames,) in A, the distance of the farthest neighbour; and a
        function from the index of a frame to its environment's vectors and labels.

    Raises:
        EqPluginError: for positions or options of the wrong kind.
    """
    if about not in ("nodes", "centroid"):
        raise EqPluginError(f"about={about!r} is not known: use 'nodes' or 'centroid'.")
    if r_max is not None and not 0 < r_max < np.inf:
        raise EqPluginError(f"r_max={r_max} is not valid: give a radius in A > 0.")
    frame, vectors, labels, count = _environments(positions, numbers, about, r_max)
    lengths = vectors.norm(dim=-1)
    reach = torch.zeros(count, dtype=torch.float64).scatter_reduce(0, frame, lengths, "amax")
    scaled = lengths / reach[frame].clamp(min=1e-300)
    # different species pull differently; the weight lies between 0.5 and 1.5
    species = 0.5 + labels / (labels + 10.0)

    def total(values: torch.Tensor) -> torch.Tensor:
        shape = (count, *values.shape[1:])
        return torch.zeros(shape, dtype=torch.float64).index_add_(0, frame, values)

    moment = total(species[:, None, None] * vectors[:, :, None] * vectors[:, None, :])
    trace = moment.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=1e-300)
    shape = 3 * moment / trace[:, None, None] - torch.eye(3, dtype=torch.float64)
    first, second, third = (
        total((species * torch.cos(torch.pi * order * scaled))[:, None] * vectors)
        for order in _ORDERS
    )
    once = torch.einsum("nij,nj->ni", shape, first)
    twice = torch.einsum("nij,nj->ni", shape, once)
    stacked = torch.stack([first, second + once, third + twice], dim=1)
    singular_values = torch.linalg.svdvals(stacked)

    def environment(index: int) -> tuple[np.ndarray, np.ndarray]:
        mine = frame == index
        return vectors[mine].numpy(), labels[mine].numpy()

    return stacked, singular_values, reach, environment


def _environments(
    positions: torch.Tensor | Atoms, numbers: torch.Tensor | None, about: str, r_max: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Index of the frame, vector and label of every neighbour; number of frames."""
    periodic = None
    if isinstance(positions, Atoms):
        atoms, positions = positions, positions.positions
        numbers = atoms.numbers if numbers is None else numbers
        periodic = atoms if atoms.pbc.any() else None
    points = torch.as_tensor(positions, dtype=torch.float64).detach().cpu()
    if points.dim() != 2 or points.shape[1] != 3:
        raise EqPluginError(
            f"positions have the shape {tuple(points.shape)} instead of (num_nodes, 3): "
            f"give one per node."
        )
    numbers = torch.zeros(len(points), dtype=torch.long) if numbers is None else numbers
    labels = torch.as_tensor(numbers).detach().cpu().reshape(-1)
    if len(labels) != len(points):
        raise EqPluginError(f"{len(labels)} numbers for {len(points)} nodes: give one for each.")
    lost = (~points.isfinite().all(dim=-1)).nonzero().flatten()
    if len(lost):
        raise EqPluginError(f"Node {int(lost[0])} has a position that is not a number: correct it.")
    if about == "centroid":
        if periodic is not None:
            raise EqPluginError("A periodic structure has no centroid: use about='nodes'.")
        away = points - points.mean(dim=0)
        near = slice(None) if r_max is None else away.norm(dim=-1) < r_max
        return torch.zeros(len(points), dtype=torch.long)[near], away[near], labels[near], 1
    if periodic is not None:
        if r_max is None:
            raise EqPluginError(
                "A periodic structure has infinitely many neighbours: give r_max in A."
            )
        centre, other, vectors = neighbour_list("ijD", periodic, r_max)
        first = torch.as_tensor(centre, dtype=torch.long)
        return first, torch.as_tensor(vectors), labels[torch.as_tensor(other)], len(points)
    first, other = (~torch.eye(len(points), dtype=torch.bool)).nonzero(as_tuple=True)
    vectors = points[other] - points[first]
    if r_max is not None:
        near = vectors.norm(dim=-1) < r_max
        first, other, vectors = first[near], other[near], vectors[near]
    return first, vectors, labels[other], len(points)
