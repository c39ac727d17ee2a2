"""The outcome of one physical check."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import reason_of

__all__ = ["Check", "evaluated", "judge"]


@dataclass(frozen=True)
class Check:
    """A measured violation and what it may be at most.

    Attributes:
        name: what was checked.
        value: the violation, in ``unit``; NaN where it could not be measured.
        threshold: the most that rounding explains; None: nothing to pass, a number to look at.
        unit: of both.
        remark: how it was measured.
    """

    name: str
    value: float
    threshold: float | None
    unit: str
    remark: str

    @property
    def passed(self) -> bool | None:
        """None where there is no threshold; NaN never passes."""
        return None if self.threshold is None else bool(self.value <= self.threshold)


def judge(
    name: str, measure: Callable[[], float], threshold: float | None, unit: str, remark: str
) -> Check:
    """Measure, and take a calculator's failure for a violation: what is wrong is in the remark."""
    try:
        return Check(name, float(measure()), threshold, unit, remark)
    except Exception as error:  # calculators of others may raise anything
        return Check(name, math.nan, threshold, unit, reason_of(error))


def evaluated(atoms: Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (num_atoms, 3) (eV/A) of a copy of the atoms."""
    atoms = atoms.copy()
    atoms.calc = calculator
    forces = atoms.get_forces()
    return atoms.get_potential_energy(), forces
