"""Tests of the checks of a result: counts and canary."""

from __future__ import annotations

from typing import Any

import pytest

from ketfit.errors import WrongCountsError
from ketfit.hardware.runs.canary import check_counts


@pytest.mark.parametrize("count", [True, -1, 2.5, "3"])
def test_check_counts_rejects_invalid_count(count: Any) -> None:
    with pytest.raises(WrongCountsError):
        check_counts([{"0": count}], [1], 3)
