"""Time inside the kernel's calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ketfit.simulate import native


class Watch:
    """Seconds spent in calls, and how many."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def kernel_call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call and count."""
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return result


class TimedPlan:
    """A kernel's plan whose passes a watch counts."""

    def __init__(self, plan: Any, watch: Watch) -> None:
        self._plan, self._watch = plan, watch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._plan, name)
        return partial(self._watch.kernel_call, found) if name.startswith(("forward", "backward")) else found


@contextmanager
def watched_kernel() -> Iterator[Watch]:
    """Time the kernel's calls of plans made from here on."""
    watch, real = Watch(), native.make_plan
    native.make_plan = lambda *arguments, **named: TimedPlan(real(*arguments, **named), watch)
    try:
        yield watch
    finally:
        native.make_plan = real
