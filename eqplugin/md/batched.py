"""Molecular dynamics of many structures at once, through torch-sim.

One evaluation of the model moves all structures a step: on a GPU many small systems cost little
more than one. Options, observables, files and resuming are those of :mod:`eqplugin.md.run`. The
first structure starts with the velocities of a single run, so that NVE gives the same trajectory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from eqplugin.calculator.checks import parse_dtype
from eqplugin.errors import EqPluginError
from eqplugin.md._torch_sim import check_ensemble, generator, integrators, stepper
from eqplugin.md.health import bad_numbers, close_pair, temperature_limit, too_hot
from eqplugin.md.observables import Sample, frame_text, header
from eqplugin.md.run import Breakdown, MdFiles, MdRun, Watch
from eqplugin.md.settings import MdSettings
from eqplugin.md.start import degrees_of_freedom, draw_momenta, start_options
from eqplugin.md.store import Restart, RunStore
from eqplugin.quiet import quiet
from eqplugin.stacks import file_kind, parse_device

# per atom or per structure, all float: what a restart keeps beside the random numbers
_STATE = ("positions", "momenta", "forces", "energy")


def open_batch_model(model: str | Path, device: str = "cpu", dtype: str | None = None) -> Any:
    """Open a model file for torch-sim, as its ``ModelInterface``.

    Args:
        model: .ckpt or .nequip.zip; .nequip.pt2 made with ``--target batch``; .model.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: of a MACE model; None: its own. NequIP models run in theirs.

    Raises:
        EqPluginError: when torch-sim is not installed, and for files it cannot run.
    """
    integrators()
    path, kind = Path(model), file_kind(model)
    parse_device(device)
    if kind == "mace":
        return _mace_batch(path, device, dtype)
    if dtype is not None:
        raise EqPluginError(f"--dtype {dtype}: a NequIP model runs in the dtype it was trained in.")
    return _nequip_batch(path, device, kind == "compiled")


def _mace_batch(path: Path, device: str, dtype: str | None) -> Any:
    from eqplugin.mace.loading import read_model  # isort: skip  (repairs MACE)
    from torch_sim.models.mace import MaceModel

    module = read_model(path, device)
    chosen = parse_dtype(dtype) or next(module.parameters()).dtype
    return MaceModel(module, device=torch.device(device), dtype=chosen)


def _nequip_batch(path: Path, device: str, compiled: bool) -> Any:
    from nequip.integrations.torchsim import NequIPTorchSimCalc

    cls = NequIPTorchSimCalc
    read = cls.from_compiled_model if compiled else cls._from_saved_model
    try:
        return read(path, device=device, chemical_species_to_atom_type_map=True)
    except Exception as error:
        hint = "compile it with `--target batch`" if compiled else "give a model that loads"
        raise EqPluginError(
            f"{path} cannot be opened for torch-sim ({type(error).__name__}): {hint}."
        ) from error


def check_batch(structures: Sequence[Atoms], settings: MdSettings) -> None:
    """Refuse what torch-sim cannot run, naming the option or the structure."""
    check_ensemble(settings.ensemble)
    for index, atoms in enumerate(structures):
        if atoms.constraints:
            raise EqPluginError(
                f"structure {index} has fixed atoms, which torch-sim does not support: use "
                f"--engine ase."
            )
        if atoms.pbc.any() != atoms.pbc.all() or atoms.pbc.any() != structures[0].pbc.any():
            raise EqPluginError(
                f"structure {index} has pbc {atoms.pbc}: torch-sim needs every structure of a run "
                f"periodic in all three directions, or in none; use --engine ase."
            )


def files_of(folder: Path, index: int) -> MdFiles:
    """Files of structure ``index`` of a batch."""
    return MdFiles(folder / f"structure_{index:03d}")


def run_batch(
    structures: Sequence[Atoms],
    model: Any,
    settings: MdSettings,
    folder: Path,
    origin: Mapping[str, object] | None = None,
    watch: Watch | None = None,
) -> list[MdRun]:
    """Run molecular dynamics of several structures at once, or go on: a run per structure.

    Args:
        structures: starts; not modified. All periodic in three directions, or none at all.
        model: torch-sim model, see :func:`open_batch_model`.
        settings: ``nve`` or ``nvt-langevin``; from torch-sim 0.6 on ``nvt-bussi``.
        folder: gets a folder per structure, and one restart file.
        origin: further options that may not change between start and restart, by name.
        watch: called with the step, and at frames with the mean of the samples.

    Raises:
        Breakdown: naming the structure that went wrong; it ends the run of all.
        EqPluginError: for options that are not possible or not those of the run to resume.
    """
    check_batch(structures, settings)
    files = {}
    for index in range(len(structures)):
        own = files_of(folder, index)
        files |= {f"traj{index}": own.traj, f"log{index}": own.log}
    options = settings.fixed() | dict(origin or {}) | start_options(list(structures))
    store = RunStore(folder / "restart.npz", files, options)
    with store.locked(), quiet(logging.NOTSET):
        return _BatchRunner(structures, model, settings, folder, store, watch).run()


class _BatchRunner:
    def __init__(
        self,
        structures: Sequence[Atoms],
        model: Any,
        settings: MdSettings,
        folder: Path,
        store: RunStore,
        watch: Watch | None,
    ) -> None:
        self.model, self.settings, self.folder, self.store = model, settings, folder, store
        self.watch = watch or (lambda _step, _sample: None)
        self.structures = [atoms.copy() for atoms in structures]
        self.degrees = [degrees_of_freedom(atoms, settings) for atoms in self.structures]
        self.cuts = np.cumsum([len(atoms) for atoms in self.structures])[:-1]
        self.periodic = bool(self.structures[0].pbc.all())
        self.good = 0

    def run(self) -> list[MdRun]:
        restart = self.store.load()
        state = self._start() if restart is None else self._resume(restart)
        step = 0 if restart is None else restart.step
        update = stepper(self.model, self.settings)
        while step < self.settings.steps:
            for _ in range(self.settings.every):
                state = update(state)
                step += 1
                self.watch(step, None)
            self._frame(state, step)
        resumed = None if restart is None else restart.step
        return [
            MdRun(atoms, step, resumed, self.degrees[index], files_of(self.folder, index))
            for index, atoms in enumerate(self.structures)
        ]

    def _start(self) -> Any:
        for index, atoms in enumerate(self.structures):
            # of its own seed each: adding a structure does not change the others' velocities
            draw_momenta(atoms, self.settings, np.random.default_rng([self.settings.seed, index]))
        state = self._state()
        generator(state).manual_seed(self.settings.seed)
        output = self._evaluate(state)
        state.energy, state.forces = output["energy"], output["forces"]
        self.store.begin({f"log{index}": header() for index in range(len(self.structures))})
        self._frame(state, 0, output.get("stress"))
        return state

    def _resume(self, restart: Restart) -> Any:
        self.store.resume(restart)
        self.good = restart.step
        state = self._state()
        for name in _STATE:
            setattr(state, name, torch.as_tensor(restart.arrays[name]).to(state.positions))
        generator(state).set_state(torch.as_tensor(restart.arrays["noise"]))
        return state

    def _state(self) -> Any:
        """Torch-sim's state of all structures, with forces still to come."""
        import torch_sim
        from torch_sim.integrators import MDState

        batch = torch_sim.initialize_state(self.structures, self.model.device, self.model.dtype)
        momenta = np.concatenate([atoms.get_momenta() for atoms in self.structures])
        state = MDState(
            positions=batch.positions,
            momenta=torch.as_tensor(momenta).to(batch.positions),
            energy=torch.zeros(len(self.structures)).to(batch.positions),
            forces=torch.zeros_like(batch.positions),
            masses=batch.masses,
            cell=batch.cell,
            pbc=batch.pbc,
            system_idx=batch.system_idx,
            atomic_numbers=batch.atomic_numbers,
        )
        # velocity rescaling counts 3N - 3 by default, which heats molecules that do not rotate
        degrees = torch.tensor(self.degrees).to(batch.positions)
        state.get_number_of_degrees_of_freedom = lambda: degrees
        return state

    def _evaluate(self, state: Any) -> dict[str, torch.Tensor]:
        try:
            return self.model(state)
        except (ValueError, KeyError, RuntimeError, IndexError) as error:
            raise EqPluginError(
                f"the model cannot run these structures ({type(error).__name__}: {error}): check "
                f"that it knows all their elements."
            ) from error

    def _frame(self, state: Any, step: int, stress: torch.Tensor | None = None) -> None:
        """Measure, check and write a frame of every structure."""
        if self.periodic and stress is None:
            stress = self.model(state).get("stress")
        arrays = {name: getattr(state, name).detach().cpu().numpy() for name in _STATE}
        number = len(self.structures)
        stresses = [None] * number if stress is None or not self.periodic else stress.cpu().numpy()
        energies = arrays["energy"].tolist()
        forces, positions, momenta = (
            np.split(arrays[name], self.cuts) for name in ("forces", "positions", "momenta")
        )
        samples = []
        for index, atoms in enumerate(self.structures):
            atoms.positions = positions[index]
            atoms.set_momenta(momenta[index])
            results = energies[index], forces[index], stresses[index]
            samples.append(self._sample(index, step, *results))
        for index, sample in enumerate(samples):  # all are good: only now write any
            text = frame_text(self.structures[index], sample, forces[index], stresses[index])
            self.store.append(f"traj{index}", text)
            self.store.append(f"log{index}", sample.row())
        self.store.commit(step, arrays | {"noise": generator(state).get_state().numpy()}, None)
        self.good = step
        self.watch(step, _mean(samples))

    def _sample(
        self, index: int, step: int, energy: float, forces: NDArray, stress: NDArray | None
    ) -> Sample:
        """Measure a structure and check it."""
        atoms, degrees = self.structures[index], self.degrees[index]
        timestep = self.settings.timestep
        trouble = bad_numbers(atoms, energy, forces) or close_pair(atoms)
        if not trouble:
            exchanged = 0.0 if self.settings.ensemble == "nve" else float("nan")
            sample = Sample.of(atoms, step, timestep, degrees, stress, energy, exchanged)
            trouble = too_hot(sample.temperature_K, temperature_limit(self.settings, degrees))
        if not trouble:
            return sample
        to_ps = timestep / 1e3
        raise Breakdown(
            f"the dynamics of structure {index} broke down before {step * to_ps:.4f} ps (step "
            f"{step}): {trouble}; the trajectories in {self.folder} end with the last good "
            f"frames, at {self.good * to_ps:.4f} ps; leave the structure out, or try a "
            f"smaller --timestep."
        )


def _mean(samples: Sequence[Sample]) -> Sample:
    table = np.array([astuple(sample) for sample in samples])
    return Sample(int(table[0, 0]), *(float(value) for value in table[:, 1:].mean(axis=0)))
