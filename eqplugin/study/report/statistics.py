"""The statistics of a report: spread over seeds, paired differences, convergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

__all__ = ["Difference", "Spread", "holm", "late_fall", "paired_difference", "spread"]

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; the latter None with one seed."""

    n: int
    mean: float
    sd: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.sd is None else f"{self.mean:.1f} ± {self.sd:.1f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread (n - 1 in the denominator).

    >>> spread([1.0, 3.0])
    Spread(n=2, mean=2.0, sd=1.4142135623730951)
    """
    array = np.asarray(values, float)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Spread(len(array), float(array.mean()), sd)


@dataclass(frozen=True)
class Difference:
    """Of two models over the seeds that both have; None where one seed allows no test.

    Attributes:
        n: number of common seeds.
        mean: second minus first.
        low: lower end of the 95 % confidence interval of the mean (Student's t, n - 1).
        high: upper end.
        effect: mean over the standard deviation of the differences (Cohen's d_z).
        p: two-sided, of a mean of zero; see :func:`holm` for several pairs.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    effect: float | None = None
    p: float | None = None

    @property
    def decided(self) -> bool:
        """Does the interval exclude zero?"""
        return self.low is not None and (self.low > 0 or self.high < 0)


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL
) -> Difference | None:
    """Compare two models seed by seed: what the seeds have in common drops out.

    Args:
        first: seed -> error.
        second: seed -> error.
        level: of the confidence interval.

    Returns:
        None where no seed is common.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    values = np.array([second[seed] - first[seed] for seed in seeds])
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Difference(n, mean)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    if error == 0:  # all differences alike: no scale to measure them by
        return Difference(n, mean, mean, mean)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(n, mean, mean - half, mean + half, mean / (error * math.sqrt(n)), p)


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Adjust the p values of several tests at once (Holm 1979); the intervals stay as they are."""
    tested = [i for i, d in enumerate(differences) if d.p is not None]
    order = sorted(tested, key=lambda i: differences[i].p)
    adjusted, least = list(differences), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * differences[i].p))
        adjusted[i] = replace(differences[i], p=least)
    return adjusted


def late_fall(curve: Sequence[float], share: float = 1 / 3) -> float | None:
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
