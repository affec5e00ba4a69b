"""Bounds on counts of simulated tests and intervals, and a fixture that turns off garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from scipy import stats


@pytest.fixture(scope="module", autouse=True)
def no_collection() -> Iterator[None]:
    """Turn off garbage collection, which statsmodels calls for each family of p-values and is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


def at_most(count: int, rate: float) -> int:
    """Return the 99.9 % quantile of a count at this rate."""
    return int(stats.binom.ppf(0.999, count, rate))


def at_least(count: int, rate: float) -> int:
    """Return the 0.1 % quantile of a count at this rate."""
    return int(stats.binom.ppf(0.001, count, rate))
