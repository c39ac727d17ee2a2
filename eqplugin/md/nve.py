"""NVE molecular dynamics and the energy drift that tells whether forces and energies agree."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from eqplugin.errors import EqPluginError
from eqplugin.files import disk_refusals

__all__ = ["NveRun", "run_nve"]

COLUMNS = ("time_ps", "total_energy_eV", "temperature_K")


@dataclass(frozen=True)
class NveRun:
    """A finished NVE run; arrays have shape (num_samples,)."""

    time: np.ndarray  # ps
    energy: np.ndarray  # total energy per atom relative to the start, meV
    temperature: np.ndarray  # K

    @property
    def drift(self) -> float:
        """Slope of a straight line through the total energy per atom, meV/atom/ps."""
        return float(np.polyfit(self.time, self.energy, 1)[0])

    @classmethod
    def read(cls, path: Path, num_atoms: int) -> NveRun:
        """Read the CSV log that :func:`run_nve` writes."""
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
        time, total, temperature = table.T
        return cls(time, 1e3 * (total - total[0]) / num_atoms, temperature)


def run_nve(
    atoms: Atoms,
    calculator: Calculator,
    log: Path,
    steps: int = 4000,
    timestep: float = 0.5,
    temperature: float = 300.0,
    seed: int = 0,
    every: int = 10,
) -> NveRun:
    """Run constant-energy dynamics with velocity Verlet and log the total energy.

    Args:
        atoms: start structure; not modified.
        calculator: any ASE calculator.
        log: CSV file (time_ps, total_energy_eV, temperature_K). It is written beside its name
            while the run goes on and renamed when the run is complete.
        steps: number of steps.
        timestep: fs; 0.5 for molecules with hydrogen.
        temperature: of the starting velocities, K.
        seed: of the starting velocities.
        every: steps between log lines.

    Returns:
        The run's log.

    Raises:
        EqPluginError: when the energy is no longer a finite number; the log up to there is kept.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature, rng=np.random.default_rng(seed))
    Stationary(atoms)
    partial = partial_log(log)
    with disk_refusals(log), partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)

        def sample() -> None:
            total = atoms.get_total_energy()
            if not np.isfinite(total):
                raise EqPluginError(
                    f"the dynamics broke down at {dynamics.get_time() / units.fs:.1f} fs: the "
                    f"energy is {total}; the log up to that time is in {partial}."
                )
            row = dynamics.get_time() / units.fs / 1e3, total, atoms.get_temperature()
            writer.writerow([f"{value:.10g}" for value in row])
            file.flush()  # others watch the file to show progress

        dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
        dynamics.attach(sample, interval=every)
        dynamics.run(steps)
    partial.replace(log)
    return NveRun.read(log, len(atoms))


def partial_log(log: Path) -> Path:
    """File that :func:`run_nve` writes while it runs."""
    return log.with_name(log.name + ".part")
