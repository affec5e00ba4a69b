"""Angles of gates: weights, inputs and numbers, and weighted sums of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from ketfit.errors import CircuitError
from ketfit.integers import as_integer

V = TypeVar("V")


class _Arithmetic:
    """Sums, differences, and products and quotients with numbers."""

    __slots__ = ()

    def __add__(self, other: Any) -> AngleExpression:
        return _combine((self, 1.0), (other, 1.0)) if _is_expression(other) else NotImplemented

    def __radd__(self, other: Any) -> AngleExpression:
        return _combine((other, 1.0), (self, 1.0)) if _is_expression(other) else NotImplemented

    def __sub__(self, other: Any) -> AngleExpression:
        return _combine((self, 1.0), (other, -1.0)) if _is_expression(other) else NotImplemented

    def __rsub__(self, other: Any) -> AngleExpression:
        return _combine((other, 1.0), (self, -1.0)) if _is_expression(other) else NotImplemented

    def __mul__(self, factor: Any) -> AngleExpression:
        return _combine((self, _number(factor))) if _is_number(factor) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> AngleExpression:
        if not _is_number(divisor):
            return NotImplemented
        terms, offset = _parts(self)
        return _make({angle: factor / _number(divisor) for angle, factor in terms}, offset / _number(divisor))

    def __neg__(self) -> AngleExpression:
        return _combine((self, -1.0))

    def __pos__(self) -> AngleExpression:
        return _combine((self, 1.0))


@dataclass(frozen=True, slots=True)
class Angle(_Arithmetic):
    """An angle of a gate in radians: entry `index` of the weights or of the inputs.

    Weights are trained and shared by a batch; inputs differ from sample to sample. Angles can be added to each other
    and to numbers, and multiplied by numbers; the results are values of `AngleSum`.

    Raises:
        CircuitError: another source, or an index that is negative or not an integer.

    >>> 2 * Angle("weight", 3) + 0.5
    AngleSum(terms=((Angle(source='weight', index=3), 2.0),), offset=0.5)
    """

    source: Literal["weight", "input"]
    index: int

    def __post_init__(self) -> None:
        if self.source not in ("weight", "input"):
            raise CircuitError(f"an angle comes from 'weight' or 'input', not from {self.source!r}")
        if type(self.index) is not int:
            object.__setattr__(self, "index", as_integer(self.index, "index", error=CircuitError))
        if self.index < 0:
            raise CircuitError(f"the index of an angle starts at 0, got {self.index}")


@dataclass(frozen=True, slots=True)
class AngleSum(_Arithmetic):
    """The sum of factors times weights and inputs, and an offset in radians; the result of arithmetic with `Angle`.

    Sums are normalized: each weight or input occurs once, in order, with a factor other than zero. A sum of one weight
    or input alone is an `Angle`, and a sum without any is a number.

    Attributes:
        terms: Pairs of a weight or input and its factor, inputs first.
        offset: Number that is added, in radians.

    Raises:
        CircuitError: a number is not finite, or the sum is not normalized.
    """

    terms: tuple[tuple[Angle, float], ...]
    offset: float = 0.0

    def __post_init__(self) -> None:
        for number in (self.offset, *(factor for _, factor in self.terms)):
            _number(number)
        keys = [_sort_key(angle) for angle, _ in self.terms]
        trivial = not keys or (len(keys) == 1 and self.terms[0][1] == 1 and self.offset == 0)
        if trivial or keys != sorted(set(keys)) or any(factor == 0 for _, factor in self.terms):
            raise CircuitError("a sum of angles must be normalized; build it from Angle with +, - and *")


AngleExpression = Angle | AngleSum | float
"""What a gate takes as an angle."""


def as_angle(value: Any, name: str) -> AngleExpression:
    """Return a weight, an input, a sum or a real number of any kind as an angle.

    Raises:
        CircuitError: it is something else, or a number that is not finite.
    """
    if isinstance(value, (Angle, AngleSum)):
        return value
    if not _is_number(value):
        raise CircuitError(f"{name}={value!r}: an angle is a weight, an input, a number of radians or a sum of those")
    return _number(value)


def angles_of(expression: AngleExpression) -> tuple[Angle, ...]:
    """Return the weights and inputs that an angle is computed from.

    >>> angles_of(Angle("weight", 1) - 2 * Angle("input", 0))
    (Angle(source='input', index=0), Angle(source='weight', index=1))
    """
    return tuple(angle for angle, _ in _parts(expression)[0])


def affine_form(expression: AngleExpression) -> tuple[tuple[tuple[Angle, float], ...], float]:
    """Return the pairs of a weight or input and its factor, and the offset.

    >>> affine_form(Angle("input", 0))
    (((Angle(source='input', index=0), 1.0),), 0.0)
    """
    return _parts(expression)


def linear_combination(factors: Iterable[float], expressions: Iterable[AngleExpression]) -> AngleExpression:
    """Return the sum of factors times angles.

    >>> linear_combination((1.0, -0.5), (3.0, 4.0))
    1.0
    """
    return _combine(*((expression, factor) for factor, expression in zip(factors, expressions, strict=True)))


@overload
def substitute(expression: AngleExpression, values: Mapping[Angle, float]) -> AngleExpression: ...
@overload
def substitute(
    expression: AngleExpression, values: Mapping[Angle, float], convert: Callable[[Angle], V]
) -> V | Any: ...
def substitute(
    expression: AngleExpression, values: Mapping[Angle, float], convert: Callable[[Angle], Any] | None = None
) -> Any:
    """Return an angle with the numbers of the weights and inputs that `values` holds.

    Args:
        expression: Angle to compute.
        values: Numbers of some weights and inputs, in radians.
        convert: Returns the symbol of another library for a weight or input without a number; None keeps it.

    >>> substitute(2 * Angle("weight", 0) + 1, {Angle("weight", 0): 0.5})
    2.0
    """
    terms, offset = _parts(expression)
    known = [factor * values[angle] for angle, factor in terms if angle in values]
    if len(known) == len(terms) == 1 and offset == 0:
        return known[0]
    constant = offset + math.fsum(known)
    free = {angle: factor for angle, factor in terms if angle not in values}
    if convert is None or not free:
        return _make(free, constant)
    symbols = [convert(angle) if factor == 1 else factor * convert(angle) for angle, factor in free.items()]
    return sum(symbols[1:], symbols[0]) if constant == 0 else sum(symbols[1:], symbols[0]) + constant


def _is_number(value: Any) -> bool:
    # Arrays and tensors of no dimension are numbers; booleans and strings, which float() takes, are not, and arrays of
    # objects add up by themselves.
    if isinstance(value, (bool, str, bytes)) or getattr(value, "ndim", 0) != 0 or isinstance(value, complex):
        return False
    return hasattr(value, "__float__") and not re.search("bool|object", str(getattr(value, "dtype", "")))


def _number(value: Any) -> float:
    if getattr(value, "requires_grad", False):
        raise CircuitError("a number in an angle has no gradient; make it a weight or an input of the circuit")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CircuitError(f"{value!r} is not a real number") from error
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise CircuitError(f"{number} in an angle: use finite numbers")
    return number


def _is_expression(value: Any) -> bool:
    return isinstance(value, (Angle, AngleSum)) or _is_number(value)


def _sort_key(angle: Angle) -> tuple[str, int]:
    return angle.source, angle.index


def _parts(expression: Any) -> tuple[tuple[tuple[Angle, float], ...], float]:
    if isinstance(expression, AngleSum):
        return expression.terms, expression.offset
    if isinstance(expression, Angle):
        return ((expression, 1.0),), 0.0
    return (), _number(expression)


def _combine(*parts: tuple[Any, float]) -> AngleExpression:
    total: dict[Angle, float] = {}
    offset = 0.0
    for expression, scale in parts:
        terms, constant = _parts(expression)
        offset += scale * constant
        for angle, factor in terms:
            total[angle] = total.get(angle, 0.0) + scale * factor
    return _make(total, offset)


def _make(factors: Mapping[Angle, float], offset: float) -> AngleExpression:
    terms = tuple((angle, factor) for angle, factor in factors.items() if factor != 0)
    if not terms:
        return _number(offset)
    if len(terms) == 1 and terms[0][1] == 1 and offset == 0:
        return terms[0][0]
    return AngleSum(tuple(sorted(terms, key=lambda term: _sort_key(term[0]))), offset)
