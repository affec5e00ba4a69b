from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ketfit.circuit import Angle, AngleSum
from ketfit.circuit.angle import affine_form, angles_of, as_angle, linear_combination, substitute
from ketfit.errors import CircuitError

W, X = Angle("weight", 3), Angle("input", 0)


@pytest.mark.parametrize(
    ("built", "terms", "offset"),
    [
        (2 * W + math.pi / 2, ((W, 2.0),), math.pi / 2),
        (W + X, ((X, 1.0), (W, 1.0)), 0.0),
        (1 - W, ((W, -1.0),), 1.0),
        (X - W / 4, ((X, 1.0), (W, -0.25)), 0.0),
        (-(W + 1) * 2, ((W, -2.0),), -2.0),
        (np.float64(0.5) * W, ((W, 0.5),), 0.0),
        (W * torch.tensor(2) + np.int8(1), ((W, 2.0),), 1.0),
        (W + W, ((W, 2.0),), 0.0),
    ],
)
def test_angle_arithmetic_gives_normalized_sum(built, terms, offset):
    assert built == AngleSum(terms, offset)
    assert hash(built) == hash(AngleSum(terms, offset))
    assert affine_form(built) == (terms, offset)
    assert type(built.offset) is float


def test_angle_arithmetic_collapses_to_angle_and_number():
    assert 2 * W - W == W
    assert +W == W
    assert W - W == 0.0
    assert (W + 1) - W == 1.0
    assert 0 * W == 0.0


@pytest.mark.parametrize("other", ["1", None, True, np.True_, 1j, torch.ones(1)])
def test_angle_arithmetic_with_other_types_is_refused(other):
    for build in (lambda: W * other, lambda: W + other, lambda: W / other):
        with pytest.raises((TypeError, CircuitError)):
            build()
    with pytest.raises(CircuitError, match=r"theta=.*: an angle is a weight, an input, a number"):
        as_angle(other, "theta")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan"), 10**400])
def test_angle_with_number_that_is_not_finite_is_refused(number):
    for build in (lambda: as_angle(number, "theta"), lambda: W + number, lambda: W * number):
        with pytest.raises(CircuitError, match="use finite numbers"):
            build()


def test_angle_from_tensor_with_gradient_is_refused():
    with pytest.raises(CircuitError, match="make it a weight or an input"):
        as_angle(torch.tensor(1.0, requires_grad=True), "theta")


def test_division_of_angle_by_zero_raises_as_numbers_do():
    with pytest.raises(ZeroDivisionError):
        W / 0


@pytest.mark.parametrize("terms", [(), ((W, 1.0),), ((W, 0.0), (X, 1.0)), ((W, 1.0), (X, 1.0)), ((X, 1.0), (X, 1.0))])
def test_angle_sum_that_is_not_normalized_is_refused(terms):
    with pytest.raises(CircuitError, match="must be normalized"):
        AngleSum(terms)


def test_substitute_replaces_known_angles():
    expression = 2 * W - X + 1
    assert substitute(expression, {W: 0.5, X: 3.0}) == -1.0
    assert substitute(expression, {W: 0.5}) == 2 - X
    assert substitute(expression, {}) == expression
    assert substitute(0.3, {}) == 0.3
    assert substitute(expression, {X: 1.0}, lambda angle: 10.0) == 20.0
    assert linear_combination((0.5, -1), (W, X)) == W / 2 - X
    assert angles_of(expression) == (X, W)
