"""Values with ranges, and energies by their origin. Energies of different kinds cannot be added (mypy and run time)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from typing_extensions import Self

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


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of one of the three kinds below; `kind` is the origin of the number. The base class cannot be added."""

    kind: ClassVar[Kind]

    joules: UncertainValue

    def per(self, count: int) -> UncertainValue:
        """Return the joules divided by `count`."""
        return UncertainValue(self.joules.value / count, self.joules.low / count, self.joules.high / count)


class _EnergyOfOneKind(Energy):
    """Energy that can be added to energy of the same class."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(self.joules + other.joules) if type(other) is type(self) else NotImplemented


@final
class Measured(_EnergyOfOneKind):
    """Energy read from a counter of the machine that did the work."""

    kind: ClassVar[Literal["measured"]] = "measured"


@final
class Modelled(_EnergyOfOneKind):
    """Energy from a formula in which every number of the device is published."""

    kind: ClassVar[Literal["modelled"]] = "modelled"


@final
class Assumed(_EnergyOfOneKind):
    """Energy from a formula in which at least one number is an assumption."""

    kind: ClassVar[Literal["assumed"]] = "assumed"
