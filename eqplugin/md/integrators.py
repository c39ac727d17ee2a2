"""ASE's integrators for each ensemble, and the state of each that a restart has to keep.

* ``nve``: velocity Verlet.
* ``nvt-langevin``: ASE's Langevin (Vanden-Eijnden and Ciccotti 2006) with ``fixcm=False``: the
  default removes the centre of mass's share of the noise wrongly and heats small molecules (ethanol
  set to 300 K ran at 385 K).
* ``nvt-bussi``: stochastic velocity rescaling (Bussi, Donadio, Parrinello 2007), with the degrees
  of freedom that it can reach; ASE counts 3N, which heats N atoms by N / (N - 1) or more.
* ``npt``: LangevinBAOAB with isotropic cell (Leimkuhler and Matthews 2013; Quigley and Probert
  2004). Chosen over ASE's others: Berendsen's barostat samples no ensemble, and the Nose-Hoover
  chains of MTK are not ergodic for small or stiff systems and count 3N degrees of freedom although
  they conserve the momentum.
"""

from __future__ import annotations

import warnings

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.md.settings import MdSettings
from eqplugin.md.start import degrees_of_freedom

# the barostat answers this many times slower than the thermostat
BAROSTAT_TIME = 20.0
# what an integrator carries from step to step beside positions, momenta, cell and random numbers
_STATE = {
    "nve": (),
    "nvt-langevin": (),
    "nvt-bussi": ("transferred_energy",),
    "npt": ("accel", "force_eps", "p_eps", "gamma_mod"),
}


def build_dynamics(
    atoms: Atoms, settings: MdSettings, rng: np.random.Generator
) -> MolecularDynamics:
    """ASE's integrator for the settings.

    Args:
        atoms: with calculator and momenta.
        settings: of the run.
        rng: random numbers of the thermostat; its state belongs to the state of the run.
    """
    timestep = settings.timestep * units.fs
    coupling = units.fs / settings.friction
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if settings.ensemble == "nvt-langevin":
        heat = {"temperature_K": settings.temperature, "friction": 1 / coupling}
        return Langevin(atoms, timestep, **heat, fixcm=False, rng=rng)
    if settings.ensemble == "nvt-bussi":
        bussi = Bussi(atoms, timestep, settings.temperature, taut=coupling, rng=rng)
        bussi.ndof = degrees_of_freedom(atoms, settings)
        bussi.target_kinetic_energy = 0.5 * units.kB * settings.temperature * bussi.ndof
        return bussi
    return _npt(atoms, settings, timestep, coupling, rng)


def _npt(
    atoms: Atoms, settings: MdSettings, timestep: float, coupling: float, rng: np.random.Generator
) -> LangevinBAOAB:
    if not atoms.pbc.all():
        raise EqPluginError(
            "--ensemble npt needs a structure that is periodic in all three directions: use nve, "
            "nvt-langevin or nvt-bussi."
        )
    if atoms.constraints:
        raise EqPluginError(
            "--ensemble npt cannot hold atoms fixed while the cell changes: remove the "
            "constraints from the structure file."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using heuristic P_mass")
        return LangevinBAOAB(
            atoms,
            timestep,
            temperature_K=settings.temperature,
            externalstress=-settings.pressure * units.GPa,
            hydrostatic=True,
            T_tau=coupling,
            P_tau=BAROSTAT_TIME * coupling,
            rng=rng,
        )


def save_state(dynamics: MolecularDynamics, settings: MdSettings) -> dict[str, NDArray]:
    """Arrays that :func:`load_state` needs to go on as if nothing had happened."""
    return {name: np.asarray(getattr(dynamics, name)) for name in _STATE[settings.ensemble]}


def load_state(
    dynamics: MolecularDynamics, settings: MdSettings, state: dict[str, NDArray]
) -> None:
    """Put back what :func:`save_state` took."""
    for name in _STATE[settings.ensemble]:
        values = state[name]
        setattr(dynamics, name, values.copy() if values.ndim else float(values))


def exchanged_energy(dynamics: MolecularDynamics, settings: MdSettings) -> float:
    """Energy that the thermostat has put in, eV; NaN for Langevin noise, which keeps no account.

    Exact dynamics would conserve the total energy less this.
    """
    if settings.ensemble == "nve":
        return 0.0
    return dynamics.transferred_energy if settings.ensemble == "nvt-bussi" else float("nan")
