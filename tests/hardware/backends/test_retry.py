"""Tests of retries with backoff until a deadline."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ketfit.errors import ConfigError
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost
from tests.hardware.example_runs import FAST_RETRY, write_example_plan


@pytest.mark.parametrize("name", ["deadline_s", "initial_pause_s", "max_pause_s"])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_retry_policy_rejects_invalid_seconds(name: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RetryPolicy(**{name: seconds})
    with pytest.raises(ConfigError, match="wait_s"):
        RetryPolicy().wait_until(lambda: False, -abs(seconds))


def test_wait_until_ends_after_seconds(tmp_path: Path) -> None:
    assert FAST_RETRY.wait_until(lambda: False, 0.01) is False
    assert isinstance(write_example_plan(tmp_path).plan.cost, Cost)
