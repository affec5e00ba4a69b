"""Tests of the boot clock."""

from __future__ import annotations

from ketfit.hardware.backends.boot_clock import BootTime, boot_time


def test_boot_time_has_boot_id_and_increases() -> None:
    first, second = boot_time(), boot_time()
    age = second.since(first)
    assert age is not None and 0 <= age < 5
    assert first.since(second) in (None, 0.0)
    assert BootTime("another", second.seconds).since(first) is None
    assert BootTime(None, second.seconds).since(BootTime(None, 0.0)) is None
