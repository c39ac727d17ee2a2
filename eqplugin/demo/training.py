"""Real `nequip-train` runs, resumed where they were interrupted and reused when they are done."""

from __future__ import annotations

import csv
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

from eqplugin.demo.variants import FEATURE_DIM, Variant
from eqplugin.errors import EqPluginError

__all__ = ["TrainedModel", "train"]

VAL_FORCE_MAE = "val0_epoch/forces_mae"


@dataclass(frozen=True)
class TrainedModel:
    """A finished training run."""

    variant: Variant
    checkpoint: Path
    seconds: float  # spent training, all attempts together
    reused: bool  # finished in an earlier run of the demo
    fingerprint: str  # of config, data and versions


def command_of(variant: Variant, configs: Path, folder: Path, epochs: int) -> list[str]:
    """The `nequip-train` command line, as a user would type it."""
    return [
        "nequip-train",
        "-cp",
        str(configs),
        "-cn",
        variant.config,
        f"feature_dim={FEATURE_DIM}",
        *variant.overrides,
        f"max_epochs={epochs}",
        f"hydra.run.dir={folder}",
    ]


def train(
    variant: Variant,
    configs: Path,
    data: Path,
    out: Path,
    epochs: int,
    report: Callable[[int, str], None],
    stop: Event,
) -> TrainedModel:
    """Train one variant in ``out/<name>``, or go on with it, or return what is there.

    Args:
        variant: what to train.
        configs: the configs/nequip folder.
        data: folder of the training files, part of the fingerprint.
        out: the demo's folder.
        epochs: passes over the training set.
        report: called with (epochs done, message) while training runs.
        stop: when set, training is ended; it can be resumed.

    Raises:
        EqPluginError: when nequip-train fails or ends early; names the log.
    """
    folder = out / variant.name
    fingerprint = _fingerprint(variant, configs, data, epochs)
    state = _read_state(folder)
    if state.get("fingerprint") != fingerprint and folder.exists():
        # another config, data set or version: its weights would not be comparable
        shutil.rmtree(folder)
        state = {}
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    if state.get("finished") and best.is_file():
        report(epochs, f"reused, {_force_mae(folder)}")
        return TrainedModel(variant, best, state["seconds"], True, fingerprint)

    _refuse_if_running(folder, state)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = float(state.get("seconds", 0.0))
    unfinished = {"fingerprint": fingerprint, "seconds": seconds, "finished": False}
    _write_state(folder, **unfinished)
    command = command_of(variant, configs, folder, epochs)
    if last.is_file():
        command.append(f"++ckpt_path={last}")
    start = time.monotonic()
    log = folder / "console.log"
    _run(
        command,
        log,
        started=lambda pid: _write_state(folder, **unfinished, pid=pid),
        poll=lambda: report(*_progress(folder)),
        stop=stop,
    )
    done = _epochs_done(folder)
    if done < epochs:
        raise EqPluginError(
            f"{variant.config} stopped after {done} of {epochs} epochs; its output: {log}. "
            "Run the demo again to go on."
        )
    seconds += time.monotonic() - start
    _write_state(folder, fingerprint=fingerprint, seconds=seconds, finished=True)
    report(epochs, _force_mae(folder))
    return TrainedModel(variant, best, seconds, False, fingerprint)


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


def _fingerprint(variant: Variant, configs: Path, data: Path, epochs: int) -> str:
    """Hash of everything that decides the weights: command, configs, data and versions."""
    digest = hashlib.sha256()
    digest.update(json.dumps([variant.name, variant.config, variant.overrides, epochs]).encode())
    for package in ("torch", "e3nn", "nequip", "eqplugin"):
        digest.update(f"{package}={version(package)}".encode())
    for file in [*sorted(configs.rglob("*.yaml")), *sorted(data.glob("*.xyz"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}


def _write_state(folder: Path, **state: object) -> None:
    partial = folder / "run.json.part"
    partial.write_text(json.dumps(state, indent=2))
    partial.replace(folder / "run.json")


def _validation_rows(folder: Path) -> dict[int, float]:
    """Validation force MAE (eV/A) by finished epoch, from Lightning's CSV logs."""
    values: dict[int, float] = {}
    logs = sorted(folder.glob("metrics/version_*/metrics.csv"), key=lambda p: p.stat().st_mtime)
    for log in logs:
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get(VAL_FORCE_MAE):
                    values[int(row["epoch"])] = float(row[VAL_FORCE_MAE])
    return values


def _epochs_done(folder: Path) -> int:
    return max(_validation_rows(folder), default=-1) + 1


def _progress(folder: Path) -> tuple[int, str]:
    return _epochs_done(folder), _force_mae(folder) or "starting"


def _force_mae(folder: Path) -> str:
    values = _validation_rows(folder)
    return f"validation {1e3 * values[max(values)]:.1f} meV/A" if values else ""
