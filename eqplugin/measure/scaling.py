"""Time and memory of a force call against the number of atoms: `eqplugin bench speed`."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError
from eqplugin.measure.machine import gpu_name, processor_name
from eqplugin.measure.models import open_model
from eqplugin.measure.speed import time_force_calls

__all__ = ["Timing", "enlarged", "hardware", "measure", "memory_of"]

_GAP = 3.0  # A between copies of a molecule


@dataclass(frozen=True)
class Timing:
    """A model on a structure of some size.

    Attributes:
        atoms: number of atoms.
        times_ms: of each force call, alternated with the other models.
        peak_mib: memory of a process that opens the model and makes a force call, less that of
            one that only opens it; None where it was not measured.
    """

    atoms: int
    times_ms: tuple[float, ...]
    peak_mib: float | None = None

    @property
    def median_ms(self) -> float:
        """Median over the calls."""
        return float(np.median(self.times_ms))

    @property
    def spread_ms(self) -> tuple[float, float]:
        """10th and 90th percentile."""
        low, high = np.percentile(self.times_ms, [10, 90])
        return float(low), float(high)

    @property
    def us_per_atom(self) -> float:
        """Median per atom, microseconds."""
        return 1e3 * self.median_ms / self.atoms

    def as_dict(self) -> dict:
        """Everything, for JSON."""
        return {**asdict(self), "median_ms": self.median_ms}


def enlarged(atoms: Atoms, factor: int, seed: int = 0) -> Atoms:
    """A structure of ``factor`` cubed times the atoms, rattled by 0.01 A.

    A crystal is repeated along its periodic directions; a molecule is copied onto a grid with
    3 A between the copies, as in a liquid, so that its atoms have neighbours.

    Raises:
        EqPluginError: factor < 1.
    """
    if factor < 1:
        raise EqPluginError(f"--repeat {factor} is not possible: use 1 or more.")
    if atoms.pbc.any():
        larger = atoms.repeat([factor if periodic else 1 for periodic in atoms.pbc])
    else:
        boxed = atoms.copy()
        boxed.set_cell(np.ptp(atoms.positions, axis=0) + _GAP)
        larger = boxed.repeat(factor)
        larger.set_cell(None)
        larger.pbc = False
    larger.calc = None
    larger.rattle(0.01, seed=seed)
    return larger


def measure(
    calculators: Mapping[str, Calculator],
    structures: Sequence[Atoms],
    repeats: int,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Timing]]:
    """Time all models on all structures, the models alternated call by call.

    Args:
        calculators: label -> calculator.
        structures: from small to large.
        repeats: timed calls of each model on each structure, after two that are not.
        tick: told the number of atoms that comes next.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in calculators}
    for atoms in structures:
        tick(len(atoms))
        times = time_force_calls(calculators, atoms, repeats=repeats, warmup=2)
        for name, values in times.items():
            timings[name].append(Timing(len(atoms), tuple(float(value) for value in values)))
    return timings


def memory_of(model: str, atoms: Atoms, device: str, dtype: str | None) -> float:
    """Peak memory of a force call, MiB, measured in a process of its own.

    On CUDA the device's peak; on a CPU the resident memory beyond that of the opened model.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (model, atoms, device, dtype))


def _peak(model: str, atoms: Atoms, device: str, dtype: str | None) -> float:
    calculator = open_model(model, device, dtype)
    atoms = atoms.copy()
    atoms.calc = calculator
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        atoms.get_forces()
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of opening the model
        before = _resident(peak=False)
    except OSError as error:
        raise EqPluginError(
            "peak memory can only be measured on Linux: say --no-memory."
        ) from error
    atoms.get_forces()
    return _resident(peak=True) - before


def _resident(peak: bool) -> float:
    """Resident memory of this process, MiB: now, or at its highest since the last reset."""
    field = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 2**10
    raise EqPluginError("peak memory can only be measured on Linux: say --no-memory.")


def hardware() -> dict[str, str]:
    """Names of the machine's processor and GPU, for the record."""
    found = {"machine": platform.machine(), "processor": processor_name()}
    import torch

    found["threads"] = str(torch.get_num_threads())
    if gpu := gpu_name():
        found["gpu"] = gpu
    return found
