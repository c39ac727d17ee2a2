"""Cu20Au12 with ASE's effective-medium theory: a small periodic set with stress."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from quickstart_data.recipe import (
    Dataset,
    FileRecipe,
    Tick,
    Trajectory,
    as_written,
    equilibrated_langevin,
    with_labels,
)

__all__ = ["CUAU"]

METHOD = {"code": "ase", "method": "EMT", "properties": "energy forces stress"}
SAMPLING = {
    "ensemble": "Langevin NVT, fixcm=False, a new random strain before every frame",
    "timestep_fs": 5.0,
    "friction_per_fs": 0.01,
    "equilibration_fs": 1000,
    "interval_fs": 75,
    "strain_std": 0.015,
    "lattice_constant_A": 3.79,
}
ORDER_SEED = 7  # one chemical ordering for all files, so that only positions and strain differ
NUM_GOLD = 12


def crystal() -> Atoms:
    """The unstrained 32-atom fcc cell, 20 Cu and 12 Au on random sites."""
    atoms = bulk("Cu", cubic=True, a=SAMPLING["lattice_constant_A"]) * (2, 2, 2)
    sites = np.random.default_rng(ORDER_SEED).permutation(len(atoms))[:NUM_GOLD]
    atoms.symbols[sites] = "Au"
    return atoms


def label(atoms: Atoms) -> Atoms:
    """Copy with EMT energy (eV), forces (num_atoms, 3) (eV/A) and stress (6,) (eV/A^3)."""
    return with_labels(atoms, EMT(), ("energy", "forces", "stress"))


def simulate(trajectory: Trajectory, tick: Tick) -> list[Atoms]:
    """Run one trajectory under changing strain.

    Each strain acts on the unstrained cell, so that strains do not add up over the run.

    Args:
        trajectory: seed, temperature (K), number of frames
        tick: called after each frame

    Returns:
        unlabelled frames
    """
    atoms, rng = crystal(), np.random.default_rng(trajectory.seed)
    unstrained = atoms.cell.array.copy()
    atoms.calc = EMT()
    dynamics = equilibrated_langevin(atoms, trajectory, SAMPLING, rng)
    frames = []
    for _ in range(trajectory.frames):
        noise = rng.normal(0.0, SAMPLING["strain_std"], (3, 3))
        cell = unstrained @ (np.eye(3) + (noise + noise.T) / 2)
        atoms.set_cell(cell, scale_atoms=True)
        dynamics.run(int(SAMPLING["interval_fs"] / SAMPLING["timestep_fs"]))
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=cell, pbc=True)
        frames.append(as_written(frame))
        tick()
    return frames


CUAU = Dataset(
    name="cuau-emt",
    method=METHOD,
    sampling=SAMPLING,
    packages=("ase", "numpy"),
    files=(
        FileRecipe(
            "train_600K", "training", (Trajectory(11, 600.0, 40), Trajectory(12, 600.0, 40))
        ),
        FileRecipe("val_600K", "validation while training", (Trajectory(21, 600.0, 20),)),
        FileRecipe("test_600K", "test", (Trajectory(31, 600.0, 30),)),
    ),
    simulate=simulate,
    label=label,
)
