"""Ranges and energies. An energy knows how it was come by, and kinds do not add up: not for mypy, not at run time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from ketfit.errors import InputError

Kind = Literal["measured", "modelled", "assumed"]


@dataclass(frozen=True, slots=True)
class UncertainValue:
    """A number with the lowest and the highest that it may well be.

    Raises:
        InputError: the three are not in order, or not finite.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.value <= self.high < math.inf:
            raise InputError(
                f"a range goes from low over value to high, all finite, got {self.low}, {self.value}, {self.high}"
            )

    def __add__(self, other: UncertainValue) -> UncertainValue:
        return UncertainValue(self.value + other.value, self.low + other.low, self.high + other.high)

    def map(self, function: Callable[[float], float]) -> UncertainValue:
        """The range of a function that rises with its argument."""
        return UncertainValue(function(self.value), function(self.low), function(self.high))


@dataclass(frozen=True, slots=True)
class Energy(ABC):
    """Joules, of one of the three kinds below. There is none without a kind, and this base cannot be added."""

    joules: UncertainValue

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """How the number was come by."""

    def per(self, count: int) -> UncertainValue:
        """Joules for each of `count` things."""
        return self.joules.map(lambda joules: joules / count)


@final
@dataclass(frozen=True, slots=True)
class Measured(Energy):
    """Read from a counter of the machine that did the work; nothing in it is a model."""

    @property
    def kind(self) -> Literal["measured"]:
        """``measured``."""
        return "measured"

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.joules + other.joules) if isinstance(other, Measured) else NotImplemented


@final
@dataclass(frozen=True, slots=True)
class Modelled(Energy):
    """Worked out by a formula in which every number of the device is published."""

    @property
    def kind(self) -> Literal["modelled"]:
        """``modelled``."""
        return "modelled"

    def __add__(self, other: Modelled) -> Modelled:
        return Modelled(self.joules + other.joules) if isinstance(other, Modelled) else NotImplemented


@final
@dataclass(frozen=True, slots=True)
class Assumed(Energy):
    """Worked out by a formula in which at least one number that matters is an assumption."""

    @property
    def kind(self) -> Literal["assumed"]:
        """``assumed``."""
        return "assumed"

    def __add__(self, other: Assumed) -> Assumed:
        return Assumed(self.joules + other.joules) if isinstance(other, Assumed) else NotImplemented


if TYPE_CHECKING:
    # mypy's strict mode reports an ignore that ignores nothing: the checks fail as soon as one of these is allowed.
    def _never(measured: Measured, modelled: Modelled, assumed: Assumed, energy: Energy) -> tuple[Energy, ...]:
        return (
            measured + modelled,  # type: ignore[operator]
            modelled + measured,  # type: ignore[operator]
            measured + assumed,  # type: ignore[operator]
            assumed + measured,  # type: ignore[operator]
            modelled + assumed,  # type: ignore[operator]
            assumed + modelled,  # type: ignore[operator]
            energy + measured,  # type: ignore[operator]
            energy + energy,  # type: ignore[operator]
        )
