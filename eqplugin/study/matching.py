"""Feature dimensions at which models of different degree have equal parameters or equal time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from eqplugin.costs import Architecture, count_costs, match_parameters
from eqplugin.design import Design, DesignError, minimum_feature_dim
from eqplugin.errors import EqPluginError
from eqplugin.study.job import Variant
from eqplugin.study.schema import StudyConfig

__all__ = [
    "Match",
    "architecture",
    "match_by_count",
    "match_by_time",
    "reference_of",
    "search_dimension",
]

_MOST = 12  # values looked at per degree
_WIDEST = 32  # feature dimensions up to so many times the reference


@dataclass(frozen=True)
class Match:
    """What was found for one degree.

    Attributes:
        feature_dim: D; None where none fits.
        ratio: of the matched quantity to the reference's, at that D or the closest one.
        reason: why none fits, a sentence.
    """

    feature_dim: int | None
    ratio: float
    reason: str | None = None


def reference_of(config: StudyConfig) -> Variant:
    """The model whose parameters or time all others are to have; it never resets."""
    family = config.reference_family or config.family
    return Variant(family, config.reference_l_max, None, None, config.feature_dim)


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


def architecture(config: StudyConfig, variant: Variant, num_types: int) -> Architecture:
    """What the counts of a NequIP variant depend on, taken from the config it is trained with."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from eqplugin.study.commands import nequip_overrides

    _, folder, _, name, *overrides = nequip_overrides(config, variant, (), stress=False)
    GlobalHydra.instance().clear()
    with initialize_config_dir(folder, version_base="1.3"):
        model = compose(name, overrides).training_module.model
    names = ("num_layers", "type_embed_num_features", "num_bessels")
    given = {key: model[key] for key in names if key in model}
    for key in ("radial_mlp_depth", "radial_mlp_width"):
        if key in model:
            given[key] = model[key]
    return Architecture(
        num_types=num_types,
        hops=variant.hops,
        contraction=variant.contraction,
        reset_width=config.reset_width if variant.khop else None,
        **given,
    )


def match_by_count(
    config: StudyConfig,
    reference: Variant,
    wanted: Sequence[Variant],
    species: tuple[str, ...],
) -> dict[int, Match]:
    """Match the numbers of parameters: counted for NequIP, of built models for MACE.

    Args:
        config: of the study.
        reference: the model whose number is to be met.
        wanted: variants that differ in degree alone, with any feature dimension.
        species: chemical symbols.

    Returns:
        Degree -> what was found.
    """
    tolerance = config.tolerance.parameters
    if reference.family == "nequip" and all(_alike(reference, variant) for variant in wanted):
        degrees = [variant.l_max for variant in wanted]
        return _match_nequip(config, reference, degrees, len(species), tolerance)
    target = _count(config, reference, species)
    found = {}
    for variant in wanted:

        def ratio(dim: int, variant: Variant = variant) -> float:
            return _count(config, replace(variant, feature_dim=dim), species) / target

        found[variant.l_max] = _found(reference, variant) or search_dimension(
            ratio, variant.l_max, reference.feature_dim, tolerance, "parameters"
        )
    return found


def _count(config: StudyConfig, variant: Variant, species: tuple[str, ...]) -> int:
    if variant.family == "nequip":
        arch = architecture(config, variant, len(species))
        return count_costs(Design(variant.feature_dim, variant.l_max), arch).total
    from eqplugin.study.building import build, count_parameters

    return count_parameters(build(config, variant, species))


def _alike(one: Variant, other: Variant) -> bool:
    """Do they differ in degree and feature dimension alone?"""
    return replace(one, l_max=0, feature_dim=0) == replace(other, l_max=0, feature_dim=0)


def _found(reference: Variant, variant: Variant) -> Match | None:
    """The reference itself needs no search."""
    itself = _alike(reference, variant) and variant.l_max == reference.l_max
    return Match(reference.feature_dim, 1.0) if itself else None


def _match_nequip(
    config: StudyConfig,
    reference: Variant,
    degrees: Sequence[int],
    num_types: int,
    tolerance: float,
) -> dict[int, Match]:
    arch = architecture(config, reference, num_types)
    budget = Design(reference.feature_dim, reference.l_max)
    try:
        budgets = match_parameters(budget, [reference.l_max, *degrees], arch, tolerance)
    except DesignError as error:
        return {degree: _alone(budget, degree, arch, tolerance, error) for degree in degrees}
    return {
        degree: Match(found.feature_dim, 1.0)
        for degree, found in zip(degrees, budgets[1:], strict=True)
    }


def _alone(
    budget: Design, degree: int, arch: Architecture, tolerance: float, error: DesignError
) -> Match:
    """One degree that cannot be matched must not take the others with it."""
    if degree == budget.l_max:
        return Match(budget.feature_dim, 1.0)
    try:
        found = match_parameters(budget, [budget.l_max, degree], arch, tolerance)
    except DesignError as own:
        return Match(None, math.nan, str(own))
    return Match(found[1].feature_dim, 1.0)


def match_by_time(
    config: StudyConfig,
    reference: Variant,
    wanted: Sequence[Variant],
    species: tuple[str, ...],
    frames: Sequence[Atoms],
    rounds: int,
) -> dict[int, Match]:
    """Match the measured time of a training step, each candidate alternated with the reference.

    Args:
        config: of the study.
        reference: the model whose time is to be met.
        wanted: variants that differ in degree alone, with any feature dimension.
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
    from eqplugin.study.building import build, clock_for, time_steps, training_step

    def step(variant: Variant) -> Callable[[], None]:
        model = build(config, variant, species).to(torch.device(config.train.device))
        return training_step(variant.family, model, frames, config.train.r_max)

    standard, clock = step(reference), clock_for(config.train.device, config.train.threads)
    found = {}
    for variant in wanted:

        def ratio(dim: int, variant: Variant = variant) -> float:
            candidate = step(replace(variant, feature_dim=dim))
            times = time_steps({"reference": standard, "candidate": candidate}, rounds, clock=clock)
            return float(np.median(times["candidate"] / times["reference"]))

        found[variant.l_max] = _found(reference, variant) or search_dimension(
            ratio, variant.l_max, reference.feature_dim, config.tolerance.time,
            "time per training step",
        )  # fmt: skip
    return found
