"""Integers of any kind are Python's own; everything else is refused."""

from __future__ import annotations

import enum
from fractions import Fraction

import numpy as np
import pytest
import torch

from ketfit.errors import CircuitError, ConfigError
from ketfit.integers import as_integer


class Three(enum.IntEnum):
    VALUE = 3


INTEGERS = [
    3,
    Three.VALUE,
    *(kind(3) for kind in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64)),
    np.array(3),
    *(torch.tensor(3, dtype=dtype) for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)),
]
OTHERS = [
    *(True, np.True_, torch.tensor(True), np.array(True)),
    *(3.0, 0.5, np.float64(3), torch.tensor(3.0), Fraction(3), 3 + 0j, float("nan"), float("inf")),
    *("3", b"3", None, [3], (3,), np.array([3]), torch.tensor([3]), {3}),
]


@pytest.mark.parametrize("value", INTEGERS, ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}")
def test_integer_of_any_kind_becomes_pythons_own(value):
    number = as_integer(value, "qubit")
    assert type(number) is int
    assert number == 3
    assert hash(number) == hash(3)


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_other_value_is_refused_by_name(value):
    with pytest.raises(CircuitError, match=r"^qubit=.*: it must be a whole number of at least 0; give one$"):
        as_integer(value, "qubit", minimum=0, error=CircuitError, hint="give one")


def test_number_below_the_minimum_is_refused():
    with pytest.raises(ConfigError, match=r"^shots=0: it must be a whole number of at least 1$"):
        as_integer(0, "shots", minimum=1)
    assert as_integer(-5, "offset") == -5
