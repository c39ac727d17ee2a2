"""What holds for every potential: symmetries, forces as a gradient, extensivity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.measure.physics.verdict import Check, evaluated, judge

__all__ = ["Precision", "symmetry_checks"]


@dataclass(frozen=True)
class Precision:
    """How far rounding may go.

    Attributes:
        energy: eV per atom.
        force: eV/A.
        gradient: eV/A, for forces against differences of energies.
        step: A, of these differences.
    """

    energy: float
    force: float
    gradient: float
    step: float

    @classmethod
    def of(cls, dtype: str) -> Precision:
        """For ``float64``, or for ``float32``, in which most calculators run."""
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

    Raises:
        EqPluginError: a structure that the calculator cannot evaluate.
    """
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    try:
        energy, forces = evaluated(atoms, calculator)
    except Exception as error:  # calculators of others may raise anything
        reason = reason_of(error).rstrip(".")
        raise EqPluginError(
            f"{calculator.name}: the structure cannot be evaluated ({reason}): give one that the "
            f"model is made for."
        ) from error
    per_atom, unit = precision.energy * len(atoms), "eV/Å"

    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(atoms))
    shift = rng.normal(size=3)

    def rotated(matrix: np.ndarray) -> float:
        other = evaluated(_turned(atoms, matrix), calculator)
        return max(
            abs(other[0] - energy) / len(atoms) * precision.force / precision.energy,
            np.abs(other[1] - forces @ matrix.T).max(),
        )

    def translated() -> float:
        moved = atoms.copy()
        moved.positions += shift
        return np.abs(evaluated(moved, calculator)[1] - forces).max()

    def permuted() -> float:
        return np.abs(evaluated(atoms[order], calculator)[1] - forces[order]).max()

    checks = [
        judge("rotation", lambda: rotated(rotation), precision.force, unit, "a random one"),
        judge("inversion", lambda: rotated(-np.eye(3)), precision.force, unit, "all of space"),
        judge("translation", translated, precision.force, unit, "by a random vector"),
        judge("permutation", permuted, precision.force, unit, "a random order of atoms"),
        judge(
            "no net force", lambda: np.abs(forces.sum(0)).max(), precision.force * len(atoms), unit,
            "sum over atoms",
        ),
        judge(
            "forces = -dE/dx", lambda: _gradient_error(atoms, calculator, forces, precision, rng),
            precision.gradient, unit, f"differences of 4th order, step {precision.step:g} Å",
        ),
    ]  # fmt: skip
    if not atoms.pbc.any():
        two = atoms.copy()
        two.positions += [1000.0, 0, 0]
        apart = atoms + two
        checks.append(
            judge(
                "extensivity", lambda: abs(evaluated(apart, calculator)[0] - 2 * energy),
                2 * per_atom, "eV", "two copies, 1000 Å apart",
            )
        )  # fmt: skip
    else:
        checks.append(
            judge(
                "extensivity",
                lambda: abs(evaluated(atoms.repeat((2, 1, 1)), calculator)[0] - 2 * energy),
                2 * per_atom, "eV", "the cell and its double",
            )
        )  # fmt: skip
    return checks


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
            energies.append(evaluated(moved, calculator)[0])
        # fourth order: the error falls with step^4, so stiff structures do not fail
        slope = np.dot([1, -8, 8, -1], energies) / (12 * precision.step)
        worst = max(worst, abs(slope + (forces * direction).sum()))
    return worst
