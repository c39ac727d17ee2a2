"""Error against the time that the training took: who is good first?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eqplugin.measure.tables import Table
from eqplugin.report.models import ModelResults, StudyResults, architecture_label
from eqplugin.report.records import FinishedJob
from eqplugin.report.statistics import spread

Curve = list[tuple[float, float]]


def has_processor_time(results: StudyResults) -> bool:
    """Whether every job tells its processor time, which a busy machine leaves as it is."""
    jobs = [record for model in results.models for record in model.records.values()]
    return all(job.cost.train_cpu_s is not None for job in jobs)


def time_curves(model: ModelResults, processor_time: bool) -> dict[int, Curve]:
    """Seed -> (seconds of training, lowest validation force MAE so far in meV/A).

    An epoch is taken to cost the same throughout, validation included.
    """
    curves = {}
    for seed, curve in model.curves().items():
        errors = [math.inf if math.isnan(error) else error for _, error in curve]
        second = _seconds(model.records[seed], processor_time) / max(1, len(curve))
        lowest = np.minimum.accumulate(errors) if errors else []
        curves[seed] = [(second * (n + 1), float(error)) for n, error in enumerate(lowest)]
    return curves


def _seconds(job: FinishedJob, processor_time: bool) -> float:
    cpu = job.cost.train_cpu_s
    return cpu if processor_time and cpu is not None else job.cost.train_s


def time_to_error(curve: Curve, target: float) -> float | None:
    """Seconds until the validation error was at or below the target; None if it never was."""
    return next((seconds for seconds, error in curve if error <= target), None)


def target_errors(results: StudyResults, number: int = 3) -> list[float]:
    """Validation errors from what the worst model reaches to what the best one does, rounded."""
    clock = has_processor_time(results)
    finals = [
        float(np.mean([curve[-1][1] for curve in time_curves(model, clock).values() if curve]))
        for model in results.models
        if any(model.curves().values())
    ]
    finals = [final for final in finals if math.isfinite(final)]
    if not finals:
        return []
    targets = np.geomspace(max(finals), min(finals), number)
    # rounded up: the model that a target is taken from has reached it
    return sorted({_rounded_up(float(target)) for target in targets}, reverse=True)


def _rounded_up(value: float) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / scale - 1e-9) * scale


def time_table(models: Sequence[ModelResults], targets: Sequence[float], clock: bool) -> Table:
    """Seconds of training to each validation error: a row for each model, spread over seeds."""
    rows = []
    for model in models:
        curves = time_curves(model, clock).values()
        times = [[time_to_error(curve, target) for curve in curves] for target in targets]
        rows.append([architecture_label(model), str(model.feature_dim), *map(_time_cell, times)])
    unit = "CPU s" if clock else "s"
    return Table(("model",), ("D", *(f"{unit} to {target:g} meV/Å" for target in targets)), rows)


def _time_cell(times: Sequence[float | None]) -> str:
    reached = [time for time in times if time is not None]
    if not reached:
        return "-"
    text = format(spread(reached), ".0f")
    return text if len(reached) == len(times) else f"{text} ({len(reached)} of {len(times)} seeds)"
