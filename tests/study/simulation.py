"""Bounds on counts of simulated tests and intervals."""

from __future__ import annotations

from scipy import stats


def at_most(count: int, rate: float) -> int:
    """Return the 99.9 % quantile of a count at this rate."""
    return int(stats.binom.ppf(0.999, count, rate))


def at_least(count: int, rate: float) -> int:
    """Return the 0.1 % quantile of a count at this rate."""
    return int(stats.binom.ppf(0.001, count, rate))
