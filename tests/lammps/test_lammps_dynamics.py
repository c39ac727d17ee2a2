"""Dynamics, minimisation and restarts in LAMMPS; what an input may do between runs."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.verlet import VelocityVerlet
from lammps_runs import START, compare, run, run_text, write_data

from eqplugin.errors import EqPluginError
from eqplugin.lammps.driver import run_lammps

MVV2E = 1.0364269e-4  # LAMMPS' amu A^2/ps^2 in eV, eight digits


def crystal(temperature=0.0, tilt=0.0):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Au"
    cell = atoms.cell.array.copy()
    cell[1, 0], cell[2, 0] = tilt, -0.5 * tilt
    atoms.set_cell(cell, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    if temperature:
        spread = np.sqrt(units.kB * temperature / atoms.get_masses()[:, None])
        atoms.set_velocities(spread * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    return atoms


@pytest.mark.parametrize("periodic", [True, False], ids=["crystal", "cluster"])
def test_nve_is_ases_velocity_verlet(periodic, folder):
    atoms = crystal(400.0)
    if not periodic:
        atoms = atoms[:13]
        atoms.pbc = False
    # velocities in the data file are in A/ps
    ps = atoms.copy()
    ps.set_velocities(atoms.get_velocities() * 1000 * units.fs)
    final = run(folder, ps, EMT(), "fix move all nve\ntimestep 0.002\nrun 100\n")
    # the same unit of time in both: LAMMPS rounds its constant to eight digits
    ratio = np.sqrt(MVV2E / (1e-6 / units.fs**2))
    atoms.calc = EMT()
    atoms.set_velocities(atoms.get_velocities() * ratio)
    VelocityVerlet(atoms, 2 * units.fs / ratio).run(100)
    moved = final.positions - atoms.positions
    moved -= np.round(moved @ np.linalg.pinv(atoms.cell.array)) @ atoms.cell.array
    assert np.abs(moved).max() < 1e-9
    assert final.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.abs(final.forces - atoms.get_forces()).max() < 1e-8
    compare(final, EMT())


THERMO = "velocity all create 600 7\ntimestep 0.002\n"
COMMANDS = {
    "nvt": "fix move all nvt temp 600 600 0.1",
    "langevin": "fix move all nve\nfix heat all langevin 600 600 0.1 11",
    "csvr": "fix move all nve\nfix heat all temp/csvr 600 600 0.1 11",
    "npt": "fix move all npt temp 600 600 0.1 iso 0 0 0.5",
    "npt tri": "fix move all npt temp 600 600 0.1 tri 0 0 0.5",
    "flip": "fix move all nvt temp 600 600 0.1\nfix shear all deform 1 xy erate 4 remap v flip yes",
    "squeeze": "fix move all nve\nfix squeeze all deform 1 x scale 0.95 y scale 1.02",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ensembles(name, folder):
    start = crystal(tilt=1.0 if name in ("npt tri", "flip") else 0.0)
    quiet = "unfix heat\n" if name == "langevin" else ""  # its kicks are among the forces
    final = run(folder, start, EMT(), f"{THERMO}{COMMANDS[name]}\nrun 100\n{quiet}")
    compare(final, EMT(), energy=1e-10, force=1e-10)
    if name == "flip":  # past a tilt of half the box the box was flipped
        assert abs(final.cell[1, 0]) < 0.5 * final.cell[0, 0]
    if name in ("npt", "npt tri", "flip", "squeeze"):
        assert np.abs(final.cell - start.cell).max() > 0.01


@pytest.mark.parametrize("name", ["nvt", "npt tri"])
def test_half_and_half_is_the_whole(name, folder):
    atoms = crystal(tilt=1.0)
    move = COMMANDS[name]
    whole = run(folder, atoms, EMT(), f"{THERMO}{move}\nrun 100\n", name="whole")
    first = f"{THERMO}{move}\nrun 50\nwrite_restart half\n"
    run(folder, atoms, EMT(), first, name="first")
    again = START.replace("read_data {name}.data", "read_restart half")
    again = "\n".join(line for line in again.splitlines() if "style" not in line)
    text = f"{again.format(boundary='p p p', name='again')}\ntimestep 0.002\n{move}\nrun 50\n"
    both = run_text(folder, text, EMT(), atoms, "again")
    assert np.abs(both.positions - whole.positions).max() < 1e-12
    assert np.abs(both.velocities - whole.velocities).max() < 1e-11
    assert both.energy == pytest.approx(whole.energy, abs=1e-12)


@pytest.mark.parametrize("style", ["cg", "sd", "fire", "hftn"])
def test_minimisation(style, folder):
    final = run(folder, crystal(), EMT(), f"min_style {style}\nminimize 0 1e-4 500 1000\n")
    compare(final, EMT(), energy=1e-10, force=1e-10)
    assert np.abs(final.forces).max() < (0.1 if style == "sd" else 1e-3)


def test_relaxation_of_the_box(folder):
    commands = "fix box all box/relax aniso 0.0 vmax 0.01\nminimize 0 1e-6 500 2000\n"
    final = run(folder, crystal(), EMT(), commands)
    atoms = compare(final, EMT(), energy=1e-10, force=1e-10, stress=1e-3)
    assert np.abs(atoms.get_stress()[:3]).max() < 1e-5
    assert np.abs(final.forces).max() < 1e-3


def test_atoms_come_and_go(folder):
    commands = """
fix move all nve
run 5
group half id 1:10
delete_atoms group half
run 5
set atom 20 type 2
run 5
change_box all x scale 1.05 remap
run 5
create_atoms 1 single 1.0 1.0 1.0
run 5
"""
    final = run(folder, crystal(300.0), EMT(), commands)
    assert len(final.ids) == 23
    compare(final, EMT(), energy=1e-9)


def test_an_empty_box(folder):
    commands = """
fix move all nve
run 2
delete_atoms group all
run 1
print "$(pe) $(press)" file empty
create_atoms 1 single 1.0 1.0 1.0
"""
    final = run(folder, crystal(300.0), EMT(), commands)
    assert (folder / "empty").read_text().split() == ["0", "0"]
    assert len(final.ids) == 1
    compare(final, EMT())


def test_lost_atoms(folder):
    atoms = Atoms("Cu5", [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5], [2.5, 2.5, 0]])
    atoms.set_velocities([[0, 0, 0]] * 3 + [[0, 0, 200.0]] + [[0, 0, 0]])
    lost = "thermo_modify lost ignore\nfix move all nve\nrun 40\n"
    final = run(folder, atoms, EMT(), lost)
    assert len(final.ids) == 4
    compare(final, EMT())


def test_loops_conditions_and_included_files(folder):
    for scale in (0.98, 1.02):
        atoms = crystal()
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        write_data(folder / f"s{scale}.data", atoms)
    (folder / "model.in").write_text("include ${eqplugin}\n")
    (folder / "in.loop").write_text("""
variable scale index 0.98 1.02
label again
clear
units metal
read_data s${scale}.data
if "${scale} > 1" then "include model.in" else "include ${eqplugin}"
run 0
print "$(pe:%.17g)" append energies
next scale
jump SELF again
""")
    run_lammps(EMT(), "in.loop", log=None, screen=False)
    energies = np.loadtxt(folder / "energies")
    for found, scale in zip(energies, (0.98, 1.02), strict=True):
        atoms = crystal()
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.calc = EMT()
        assert found == pytest.approx(atoms.get_potential_energy(), abs=1e-10)


def test_another_potential_beside_the_model(folder):
    extra = "pair_style lj/cut 4.0\npair_coeff * * 0.01 2.3\n"
    alone = run(folder, crystal(), EMT(), name="alone")
    final = run(folder, crystal(), EMT(), extra, name="both")
    before = START.replace("include", f"{extra}include").format(
        style="atomic", boundary="p p p", name="both"
    )
    other = run_text(folder, before, EMT(), crystal(), "other")
    assert final.energy == pytest.approx(other.energy, abs=1e-12)
    assert abs(final.energy - alone.energy) > 0.01


LISTS = "pair_style zero 5.0\npair_coeff * *\n"  # some fixes want a pair style


@pytest.mark.parametrize(
    "change",
    [
        "fix mc all atom/swap 5 3 1 600 ke no types 1 2",
        "region all block INF INF INF INF INF INF\n"
        "fix mc all gcmc 5 10 10 2 123 600 -1.0 0.1 full_energy",
        "fix mc all deposit 3 2 4 5 region all units box\n",
    ],
    ids=["swap", "gcmc", "deposit"],
)
def test_fixes_that_change_atoms(change, folder):
    if "deposit" in change:
        change = "region all block 2 5 2 5 2 5 units box\n" + change
    final = run(folder, crystal(300.0), EMT(), f"{LISTS}{change}\nfix move all nve\nrun 20\n")
    assert "swap" in change or len(final.ids) != 32
    compare(final, EMT(), energy=1e-9, force=1e-9)


def test_hessian(folder):
    atoms = crystal()[:8]
    atoms.pbc = False
    matrix = "atom_modify map array\ndynamical_matrix all eskm 1e-4 file hessian\n"
    with pytest.raises(EqPluginError, match="map"):  # LAMMPS wants it before the box
        run(folder, atoms, EMT(), matrix)
    write_data(folder / "run.data", atoms)
    text = START.format(style="atomic", boundary="f f f", name="run")
    text = text.replace("read_data", "atom_modify map array\nread_data")
    run_text(folder, f"{text}\ndynamical_matrix all regular 1e-4 file hessian\n", EMT(), atoms)
    found = np.loadtxt(folder / "hessian").reshape(24, 24)
    atoms.calc = EMT()
    expected = np.zeros((24, 24))
    for row in range(24):
        forces = []
        for step in (1e-4, -1e-4):
            atoms.positions[row // 3, row % 3] += step
            forces.append(atoms.get_forces().ravel())
            atoms.positions[row // 3, row % 3] -= step
        expected[row] = (forces[1] - forces[0]) / 2e-4
    masses = np.repeat(atoms.get_masses(), 3)
    expected /= np.sqrt(np.outer(masses, masses))
    scale = (found * expected).sum() / (expected**2).sum()  # a unit of LAMMPS'
    assert np.abs(found - scale * expected).max() < 1e-5 * np.abs(found).max()


def test_rerun(folder):
    commands = """
fix move all nve
dump all all custom 5 frames id type x y z
dump_modify all format float %.17g
run 10
undump all
rerun frames first 5 last 5 dump x y z
print "$(pe:%.17g)" file again
"""
    final = run(folder, crystal(300.0), EMT(), commands)
    compare(final, EMT())
    frames = read(folder / "frames", ":", format="lammps-dump-text")
    assert np.abs(final.positions - frames[1].positions).max() < 1e-12
    assert float((folder / "again").read_text()) == pytest.approx(final.energy, abs=1e-12)
