"""Observables of a frame, and how log and trajectory hold them."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from numpy.typing import ArrayLike, NDArray

from eqplugin.errors import EqPluginError, reason_of

_GRAMS = 1e24 / units.mol  # amu/A^3 to g/cm^3
NOWHERE = float("nan")


@dataclass(frozen=True)
class Sample:
    """Observables of one frame, in the order of the log's columns."""

    step: int  # number of the step
    time_ps: float  # ps
    potential_eV: float  # potential energy, eV
    kinetic_eV: float  # kinetic energy, eV
    total_eV: float  # their sum, eV
    conserved_eV: float  # what exact dynamics conserve, eV; NaN where there is no such quantity
    temperature_K: float  # from the degrees of freedom that share the kinetic energy, K
    pressure_GPa: float  # with its kinetic part; NaN unless periodic in three directions
    density_g_cm3: float  # NaN unless periodic in three directions

    @classmethod
    def of(
        cls,
        atoms: Atoms,
        step: int,
        timestep: float,
        degrees: int,
        stress: NDArray | None,
        potential: float,
        exchanged: float,
    ) -> Sample:
        """Measure a frame.

        Args:
            atoms: positions, momenta and cell.
            step: of the frame.
            timestep: fs.
            degrees: degrees of freedom that share the kinetic energy.
            stress: potential part, 3x3 or Voigt, eV/A^3, ASE's sign; None: no pressure.
            potential: eV.
            exchanged: energy that the thermostat has put in, eV; NaN: unknown.
        """
        energy = kinetic_energy(atoms)
        periodic = bool(atoms.pbc.all())
        pressure = NOWHERE
        if periodic and stress is not None:
            stress = np.asarray(stress)
            trace = np.trace(stress) if stress.shape == (3, 3) else stress[:3].sum()
            pressure = (2 * energy / atoms.get_volume() - float(trace)) / 3 / units.GPa
        density = _GRAMS * atoms.get_masses().sum() / atoms.get_volume() if periodic else NOWHERE
        return cls(
            step=step,
            time_ps=step * timestep / 1e3,
            potential_eV=potential,
            kinetic_eV=energy,
            total_eV=potential + energy,
            conserved_eV=potential + energy - exchanged,
            temperature_K=2 * energy / (degrees * units.kB),
            pressure_GPa=float(pressure),
            density_g_cm3=float(density),
        )

    def row(self) -> str:
        """Line of the log; a column that does not apply is empty."""
        values = ["" if value != value else f"{value:.14g}" for value in astuple(self)]
        return ",".join(values) + "\n"


def kinetic_energy(atoms: Atoms) -> float:
    """Kinetic energy, eV."""
    momenta = atoms.get_momenta()
    return 0.5 * float((momenta**2 / atoms.get_masses()[:, None]).sum())


def second_half(log: pd.DataFrame) -> pd.DataFrame:
    """Rows after the run has settled."""
    return log.iloc[len(log) // 2 :]


def drift(time_ps: ArrayLike, energy_eV: ArrayLike, num_atoms: int) -> float:
    """Slope of an energy per atom, meV/atom/ps; NaN for fewer than two values or any NaN."""
    if len(time_ps) < 2 or np.isnan(energy_eV).any():
        return NOWHERE
    return 1e3 * float(np.polyfit(time_ps, energy_eV, 1)[0]) / num_atoms


def header() -> str:
    """First line of the log."""
    return ",".join(field.name for field in fields(Sample)) + "\n"


def read_log(path: str | Path) -> pd.DataFrame:
    """Read a log; a half-written last line, as of a run that is going on, is left out."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EqPluginError(f"the log {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EqPluginError(f"the log {path} is damaged: it is not text ({error}).") from error
    if not text.startswith(header()):
        raise EqPluginError(f"{path} is not a log of `eqplugin md`: its header line differs.")
    lines = text[: text.rfind("\n")].split("\n")
    for number, line in enumerate(lines, 1):
        if line.count(",") != lines[0].count(","):
            raise EqPluginError(
                f"the log {path} is damaged: line {number} has not the columns of the header; "
                f"correct or remove it."
            )
    try:
        return pd.read_csv(StringIO("\n".join(lines)), dtype=float, engine="python")  # exact
    except ValueError as error:
        raise EqPluginError(
            f"the log {path} is damaged ({reason_of(error)}): correct or remove that line."
        ) from error


def frame_text(atoms: Atoms, sample: Sample, forces: NDArray, stress: NDArray | None = None) -> str:
    """Return the frame as extended XYZ, with momenta and what the model said of it."""
    frame = Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        momenta=atoms.get_momenta(),
        masses=atoms.get_masses() if atoms.has("masses") else None,
        cell=atoms.cell,
        pbc=atoms.pbc,
        info={"step": sample.step, "time_ps": sample.time_ps},
        constraint=atoms.constraints,  # a column move_mask; the forces stay the model's
    )
    energy = sample.potential_eV
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    text = StringIO()
    write(text, frame, format="extxyz")
    return text.getvalue()
