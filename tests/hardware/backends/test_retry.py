"""Tests of retries with backoff until a deadline."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ketfit.errors import BackendTimeoutError, ConfigError, RateLimitError, RequestRejectedError, ServerError
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


class _Clock:
    """A clock that only its own sleep advances; it records the pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def _policy(clock: _Clock, deadline_s: float) -> RetryPolicy:
    return RetryPolicy(deadline_s, initial_pause_s=1, max_pause_s=4, sleep=clock.sleep, clock=lambda: clock.now)


def test_call_doubles_pauses_and_honours_retry_after() -> None:
    clock = _Clock()
    errors = iter([ServerError("1"), RateLimitError("2", retry_after_s=7.0), ServerError("3"), ServerError("4"), None])

    def request() -> str:
        if (error := next(errors)) is not None:
            raise error
        return "answer"

    assert _policy(clock, 60).call(request, "a job") == "answer"
    assert clock.pauses == [1, 7, 4, 4]


def test_call_fails_before_a_pause_beyond_the_deadline() -> None:
    clock = _Clock()

    def request() -> None:
        raise RateLimitError("busy", retry_after_s=9.0)

    with pytest.raises(BackendTimeoutError, match="a job: no answer within 20 s; last error: busy") as caught:
        _policy(clock, 20).call(request, "a job")
    assert clock.pauses == [9, 9] and isinstance(caught.value.__cause__, RateLimitError)


def test_call_does_not_retry_permanent_errors() -> None:
    clock = _Clock()

    def request() -> None:
        raise RequestRejectedError("401")

    with pytest.raises(RequestRejectedError):
        _policy(clock, 60).call(request, "a job")
    assert clock.pauses == []
