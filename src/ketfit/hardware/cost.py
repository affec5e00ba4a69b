"""What a run will cost in money and time, from files of assumptions with their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ketfit.energy.profiles import QpuProfile, load_profile
from ketfit.energy.qpu import NativeGates, qpu_cost
from ketfit.energy.quantities import Range
from ketfit.errors import ConfigError
from ketfit.hardware.backend import GateCounts
from ketfit.settings import Config, Finite, read_toml

Amount = Annotated[Finite, Field(ge=0)]


class Price(Config):
    """What a provider charges. A circuit of S shots, n1 one-qubit and n2 two-qubit gates costs

    per_circuit + S (per_shot + n1 per_one_qubit_gate_shot + n2 per_two_qubit_gate_shot),

    but never less than the `minimum`. `per_circuit_mitigated` takes the place of `per_circuit` where the provider
    mitigates errors.
    """

    currency: str
    per_circuit: Amount = 0.0
    per_circuit_mitigated: Amount | None = None
    per_shot: Amount = 0.0
    per_one_qubit_gate_shot: Amount = 0.0
    per_two_qubit_gate_shot: Amount = 0.0
    minimum: Amount = 0.0
    source: str
    year: int

    def of(self, gates: GateCounts, shots: int, mitigated: bool) -> float:
        """What one circuit costs."""
        base = self.per_circuit
        if mitigated and self.per_circuit_mitigated is not None:
            base = self.per_circuit_mitigated
        by_gate = gates.one_qubit * self.per_one_qubit_gate_shot + gates.two_qubit * self.per_two_qubit_gate_shot
        return max(self.minimum, base + shots * (self.per_shot + by_gate))


class GateTimes(Config):
    """Microseconds of each step of a shot; gates run one after another, as on a chain of ions."""

    one_qubit_us: Amount
    two_qubit_us: Amount
    readout_us: Amount
    reset_us: Amount = 0.0
    source: str
    year: int

    def of(self, gates: GateCounts, shots: int) -> float:
        """Seconds on the machine for one circuit, without the queue."""
        shot = gates.one_qubit * self.one_qubit_us + gates.two_qubit * self.two_qubit_us
        return shots * (shot + self.readout_us + self.reset_us) / 1e6


class DeviceCost(Config):
    """A device's prices and times, and its profile of energy by the name of one or as a file; each may be unknown."""

    name: str
    energy: str | None = None
    price: Price | None = None
    times: GateTimes | None = None


@dataclass(frozen=True)
class Cost:
    """What a number of circuits takes.

    Attributes:
        circuits, shots: How many, shots over all circuits.
        one_qubit_gates, two_qubit_gates: Over all circuits, after transpilation, once for each circuit.
        price: In `currency`; None if no price is known.
        currency: Of the price.
        machine_s: Seconds on the machine, without the queue; None if the times are unknown.
        assumptions: Where the figures come from.
        energy_j: Joules of the machine: as assumed, at the least, at the most; None if its power is unknown.
    """

    circuits: int
    shots: int
    one_qubit_gates: int
    two_qubit_gates: int
    price: float | None
    currency: str | None
    machine_s: float | None
    assumptions: tuple[str, ...]
    energy_j: tuple[float, float, float] | None = None


FREE = DeviceCost(
    name="this machine", price=Price(currency="USD", source="computed on this machine, for nothing", year=2025)
)


def load_device(source: str | Path | None) -> DeviceCost:
    """Prices and times by the name of a bundled file or from a TOML file; None is a machine that costs nothing.

    Raises:
        ConfigError: there is no such device, or the file does not fit.
    """
    if source is None:
        return FREE
    bundled = files("ketfit.hardware") / "devices"
    names = sorted(entry.name.removesuffix(".toml") for entry in bundled.iterdir() if entry.name.endswith(".toml"))
    if str(source) in names:
        path = Path(str(bundled / f"{source}.toml"))
    elif Path(source).suffix == ".toml":
        path = Path(source)
    else:
        raise ConfigError(f"unknown device {str(source)!r}; known are {', '.join(names)}, or name a .toml file")
    return read_device(read_toml(path), str(path))


def read_device(tables: dict[str, Any], where: str) -> DeviceCost:
    """A device's costs from parsed tables.

    Raises:
        ConfigError: they do not fit.
    """
    nested: dict[str, type[Config]] = {"price": Price, "times": GateTimes}
    parts: dict[str, Any] = {
        name: kind.from_mapping(tables[name], where=f"{where}, table {name}")
        for name, kind in nested.items()
        if tables.get(name) is not None
    }
    return DeviceCost.from_mapping({**tables, **parts}, where=where)


def estimate(gates: Sequence[GateCounts], shots: int, device: DeviceCost, *, mitigated: bool = False) -> Cost:
    """What circuits with these gates cost, `shots` shots each.

    Args:
        gates: Of each circuit, after transpilation.
        shots: Of each circuit.
        device: Prices and times.
        mitigated: Whether the provider mitigates errors, which it may charge for.
    """
    price, times = device.price, device.times
    assumptions = []
    if price is not None:
        assumptions.append(f"price: {price.source}, {price.year}")
    else:
        assumptions.append(f"price: {device.name} has none here; give --device FILE")
    if times is not None:
        assumptions.append(f"times: gates one after another, no queue; {times.source}, {times.year}")
    joules = None
    if device.energy is not None:
        joules, basis = _energy(gates, shots, load_profile(device.energy, QpuProfile))
        assumptions.append(basis)
    return Cost(
        circuits=len(gates),
        shots=shots * len(gates),
        one_qubit_gates=sum(each.one_qubit for each in gates),
        two_qubit_gates=sum(each.two_qubit for each in gates),
        price=None if price is None else sum(price.of(each, shots, mitigated) for each in gates),
        currency=None if price is None else price.currency,
        machine_s=None if times is None else sum(times.of(each, shots) for each in gates),
        assumptions=tuple(assumptions),
        energy_j=None if joules is None else (joules.value, joules.low, joules.high),
    )


def _energy(gates: Sequence[GateCounts], shots: int, profile: QpuProfile) -> tuple[Range, str]:
    """Joules of the circuits, and what they rest on."""
    parts = [
        qpu_cost(NativeGates(each.one_qubit, each.two_qubit), circuits, shots, profile)
        for each, circuits in Counter(gates).items()
    ]
    joules = sum((part.energy.joules for part in parts), Range(0.0, 0.0, 0.0))
    power = profile.power_watts
    low, high = power.range.low, power.range.high
    basis = (
        f"energy: {power.basis} {power.range.value:,.0f} W ({low:,.0f} to {high:,.0f}); {power.source}, {power.year}"
    )
    return joules, basis
