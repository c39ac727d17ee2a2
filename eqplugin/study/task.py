"""What Hydra runs for every job: train, measure, write one line. Nothing is raised."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.files import disk_refusals
from eqplugin.report.records import (
    RESULT,
    FinishedJob,
    JobCost,
    JobRecord,
    Measurement,
    current_environment,
    read_records,
    write_records,
)
from eqplugin.study.job import Job, axes_of
from eqplugin.study.older import made_by_older_version
from eqplugin.study.storage import Storage
from eqplugin.study.training import run_logged, run_training

HYDRA = "hydra"  # folder of Hydra's own, in that of the study


def task(config: DictConfig) -> str:
    """Hydra's task function: run the job that the config names, return its status."""
    _end_in_good_order()
    # not `out=`: Hydra takes that for a config group where a folder of this name is at hand
    storage = Storage(Path(HydraConfig.get().sweep.dir).parent)
    return run_job(storage, storage.job(config.job)).status


def run_job(storage: Storage, job: Job) -> JobRecord:
    """Train and measure a job, or reuse it; a failure becomes its record.

    An interruption (Ctrl-C, SIGTERM) is passed on and leaves no record: the job is resumed when
    the study runs again.
    """
    done = finished_record(storage, job)
    if done is not None:
        return done
    folder = storage.folder(job)
    try:
        with disk_refusals(folder):
            result = _train_and_measure(storage, job)
        record = record_of(storage, job, "done", **result)
    except EqPluginError as error:
        record = record_of(storage, job, "failed", error=str(error))
    except Exception as error:  # a fault of ours must not end the study either
        reason = f"{type(error).__name__}: {reason_of(error)}"
        with disk_refusals(folder / "traceback.log"):
            (folder / "traceback.log").write_text(traceback.format_exc())
        record = record_of(
            storage, job, "failed", error=f"{reason}; see {folder / 'traceback.log'}"
        )
    write_records(folder / RESULT, [record])
    return record


def finished_record(storage: Storage, job: Job) -> JobRecord | None:
    """The record of a job that is done, its arms as they are now; None where it has to run."""
    if not job.attainable:
        return record_of(storage, job, "unattainable", error=job.unattainable)
    record = stored_record(storage, job)
    if record is None or record.status != "done":
        return None
    same = record.fingerprint == storage.fingerprint(job) or made_by_older_version(record)
    return record if same else None


def stored_record(storage: Storage, job: Job) -> JobRecord | None:
    """The line in a job's folder, its arms as they are now; None where there is no sound one."""
    try:
        (record,) = read_records(storage.folder(job) / RESULT)
    except (OSError, ValueError):
        return None
    return record.model_copy(update={"arms": job.arms})


def _train_and_measure(storage: Storage, job: Job) -> dict[str, Any]:
    run = storage.training_run(job)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger(__name__).info("training %s", job.name)
    training = run_training(run, lambda done, note: None, Event())
    curve = run.stack.validation_curve(run.folder)
    if curve and not any(map(math.isfinite, curve.values())):
        raise EqPluginError(
            f"the training diverged: its validation error is NaN in all {len(curve)} epochs; lower "
            f"train.lr or clip the gradients."
        )
    folder = storage.folder(job)
    command = [Path(sys.executable).name, "-m", "eqplugin.study.measuring"]
    run_logged(
        [*command, str(storage.out), job.name],
        folder / "measuring.log",
        started=lambda pid: None,
        poll=lambda: None,
        stop=Event(),
        threads=storage.config.train.threads,
    )
    measured = Measurement.model_validate_json((folder / "measured.json").read_text())
    return {
        "errors": measured.errors,
        "parameters": measured.parameters,
        "validation": [[epoch + 1, _millis(curve[epoch])] for epoch in sorted(curve)],
        "cost": JobCost(
            train_s=round(training.seconds, 1),
            train_cpu_s=training.cpu_seconds,
            epoch_s=training.epoch_seconds,
            train_peak_bytes=training.peak_bytes,
            step_ms=measured.step_ms,
            force_ms=measured.force_ms,
            force_peak_bytes=measured.peak_bytes,
        ),
        "model": str(training.model.relative_to(storage.out)),
    }


def _millis(value: float) -> float | None:
    """In thousandths; None for NaN or infinity, which a diverged training leaves."""
    return round(1e3 * value, 4) if math.isfinite(value) else None


def record_of(storage: Storage, job: Job, status: str, **content: Any) -> JobRecord:
    """A job's line: what it is, what it ran under, what came out."""
    config = storage.config
    kind = FinishedJob if status == "done" else JobRecord
    return kind(
        study=config.name,
        budget=config.budget,
        job=job.name,
        status=status,
        **{"error": None, **content},
        **axes_of(job.design),
        feature_dim=job.design.feature_dim,
        seed=job.seed,
        arms=job.arms,
        steps=storage.steps,
        epochs=storage.epochs,
        frames=storage.plan.frames,
        fingerprint=storage.fingerprint(job) if job.attainable else None,
        warnings=storage.plan.warnings,
        config=asdict(config),
        **dict(current_environment()),
    )


def _end_in_good_order() -> None:
    """SIGTERM (kill, a cluster's time limit) ends the trainer too, as Ctrl-C does."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
