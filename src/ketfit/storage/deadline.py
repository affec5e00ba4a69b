"""Calls that end after a number of seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_T = TypeVar("_T")


def call_with_deadline(seconds: float, call: Callable[[], _T], *, abandoned: threading.Event | None = None) -> _T:
    """Return what `call` returns, or raise what it raises, if that takes at most `seconds`.

    The time-out of a socket covers neither a slow name server nor an answer that arrives byte by byte; this one does.

    Args:
        seconds: Seconds until the call must have ended.
        call: Runs in a daemon thread, which cannot be stopped.
        abandoned: Is set as soon as nobody waits for the call any more. A call checks it immediately before a step that
            must not be taken after that.

    Raises:
        TimeoutError: the call takes longer. It goes on in its thread, and its result is discarded.

    >>> call_with_deadline(5.0, lambda: "answer")
    'answer'
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True, name="ketfit-request").start()
        in_time, _ = wait([answer], timeout=seconds)
    finally:  # also after Ctrl-C
        if abandoned is not None:
            abandoned.set()
    if not in_time:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answer.result()
