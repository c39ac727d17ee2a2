"""The demo from start to end: a study of five models, dynamics with each, and a report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eqplugin.errors import EqPluginError
from eqplugin.files import whole_file, write_json
from eqplugin.md.nve import NveRun, partial_log, run_nve
from eqplugin.measure.forces import evaluate
from eqplugin.measure.labels import read_labelled
from eqplugin.report.records import FinishedJob, SpeedRecord, read_records
from eqplugin.resources import CONFIGS
from eqplugin.study.run import plan_study, prepare, run_study
from eqplugin.study.storage import Storage

__all__ = ["DemoModel", "run_demo"]

CONFIG = CONFIGS / "study" / "demo.yaml"
MD_STEPS, TIMESTEP = 4000, 0.5  # fs
_STEPS_AN_EPOCH = 90  # 450 frames in batches of 5
PLAN = f"""\
**What this does** (about ten minutes on two cores; run it again to resume or reuse)

1. trains five models at one feature dimension D = 128 with `nequip-train` and
   `eqplugin mace-train` on 450 frames of ethanol at 300 K (GFN2-xTB), tests them on independent
   trajectories at 300, 600 and 1200 K and times them in turn: the study `{CONFIG.name}`
2. runs {MD_STEPS * TIMESTEP / 1e3:g} ps of NVE molecular dynamics with each, through its ASE
   calculator
3. writes `report.md` with a table and plots
"""


@dataclass(frozen=True)
class DemoModel:
    """One model of the demo."""

    name: str  # arm of the study, and folder in the demo's
    record: FinishedJob  # its job
    file: Path  # a copy of the trained model
    # test set -> reference and predicted force components, eV/A, (n, 2)
    forces: dict[str, np.ndarray]
    dynamics: NveRun  # the NVE run
    trained_before: bool  # in an earlier run of the demo


def run_demo(out: Path, epochs: int, workers: int) -> None:
    """Run the demo into ``out``; finished parts are reused, interrupted ones resumed.

    Raises:
        EqPluginError: when a training fails; run again to try it again.
    """
    from eqplugin.study.demo_report import write_report

    start, out, console = time.monotonic(), out.resolve(), Console(markup=False)
    console.print(Markdown(PLAN))
    overrides = [f"out={out}", f"train.steps={_STEPS_AN_EPOCH * epochs}"]
    study, frames, requests = prepare(CONFIG, overrides, sweep=False)
    before = _finished_jobs(out)
    storage = plan_study(study, frames, requests, console)
    # without the launcher for several jobs, one after the other
    at_once = workers if find_spec("hydra_plugins.hydra_joblib_launcher") else None
    run_study(storage, study, at_once, console)
    records = {name: record for record in _jobs(storage.out) for name in record.arms}
    files = {name: _copied_model(storage, name, records[name]) for name in study.arms}
    with _progress(console) as progress:
        _run_dynamics(progress, storage, records, files, workers)
    models = [
        DemoModel(
            name,
            records[name],
            files[name],
            dict(np.load(files[name].with_name("forces.npz"))),
            NveRun.read(files[name].with_name("nve.csv"), len(frames.train[0].atoms)),
            records[name] in before,
        )
        for name in study.arms
    ]
    (speed,) = (r for r in read_records(storage.out) if isinstance(r, SpeedRecord))
    seconds = time.monotonic() - start
    report = write_report(out, models, speed, seconds, epochs)
    console.print(Markdown(report.read_text().split("\n## Plots", 1)[0]))
    console.print(f"\nReport: {report}   (this run took {seconds / 60:.1f} minutes)")


def _jobs(out: Path) -> list[FinishedJob]:
    jobs = [record for record in read_records(out) if not isinstance(record, SpeedRecord)]
    for record in jobs:
        if not isinstance(record, FinishedJob):
            raise EqPluginError(f"{record.job} failed: {record.error} Run the demo again.")
    return jobs


def _finished_jobs(out: Path) -> list[FinishedJob]:
    """What an earlier run of the demo finished; a job that is trained again has another time."""
    try:
        return [record for record in read_records(out) if isinstance(record, FinishedJob)]
    except EqPluginError:
        return []


def _copied_model(storage: Storage, name: str, record: FinishedJob) -> Path:
    """The trained model under a short path: ``demo/steerable-L2/best.ckpt``."""
    trained = storage.out / record.model
    file = storage.out / name / (f"{name}.model" if trained.suffix == ".model" else trained.name)
    with whole_file(file) as unfinished:
        shutil.copyfile(trained, unfinished)
    without_code = trained.with_suffix(".eqm")
    if without_code.is_file():
        with whole_file(file.with_suffix(".eqm")) as unfinished:
            shutil.copyfile(without_code, unfinished)
    return file


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def _run_dynamics(
    progress: Progress,
    storage: Storage,
    records: dict[str, FinishedJob],
    files: dict[str, Path],
    workers: int,
) -> None:
    tests = {test: storage.files[test] for test in storage.tests}
    # processes, not threads: Python-side work of two MD runs would wait for one another
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs: dict[Future, tuple[int, Path]] = {}
        for name, file in files.items():
            task = progress.add_task(f"MD {name}", total=MD_STEPS, note="")
            future = pool.submit(_predict_and_move, file, tests, records[name].fingerprint)
            jobs[future] = task, file.with_name("nve.csv")
        pending = set(jobs)
        while pending:
            done, pending = wait(pending, timeout=1.0)
            for future in pending:
                task, log = jobs[future]
                progress.update(task, completed=_steps_done(log))
            for future in done:
                future.result()
                task, _ = jobs[future]
                progress.update(task, completed=MD_STEPS, note="done")
                if not progress.console.is_terminal:
                    progress.console.print(f"{progress.tasks[task].description}: done")


def _steps_done(log: Path) -> int:
    part = partial_log(log)
    # a header, step 0, then a line every ten steps
    return max(0, 10 * (part.read_text().count("\n") - 2)) if part.is_file() else 0


def _predict_and_move(model: Path, tests: dict[str, Path], fingerprint: str) -> None:
    """Write the predictions of every test and the NVE log beside a model, unless they are there."""
    from eqplugin.calculator import EqCalculator
    from eqplugin.quiet import quiet

    import torch  # isort: skip

    stamp = model.with_name("measured.json")
    if stamp.is_file() and json.loads(stamp.read_text()) == fingerprint:
        return
    torch.set_num_threads(1)
    with quiet():
        calculator = EqCalculator(str(model))
        frames = {test: read_labelled(file) for test, file in tests.items()}
        forces = {
            test: np.concatenate([f.forces.reshape(-1, 2) for f in evaluate(calculator, labelled)])
            for test, labelled in frames.items()
        }
        with whole_file(model.with_name("forces.npz")) as unfinished:
            np.savez_compressed(unfinished, **forces)
        first = next(iter(frames.values()))[0].atoms
        run_nve(first, calculator, model.with_name("nve.csv"), MD_STEPS, TIMESTEP)
    write_json(stamp, fingerprint)
