"""Edges and cell of a structure in MACE's batches: the stress is over the structure's own volume.

MACE 0.3.16 replaces cell vectors of directions that are not periodic by a box made from the largest
coordinate. Its models then divide the virial by the volume of that box: 13 times too much for a
slab, and another number wherever the slab sits. Such a box is also flat for a slab that does not
stand on z (``mace/data/neighborhood.py``). Training, HDF5 and LMDB data, evaluation and
MACECalculator all come here, through ``AtomicData.from_config``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mace.data import neighborhood
from numpy.typing import NDArray

from eqplugin.mace.compat._rebind import rebind

# volume of MACE's box over the product of its lengths; structures with a flatter one are turned
_UPRIGHT = 0.1
_FAR = 200.0  # A from the origin: MACE's box, and the time and memory of its search, grow with it
_NO_VOLUME = 1e-9  # of the product of the lengths: dependent but for rounding
STOCK = neighborhood.get_neighborhood


def install() -> None:
    """Let all of MACE find edges here."""
    rebind(STOCK, get_neighborhood)


def own_volume(cell: NDArray[np.float64] | None) -> float:
    """Volume of a cell in A^3; exactly 0.0 where its vectors are not independent."""
    if cell is None:
        return 0.0
    volume = abs(float(np.linalg.det(cell)))
    return volume if volume > _NO_VOLUME * float(np.prod(np.linalg.norm(cell, axis=1))) else 0.0


def get_neighborhood(
    positions: NDArray[np.float64],
    cutoff: float,
    pbc: Sequence[bool] | None = None,
    cell: NDArray[np.float64] | None = None,
    true_self_interaction: bool = False,
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """MACE's own edges, with the structure's own cell wherever that has a volume.

    Args:
        positions: A, (num_atoms, 3).
        cutoff: A.
        pbc: (3,); None: nothing is periodic.
        cell: A, (3, 3); None: there is none.
        true_self_interaction: keep edges from an atom to itself.

    Returns:
        edge index (2, num_edges), shift vectors in A and shifts in cell vectors, both
        (num_edges, 3), and the cell, (3, 3): MACE's box where the structure has no volume.
    """
    periodic = np.zeros(3, dtype=bool) if pbc is None else np.array(pbc, dtype=bool)
    own = None if cell is None else np.array(cell, dtype=np.float64)
    axes = np.eye(3)
    searched, turned = positions, own
    if own is not None and periodic.any() and _is_flat(own, periodic):
        axes = _axes(own, periodic)
        searched, turned = positions @ axes.T, own @ axes.T
    if np.abs(searched).max(initial=0.0) > _FAR:
        searched = searched - searched.mean(axis=0)
    index, _, unit_shifts, box = STOCK(
        searched,
        cutoff,
        tuple(bool(along) for along in periodic),
        None if turned is None else turned.copy(),  # it is written to
        true_self_interaction,
    )
    if own is not None and own_volume(own) > 0:
        used = own
    else:
        used = box @ axes
        if own is not None:
            used[periodic] = own[periodic]
    # no edge has a shift along a direction that is not periodic
    return index, unit_shifts @ used, unit_shifts, used


def _is_flat(cell: NDArray[np.float64], periodic: NDArray[np.bool_]) -> bool:
    """Whether MACE's box, with unit vectors for what is not periodic, has next to no volume."""
    box = cell.copy()
    box[~periodic] = np.eye(3)[~periodic]
    return abs(np.linalg.det(box)) < _UPRIGHT * np.prod(np.linalg.norm(box, axis=1))


def _axes(cell: NDArray[np.float64], periodic: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Orthonormal rows: those of directions that are not periodic are normal to all that are."""
    spanned = np.linalg.svd(cell[periodic])[2]
    axes = np.empty((3, 3))
    axes[periodic] = spanned[: int(periodic.sum())]
    axes[~periodic] = spanned[int(periodic.sum()) :]
    return axes
