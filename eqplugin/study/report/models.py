"""The records of a study as models: what belongs together over the seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eqplugin.study.report.statistics import Spread, spread

__all__ = ["Model", "Results", "label_of", "results_of"]

MATCHES = ("dimension", "parameters", "time")
_KEY = ("family", "l_max", "hops", "contraction", "feature_dim")  # what tells models apart
_FAMILY = {"nequip": "NequIP", "mace": "MACE"}


@dataclass(frozen=True)
class Model:
    """A variant and its finished jobs.

    Attributes:
        family: ``nequip`` or ``mace``.
        l_max: L.
        hops: h; None: never reset.
        contraction: at a reset.
        feature_dim: D.
        matches: rules under which it is compared.
        records: seed -> line.
        timing: ``step_ms``, ``force_ms`` (10, 50, 90 %), all models in turn; None where that was
            not measured.
    """

    family: str
    l_max: int
    hops: int | None
    contraction: str | None
    feature_dim: int
    matches: tuple[str, ...]
    records: dict[int, dict[str, Any]]
    timing: dict[str, list[float]] | None

    @property
    def label(self) -> str:
        """For tables and plots, with D."""
        return f"{label_of(self)}, D={self.feature_dim}"

    @property
    def line(self) -> tuple:
        """What is compared along L."""
        return self.family, self.hops, self.contraction

    @property
    def parameters(self) -> int:
        """All of them."""
        return next(iter(self.records.values()))["parameters"]

    def values(self, test: str, measure: str) -> dict[int, float]:
        """Seed -> error; empty where the test has no such label."""
        found = {
            seed: record["errors"].get(test, {}).get(measure)
            for seed, record in self.records.items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, test: str, measure: str) -> Spread | None:
        """Mean and spread over the seeds."""
        values = list(self.values(test, measure).values())
        return spread(values) if values else None

    def time(self, what: str) -> list[float]:
        """10, 50 and 90 % of ``step_ms`` or ``force_ms``."""
        if self.timing is not None:
            return self.timing[what]
        jobs = [record["cost"][what] for record in self.records.values()]
        return sorted(jobs, key=lambda times: times[1])[len(jobs) // 2]

    def curves(self) -> dict[int, list[list[float]]]:
        """Seed -> (epoch, validation force MAE in meV/A); NaN where a training had none."""
        return {
            seed: [[epoch, math.nan if mae is None else mae] for epoch, mae in record["validation"]]
            for seed, record in self.records.items()
        }

    def peak_megabytes(self, what: str) -> float | None:
        """Largest over the seeds."""
        peaks = [record["cost"].get(what) for record in self.records.values()]
        peaks = [peak for peak in peaks if peak]
        return max(peaks) / 2**20 if peaks else None


def label_of(model: Any) -> str:
    """Family, L and hops of a model or a record, in words."""
    get: Callable[[str], Any] = (
        model.get if isinstance(model, dict) else lambda k: getattr(model, k)
    )
    label = f"{_FAMILY[get('family')]} L={get('l_max')}"
    if get("hops"):
        label += f", {get('hops')}-hop"
    elif get("contraction"):
        label += ", contracted readout"
    if get("contraction") not in (None, "bispectrum"):
        label += f" ({get('contraction')})"
    return label


@dataclass(frozen=True)
class Results:
    """A study's lines, sorted.

    Attributes:
        models: with at least one finished job.
        failed: lines of jobs that did not end well.
        unattainable: lines of models that no feature dimension gives.
        tests: labels of the test sets; the first decides.
        any: one line, for what all share.
        commits: of the finished jobs' lines -> their number.
        speed: the line of the common timing.
    """

    models: list[Model]
    failed: list[dict[str, Any]]
    unattainable: list[dict[str, Any]]
    tests: list[str]
    any: dict[str, Any]
    commits: dict[str, int]
    speed: dict[str, Any] | None

    @property
    def reference(self) -> Model | None:
        """The model that others are matched to; None where it was not trained."""
        config = self.any.get("config", {})
        wanted = (
            config.get("reference_family") or config.get("family"),
            config.get("reference_l_max"), None, None, config.get("feature_dim"),
        )  # fmt: skip
        for model in self.models:
            if tuple(getattr(model, name) for name in _KEY) == wanted:
                return model
        return None

    def ratios(self, match: str) -> dict[str, float]:
        """Label -> parameters, or time per training step, over the reference's."""
        reference = self.reference
        if reference is None or match == "dimension":
            return {}

        def quantity(model: Model) -> float:
            return model.parameters if match == "parameters" else model.time("step_ms")[1]

        return {m.label: quantity(m) / quantity(reference) for m in self.under(match)}

    def under(self, match: str) -> list[Model]:
        """The models that are compared under a rule."""
        return [model for model in self.models if match in model.matches]


def results_of(records: Sequence[dict[str, Any]]) -> Results:
    """Sort the lines of a study."""
    jobs = [record for record in records if record.get("kind") == "job"]
    speed = next((r for r in records if r.get("kind") == "speed"), None)
    groups: dict[tuple, dict[int, dict[str, Any]]] = {}
    for record in jobs:
        if record["status"] == "done":
            groups.setdefault(_key(record), {})[record["seed"]] = record
    models = [_model(key, by_seed, speed) for key, by_seed in groups.items()]
    models.sort(key=lambda m: (m.family != "nequip", m.hops or 0, m.contraction or "", m.l_max,
                               m.feature_dim))  # fmt: skip
    tests = list(dict.fromkeys(t for m in models for r in m.records.values() for t in r["errors"]))
    return Results(
        models,
        [record for record in jobs if record["status"] == "failed"],
        [record for record in jobs if record["status"] == "unattainable"],
        tests,
        jobs[0] if jobs else {},
        dict(Counter(str(r.get("commit")) for r in jobs if r["status"] == "done")),
        speed,
    )


def _rules(record: dict[str, Any]) -> list[str]:
    """Under which a job is compared; an arm had one rule, not a list, in lines of before."""
    arms = record["arms"].values()
    return [rule for arm in arms for rule in ([arm] if isinstance(arm, str) else arm)]


def _key(record: dict[str, Any]) -> tuple:
    return tuple(record[name] for name in _KEY)


def _model(key: tuple, by_seed: dict[int, dict[str, Any]], speed: dict[str, Any] | None) -> Model:
    matches = {rule for record in by_seed.values() for rule in _rules(record)}
    name = next(iter(by_seed.values()))["job"].rpartition("-s")[0]
    timing = (speed or {}).get("models", {}).get(name)
    ordered = tuple(match for match in MATCHES if match in matches)
    return Model(*key, ordered, dict(sorted(by_seed.items())), timing)
