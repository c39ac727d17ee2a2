"""Input of a model: a structure and its edges inside the cutoff, as tensors on one device."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Edges(NamedTuple):
    """Edges from both ends."""

    index: torch.Tensor  # rows i and j, (2, num_edges), int64
    vectors: torch.Tensor  # A, (num_edges, 3), float64
    shifts: torch.Tensor  # image S of atom j in units of the cell vectors, (num_edges, 3), float64


class PairList:
    """Pairs inside cutoff + skin, as they stay between two searches, ordered by (i, j, S).

    Attributes:
        index: (2, num_pairs), int64.
        shifts: (num_pairs, 3), float64.
        shift_vectors: A, (num_pairs, 3), float64, or None where nothing is periodic.
    """

    def __init__(
        self, index: torch.Tensor, shifts: torch.Tensor, cell: torch.Tensor, periodic: bool
    ) -> None:
        self.index = index
        self.shifts = shifts
        self.shift_vectors = None
        if periodic:
            # written out: a matrix product may round differently for another number of rows,
            # and then a trajectory with a skin would not be bitwise the one without
            x, y, z = shifts.unbind(1)
            self.shift_vectors = (
                x.unsqueeze(1) * cell[0] + y.unsqueeze(1) * cell[1] + z.unsqueeze(1) * cell[2]
            )


class Graph:
    """A structure with its pairs inside the cutoff; what is not read is not computed.

    A pair (i, j, S) points from atom i to atom j in the image S, along the vector
    ``positions[j] - positions[i] + S @ cell``. Its reverse, (j, i, -S), is not in the list.

    Attributes:
        numbers: atomic numbers, (num_atoms,), on the CPU; the same array from search to search.
        positions: A, (num_atoms, 3), float64.
        cell: rows are cell vectors, A, (3, 3), float64; zeros where there is none.
        volume: of the cell, A^3; 0.0 where there is none.
        vectors: of the pairs, A, (num_pairs, 3), float64.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        positions: torch.Tensor,
        cell: torch.Tensor,
        volume: float,
        pairs: PairList,
        kept: torch.Tensor | None,
        vectors: torch.Tensor,
    ) -> None:
        self.numbers = numbers
        self.positions = positions
        self.cell = cell
        self.volume = volume
        self.vectors = vectors
        self._pairs = pairs
        self._kept = kept  # places in the list; None: all of them

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @cached_property
    def index(self) -> torch.Tensor:
        """Atoms i and j of the pairs, (2, num_pairs), int64."""
        index = self._pairs.index
        return index if self._kept is None else index.index_select(1, self._kept)

    @cached_property
    def edges(self) -> Edges:
        """All pairs, then all their reverses."""
        index, shifts = self.index, self._select(self._pairs.shifts)
        return Edges(
            torch.cat((index, index.flip(0)), 1),
            torch.cat((self.vectors, -self.vectors)),
            torch.cat((shifts, -shifts)),
        )

    @cached_property
    def edge_shift_vectors(self) -> torch.Tensor:
        """``S @ cell`` of the edges, A, (num_edges, 3), float64."""
        if self._pairs.shift_vectors is None:
            return self.vectors.new_zeros((2 * len(self.vectors), 3))
        vectors = self._select(self._pairs.shift_vectors)
        return torch.cat((vectors, -vectors))

    def _select(self, per_pair: torch.Tensor) -> torch.Tensor:
        return per_pair if self._kept is None else per_pair.index_select(0, self._kept)


class Backend(Protocol):
    """A model of one of the stacks, ready to evaluate graphs."""

    name: str  # what messages call it, the file where there is one
    r_max: float  # cutoff, A
    species: tuple[int, ...]  # atomic numbers that the model knows
    dtype: torch.dtype  # of its weights

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """Return energy (), energies (num_atoms,), forces (num_atoms, 3) and, if wanted, stress.

        In eV, eV/A and eV/A^3; the stress, (3, 3), is the strain derivative of the energy over the
        volume, which is ASE's sign, and is wanted only where the cell has a volume.
        """
        ...

    def descriptors(self, graph: Graph) -> NDArray:
        """Return invariant features, (num_atoms, num_features)."""
        ...
