"""Questions that are asked again: with growing pauses, until a deadline. Submissions never come here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ketfit.errors import BackendTimeoutError, ConfigError, RateLimitError, TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long a question is asked again, and how often a job is looked at.

    Attributes:
        deadline_s: Seconds after which a question that got no answer fails.
        first_s: The first pause; each further one is twice as long.
        longest_s: The longest pause.
        sleep: Waits so many seconds.
        clock: Seconds from any start.

    Raises:
        ConfigError: a number of seconds is negative or not finite, or a pause is 0.
    """

    deadline_s: float = 120.0
    first_s: float = 0.5
    longest_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        for name, least in (("deadline_s", 0.0), ("first_s", 1e-9), ("longest_s", 1e-9)):
            if not least <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r}: it must be a finite number of at least {least:g}")

    def ask(self, question: Callable[[], T], what: str) -> T:
        """The answer to a question that changes nothing, however often it is asked.

        Args:
            question: Raises a `TransientError` when it may be asked again.
            what: What is asked, for the error.

        Raises:
            BackendTimeoutError: the deadline passed; the last error is its cause.
        """
        end, pause = self.clock() + self.deadline_s, self.first_s
        while True:
            try:
                return question()
            except TransientError as error:
                wanted = error.retry_after_s if isinstance(error, RateLimitError) else None
                wait = max(pause, wanted or 0.0)
                if self.clock() + wait > end:
                    raise BackendTimeoutError(
                        f"{what}: no answer within {self.deadline_s:g} s; at last: {error}; nothing is lost, ask again"
                    ) from error
            self.sleep(wait)
            pause = min(2 * pause, self.longest_s)

    def wait_until(self, is_done: Callable[[], bool], seconds: float) -> bool:
        """Look again and again, for so many seconds, whether something is done; whether it is.

        Raises:
            ConfigError: the seconds are negative or no number.
        """
        if not seconds >= 0:
            raise ConfigError(f"wait_s={seconds!r}: it must be a number of seconds of at least 0")
        end, pause = self.clock() + seconds, self.first_s
        while not is_done():
            left = end - self.clock()
            if left <= 0:
                return False
            self.sleep(min(pause, left))
            pause = min(2 * pause, self.longest_s)
        return True
