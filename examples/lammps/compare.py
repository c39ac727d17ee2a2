"""Do LAMMPS and the ASE calculator agree on a model? Energy and forces of one structure.

    nequip-prepare-lmp-mliap best.ckpt model.nequip.lmp.pt
    python examples/lammps/compare.py best.ckpt model.nequip.lmp.pt structure.xyz

    eqplugin mace-export a.model --format mliap --out a-mliap.pt
    python examples/lammps/compare.py a.model a-mliap.pt structure.xyz

On a GPU: --flags="-k on g 1 -sf kk -pk kokkos newton on neigh half". Exit status: 0 they agree,
1 they do not or something failed, 77 there is no LAMMPS here that can run ML-IAP models.
"""

import argparse
import shlex
import sys

from eqplugin.errors import EqPluginError
from eqplugin.md.lammps import LammpsMissing, compare
from eqplugin.md.opening import open_calculator
from eqplugin.md.start import read_structures

# float32 models differ in the order of their sums: eV per atom, eV/A
ENERGY, FORCE = 1e-5, 1e-3


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
        calculator = open_calculator(chosen.model)
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
