"""A Verlet skin around the neighbour search that changes no number."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from eqplugin.calculator.graph import Graph, PairList
from eqplugin.calculator.neighbors import SEARCHES, find_pairs
from eqplugin.errors import EqPluginError

# libraries decide on their own rounding whether a pair stands at the cutoff: search a little
# farther and decide here, always in the same way
_MARGIN = 1e-6
# closer than this, A, two atoms are one by mistake; pair directions are lost to rounding
COINCIDENT = 1e-3


class SkinList:
    """Pairs of the structures of a trajectory, searched anew only when atoms have moved.

    The search reaches ``cutoff + skin``; each call keeps the pairs now inside the cutoff, in the
    order of (i, j, S), which is the list that a search without skin returns: energies and forces
    are the same to the last bit on a CPU. A new search follows when an atom has moved more than
    ``skin / 2``, or when cell, periodicity, species or number of atoms have changed.

    Args:
        cutoff: of the model, A.
        skin: A. A wider one is searched less often, and each step sorts out more pairs: 0.5 suits
            MD of solids and molecules; 0 searches at every step.
        search: a name in :data:`eqplugin.calculator.neighbors.SEARCHES`.
        device: where the pairs are kept.

    Attributes:
        searches: number of searches so far.
    """

    def __init__(self, cutoff: float, skin: float, search: str, device: torch.device) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.device = device
        self.searches = 0
        self._search = SEARCHES[search]
        self._numbers: NDArray | None = None

    def reset(self) -> None:
        """Forget the structure: the next call searches."""
        self._numbers = None

    def graph(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        cell: NDArray[np.float64],
        pbc: NDArray[np.bool_],
    ) -> Graph:
        """Return the graph of a structure: positions in A, (num_atoms, 3), cell in A, (3, 3).

        Raises:
            EqPluginError: for coincident atoms and for structures too dense to search.
        """
        # a copy: the caller's array changes between steps
        points = torch.tensor(positions, dtype=torch.float64, device=self.device)
        if not self._still_valid(numbers, points, cell, pbc):
            self._rebuild(numbers, positions, points, cell, pbc)
        pairs = self._pairs
        vectors = points.index_select(0, pairs.index[1]) - points.index_select(0, pairs.index[0])
        if pairs.shift_vectors is not None:
            vectors = vectors + pairs.shift_vectors
        x, y, z = vectors.unbind(1)
        squares = x * x + y * y + z * z
        kept = (squares < self.cutoff**2).nonzero().view(-1)
        if len(kept) == len(vectors):
            kept = None
        else:
            vectors = vectors.index_select(0, kept)
        if len(squares) and float(squares.min()) < COINCIDENT**2:
            self._refuse_coincident(numbers, int(squares.argmin()))
        return Graph(self._numbers, points, self._cell_tensor, self._volume, pairs, kept, vectors)

    def _still_valid(
        self, numbers: NDArray, points: torch.Tensor, cell: NDArray, pbc: NDArray
    ) -> bool:
        if (
            self._numbers is None
            or not np.array_equal(numbers, self._numbers)
            or not np.array_equal(cell, self._cell)
            or not np.array_equal(pbc, self._pbc)
        ):
            return False
        moved = (points - self._reference).square().sum(1).max()
        return float(moved) < (0.5 * self.skin) ** 2

    def _rebuild(
        self,
        numbers: NDArray,
        positions: NDArray,
        points: torch.Tensor,
        cell: NDArray,
        pbc: NDArray,
    ) -> None:
        self.reset()  # a failed search must not leave half a state
        reach = self.cutoff + self.skin + _MARGIN
        index, shifts = find_pairs(self._search, positions, cell, pbc, reach, self.device)
        self.searches += 1
        self._reference = points
        self._cell, self._pbc = cell.copy(), pbc.copy()
        self._cell_tensor = torch.tensor(cell, dtype=torch.float64, device=self.device)
        self._volume = _volume(cell)
        self._pairs = PairList(
            index, shifts.to(torch.float64), self._cell_tensor, bool(self._pbc.any())
        )
        self._numbers = numbers.copy()

    def _refuse_coincident(self, numbers: NDArray, pair: int) -> None:
        first, second = self._pairs.index[:, pair].tolist()
        names = [f"{chemical_symbols[numbers[n]]} (atom {n})" for n in (first, second)]
        image = "" if not self._pairs.shifts[pair].any() else " in a neighbouring cell"
        self.reset()
        raise EqPluginError(
            f"{names[0]} and {names[1]}{image} have the same position: move or delete one of them."
        )


def _volume(cell: NDArray[np.float64]) -> float:
    """Volume in A^3; exactly 0.0 where the vectors are not independent but for rounding."""
    volume = abs(float(np.linalg.det(cell)))
    box = float(np.prod(np.linalg.norm(cell, axis=1)))
    return volume if volume > 1e-9 * box else 0.0
