"""Time of a force call, measured so that models can be compared."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

__all__ = ["time_force_calls"]


def time_force_calls(
    calculators: Mapping[str, Calculator],
    atoms: Atoms,
    repeats: int = 30,
    warmup: int = 5,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Time force calls of several calculators, alternated: A B C A B C ...

    Alternating lets a slow moment of the machine hit all models alike, so that ratios hold even
    where absolute times do not. Every call sees new positions (moved by 1e-3 A), as in MD.

    Args:
        calculators: by name.
        atoms: the structure.
        repeats: timed calls of each.
        warmup: calls of each before the clock starts.
        seed: of the displacements.

    Returns:
        Name -> times in ms, (repeats,).
    """
    rng = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in calculators}
    for turn in range(warmup + repeats):
        moved = atoms.copy()
        moved.positions += rng.normal(scale=1e-3, size=moved.positions.shape)
        for name, calculator in calculators.items():
            copy = moved.copy()
            copy.calc = calculator
            start = time.perf_counter()
            copy.get_forces()
            if turn >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}
