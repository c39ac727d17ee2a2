"""Energies, forces and stress that an ASE calculator predicts for labelled frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.measure.labels import LabelledFrame

__all__ = ["FrameResult", "evaluate"]


@dataclass(frozen=True)
class FrameResult:
    """Reference (first) and prediction (second) of one frame; None where either is absent."""

    numbers: np.ndarray  #: atomic numbers, (num_atoms,)
    config_type: str  #: the frame's group
    energy: np.ndarray | None  #: eV, (2,)
    forces: np.ndarray | None  #: eV/A, (num_atoms, 3, 2)
    stress: np.ndarray | None  #: eV/A^3, (6, 2)


def evaluate(
    calculator: Calculator,
    frames: Sequence[LabelledFrame],
    tick: Callable[[], None] = lambda: None,
) -> list[FrameResult]:
    """Predict what the frames are labelled with, and nothing else.

    Args:
        calculator: any ASE calculator; what it does not offer is as absent as what is not labelled.
        frames: from :func:`eqplugin.measure.labels.read_labelled`.
        tick: called after each frame, for a progress bar.

    Raises:
        EqPluginError: the calculator fails on a frame, or predicts NaN or infinity; the sentence
            names the frame.
    """
    results = []
    for index, frame in enumerate(frames):
        try:
            results.append(_evaluate_frame(calculator, frame))
        except Exception as error:  # calculators of others may raise anything
            raise EqPluginError(f"frame {index}: {reason_of(error)}") from error
        tick()
    return results


def _evaluate_frame(calculator: Calculator, frame: LabelledFrame) -> FrameResult:
    atoms = frame.atoms.copy()
    atoms.set_constraint()  # references are forces on free atoms
    atoms.calc = calculator
    # stress and forces before the energy: one model call then serves all
    stress = _pair("stress", frame.stress, atoms.get_stress)
    forces = _pair("forces", frame.forces, atoms.get_forces)
    energy = _pair("energy", frame.energy, atoms.get_potential_energy)
    return FrameResult(atoms.numbers, frame.config_type, energy, forces, stress)


def _pair(label: str, reference: object, predict: Callable[[], object]) -> np.ndarray | None:
    if reference is None:
        return None
    try:
        predicted = np.asarray(predict(), float)
    except PropertyNotImplementedError:  # a model without stress still has forces to compare
        return None
    if not np.isfinite(predicted).all():
        raise EqPluginError(f"the predicted {label} is not finite.")
    return np.stack([np.asarray(reference, float), predicted], axis=-1)
