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
from eqplugin.files import write_json
from eqplugin.measure.machine import gpu_name, processor_name
from eqplugin.measure.models import open_model
from eqplugin.measure.plots import plot_scaling
from eqplugin.measure.speed import time_force_calls
from eqplugin.measure.tables import Table, cell

__all__ = [
    "SizeTiming",
    "enlarged",
    "peak_memory",
    "scaling_table",
    "time_by_size",
    "write_scaling",
]

_GAP = 3.0  # A between copies of a molecule


@dataclass(frozen=True)
class SizeTiming:
    """A model on a structure of some size."""

    atoms: int  # number of atoms
    times_ms: tuple[float, ...]  # of each force call, alternated with the other models
    # memory of a process that opens the model and makes a force call, less that of one that only
    # opens it; None where it was not measured
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

    def to_json(self) -> dict[str, object]:
        """Everything, with the median."""
        return {**asdict(self), "median_ms": self.median_ms}


def enlarged(atoms: Atoms, factor: int, seed: int = 0) -> Atoms:
    """A structure of ``factor`` cubed times the atoms, rattled by 0.01 A.

    A crystal is repeated along its periodic directions; a molecule is copied onto a grid with
    3 A between the copies, as in a liquid, so that its atoms have neighbours.
    """
    if factor < 1:
        raise EqPluginError(f"--repeat {factor} is not valid: use 1 or more.")
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


def time_by_size(
    calculators: Mapping[str, Calculator],
    structures: Sequence[Atoms],
    repeats: int,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, list[SizeTiming]]:
    """Time all models on all structures, alternated call by call: label -> a timing for each.

    Args:
        calculators: label -> calculator.
        structures: from small to large.
        repeats: timed calls of each model on each structure, after two that are not.
        tick: told the number of atoms that comes next.
    """
    timings: dict[str, list[SizeTiming]] = {name: [] for name in calculators}
    for atoms in structures:
        tick(len(atoms))
        times = time_force_calls(calculators, atoms, repeats=repeats, warmup=2)
        for name, values in times.items():
            timings[name].append(SizeTiming(len(atoms), tuple(float(value) for value in values)))
    return timings


def peak_memory(
    model: str, atoms: Atoms, device: str, dtype: str | None, head: str | None = None
) -> float:
    """Peak memory of a force call, MiB, measured in a process of its own.

    On CUDA the device's peak; on a CPU the resident memory beyond that of the opened model.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_here, (model, atoms, device, dtype, head))


def _peak_here(model: str, atoms: Atoms, device: str, dtype: str | None, head: str | None) -> float:
    calculator = open_model(model, device, dtype, head)
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
            "peak memory can only be measured on Linux: add --no-memory."
        ) from error
    atoms.get_forces()
    return _resident(peak=True) - before


def _resident(peak: bool) -> float:
    """Resident memory of this process, MiB: now, or at its highest since the last reset."""
    field = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 2**10
    raise EqPluginError("peak memory can only be measured on Linux: add --no-memory.")


def scaling_table(timings: Mapping[str, Sequence[SizeTiming]]) -> Table:
    """Time and memory of every model and size; ratios are against the first model."""
    first = next(iter(timings.values()))
    rows = [
        _row(label, timing, reference)
        for label, sizes in timings.items()
        for timing, reference in zip(sizes, first, strict=True)
    ]
    heads = ("atoms", "ms/call", "10-90 %", "µs/atom", "ratio", "MiB")
    return Table(("model",), heads, rows)


def _row(label: str, timing: SizeTiming, reference: SizeTiming) -> list[str]:
    low, high = timing.spread_ms
    # call by call: both saw the machine in the same moment
    ratio = np.median(np.array(timing.times_ms) / np.array(reference.times_ms))
    return [
        label,
        str(timing.atoms),
        f"{timing.median_ms:.2f}",
        f"{low:.1f}-{high:.1f}",
        f"{timing.us_per_atom:.1f}",
        f"{ratio:.2f}",
        cell(timing.peak_mib, ".0f"),
    ]


def write_scaling(
    timings: Mapping[str, Sequence[SizeTiming]], models: Mapping[str, str], out: Path
) -> None:
    """Write speed.json, with the models as the user named them, and speed.png."""
    peaks = {
        label: [timing.peak_mib for timing in sizes]
        for label, sizes in timings.items()
        if all(timing.peak_mib is not None for timing in sizes)
    }
    content = {
        "schema": "eqplugin.measure.speed/1",
        "hardware": _hardware(),
        "models": dict(models),
        "timings": {label: [t.to_json() for t in sizes] for label, sizes in timings.items()},
        "peak_mib": peaks,
    }
    write_json(out / "speed.json", content)
    plot_scaling(timings, out / "speed.png")


def _hardware() -> dict[str, str]:
    """Names of the machine's processor and GPU, for the record."""
    import torch

    threads, gpu = str(torch.get_num_threads()), gpu_name()
    names = {"machine": platform.machine(), "processor": processor_name(), "threads": threads}
    return names | ({"gpu": gpu} if gpu else {})
