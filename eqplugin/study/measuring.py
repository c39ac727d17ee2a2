"""What is measured of a trained model: errors, parameters, time and memory.

Runs as a process of its own (`python -m eqplugin.study.measuring STUDY JOB`), so that its
peak memory is that of this model alone.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from eqplugin.calculator import EqCalculator
from eqplugin.files import write_json
from eqplugin.measure.force_errors import error_metrics
from eqplugin.measure.forces import evaluate
from eqplugin.measure.labels import LabelledFrame, read_labelled
from eqplugin.measure.speed import time_force_calls
from eqplugin.quiet import quiet
from eqplugin.report.records import Measurement, Quantiles
from eqplugin.stack import Stack
from eqplugin.stacks import stack_named
from eqplugin.study.schema import StudyConfig
from eqplugin.study.steps import clock_for, count_parameters, time_steps, training_step


def measure_model(
    stack: Stack,
    model: Path,
    tests: dict[str, Path],
    train: Path,
    batch_size: int,
    r_max: float,
    repeats: int,
    device: str,
    modifiers: Sequence[str] = (),
) -> Measurement:
    """Measure a trained model.

    Args:
        stack: the model's.
        model: as its trainer wrote it.
        tests: label -> frames.
        train: the training frames, the first of which make the batch that a step is timed on.
        batch_size: of it.
        r_max: cutoff, A.
        repeats: timed calls and steps.
        device: ``cpu`` or ``cuda``.
        modifiers: of a NequIP model, applied for all that is measured.
    """
    import torch

    calculator = EqCalculator(str(model), device=device, modifiers=modifiers)
    errors = {
        label: error_metrics(evaluate(calculator, read_labelled(file)))
        for label, file in tests.items()
    }
    frames = read_labelled(train)[:batch_size]
    times = time_force_calls({"model": calculator}, frames[0].atoms, repeats)["model"]
    peak = _peak_bytes(device)
    trained = stack.read(model, device, modifiers)
    steps = {"model": training_step(stack, trained, atoms_of(frames), r_max)}
    clock = clock_for(device, torch.get_num_threads())  # other jobs may be running beside
    return Measurement(
        errors=errors,
        parameters=count_parameters(trained),
        force_ms=quantiles(times),
        step_ms=quantiles(time_steps(steps, repeats, clock=clock)["model"]),
        peak_bytes=peak,
    )


def modifiers_of(config: StudyConfig, stack: str) -> tuple[str, ...]:
    """What the models of a stack are trained, tested and timed with."""
    return tuple(getattr(config, stack).modifiers)


def atoms_of(frames: Sequence[LabelledFrame]) -> list[Atoms]:
    """The structures alone."""
    return [frame.atoms for frame in frames]


def quantiles(values: np.ndarray) -> Quantiles:
    """10, 50 and 90 % of times in ms."""
    return Quantiles(*(round(float(value), 4) for value in np.percentile(values, [10, 50, 90])))


def _peak_bytes(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def quietly(function: Callable[..., Any], threads: int, *arguments: object) -> Any:
    """Call with so many threads and without the stacks' warnings."""
    import torch

    torch.set_num_threads(threads)
    with quiet(logging.NOTSET):
        return function(*arguments)


def main() -> None:
    """Measure one job of a study and write measured.json beside its model."""
    from eqplugin.study.storage import Storage

    storage = Storage(Path(sys.argv[1]))
    job = storage.job(sys.argv[2])
    config, files, stack = storage.config, storage.files, stack_named(job.design.stack)
    result = quietly(
        measure_model,
        config.train.threads,
        stack,
        storage.model(job),
        {label: files[label] for label in storage.tests},
        files["train"],
        config.train.batch_size,
        config.train.r_max,
        config.speed_repeats,
        config.train.device,
        modifiers_of(config, stack.name),
    )
    write_json(storage.folder(job) / "measured.json", result.model_dump())


if __name__ == "__main__":
    main()
