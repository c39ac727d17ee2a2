"""The report's statistics against hand-computed answers and scipy."""

import numpy as np
import pytest
from scipy import stats

from eqplugin.report.statistics import (
    PairedDifference,
    holm_adjusted,
    late_improvement,
    paired_difference,
    spread,
)


def test_spread_over_seeds():
    assert (spread([1.0, 2.0, 3.0]).mean, spread([1.0, 2.0, 3.0]).sd) == (2.0, 1.0)
    assert spread([4.0]).sd is None


def test_a_paired_difference_by_hand():
    first, second = {1: 10.0, 2: 20.0, 3: 30.0}, {1: 11.0, 2: 22.0, 3: 33.0}
    found = paired_difference(first, second)
    # differences 1, 2, 3: mean 2, deviation 1; t(0.975, 2) = 4.302653
    assert found.mean == pytest.approx(2)
    assert found.effect == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert not found.excludes_zero
    test = stats.ttest_rel([11, 22, 33], [10, 20, 30])
    assert found.p == pytest.approx(test.pvalue)
    interval = test.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_pairing_takes_out_what_seeds_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 20, 5)
    first = dict(enumerate(50 + shared))
    second = dict(enumerate(52 + shared + rng.normal(0, 0.2, 5)))
    assert paired_difference(first, second).excludes_zero
    # the same values with the pairs broken
    broken = dict(enumerate(np.roll(list(second.values()), 1)))
    assert not paired_difference(first, broken).excludes_zero


def test_only_common_seeds_are_paired():
    assert paired_difference({1: 5.0, 2: 6.0}, {2: 7.0, 3: 0.0}) == PairedDifference(1, 1.0)
    assert paired_difference({1: 5.0}, {2: 7.0}) is None


def test_one_seed_is_no_test():
    found = paired_difference({1: 5.0}, {1: 6.0})
    assert (found.mean, found.low, found.p, found.effect) == (1.0, None, None, None)
    assert not found.excludes_zero


def test_equal_differences_have_no_scale():
    found = paired_difference({1: 5.0, 2: 6.0}, {1: 6.0, 2: 7.0})
    assert (found.low, found.high, found.effect, found.p) == (1.0, 1.0, None, None)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        values = rng.normal(1.0, 2.0, 4)
        found = paired_difference(dict.fromkeys(range(4), 0.0), dict(enumerate(values)))
        covered += found.low < 1.0 < found.high
    # 950 +- 7
    assert 925 < covered < 975


def test_holm_by_hand():
    adjusted = holm_adjusted([PairedDifference(3, 1.0, p=p) for p in (0.01, 0.04, 0.03)])
    assert [d.p for d in adjusted] == pytest.approx([0.03, 0.06, 0.06])
    # what was not tested stays so and does not count
    mixed = holm_adjusted([PairedDifference(1, 1.0), PairedDifference(3, 1.0, p=0.02)])
    assert [d.p for d in mixed] == [None, 0.02]


def test_late_fall():
    assert late_improvement([100, 50, 40, 30, 20, 10, 10, 10, 10, 5]) == pytest.approx(0.5)
    assert late_improvement([100, 50, 10, 10, 10, 10, 10, 10, 11, 10]) == 0
    assert late_improvement([2, 1]) is None
