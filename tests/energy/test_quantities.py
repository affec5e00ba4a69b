"""Tests of values with ranges and of the kinds of energy."""

from __future__ import annotations

import math

import pytest

from ketfit.energy.quantities import Assumed, Measured, Modelled, UncertainValue
from ketfit.errors import InputError


@pytest.mark.parametrize("ends", [(math.inf, 0.0, math.inf), (0.0, -math.inf, 0.0), (math.nan, 0.0, 1.0)])
def test_uncertain_value_rejects_infinite_ends(ends: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="give finite numbers"):
        UncertainValue(*ends)


KINDS = (Measured, Modelled, Assumed)


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_energies_of_different_kinds_do_not_add(one, other):
    left, right = one(UncertainValue(2, 1, 3)), other(UncertainValue(20, 10, 30))
    if one is other:
        assert left + right == one(UncertainValue(22, 11, 33))
    else:
        with pytest.raises(TypeError, match="unsupported operand"):
            left + right


def test_uncertain_value_rejects_wrong_order():
    with pytest.raises(InputError, match="in this order"):
        UncertainValue(1, 2, 3)
