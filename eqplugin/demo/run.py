"""The demo from start to end: train, measure, time, report."""

from __future__ import annotations

import logging
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eqplugin.demo.measuring import MD_STEPS, measure
from eqplugin.demo.training import TrainedModel, train
from eqplugin.demo.variants import FEATURE_DIM, VARIANTS
from eqplugin.errors import EqPluginError
from eqplugin.md.nve import partial_log
from eqplugin.resources import ROOT

__all__ = ["run_demo"]

PLAN = f"""\
**What this does** (about ten minutes on two cores; run it again to resume or reuse)

1. trains {len(VARIANTS)} models at one feature dimension D = {FEATURE_DIM} with `nequip-train` and
   `eqplugin mace-train` on 450 frames of ethanol at 300 K (GFN2-xTB):
   {"; ".join(v.label for v in VARIANTS)}
2. evaluates each on independent trajectories at 300, 600 and 1200 K
3. runs {MD_STEPS * 0.5e-3:g} ps of NVE molecular dynamics with each through its ASE calculator
4. times a force call, the models alternated
5. writes `report.md` with a table and plots
"""


def run_demo(out: Path, epochs: int, workers: int) -> None:
    """Run the demo into ``out``; finished parts are reused, interrupted ones resumed.

    Raises:
        EqPluginError: when configs or data are not installed, or when a training run fails.
    """
    start = time.monotonic()
    data = ROOT / "examples" / "data" / "ethanol_xtb"
    for folder in (ROOT / "configs", data):
        if not folder.is_dir():
            raise EqPluginError(
                f"{folder} is missing: this installation of eqplugin lacks its configs or "
                "quick-start data, so install it again."
            )
    out.mkdir(parents=True, exist_ok=True)
    # the stacks' loading messages would tear the progress bars apart
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    console = Console()
    console.print(Markdown(PLAN))
    with _progress(console) as progress:
        models = _train_all(progress, out.resolve(), epochs, workers)
        _measure_all(progress, models, data, workers)
        times = _time_all(progress, models, data)
    from eqplugin.demo.report import write_report

    seconds = time.monotonic() - start
    report = write_report(out, models, times, seconds, epochs, platform.processor())
    console.print(Markdown(report.read_text().split("\n## Plots", 1)[0]))
    console.print(f"\nReport: {report}   (this run took {seconds / 60:.1f} minutes)")


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def _train_all(progress: Progress, out: Path, epochs: int, workers: int) -> list[TrainedModel]:
    def reporter(task: int) -> Callable[[int, str], None]:
        def report(done: int, note: str) -> None:
            before = progress.tasks[task].completed
            progress.update(task, completed=done, note=note)
            # without a terminal there are no bars: a line every fifth epoch instead
            if not progress.console.is_terminal and done > before and done % 5 == 0:
                progress.console.print(f"{progress.tasks[task].description}: epoch {done}, {note}")

        return report

    stop = Event()
    with ThreadPoolExecutor(workers) as pool:
        futures = []
        for variant in VARIANTS:
            task = progress.add_task(f"train {variant.label}", total=epochs, note="waiting")
            futures.append(pool.submit(train, variant, ROOT, out, epochs, reporter(task), stop))
        try:
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C too: end what runs, do not start what waits
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _measure_all(progress: Progress, models: list[TrainedModel], data: Path, workers: int) -> None:
    # processes, not threads: Python-side work of two MD runs would wait for one another
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs: dict[Future, tuple[int, Path]] = {}
        for model in models:
            task = progress.add_task(f"test, MD {model.variant.label}", total=MD_STEPS, note="")
            folder = model.checkpoint.parent
            future = pool.submit(measure, model.checkpoint, data, model.fingerprint)
            jobs[future] = task, folder
        pending = set(jobs)
        while pending:
            done, pending = wait(pending, timeout=1.0)
            for future in pending:
                task, folder = jobs[future]
                progress.update(task, completed=_md_steps_done(folder), note=_stage(folder))
            for future in done:
                future.result()
                task = jobs[future][0]
                progress.update(task, completed=MD_STEPS, note="done")
                if not progress.console.is_terminal:
                    progress.console.print(f"{progress.tasks[task].description}: done")


def _md_steps_done(folder: Path) -> int:
    log = partial_log(folder / "nve.csv")
    if not log.is_file():
        return 0
    lines = log.read_text().count("\n") - 2  # header and step 0
    return max(0, 10 * lines)


def _stage(folder: Path) -> str:
    return "NVE" if (folder / "errors.json").is_file() else "force errors"


def _time_all(progress: Progress, models: list[TrainedModel], data: Path) -> dict[str, object]:
    import torch
    from ase.io import read

    from eqplugin.calculator import EqCalculator
    from eqplugin.measure.speed import time_force_calls

    task = progress.add_task("time a force call", total=1, note="models alternated, one thread")
    torch.set_num_threads(1)
    calculators = {m.variant.name: EqCalculator(str(m.checkpoint)) for m in models}
    times = time_force_calls(calculators, read(data / "test_300K.xyz", index=0), repeats=60)
    progress.update(task, completed=1)
    return times
