"""A training step of any model, to be timed, and times of several in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ase import Atoms

from eqplugin.stack import Stack


def count_parameters(model: torch.nn.Module) -> int:
    """All parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def training_step(
    stack: Stack, model: torch.nn.Module, frames: Sequence[Atoms], r_max: float
) -> Callable[[], None]:
    """A call that does what a training step costs: forward, loss on energy and forces, backward.

    The optimizer's own update is left out: it is small, and would change a trained model.
    """
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    batch = stack.batch(model, frames, r_max)

    def step() -> None:
        energy, forces = stack.predict(model, batch)
        (energy.square().mean() + forces.square().mean()).backward()
        for parameter in model.parameters():
            parameter.grad = None

    return step


def clock_for(device: str, threads: int) -> Callable[[], float]:
    """CPU time where one thread of the CPU does it all: the same as wall time on a quiet machine,
    and nearly so on a busy one. Wall time otherwise.
    """
    return time.process_time if device == "cpu" and threads == 1 else time.perf_counter


def time_steps(
    steps: Mapping[object, Callable[[], None]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[object, np.ndarray]:
    """Time several steps in turn, A B C A B C ..., so that a slow moment hits all alike.

    Args:
        steps: key -> call.
        rounds: timed calls of each.
        warmup: calls of each before the clock starts.
        clock: :func:`clock_for` gives one that a busy machine disturbs less.

    Returns:
        key -> times in ms, (rounds,).
    """
    times: dict[object, list[float]] = {key: [] for key in steps}
    for turn in range(warmup + rounds):
        for key, step in steps.items():
            start = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                times[key].append(1e3 * (clock() - start))
    return {key: np.array(values) for key, values in times.items()}
