"""How far the jobs of a study have come, read from their folders, wherever they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from eqplugin.report.records import RESULT
from eqplugin.stacks import stack_named
from eqplugin.study.job import Job
from eqplugin.study.storage import Storage
from eqplugin.study.task import stored_record
from eqplugin.study.training import progress_of

_SECONDS = 2.0  # between two looks


@contextmanager
def watching(storage: Storage, jobs: Sequence[Job], console: Console) -> Iterator[None]:
    """Show a bar over all epochs and what runs; without a terminal, a line per finished job."""
    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=len(jobs) * storage.epochs, note="starting")
        watcher = _Watcher(storage, jobs, progress, task)
        thread = threading.Thread(target=watcher.run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            watcher.look()


class _Watcher:
    def __init__(
        self, storage: Storage, jobs: Sequence[Job], progress: Progress, task: TaskID
    ) -> None:
        self.storage, self.progress, self.task = storage, progress, task
        self.folders = {job: storage.folder(job) for job in jobs}
        # a failed attempt's line is there before this one begins
        self.before = {job: self._stamp(job) for job in jobs}
        self.ended: set[Job] = set()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(_SECONDS):
            self.look()

    def _stamp(self, job: Job) -> float | None:
        file = self.folders[job] / RESULT
        return file.stat().st_mtime if file.is_file() else None

    def look(self) -> None:
        epochs, running = 0, []
        for job, folder in self.folders.items():
            if job not in self.ended and self._stamp(job) != self.before[job]:
                self.ended.add(job)
                if not self.progress.console.is_terminal:
                    number = f"{len(self.ended)}/{len(self.folders)}"
                    self.progress.console.print(f"{number} {job.name}: {self._status(job)}")
            if job in self.ended:
                epochs += self.storage.epochs
            elif folder.is_dir():
                done, note = progress_of(stack_named(job.design.stack), folder / job.name)
                epochs += done
                running.append(f"{job.name} epoch {done}, {note}")
        note = f"{len(self.ended)}/{len(self.folders)} jobs; {'; '.join(running[:2]) or '-'}"
        self.progress.update(self.task, completed=epochs, note=note)

    def _status(self, job: Job) -> str:
        record = stored_record(self.storage, job)
        if record is None:
            return "?"
        return record.status + (f" ({record.error})" if record.error else "")
