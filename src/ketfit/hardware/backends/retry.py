"""Retries with exponential backoff until a deadline, for calls that buy nothing. Submissions are never retried."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ketfit.errors import BackendTimeoutError, ConfigError, TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Pauses and deadline of retries.

    Attributes:
        deadline_s: Seconds after which a call without an answer fails.
        initial_pause_s: Seconds of the first pause; each further one is twice as long.
        max_pause_s: Seconds of the longest pause.
        sleep: Function that waits for so many seconds.
        clock: Function that returns the seconds of a monotonic clock.

    Raises:
        ConfigError: A number of seconds is negative or not finite, or a pause is 0.
    """

    deadline_s: float = 120.0
    initial_pause_s: float = 0.5
    max_pause_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        for name, minimum in (("deadline_s", 0.0), ("initial_pause_s", 1e-9), ("max_pause_s", 1e-9)):
            value = getattr(self, name)
            if not minimum <= value < math.inf:
                raise ConfigError(f"{name}={value!r}: it must be a finite number of at least {minimum:g}")

    def call(self, function: Callable[[], T], description: str) -> T:
        """Return the result of `function`, called again after each `TransientError` until the deadline.

        Args:
            function: Must have no effect that a second call would repeat.
            description: What is requested, for the error.

        Raises:
            BackendTimeoutError: The deadline passed; the last error is its cause.

        >>> RetryPolicy().call(lambda: 3, "a number")
        3
        """
        end, pause = self.clock() + self.deadline_s, self.initial_pause_s
        while True:
            try:
                return function()
            except TransientError as error:
                retry_after = error.retry_after_s or 0.0
                wait = max(pause, retry_after)
                if self.clock() + wait > end:
                    later = f" in {retry_after:.0f} s" if retry_after else ""
                    raise BackendTimeoutError(
                        f"{description}: no answer within {self.deadline_s:g} s; last error: {error}; nothing is lost, "
                        f"run the command again{later}",
                        error.retry_after_s,
                    ) from error
            self.sleep(wait)
            pause = min(2 * pause, self.max_pause_s)

    def wait_until(
        self, is_done: Callable[[], bool], seconds: float, min_pause: Callable[[], float] = lambda: 0.0
    ) -> bool:
        """Call `is_done` until it returns True or the seconds are over, and return its last result.

        Args:
            is_done: Called at least once.
            seconds: Seconds to wait.
            min_pause: Returns the seconds for which `is_done` must not be called again; if more than are left, the wait
                ends.

        Raises:
            ConfigError: The seconds are negative or no number.
        """
        if not seconds >= 0:
            raise ConfigError(f"wait_s={seconds!r}: it must be a number of seconds of at least 0")
        end, pause = self.clock() + seconds, self.initial_pause_s
        while not is_done():
            left, least = end - self.clock(), min_pause()
            if left <= 0 or least > left:
                return False
            self.sleep(max(min(pause, left), least))
            pause = min(2 * pause, self.max_pause_s)
        return True
