"""Tests of the backend that injects faults."""

from __future__ import annotations

import pytest

from ketfit.hardware.testing.faulty_backend import Fault


def test_fault_rejects_unknown_kind() -> None:
    from ketfit.errors import ConfigError

    with pytest.raises(ConfigError, match="unknown fault 'flood'"):
        Fault("submit", "flood")
