"""A clock for ages that are measured across processes: it counts from the machine's start and cannot be set."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ketfit.errors import InputError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIME_NAMESPACE = Path("/proc/self/ns/time")

# Linux stops its monotonic clock while the machine is suspended; the provider's list of jobs does not wait for that.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class BootTime:
    """A reading of the clock.

    Attributes:
        boot: A name of this start of the machine that no other start has; None if the system tells none.
        seconds: Since then, those of suspension included.
    """

    boot: str | None
    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.boot, (str, type(None))) or not math.isfinite(self.seconds):
            raise InputError(f"boot={self.boot!r}, seconds={self.seconds!r} is no reading of a clock")

    def since(self, earlier: BootTime) -> float | None:
        """Return the seconds from an earlier reading to this one; None if the two cannot be compared.

        A reading of the same boot that is later than this one comes from a machine that was set back to a snapshot.
        """
        if self.boot is None or self.boot != earlier.boot or self.seconds < earlier.seconds:
            return None
        return self.seconds - earlier.seconds


def boot_time() -> BootTime:
    """Return the time since the machine was started."""
    return BootTime(_boot(), time.clock_gettime(_CLOCK))


@cache
def _boot() -> str | None:
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    try:  # a container may have an offset of its own to the same boot's clock
        return f"{boot} {TIME_NAMESPACE.readlink()}"
    except OSError:
        return boot
