"""What holds for every potential: symmetries, forces as a gradient, extensivity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.measure.physics.check import Check, energy_and_forces, measured_check


@dataclass(frozen=True)
class Precision:
    """How far rounding may go."""

    energy: float  # eV per atom
    force: float  # eV/A
    gradient: float  # eV/A, for forces against differences of energies
    step: float  # A, of these differences

    @classmethod
    def of(cls, dtype: str) -> Precision:
        """The limits for ``float64``, or for ``float32``, in which most calculators run."""
        if dtype == "float64":
            # a MACE model saved in float32 keeps its coupling coefficients rounded to that, which
            # turns with no rotation: 2e-9 eV/A were seen
            return cls(energy=1e-9, force=1e-7, gradient=1e-5, step=1e-3)
        return cls(energy=1e-5, force=1e-4, gradient=2e-2, step=2e-2)


def symmetry_checks(
    calculator: Calculator, atoms: Atoms, precision: Precision, seed: int = 0
) -> list[Check]:
    """Rotation, inversion, translation, permutation, size, gradient.

    Args:
        calculator: any ASE calculator.
        atoms: a structure without special symmetry, or the checks say little.
        precision: what to put down to rounding.
        seed: of the rotation, the permutation and the directions.
    """
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    try:
        energy, forces = energy_and_forces(atoms, calculator)
    except Exception as error:  # calculators of others may raise anything
        reason = reason_of(error).rstrip(".")
        raise EqPluginError(
            f"{calculator.name}: the structure cannot be evaluated ({reason}): give one that "
            f"the model is meant for."
        ) from error

    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(atoms))
    shift = rng.normal(size=3)

    def rotated(matrix: np.ndarray) -> float:
        other = energy_and_forces(_turned(atoms, matrix), calculator)
        return max(
            abs(other[0] - energy) / len(atoms) * precision.force / precision.energy,
            np.abs(other[1] - forces @ matrix.T).max(),
        )

    def translated() -> float:
        moved = atoms.copy()
        moved.positions += shift
        return np.abs(energy_and_forces(moved, calculator)[1] - forces).max()

    def permuted() -> float:
        return np.abs(energy_and_forces(atoms[order], calculator)[1] - forces[order]).max()

    def net_force() -> float:
        return np.abs(forces.sum(0)).max()

    def gradient_error() -> float:
        return _gradient_error(atoms, calculator, forces, precision, rng)

    force = precision.force
    differences = f"differences of 4th order, step {precision.step:g} Å"
    checks = [
        measured_check(name, measure, limit, "eV/Å", remark)
        for name, measure, limit, remark in (
            ("rotation", lambda: rotated(rotation), force, "a random one"),
            ("inversion", lambda: rotated(-np.eye(3)), force, "all of space"),
            ("translation", translated, force, "by a random vector"),
            ("permutation", permuted, force, "a random order of atoms"),
            ("no net force", net_force, force * len(atoms), "sum over atoms"),
            ("forces = -dE/dx", gradient_error, precision.gradient, differences),
        )
    ]
    twice, remark = _doubled(atoms)
    return [
        *checks,
        measured_check(
            "extensivity", lambda: abs(energy_and_forces(twice, calculator)[0] - 2 * energy),
            2 * precision.energy * len(atoms), "eV", remark,
        ),
    ]  # fmt: skip


def _doubled(atoms: Atoms) -> tuple[Atoms, str]:
    """Twice the structure, and how it was made."""
    if atoms.pbc.any():
        return atoms.repeat((2, 1, 1)), "the cell and its double"
    moved = atoms.copy()
    moved.positions += [1000.0, 0, 0]
    return atoms + moved, "two copies, 1000 Å apart"


def _turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    turned.positions = atoms.positions @ matrix.T
    return turned


def _gradient_error(
    atoms: Atoms,
    calculator: Calculator,
    forces: np.ndarray,
    precision: Precision,
    rng: np.random.Generator,
    directions: int = 3,
) -> float:
    """Largest difference along random directions of all atoms together."""
    worst = 0.0
    for _ in range(directions):
        direction = rng.normal(size=forces.shape)
        direction /= np.linalg.norm(direction)
        energies = []
        for steps in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions += steps * precision.step * direction
            energies.append(energy_and_forces(moved, calculator)[0])
        # fourth order: the error falls with step^4, so stiff structures do not fail
        slope = np.dot([1, -8, 8, -1], energies) / (12 * precision.step)
        worst = max(worst, abs(slope + (forces * direction).sum()))
    return worst
