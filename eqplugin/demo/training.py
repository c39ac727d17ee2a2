"""Real training runs of either stack: resumed where interrupted, reused when done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Event

from eqplugin.demo.stacks import STACKS
from eqplugin.demo.variants import Variant
from eqplugin.errors import EqPluginError
from eqplugin.files import write_json

__all__ = ["TrainedModel", "train"]


@dataclass(frozen=True)
class TrainedModel:
    """A finished training run."""

    variant: Variant
    checkpoint: Path
    seconds: float  # spent training, all attempts together
    reused: bool  # finished in an earlier run of the demo
    fingerprint: str  # of config, data and versions


def train(
    variant: Variant,
    root: Path,
    out: Path,
    epochs: int,
    report: Callable[[int, str], None],
    stop: Event,
) -> TrainedModel:
    """Train one variant in ``out/<name>``, or go on with it, or return what is there.

    Args:
        variant: what to train.
        root: the clone, with its configs and data.
        out: the demo's folder.
        epochs: passes over the training set.
        report: called with (epochs done, message) while training runs.
        stop: when set, training is ended; it can be resumed.

    Raises:
        EqPluginError: when training fails or ends early; names the log.
    """
    stack, folder = STACKS[variant.stack], out / variant.name
    fingerprint = _fingerprint(variant, root, epochs)
    state = _read_state(folder)
    if state.get("fingerprint") != fingerprint and folder.exists():
        # another config, data set or version: its weights would not be comparable
        shutil.rmtree(folder)
        state = {}
    model = stack.model(folder)
    if state.get("finished") and model.is_file():
        report(epochs, f"reused, {_progress(variant, folder)[1]}")
        return TrainedModel(variant, model, state["seconds"], True, fingerprint)

    _refuse_if_running(folder, state)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = float(state.get("seconds", 0.0))
    unfinished = {"fingerprint": fingerprint, "seconds": seconds, "finished": False}
    _write_state(folder, **unfinished)
    command = [*stack.command(variant, root, folder, epochs), *stack.resume(folder)]
    start = time.monotonic()
    log = folder / "console.log"
    _run(
        command,
        log,
        started=lambda pid: _write_state(folder, **unfinished, pid=pid),
        poll=lambda: report(*_progress(variant, folder)),
        stop=stop,
    )
    done, note = _progress(variant, folder)
    if done < epochs or not model.is_file():
        raise EqPluginError(
            f"training {variant.label} stopped after {done} of {epochs} epochs; its output: {log}. "
            "Run the demo again to go on."
        )
    seconds += time.monotonic() - start
    _write_state(folder, fingerprint=fingerprint, seconds=seconds, finished=True)
    report(epochs, note)
    return TrainedModel(variant, model, seconds, False, fingerprint)


def _run(
    command: list[str],
    log: Path,
    started: Callable[[int], None],
    poll: Callable[[], None],
    stop: Event,
) -> None:
    """Run a command of this environment, its output in a log file, polling once a second."""
    program = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
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
                    raise EqPluginError("interrupted: run the demo again to go on.")
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
    """Two runs must not write to one folder; a killed demo may have left its training behind."""
    pid = state.get("pid")
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return
    if str(folder) in command:
        raise EqPluginError(
            f"an earlier training run (process {pid}) still writes to {folder}: "
            f"wait for it or end it with `kill {pid}`."
        )


def _fingerprint(variant: Variant, root: Path, epochs: int) -> str:
    """Hash of everything that decides the weights: command, configs, data and versions."""
    stack = STACKS[variant.stack]
    digest = hashlib.sha256()
    command = stack.command(variant, Path(), Path(), epochs)  # without the place of the clone
    digest.update(json.dumps([variant.name, command]).encode())
    for package in stack.packages:
        digest.update(f"{package}={version(package)}".encode())
    configs = sorted((root / "configs" / variant.stack).rglob("*.yaml"))
    data = sorted((root / "examples" / "data" / "ethanol_xtb").glob("*.xyz"))
    for file in [*configs, *data]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}


def _write_state(folder: Path, **state: object) -> None:
    write_json(folder / "run.json", state)


def _progress(variant: Variant, folder: Path) -> tuple[int, str]:
    """Epochs done, and the validation error in words."""
    values = STACKS[variant.stack].force_maes(folder)
    if not values:
        return 0, "starting"
    last = max(values)
    return last + 1, f"validation {1e3 * values[last]:.1f} meV/A"
