"""Neighbour searches, all of them by libraries; here they get one interface and one edge order.

vesin and matscipy search on the CPU; nvalchemi-toolkit-ops wherever the positions are, which makes
it the choice on CUDA. (Its CUDA path has not been run by our tests; its CPU path has.)
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError, reason_of

# (positions, cell, pbc, cutoff, device) -> (i, j, S), pairs from both ends; atoms lie inside the
# cell, whose vectors are independent
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Search = Callable[[NDArray, NDArray, NDArray, float, torch.device], Found]

# more than this is a mistake: a cutoff of 10 A in diamond has 750
MAX_NEIGHBOURS = 10_000
# of both ends together: 10 GB of them, before any model has seen one
MAX_EDGES = 100_000_000
# one int64 holds (i, j, S) below this
MAX_KEY = 2**62


def _vesin(
    positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float, device: torch.device
) -> Found:
    from vesin import NeighborList

    found = NeighborList(cutoff=cutoff, full_list=True, sorted=True).compute(
        points=positions, box=cell, periodic=pbc, quantities="ijS"
    )
    return _tensors(*found, device)


def _matscipy(
    positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float, device: torch.device
) -> Found:
    from matscipy.neighbours import neighbour_list

    found = neighbour_list("ijS", pbc=pbc, cell=cell, positions=positions, cutoff=cutoff)
    return _tensors(*found, device)


def _nvalchemi(
    positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float, device: torch.device
) -> Found:
    from nvalchemiops.neighbors.neighbor_utils import NeighborOverflowError
    from nvalchemiops.torch.neighbors import batch_cell_list

    at_most: int | None = None  # the library's own estimate, which dense structures exceed
    while True:
        try:
            edges, _, shifts = batch_cell_list(
                positions=torch.as_tensor(positions, device=device),
                cutoff=cutoff,
                batch_idx=torch.zeros(len(positions), dtype=torch.int32, device=device),
                cell=torch.as_tensor(cell, device=device).unsqueeze(0).contiguous(),
                pbc=torch.as_tensor(pbc, device=device).unsqueeze(0),
                max_neighbors=at_most,
                return_neighbor_list=True,
            )
            return edges[0].long(), edges[1].long(), shifts.long()
        except NeighborOverflowError:
            at_most = 512 if at_most is None else 4 * at_most


def _tensors(i: NDArray, j: NDArray, shifts: NDArray, device: torch.device) -> Found:
    return tuple(torch.from_numpy(a.astype(np.int64)).to(device) for a in (i, j, shifts))


SEARCHES: dict[str, Search] = {"vesin": _vesin, "matscipy": _matscipy, "nvalchemi": _nvalchemi}


def choose_search(name: str, device: torch.device) -> str:
    """Name of the library that searches; ``"auto"``: nvalchemi on CUDA where it is installed, vesin
    otherwise.

    Raises:
        EqPluginError: for an unknown name or a library that is not installed.
    """
    has_nvalchemi = find_spec("nvalchemiops") is not None
    if name == "auto":
        return "nvalchemi" if device.type == "cuda" and has_nvalchemi else "vesin"
    if name not in SEARCHES:
        raise EqPluginError(f"neighbors={name!r} is not known: use auto, {', '.join(SEARCHES)}.")
    if name == "nvalchemi" and not has_nvalchemi:
        raise EqPluginError(
            "neighbors='nvalchemi' needs a package that is not installed: "
            "`pip install nvalchemi-toolkit-ops`, or use neighbors='auto'."
        )
    return name


def find_pairs(
    search: Search,
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff: float,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs closer than the cutoff, each from one end only, in the order of (i, j, S).

    Atoms may lie outside the cell, the cell may be smaller than the cutoff, and vectors of
    directions that are not periodic may be anything, zero included.

    Args:
        search: one of :data:`SEARCHES`.
        positions: A, (num_atoms, 3).
        cell: A, (3, 3).
        pbc: (3,).
        cutoff: A.
        device: of the result.

    Returns:
        index, (2, num_pairs), with i <= j, and shifts S, (num_pairs, 3), int64.

    Raises:
        EqPluginError: for a structure so dense that its edges would not fit into memory, and for
            one that the library cannot search.
    """
    turns, across = _unrolled(positions, cell, pbc, cutoff)
    box, wrapped = _boxed(positions - turns @ cell, cell, across, cutoff)
    _check_density(wrapped, box, across, cutoff)
    try:
        i, j, shifts = search(wrapped, box, across, cutoff, device)
    except (RuntimeError, MemoryError, ValueError) as error:
        # matscipy runs out of memory where atoms are thousands of Angstroms apart
        raise EqPluginError(
            f"the neighbour search failed ({reason_of(error, named=True)[:120]}): check the "
            f"structure's extent, or use neighbors='vesin'."
        ) from error
    if turns.any():
        turns = torch.from_numpy(turns).to(device)
        shifts = shifts + turns.index_select(0, i) - turns.index_select(0, j)
    once = _one_of_two(i, j, shifts)
    i, j, shifts = (found.index_select(0, once) for found in (i, j, shifts))
    order = _order(i, j, shifts, len(positions))
    index = torch.stack((i.index_select(0, order), j.index_select(0, order)))
    return index, shifts.index_select(0, order)


def _one_of_two(i: torch.Tensor, j: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Places of the pairs with i < j, and of those of an atom and itself with S > 0."""
    x, y, z = shifts.unbind(1)
    ahead = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return ((i < j) | ((i == j) & ahead)).nonzero().view(-1)


def _free(cell: NDArray, pbc: NDArray) -> NDArray:
    """An orthonormal basis of what the periodic vectors do not span."""
    if not pbc.any():
        return np.eye(3)
    return np.linalg.svd(cell[pbc])[2][int(pbc.sum()) :]


def _unrolled(
    positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float
) -> tuple[NDArray, NDArray]:
    """Move atoms back into one cell, cut where it is empty.

    Returns how many cells each atom is moved, (n, 3), and the directions across which pairs still
    reach: a direction with a gap wider than the cutoff needs no images any more. Libraries search
    huge empty cells slowly, and vesin can crash in them.
    """
    turns = np.zeros((len(positions), 3), dtype=np.int64)
    across = np.array(pbc, dtype=bool)
    if not pbc.any():
        return turns, across
    box = np.array(cell, dtype=np.float64)
    box[~across] = _free(cell, across)
    inverse = np.linalg.inv(box)
    fractional = positions @ inverse
    for axis in np.flatnonzero(pbc):
        inside = np.sort(fractional[:, axis] % 1.0)
        gaps = np.diff(inside, append=inside[0] + 1.0)
        widest = int(np.argmax(gaps))
        cut = 0.0
        # the distance of the planes that bound the gap; twice: far from any rounding
        if gaps[widest] / np.linalg.norm(inverse[:, axis]) > 2 * cutoff:
            across[axis] = False
            cut = inside[widest] + 0.5 * gaps[widest]
        turns[:, axis] = np.floor(fractional[:, axis] - cut).astype(np.int64)
    return turns, across


def _boxed(
    positions: NDArray, cell: NDArray, across: NDArray, cutoff: float
) -> tuple[NDArray, NDArray]:
    """Give the directions without images vectors around all the atoms; return box and atoms."""
    box = np.array(cell, dtype=np.float64)
    if not across.all():
        free = _free(cell, across)
        along = positions @ free.T
        closed = _without_gaps(along, 2 * cutoff)
        box[~across] = free * (closed.max(axis=0) + 2 * cutoff)[:, None]
        positions = positions + (closed + cutoff - along) @ free
    return box, np.ascontiguousarray(positions)


def _without_gaps(along: NDArray, widest: float) -> NDArray:
    """Coordinates from 0 up, with gaps between atoms narrowed to the widest that is useful.

    No pair within the cutoff crosses such a gap. Without this, a single atom far away makes
    libraries search through millions of empty cells.
    """
    order = np.argsort(along, axis=0)
    gaps = np.minimum(np.diff(np.take_along_axis(along, order, 0), axis=0), widest)
    closed = np.zeros_like(along)
    np.put_along_axis(closed, order[1:], np.cumsum(gaps, axis=0), 0)
    return closed


def _check_density(positions: NDArray, box: NDArray, across: NDArray, cutoff: float) -> None:
    volume = abs(float(np.linalg.det(box)))
    near = 4.2 * cutoff**3 / volume * len(positions)
    if not across.any():
        near = min(near, len(positions))
    if near > MAX_NEIGHBOURS or near * len(positions) > MAX_EDGES:
        raise EqPluginError(
            f"the structure is too dense: about {near:.0f} neighbours for each of its "
            f"{len(positions)} atoms within {cutoff:.2f} A; check the cell and the length unit (A)."
        )


def _order(i: torch.Tensor, j: torch.Tensor, shifts: torch.Tensor, num_atoms: int) -> torch.Tensor:
    """Permutation that sorts pairs by (i, j, S)."""
    if len(i) == 0:
        return i
    key = i * num_atoms + j
    low = shifts.amin(0)
    spans = (shifts.amax(0) - low + 1).tolist()
    if num_atoms**2 * spans[0] * spans[1] * spans[2] < MAX_KEY:
        for axis, span in enumerate(spans):
            key = key * span + (shifts[:, axis] - low[axis])
        return torch.argsort(key, stable=True)
    order = torch.arange(len(i), device=i.device)
    for column in (shifts[:, 2], shifts[:, 1], shifts[:, 0], key):
        order = order.index_select(0, torch.argsort(column.index_select(0, order), stable=True))
    return order
