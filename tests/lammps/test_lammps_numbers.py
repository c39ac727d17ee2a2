"""LAMMPS and ASE agree on energy, forces, stress and shares of atoms, whatever the box."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from lammps_runs import NKTV2P, compare, run

from eqplugin import EqCalculator

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "old_files" / "models"
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"


def crystal(tilt=(0.0, 0.0, 0.0)):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Au"
    cell = atoms.cell.array.copy()
    cell[1, 0], cell[2, 0], cell[2, 1] = tilt
    atoms.set_cell(cell, scale_atoms=True)
    atoms.rattle(0.08, seed=1)
    return atoms


def cluster():
    atoms = Atoms("Cu4Au4", crystal().positions[:8], pbc=False)
    return atoms


def slab(open_axis=2):
    atoms = fcc111("Cu", (2, 2, 3), orthogonal=True)
    atoms.symbols[::3] = "Au"
    atoms.rattle(0.05, seed=2)
    order = np.roll(np.arange(3), open_axis - 2)
    turned = Atoms(atoms.symbols, atoms.positions[:, order], pbc=True)
    turned.cell = np.diag(np.diag(atoms.cell.array + 20 * np.diag([0, 0, 1]))[order])
    turned.pbc[open_axis] = False
    turned.positions[:, open_axis] += 5.0
    return turned


def wire():
    atoms = bulk("Cu", cubic=True) * (1, 1, 3)
    atoms.rattle(0.05, seed=2)
    atoms.pbc = (False, False, True)
    return atoms


@pytest.mark.parametrize(
    "tilt", [(0, 0, 0), (1.0, -0.5, 0.7), (-3.0, 2.0, 3.5), (9.0, -6.0, 8.0), (0, 0, 2.0)]
)
def test_crystals(tilt, folder):
    final = run(folder, crystal(tilt), EMT())
    atoms = compare(final, EMT(), energy=1e-11, force=1e-11)
    assert np.abs(final.forces).max() > 0.1
    assert np.abs(final.shares - atoms.get_potential_energies()).max() < 1e-11
    # but for the last digits of LAMMPS' own constant: equal
    assert np.abs(final.pressure / NKTV2P + atoms.get_stress()).max() < 1e-12


@pytest.mark.parametrize("boundary", ["f f f", "s s s", "m m m", "f s m", "fs s mf"])
def test_clusters_do_not_see_the_box(boundary, folder):
    final = run(folder, cluster(), EMT(), boundary=boundary)
    atoms = compare(final, EMT(), energy=1e-11, force=1e-11)
    virial = final.pressure / NKTV2P * atoms.get_volume()
    expected = (atoms.positions.T @ atoms.get_forces())[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert np.abs(virial - expected).max() < 1e-10


@pytest.mark.parametrize("open_axis", [0, 1, 2])
@pytest.mark.parametrize("kind", ["f", "s", "m"])
def test_slabs(open_axis, kind, folder):
    atoms = slab(open_axis)
    boundary = " ".join("p" if periodic else kind for periodic in atoms.pbc)
    final = run(folder, atoms, EMT(), boundary=boundary)
    compare(final, EMT(), energy=1e-11, force=1e-11)
    atoms.calc = EMT()  # the stress times the volume does not depend on the cell's open axis
    expected = -atoms.get_stress() * atoms.get_volume()
    volume = abs(np.linalg.det(final.cell))
    assert np.abs(final.pressure / NKTV2P * volume - expected).max() < 1e-9


def test_a_tilted_slab(folder):
    atoms = crystal((2.0, 0.0, 0.0))
    atoms.pbc = (False, True, True)
    final = run(folder, atoms, EMT(), boundary="s p p")
    compare(final, EMT(), energy=1e-11, force=1e-11)
    atoms.calc = EMT()
    expected = -atoms.get_stress() * atoms.get_volume()
    volume = abs(np.linalg.det(final.cell))
    assert np.abs(final.pressure / NKTV2P * volume - expected).max() < 1e-9


def test_a_wire(folder):
    final = run(folder, wire(), EMT(), boundary="s f p")
    compare(final, EMT(), energy=1e-11, force=1e-11)


@pytest.mark.parametrize("style", ["atomic", "charge", "full"])
def test_atoms_in_any_order_and_style(style, folder):
    atoms = crystal((1.0, -0.5, 0.7))
    ids = np.random.default_rng(3).permutation(np.arange(1, 3 * len(atoms), 3))
    sort = "pair_style zero 4.0\npair_coeff * *\natom_modify sort 1 2.0\nfix move all nve\nrun 3\n"
    final = run(folder, atoms, EMT(), sort, style=style, ids=ids)
    assert list(final.ids) == sorted(ids)
    compare(final, EMT(), energy=1e-11, force=1e-11)


def test_atoms_that_left_the_box(folder):
    atoms = crystal()
    far = atoms.copy()
    far.positions[::2] += 3 * far.cell[0] - 2 * far.cell[1]
    final = run(folder, far, EMT())
    atoms.calc = EMT()
    assert final.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)


# ---- models of both stacks, saved by an earlier version


def ethanol_crystal():
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.cell = [[6.0, 0, 0], [1.5, 5.5, 0], [-1.0, 0.8, 6.5]]
    atoms.pbc = True
    atoms.wrap()
    return atoms


def ethanol_molecule():
    atoms = read(ETHANOL / "test_300K.xyz", 0)
    atoms.cell, atoms.pbc = None, False
    return atoms


def ethanol_layer():
    atoms = ethanol_crystal()
    atoms.cell[2] = (0, 0, 30.0)
    atoms.pbc[2] = False
    return atoms


@pytest.mark.parametrize("name", ["mace_steerable.model", "steerable.ckpt", "khop.ckpt"])
@pytest.mark.parametrize("structure", [ethanol_crystal, ethanol_layer, ethanol_molecule])
def test_models(name, structure, folder):
    calculator = EqCalculator(MODELS / name, dtype="float64")
    final = run(folder, structure(), calculator, "fix move all nve\nrun 2\n")
    atoms = compare(final, EqCalculator(MODELS / name, dtype="float64", skin=0.0))
    assert np.abs(final.forces).max() > 0.01
    assert np.abs(final.shares - atoms.calc.results["energies"]).max() < 1e-9


@pytest.mark.parametrize("boundary", ["f f f", "s s s"])
def test_a_molecule_with_lennard_jones(boundary, folder):
    atoms = molecule("CH3CH2OH")
    options = {"sigma": 1.2, "epsilon": 0.1, "rc": 5.0}
    final = run(folder, atoms, LennardJones(**options), boundary=boundary)
    compare(final, LennardJones(**options), energy=1e-11, force=1e-9)
