"""The statistics of a report: spread over seeds, paired differences, convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats


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
