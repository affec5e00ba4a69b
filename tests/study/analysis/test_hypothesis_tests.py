"""Statistics over seeds: against SciPy, statsmodels and published numbers, and on simulated data of known truth."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_oracle
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from ketfit.errors import ConfigError, InputError
from ketfit.study.analysis.hypothesis_tests import (
    CrossedTest,
    crossed_test,
    equivalence_test,
    holm,
    mcnemar,
    paired_test,
    summarize,
    summarize_crossed,
)
from tests.study.simulation import at_least, at_most

# Student (1908), hours of sleep gained by ten patients under two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

VALUES = arrays(np.float64, st.integers(3, 20), elements=st.floats(0, 1, width=32))
PAIRS = st.integers(3, 20).flatmap(lambda n: arrays(np.float64, (2, n), elements=st.integers(0, 9101).map(float)))


# Summaries


def test_summarize_t_interval_equals_scipy() -> None:
    summary = summarize(SLEEP_1, level=0.9)
    oracle = stats.ttest_1samp(SLEEP_1, 0).confidence_interval(0.9)
    assert (summary.low, summary.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert (summary.n, summary.mean, summary.spread) == (10, pytest.approx(0.75), pytest.approx(1.789010, abs=1e-6))
    assert (summary.lowest, summary.highest, summary.level) == (-1.6, 3.7, 0.9)


def test_summarize_bootstrap_equals_scipy_bca() -> None:
    summary = summarize(SLEEP_1, method="bootstrap", seed=3)
    oracle = stats.bootstrap((SLEEP_1,), np.mean, n_resamples=9_999, rng=np.random.default_rng(3))
    assert (summary.low, summary.high) == tuple(oracle.confidence_interval)
    assert summary == summarize(SLEEP_1, method="bootstrap", seed=3)
    assert summary != summarize(SLEEP_1, method="bootstrap", seed=4)
    assert replace(summary, low=None, high=None) == replace(summarize(SLEEP_1), low=None, high=None)


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_summarize_without_spread_has_no_interval(method: Any) -> None:
    one = summarize([0.9], method=method)
    assert (one.n, one.mean, one.spread, one.low, one.high, one.lowest, one.highest) == (
        *(1, 0.9, None, None, None, 0.9, 0.9),
    )
    third = 0.1 + 0.2  # is not 0.3, and the difference is not a spread
    same = summarize([0.3, third, 0.3], method=method)
    assert (same.spread, same.low, same.high) == (0.0, None, None)


@pytest.mark.parametrize("values", [[0.1, 0.2], [0.9, 0.9, 0.9, 0.9, 0.91], [0.0, 1.0, 1.0]])
def test_summarize_bootstrap_few_or_tied_values_is_finite(values: list[float]) -> None:
    summary = summarize(values, method="bootstrap")
    assert summary.low is not None
    assert summary.high is not None
    assert min(values) - 1e-12 <= summary.low < summary.high <= max(values) + 1e-12


@given(VALUES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_summarize_does_not_depend_on_order(values: np.ndarray, random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    one, other = (dataclasses.astuple(summarize(v)) for v in (values, shuffled))
    assert one == pytest.approx(other, abs=1e-12)


def test_summarize_t_interval_covers() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 20):
        runs = [summarize(values) for values in rng.normal(0.9, 0.01, (1000, n))]
        missed = sum(not run.low <= 0.9 <= run.high for run in runs)  # type: ignore[operator]
        assert at_least(1000, 0.05) <= missed <= at_most(1000, 0.05)


@pytest.mark.parametrize(("n", "count", "low", "high"), [(5, 400, 0.14, 0.18), (20, 400, 0.05, 0.08)])
def test_summarize_bootstrap_covers_as_documented(n: int, count: int, low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    runs = [summarize(rng.normal(size=n), method="bootstrap", seed=seed) for seed in range(count)]
    missed = sum(not run.low <= 0 <= run.high for run in runs)  # type: ignore[operator]
    assert at_least(count, low) <= missed <= at_most(count, high)


# McNemar


def test_mcnemar_published_value() -> None:
    """Fay (2010), Exact McNemar's Test and Matching Confidence Intervals: b = 2, c = 9, p = 0.06543."""
    first = np.repeat([True, True, False, False], [21, 2, 9, 12])
    second = np.repeat([True, False, True, False], [21, 2, 9, 12])
    found = mcnemar(first, second)
    assert (found.n, found.only_first, found.only_second) == (44, 2, 9)
    assert found.p_value == pytest.approx(134 / 2048)
    assert found.difference == pytest.approx(first.mean() - second.mean())


@given(arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 40))))
@settings(max_examples=100, deadline=None)
def test_mcnemar_equals_statsmodels_and_is_symmetric(pair: np.ndarray) -> None:
    found, turned = mcnemar(*pair), mcnemar(*pair[::-1])
    table = [[(pair[0] == a).astype(int) @ (pair[1] == b) for b in (True, False)] for a in (True, False)]
    assert found.p_value == pytest.approx(mcnemar_oracle(np.array(table), exact=True).pvalue, abs=1e-12)
    assert (turned.p_value, turned.difference) == (found.p_value, -found.difference)
    assert (turned.only_first, turned.only_second) == (found.only_second, found.only_first)


def test_mcnemar_without_discordant_sentences_has_p_one() -> None:
    correct = np.array([True, False, True])
    assert (mcnemar(correct, correct).p_value, mcnemar(correct, correct).difference) == (1.0, 0.0)


def test_mcnemar_holds_level() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(size=(1500, 300))
    pairs = (hard + rng.normal(1.4, 0.5, (2, 1500, 300)) > 0).transpose(1, 0, 2)
    assert 10 < sum(mcnemar(*pair).p_value < 0.05 for pair in pairs) <= at_most(1500, 0.05)


# Paired tests


def test_paired_test_published_value() -> None:
    """Student's sleep data: t = -4.0621, 9 degrees of freedom, p = 0.002833, 95 % from -2.4599 to -0.7001."""
    found = paired_test(SLEEP_1, SLEEP_2)
    assert (found.n, found.df, found.correction) == (10, 9, "none")
    assert found.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert (found.difference, found.spread) == (pytest.approx(-1.58), pytest.approx(1.23, abs=1e-4))
    # Hedges (1981): the factor gamma(9/2) / (sqrt(9/2) gamma(4)), near 1 - 3 / (4 * 9 - 1).
    factor = math.gamma(4.5) / (math.sqrt(4.5) * math.gamma(4))
    assert factor == pytest.approx(1 - 3 / 35, abs=5e-4)
    assert found.effect_size == pytest.approx(-1.58 / found.spread * factor)


@given(PAIRS.filter(lambda pair: np.ptp(pair[0] - pair[1]) > 0))
@settings(max_examples=100, deadline=None)
def test_paired_test_equals_scipy(pair: np.ndarray) -> None:
    found, oracle = paired_test(*pair, level=0.9), stats.ttest_rel(*pair)
    interval = oracle.confidence_interval(0.9)
    assert (found.statistic, found.p_value) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)


@given(PAIRS, st.floats(0.1, 10), st.floats(-100, 100), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_paired_test_is_antisymmetric_and_scales(pair: np.ndarray, scale: float, shift: float, random: Any) -> None:
    found, turned = paired_test(*pair), paired_test(*pair[::-1])
    assert (turned.p_value, turned.difference) == pytest.approx((found.p_value, -found.difference), rel=1e-9)
    order = list(range(pair.shape[1]))
    random.shuffle(order)
    shuffled = paired_test(*pair[:, order])
    assert (shuffled.p_value, shuffled.spread) == pytest.approx((found.p_value, found.spread), rel=1e-6)
    assert (shuffled.low is None) == (found.low is None)
    moved = paired_test(*(pair * scale + shift))
    assert moved.p_value == pytest.approx(found.p_value, rel=1e-6, abs=1e-9)
    assert moved.difference == pytest.approx(found.difference * scale, rel=1e-6, abs=1e-9)


def test_paired_test_correction_equals_formula() -> None:
    """Nadeau and Bengio (2003): t = mean / sqrt((1/n + n_test/n_train) s^2), here 10 times 90 % to 10 %."""
    first, second = np.array(SLEEP_1), np.array(SLEEP_2)
    found, plain = paired_test(first, second, test_train_ratio=1 / 9), paired_test(first, second)
    t = -1.58 / math.sqrt((1 / 10 + 1 / 9) * 1.2299955**2)
    assert (found.statistic, found.correction) == (pytest.approx(t, abs=1e-6), "nadeau-bengio")
    assert found.p_value == pytest.approx(2 * stats.t.sf(-t, 9), rel=1e-5)
    assert found.high - found.low == pytest.approx((plain.high - plain.low) * math.sqrt(1 + 10 / 9))  # type: ignore[operator]
    assert (found.difference, found.spread, found.effect_size) == (plain.difference, plain.spread, plain.effect_size)


def test_paired_test_correction_widens_interval_tenfold() -> None:
    first, second = [0.93, 0.92, 0.94, 0.93, 0.91], [0.92, 0.92, 0.93, 0.91, 0.91]
    plain, corrected = paired_test(first, second), paired_test(first, second, test_train_ratio=9101 / 435)
    assert corrected.standard_error / plain.standard_error == pytest.approx(10.28, abs=0.01)


@pytest.mark.parametrize("ratio", [None, 5.0])
def test_paired_test_without_spread_has_no_interval(ratio: float | None) -> None:
    none = paired_test([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], test_train_ratio=ratio)
    assert (none.p_value, none.difference, none.effect_size, none.statistic, none.low) == (1.0, 0.0, 0.0, None, None)
    same = paired_test([0.9, 0.8, 0.7, 0.6], [0.8, 0.7, 0.6, 0.5], test_train_ratio=ratio)
    assert (same.p_value, same.spread, same.effect_size, same.statistic, same.high) == (1 / 8, 0.0, None, None, None)
    assert same.difference == pytest.approx(0.1)
    rounding = paired_test([0.1 + 0.2, 0.3], [0.3, 0.3], test_train_ratio=ratio)
    assert (rounding.p_value, rounding.difference, rounding.effect_size) == (1.0, 0.0, 0.0)


def test_paired_test_two_seeds_have_no_effect_size() -> None:
    assert paired_test([0.9, 0.8], [0.8, 0.75]).effect_size is None


def test_paired_test_effect_size_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    gaps = rng.normal(0.5, 1, (4000, 5))
    found = [paired_test(gap, np.zeros(5)).effect_size for gap in gaps]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / math.sqrt(4000))  # type: ignore[arg-type]
    assert np.mean(gaps.mean(axis=1) / gaps.std(axis=1, ddof=1)) > 0.58  # as it would be without Hedges' factor


@pytest.mark.parametrize("n", [2, 5, 20])
def test_paired_test_holds_level_and_covers(n: int) -> None:
    rng = np.random.default_rng(4)
    seeds = rng.normal(0.9, 0.02, (1500, n))
    first, second = seeds + rng.normal(0.01, 0.01, (1500, n)), seeds + rng.normal(0, 0.01, (1500, n))
    tests = [paired_test(*pair) for pair in zip(first, second, strict=True)]
    assert sum(not test.low <= 0.01 <= test.high for test in tests) <= at_most(1500, 0.05)  # type: ignore[operator]
    null = [paired_test(*pair) for pair in zip(first - 0.01, second, strict=True)]
    assert at_least(1500, 0.05) <= sum(test.p_value < 0.05 for test in null) <= at_most(1500, 0.05)


def test_paired_test_correction_holds_level_for_assumed_correlation() -> None:
    rng = np.random.default_rng(5)
    ratio, n, count = 0.25, 10, 2000
    shared = ratio / (1 + ratio)
    gaps = math.sqrt(shared) * rng.normal(size=(count, 1)) + math.sqrt(1 - shared) * rng.normal(size=(count, n))
    zeros = np.zeros(n)
    corrected = sum(paired_test(gap, zeros, test_train_ratio=ratio).p_value < 0.05 for gap in gaps)
    assert at_least(count, 0.05) <= corrected <= at_most(count, 0.05)
    assert sum(paired_test(gap, zeros).p_value < 0.05 for gap in gaps) > at_most(count, 0.15)


# Seeds and sentences both random


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Heads whose margin on a sentence is a sum of normal parts; a head is right if it is positive."""

    means: tuple[float, float] = (1.6, 1.5)
    sentence: float = 1.0  # how hard a sentence is, for both
    taste: float = 0.3  # ... and for one of the heads
    draw: float = 0.1  # how good a seed's training set is, for both
    training: float = 0.05  # ... and for one of the heads
    threshold: float = 0.1  # how far one training moves a head towards one label
    rest: float = 0.3

    def accuracies(self) -> tuple[float, float]:
        parts = (self.sentence, self.taste, self.draw, self.training, self.threshold, self.rest)
        one, two = (float(stats.norm.cdf(mean / math.hypot(*parts))) for mean in self.means)
        return one, two

    def study(self, rng: np.random.Generator, n_seeds: int = 5, n: int = 2000, pool: int = 2100) -> tuple[Any, ...]:
        label = rng.choice([-1.0, 1.0], pool)
        known = np.array(self.means)[:, None] + self.sentence * rng.normal(size=pool)
        known = known + self.taste * rng.normal(size=(2, pool))
        found = []
        for _ in range(n_seeds):
            positions = rng.permutation(pool)[:n]
            trained = self.training * rng.normal(size=(2, 1)) + self.draw * rng.normal()
            moved = self.threshold * rng.normal(size=(2, 1)) * label[positions]
            correct = known[:, positions] + trained + moved + self.rest * rng.normal(size=(2, n)) > 0
            found.append((correct[0], correct[1], positions))
        return tuple(zip(*found, strict=True))


SIMULATIONS = {
    "all parts": Simulation(),
    "sentences": Simulation(taste=0.6, training=0.0, threshold=0.0),
    "seeds": Simulation(taste=0.0, training=0.2, threshold=0.2),
    "threshold": Simulation(taste=0.1, training=0.02, threshold=0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATIONS)
def test_crossed_test_covers_and_tost_holds_level(name: str) -> None:
    simulation, rng, count = SIMULATIONS[name], np.random.default_rng(6), 400
    one, two = simulation.accuracies()
    truth = one - two
    studies = [simulation.study(rng) for _ in range(count)]
    tests = [crossed_test(*study) for study in studies]
    assert sum(not test.low <= truth <= test.high for test in tests) <= at_most(count, 0.05)  # type: ignore[operator]
    # At the margin itself: better by it, and (turned) worse by it.
    assert sum(equivalence_test(test, truth).equivalent for test in tests) <= at_most(count, 0.05)
    turned = [replace(test, difference=-test.difference) for test in tests]
    assert 0 < sum(equivalence_test(test, truth).no_worse for test in turned) <= at_most(count, 0.05)
    single = [summarize_crossed(study[0], study[2]) for study in studies]
    assert sum(not s.low <= one <= s.high for s in single) <= at_most(count, 0.05)  # type: ignore[operator]
    errors = np.mean([test.standard_error**2 for test in tests])
    assert errors / np.var([test.difference for test in tests], ddof=1) == pytest.approx(1, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all parts", "sentences"])
def test_crossed_test_holds_level(name: str) -> None:
    simulation, rng, count = replace(SIMULATIONS[name], means=(1.5, 1.5)), np.random.default_rng(7), 400
    tests = [crossed_test(*simulation.study(rng)) for _ in range(count)]
    assert count * 0.005 < sum(test.p_value < 0.05 for test in tests) <= at_most(count, 0.05)


def test_paired_test_rejects_too_often_for_new_sentences() -> None:
    """With a sentence effect, the paired test rejects one time in four."""
    simulation, rng, count = replace(SIMULATIONS["sentences"], means=(1.5, 1.5)), np.random.default_rng(8), 300
    rejected = 0
    for _ in range(count):
        first, second, _ = simulation.study(rng, n=800, pool=840)
        rejected += paired_test([part.mean() for part in first], [part.mean() for part in second]).p_value < 0.05
    assert rejected > at_least(count, 0.25)


@pytest.mark.parametrize("n_seeds", [2, 3, 4])
def test_crossed_test_few_seeds_holds_level(n_seeds: int) -> None:
    simulation, rng, count = Simulation(means=(1.5, 1.5), threshold=0.0), np.random.default_rng(9), 1000
    tests = [crossed_test(*simulation.study(rng, n_seeds, 400, 420)) for _ in range(count)]
    assert sum(test.p_value < 0.05 for test in tests) <= at_most(count, 0.05)
    assert {test.df for test in tests} == {n_seeds - 1}


def test_crossed_test_equal_test_sets_equals_anova() -> None:
    rng = np.random.default_rng(10)
    first, second, positions = Simulation(taste=0.6).study(rng, n_seeds=6, n=50, pool=50)
    found = crossed_test(first, second, positions)
    d = np.array([(f * 1.0 - s)[np.argsort(w)] for f, s, w in zip(first, second, positions, strict=True)])
    mean, seeds, sentences = d.mean(), d.mean(axis=1, keepdims=True), d.mean(axis=0)
    ms_seed = 50 * ((seeds - mean) ** 2).sum() / 5
    ms_sentence = 6 * ((sentences - mean) ** 2).sum() / 49
    ms_rest = ((d - seeds - sentences + mean) ** 2).sum() / (5 * 49)
    assert ms_sentence > ms_rest
    assert found.standard_error**2 == pytest.approx((ms_seed + ms_sentence - ms_rest) / 300, rel=1e-12)
    assert found.seed_error**2 == pytest.approx(ms_seed / 300, rel=1e-12)
    assert (found.difference, found.n_seeds, found.n_sentences) == (pytest.approx(mean), 6, 50)


def test_crossed_test_unequal_test_sets_uses_mean_covariance() -> None:
    rng = np.random.default_rng(11)
    d, sentences = [], []
    for n in (9, 12, 7, 11, 10):
        sentences.append(rng.permutation(20)[:n] * 1000)
        d.append(rng.integers(0, 2, (2, n)).astype(bool))
    found = crossed_test([x[0] for x in d], [x[1] for x in d], sentences)
    gaps = [dict(zip(s.tolist(), x[0] * 1.0 - x[1], strict=True)) for x, s in zip(d, sentences, strict=True)]
    means = [np.mean(list(gap.values())) for gap in gaps]
    covariances = []
    for (a, a_mean), (b, b_mean) in combinations(zip(gaps, means, strict=True), 2):
        both = a.keys() & b.keys()
        product = sum((a[s] - a_mean) * (b[s] - b_mean) for s in both) / (len(a) * len(b))
        covariances.append(product / (1 - 1 / len(a) - 1 / len(b) + len(both) / (len(a) * len(b))))
    assert found.difference == pytest.approx(np.mean(means))
    assert found.seed_error**2 == pytest.approx(np.var(means, ddof=1) / 5)
    assert found.sentence_error**2 == pytest.approx(max(0, np.mean(covariances)))
    assert found.standard_error**2 == pytest.approx(found.seed_error**2 + found.sentence_error**2)
    assert found.sentence_error > 0
    assert found.df >= 4


def test_crossed_test_without_common_sentences_equals_paired_test() -> None:
    rng = np.random.default_rng(12)
    first, second = rng.random((2, 5, 40)) < 0.7
    sentences = np.arange(200).reshape(5, 40)
    found, paired = crossed_test(first, second, sentences), paired_test(first.mean(axis=1), second.mean(axis=1))
    for field in ("difference", "standard_error", "df", "low", "high", "statistic", "p_value"):
        assert getattr(found, field) == pytest.approx(getattr(paired, field))
    assert found.sentence_error == 0


def test_crossed_test_is_antisymmetric_and_order_independent() -> None:
    rng = np.random.default_rng(13)
    first, second, sentences = Simulation(taste=0.6).study(rng, n_seeds=6, n=60, pool=80)
    found, turned = crossed_test(first, second, sentences), crossed_test(second, first, sentences)
    assert (turned.difference, turned.low, turned.p_value) == pytest.approx(
        (-found.difference, -found.high, found.p_value)
    )  # type: ignore[operator]
    seeds = rng.permutation(6)
    order = [rng.permutation(60) for _ in range(6)]
    mixed = [[part[seed][order[seed]] for seed in seeds] for part in (first, second, sentences)]
    assert dataclasses.astuple(crossed_test(*mixed)) == pytest.approx(dataclasses.astuple(found), rel=1e-9)


def test_crossed_test_degrees_of_freedom_follow_shares() -> None:
    rng = np.random.default_rng(14)
    by_seed = crossed_test(*SIMULATIONS["seeds"].study(rng))
    by_sentence = crossed_test(*Simulation(taste=1.0, training=0.0, threshold=0.0, rest=0.05).study(rng))
    assert 4 <= by_seed.df < 6
    assert 40 < by_sentence.df < 2100
    assert by_sentence.sentence_error > 3 * by_sentence.seed_error


def test_crossed_test_without_spread_has_no_interval() -> None:
    correct, positions = [np.array([True, True, False])] * 5, [np.arange(3)] * 5
    same = crossed_test(correct, correct, positions)
    assert (same.difference, same.p_value, same.low, same.statistic) == (0.0, 1.0, None, None)
    better = crossed_test([np.ones(3, dtype=bool)] * 5, [np.zeros(3, dtype=bool)] * 5, positions)
    assert (better.difference, better.p_value, better.low) == (1.0, 1 / 16, None)
    # Equal means of seeds, and all the spread between sentences.
    mixed = crossed_test(correct, [~values for values in correct], positions)
    assert (mixed.seed_error, mixed.df) == (0.0, 4.0)
    assert mixed.sentence_error > 0


def test_summarize_crossed_returns_mean_over_seeds() -> None:
    correct, _, sentences = Simulation().study(np.random.default_rng(15), n=300, pool=320)
    crossed, alone = summarize_crossed(correct, sentences), summarize([values.mean() for values in correct])
    assert replace(crossed, low=None, high=None) == replace(alone, low=None, high=None)
    one = np.zeros(300, dtype=bool)
    against = crossed_test(correct, [one] * 5, sentences)
    assert (crossed.low, crossed.high) == pytest.approx((against.low, against.high))


def test_results_serialize_to_json() -> None:
    correct, other, sentences = Simulation().study(np.random.default_rng(16), n=30, pool=40)
    paired = paired_test([0.9, 0.8, 0.7], [0.8, 0.8, 0.8])
    crossed = crossed_test(correct, other, sentences)
    found = [summarize(SLEEP_1), mcnemar(correct[0], other[0]), paired, crossed, equivalence_test(crossed, 0.01)]
    for value in [*found, summarize_crossed(correct, sentences)]:
        assert json.loads(json.dumps(dataclasses.asdict(value), allow_nan=False)) == dataclasses.asdict(value)


# Equivalence


def test_equivalence_test_equals_statsmodels() -> None:
    for margin in (0.5, 1.5, 3.0):
        p_value, lower, upper = ttost_paired(np.array(SLEEP_1), np.array(SLEEP_2), -margin, margin)
        found = equivalence_test(paired_test(SLEEP_1, SLEEP_2), margin)
        assert (found.p_value, found.p_no_worse, found.p_no_better) == pytest.approx((p_value, lower[1], upper[1]))
        assert found.equivalent == (p_value < 0.05)
        assert found.no_worse == (lower[1] < 0.05)
        interval = stats.ttest_rel(SLEEP_1, SLEEP_2).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.equivalent == (-margin < found.low and found.high < margin)  # type: ignore[operator]


def test_equivalence_test_uses_error_of_its_test() -> None:
    plain, wide = (paired_test(SLEEP_1, SLEEP_2, test_train_ratio=ratio) for ratio in (None, 20.0))
    assert equivalence_test(plain, 3.0).equivalent
    assert not equivalence_test(wide, 3.0).equivalent


def test_equivalence_test_no_worse_is_one_sided() -> None:
    better = equivalence_test(paired_test(SLEEP_2, SLEEP_1), 0.5)
    assert better.no_worse
    assert not better.equivalent
    assert not equivalence_test(paired_test(SLEEP_1, SLEEP_2), 0.5).no_worse


def test_equivalence_test_without_spread_uses_sign_test() -> None:
    few, many = (equivalence_test(paired_test([0.9] * n, [0.9] * n), 0.01) for n in (4, 5))
    assert (few.p_value, few.equivalent, few.low) == (1 / 16, False, None)
    assert (many.p_value, many.equivalent, many.no_worse) == (1 / 32, True, True)
    above = equivalence_test(paired_test([0.9] * 5, [0.8] * 5), 0.01)
    assert (above.p_no_worse, above.p_no_better, above.equivalent) == (1 / 32, 1.0, False)


@pytest.mark.slow
def test_equivalence_test_holds_level_at_margin() -> None:
    rng = np.random.default_rng(17)
    tests = [paired_test(gap, np.zeros(10)) for gap in rng.normal(0.01, 0.005, (2000, 10))]
    rejected = sum(equivalence_test(test, 0.01).equivalent for test in tests)
    assert at_least(2000, 0.05) <= rejected <= at_most(2000, 0.05)
    turned = [replace(test, difference=-test.difference) for test in tests]
    assert at_least(2000, 0.05) <= sum(equivalence_test(t, 0.01).no_worse for t in turned) <= at_most(2000, 0.05)


# Families


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_equals_statsmodels_and_is_never_smaller(p_values: list[float]) -> None:
    found = holm(p_values)
    assert found == tuple(multipletests(p_values, method="holm")[1])
    assert all(p <= adjusted <= 1 for p, adjusted in zip(p_values, found, strict=True))


def test_holm_published_values() -> None:
    """Holm (1979) by hand: the smallest times 4, the next times 3, ..., never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.01, None, 0.04, None]) == (0.02, None, 0.04, None)


def test_holm_holds_family_level() -> None:
    rng = np.random.default_rng(18)
    heads = rng.normal(0.9, 0.01, (1000, 5, 6))
    families = [holm([paired_test(head, study[0]).p_value for head in study[1:]]) for study in heads]
    assert 0 < sum(min(family) < 0.05 for family in families) <= at_most(1000, 0.05)


# Invalid input

B, W = np.array([True, False, True]), np.arange(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: summarize([]), "values has the shape"),
        (lambda: summarize([[0.9, 0.8]]), "values has the shape"),
        (lambda: summarize(0.9), "values has the shape"),
        (lambda: summarize([0.9, math.nan]), r"values\[1\] is not finite"),
        (lambda: summarize(["high"]), "values must be numbers"),
        (lambda: summarize([None]), "values"),
        (lambda: paired_test([0.9, 0.8], [0.9, 0.8, 0.7]), "first has 2 values and second 3"),
        (lambda: paired_test([0.9], [0.8]), "at least 2"),
        (lambda: paired_test([0.9, 0.8], [math.inf, 0.7]), r"second\[0\] is not finite"),
        (lambda: mcnemar(B, B[:2]), "3 and 2 sentences"),
        (lambda: mcnemar(B[:0], B[:0]), "first_correct is bool of shape"),
        (lambda: mcnemar(B.astype(int), B), "first_correct is int64"),
        (lambda: mcnemar(B, B[None]), "second_correct is bool of shape"),
        (lambda: crossed_test([B], [B], [W]), "first_correct has 1 seeds"),
        (lambda: crossed_test([], [], []), "first_correct has 0 seeds"),
        (lambda: crossed_test([B, B], [B, B, B], [W, W]), "second_correct has 3 seeds, sentences 2"),
        (lambda: crossed_test([B, B], [B, B[:2]], [W, W]), r"second_correct\[1\] has 2 sentences, sentences\[1\] 3"),
        (lambda: crossed_test([B[:1], B], [B[:1], B], [W[:1], W]), "give 2 or more"),
        (lambda: crossed_test([B, B * 0.5], [B, B], [W, W]), r"first_correct\[1\] is float64"),
        (lambda: crossed_test([B, B], [B, B], [W, W * 0]), r"sentences\[1\] must be whole numbers, each once"),
        (lambda: crossed_test([B, B], [B, B], [W, W * 0.5]), r"sentences\[1\] must be whole numbers"),
        (lambda: summarize_crossed([B, B], [W]), "correct has 2 seeds, sentences 1"),
        (lambda: holm([0.1, 1.2]), "between 0 and 1, got 0.1 to 1.2"),
        (lambda: holm([-0.1]), "between 0 and 1"),
        (lambda: holm([math.nan]), "not finite"),
    ],
)
def test_invalid_array_raises_input_error(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


PAIRED = paired_test(SLEEP_1, SLEEP_2)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
@pytest.mark.parametrize(
    "call",
    [
        lambda level: summarize([0.9, 0.8], level=level),
        lambda level: paired_test([0.9, 0.8], [0.8, 0.9], level=level),
        lambda level: crossed_test([B, B], [B, B], [W, W], level=level),
        lambda level: summarize_crossed([B, B], [W, W], level=level),
        lambda level: equivalence_test(PAIRED, 0.1, level=level),
    ],
)
def test_invalid_level_raises_config_error(call: Callable[[float], Any], level: float) -> None:
    with pytest.raises(ConfigError, match="level is .*above 0 and below 1"):
        call(level)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: summarize([0.9, 0.8], method="jackknife"), "method 'jackknife' is unknown; take 't' or 'bootstrap'"),
        *[(lambda m=m: equivalence_test(PAIRED, m), "margin is") for m in (0.0, -0.01, math.nan, math.inf)],
        (lambda: equivalence_test(PAIRED, 0.1, level=0.05), "not above 0.5"),
        *[
            (lambda r=r: paired_test([0, 1], [1, 3], test_train_ratio=r), "test_train_ratio is")
            for r in (0, -1, math.nan)
        ],
    ],
)
def test_invalid_setting_raises_config_error(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()


def test_results_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAIRED.p_value = 0.0  # type: ignore[misc]
    assert isinstance(crossed_test([B, B], [B, ~B], [W, W]), CrossedTest)


# Hold-outs


def holdouts(rng: np.random.Generator, size: int, n_test: int) -> tuple[Any, Any, Any]:
    positions = [np.sort(rng.permutation(size)[:n_test]) for _ in range(6)]
    first, second = ([rng.random(n_test) < share for _ in positions] for share in (0.8, 0.7))
    return first, second, positions


def test_crossed_test_of_holdouts_equals_nadeau_bengio() -> None:
    first, second, positions = holdouts(np.random.default_rng(1), 2000, 100)
    found = crossed_test(first, second, positions, test_train_ratio=1 / 3)
    means = [[part.mean() for part in side] for side in (first, second)]
    expected = paired_test(*means, test_train_ratio=1 / 3)
    assert found.sentence_error**2 == pytest.approx(expected.spread**2 / 3)
    for name in ("difference", "standard_error", "df", "low", "high", "statistic", "p_value"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    mine = summarize_crossed(first, positions, test_train_ratio=1 / 3)
    half = stats.t.ppf(0.975, 5) * np.std(means[0], ddof=1) * math.sqrt(1 / 6 + 1 / 3)
    assert (mine.low, mine.high) == pytest.approx((mine.mean - half, mine.mean + half))


def test_crossed_test_of_holdouts_keeps_larger_covariance_of_sentences() -> None:
    first, second, positions = holdouts(np.random.default_rng(1), 100, 100)
    plain = crossed_test([first[0]] * 3, [second[0]] * 3, positions[:3])
    assert crossed_test([first[0]] * 3, [second[0]] * 3, positions[:3], test_train_ratio=1e-9) == plain


@pytest.mark.parametrize("call", [lambda *a, **k: crossed_test(a[0], *a, **k), summarize_crossed])
def test_ratio_of_holdouts_out_of_range_raises(call: Callable[..., Any]) -> None:
    first, _, positions = holdouts(np.random.default_rng(1), 100, 20)
    with pytest.raises(ConfigError, match="test_train_ratio is 0"):
        call(first, positions, test_train_ratio=0)
