"""What a model is given: a structure and its edges inside the cutoff, as tensors on one device."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Backend", "Graph"]


class Graph:
    """A structure with its edges; what is not read is not computed.

    An edge (i, j, S) points from atom i to atom j in the image S: its vector is
    ``positions[j] - positions[i] + S @ cell``. Every edge stands next to its reverse somewhere in
    the list; edges are ordered by (i, j, S), whatever library found them.

    Attributes:
        numbers: atomic numbers, (num_atoms,), on the CPU.
        positions: A, (num_atoms, 3), float64.
        cell: rows are cell vectors, A, (3, 3), float64; zeros where there is none.
        volume: of the cell, A^3; 0.0 where there is none.
        vectors: of the edges, A, (num_edges, 3), float64.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        positions: torch.Tensor,
        cell: torch.Tensor,
        volume: float,
        edges: EdgeList,
        kept: torch.Tensor | None,
        vectors: torch.Tensor,
    ) -> None:
        self.numbers = numbers
        self.positions = positions
        self.cell = cell
        self.volume = volume
        self.vectors = vectors
        self._edges = edges
        self._kept = kept

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def num_edges(self) -> int:
        """Number of edges, each pair counted from both ends."""
        return len(self.vectors)

    def subset(self, edges: torch.Tensor) -> Graph:
        """Return the graph with only these edges, given by their places in the list."""
        kept = edges if self._kept is None else self._kept.index_select(0, edges)
        return Graph(
            self.numbers, self.positions, self.cell, self.volume, self._edges, kept,
            self.vectors.index_select(0, edges),
        )  # fmt: skip

    @cached_property
    def edge_index(self) -> torch.Tensor:
        """Rows i and j, (2, num_edges), int64."""
        index = self._edges.index
        return index if self._kept is None else index.index_select(1, self._kept)

    @cached_property
    def shifts(self) -> torch.Tensor:
        """Image S of atom j in units of the cell vectors, (num_edges, 3), float64."""
        return self._select(self._edges.shifts)

    @cached_property
    def shift_vectors(self) -> torch.Tensor:
        """``S @ cell`` in A, (num_edges, 3), float64."""
        found = self._edges.shift_vectors
        return torch.zeros_like(self.vectors) if found is None else self._select(found)

    def _select(self, per_edge: torch.Tensor) -> torch.Tensor:
        return per_edge if self._kept is None else per_edge.index_select(0, self._kept)


class EdgeList:
    """Edges inside cutoff + skin, as they stay between two searches.

    Attributes:
        index: (2, num_edges), int64.
        shifts: (num_edges, 3), float64.
        shift_vectors: (num_edges, 3), float64, or None where nothing is periodic.
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


class Backend(Protocol):
    """A model of one of the stacks, ready to evaluate graphs.

    Attributes:
        name: what messages call it, the file where there is one.
        r_max: cutoff, A.
        species: atomic numbers that the model knows.
        dtype: of its weights.
    """

    name: str
    r_max: float
    species: tuple[int, ...]
    dtype: torch.dtype

    def evaluate(self, graph: Graph, want_stress: bool) -> dict[str, torch.Tensor]:
        """Return energy (), energies (num_atoms,), forces (num_atoms, 3) and, if wanted, stress.

        In eV, eV/A and eV/A^3; the stress, (3, 3), is the strain derivative of the energy over the
        volume, which is ASE's sign, and is wanted only where the cell has a volume.
        """
        ...

    def descriptors(self, graph: Graph) -> NDArray:
        """Return invariant features, (num_atoms, num_features)."""
        ...
