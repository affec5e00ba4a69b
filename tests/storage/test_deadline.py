"""Calls with a deadline."""

from __future__ import annotations

import threading

import pytest

from ketfit.storage import deadline
from ketfit.storage.deadline import call_with_deadline


def test_call_with_deadline_fast_call_returns_its_result() -> None:
    assert call_with_deadline(5.0, lambda: 3) == 3


def test_call_with_deadline_failing_call_raises_its_error() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        call_with_deadline(5.0, fail)


def test_call_with_deadline_slow_call_raises_timeout_error() -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        call_with_deadline(0.05, release.wait)
    release.set()


def test_call_with_deadline_sets_abandoned_once_nobody_waits() -> None:
    abandoned, ends = threading.Event(), threading.Event()
    seen: list[bool] = []

    def look() -> None:
        seen.append(abandoned.is_set())
        abandoned.wait(10)
        seen.append(abandoned.is_set())
        ends.set()

    with pytest.raises(TimeoutError):
        call_with_deadline(0.05, look, abandoned=abandoned)
    assert ends.wait(10) and seen == [False, True]


def test_call_with_deadline_sets_abandoned_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deadline, "wait", interrupted)
    abandoned = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        call_with_deadline(5.0, lambda: None, abandoned=abandoned)
    assert abandoned.is_set()
