"""The report's statistics against hand-computed answers and scipy."""

import numpy as np
import pytest
from scipy import stats

from eqplugin.report.statistics import (
    PairedDifference,
    detectable_difference,
    holm_adjusted,
    late_improvement,
    paired_difference,
    power_of_test,
    seeds_needed,
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


# --- power and equivalence


def test_equivalence_by_hand():
    found = paired_difference({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0})
    assert found.sd == pytest.approx(1)
    # t(0.95, 2) = 2.919986
    assert found.equal_within == pytest.approx(2 + 2.919986 / 3**0.5)
    assert found.equivalence_p(found.equal_within) == pytest.approx(0.05)
    # two one-sided tests, one of which decides
    below = stats.ttest_1samp([1, 2, 3], -5, alternative="greater").pvalue
    above = stats.ttest_1samp([1, 2, 3], 5, alternative="less").pvalue
    assert found.equivalence_p(5) == pytest.approx(max(below, above))


def test_one_seed_is_not_equal_to_anything():
    found = paired_difference({1: 5.0}, {1: 5.0})
    assert (found.sd, found.equal_within, found.equivalence_p(1.0)) == (None, None, None)
    alike = paired_difference({1: 5.0, 2: 6.0}, {1: 6.0, 2: 7.0})
    assert (alike.sd, alike.equal_within) == (0, 1)
    assert (alike.equivalence_p(2.0), alike.equivalence_p(0.5)) == (0, 1)


def test_models_that_differ_by_the_margin_are_called_equal_as_rarely_as_it_says():
    rng = np.random.default_rng(2)
    called = 0
    for _ in range(1000):
        values = rng.normal(1.0, 0.3, 5)
        found = paired_difference(dict.fromkeys(range(5), 0.0), dict(enumerate(values)))
        called += found.equivalence_p(1.0) < 0.05
    # 50 +- 7
    assert 25 < called < 75


@pytest.mark.parametrize("n, shift", [(2, 8.0), (3, 2.0), (5, 1.2), (20, 0.5)])
def test_power_is_how_often_a_difference_is_seen(n, shift):
    rng = np.random.default_rng(3)
    values = rng.normal(shift, 1.0, (4000, n))
    seen = (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05).mean()
    assert power_of_test(shift, 1.0, n) == pytest.approx(seen, abs=0.03)
    # where it works, scipy's noncentral t says the same
    critical, skew = stats.t.ppf(0.975, n - 1), shift * n**0.5
    exact = stats.nct.sf(critical, n - 1, skew)
    assert power_of_test(shift, 1.0, n) == pytest.approx(exact, abs=2e-3)


def test_seeds_and_differences_that_go_together():
    assert power_of_test(0.0, 1.0, 4) == pytest.approx(0.05, abs=1e-3)
    for n in (2, 3, 10):
        seen = detectable_difference(2.0, n)
        assert power_of_test(seen, 2.0, n) == pytest.approx(0.8, abs=1e-3)
        assert seeds_needed(1.001 * seen, 2.0) == n
    # the textbook's number for half a standard deviation
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(1e-3, 1.0) is None
