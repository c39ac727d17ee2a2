"""Structure of a trajectory: radial distribution function and bond lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import find_mic
from ase.io import read
from ase.neighborlist import natural_cutoffs, neighbor_list
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray


def last_frames(trajectory: str | Path, frames: int, number: int = 100) -> list[Atoms]:
    """At most ``number`` frames, evenly spread over the second half of a trajectory of ``frames``.

    Only those needed are parsed.
    """
    first = frames // 2
    stride = max(1, -(-(frames - first) // number))
    return read(trajectory, index=f"{first}:{frames}:{stride}")


def radial_distribution(
    frames: Sequence[Atoms], r_max: float = 8.0, bins: int = 160
) -> tuple[NDArray, dict[str, NDArray]]:
    """Partial radial distribution functions g(r), 1 at large r where there is no order.

    Args:
        frames: periodic in three directions, of the same atoms.
        r_max: A.
        bins: number of them.

    Returns:
        Bin centres (bins,) in A and, by pair of elements such as ``"H-O"``, g(r) (bins,).
    """
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    numbers = frames[0].numbers
    elements = np.unique(numbers)
    pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i:]]
    found = {pair: np.zeros(bins) for pair in pairs}
    for atoms in frames:
        first, second, distance = neighbour_list("ijd", atoms, r_max)
        for a, b in pairs:
            # an atom's own images keep their distance: they are no structure
            chosen = (numbers[first] == a) & (numbers[second] == b) & (first != second)
            counts, _ = np.histogram(distance[chosen], edges)
            ideal = (numbers == a).sum() * (numbers == b).sum() / atoms.get_volume() * shells
            found[a, b] += counts / ideal / len(frames)
    centres = 0.5 * (edges[1:] + edges[:-1])
    names = {pair: "-".join(chemical_symbols[z] for z in pair) for pair in pairs}
    return centres, {names[pair]: function for pair, function in found.items()}


def bond_lengths(frames: Sequence[Atoms]) -> dict[str, NDArray]:
    """Lengths in A of the bonds of the first frame, along all frames.

    Returns:
        By pair of elements such as ``"C-H"``: (num_frames, num_bonds).
    """
    start = frames[0]
    bonds: dict[str, list[tuple[int, int]]] = {}
    for i, j in zip(*neighbor_list("ij", start, natural_cutoffs(start, mult=1.15)), strict=True):
        if i < j:
            kind = "-".join(sorted((start.symbols[i], start.symbols[j])))
            bonds.setdefault(kind, []).append((i, j))
    return {kind: _lengths(frames, np.array(pairs)) for kind, pairs in sorted(bonds.items())}


def _lengths(frames: Sequence[Atoms], pairs: NDArray) -> NDArray:
    first, second = pairs.T
    return np.array(
        [
            find_mic(atoms.positions[second] - atoms.positions[first], atoms.cell, atoms.pbc)[1]
            for atoms in frames
        ]
    )
