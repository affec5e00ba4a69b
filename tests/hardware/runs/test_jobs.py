"""Tests of the budget of a run."""

from __future__ import annotations

import pytest

from ketfit.errors import CostLimitError
from ketfit.hardware.pricing import Cost
from ketfit.hardware.runs.jobs import Budget, check_budget


def cost(price: float) -> Cost:
    return Cost(circuits=1, shots=1, price=price, currency="USD")


def test_rounding_does_not_exceed_the_limit_on_money() -> None:
    assert 0.1 + 0.2 > 0.3
    check_budget(Budget(money=0.3), cost(0.1), cost(0.2))
    planned, jobs = 8 * 8.3 + 2 * 33.2, [8.3] * 8
    check_budget(Budget(money=planned - 1e-9), cost(33.2 + 33.2), cost(sum(jobs)))


def test_a_hundredth_of_a_cent_exceeds_the_limit_on_money() -> None:
    with pytest.raises(CostLimitError, match="the limit is 0.30"):
        check_budget(Budget(money=0.3), cost(0.1), cost(0.2001))
