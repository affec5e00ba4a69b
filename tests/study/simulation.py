"""Bounds on counts of simulated tests and intervals, and statsmodels without its collection of garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from scipy import stats


@pytest.fixture(scope="module", autouse=True)
def no_collection() -> Iterator[None]:
    """statsmodels collects garbage for each family of p-values, which takes longer than these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


def at_most(count: int, rate: float) -> int:
    """What a process of this error rate exceeds once in a thousand times."""
    return int(stats.binom.ppf(0.999, count, rate))


def at_least(count: int, rate: float) -> int:
    """What a process of this success rate falls below once in a thousand times."""
    return int(stats.binom.ppf(0.001, count, rate))
