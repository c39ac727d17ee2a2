"""Real training runs of either stack: resumed where interrupted, reused when done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Event

import psutil

from eqplugin.errors import EqPluginError
from eqplugin.files import write_json
from eqplugin.stack import Stack

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """A training run: what is called, where, and what decides its weights."""

    label: str  # for messages
    stack: Stack  # whose trainer it is
    folder: Path  # of this run alone; what it holds of another run is moved aside
    # as a user would type it; the program is looked for in this environment
    command: tuple[str, ...]
    epochs: int  # passes over the training set
    fingerprint: str  # of everything that decides the weights, see `fingerprint_of`
    again: str  # what the user does to go on after an interruption
    threads: int = 1  # of the training process


@dataclass(frozen=True)
class TrainingResult:
    """A finished training run."""

    model: Path  # the trained model
    seconds: float  # spent training, all attempts together but those that were killed hard
    reused: bool  # finished at an earlier time
    # of one epoch, validation included; None where it was too short to see
    epoch_seconds: float | None
    peak_bytes: int | None  # largest resident memory of the training process
    # of processor time, all attempts together; a busy machine changes it little
    cpu_seconds: float | None = None


def run_training(
    run: TrainingRun, report: Callable[[int, str], None], stop: Event
) -> TrainingResult:
    """Train in the run's folder, or go on with what is there, or return what is finished.

    Args:
        run: what to train.
        report: called with (epochs done, message) while training runs.
        stop: when set, training is ended; it can be resumed.

    Raises:
        EqPluginError: when training fails or ends early; names the log.
    """
    folder = run.folder
    state = _read_state(folder)
    if state.get("fingerprint") != run.fingerprint:
        # another config, data set or version: its weights would not be comparable
        _refuse_if_running(folder, state)
        set_aside(folder)
        state = {}
    model = run.stack.model(folder)
    if state.get("finished") and model.is_file():
        report(run.epochs, f"reused, {progress_of(run.stack, folder)[1]}")
        return _result(model, state, reused=True)

    _refuse_if_running(folder, state)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {"fingerprint": run.fingerprint, "finished": False}
    before = {"seconds": state.get("seconds") or 0.0, "cpu_seconds": state.get("cpu_seconds", 0.0)}
    _write_state(folder, **unfinished, **before)
    command = [*run.command, *run.stack.resume(folder)]
    watch = _Watch()

    def poll() -> None:
        done, note = progress_of(run.stack, folder)
        watch.see(done)
        report(done, note)

    def started(pid: int) -> None:
        watch.pid = pid
        _write_state(folder, **unfinished, **before, pid=pid)

    start = time.monotonic()

    def spent() -> dict[str, float | None]:
        seconds = before["seconds"] + time.monotonic() - start
        return {"seconds": seconds, "cpu_seconds": _sum(before["cpu_seconds"], watch.cpu_seconds)}

    log = folder / "console.log"
    try:
        run_logged(command, log, started, poll, stop, run.threads)
    except EqPluginError as error:
        _write_state(folder, **unfinished, **spent())
        interrupted = stop.is_set()
        raise EqPluginError(f"interrupted: {run.again}." if interrupted else str(error)) from error
    done, note = progress_of(run.stack, folder)
    if done < run.epochs or not model.is_file():
        raise EqPluginError(
            f"training {run.label} stopped after {done} of {run.epochs} epochs; its output: {log}. "
            f"{run.again[:1].upper()}{run.again[1:]}."
        )
    state = {
        "fingerprint": run.fingerprint,
        "finished": True,
        "epoch_seconds": watch.epoch_seconds() or state.get("epoch_seconds"),
        "peak_bytes": watch.peak_bytes or state.get("peak_bytes"),
        **spent(),
    }
    _write_state(folder, **state)
    report(run.epochs, note)
    return _result(model, state, reused=False)


def _result(model: Path, state: dict, reused: bool) -> TrainingResult:
    told = {key: state.get(key) for key in ("epoch_seconds", "peak_bytes", "cpu_seconds")}
    return TrainingResult(model, state["seconds"], reused, **told)


def _sum(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else before + now


class _Watch:
    """Pace and memory of a training process, seen from outside."""

    def __init__(self) -> None:
        self.pid: int | None = None  # none yet
        self.peak_bytes: int | None = None
        self.cpu_seconds: float | None = None
        self._seen: list[tuple[int, float]] = []  # epochs done, when first seen

    def see(self, epochs: int) -> None:
        if epochs and (not self._seen or epochs > self._seen[-1][0]):
            self._seen.append((epochs, time.monotonic()))
        try:
            process = _process(self.pid)
            resident, times = process.memory_info().rss, process.cpu_times()
        except psutil.Error:
            return
        self.cpu_seconds = times.user + times.system + times.children_user + times.children_system
        self.peak_bytes = max(_high_water_mark(self.pid) or resident, self.peak_bytes or 0) or None

    def epoch_seconds(self) -> float | None:
        """Mean over the epochs after the first one seen, which bears the start."""
        if len(self._seen) < 2:
            return None
        (first, begin), (last, end) = self._seen[0], self._seen[-1]
        return (end - begin) / (last - first)


def _process(pid: int | None) -> psutil.Process:
    if pid is None:  # psutil would take this very process
        raise psutil.NoSuchProcess(-1)
    return psutil.Process(pid)


def _high_water_mark(pid: int) -> int | None:
    """Largest resident memory so far, bytes; None where the system keeps no such mark (no /proc).

    psutil knows the memory of this moment alone, and a look a second misses short peaks.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * marks[0] if marks else None


def run_logged(
    command: list[str],
    log: Path,
    started: Callable[[int], None],
    poll: Callable[[], None],
    stop: Event,
    threads: int = 1,
) -> None:
    """Run a command of this environment, its output in a log file, polling once a second."""
    program = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        # in a session of its own: Ctrl-C reaches us alone, and we end it in good order
        process = subprocess.Popen(
            [str(program), *command[1:]],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        started(process.pid)
        try:
            while process.poll() is None:
                if stop.wait(1.0):
                    raise EqPluginError("interrupted")
                poll()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise EqPluginError(
            f"`{' '.join(command[:5])} ...` failed with exit status {process.returncode}; "
            f"its last line: {lines[-1] if lines else '(no output)'}; the whole output: {log}"
        )


def _refuse_if_running(folder: Path, state: dict) -> None:
    """Two runs must not write to one folder; a killed program may have left its training behind."""
    pid = state.get("pid")
    try:
        command = " ".join(_process(pid).cmdline())
    except psutil.Error:
        return
    if str(folder) in command:
        raise EqPluginError(
            f"an earlier training run (process {pid}) still writes to {folder}: "
            f"wait for it or end it with `kill {pid}`."
        )


def fingerprint_of(stack: Stack, command: Iterable[object], files: Iterable[Path]) -> str:
    """Hash of everything that decides the weights: command, versions, configs and data.

    Args:
        stack: whose packages' versions count.
        command: what is called, without the places where things lie.
        files: configs and data, by their content.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(list(command)).encode())
    for package in stack.packages:
        digest.update(f"{package}={version(package)}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def set_aside(folder: Path) -> Path | None:
    """Rename a folder that is there and not empty; return its new name. Nothing is deleted.

    What is in it may be a training whose ``run.json`` a power cut has damaged, or a user's own.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.aside-{number}")).exists():
        number += 1
    folder.rename(aside)
    _LOGGER.warning(f"{folder} did not hold this training: what it held is now in {aside}.")
    return aside


# of `run.json`, where they are there
_STATE_TYPES: dict[str, type | tuple[type, ...]] = {
    "fingerprint": str,
    "finished": bool,
    "pid": int,
    **dict.fromkeys(("seconds", "cpu_seconds", "epoch_seconds", "peak_bytes"), (int, float)),
}


def _read_state(folder: Path) -> dict:
    """What ``run.json`` says; nothing where it is missing, damaged or another program's."""
    try:
        state = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(state, dict):
        return {}
    known = (state.get(key) is None or isinstance(state[key], t) for key, t in _STATE_TYPES.items())
    lacks = state.get("finished") and state.get("seconds") is None
    return state if all(known) and not lacks else {}


def _write_state(folder: Path, **state: object) -> None:
    write_json(folder / "run.json", state)


def progress_of(stack: Stack, folder: Path) -> tuple[int, str]:
    """Epochs done, and the validation error in words."""
    values = stack.validation_curve(folder)
    if not values:
        return 0, "starting"
    last = max(values)
    return last + 1, f"validation {1e3 * values[last]:.1f} meV/A"
