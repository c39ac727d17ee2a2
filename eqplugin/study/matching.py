"""Feature dimensions at which models of different degree have equal parameters or equal time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from eqplugin.costs import NequIPOptions, count_costs, match_parameters
from eqplugin.design import Design, DesignError, minimum_feature_dim
from eqplugin.errors import EqPluginError
from eqplugin.stacks import stack_named
from eqplugin.study.job import recipe_for
from eqplugin.study.schema import StudyConfig

_MOST = 12  # values looked at per degree
_WIDEST = 32  # feature dimensions up to so many times the reference


@dataclass(frozen=True)
class Match:
    """What was found for one degree."""

    feature_dim: int | None  # D; None where none fits
    ratio: float  # of the matched quantity to the reference's, at that D or the closest one
    reason: str | None = None  # why none fits, a sentence


def search_dimension(
    ratio_of: Callable[[int], float], l_max: int, start: int, tolerance: float, what: str
) -> Match:
    """Find the feature dimension whose ratio to the reference is one, within the tolerance.

    The ratio is taken to rise with D. Dimensions that divide evenly are tried first; where their
    steps are too coarse, those with left-over scalars between them.

    Args:
        ratio_of: feature dimension -> quantity over that of the reference; may be measured.
        l_max: degree, which sets the smallest feature dimension.
        start: first guess, such as the reference's D.
        tolerance: of the ratio, relative.
        what: the quantity, for the reason.
    """
    unit = minimum_feature_dim(l_max)
    low, high = 1, max(2, _WIDEST * start // unit)
    seen: dict[int, float] = {}
    copies = min(high, max(low, round(start / unit)))
    while copies not in seen and len(seen) < _MOST:
        ratio = seen[copies] = ratio_of(copies * unit)
        if abs(ratio - 1) <= tolerance:
            return Match(copies * unit, ratio)
        if ratio > 1:
            high = copies - 1
        else:
            low = copies + 1
        if low > high:
            break
        copies = min(high, max(low, _guess(seen)))
    for dim in _between(seen, unit):
        ratio = ratio_of(dim)
        if abs(ratio - 1) <= tolerance:
            return Match(dim, ratio)
    closest = min(seen, key=lambda n: abs(math.log(seen[n])))
    return Match(
        None,
        seen[closest],
        f"no feature dimension at l_max={l_max} has the reference's {what} within "
        f"{tolerance:.0%}: the closest, {closest * unit}, has {seen[closest]:.2f} of it",
    )


def _guess(seen: dict[int, float]) -> int:
    """Copies at which a power law through the two closest values reaches one."""
    points = sorted(seen, key=lambda n: abs(math.log(seen[n])))[:2]
    power = 1.0
    if len(points) == 2:
        power = math.log(seen[points[0]] / seen[points[1]]) / math.log(points[0] / points[1])
        power = min(2.5, max(0.3, power))
    return round(points[0] * seen[points[0]] ** (-1 / power))


def _between(seen: dict[int, float], unit: int) -> list[int]:
    """Feature dimensions between the two evenly dividing ones around a ratio of one."""
    below = [n for n, ratio in seen.items() if ratio < 1]
    if not below or max(below) + 1 not in seen:
        return []
    return [max(below) * unit + extra for extra in range(1, unit)][:_MOST]


def match_by_count(
    config: StudyConfig, reference: Design, wanted: Sequence[Design], species: tuple[str, ...]
) -> dict[int, Match]:
    """Match the numbers of parameters: counted where a stack can, else of built models.

    Args:
        config: of the study.
        reference: the model whose number is to be met.
        wanted: designs that differ in degree alone, with any feature dimension.
        species: chemical symbols.

    Returns:
        Degree -> what was found.
    """
    tolerance = config.tolerance.parameters
    options = _cost_options(config, reference, len(species))
    if options is not None and all(_differ_in_degree(reference, design) for design in wanted):
        return _match_counts(reference, [design.l_max for design in wanted], options, tolerance)
    target = _count(config, reference, species)
    matches = {}
    for design in wanted:

        def ratio(dim: int, design: Design = design) -> float:
            return _count(config, design.with_feature_dim(dim), species) / target

        matches[design.l_max] = _match_with_itself(reference, design) or search_dimension(
            ratio, design.l_max, reference.feature_dim, tolerance, "parameters"
        )
    return matches


def _cost_options(config: StudyConfig, design: Design, num_types: int) -> NequIPOptions | None:
    recipe = recipe_for(config, design.stack)
    return stack_named(design.stack).cost_options(design, recipe, num_types)


def _count(config: StudyConfig, design: Design, species: tuple[str, ...]) -> int:
    options = _cost_options(config, design, len(species))
    if options is not None:
        return count_costs(design, options).total
    from eqplugin.study.steps import count_parameters

    recipe = recipe_for(config, design.stack)
    return count_parameters(stack_named(design.stack).build(design, recipe, species))


def _differ_in_degree(one: Design, other: Design) -> bool:
    """Do they differ in degree and feature dimension alone?"""
    return replace(one, l_max=0, feature_dim=None) == replace(other, l_max=0, feature_dim=None)


def _match_with_itself(reference: Design, design: Design) -> Match | None:
    """The reference itself needs no search."""
    itself = _differ_in_degree(reference, design) and design.l_max == reference.l_max
    return Match(reference.feature_dim, 1.0) if itself else None


def _match_counts(
    reference: Design, degrees: Sequence[int], options: NequIPOptions, tolerance: float
) -> dict[int, Match]:
    try:
        designs = match_parameters(reference, [reference.l_max, *degrees], options, tolerance)
    except DesignError:
        return {
            degree: _match_one_count(reference, degree, options, tolerance) for degree in degrees
        }
    return {design.l_max: Match(design.feature_dim, 1.0) for design in designs[1:]}


def _match_one_count(
    reference: Design, degree: int, options: NequIPOptions, tolerance: float
) -> Match:
    """One degree that cannot be matched must not take the others with it."""
    if degree == reference.l_max:
        return Match(reference.feature_dim, 1.0)
    try:
        _, design = match_parameters(reference, [reference.l_max, degree], options, tolerance)
    except DesignError as error:
        return Match(None, math.nan, str(error))
    return Match(design.feature_dim, 1.0)


def match_by_time(
    config: StudyConfig,
    reference: Design,
    wanted: Sequence[Design],
    species: tuple[str, ...],
    frames: Sequence[Atoms],
    rounds: int,
) -> dict[int, Match]:
    """Match the measured time of a training step, each candidate alternated with the reference.

    Args:
        config: of the study.
        reference: the model whose time is to be met.
        wanted: designs that differ in degree alone, with any feature dimension.
        species: chemical symbols.
        frames: one batch.
        rounds: timed steps of each; the ratio is the median of those of the rounds.

    Returns:
        Degree -> what was found.

    Raises:
        EqPluginError: the study trains on a GPU and there is none here: the CPU's times would
            give other dimensions.
    """
    import torch

    if config.train.device == "cuda" and not torch.cuda.is_available():
        raise EqPluginError(
            "match=time is measured where the study is planned, and train.device=cuda, but torch "
            "sees no GPU here: plan on a machine that has one (--plan-only), or leave time out."
        )
    from eqplugin.study.steps import clock_for, time_steps, training_step

    def step(design: Design) -> Callable[[], None]:
        stack, recipe = stack_named(design.stack), recipe_for(config, design.stack)
        model = stack.build(design, recipe, species).to(torch.device(config.train.device))
        return training_step(stack, model, frames, config.train.r_max)

    standard, clock = step(reference), clock_for(config.train.device, config.train.threads)
    matches = {}
    for design in wanted:

        def ratio(dim: int, design: Design = design) -> float:
            candidate = step(design.with_feature_dim(dim))
            times = time_steps({"reference": standard, "candidate": candidate}, rounds, clock=clock)
            return float(np.median(times["candidate"] / times["reference"]))

        matches[design.l_max] = _match_with_itself(reference, design) or search_dimension(
            ratio, design.l_max, reference.feature_dim, config.tolerance.time,
            "time per training step",
        )  # fmt: skip
    return matches
