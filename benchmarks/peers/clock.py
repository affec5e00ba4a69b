"""Time the steps of KetFit and of the other simulators."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

REALTIME = "KETFIT_BENCHMARK_REALTIME" in os.environ

Result = TypeVar("Result")


def measure(step: Callable[[], Result], repeats: int, limit: float) -> tuple[Result, float, list[float]]:
    """The last result, the seconds of the first step and those of each further one.

    At least one further step runs; none begins `limit` seconds after the first of these.
    """
    start = time.perf_counter()
    result = step()
    first = time.perf_counter() - start
    seconds: list[float] = []
    with priority(REALTIME):
        start = time.perf_counter()
        while not seconds or (len(seconds) < repeats and time.perf_counter() - start < limit):
            begin = time.perf_counter()
            result = step()
            seconds.append(time.perf_counter() - begin)
    return result, first, seconds


@contextlib.contextmanager
def priority(realtime: bool) -> Iterator[None]:
    """At real-time priority inside, on all threads that there are, so that other work on the machine does not count."""
    if realtime:
        set_scheduler(os.SCHED_FIFO, 1)
    yield
    if realtime:
        set_scheduler(os.SCHED_OTHER, 0)


def set_scheduler(policy: int, level: int) -> None:
    """Set the scheduling policy of each thread of this process; threads that end meanwhile are skipped."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task.name), policy, os.sched_param(level))
