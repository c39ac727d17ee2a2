"""Molecular dynamics of one structure with any ASE calculator, to be resumed at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.io import write
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file
from eqplugin.md.health import bad_numbers, close_pair, temperature_limit, too_hot
from eqplugin.md.integrators import build_dynamics, exchanged_energy, load_state, save_state
from eqplugin.md.observables import Sample, frame_text, header, kinetic_energy
from eqplugin.md.settings import MdSettings
from eqplugin.md.start import degrees_of_freedom, draw_momenta, start_options
from eqplugin.md.store import Restart, RunStore

__all__ = ["Breakdown", "MdFiles", "MdRun", "run_md"]

T = TypeVar("T")
Watch = Callable[[int, Sample | None], None]


class Breakdown(EqPluginError):
    """Dynamics that went wrong; the sentence says when, how, and where the last good frame is."""


class MdFiles:
    """Files of a run.

    Args:
        folder: holds the restart file and whatever has no other place.
        traj: extended XYZ; None: trajectory.xyz in the folder.
        log: CSV; None: log.csv in the folder.

    Raises:
        EqPluginError: for a trajectory in another format.
    """

    def __init__(
        self, folder: str | Path, traj: str | Path | None = None, log: str | Path | None = None
    ) -> None:
        self.folder = Path(folder)
        self.traj = Path(traj or self.folder / "trajectory.xyz")
        self.log = Path(log or self.folder / "log.csv")
        self.restart = self.folder / "restart.npz"  #: state of the run at the last frame
        self.failed = self.folder / "failed.xyz"  #: where the run broke down, if it did
        self.plot = self.folder / "plot.png"  #: drawn by `eqplugin md`
        if self.traj.suffix not in (".xyz", ".extxyz"):
            raise EqPluginError(
                f"--traj {self.traj} is not valid: give a name that ends in .xyz or .extxyz, "
                f"the format that stays readable when a run is killed."
            )


@dataclass(frozen=True)
class MdRun:
    """A finished run."""

    atoms: Atoms  #: the last structure, with momenta
    steps: int  #: number of steps in all
    resumed_from: int | None  #: step at which this call took over; None: it started anew
    degrees: int  #: degrees of freedom that share the kinetic energy
    files: MdFiles  #: trajectory, log and whatever else was written


def run_md(
    atoms: Atoms,
    calculator: Calculator,
    settings: MdSettings,
    files: MdFiles | str | Path,
    origin: Mapping[str, object] | None = None,
    watch: Watch | None = None,
) -> MdRun:
    """Run molecular dynamics, or go on where an earlier call stopped.

    A run that was stopped, by a kill or otherwise, and resumed gives the same trajectory as one
    that was not, to the last bit, provided that the calculator gives the same bits for the same
    structure (on a CPU; sums on a GPU have no fixed order).

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT  # or eqplugin.EqCalculator("best.ckpt")
    >>> run = run_md(bulk("Cu", cubic=True), EMT(), MdSettings("nve", steps=200), "copper")
    >>> run.steps, str(run.files.log)
    (200, 'copper/log.csv')

    The same call with ``steps=1000`` goes on from step 200.

    Args:
        atoms: start; not modified.
        calculator: any ASE calculator with energy and forces; for NPT with stress.
        settings: ensemble, steps, temperature and so on.
        files: folder of the run, or its files one by one.
        origin: further options that may not change between start and restart, by name.
        watch: called with the step, and at frames with the sample, to show progress.

    Raises:
        Breakdown: NaN, runaway temperature, or atoms inside each other.
        EqPluginError: for options that are not possible or not those of the run to resume.
    """
    files = files if isinstance(files, MdFiles) else MdFiles(files)
    options = settings.fixed() | dict(origin or {}) | start_options([atoms])
    store = RunStore(files.restart, {"traj": files.traj, "log": files.log}, options)
    with store.locked():
        return _Runner(atoms, calculator, settings, files, store, watch).run()


class _Runner:
    def __init__(
        self,
        atoms: Atoms,
        calculator: Calculator,
        settings: MdSettings,
        files: MdFiles,
        store: RunStore,
        watch: Watch | None,
    ) -> None:
        self.settings, self.files, self.store = settings, files, store
        self.watch = watch or (lambda _step, _sample: None)
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.degrees = degrees_of_freedom(self.atoms, settings)
        self.limit = temperature_limit(settings, self.degrees)
        self.rng = np.random.default_rng([settings.seed, 0])
        self.has_stress = bool(atoms.pbc.all())
        self.good = 0  # step of the last good frame

    def run(self) -> MdRun:
        restart = self.store.load()
        dynamics = self._start() if restart is None else self._resume(restart)
        dynamics.attach(lambda: self._check_step(dynamics.nsteps), interval=1)
        while dynamics.nsteps < self.settings.steps:
            self._guarded(dynamics, lambda: dynamics.run(self.settings.every))
            sample, forces, stress = self._guarded(dynamics, lambda: self._frame(dynamics))
            self._write(dynamics, sample, forces, stress)
            self.watch(dynamics.nsteps, sample)
        resumed = None if restart is None else restart.step
        return MdRun(self.atoms, dynamics.nsteps, resumed, self.degrees, self.files)

    def _start(self) -> MolecularDynamics:
        draw_momenta(self.atoms, self.settings, self.rng)
        potential = float(self.atoms.get_potential_energy())
        trouble = bad_numbers(self.atoms, potential, self.atoms.get_forces())
        if trouble:
            raise EqPluginError(f"the model cannot run this structure: at the start, {trouble}.")
        dynamics = self._build()
        # ASE calls observers before the first step only at step 0; ours come after each step
        sample, forces, stress = self._frame(dynamics)
        self.store.begin({"log": header()})
        self._write(dynamics, sample, forces, stress)
        self.watch(0, sample)
        return dynamics

    def _resume(self, restart: Restart) -> MolecularDynamics:
        self.store.resume(restart)
        self.atoms.set_cell(restart.arrays["cell"])
        self.atoms.positions = restart.arrays["positions"]
        self.atoms.set_momenta(restart.arrays["momenta"], apply_constraint=False)
        dynamics = self._build()
        dynamics.nsteps = self.good = restart.step
        self.rng.bit_generator.state = restart.rng
        load_state(dynamics, self.settings, restart.arrays)
        # evaluate as the run that wrote the frame did: what the calculator keeps decides last bits
        sample, *_ = self._frame(dynamics)
        self.watch(restart.step, sample)
        return dynamics

    def _build(self) -> MolecularDynamics:
        try:
            return build_dynamics(self.atoms, self.settings, self.rng)
        except PropertyNotImplementedError:
            raise EqPluginError(
                "--ensemble npt needs the stress, but this model has none: use another ensemble."
            ) from None

    def _frame(self, dynamics: MolecularDynamics) -> tuple[Sample, NDArray, NDArray | None]:
        """Measure the frame and check it; with its forces and stress."""
        stress = self._stress()
        potential = float(self.atoms.get_potential_energy())
        forces = self.atoms.get_forces(apply_constraint=False)
        trouble = bad_numbers(self.atoms, potential, forces) or close_pair(self.atoms)
        if trouble:
            raise self._breakdown(dynamics.nsteps, trouble)
        energies = {"potential": potential, "exchanged": exchanged_energy(dynamics, self.settings)}
        step, timestep = dynamics.nsteps, self.settings.timestep
        sample = Sample.of(self.atoms, step, timestep, self.degrees, stress, **energies)
        return sample, forces, stress

    def _stress(self) -> NDArray | None:
        if not self.has_stress:
            return None
        # forces computed with and without the stress may differ in the last bit, and calculators
        # remember what was asked of them: start from nothing at each frame, as a restart does
        if hasattr(self.atoms.calc, "reset"):
            self.atoms.calc.reset()
        try:
            return self.atoms.get_stress(voigt=True)
        except PropertyNotImplementedError:
            self.has_stress = False
            return None

    def _write(
        self, dynamics: MolecularDynamics, sample: Sample, forces: NDArray, stress: NDArray | None
    ) -> None:
        self.store.append("traj", frame_text(self.atoms, sample, forces, stress))
        self.store.append("log", sample.row())
        state = save_state(dynamics, self.settings) | {
            "positions": self.atoms.positions,
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array,
        }
        self.store.commit(sample.step, state, self.rng.bit_generator.state)
        self.good = sample.step

    def _check_step(self, step: int) -> None:
        """Look at what is free to look at, each step."""
        if step == self.good:  # ASE calls observers at step 0 as well
            return
        atoms = self.atoms
        forces = atoms.get_forces(apply_constraint=False)
        trouble = bad_numbers(atoms, atoms.get_potential_energy(), forces)
        if trouble is None:
            temperature = 2 * kinetic_energy(atoms) / (self.degrees * units.kB)
            trouble = too_hot(temperature, self.limit)
            if trouble and np.isfinite(temperature):
                # what heats is mostly a close pair; the pair says more than the temperature
                trouble = close_pair(atoms) or trouble
        if trouble:
            raise self._breakdown(step, trouble)
        self.watch(step, None)

    def _guarded(self, dynamics: MolecularDynamics, act: Callable[[], T]) -> T:
        """Say when and where a calculator's own complaint came."""
        try:
            return act()
        except Breakdown:
            raise
        except EqPluginError as error:
            raise self._breakdown(dynamics.nsteps + 1, str(error).rstrip(".")) from error

    def _breakdown(self, step: int, trouble: str) -> Breakdown:
        to_ps = self.settings.timestep / 1e3
        atoms = self.atoms
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.info["step"] = step
        with whole_file(self.files.failed) as unfinished:
            write(unfinished, frame, format="extxyz")
        return Breakdown(
            f"the dynamics broke down at {step * to_ps:.4f} ps (step {step}): {trouble}; "
            f"{self.files.traj} ends with the last good frame, at {self.good * to_ps:.4f} ps, and "
            f"{self.files.failed} is the broken one; try a smaller --timestep or a better model."
        )
