"""Several models on several files of labelled frames: `eqplugin bench forces`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ase.calculators.calculator import Calculator

from eqplugin.bench.errors import Errors, by_config_type, by_element, errors_of
from eqplugin.bench.forces import FrameResult, evaluate
from eqplugin.bench.labels import LabelledFrame
from eqplugin.bench.tables import error_rows, markdown, to_csv
from eqplugin.data import check_files
from eqplugin.errors import EqPluginError
from eqplugin.files import write_json, write_text

__all__ = ["Comparison", "compare_forces", "shared_frames", "write_comparison"]

KEYS = ("model", "data")
_LEAKS = ("overlap", "same_trajectory")  # codes of eqplugin.data


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
    """Sentences about test files that share frames with the training files, or with each other."""
    report = check_files([*train, *tests], required=())
    return [problem.message for problem in report.problems if problem.code in _LEAKS]


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write errors.json, errors.csv, errors.md and the plots; each file whole or not at all."""
    from eqplugin.bench.force_plots import plot_error_distribution, plot_force_parity

    errors = comparison.errors()
    write_json(
        out / "errors.json",
        {
            "schema": "eqplugin.bench.forces/1",
            "units": {"energy": "meV/atom", "force": "meV/A", "stress": "meV/A^3"},
            "models": dict(comparison.models),
            "data": dict(comparison.files),
            "errors": _nested(errors),
            "by_element": _nested(comparison.groups(by_element)),
            "by_config_type": _nested(comparison.groups(by_config_type)),
        },
    )
    write_text(out / "errors.csv", to_csv(KEYS, errors))
    heads, rows = error_rows(errors)
    write_text(out / "errors.md", markdown(KEYS, heads, rows) + "\n")
    plot_force_parity(comparison, out / "parity.png")
    plot_error_distribution(comparison, out / "distribution.png")


def _nested(errors: Mapping[tuple[str, ...], Errors]) -> dict:
    tree: dict = {}
    for (*path, last), value in errors.items():
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = asdict(value)
    return tree
