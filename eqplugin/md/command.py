"""The work of `eqplugin md`: open, run with a progress bar, plot, print averages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ase import Atoms
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eqplugin.calculator import EqCalculator
from eqplugin.errors import EqPluginError
from eqplugin.md.observables import Sample, drift, read_log, second_half
from eqplugin.md.run import MdFiles, MdRun, run_md
from eqplugin.md.settings import Engine, MdRequest, MdSettings
from eqplugin.md.start import read_structures
from eqplugin.quiet import quiet
from eqplugin.stacks import file_kind

_PLOTS = 20  # of a batch; plots of hundreds of structures take longer than they are looked at
_LINES = 10  # printed over a run where there is no terminal to draw bars on


def run_request(request: MdRequest, console: Console | None = None) -> None:
    """Run what the command line asks for."""
    from eqplugin.md.plots import plot_run

    console = console or Console(markup=False)
    origin = _origin(request)
    structures = read_structures(request.structure)
    with quiet():  # the stacks' loading messages would tear the progress bar apart
        run = _run_batch if request.engine == Engine.torch_sim else _run_one
        runs = run(request, structures, origin, console)
        _say_resumed(console, runs[0])
        for index, done in enumerate(runs[:_PLOTS]):
            name = done.atoms.get_chemical_formula()
            name = name if request.engine == Engine.ase else f"structure {index} ({name})"
            title = f"{name}, {request.model.name}: {request.settings}"
            files = done.files
            plot_run(files.traj, files.log, files.plot, request.settings, done.degrees, title)
        _print_summary(console, runs)


def _origin(request: MdRequest) -> dict[str, object]:
    """Options beside the settings that may not change when the run is continued."""
    file_kind(request.model)  # says so where the file is missing
    with request.model.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").hexdigest()
    paths = {"traj": request.traj, "log": request.log}
    names = ("engine", "device", "dtype", "skin", "compile", "head")
    return (
        {"model": model}
        | {name: None if path is None else str(path) for name, path in paths.items()}
        | {name: getattr(request, name) for name in names}
    )


def _run_one(
    request: MdRequest, structures: list[Atoms], origin: dict[str, object], console: Console
) -> list[MdRun]:
    if len(structures) > 1:
        raise EqPluginError(
            f"{request.structure} has {len(structures)} frames, but only one structure runs at a "
            f"time: keep one frame, or run all with --engine torch-sim."
        )
    atoms, settings = structures[0], request.settings
    files = MdFiles(request.out, request.traj, request.log)
    calculator = EqCalculator(
        request.model,
        request.device,
        request.dtype,
        request.skin,
        compile=request.compile,
        head=request.head,
    )
    console.print(f"{atoms.get_chemical_formula()}, {len(atoms)} atoms: {settings}")
    with _progress_line(console, settings, len(atoms)) as watch:
        return [run_md(atoms, calculator, settings, files, origin, watch)]


def _run_batch(
    request: MdRequest, structures: list[Atoms], origin: dict[str, object], console: Console
) -> list[MdRun]:
    for option in ("skin", "compile", "traj", "log"):
        value = getattr(request, option)
        if value != getattr(MdRequest, option):  # the default
            raise EqPluginError(
                f"--{option} {value} cannot be used with --engine torch-sim: leave it out."
            )
    from eqplugin.md.batched import check_batch, open_batch_model, run_batch

    settings = request.settings
    check_batch(structures, settings)
    model = open_batch_model(request.model, request.device, request.dtype, request.head)
    atoms = sum(len(frame) for frame in structures)
    console.print(f"{len(structures)} structures, {atoms} atoms: {settings}")
    mean = atoms / len(structures)
    with _progress_line(console, settings, mean, len(structures)) as watch:
        return run_batch(structures, model, settings, request.out, origin, watch)


def _say_resumed(console: Console, run: MdRun) -> None:
    if run.resumed_from == run.steps:
        console.print(f"Nothing to run: all {run.steps} steps are done; raise --steps to continue.")
    elif run.resumed_from is not None:
        console.print(f"Resumed from step {run.resumed_from}.")


def _print_summary(console: Console, runs: Sequence[MdRun]) -> None:
    """Print averages over the second half, a line per structure; columns without numbers go."""
    names = ("T (K)", "E_pot (eV)", "drift (meV/atom/ps)", "p (GPa)", "ρ (g/cm³)", "in")
    rows = [_averages(run) for run in runs[:_PLOTS]]
    table = Table(box=None, pad_edge=False)
    used = [column for column in range(len(names)) if any(row[column] for row in rows)]
    for column in used:
        justify = "left" if names[column] == "in" else "right"
        table.add_column(names[column], justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in used))
    console.print("Second half of the run:")
    console.print(table)
    if len(runs) > _PLOTS:
        console.print(f"... and {len(runs) - _PLOTS} more, with logs and trajectories only.")


def _averages(run: MdRun) -> list[str]:
    log = read_log(run.files.log)
    half = second_half(log).mean()
    slope = drift(log["time_ps"], log["conserved_eV"], len(run.atoms))
    cells = (
        f"{half['temperature_K']:.0f}",
        f"{half['potential_eV']:.3f}",
        f"{slope:+.3g}",
        f"{half['pressure_GPa']:.3f}",
        f"{half['density_g_cm3']:.3f}",
    )
    return [*("" if "nan" in cell else cell for cell in cells), str(run.files.traj.parent)]


class _ProgressLine:
    """Line on the terminal; call it with each step, and with the sample at frames.

    Args:
        progress: rich's bar.
        settings: of the run.
        num_atoms: of a structure; the mean where several run.
        structures: how many run at once; speeds are of all together.
    """

    def __init__(
        self, progress: Progress, settings: MdSettings, num_atoms: float, structures: int = 1
    ) -> None:
        self._progress, self._settings = progress, settings
        self._num_atoms, self._structures = num_atoms, structures
        self._task = progress.add_task(settings.ensemble, total=settings.steps, note="")
        self._began: tuple[float, int] | None = None
        self._samples: list[Sample] = []
        self._state = ""
        self._tenth = 0

    def __call__(self, step: int, sample: Sample | None) -> None:
        """Show a step."""
        tenth = _LINES * step // self._settings.steps
        if self._began is None:
            self._began, self._tenth = (time.perf_counter(), step), tenth
        if sample is not None:
            self._samples.append(sample)
            self._state = f"{sample.temperature_K:.0f} K{self._drift()}"
        note = f"{self._speed(step)}  {self._state}"
        self._progress.update(self._task, completed=step, note=note)
        if sample is not None and tenth > self._tenth and not self._progress.console.is_terminal:
            self._tenth = tenth
            self._progress.console.print(f"step {step}/{self._settings.steps}: {note}")

    def _speed(self, step: int) -> str:
        """Steps per second and nanoseconds per day since this call took over."""
        if self._began is None or step == self._began[1]:
            return ""
        rate = (step - self._began[1]) / max(time.perf_counter() - self._began[0], 1e-9)
        per_day = rate * self._settings.timestep * 86400e-6 * self._structures
        return f"{rate:.3g} steps/s  {per_day:.3g} ns/day"

    def _drift(self) -> str:
        if len(self._samples) < 3:
            return ""
        time_ps, energy = zip(*((s.time_ps, s.conserved_eV) for s in self._samples), strict=True)
        slope = drift(time_ps, energy, self._num_atoms)
        return "" if slope != slope else f"  {slope:+.2g} meV/atom/ps"


@contextmanager
def _progress_line(
    console: Console, settings: MdSettings, num_atoms: float, structures: int = 1
) -> Iterator[_ProgressLine]:
    """Show a bar while the block runs."""
    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # without a terminal there is no bar, a line is printed now and then
    hidden = not console.is_terminal
    with Progress(*columns, console=console, refresh_per_second=4, disable=hidden) as progress:
        yield _ProgressLine(progress, settings, num_atoms, structures)
