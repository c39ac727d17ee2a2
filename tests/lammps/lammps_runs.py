"""Runs of the real LAMMPS, with numbers to all digits on both sides."""

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols

from eqplugin.errors import EqPluginError
from eqplugin.lammps.driver import run_lammps
from eqplugin.lammps.library import load_lammps

NKTV2P = 1.6021765e6  # LAMMPS' eV/A^3 in bar, eight digits
STRESS = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
START = """
units metal
atom_style {style}
boundary {boundary}
box tilt large
read_data {name}.data
include ${{eqplugin}}
compute shares all pe/atom
"""
END = """
run 0
write_dump all custom {name}.final id type x y z vx vy vz fx fy fz c_shares &
    modify sort id format float %.17g
print "$(pe:%.17g) $(pxx:%.17g) $(pyy:%.17g) $(pzz:%.17g) $(pyz:%.17g) $(pxz:%.17g) $(pxy:%.17g)" &
    file {name}.thermo
"""


def need_lammps():
    """Skip where there is no LAMMPS to run."""
    try:
        load_lammps()
    except EqPluginError as error:
        pytest.skip(str(error))


def write_data(path, atoms, style="atomic", ids=None):
    """A data file of atoms whose cell is a lower triangle; open axes get faces around the atoms."""
    elements = sorted(set(atoms.numbers))
    low, high = np.zeros(3), np.diag(atoms.cell).copy()
    for axis in np.flatnonzero(~atoms.pbc):
        low[axis] = atoms.positions[:, axis].min() - 2.0
        high[axis] = atoms.positions[:, axis].max() + 2.0
    xy, xz, yz = atoms.cell[1, 0], atoms.cell[2, 0], atoms.cell[2, 1]
    lines = ["", "", f"{len(atoms)} atoms", f"{len(elements)} atom types"]
    for axis, name in enumerate("xyz"):
        lines.append(f"{low[axis]:.17g} {high[axis]:.17g} {name}lo {name}hi")
    if any((xy, xz, yz)):
        lines.append(f"{xy:.17g} {xz:.17g} {yz:.17g} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{n + 1} {atomic_masses[z]}" for n, z in enumerate(elements)]
    lines += ["", "Atoms", ""]
    ids = np.arange(len(atoms)) + 1 if ids is None else ids
    extra = {"atomic": "{t}", "charge": "{t} 0.0", "full": "1 {t} 0.0"}[style]
    for tag, z, place in zip(ids, atoms.numbers, atoms.positions, strict=True):
        kind = extra.format(t=elements.index(z) + 1)
        lines.append(f"{tag} {kind} " + " ".join(f"{x:.17g}" for x in place))
    if atoms.get_momenta().any():
        lines += ["", "Velocities", ""]
        for tag, v in zip(ids, atoms.get_velocities(), strict=True):
            lines.append(f"{tag} " + " ".join(f"{x:.17g}" for x in v))
    path.write_text("\n".join(lines) + "\n")


class Final:
    """What a run left: per-atom arrays in the order of IDs, and thermodynamic numbers."""

    def __init__(self, folder, name="run", pbc=True, elements=("Cu",)):
        lines = (folder / f"{name}.final").read_text().splitlines()
        table = np.array([line.split() for line in lines[9:]], dtype=float)
        self.boundary = lines[4].split()[-3:]
        self.ids, self.types = table[:, 0].astype(int), table[:, 1].astype(int)
        self.positions, self.velocities, self.forces = table[:, 2:5], table[:, 5:8], table[:, 8:11]
        self.shares = table[:, 11]
        numbers = np.array((folder / f"{name}.thermo").read_text().split(), dtype=float)
        self.energy, self.pressure = numbers[0], numbers[1:]
        self.cell = box_of(lines)
        symbols = [elements[kind - 1] for kind in self.types]
        self.atoms = Atoms(symbols, self.positions, cell=self.cell, pbc=pbc)

    def stress(self, volume):
        """Stress without the share of the motion, eV/A^3, of a box of this volume."""
        masses = self.atoms.get_masses()[:, None]
        v = self.velocities
        # A^2/ps^2 amu in eV, LAMMPS' digits
        kinetic = 1.0364269e-4 * (masses * v).T @ v / volume
        tensor = kinetic[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return -(self.pressure / NKTV2P - tensor)


def box_of(lines):
    """The lattice vectors of a dump."""
    bounds = np.array([line.split() for line in lines[5:8]], dtype=float)
    if bounds.shape[1] == 2:
        return np.diag(bounds[:, 1] - bounds[:, 0])
    xy, xz, yz = bounds[:, 2]
    low = bounds[:, 0] - [min(0, xy, xz, xy + xz), min(0, yz), 0]
    high = bounds[:, 1] - [max(0, xy, xz, xy + xz), max(0, yz), 0]
    return np.add(np.diag(high - low), [[0, 0, 0], [xy, 0, 0], [xz, yz, 0]])


def run(folder, atoms, calculator, commands="", boundary=None, name="run", **options):
    """Read atoms, run commands and return what is there at the end."""
    style, ids = options.pop("style", "atomic"), options.pop("ids", None)
    write_data(folder / f"{name}.data", atoms, style, ids)
    boundary = boundary or " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    text = START.format(style=style, boundary=boundary, name=name) + commands
    return run_text(folder, text, calculator, atoms, name, **options)


def run_text(folder, text, calculator, atoms, name="run", **options):
    """Run commands and return what is there at the end."""
    (folder / f"in.{name}").write_text(text + END.format(name=name))
    run_lammps(calculator, folder / f"in.{name}", log=None, screen=False, **options)
    elements = [chemical_symbols[z] for z in sorted(set(atoms.numbers))]
    return Final(folder, name, atoms.pbc, elements)


def compare(final, calculator, energy=1e-9, force=1e-9, stress=1e-6):
    """The calculator's own numbers of the final structure."""
    atoms = final.atoms.copy()
    atoms.calc = calculator
    assert final.energy == pytest.approx(atoms.get_potential_energy(), abs=energy)
    assert np.abs(final.forces - atoms.get_forces()).max() < force
    if atoms.pbc.all():
        mine, theirs = final.stress(atoms.get_volume()), atoms.get_stress()
        assert np.abs(mine - theirs).max() <= stress * np.abs(theirs).max()
    return atoms
