"""From the atoms and the box of LAMMPS to a calculator, and back."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.lammps.species import TypeTable

_VOIGT = (0, 1, 2, 5, 4, 3)  # LAMMPS: xx yy zz xy xz yz; ASE: xx yy zz yz xz xy
_REAL = ctypes.POINTER(ctypes.c_double)


class Forces:
    """The callback of ``fix external``: a calculator's energy, forces and virial.

    Args:
        lmp: LAMMPS, with a box.
        calculator: any ASE calculator.
        types: elements of the atom types.
        fix: ID of the fix.
        step: name of the internal variable that is set to the step once its forces are there.
    """

    def __init__(
        self, lmp: Any, calculator: Calculator, types: TypeTable, fix: str, step: str
    ) -> None:
        self._lmp = lmp
        self._calculator = calculator
        self._types = types
        self._fix = fix
        self._step = step

    def evaluate(self, step: int, tags: NDArray, positions: NDArray, forces: NDArray) -> None:
        """Evaluate the calculator and hand everything to LAMMPS.

        Args:
            step: number of the step.
            tags: IDs of the atoms, (num_atoms,). LAMMPS reorders atoms; the calculator sees them in
                the order of their IDs, so that its sums do not depend on it.
            positions: A, (num_atoms, 3).
            forces: eV/A, (num_atoms, 3), overwritten.

        Raises:
            EqPluginError: what the calculator, or a type without an element, stops at.
        """
        if not tags.all():
            raise EqPluginError("the LAMMPS atoms have no IDs: remove `atom_modify id no`.")
        order = np.argsort(tags)
        types = self._lmp.numpy.extract_atom("type")[: len(tags)]
        atoms = Atoms(self._types.numbers(types[order]), positions[order])
        atoms.cell, atoms.pbc = box_cell(self._lmp)
        energy, virial = 0.0, np.zeros(6)  # where all atoms are lost or deleted
        if len(atoms):
            energy, forces[order], virial = self._results(atoms)
            self._hand_over_per_atom(self._calculator.results.get("energies"), order)
        self._lmp.fix_external_set_energy_global(self._fix, energy)
        self._lmp.fix_external_set_virial_global(self._fix, virial.tolist())
        self._lmp.set_internal_variable(self._step, float(step))

    def _results(self, atoms: Atoms) -> tuple[float, NDArray, NDArray]:
        virial = None
        if atoms.pbc.any():  # the stress first: forces then come from the same evaluation
            stress = self._calculator.get_property("stress", atoms)
            virial = -atoms.cell.volume * np.asarray(stress)[list(_VOIGT)]
        forces = self._calculator.get_property("forces", atoms)
        energy = float(self._calculator.get_property("energy", atoms))
        if virial is None:
            virial = open_virial(atoms.positions, forces)
        if not np.isfinite(energy + forces.sum() + virial.sum()):
            raise EqPluginError("the model returned energy or forces that are not finite.")
        return energy, forces, virial

    def _hand_over_per_atom(self, energies: NDArray | None, order: NDArray) -> None:
        """Energies of atoms; NaN for what there is not, which LAMMPS would take for zero."""
        share = np.full(len(order), np.nan)
        if energies is not None:
            share[order] = energies
        row = np.full(6, np.nan)
        rows = (_REAL * len(order))(*[row.ctypes.data_as(_REAL)] * len(order))
        library, handle, fix = self._lmp.lib, self._lmp.lmp, self._fix.encode()
        library.lammps_fix_external_set_energy_peratom(handle, fix, share.ctypes.data_as(_REAL))
        library.lammps_fix_external_set_virial_peratom(handle, fix, rows)


def box_cell(lmp: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Lattice vectors (3, 3) in A and periodicity of the box.

    What is not periodic must not enter: LAMMPS moves such faces with the atoms. Its vector here is
    1 A along the axis, to which LAMMPS allows no tilt.
    """
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    pbc = np.array(periodic, dtype=bool)
    if not pbc.any():
        return np.zeros((3, 3)), pbc
    cell = np.diag(np.where(pbc, np.subtract(high, low), 1.0))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, pbc


def open_virial(positions: NDArray, forces: NDArray) -> NDArray[np.float64]:
    """Virial of atoms without periodicity, eV: xx, yy, zz, xy, xz, yz."""
    tensor = (positions - positions.mean(axis=0)).T @ forces
    tensor = 0.5 * (tensor + tensor.T)
    return tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
