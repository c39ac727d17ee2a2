"""What a report recommends, why, and what stands against it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from eqplugin.report.models import MATCHES, ModelResults, StudyResults
from eqplugin.report.statistics import detectable_difference, late_improvement, seeds_needed
from eqplugin.report.tables import ModelPair, pairs_along

WORTH = 0.05  # relative: an error higher by less is not worth a slower model
FALLING = 0.05  # relative: what the last third of a converged training does not take off
ENOUGH_SEEDS = 3
_SHOWN = 3  # pairs in a sentence; the table has all


def recommendation(results: StudyResults) -> list[str]:
    """One model and the reasons, in sentences; nothing where no model is finished.

    The rule: of all models whose mean force error on the first test is within 5 % of the lowest,
    the one with the fastest force call.
    """
    test = results.tests[0] if results.tests else None
    models = [m for m in results.models if test and m.spread(test, "force_mae")]
    if not models:
        return []

    def error(model: ModelResults) -> float:
        return model.spread(test, "force_mae").mean

    best = min(models, key=error)
    near = [model for model in models if error(model) <= (1 + WORTH) * error(best)]
    chosen = min(near, key=lambda model: model.force_ms.median)
    reasons = [
        f"**{chosen.label}**: force MAE {chosen.spread(test, 'force_mae'):.1f} meV/Å on {test}, "
        f"{chosen.force_ms.median:.1f} ms a force call, {chosen.step_ms.median:.1f} ms a "
        f"training step, {chosen.parameters:,} parameters."
    ]
    if chosen is best:
        reasons.append("Its mean error is the lowest of all.")
    else:
        ratio = best.force_ms.median / chosen.force_ms.median
        reasons.append(
            f"The lowest mean error is that of {best.label} ({best.spread(test, 'force_mae'):.1f} "
            f"meV/Å), within {WORTH:.0%} of it; its force call takes {ratio:.2f} times as long."
        )
        reasons.append(_seed_comparison(best, chosen, test))
    others = [model for model in models if model is not chosen and model is not best]
    clear = [model for model in others if _is_clearly_worse(chosen, model, test)]
    if others and len(chosen.records) > 1:
        reasons.append(
            f"Other models whose error on {test} the seeds show to be higher: {len(clear)} of "
            f"{len(others)} (95 % interval of the paired difference above zero, not adjusted for "
            f"their number)."
        )
    return reasons


def _seed_comparison(best: ModelResults, chosen: ModelResults, test: str) -> str:
    difference = best.difference(chosen, test)
    if difference is None or difference.low is None:
        return "Whether the two differ cannot be tested with one seed."
    verdict = "differ" if difference.excludes_zero else "cannot be told apart"
    return (
        f"Paired over {difference.n} seeds the two {verdict}: {difference.mean:+.1f} meV/Å, 95 % "
        f"interval {difference.interval}."
    )


def _is_clearly_worse(chosen: ModelResults, other: ModelResults, test: str) -> bool:
    difference = chosen.difference(other, test)
    return difference is not None and difference.low is not None and difference.low > 0


def findings(results: StudyResults) -> list[str]:
    """What the seeds say about L and hops under each matching rule, on the first test."""
    sentences = []
    for match in MATCHES:
        for axis, word in (("l_max", "L"), ("hops", "hops")):
            pairs = [p for p in pairs_along(results, match, axis) if p.test == results.tests[0]]
            if pairs:
                sentences.append(_finding_sentence(match, word, pairs))
    return sentences


def _finding_sentence(match: str, word: str, pairs: Sequence[ModelPair]) -> str:
    tested = [pair for pair in pairs if pair.difference.p is not None]
    head = f"Equal {match}, between {word}: "
    if not tested:
        return head + f"{len(pairs)} pairs, one seed: no test."
    decided = [pair for pair in tested if pair.difference.p < 0.05]
    equal = _equal_pairs(tested)
    same = f" {equal} of {len(tested)} are equal within {WORTH:.0%} (two one-sided tests, 5 %)."
    if not decided:
        widest = max(pair.difference.high - pair.difference.low for pair in tested) / 2
        return head + (
            f"none of {len(tested)} pairs differs at p < 0.05 (Holm); intervals reach up to "
            f"± {widest:.1f} meV/Å, so smaller differences would not have been seen.{same}"
        )
    decided.sort(key=lambda pair: -abs(pair.difference.mean))
    largest = "; ".join(_pair_text(pair) for pair in decided[:_SHOWN])
    among = ", among them" if len(decided) > _SHOWN else ":"
    return head + (
        f"{len(decided)} of {len(tested)} pairs differ at p < 0.05 (Holm){among} {largest}.{same}"
    )


def _equal_pairs(tested: Sequence[ModelPair]) -> int:
    """Number of pairs that are equal within the margin that is worth a slower model."""
    count = 0
    for pair in tested:
        error = pair.first.spread(pair.test, "force_mae")
        p = None if error is None else pair.difference.equivalence_p(WORTH * error.mean)
        count += p is not None and p < 0.05
    return count


def _pair_text(pair: ModelPair) -> str:
    low, high = pair.first, pair.second
    if pair.difference.mean < 0:
        low, high = high, low
    return f"{low.label} below {high.label} by {abs(pair.difference.mean):.1f} meV/Å"


def caveats(results: StudyResults) -> list[str]:
    """What the numbers do not show."""
    return [
        *_few_seeds(results),
        *_power(results),
        *_divergence(results),
        *_convergence(results),
        *_missing_jobs(results),
        *_warnings(results),
        *_two_stacks(results),
        *_time_mismatch(results),
        *_machine_load(results),
        *_code_versions(results),
    ]


def _few_seeds(results: StudyResults) -> Iterator[str]:
    seeds = [len(model.records) for model in results.models]
    if seeds and min(seeds) < ENOUGH_SEEDS:
        few = "One seed: no test" if max(seeds) == 1 else f"As few as {min(seeds)} seeds"
        yield f"{few}; the spread over seeds is badly known below {ENOUGH_SEEDS}."


def _power(results: StudyResults) -> Iterator[str]:
    """What differences these seeds could have shown, on the first test, between neighbours in L."""
    pairs = [
        pair
        for match in MATCHES
        for pair in pairs_along(results, match, "l_max")
        if pair.test == results.tests[0] and pair.difference.sd
    ]
    if not pairs:
        return
    sd = math.sqrt(statistics.fmean(pair.difference.sd**2 for pair in pairs))
    error = statistics.fmean(pair.first.spread(pair.test, "force_mae").mean for pair in pairs)
    n = min(pair.difference.n for pair in pairs)
    seen, needed = detectable_difference(sd, n), seeds_needed(WORTH * error, sd)
    yield (
        f"Power: {n} seeds show a difference of {seen:.1f} meV/Å ({seen / error:.0%}) between two "
        f"L in 80 % of all studies, smaller ones less often; to show {WORTH:.0%} takes "
        f"{needed or 'more than 999'} seeds."
    )


def _divergence(results: StudyResults) -> Iterator[str]:
    """Trainings that ended with a larger validation error than their first epoch's."""
    names = [
        f"{model.label}, seed {seed}"
        for model in results.models
        for seed, curve in model.curves().items()
        if len(curve) > 1 and not curve[-1][1] <= curve[0][1]  # NaN is no smaller than anything
    ]
    if names:
        yield (
            f"Diverged: {'; '.join(names)}. Mean and spread of such a model say only that its "
            f"training is unstable at this learning rate."
        )


def _convergence(results: StudyResults) -> Iterator[str]:
    falls = {model.label: _late_improvements(model) for model in results.models}
    falling = {label: max(fall) for label, fall in falls.items() if max(fall, default=0) > FALLING}
    steps = results.first.steps
    if falling:
        worst = max(falling, key=falling.get)
        yield (
            f"Not converged: after {steps} steps the validation error still falls in "
            f"{len(falling)} of {len(falls)} models ({worst}: {falling[worst]:.0%} in the last "
            f"third), so the ranking may change with a longer training."
        )
    elif not all(falls.values()):
        yield "Too few epochs to say whether the trainings have converged."
    else:
        yield (
            f"The validation error falls by less than {FALLING:.0%} in the last third of {steps} "
            f"steps, but a schedule that lowers the learning rate flattens any curve: only a "
            f"larger budget shows whether it would go on falling."
        )


def _late_improvements(model: ModelResults) -> list[float]:
    curves = model.curves().values()
    falls = [late_improvement([error for _, error in curve]) for curve in curves]
    return [fall for fall in falls if fall is not None]


def _missing_jobs(results: StudyResults) -> Iterator[str]:
    if failed := results.with_status("failed"):
        names = ", ".join(record.job for record in failed[:4]) + " ..." * (len(failed) > 4)
        yield f"Failed jobs: {len(failed)} ({names}); see the end."
    yield from (f"Not attainable: {reason}." for reason in _unattainable_reasons(results))


def _unattainable_reasons(results: StudyResults) -> list[str]:
    reasons = (str(record.error).rstrip(".") for record in results.with_status("unattainable"))
    return list(dict.fromkeys(reasons))


def _warnings(results: StudyResults) -> list[str]:
    """Those of the study that are not said already."""
    said = tuple(_unattainable_reasons(results))
    return [warning for warning in results.first.warnings if not warning.startswith(said)]


def _two_stacks(results: StudyResults) -> Iterator[str]:
    if len({model.family for model in results.models}) > 1:
        yield (
            "NequIP and MACE differ in more than L and D (layers, product basis, schedule, loss "
            "weights), so compare within a stack first."
        )


def _time_mismatch(results: StudyResults) -> Iterator[str]:
    """Times are matched when a study is planned; measured again, trained models may differ."""
    tolerance = results.first.config.tolerance.time
    ratios = results.ratios_to_reference("time")
    far = {label: ratio for label, ratio in ratios.items() if abs(ratio - 1) > tolerance}
    if far:
        named = ", ".join(f"{label}: {ratio:.2f}" for label, ratio in far.items())
        yield (
            f"Matched by time when the study was planned, but more than {tolerance:.0%} off the "
            f"reference's training step when all models were timed in turn: {named} of it. What "
            f"these gain or lose is not at equal time."
        )


def _machine_load(results: StudyResults) -> Iterator[str]:
    if results.speed is None:
        yield "Times were taken job by job, not in turn: differences below 20 % mean nothing."
        return
    load, cores = results.speed.hardware.load, results.speed.hardware.cores
    if load is not None and cores and load > 1.2 * cores:
        yield (
            f"The machine was busy when the times were taken (load {load:g} on {cores} cores): "
            f"ratios between models are indicative, milliseconds are not."
        )


def _code_versions(results: StudyResults) -> Iterator[str]:
    edited = sum(n for name, n in results.commits.items() if name.endswith("-dirty"))
    if len(results.commits) > 1 or edited:
        uncommitted = f", {edited} of them with uncommitted changes" if edited else ""
        yield (
            f"The jobs were run with {len(results.commits)} versions of this project's code (below)"
            f"{uncommitted}: finished jobs are reused when a study is run again."
        )
