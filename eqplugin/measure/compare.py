"""Several models on several files of labelled frames: `eqplugin bench forces`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ase.calculators.calculator import Calculator

from eqplugin.data import check_files
from eqplugin.errors import EqPluginError
from eqplugin.measure.force_errors import Errors, errors_of
from eqplugin.measure.forces import FrameResult, evaluate
from eqplugin.measure.labels import LabelledFrame

__all__ = ["KEYS", "Comparison", "compare_forces", "shared_frames"]

KEYS = ("model", "data")
_LEAKS = ("overlap", "same_trajectory")  # codes of eqplugin.data
_UNREAD = ("missing_file", "unreadable", "empty")


@dataclass(frozen=True)
class Comparison:
    """Predictions of every model on every file, under short labels.

    Attributes:
        models: label -> as the user named it.
        files: label -> as the user named it.
        results: (model label, file label) -> frames.
    """

    models: Mapping[str, str]
    files: Mapping[str, str]
    results: Mapping[tuple[str, str], list[FrameResult]]

    def errors(self) -> dict[tuple[str, ...], Errors]:
        """The measures of every model on every file; file by file, so that models compare."""
        return {
            (model, file): errors_of(self.results[model, file])
            for file in self.files
            for model in self.models
        }

    def groups(
        self, split: Callable[[Sequence[FrameResult]], Mapping[str, Errors]]
    ) -> dict[tuple[str, ...], Errors]:
        """The measures by element or ``config_type``: keys (model, file, group)."""
        return {
            (model, file, group): errors
            for file in self.files
            for model in self.models
            for group, errors in split(self.results[model, file]).items()
        }


def compare_forces(
    models: Mapping[str, Calculator],
    files: Mapping[str, Sequence[LabelledFrame]],
    tick: Callable[[str, str, int], None] = lambda *_: None,
) -> dict[tuple[str, str], list[FrameResult]]:
    """Evaluate every model on every file.

    Args:
        models: label -> calculator.
        files: label -> frames.
        tick: called after each frame with the model's label, the file's, and the frames done.

    Raises:
        EqPluginError: a model fails; the sentence names the model, the file and the frame.
    """
    results = {}
    for model, calculator in models.items():
        for file, frames in files.items():
            done = [0]

            def advance(model: str = model, file: str = file, done: list[int] = done) -> None:
                done[0] += 1
                tick(model, file, done[0])

            try:
                results[model, file] = evaluate(calculator, frames, advance)
            except EqPluginError as error:
                raise EqPluginError(f"{model} on {file}, {error}") from error
    return results


def shared_frames(train: Sequence[str], tests: Sequence[str]) -> list[str]:
    """Sentences about test files that share frames with the training files, or with each other.

    Raises:
        EqPluginError: a training file cannot be read, so that nothing can be said.
    """
    report = check_files([*train, *tests], required=())
    unread = [e for e in report.errors if e.code in _UNREAD and str(e.file) in map(str, train)]
    if unread:
        raise EqPluginError(f"--train: {unread[0].message}")
    return [problem.message for problem in report.problems if problem.code in _LEAKS]
