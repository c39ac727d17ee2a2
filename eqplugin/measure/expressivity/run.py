"""Measure every case on a model, over several draws of its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.subject import Subject
from eqplugin.measure.expressivity.suites import Case, cases_of

__all__ = ["THRESHOLDS", "Result", "measure_case", "run_suites"]

THRESHOLDS = {"energy": (5e-12, 5e-11), "atoms": (5e-12, 5e-11), "centre": (1e-11, 1e-6)}
"""Below the first a model cannot separate, above the second it does; relative to the response to
0.05 A of noise (energy, atoms), or to the size of the features (centre)."""

NOISE = 0.05  # A at a cutoff of 2 A

Verdict = Literal["separates", "cannot separate", "undecided"]


@dataclass(frozen=True)
class Result:
    """What was measured, and what was expected."""

    suite: str  # of the case
    case: str  # its label
    difference: float  # largest over the draws of the weights, in the units of `THRESHOLDS`
    own: float | None  # with the weights of the file; None for a model that is not trained
    verdict: Verdict  # from the larger of the two
    expected: bool | None  # whether it should separate; None: theory is silent
    # whether the verdict is the expected one; None if there is no verdict or expectation
    agrees: bool | None
    thresholds: tuple[float, float]  # of the case
    why: str  # the reason for the expectation


def measure_case(subject: Subject, case: Case) -> float:
    """Relative difference between the two structures with the model's present weights.

    Returns:
        NaN where the model hardly answers to noise: then nothing can be said with these weights.
    """
    first, second = subject.adapt(case.first), subject.adapt(case.second)
    if case.measure == "centre":
        one, two = (subject.layers(atoms)[0].values[0] for atoms in (first, second))
        size = one.norm()
        return float((one - two).norm() / size) if size > 0 else np.nan
    base, other, noisy = (
        subject.energies(atoms, case.edges) for atoms in (first, second, _rattled(first, subject))
    )
    size = base.abs().sum()
    if case.measure == "energy":
        base, other, noisy = base.sum(), other.sum(), noisy.sum()
    response = (noisy - base).abs().max()
    difference = (other - base).abs().max()
    # Round-off of a large energy that hardly answers to noise looks like a difference.
    round_off = 100 * np.finfo(float).eps * size
    if not response > round_off or (
        difference <= round_off and round_off > THRESHOLDS[case.measure][0] * response
    ):
        return np.nan
    return float(difference / response)


def _rattled(atoms: Atoms, subject: Subject) -> Atoms:
    noisy = atoms.copy()
    width = NOISE * subject.scale
    noisy.positions += np.random.default_rng(0).normal(scale=width, size=(len(atoms), 3))
    return noisy


def run_suites(
    subject: Subject,
    suites: Sequence[str] = (),
    draws: int = 4,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Run the suites on one model.

    One draw may be blind by chance, all cannot: a model separates if any draw does. A trained
    model's own weights count as one more draw and are reported by themselves.

    Args:
        subject: the model; it has its own weights again afterwards.
        suites: names, all if empty.
        draws: of random weights. Time is proportional.
        progress: called with the label of a case, the number done and the total.

    Raises:
        EqPluginError: for an unknown suite, too few draws, or a model that answers to nothing.
    """
    if draws < 1:
        raise EqPluginError(f"draws={draws} is not valid: give an integer >= 1.")
    cases = cases_of(suites)
    seeds: list[int | None] = [*range(draws), *([None] if subject.trained else [])]
    values = np.full((len(cases), len(seeds)), np.nan)
    try:
        for column, seed in enumerate(seeds):
            subject.draw(seed)
            for row, case in enumerate(cases):
                if progress is not None:
                    progress(case.label, column * len(cases) + row, values.size)
                values[row, column] = measure_case(subject, case)
    finally:
        subject.draw(None)
    if np.isnan(values).all():
        raise EqPluginError(
            f"{subject.name} gives the same energy for every structure, with every draw of its "
            f"weights: nothing can be measured."
        )
    return [_judge(subject, case, row) for case, row in zip(cases, values, strict=True)]


def _judge(subject: Subject, case: Case, values: np.ndarray) -> Result:
    known = values[~np.isnan(values)]
    largest = float(known.max()) if len(known) else np.nan
    low, high = THRESHOLDS[case.measure]
    verdict: Verdict = "undecided"
    if largest < low:
        verdict = "cannot separate"
    elif largest > high:
        verdict = "separates"
    expectation = case.expect(subject.architecture)
    decided = verdict != "undecided" and expectation.separates is not None
    own = float(values[-1]) if subject.trained and not np.isnan(values[-1]) else None
    return Result(
        suite=case.suite,
        case=case.label,
        difference=largest,
        own=own,
        verdict=verdict,
        expected=expectation.separates,
        agrees=(verdict == "separates") == expectation.separates if decided else None,
        thresholds=(low, high),
        why=expectation.why,
    )
