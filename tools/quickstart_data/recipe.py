"""What a shipped dataset is made of: files, their trajectories and seeds, and who labels them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin

__all__ = [
    "Dataset",
    "FileRecipe",
    "Trajectory",
    "as_written",
    "equilibrated_langevin",
    "thermal_momenta",
    "with_labels",
]

Tick = Callable[[], None]


@dataclass(frozen=True)
class Trajectory:
    """One independent MD run.

    Args:
        seed: of the starting velocities and of the thermostat's noise
        temperature_K: of the thermostat
        frames: number of frames that are kept
        interval_fs: time between them; ``None``: the dataset's own
    """

    seed: int
    temperature_K: float
    frames: int
    interval_fs: int | None = None


@dataclass(frozen=True)
class FileRecipe:
    """One extended-XYZ file: either trajectories, one after the other, or fixed frames.

    Args:
        stem: file name without ``.xyz``; also the ``config_type`` of its MD frames
        purpose: one phrase for ``dataset.json``
        trajectories: the runs in the file
        fixed: makes the unlabelled frames of a file that holds no MD
    """

    stem: str
    purpose: str
    trajectories: tuple[Trajectory, ...] = ()
    fixed: Callable[[], list[Atoms]] | None = None

    @property
    def filename(self) -> str:
        """Name of the file in the dataset's folder."""
        return f"{self.stem}.xyz"

    def plan(self) -> list[dict[str, float]]:
        """Seeds, temperatures (K), frame counts and intervals, as in ``dataset.json``."""
        return [
            {key: value for key, value in asdict(trajectory).items() if value is not None}
            for trajectory in self.trajectories
        ]


@dataclass(frozen=True)
class Dataset:
    """A dataset that eqplugin can make and whose labels it can recompute.

    Args:
        name: as given to ``make_data.py make``
        method: the reference method and its settings, recorded in ``dataset.json``
        sampling: the MD settings, recorded in ``dataset.json``
        packages: distributions whose version may change the result
        files: what the folder holds
        simulate: runs a trajectory and returns unlabelled frames; calls its second argument once
            per frame
        label: returns a copy of a frame with fresh energy (eV), forces (eV/A) and, for crystals,
            stress (eV/A^3, ASE sign)
    """

    name: str
    method: dict[str, object]
    sampling: dict[str, object]
    packages: tuple[str, ...]
    files: tuple[FileRecipe, ...]
    simulate: Callable[[Trajectory, Tick], list[Atoms]]
    label: Callable[[Atoms], Atoms]


def thermal_momenta(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> np.ndarray:
    """Maxwell-Boltzmann momenta.

    Written out rather than taken from ASE, whose function changed name between versions.

    Args:
        atoms: gives the masses
        temperature_K: temperature
        rng: source of the noise

    Returns:
        (num_atoms, 3) momenta in ASE units
    """
    width = np.sqrt(atoms.get_masses()[:, None] * units.kB * temperature_K)
    return width * rng.standard_normal((len(atoms), 3))


def equilibrated_langevin(
    atoms: Atoms, trajectory: Trajectory, sampling: Mapping[str, Any], rng: np.random.Generator
) -> Langevin:
    """Thermostatted dynamics of ``atoms`` after equilibration.

    ``fixcm=False`` is essential: ASE's default heats the light atoms of a small molecule (ethanol
    set to 300 K ran at 385 K).

    Args:
        atoms: with a calculator; its momenta are set
        trajectory: gives the temperature (K)
        sampling: ``timestep_fs``, ``friction_per_fs`` and ``equilibration_fs``
        rng: source of the starting velocities and of the thermostat's noise

    Returns:
        the dynamics, ready to go on
    """
    atoms.set_momenta(thermal_momenta(atoms, trajectory.temperature_K, rng))
    dynamics = Langevin(
        atoms,
        sampling["timestep_fs"] * units.fs,
        temperature_K=trajectory.temperature_K,
        friction=sampling["friction_per_fs"] / units.fs,
        rng=rng,
        fixcm=False,
    )
    dynamics.run(int(sampling["equilibration_fs"] / sampling["timestep_fs"]))
    return dynamics


def as_written(atoms: Atoms) -> Atoms:
    """Round the positions to the 8 decimals that extended XYZ keeps.

    Labels are then those of the numbers in the file, not of the unrounded ones behind them.
    """
    atoms.positions = np.round(atoms.positions, 8) + 0.0  # + 0.0 turns -0.0 into 0.0
    return atoms


def with_labels(atoms: Atoms, calculator: object, properties: tuple[str, ...]) -> Atoms:
    """Copy of ``atoms`` that carries the calculator's results as plain numbers.

    A fresh calculator per frame keeps the labels free of the trajectory's history (a warm-started
    self-consistent cycle ends at a slightly different charge density).

    Args:
        atoms: frame with info and cell
        calculator: unused ASE calculator
        properties: of ``energy``, ``forces``, ``stress``

    Returns:
        labelled copy
    """
    work = atoms.copy()
    work.calc = calculator
    results = {name: calculator.get_property(name, work) for name in properties}
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled
