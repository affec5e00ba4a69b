"""Power of paired tests: statsmodels as oracle, and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from ketfit.errors import ConfigError
from ketfit.study.analysis.hypothesis_tests import paired_test
from ketfit.study.analysis.power import detectable_difference, seeds_needed
from tests.study.simulation import at_least, at_most


@pytest.mark.parametrize(
    ("size", "power", "level"), [(1.0, 0.8, 0.95), (0.5, 0.9, 0.95), (2.0, 0.8, 0.99), (0.1, 0.8, 0.9)]
)
def test_seeds_needed_equals_statsmodels(size: float, power: float, level: float) -> None:
    exact = TTestPower().solve_power(effect_size=size, power=power, alpha=1 - level)
    n = seeds_needed(-size * 0.01, 0.01, power=power, level=level)
    assert n == math.ceil(exact)
    smallest = detectable_difference(n, 0.01, power=power, level=level)
    assert smallest == pytest.approx(0.01 * TTestPower().solve_power(nobs=n, power=power, alpha=1 - level), rel=1e-4)
    assert smallest <= size * 0.01


def test_detectable_difference_counts_both_tails() -> None:
    smallest = detectable_difference(20, 1.0, power=0.06)
    assert TTestPower().power(smallest, 20, 0.05) == pytest.approx(0.06, abs=1e-9)


def test_seeds_needed_published_value() -> None:
    """Cohen (1988) and G*Power: 34 pairs for d_z = 0.5, power 0.8, two-sided 0.05."""
    assert seeds_needed(0.5, 1.0) == 34


@pytest.mark.slow
@given(st.integers(2, 200), st.floats(0.06, 0.9999), st.sampled_from([0.0, 0.002]))
@settings(max_examples=60, deadline=None)
def test_seeds_needed_inverts_detectable(n: int, power: float, sentence_error: float) -> None:
    options: dict[str, Any] = {"power": power, "sentence_error": sentence_error}
    smallest = detectable_difference(n, 0.01, **options)
    assert seeds_needed(smallest * (1 + 1e-6), 0.01, **options) <= n
    assert n == 2 or seeds_needed(smallest * (1 - 1e-6), 0.01, **options) > n - 1


def test_seeds_needed_power_matches_simulation() -> None:
    rng, count = np.random.default_rng(7), 1000
    n = seeds_needed(0.01, 0.008)
    tests = [paired_test(gap, np.zeros(n)) for gap in rng.normal(0.01, 0.008, (count, n))]
    power = TTestPower().power(0.01 / 0.008, n, 0.05)
    assert 0.8 <= power < 0.87
    assert at_least(count, power) <= sum(test.p_value < 0.05 for test in tests) <= at_most(count, power)


def test_seeds_needed_sentence_error_needs_more_seeds() -> None:
    assert seeds_needed(0.01, 0.01, sentence_error=0.002) > seeds_needed(0.01, 0.01)
    assert detectable_difference(10**4, 0.01, sentence_error=0.002) == pytest.approx(2.8016 * 0.002, rel=2e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: seeds_needed(0, 0.01), "the absolute difference is 0"),
        (lambda: seeds_needed(math.nan, 0.01), "the absolute difference is nan"),
        (lambda: seeds_needed(0.01, 0), "spread is 0"),
        (lambda: seeds_needed(0.01, 0.01, power=1), "power is 1"),
        (lambda: seeds_needed(0.01, 0.01, level=0), "level is 0"),
        (lambda: seeds_needed(0.01, 0.01, sentence_error=-1), "sentence_error is -1"),
        (lambda: seeds_needed(0.0001, 0.01), "10,000 seeds do not find 0.0001 with power 0.8"),
        (lambda: detectable_difference(1, 0.01), "n is 1"),
        (lambda: detectable_difference(5, -0.01), "spread is -0.01"),
        (lambda: detectable_difference(5, 0.01, power=0.05), "not above 1 - level"),
        (lambda: detectable_difference(5, 0.01, level=1.5), "level is 1.5"),
    ],
)
def test_invalid_setting_raises_config_error(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
