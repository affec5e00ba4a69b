"""Values with ranges, and energies by their origin. Energies of different kinds cannot be added (mypy and run time)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from ketfit.errors import InputError

Kind = Literal["measured", "modelled", "assumed"]


@dataclass(frozen=True, slots=True)
class UncertainValue:
    """A number with its lowest and highest plausible value.

    Raises:
        InputError: The three are not in order, or not finite.

    >>> UncertainValue(2, 1, 3) + UncertainValue(1, 1, 1)
    UncertainValue(value=3, low=2, high=4)
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.value <= self.high < math.inf:
            raise InputError(f"low={self.low}, value={self.value}, high={self.high}: give finite numbers in this order")

    def __add__(self, other: UncertainValue) -> UncertainValue:
        return UncertainValue(self.value + other.value, self.low + other.low, self.high + other.high)

    def map(self, function: Callable[[float], float]) -> UncertainValue:
        """Return the value and range of an increasing function of this value."""
        return UncertainValue(function(self.value), function(self.low), function(self.high))


@dataclass(frozen=True, slots=True)
class Energy(ABC):
    """Joules of one of the three kinds below; the base class cannot be added."""

    joules: UncertainValue

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """The origin of the number."""

    def per(self, count: int) -> UncertainValue:
        """Return the joules divided by `count`."""
        return self.joules.map(lambda joules: joules / count)


@final
@dataclass(frozen=True, slots=True)
class Measured(Energy):
    """Energy read from a counter of the machine that did the work."""

    @property
    def kind(self) -> Literal["measured"]:
        """``measured``."""
        return "measured"

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.joules + other.joules) if isinstance(other, Measured) else NotImplemented


@final
@dataclass(frozen=True, slots=True)
class Modelled(Energy):
    """Energy from a formula in which every number of the device is published."""

    @property
    def kind(self) -> Literal["modelled"]:
        """``modelled``."""
        return "modelled"

    def __add__(self, other: Modelled) -> Modelled:
        return Modelled(self.joules + other.joules) if isinstance(other, Modelled) else NotImplemented


@final
@dataclass(frozen=True, slots=True)
class Assumed(Energy):
    """Energy from a formula in which at least one number is an assumption."""

    @property
    def kind(self) -> Literal["assumed"]:
        """``assumed``."""
        return "assumed"

    def __add__(self, other: Assumed) -> Assumed:
        return Assumed(self.joules + other.joules) if isinstance(other, Assumed) else NotImplemented
