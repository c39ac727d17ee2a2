"""The jobs of a study: arms expanded, equal jobs merged, feature dimensions matched."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from ase import Atoms

from eqplugin.design import STACKS, Design
from eqplugin.errors import EqPluginError
from eqplugin.stacks import stack_named
from eqplugin.study.config import Study
from eqplugin.study.frames import Frames
from eqplugin.study.job import Job, design_for, reference_of
from eqplugin.study.matching import Match, match_by_count, match_by_time
from eqplugin.study.schema import StudyConfig


class MatchedGroup(NamedTuple):
    """What is matched together: designs that differ in degree alone."""

    match: str  # what is held equal
    design: Design  # at degree 0, its feature dimension open


@dataclass(frozen=True)
class JobRequest:
    """A job as an arm asks for it."""

    arm: str  # name of the arm
    match: str  # what is held equal
    design: Design  # its feature dimension open
    seed: int  # of weights and data order

    @property
    def group(self) -> MatchedGroup:
        """What it is matched with."""
        return MatchedGroup(self.match, replace(self.design, l_max=0))


def expand(study: Study) -> list[JobRequest]:
    """Every combination of every arm, in the order of the config.

    Raises:
        EqPluginError: an impossible design or modifier, or an arm of nothing.
    """
    config = study.config
    requests: dict[JobRequest, None] = {}
    for arm, axes in study.arms.items():
        for values in product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            # at the common dimension the design is known now, and so are its faults
            dim = config.feature_dim if chosen["match"] == "dimension" else None
            design = _design_in_arm(config, chosen, dim, arm).with_feature_dim(None)
            requests[JobRequest(arm, chosen["match"], design, chosen["seed"])] = None
    for match, _ in matches_to_find(list(requests)):
        try:
            reference_of(config)
        except EqPluginError as error:
            raise EqPluginError(f"arm {match}: {error}") from error
    for name in STACKS:
        modifiers = tuple(getattr(config, name).modifiers)
        if modifiers:
            in_own_process(_check_modifiers, name, modifiers)
    return list(requests)


def _design_in_arm(
    config: StudyConfig, axes: dict[str, Any], feature_dim: int | None, arm: str
) -> Design:
    try:
        return design_for(config, axes, feature_dim)
    except EqPluginError as error:
        raise EqPluginError(f"arm {arm}: {error}") from error


def _check_modifiers(stack: str, modifiers: tuple[str, ...]) -> None:
    """A small model tells whether there are such modifiers, before hours are spent."""
    from eqplugin.stack import Recipe

    design = Design(4, 1, num_layers=1, stack=stack)
    recipe = Recipe(modifiers=modifiers)
    stack_named(stack).build(design, recipe, ["H"])


def matches_to_find(requests: Sequence[JobRequest]) -> dict[MatchedGroup, list[int]]:
    """Group -> degrees whose feature dimension has to be searched for."""
    groups: dict[MatchedGroup, list[int]] = {}
    for request in requests:
        if request.match != "dimension":
            degrees = groups.setdefault(request.group, [])
            degrees += [request.design.l_max] if request.design.l_max not in degrees else []
    return groups


def find_match(
    config: StudyConfig, group: MatchedGroup, degrees: Sequence[int], frames: Frames
) -> dict[int, Match]:
    """Feature dimensions of one group; measured times are best taken in a process of their own."""
    reference = reference_of(config)
    wanted = [replace(group.design, l_max=degree) for degree in degrees]
    if group.match == "parameters":
        matches = match_by_count(config, reference, wanted, frames.species)
    else:
        from eqplugin.study.measuring import quietly

        batch, rounds = batch_of(frames, config), max(5, config.speed_repeats // 2)
        given = (config, reference, wanted, frames.species, batch, rounds)
        matches = quietly(match_by_time, config.train.threads, *given)
    return {degree: _named(group.design.label, match) for degree, match in matches.items()}


def _named(name: str, match: Match) -> Match:
    return match if match.reason is None else replace(match, reason=f"{name}: {match.reason}")


def batch_of(frames: Frames, config: StudyConfig) -> list[Atoms]:
    """The batch that steps are timed on."""
    return [frame.atoms for frame in frames.train[: config.train.batch_size]]


def in_own_process(function: Callable, *arguments: object) -> Any:
    """Call a function in a fresh process: the stacks set torch's defaults, and leave memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def jobs_of(
    config: StudyConfig,
    requests: Sequence[JobRequest],
    matches: dict[MatchedGroup, dict[int, Match]],
) -> list[Job]:
    """Give every request its feature dimension; what is the same training becomes one job."""
    jobs: dict[tuple, Job] = {}
    for request, match in _matched(requests, matches, config.feature_dim):
        design = request.design.with_feature_dim(match.feature_dim)
        unmatched = request.match if match.feature_dim is None else None
        key = (design, request.seed, unmatched)
        arms = dict(jobs[key].arms) if key in jobs else {}
        rules = arms.get(request.arm, [])
        arms[request.arm] = rules if request.match in rules else [*rules, request.match]
        jobs[key] = Job(design, request.seed, arms, match.reason, unmatched)
    return list(jobs.values())


def _matched(
    requests: Sequence[JobRequest],
    matches: dict[MatchedGroup, dict[int, Match]],
    feature_dim: int,
) -> Iterator[tuple[JobRequest, Match]]:
    for request in requests:
        if request.match == "dimension":
            yield request, Match(feature_dim, 1.0)
        elif request.group in matches:
            yield request, matches[request.group][request.design.l_max]
