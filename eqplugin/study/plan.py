"""The jobs of a study: arms expanded, equal jobs merged, feature dimensions matched."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ase import Atoms

from eqplugin.design import Design
from eqplugin.errors import EqPluginError
from eqplugin.study.config import Study
from eqplugin.study.frames import Frames
from eqplugin.study.job import Job, Variant
from eqplugin.study.matching import Match, match_by_count, match_by_time, reference_of
from eqplugin.study.schema import StudyConfig

__all__ = [
    "Wish",
    "batch_of",
    "expand",
    "find_match",
    "in_own_process",
    "jobs_of",
    "matches_to_find",
    "name_of",
]


@dataclass(frozen=True, order=True)
class Wish:
    """A job as an arm asks for it, its feature dimension still open.

    Attributes:
        arm: name of the arm.
        match: what is held equal.
        family: of the variant.
        l_max: of the variant.
        hops: of the variant.
        contraction: of the variant.
        seed: of the job.
    """

    arm: str
    match: str
    family: str
    l_max: int
    hops: int | None
    contraction: str | None
    seed: int

    def group(self) -> tuple:
        """What is matched together: everything but degree and seed."""
        return self.match, self.family, self.hops, self.contraction


def expand(study: Study) -> list[Wish]:
    """Every combination of every arm, in the order of the config.

    Raises:
        EqPluginError: an impossible budget, hops that do not divide the layers, an arm of nothing.
    """
    wishes: dict[Wish, None] = {}
    for arm, axes in study.arms.items():
        for values in product(*axes.values()):
            wish = _wish(arm, dict(zip(axes, values, strict=True)))
            if wish.match == "dimension":
                _check_budget(study.config, wish)
            _check_layers(study.config, wish)
            wishes[wish] = None
    for match, *_ in matches_to_find(list(wishes)):
        reference = reference_of(study.config)
        _check_budget(
            study.config, Wish("", match, reference.family, reference.l_max, None, None, 0)
        )
    in_use = {wish.family for wish in wishes}
    if "nequip" in in_use and study.config.nequip.modifiers:
        in_own_process(_check_modifiers, tuple(study.config.nequip.modifiers))
    return list(wishes)


def _check_modifiers(names: tuple[str, ...]) -> None:
    """A small model tells whether there are such modifiers, before hours are spent."""
    from nequip.utils.global_state import set_global_state

    from eqplugin.nequip import SteerableModel

    set_global_state()
    SteerableModel(
        seed=0, model_dtype="float32", type_names=["H"], r_max=1.0, avg_num_neighbors=1.0,
        feature_dim=4, l_max=1, num_layers=1, per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0, modifiers=names,
    )  # fmt: skip


def _wish(arm: str, axes: dict[str, Any]) -> Wish:
    if axes["family"] == "mace":
        # MACE's product basis is the contraction; with one hop nothing above 0 outlives a product,
        # so every degree would be the same model
        axes = {**axes, "contraction": None, "l_max": 0 if axes["hops"] == 1 else axes["l_max"]}
    elif axes["hops"] is not None and axes["contraction"] is None:
        axes = {**axes, "contraction": "bispectrum"}
    return Wish(arm, **axes)


def _check_budget(config: StudyConfig, wish: Wish) -> None:
    try:
        Design(config.feature_dim, wish.l_max)
    except EqPluginError as error:
        raise EqPluginError(f"arm {wish.arm or wish.match}: {error}") from error


def _check_layers(config: StudyConfig, wish: Wish) -> None:
    layers = getattr(config, wish.family).num_layers
    if layers < 1:
        raise EqPluginError(f"{wish.family}.num_layers={layers}: give an integer >= 1.")
    if wish.hops is None:
        return
    if wish.family == "nequip" and layers % wish.hops:
        raise EqPluginError(
            f"arm {wish.arm}: nequip.num_layers={layers} is not a multiple of hops={wish.hops}: "
            f"change either."
        )
    if wish.family == "mace" and wish.hops > layers:
        raise EqPluginError(
            f"arm {wish.arm}: hops={wish.hops} is more than mace.num_layers={layers}: change "
            f"either."
        )


def matches_to_find(wishes: Sequence[Wish]) -> dict[tuple, list[int]]:
    """Group -> degrees whose feature dimension has to be searched for."""
    groups: dict[tuple, list[int]] = {}
    for wish in wishes:
        if wish.match != "dimension":
            degrees = groups.setdefault(wish.group(), [])
            degrees += [wish.l_max] if wish.l_max not in degrees else []
    return groups


def find_match(
    config: StudyConfig, group: tuple, degrees: Sequence[int], frames: Frames
) -> dict[int, Match]:
    """Feature dimensions of one group; measured times are best taken in a process of their own."""
    match, family, hops, contraction = group
    reference = reference_of(config)
    wanted = [Variant(family, degree, hops, contraction, 0) for degree in degrees]
    if match == "parameters":
        found = match_by_count(config, reference, wanted, frames.species)
    else:
        _one_thread(config.train.threads)
        batch, rounds = batch_of(frames, config), max(5, config.speed_repeats // 2)
        found = match_by_time(config, reference, wanted, frames.species, batch, rounds)
    return {degree: _for(name_of(group), match) for degree, match in found.items()}


def name_of(group: tuple) -> str:
    """What is matched together, in words: ``nequip 2-hop bispectrum``."""
    _, family, hops, contraction = group
    return " ".join([family, *([f"{hops}-hop"] if hops else []), *filter(None, [contraction])])


def _for(name: str, match: Match) -> Match:
    return match if match.reason is None else replace(match, reason=f"{name}: {match.reason}")


def batch_of(frames: Frames, config: StudyConfig) -> list[Atoms]:
    """The batch that steps are timed on."""
    return [frame.atoms for frame in frames.train[: config.train.batch_size]]


def _one_thread(threads: int) -> None:
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)


def in_own_process(function: Callable, *arguments: object) -> Any:
    """Call a function in a fresh process: the stacks set torch's defaults, and leave memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def jobs_of(
    config: StudyConfig, wishes: Sequence[Wish], matches: dict[tuple, dict[int, Match]]
) -> list[Job]:
    """Give every wish its feature dimension; what is the same training becomes one job."""
    jobs: dict[tuple, Job] = {}
    for wish, match in _matched(wishes, matches, config.feature_dim):
        if match.feature_dim is None:
            wanted = {
                "match": wish.match, "family": wish.family, "l_max": wish.l_max,
                "hops": wish.hops, "contraction": wish.contraction,
            }  # fmt: skip
            key, variant = (*wanted.values(), wish.seed), None
        else:
            wanted = None
            variant = Variant(
                wish.family, wish.l_max, wish.hops, wish.contraction, match.feature_dim
            )
            key = (variant, wish.seed)
        arms = dict(jobs[key].arms) if key in jobs else {}
        rules = arms.get(wish.arm, [])
        arms[wish.arm] = rules if wish.match in rules else [*rules, wish.match]
        jobs[key] = Job(variant, wish.seed, arms, match.reason, wanted)
    return list(jobs.values())


def _matched(
    wishes: Sequence[Wish], matches: dict[tuple, dict[int, Match]], feature_dim: int
) -> Iterator[tuple[Wish, Match]]:
    for wish in wishes:
        if wish.match == "dimension":
            yield wish, Match(feature_dim, 1.0)
        elif wish.group() in matches:
            yield wish, matches[wish.group()][wish.l_max]
