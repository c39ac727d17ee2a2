"""All models of a study timed in turn on one machine, so that their times can be compared."""

from __future__ import annotations

from pathlib import Path

from eqplugin.calculator import EqCalculator
from eqplugin.files import write_json
from eqplugin.measure.labels import read_labelled
from eqplugin.measure.speed import time_force_calls
from eqplugin.report.records import FinishedJob, SpeedRecord, Timing, current_environment
from eqplugin.stacks import stack_named
from eqplugin.study.job import Job
from eqplugin.study.measuring import atoms_of, modifiers_of, quantiles, quietly
from eqplugin.study.steps import time_steps, training_step
from eqplugin.study.storage import Storage
from eqplugin.study.task import finished_record


def models_to_time(storage: Storage) -> dict[str, Job]:
    """Design's name -> its first job that is done: the seed does not change the time."""
    chosen: dict[str, Job] = {}
    for job in storage.jobs:
        if not job.attainable or job.design.name in chosen:
            continue
        record = finished_record(storage, job)
        if isinstance(record, FinishedJob) and (storage.out / record.model).is_file():
            chosen[job.design.name] = job
    return chosen


def time_models(out: Path) -> None:
    """Write speed.json: force calls and training steps of every design, A B C A B C ..."""
    storage = Storage(out)
    record = quietly(_timed, storage.config.train.threads, storage)
    write_json(out / "speed.json", record.to_json())


def _timed(storage: Storage) -> SpeedRecord:
    config, jobs = storage.config, models_to_time(storage)
    frames = atoms_of(read_labelled(storage.files["train"])[: config.train.batch_size])
    calculators, steps = {}, {}
    for name, job in jobs.items():
        stack, device, model = (
            stack_named(job.design.stack),
            config.train.device,
            storage.model(job),
        )
        modifiers = modifiers_of(config, stack.name)
        calculators[name] = EqCalculator(str(model), device=device, modifiers=modifiers)
        trained = stack.read(model, device, modifiers)
        steps[name] = training_step(stack, trained, frames, config.train.r_max)
    calls = time_force_calls(calculators, frames[0], config.speed_repeats)
    rounds = time_steps(steps, config.speed_repeats)
    return SpeedRecord(
        study=config.name,
        atoms=len(frames[0]),
        batch_size=len(frames),
        fingerprints={name: storage.fingerprint(job) for name, job in jobs.items()},
        models={
            name: Timing(force_ms=quantiles(calls[name]), step_ms=quantiles(rounds[name]))
            for name in jobs
        },
        **dict(current_environment()),
    )
