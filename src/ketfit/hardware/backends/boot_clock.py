"""A clock for ages that are measured across processes: it counts from the machine's boot and cannot be set."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ketfit.errors import InputError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIME_NAMESPACE = Path("/proc/self/ns/time")

# Linux stops its monotonic clock while the machine is suspended, but the delay of the provider's list goes on.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class BootTime:
    """A time of the boot clock.

    Attributes:
        boot: Unique id of this boot of the machine; None if the system has none.
        seconds: Seconds since the boot, suspension included.
    """

    boot: str | None
    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.boot, (str, type(None))) or not math.isfinite(self.seconds):
            raise InputError(f"boot={self.boot!r}, seconds={self.seconds!r} is no time of the boot clock")

    def since(self, earlier: BootTime) -> float | None:
        """Return the seconds from an earlier time to this one; None if the two cannot be compared.

        An "earlier" time of the same boot that is later than this one comes from a machine restored from a snapshot.
        """
        if self.boot is None or self.boot != earlier.boot or self.seconds < earlier.seconds:
            return None
        return self.seconds - earlier.seconds


def boot_time() -> BootTime:
    """Return the time since the machine was booted."""
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
