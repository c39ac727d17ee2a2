"""What a study would cost: its models built, a step and a force call of each timed in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from eqplugin.design import Design
from eqplugin.measure.tables import Table
from eqplugin.stacks import stack_named
from eqplugin.study.config import Study
from eqplugin.study.frames import Frames
from eqplugin.study.job import Job, recipe_for, reference_of
from eqplugin.study.plan import (
    JobRequest,
    batch_of,
    find_match,
    in_own_process,
    jobs_of,
    matches_to_find,
)
from eqplugin.study.schema import StudyConfig, epochs_of

_START = 30.0  # s: imports, statistics and models of a job's two processes
_EVALUATION = 0.4  # of a training step's time, per frame that is only evaluated


@dataclass(frozen=True)
class Cost:
    """Of one design, counted and measured on a model that was not trained."""

    parameters: int
    step_ms: float


def estimate(config: StudyConfig, designs: Sequence[Design], frames: Frames) -> list[Cost]:
    """Build each design and time its training step, alternated."""
    import torch

    from eqplugin.study.measuring import quietly
    from eqplugin.study.steps import clock_for, count_parameters, time_steps, training_step

    batch = batch_of(frames, config)
    # a login node may lack the GPU that the jobs will have
    device = config.train.device if torch.cuda.is_available() else "cpu"

    def run() -> list[Cost]:
        counts, steps = [], {}
        for design in designs:
            stack = stack_named(design.stack)
            model = stack.build(design, recipe_for(config, design.stack), frames.species)
            model = model.to(torch.device(device))
            counts.append(count_parameters(model))
            steps[design] = training_step(stack, model, batch, config.train.r_max)
        clock = clock_for(device, config.train.threads)
        times = time_steps(steps, rounds=3, warmup=1, clock=clock)
        return [
            Cost(count, float(np.median(times[design])))
            for count, design in zip(counts, designs, strict=True)
        ]

    return quietly(run, config.train.threads)


def job_seconds(config: StudyConfig, cost: Cost, frames: Frames) -> float:
    """Predicted time of one job on one worker: training with validation, then the tests."""
    epochs = epochs_of(config, len(frames.train))
    steps = epochs * (len(frames.train) // config.train.batch_size)
    per_frame = _EVALUATION * cost.step_ms / config.train.batch_size
    # tests go frame by frame, where a call's overhead weighs as much as the frame
    tests = 2 * sum(map(len, frames.tests.values())) * per_frame
    timing = 3 * config.speed_repeats * cost.step_ms
    milliseconds = steps * cost.step_ms + epochs * len(frames.val) * per_frame + tests + timing
    return _START + milliseconds / 1e3


def print_estimate(
    study: Study, frames: Frames, requests: Sequence[JobRequest], console: Console
) -> float:
    """List the models with parameters and predicted time; returns the total in seconds."""
    config = study.config
    matches, by_time, reference = {}, [], reference_of(config)
    for group, degrees in matches_to_find(requests).items():
        if group.match == "time":
            # the search takes minutes; by its purpose the time is that of the reference
            by_time += [
                request.design
                for request in requests
                if request.group == group
                and request.design.with_feature_dim(config.feature_dim) != reference
            ]
        else:
            matches[group] = in_own_process(find_match, config, group, degrees, frames)
    jobs = jobs_of(config, requests, matches)
    known = Counter(job.design for job in jobs if job.attainable)
    designs = list(dict.fromkeys([*known, *([reference] if by_time else [])]))
    console.print(f"building and timing {len(designs)} models ...")
    costs = dict(zip(designs, in_own_process(estimate, config, designs, frames), strict=True))
    seconds = {design: job_seconds(config, cost, frames) for design, cost in costs.items()}
    rows, total = [], 0.0
    for design, seeds in known.items():
        cost, each = costs[design], seconds[design]
        total += seeds * each
        rows.append([
            design.name, str(design.feature_dim), f"{cost.parameters:,}", f"{cost.step_ms:.0f}",
            str(seeds), f"{each / 60:.1f}", f"{seeds * each / 3600:.2f}",
        ])  # fmt: skip
    for name, seeds in Counter(f"{design.name}-same time" for design in by_time).items():
        each = seconds[reference]
        total += seeds * each
        rows.append([
            name, "?", "?", f"~{costs[reference].step_ms:.0f}", str(seeds), f"{each / 60:.1f}",
            f"{seeds * each / 3600:.2f}",
        ])  # fmt: skip
    heads = ("D", "parameters", "step\nms", "seeds", "min\na job", "hours\nin all")
    console.print(Table(("model",), heads, rows).to_rich())
    _print_notes(study, frames, jobs, total, bool(by_time), console)
    return total


def _print_notes(
    study: Study, frames: Frames, jobs: Sequence[Job], total: float, timed: bool, console: Console
) -> None:
    config = study.config
    epochs = epochs_of(config, len(frames.train))
    steps = epochs * (len(frames.train) // config.train.batch_size)
    counts = ", ".join(f"{name} {number}" for name, number in frames.counts.items())
    console.print(f"frames: {counts}; every job: {steps} steps ({epochs} epochs)")
    for reason in dict.fromkeys(job.unattainable for job in jobs if job.unattainable):
        console.print(f"not attainable: {reason}")
    if timed:
        console.print("?: feature dimensions are searched when the study is planned (minutes).")
    where = "this machine's CPU" if config.train.device == "cpu" else "this machine"
    console.print(
        f"total: about {total / 3600:.1f} hours on one worker with {where} to itself, from steps "
        f"timed just now (within a factor of 1.5); results: {study.out}"
    )
