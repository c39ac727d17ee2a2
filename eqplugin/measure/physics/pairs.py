"""Two atoms pulled apart: curves of all pairs of elements, and whether they are smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii
from scipy.ndimage import median_filter

from eqplugin.measure.physics.check import Check, energy_and_forces
from eqplugin.measure.physics.symmetry import Precision

FARTHEST = 12.0  # A, beyond every usual cutoff
_POINTS = 240
_WIDTH = 1e-5  # A
_SUSPECTS = 4


@dataclass(frozen=True, eq=False)
class PairCurve:
    """The interaction of two atoms."""

    pair: tuple[str, str]  # chemical symbols
    distance: np.ndarray  # A, (num_points,), evenly spaced
    energy: np.ndarray  # eV, (num_points,), less the two isolated atoms
    force: np.ndarray  # eV/A, (num_points,), along the axis; positive pushes apart

    @property
    def name(self) -> str:
        """The pair as text, such as ``C-H``."""
        return "-".join(self.pair)


def pair_curves(calculator: Calculator, symbols: Sequence[str]) -> list[PairCurve]:
    """Curves of all pairs of the elements, from 0.6 times the sum of the covalent radii to 12 A."""
    lone = {symbol: energy_and_forces(Atoms(symbol), calculator)[0] for symbol in symbols}
    curves = []
    for pair in combinations_with_replacement(symbols, 2):
        radii = sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        distances = np.linspace(0.6 * radii, FARTHEST, _POINTS)
        values = np.array(
            [_pair_energy_and_force(calculator, pair, distance) for distance in distances]
        )
        energies = values[:, 0] - lone[pair[0]] - lone[pair[1]]
        curves.append(PairCurve(pair, distances, energies, values[:, 1]))
    return curves


def _pair_energy_and_force(
    calculator: Calculator, pair: tuple[str, str], distance: float
) -> tuple[float, float]:
    energy, forces = energy_and_forces(Atoms(pair, [[0, 0, 0], [distance, 0, 0]]), calculator)
    return energy, forces[1, 0]


def pair_checks(
    calculator: Calculator, curves: Sequence[PairCurve], precision: Precision
) -> list[Check]:
    """Does the interaction end, are energy and force continuous, do atoms repel?

    Where a curve bends far more than beside, the step is halved until it is 1e-5 A wide: what is
    left of the change is a jump. So the cutoff need not be known.
    """
    ends = max(max(abs(c.energy[-1]), abs(c.force[-1])) for c in curves)
    jumps = {curve: _largest_jumps(calculator, curve) for curve in curves}
    checks = [
        Check(
            "isolated atoms", float(ends), 10 * precision.force, "eV",
            f"pairs at {FARTHEST:g} Å against single atoms",
        )
    ]  # fmt: skip
    for index, what, unit in ((0, "energy", "eV"), (1, "force", "eV/Å")):
        curve = max(jumps, key=lambda curve: jumps[curve][index][0])
        size, where = jumps[curve][index]
        checks.append(
            Check(
                f"no jump of the {what}", size, 10 * precision.force, unit,
                f"largest of all pairs: {curve.name} at {where:.2f} Å",
            )
        )  # fmt: skip
    soft = [curve.name for curve in curves if curve.force[0] <= 0]
    remark = f"at 0.6 of the covalent distance: {', '.join(soft) or 'none'}"
    return [*checks, Check("pairs that do not repel", float(len(soft)), None, "", remark)]


def _largest_jumps(calculator: Calculator, curve: PairCurve) -> list[tuple[float, float]]:
    """(size, distance) of the largest jump of the energy, and of the force."""
    return [
        max(_jump_near(calculator, curve, index, point) for point in _rough_points(values))
        for index, values in enumerate((curve.energy, curve.force))
    ]


def _rough_points(values: np.ndarray) -> list[int]:
    """Points where the curve is least smooth, for its surroundings.

    A jump J adds J, -3J, 3J, -J to the fourth differences, of which a smooth curve has next to
    none. A cutoff that is smooth to second order shows as well, hence several suspects.
    """
    rough = np.abs(np.diff(values, 4))
    rounding = 1e-12 * np.abs(values[2:-2])
    strange = rough / (median_filter(rough, size=13) + rounding + 1e-300)
    chosen: list[int] = []
    for point in np.argsort(strange)[::-1]:
        if all(abs(point - other) > 3 for other in chosen):
            chosen.append(int(point))
        if len(chosen) == _SUSPECTS:
            break
    return [point + 2 for point in chosen]  # the middle of a fourth difference


def _jump_near(
    calculator: Calculator, curve: PairCurve, index: int, middle: int
) -> tuple[float, float]:
    """Size and distance of the jump near a point.

    Goes on to the roughest third until the window is narrow, and measures what is left.
    """
    low, high = curve.distance[middle - 2], curve.distance[middle + 2]
    while True:
        grid = np.linspace(low, high, 13)
        values = np.array(
            [_pair_energy_and_force(calculator, curve.pair, distance)[index] for distance in grid]
        )
        if high - low < _WIDTH:
            break
        roughest = int(np.argmax(np.abs(np.diff(values, 4))))
        low, high = grid[roughest], grid[roughest + 4]
    steps = np.abs(np.diff(values))
    usual, largest = np.sort(steps)[-2:]  # what changes in the other steps is no jump
    return float(max(0.0, largest - 1.5 * usual)), float(grid[np.argmax(steps)])
