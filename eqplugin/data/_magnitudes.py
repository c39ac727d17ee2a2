"""Labels of an unlikely size: another unit, another method, or energies that do not fit the E0s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import gcd
from typing import NamedTuple

import numpy as np
from ase import Atoms

MAX_STRESS = 1.0  # eV/A^3, 160 GPa; sound data sets stay below it
MAX_FORCE_RMS = 30.0  # eV/A, of components; liquids at thousands of kelvin have 3
MIN_FORCE_RMS = 5e-4  # eV/A; relaxed structures have more
MAX_FORCE = 100.0  # eV/A on an atom
BOUND = (-20.0, 10.0)  # eV per atom, energy against isolated atoms; tungsten has -9
FAR = 2.0  # eV per atom from other frames of the same composition
SPREADS = 30.0  # median deviations that such a frame is away at least
SPAN = 10.0  # eV per atom, between frames of the same composition
MANY = 5  # frames, for statistics


class Energy(NamedTuple):
    """Energy of a frame."""

    frame: int
    energy: float  # eV
    symbols: tuple[str, ...]  # one per atom

    @property
    def per_atom(self) -> float:
        """In eV."""
        return self.energy / len(self.symbols)

    @property
    def composition(self) -> tuple[tuple[str, int], ...]:
        """Symbols and their smallest whole numbers."""
        counts = {s: self.symbols.count(s) for s in sorted(set(self.symbols))}
        divisor = gcd(*counts.values())
        return tuple((symbol, count // divisor) for symbol, count in counts.items())


def energy_of(frame: int, energy: float, atoms: Atoms) -> Energy:
    """The record of one frame."""
    return Energy(frame, energy, tuple(atoms.get_chemical_symbols()))


def by_composition(energies: Iterable[Energy]) -> dict[tuple, list[Energy]]:
    """Records that can be compared with one another."""
    groups: dict[tuple, list[Energy]] = defaultdict(list)
    for record in energies:
        groups[record.composition].append(record)
    return groups


def outlying(energies: Iterable[Energy]) -> list[Energy]:
    """Frames whose energy is far from that of other frames of the same composition."""
    far: list[Energy] = []
    for group in by_composition(energies).values():
        values = np.array([record.per_atom for record in group])
        if len(group) < MANY:
            continue
        away = np.abs(values - np.median(values))
        limit = max(FAR, SPREADS * float(np.median(away)))
        far += [group[k] for k in np.flatnonzero(away > limit)]
    return sorted(far)


def widest_span(energies: Iterable[Energy]) -> float:
    """Largest difference, eV per atom, between frames of one composition; 0.0 without any."""
    spans = [np.ptp([r.per_atom for r in group]) for group in by_composition(energies).values()]
    return float(max(spans, default=0.0))


def offset_between(one: Sequence[Energy], other: Sequence[Energy]) -> float:
    """Difference of two files' energies at one composition, eV per atom; 0.0 where none is seen."""
    groups, others = by_composition(one), by_composition(other)
    for composition in groups.keys() & others.keys():
        a, b = (np.array([r.per_atom for r in g[composition]]) for g in (groups, others))
        if min(len(a), len(b)) < MANY:
            continue
        spread = max(float(np.median(np.abs(x - np.median(x)))) for x in (a, b))
        offset = float(np.median(b) - np.median(a))
        if abs(offset) > max(FAR, SPREADS * spread):
            return offset
    return 0.0


def e0_warning(energies: Iterable[Energy], e0s: Mapping[str, float]) -> str | None:
    """A sentence without its subject, the file, where energies and E0s cannot belong together.

    Args:
        energies: records of a file.
        e0s: energy (eV) by chemical symbol.
    """
    bound = [
        (record.energy - sum(e0s[symbol] for symbol in record.symbols)) / len(record.symbols)
        for record in energies
        if e0s.keys() >= set(record.symbols)
    ]
    if not bound or BOUND[0] <= np.median(bound) <= BOUND[1]:
        return None
    return (
        f"the energies are {np.median(bound):+.1f} eV per atom from the sum of the isolated-atom "
        f"energies (E0s), which no material is: take both from one method, in eV"
    )
