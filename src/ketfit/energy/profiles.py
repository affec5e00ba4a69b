"""Profiles of devices: every number with its source and year, and with a range if it is not published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from ketfit.base_config import Config, Finite, read_toml
from ketfit.energy.quantities import UncertainValue
from ketfit.errors import ConfigError

Name = Annotated[str, Field(min_length=1)]

MAX_VALUE = 1e30
"""Largest value; a positive one is at least 1 / MAX_VALUE, so that everything computed from values is finite."""


class SourcedValue(Config):
    """One number of a device with its source.

    A published number may have a range; an assumed one needs the range in which it is believed to be.
    """

    value: Annotated[Finite, Field(ge=0, le=MAX_VALUE, description="In the unit that its name ends with")]
    low: Annotated[Finite | None, Field(ge=0, le=MAX_VALUE, description="Lowest plausible value; None is value")] = None
    high: Annotated[Finite | None, Field(ge=0, le=MAX_VALUE, description="Highest plausible value; None: value")] = None
    basis: Annotated[Literal["published", "assumed"], Field(description="published if a source gives the value")]
    source: Annotated[Name, Field(description="Publication, or the reason for the assumption")]
    year: Annotated[int, Field(ge=1990, description="Year of the source")]

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
        """The value with its lowest and highest plausible value."""
        return UncertainValue(self.value, *self._ends())

    def _ends(self) -> tuple[float, float]:
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


def _positive(sourced: SourcedValue | None, info: ValidationInfo) -> SourcedValue | None:
    if sourced is not None and sourced.range.low < 1 / MAX_VALUE:
        raise ValueError(
            f"{info.field_name}={sourced.range.low:g} at its lowest: it must be positive, at least {1 / MAX_VALUE:g}"
        )
    return sourced


PositiveSourcedValue = Annotated[SourcedValue, AfterValidator(_positive)]


class DeviceProfile(Config):
    """The fields that all devices have."""

    name: Annotated[Name, Field(description="Name of the device")]
    power_watts: Annotated[PositiveSourcedValue, Field(description="Wall power while it works")]


class QpuProfile(DeviceProfile):
    """A QPU that runs one gate after another."""

    kind: Literal["qpu"]
    qubits: Annotated[int, Field(ge=1, description="Number of qubits")]
    entangler: Annotated[Literal["zz", "ms"], Field(description="Its native two-qubit gate")]
    time_1q_us: Annotated[SourcedValue, Field(description="Duration of one pulse on one qubit")]
    time_2q_us: Annotated[SourcedValue, Field(description="Duration of one native two-qubit gate")]
    readout_us: Annotated[SourcedValue, Field(description="Readout of all qubits, once per shot")]
    reset_us: Annotated[SourcedValue, Field(description="Preparation of all qubits, once per shot")]
    overhead_us: Annotated[SourcedValue, Field(description="Cooling and other work between two shots")]


class ProcessorProfile(DeviceProfile):
    """A GPU or a CPU that simulates."""

    kind: Literal["gpu", "cpu"]
    memory_gb: Annotated[PositiveSourcedValue, Field(description="Memory for the state, in units of 1e9 bytes")]
    bandwidth_gb_s: Annotated[PositiveSourcedValue, Field(description="Peak memory bandwidth")]
    tflops: Annotated[PositiveSourcedValue, Field(description="Peak single-precision arithmetic")]
    bandwidth_share: Annotated[PositiveSourcedValue, Field(description="Share of the bandwidth in practice")]
    tflops_share: Annotated[PositiveSourcedValue, Field(description="Share of the arithmetic in practice")]
    link_gb_s: Annotated[
        PositiveSourcedValue | None,
        Field(description="Bandwidth to others of its kind, one way; none has no link"),
    ] = None


class StatevectorProfile(Config):
    """A simulator that holds all amplitudes."""

    kind: Literal["statevector"]
    name: Annotated[Name, Field(description="Name of the device")]
    amplitude_bytes: Annotated[PositiveSourcedValue, Field(description="Bytes of one amplitude")]
    gates_per_sweep: Annotated[PositiveSourcedValue, Field(description="Gates applied in one pass over the memory")]
    flops_per_rotation: Annotated[PositiveSourcedValue, Field(description="Per amplitude; a CNOT needs none")]


Profile = TypeVar("Profile", bound=Config)
_KINDS: dict[str, type[Config]] = {
    "qpu": QpuProfile,
    "gpu": ProcessorProfile,
    "cpu": ProcessorProfile,
    "statevector": StatevectorProfile,
}
_FOLDER = Path(__file__).with_name("profiles")


def profile_names(kind: str | None = None) -> tuple[str, ...]:
    """Return the names of the bundled profiles, all or those of a kind: qpu, gpu, cpu, statevector.

    >>> profile_names("statevector")
    ('statevector',)
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.toml"))
    return tuple(name for name in names if kind is None or read_bundled(_FOLDER, name, "profile").get("kind") == kind)


def read_bundled(folder: Path, source: str | Path, noun: str) -> dict[str, Any]:
    """Return the tables of a TOML file in a folder of the package by its name, or of any TOML file by its path.

    Args:
        folder: The folder of the package.
        source: Name without the suffix, or path with it.
        noun: What such a file describes, for errors.

    Raises:
        ConfigError: The name is unknown, or the file cannot be read or is not TOML.
    """
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if str(source) in names:
        return read_toml(folder / f"{source}.toml")
    if isinstance(source, str) and not source.endswith(".toml"):
        raise ConfigError(f"unknown {noun} {source!r}; known are {', '.join(names)}, or name a .toml file")
    return read_toml(source)


def load_profile(source: str | Path, profile_type: type[Profile]) -> Profile:
    """Return a bundled profile by name, or one from a TOML file.

    Args:
        source: Name of a bundled profile, or path of a TOML file.
        profile_type: Class that the profile must have.

    Raises:
        ConfigError: The profile is unknown, of another kind, or has an invalid number.
    """
    return read_profile(read_bundled(_FOLDER, source, "profile"), str(source), profile_type)


def read_profile(tables: Mapping[str, Any], where: str, profile_type: type[Profile]) -> Profile:
    """Return a profile from parsed tables.

    Args:
        tables: Content of a profile file.
        where: Name of the tables in errors.
        profile_type: Class that the profile must have.

    Raises:
        ConfigError: The profile is of another kind, or has an invalid number.
    """
    kind = tables.get("kind")
    found = _KINDS.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ConfigError(f"{where}: kind={kind!r}; known are {', '.join(_KINDS)}")
    if not issubclass(found, profile_type):
        raise ConfigError(f"{where} is a profile of kind {kind!r}, which cannot stand here")
    sourced_values = {
        name: SourcedValue.from_mapping(table, where=f"{where}, table {name}")
        for name, table in tables.items()
        if isinstance(table, Mapping)
    }
    return found.from_mapping({**tables, **sourced_values}, where=where)
