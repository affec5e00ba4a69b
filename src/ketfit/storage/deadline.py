"""Calls that end after a number of seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_T = TypeVar("_T")


def call_with_deadline(seconds: float, call: Callable[[], _T]) -> _T:
    """Return what `call` returns, or raise what it raises, if that takes at most `seconds`.

    The time-out of a socket covers neither a slow name server nor an answer that arrives byte by byte; this one does.

    Raises:
        TimeoutError: the call takes longer. It goes on in a daemon thread, and its result is discarded.

    >>> call_with_deadline(5.0, lambda: "answer")
    'answer'
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="ketfit-request").start()
    wait([answer], timeout=seconds)
    if not answer.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answer.result()
