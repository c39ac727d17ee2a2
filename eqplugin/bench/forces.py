"""Energy and force errors of an ASE calculator on labelled frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

__all__ = ["ForceErrors", "Predictions", "predict"]


@dataclass(frozen=True)
class ForceErrors:
    """Errors over a set of frames, in meV and meV/A."""

    frames: int
    force_mae: float
    force_rmse: float
    energy_mae_per_atom: float


@dataclass(frozen=True)
class Predictions:
    """Reference and predicted labels, frame by frame.

    Attributes:
        energies: (num_frames, 2), reference and predicted energy per atom, eV.
        forces: (num_components, 2), reference and predicted force components, eV/A.
    """

    energies: np.ndarray
    forces: np.ndarray

    def errors(self) -> ForceErrors:
        """Mean absolute and root mean square errors over components and frames."""
        force = self.forces[:, 1] - self.forces[:, 0]
        energy = self.energies[:, 1] - self.energies[:, 0]
        return ForceErrors(
            frames=len(self.energies),
            force_mae=1e3 * float(np.abs(force).mean()),
            force_rmse=1e3 * float(np.sqrt(np.square(force).mean())),
            energy_mae_per_atom=1e3 * float(np.abs(energy).mean()),
        )


def predict(
    calculator: Calculator,
    frames: Sequence[Atoms],
    tick: Callable[[], None] = lambda: None,
) -> Predictions:
    """Evaluate a calculator on frames that carry reference energies and forces.

    Args:
        calculator: any ASE calculator.
        frames: labelled frames (a SinglePointCalculator attached, as ase.io.read leaves them).
        tick: called after each frame, for a progress bar.
    """
    energies, forces = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        # forces first: one model call then serves both
        predicted = atoms.get_forces()
        forces.append(np.stack([frame.get_forces().ravel(), predicted.ravel()], axis=1))
        pair = frame.get_potential_energy(), atoms.get_potential_energy()
        energies.append(np.array(pair, dtype=float) / len(frame))
        tick()
    return Predictions(np.array(energies), np.concatenate(forces))
