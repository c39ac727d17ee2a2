"""A study from start to end: check, plan, run the jobs through Hydra, time the models, gather."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from rich.console import Console

from eqplugin.errors import EqPluginError, reason_of
from eqplugin.exchange import exchanged
from eqplugin.files import write_json
from eqplugin.quiet import logging_kept
from eqplugin.report.records import (
    LINES,
    RESULT,
    FinishedJob,
    JobRecord,
    Record,
    SpeedRecord,
    read_records,
    read_speed,
    write_records,
)
from eqplugin.stack import hydra_value
from eqplugin.study.config import Study, read_study
from eqplugin.study.frames import Frames, check_frames
from eqplugin.study.job import Job, axes_of, reference_of
from eqplugin.study.matching import Match
from eqplugin.study.plan import (
    JobRequest,
    MatchedGroup,
    expand,
    find_match,
    in_own_process,
    jobs_of,
    matches_to_find,
)
from eqplugin.study.plan_file import refuse_other_schema
from eqplugin.study.progress import watching
from eqplugin.study.schema import StudyConfig, register
from eqplugin.study.speed import models_to_time, time_models
from eqplugin.study.storage import Storage, write_plan
from eqplugin.study.task import HYDRA, finished_record, record_of, stored_record, task

__all__ = ["gather", "plan_study", "prepare", "restore_finished", "run_study"]


def prepare(
    path: Path, overrides: Sequence[str], sweep: bool
) -> tuple[Study, Frames, list[JobRequest]]:
    """Read and check everything; nothing is written.

    Raises:
        EqPluginError: anything that could not end in a report.
    """
    study = read_study(path, overrides, sweep)
    refuse_other_schema(study.out)
    if (study.out / LINES).is_file():
        read_records(study.out)
    frames = check_frames(study.config)
    return study, frames, expand(study)


def plan_study(
    study: Study, frames: Frames, requests: Sequence[JobRequest], console: Console
) -> Storage:
    """Match feature dimensions (by time: measured, once) and write the plan and the data."""
    config = study.config
    matches: dict[MatchedGroup, dict[int, Match]] = {}
    cache = study.out / "matches.json"
    stored = _stored_matches(cache)
    for group, degrees in matches_to_find(requests).items():
        known: dict[int, Any] = {
            degree: stored.get(_match_key(config, group, degree)) for degree in degrees
        }
        if None in known.values():
            wanted = ", ".join(map(str, degrees))
            console.print(f"matching {group.design.label} by {group.match} at l_max {wanted} ...")
            new = [degree for degree in degrees if known[degree] is None or group.match != "time"]
            found = in_own_process(find_match, config, group, new, frames)
            known |= {degree: asdict(match) for degree, match in found.items()}
        matches[group] = {degree: Match(**match) for degree, match in known.items()}
        if group.match == "time":
            # measured once: a second measurement would give other dimensions, hence other jobs
            stored |= {_match_key(config, group, d): match for d, match in known.items()}
            write_json(cache, stored)
    notes = [
        f"{match.reason}." for found in matches.values() for match in found.values() if match.reason
    ]
    return write_plan(study.out, config, frames, jobs_of(config, requests, matches), notes)


def _stored_matches(cache: Path) -> dict[str, Any]:
    """What was measured before, by :func:`_match_key`."""
    try:
        stored = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
        for match in stored.values():
            Match(**match)
    except (ValueError, TypeError, AttributeError) as error:
        raise EqPluginError(
            f"{cache} is damaged ({reason_of(error)}): remove it, and times are measured again, "
            f"which may give other dimensions."
        ) from error
    return stored


def _match_key(config: StudyConfig, group: MatchedGroup, degree: int) -> str:
    """Everything that a measured match depends on but the machine."""
    design, reference = group.design, reference_of(config)
    wanted = [group.match, design.stack, design.hops, design.contraction]
    to_meet = axes_of(reference) | {"feature_dim": reference.feature_dim}
    settings = [asdict(getattr(config, one.stack)) for one in (design, reference)]
    return json.dumps(
        [wanted, degree, to_meet, config.reset_width, settings,
         asdict(config.train) | {"steps": None}, config.tolerance.time]
    )  # fmt: skip


def restore_finished(storage: Storage) -> int:
    """Take finished jobs from ``results.jsonl`` where only that file was kept; how many.

    Where folders of jobs are there, they decide: a folder that was removed is trained again.
    """
    if (storage.out / "jobs").exists() or not (storage.out / LINES).is_file():
        return 0
    records = read_records(storage.out)
    done = {record.job: record for record in records if isinstance(record, FinishedJob)}
    found = 0
    for job in storage.jobs:
        record = done.get(job.name)
        if record is not None and job.attainable and record.fingerprint == storage.fingerprint(job):
            write_records(storage.folder(job) / RESULT, [record])
            found += 1
    speed = next((record for record in records if isinstance(record, SpeedRecord)), None)
    if speed is not None and not (storage.out / "speed.json").exists():
        write_json(storage.out / "speed.json", speed.to_json())
    return found


def run_study(storage: Storage, study: Study, workers: int | None, console: Console) -> Path:
    """Run what is not done yet and write ``results.jsonl``.

    Args:
        storage: the planned study.
        study: its config, with the user's overrides for Hydra.
        workers: jobs at a time through joblib; None: Hydra's launcher as configured.
        console: for progress.
    """
    pending = [job for job in storage.jobs if finished_record(storage, job) is None]
    console.print(
        f"{len(storage.jobs)} jobs of {storage.steps} steps, {len(storage.jobs) - len(pending)} "
        f"done before; results: {storage.out}"
    )
    if pending:
        launcher = list(study.hydra)
        if workers is not None:
            launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}", *launcher]
        _check_launcher(launcher)
        with watching(storage, pending, console):
            _multirun(study, storage, [job.name for job in pending], launcher)
    gather(storage)  # whatever becomes of the timing, the lines are there
    _time_all(storage, console)
    return gather(storage)


def _time_all(storage: Storage, console: Console) -> None:
    """Time the models in turn, unless these very models have been."""
    import torch

    fingerprints = {name: storage.fingerprint(j) for name, j in models_to_time(storage).items()}
    known = read_speed(storage.out / "speed.json")
    if not fingerprints or (known is not None and known.fingerprints == fingerprints):
        return
    if storage.config.train.device == "cuda" and not torch.cuda.is_available():
        console.print(
            "no GPU here, so the models are not timed in turn: each has the times of its own job "
            "until the study is run again on a machine with a GPU."
        )
        return
    console.print(f"timing {len(fingerprints)} models in turn ...")
    in_own_process(time_models, storage.out)


def _multirun(study: Study, storage: Storage, names: list[str], overrides: list[str]) -> None:
    """Hand the jobs to Hydra, as on its own command line."""
    arguments = [
        "--multirun",
        f"job={','.join(names)}",
        f"hydra.sweep.dir={hydra_value(storage.out / HYDRA)}",
        "hydra.sweep.subdir=${job}",
        "hydra/hydra_logging=disabled",
        "hydra/job_logging=disabled",
        # or every logger of this process would be silent from now on
        "hydra.hydra_logging.disable_existing_loggers=false",
        "hydra.job_logging.disable_existing_loggers=false",
        *overrides,
    ]
    register()
    application = hydra.main(
        version_base="1.3", config_path=str(study.path.parent), config_name=study.path.stem
    )(task)
    with logging_kept(), exchanged((sys, "argv", ["eqplugin-study", *arguments])):
        application()


def _check_launcher(overrides: Sequence[str]) -> None:
    """A launcher that is not installed, in a sentence rather than in Hydra's own words."""
    for text in overrides:
        key, _, name = text.partition("=")
        plugin = name.split("_")[0]  # submitit_slurm and submitit_local are one plugin
        if key != "hydra/launcher" or plugin == "basic":
            continue
        try:
            found = find_spec(f"hydra_plugins.hydra_{plugin}_launcher")
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise EqPluginError(
                f"Hydra's launcher {name} is not installed: `pip install hydra-{plugin}-launcher` "
                f"(joblib and submitit: `pip install eqplugin[study]`), or run one job at a "
                f"time."
            )


def gather(storage: Storage) -> Path:
    """Write the lines of all jobs, those that never ended too, to one file; returns it."""
    records: list[Record] = [_latest_record(storage, job) for job in storage.jobs]
    if (speed := read_speed(storage.out / "speed.json")) is not None:
        records.append(speed)
    path = storage.out / LINES
    write_records(path, records)
    return path


def _latest_record(storage: Storage, job: Job) -> JobRecord:
    return (
        finished_record(storage, job)
        or stored_record(storage, job)
        or record_of(
            storage, job, "failed", error="the job did not finish: run the study again to continue."
        )
    )
