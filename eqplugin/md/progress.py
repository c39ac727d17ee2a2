"""Progress of a run on the terminal: steps/s, ns/day, temperature, drift."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eqplugin.md.observables import Sample, drift
from eqplugin.md.settings import MdSettings

_LINES = 10  # printed over a run where there is no terminal to draw bars on


class ProgressLine:
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
        note = f"{self.speed(step)}  {self._state}"
        self._progress.update(self._task, completed=step, note=note)
        if sample is not None and tenth > self._tenth and not self._progress.console.is_terminal:
            self._tenth = tenth
            self._progress.console.print(f"step {step}/{self._settings.steps}: {note}")

    def speed(self, step: int) -> str:
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
def progress_line(
    console: Console, settings: MdSettings, num_atoms: float, structures: int = 1
) -> Iterator[ProgressLine]:
    """Show a bar while the block runs."""
    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    # without a terminal there is no bar, ProgressLine prints a line now and then instead
    hidden = not console.is_terminal
    with Progress(*columns, console=console, refresh_per_second=4, disable=hidden) as progress:
        yield ProgressLine(progress, settings, num_atoms, structures)
