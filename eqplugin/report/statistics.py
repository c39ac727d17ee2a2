"""The statistics of a report: spread over seeds, paired differences, power, convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

POWER = 0.8  # of a test: how often it sees a difference that is there
_QUANTILES = 2000  # power to 1e-4


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; the latter None with one seed."""

    n: int
    mean: float
    sd: float | None

    def __format__(self, form: str) -> str:
        mean = format(self.mean, form)
        return mean if self.sd is None else f"{mean} ± {self.sd:{form}}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread (n - 1 in the denominator).

    >>> spread([1.0, 3.0])
    Spread(n=2, mean=2.0, sd=1.4142135623730951)
    """
    array = np.asarray(values, float)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(len(array), float(array.mean()), sd)


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two models over the seeds that both have."""

    n: int  # number of common seeds
    mean: float  # second minus first
    # lower end of the 95 % confidence interval of the mean (Student's t, n - 1); this and the rest
    # are None where one seed allows no test
    low: float | None = None
    high: float | None = None  # upper end
    effect: float | None = None  # mean over the standard deviation of the differences (Cohen's d_z)
    p: float | None = None  # two-sided, of a mean of zero; see `holm_adjusted` for several pairs

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and (self.low > 0 or self.high < 0)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the differences."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2 * math.sqrt(self.n) / stats.t.ppf(0.975, self.n - 1)

    @property
    def equal_within(self) -> float | None:
        """The smallest margin within which the two models are equal at the 5 % level.

        Two one-sided tests (Schuirmann 1987): the larger end of the 90 % interval.
        """
        if self.sd is None:
            return None
        half = stats.t.ppf(0.95, self.n - 1) * self.sd / math.sqrt(self.n)
        return abs(self.mean) + float(half)

    def equivalence_p(self, margin: float) -> float | None:
        """P value of two one-sided tests that the true difference lies within ``± margin``."""
        if self.sd is None:
            return None
        error = self.sd / math.sqrt(self.n)
        if error == 0:
            return float(abs(self.mean) >= margin)
        below = stats.t.sf((self.mean + margin) / error, self.n - 1)
        above = stats.t.cdf((self.mean - margin) / error, self.n - 1)
        return float(max(below, above))

    @property
    def interval(self) -> str:
        """The interval in words."""
        return "one seed: no test" if self.low is None else f"{self.low:+.1f} .. {self.high:+.1f}"


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> PairedDifference | None:
    """Compare the errors of two models seed by seed; None where no seed is common."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    before, after = (np.array([model[seed] for seed in seeds]) for model in (first, second))
    difference = spread(after - before)
    n, mean = difference.n, difference.mean
    if difference.sd is None:
        return PairedDifference(n, mean)
    if difference.sd == 0:  # all differences alike: no scale to measure them by
        return PairedDifference(n, mean, mean, mean)
    test = stats.ttest_rel(after, before)
    low, high = map(float, test.confidence_interval(0.95))
    return PairedDifference(n, mean, low, high, mean / difference.sd, float(test.pvalue))


def holm_adjusted(differences: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Adjust the p values of several tests at once (Holm 1979); the intervals stay as they are."""
    tested = sorted((d.p, index) for index, d in enumerate(differences) if d.p is not None)
    adjusted, least = list(differences), 0.0
    for rank, (p, index) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = replace(differences[index], p=least)
    return adjusted


def power_of_test(difference: float, sd: float, n: int) -> float:
    """How often a paired t test of n seeds sees this true difference (two-sided, 5 %).

    Args:
        difference: true mean difference.
        sd: standard deviation of the differences.
        n: number of seeds, at least 2.
    """
    # over the distribution of the estimated deviation: scipy's noncentral t fails at large shifts
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    limit = stats.t.ppf(0.975, n - 1) * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    shift = difference / sd * math.sqrt(n)
    return float(np.mean(stats.norm.cdf(shift - limit) + stats.norm.cdf(-shift - limit)))


def detectable_difference(sd: float, n: int, power: float = POWER) -> float:
    """The true difference that a paired t test of n seeds sees with this power."""
    return float(optimize.brentq(lambda x: power_of_test(x, sd, n) - power, 1e-6 * sd, 200 * sd))


def seeds_needed(difference: float, sd: float, power: float = POWER, most: int = 999) -> int | None:
    """Number of seeds with which a paired t test sees the difference; None if above ``most``."""
    seeds = range(2, most + 1)
    return next((n for n in seeds if power_of_test(difference, sd, n) >= power), None)


def late_improvement(curve: Sequence[float], share: float = 1 / 3) -> float | None:
    """How much of the error the last part of a training still took off, relative.

    Args:
        curve: validation error by epoch; what is not finite is left out.
        share: of the epochs that count as the last part.

    Returns:
        1 - best of all / best before the last part; None for fewer than three epochs.
    """
    curve = [error for error in curve if math.isfinite(error)]
    if len(curve) < 3:
        return None
    before = max(1, min(len(curve) - 1, round((1 - share) * len(curve))))
    return 1 - min(curve) / min(curve[:before])
