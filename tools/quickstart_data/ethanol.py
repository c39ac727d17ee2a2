"""Ethanol with GFN2-xTB: independent Langevin trajectories at 300, 600 and 1200 K.

tblite is imported only when a label is computed: reading and checking data does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from ase.optimize import BFGS

from eqplugin.data.errors import DataError
from quickstart_data.recipe import (
    Dataset,
    FileRecipe,
    Tick,
    Trajectory,
    as_written,
    equilibrated_langevin,
    with_labels,
)

__all__ = ["ETHANOL", "changed_bonds"]

METHOD = {"code": "tblite", "method": "GFN2-xTB", "accuracy": 0.1, "properties": "energy forces"}
SAMPLING = {
    "ensemble": "Langevin NVT, fixcm=False",
    "timestep_fs": 1.0,
    "friction_per_fs": 0.02,
    "equilibration_fs": 1000,
    "interval_fs": 50,
    "relaxation": "BFGS to 0.02 eV/A",
}

# Unpaired electrons of the ground-state atoms. They are written into the file, so that the labels
# can be recomputed from the file alone.
UNPAIRED = {"H": 1, "C": 2, "O": 2}

# In units of the sum of covalent radii. Vibrations at 1200 K stay well inside these.
BROKEN, FORMED = 1.5, 1.15


def _tblite(**settings: object) -> object:
    """A silent GFN2-xTB calculator.

    Raises:
        DataError: tblite is not installed
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise DataError(
            "GFN2-xTB labels need tblite, which is not installed: pip install tblite threadpoolctl."
        ) from error
    return TBLite(method=METHOD["method"], accuracy=METHOD["accuracy"], verbosity=0, **settings)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Nine atoms need no second thread, and sums in another order would be other bytes."""
    _tblite()  # the limit reaches only libraries that are loaded
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@_one_thread()
def label(atoms: Atoms) -> Atoms:
    """Copy of ``atoms`` with GFN2-xTB energy (eV) and forces (num_atoms, 3) (eV/A)."""
    unpaired = int(atoms.info.get("unpaired_electrons", 0))
    properties = ("energy",) if len(atoms) == 1 else ("energy", "forces")
    return with_labels(atoms, _tblite(multiplicity=unpaired + 1), properties)


@_one_thread()
def isolated_atoms() -> list[Atoms]:
    """The unlabelled single atoms H, C, O whose energies are the reference of the data."""
    return [
        Atoms(s, info={"config_type": "IsolatedAtom", "unpaired_electrons": n})
        for s, n in UNPAIRED.items()
    ]


def _relaxed() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.calc = _tblite()
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    return atoms


def _relative_distances(atoms: Atoms) -> np.ndarray:
    """(num_atoms, num_atoms) distances over the sum of covalent radii, infinite on the diagonal."""
    radii = covalent_radii[atoms.numbers]
    relative = atoms.get_all_distances() / (radii[:, None] + radii[None, :])
    np.fill_diagonal(relative, np.inf)
    return relative


def changed_bonds(reference: Atoms, atoms: Atoms) -> list[str]:
    """Bonds of ``reference`` that ``atoms`` has lost, and new ones; empty if the molecule is whole.

    Args:
        reference: relaxed molecule
        atoms: the same atoms, moved

    Returns:
        phrases such as ``"C0-C1 broken"``
    """
    bonded = _relative_distances(reference) < 1.25
    now = _relative_distances(atoms)
    # "not <" rather than ">": a NaN distance is a broken bond
    broken, formed = bonded & ~(now < BROKEN), ~bonded & (now < FORMED)
    symbols = atoms.get_chemical_symbols()
    return [
        f"{symbols[i]}{i}-{symbols[j]}{j} {what}"
        for pairs, what in ((broken, "broken"), (formed, "formed"))
        for i, j in np.argwhere(np.triu(pairs))
    ]


@_one_thread()
def simulate(trajectory: Trajectory, tick: Tick) -> list[Atoms]:
    """Run one trajectory.

    Args:
        trajectory: seed, temperature (K), number of frames
        tick: called after each frame

    Returns:
        unlabelled frames, centred at the centre of mass

    Raises:
        DataError: a bond broke or formed; choose another seed
    """
    atoms = _relaxed()
    reference, rng = atoms.copy(), np.random.default_rng(trajectory.seed)
    dynamics = equilibrated_langevin(atoms, trajectory, SAMPLING, rng)
    interval = trajectory.interval_fs or SAMPLING["interval_fs"]
    frames = []
    for index in range(trajectory.frames):
        dynamics.run(int(interval / SAMPLING["timestep_fs"]))
        changes = changed_bonds(reference, atoms)
        if changes:
            raise DataError(
                f"Ethanol with seed {trajectory.seed} at {trajectory.temperature_K:g} K did not "
                f"stay bonded: frame {index} has {', '.join(changes)}; choose another seed."
            )
        centred = atoms.positions - atoms.get_center_of_mass()
        frames.append(as_written(Atoms(atoms.numbers, positions=centred)))
        tick()
    return frames


# Frames to be tested on stand further apart and come from more trajectories than those trained on:
# at 50 fs a hundred frames of nine atoms are so correlated that their mean force can be 10 % off.
HELD_OUT_INTERVAL_FS = 200


def _training(*seeds: int) -> tuple[Trajectory, ...]:
    return tuple(Trajectory(seed, 300.0, 90) for seed in seeds)


def _held_out(temperature_K: float, *seeds: int) -> tuple[Trajectory, ...]:
    return tuple(Trajectory(seed, temperature_K, 25, HELD_OUT_INTERVAL_FS) for seed in seeds)


ETHANOL = Dataset(
    name="ethanol-xtb",
    method=METHOD,
    sampling=SAMPLING,
    packages=("tblite", "ase", "numpy"),
    files=(
        FileRecipe("isolated_atoms", "reference energies of H, C, O", fixed=isolated_atoms),
        FileRecipe("train_300K", "training", _training(101, 102, 103, 104, 105)),
        FileRecipe("val_300K", "validation while training", _held_out(300.0, 201, 202)),
        FileRecipe("test_300K", "test, same temperature", _held_out(300.0, 301, 302, 303, 304)),
        FileRecipe("test_600K", "test, hotter", _held_out(600.0, 601, 602, 603, 604)),
        FileRecipe("test_1200K", "test, far hotter", _held_out(1200.0, 1201, 1202, 1203, 1204)),
    ),
    simulate=simulate,
    label=label,
)
