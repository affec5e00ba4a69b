"""Devices as data: every number with its source and year, and a range wherever it is not published."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from ketfit.base_config import Config, Finite, read_toml
from ketfit.energy.quantities import UncertainValue
from ketfit.errors import ConfigError

Name = Annotated[str, Field(min_length=1)]

LARGEST = 1e30
"""So large a figure may be, and a positive one no smaller than 1 / LARGEST: all that is computed of them is finite."""


class SourcedValue(Config):
    """One number of a device, and where it is from.

    A published one may stand alone; an assumed one needs the range in which it is believed to be.
    """

    value: Annotated[Finite, Field(ge=0, le=LARGEST, description="In the unit that its name ends with")]
    low: Annotated[Finite | None, Field(ge=0, le=LARGEST, description="Lowest that it may be; none is the value")] = (
        None
    )
    high: Annotated[Finite | None, Field(ge=0, le=LARGEST, description="Highest it may be; none is the value")] = None
    basis: Annotated[Literal["published", "assumed"], Field(description="Whether a source gives the value")]
    source: Annotated[Name, Field(description="Who says so, or why it is believed")]
    year: Annotated[int, Field(ge=1990, description="Of the source")]

    @model_validator(mode="after")
    def _in_order(self) -> SourcedValue:
        if self.basis == "assumed" and (self.low is None or self.high is None):
            raise ValueError(f"value={self.value:g} is assumed; give low and high, between which it is believed to be")
        low, high = self._ends()
        if not low <= self.value <= high:
            raise ValueError(f"low={low:g}, value={self.value:g} and high={high:g} are not in order")
        return self

    @property
    def range(self) -> UncertainValue:
        """The value and both ends."""
        return UncertainValue(self.value, *self._ends())

    def _ends(self) -> tuple[float, float]:
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


def _positive(figure: SourcedValue | None, info: ValidationInfo) -> SourcedValue | None:
    if figure is not None and figure.range.low < 1 / LARGEST:
        raise ValueError(
            f"{info.field_name}={figure.range.low:g} at its lowest: it must be positive, at least {1 / LARGEST:g}"
        )
    return figure


PositiveSourcedValue = Annotated[SourcedValue, AfterValidator(_positive)]


class DeviceProfile(Config):
    """What all devices have."""

    name: Annotated[Name, Field(description="As a person writes it")]
    power_watts: Annotated[PositiveSourcedValue, Field(description="Drawn from the wall while it works")]


class QpuProfile(DeviceProfile):
    """A QPU that runs one gate after another."""

    kind: Literal["qpu"]
    qubits: Annotated[int, Field(ge=1, description="How many it has")]
    entangler: Annotated[Literal["zz", "ms"], Field(description="Its native two-qubit gate")]
    time_1q_us: Annotated[SourcedValue, Field(description="Of one pulse on one qubit")]
    time_2q_us: Annotated[SourcedValue, Field(description="Of one native two-qubit gate")]
    readout_us: Annotated[SourcedValue, Field(description="Reading all qubits, once a shot")]
    reset_us: Annotated[SourcedValue, Field(description="Preparing all qubits, once a shot")]
    overhead_us: Annotated[SourcedValue, Field(description="Cooling and all else between two shots")]


class ProcessorProfile(DeviceProfile):
    """A GPU or a CPU that simulates."""

    kind: Literal["gpu", "cpu"]
    memory_gb: Annotated[PositiveSourcedValue, Field(description="For the state, in units of 1e9 bytes")]
    bandwidth_gb_s: Annotated[PositiveSourcedValue, Field(description="Of its memory, at best")]
    tflops: Annotated[PositiveSourcedValue, Field(description="Single precision, at best")]
    bandwidth_share: Annotated[PositiveSourcedValue, Field(description="Of the bandwidth that a simulator gets")]
    tflops_share: Annotated[PositiveSourcedValue, Field(description="Of the arithmetic that a simulator gets")]
    link_gb_s: Annotated[
        PositiveSourcedValue | None,
        Field(description="Between it and others of its kind, one way; none cannot be joined"),
    ] = None


class StatevectorProfile(Config):
    """What a program that holds all amplitudes does for a gate."""

    kind: Literal["statevector"]
    name: Annotated[Name, Field(description="As a person writes it")]
    amplitude_bytes: Annotated[PositiveSourcedValue, Field(description="Of one amplitude")]
    gates_per_sweep: Annotated[PositiveSourcedValue, Field(description="Gates applied in one pass over the memory")]
    flops_per_rotation: Annotated[PositiveSourcedValue, Field(description="Per amplitude; a CNOT needs none")]


Profile = TypeVar("Profile", bound=Config)
_KINDS: dict[str, type[Config]] = {
    "qpu": QpuProfile,
    "gpu": ProcessorProfile,
    "cpu": ProcessorProfile,
    "statevector": StatevectorProfile,
}
_FOLDER = resources.files("ketfit.energy").joinpath("profiles")


def profile_names(kind: str | None = None) -> tuple[str, ...]:
    """The profiles that come with KetFit, all or those of a kind: qpu, gpu, cpu, statevector."""
    names = sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    return tuple(name for name in names if kind is None or _read(name)[1].get("kind") == kind)


def load_profile(source: str | Path, wanted: type[Profile]) -> Profile:
    """A profile of the class `wanted`: one that comes with KetFit, by name, or a TOML file.

    Raises:
        ConfigError: there is no such profile, it is of another kind, or a number in it does not fit.
    """
    where, tables = _read(source)
    return read_profile(tables, where, wanted)


def read_profile(tables: Mapping[str, Any], where: str, wanted: type[Profile]) -> Profile:
    """A profile of the class `wanted` from parsed tables; `where` is what errors call them.

    Raises:
        ConfigError: it is of another kind, or a number in it does not fit.
    """
    kind = tables.get("kind")
    found = _KINDS.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ConfigError(f"{where}: kind={kind!r}; known are {', '.join(_KINDS)}")
    if not issubclass(found, wanted):
        raise ConfigError(f"{where} is a profile of kind {kind!r}, which cannot stand here")
    figures = {
        name: SourcedValue.from_mapping(table, where=f"{where}, table {name}")
        for name, table in tables.items()
        if isinstance(table, Mapping)
    }
    return found.from_mapping({**tables, **figures}, where=where)


def _read(source: str | Path) -> tuple[str, dict[str, Any]]:
    """How to call it, and its tables."""
    if isinstance(source, str) and not source.endswith(".toml"):
        if source not in profile_names():
            known = ", ".join(profile_names())
            raise ConfigError(f"unknown profile {source!r}; known are {known}, or name a .toml file")
        with resources.as_file(_FOLDER.joinpath(f"{source}.toml")) as path:
            return f"profile {source}", read_toml(path)
    return str(source), read_toml(source)
