"""The records of a study as models: what belongs together over the seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eqplugin.design import STACKS
from eqplugin.report.records import FinishedJob, JobRecord, Quantiles, Record, SpeedRecord, Timing
from eqplugin.report.statistics import PairedDifference, Spread, paired_difference, spread

MATCHES = ("dimension", "parameters", "time")
_STACKS = {"nequip": "NequIP", "mace": "MACE"}


def architecture_label(model: JobRecord | ModelResults) -> str:
    """Stack, L and hops in words, without D."""
    return f"{_STACKS[model.family]} L={model.l_max}{_hops_label(model.hops, model.contraction)}"


def _hops_label(hops: int | None, contraction: str | None) -> str:
    label = f", {hops}-hop" if hops else ", contracted readout" if contraction else ""
    return label + (f" ({contraction})" if contraction not in (None, "bispectrum") else "")


@dataclass(frozen=True)
class ModelResults:
    """A model and its finished jobs, one for each seed."""

    family: str  # `nequip` or `mace`
    l_max: int  # highest degree L
    hops: int | None  # convolutions between two resets; None: never
    contraction: str | None  # at a reset
    feature_dim: int  # D
    records: dict[int, FinishedJob]  # seed -> record, at least one
    timing: Timing | None  # of all models in turn; None where that was not measured

    @property
    def label(self) -> str:
        """Stack, L, hops and D in words."""
        return f"{architecture_label(self)}, D={self.feature_dim}"

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return next(iter(self.records.values())).parameters

    @property
    def series(self) -> str:
        """Stack and hops in words: what is held fixed in a comparison along L."""
        return _STACKS[self.family] + _hops_label(self.hops, self.contraction)

    @property
    def matches(self) -> tuple[str, ...]:
        """Rules under which it is compared, in the order of :data:`MATCHES`."""
        arms = [rules for record in self.records.values() for rules in record.arms.values()]
        return tuple(match for match in MATCHES if any(match in rules for rules in arms))

    def values(self, test: str, metric: str) -> dict[int, float]:
        """Seed -> error; empty where the test has no such label."""
        found = {
            seed: getattr(record.errors[test], metric)
            for seed, record in self.records.items()
            if test in record.errors
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, test: str, metric: str) -> Spread | None:
        """Mean and spread over the seeds."""
        values = list(self.values(test, metric).values())
        return spread(values) if values else None

    def difference(self, other: ModelResults, test: str) -> PairedDifference | None:
        """The other's force MAE less this model's, seed by seed; None without common seeds."""
        return paired_difference(self.values(test, "force_mae"), other.values(test, "force_mae"))

    @property
    def force_ms(self) -> Quantiles:
        """Time of a force call."""
        return self._time("force_ms")

    @property
    def step_ms(self) -> Quantiles:
        """Time of a training step."""
        return self._time("step_ms")

    def _time(self, name: str) -> Quantiles:
        """In turn with the other models, else that of the job in the middle."""
        if self.timing is not None:
            return getattr(self.timing, name)
        jobs = [getattr(record.cost, name) for record in self.records.values()]
        return sorted(jobs, key=lambda times: times.median)[len(jobs) // 2]

    def curves(self) -> dict[int, list[tuple[int, float]]]:
        """Seed -> (epoch, validation force MAE in meV/A); NaN where a training had none."""
        return {
            seed: [(epoch, math.nan if mae is None else mae) for epoch, mae in record.validation]
            for seed, record in self.records.items()
        }

    def peak_megabytes(self, name: str) -> float | None:
        """The largest over the seeds of ``train_peak_bytes`` or ``force_peak_bytes``, MiB."""
        peaks = [getattr(record.cost, name) for record in self.records.values()]
        return max(filter(None, peaks), default=0) / 2**20 or None


@dataclass(frozen=True)
class StudyResults:
    """A study's records, sorted."""

    models: list[ModelResults]  # with at least one finished job
    jobs: list[JobRecord]  # all records, in the order of the lines
    speed: SpeedRecord | None  # the common timing; None where it is missing

    @property
    def first(self) -> JobRecord:
        """The first job's record, for what all share."""
        return self.jobs[0]

    def with_status(self, status: str) -> list[JobRecord]:
        """Records of the jobs that are ``done``, have ``failed`` or are ``unattainable``."""
        return [record for record in self.jobs if record.status == status]

    @property
    def commits(self) -> dict[str, int]:
        """Commit -> number of the finished jobs that ran with it."""
        return dict(Counter(str(record.commit) for record in self.with_status("done")))

    @property
    def tests(self) -> list[str]:
        """Labels of the test sets; the first decides."""
        records = (record for model in self.models for record in model.records.values())
        return list(dict.fromkeys(test for record in records for test in record.errors))

    @property
    def reference(self) -> ModelResults | None:
        """The model that others are matched to; None where it was not trained."""
        config = self.first.config
        family = config.reference_family or config.family
        wanted = (family, config.reference_l_max, None, None, config.feature_dim)
        return next((model for model in self.models if _key(model) == wanted), None)

    def ratios_to_reference(self, match: str) -> dict[str, float]:
        """Label -> parameters, or time per training step, over the reference's."""
        reference = self.reference
        if reference is None or match == "dimension":
            return {}

        def quantity(model: ModelResults) -> float:
            return model.parameters if match == "parameters" else model.step_ms.median

        return {m.label: quantity(m) / quantity(reference) for m in self.matched_by(match)}

    def matched_by(self, match: str) -> list[ModelResults]:
        """The models that are compared under a rule."""
        return [model for model in self.models if match in model.matches]


def study_results(records: Sequence[Record]) -> StudyResults:
    """Sort the records of a study."""
    jobs = [record for record in records if isinstance(record, JobRecord)]
    speed = next((record for record in records if isinstance(record, SpeedRecord)), None)
    groups: dict[tuple, dict[int, FinishedJob]] = {}
    for record in jobs:
        if isinstance(record, FinishedJob):
            groups.setdefault(_key(record), {})[record.seed] = record
    models = [_model(key, by_seed, speed) for key, by_seed in groups.items()]
    models.sort(key=lambda m: (STACKS.index(m.family), m.hops or 0, m.contraction or "", m.l_max,
                               m.feature_dim))  # fmt: skip
    return StudyResults(models, jobs, speed)


def _key(model: JobRecord | ModelResults) -> tuple:
    """What tells models apart."""
    return model.family, model.l_max, model.hops, model.contraction, model.feature_dim


def _model(key: tuple, by_seed: dict[int, FinishedJob], speed: SpeedRecord | None) -> ModelResults:
    name = next(iter(by_seed.values())).job.rpartition("-s")[0]
    timing = None if speed is None else speed.models.get(name)
    return ModelResults(*key, dict(sorted(by_seed.items())), timing)
