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
) -> TrainedModel:
    """Train one variant in ``out/<name>``, or go on with it, or return what is there.

    Args:
        variant: what to train.
        configs: the configs/nequip folder.
        data: folder of the training files, part of the fingerprint.
        out: the demo's folder.
        epochs: passes over the training set.
        report: called with (epochs done, message) while training runs.

    Raises:
        EqPluginError: when nequip-train fails; names the log.
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

    folder.mkdir(parents=True, exist_ok=True)
    seconds = float(state.get("seconds", 0.0))
    _write_state(folder, fingerprint=fingerprint, seconds=seconds, finished=False)
    command = command_of(variant, configs, folder, epochs)
    if last.is_file():
        command.append(f"++ckpt_path={last}")
    start = time.monotonic()
    _run(command, folder / "console.log", lambda: report(*_progress(folder)))
    seconds += time.monotonic() - start
    _write_state(folder, fingerprint=fingerprint, seconds=seconds, finished=True)
    report(epochs, _force_mae(folder))
    return TrainedModel(variant, best, seconds, False, fingerprint)


def _run(command: list[str], log: Path, poll: Callable[[], None]) -> None:
    """Run a command of this environment, its output in a log file, polling once a second."""
    program = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(program), *command[1:]], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                poll()
                time.sleep(1.0)
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


def _validation_rows(folder: Path) -> list[float]:
    """Validation force MAE (eV/A) of each finished epoch, from Lightning's CSV logs."""
    values = []
    logs = sorted(folder.glob("metrics/version_*/metrics.csv"), key=lambda p: p.stat().st_mtime)
    for log in logs:
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        values += [float(row[VAL_FORCE_MAE]) for row in rows if row.get(VAL_FORCE_MAE)]
    return values


def _progress(folder: Path) -> tuple[int, str]:
    values = _validation_rows(folder)
    return len(values), _force_mae(folder) if values else "starting"


def _force_mae(folder: Path) -> str:
    values = _validation_rows(folder)
    return f"validation {1e3 * values[-1]:.1f} meV/A" if values else ""
