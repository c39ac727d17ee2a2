"""The demo's training runs: which, from what, and where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from eqplugin.demo.stacks import STACKS
from eqplugin.demo.variants import Variant
from eqplugin.study.training import TrainingRun, fingerprint_of, run_training

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
    run = TrainingRun(
        variant.label,
        stack,
        folder,
        tuple(stack.command(variant, root, folder, epochs)),
        epochs,
        fingerprint,
        again="run the demo again to go on",
    )
    result = run_training(run, report, stop)
    return TrainedModel(variant, result.model, result.seconds, result.reused, fingerprint)


def _fingerprint(variant: Variant, root: Path, epochs: int) -> str:
    """Hash of everything that decides the weights; the place of the clone does not."""
    stack = STACKS[variant.stack]
    configs = sorted((root / "configs" / variant.stack).rglob("*.yaml"))
    data = sorted((root / "examples" / "data" / "ethanol_xtb").glob("*.xyz"))
    command = [variant.name, *stack.command(variant, Path(), Path(), epochs)]
    return fingerprint_of(stack, command, [*configs, *data])
