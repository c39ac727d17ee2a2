"""One physical check of a calculator, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import reason_of


@dataclass(frozen=True)
class Check:
    """A measured violation and what it may be at most."""

    name: str  # what was checked
    value: float  # the violation, in `unit`; NaN where it could not be measured
    # the most that rounding explains; None: nothing to pass, a number to look at
    threshold: float | None
    unit: str  # of both
    remark: str  # how it was measured

    @property
    def passed(self) -> bool | None:
        """None where there is no threshold; NaN never passes."""
        return None if self.threshold is None else bool(self.value <= self.threshold)

    @property
    def text(self) -> str:
        """The value for a table; a cross marks a violation."""
        if self.passed is None:
            return f"{self.value:.3g}"
        value = "failed" if math.isnan(self.value) else f"{self.value:.1e}"
        return value if self.passed else f"{value} ✗"

    @classmethod
    def failed(
        cls, name: str, error: Exception, threshold: float | None = 0.0, unit: str = ""
    ) -> Check:
        """The violation of a calculator that raised; the remark says what."""
        return cls(name, math.nan, threshold, unit, reason_of(error))


def measured_check(
    name: str, measure: Callable[[], float], threshold: float | None, unit: str, remark: str
) -> Check:
    """Measure a violation; a calculator that fails counts as one."""
    try:
        return Check(name, float(measure()), threshold, unit, remark)
    except Exception as error:  # calculators of others may raise anything
        return Check.failed(name, error, threshold, unit)


def energy_and_forces(atoms: Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (num_atoms, 3) (eV/A) of a copy of the atoms."""
    atoms = atoms.copy()
    atoms.calc = calculator
    forces = atoms.get_forces(apply_constraint=False)
    return atoms.get_potential_energy(), forces
