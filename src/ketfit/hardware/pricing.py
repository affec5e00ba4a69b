"""Cost of a run in money, time and energy, from device files with sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ketfit.base_config import Config, Finite
from ketfit.energy.profiles import QpuProfile, load_profile, read_bundled, read_profile
from ketfit.energy.qpu import NativeGates, qpu_cost
from ketfit.energy.quantities import UncertainValue
from ketfit.hardware.backends.base import GateCounts
from ketfit.integers import as_integer

Amount = Annotated[Finite, Field(ge=0, le=1e12)]


class Price(Config):
    """The prices of a provider.

    A circuit of S shots, n1 one-qubit and n2 two-qubit gates costs

    per_circuit + S (per_shot + n1 per_one_qubit_gate_shot + n2 per_two_qubit_gate_shot),

    but at least the `minimum`. `per_circuit_mitigated` replaces `per_circuit` if the provider mitigates errors.
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

    def circuit_price(self, gates: GateCounts, shots: int, mitigated: bool) -> float:
        """Return the price of one circuit."""
        base = self.per_circuit
        if mitigated and self.per_circuit_mitigated is not None:
            base = self.per_circuit_mitigated
        by_gate = gates.one_qubit * self.per_one_qubit_gate_shot + gates.two_qubit * self.per_two_qubit_gate_shot
        return max(self.minimum, base + shots * (self.per_shot + by_gate))


class DeviceCost(Config):
    """The prices of a device, and the profile of its gate times and power; each may be unknown."""

    name: str
    price: Price | None = None
    profile: QpuProfile | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a number of circuits.

    Attributes:
        circuits: Number of circuits.
        shots: Shots of all circuits together.
        one_qubit_gates, two_qubit_gates: Gates of all circuits after transpilation, each circuit counted once.
        price: Price in `currency`; None if no price is known.
        currency: Currency of the price.
        machine_s: Seconds on the machine, gates one after another, without the queue; None if its times are unknown.
        assumptions: The numbers that the cost rests on, with their sources.
        energy_j: Joules of the machine; None if its power is unknown.
        energy_range_j: Lowest and highest plausible energy.
    """

    circuits: int
    shots: int
    one_qubit_gates: int = 0
    two_qubit_gates: int = 0
    price: float | None = None
    currency: str | None = None
    machine_s: float | None = None
    assumptions: tuple[str, ...] = ()
    energy_j: float | None = None
    energy_range_j: tuple[float, float] | None = None


FREE = DeviceCost(
    name="this machine", price=Price(currency="USD", source="computed on this machine, for nothing", year=2025)
)


def load_device(source: str | Path | None) -> DeviceCost:
    """Return the prices and times of a bundled device by name, or from a TOML file; None costs nothing.

    Raises:
        ConfigError: The device is unknown, or the file is invalid.

    >>> load_device("ionq-aria").price.currency
    'USD'

    """
    if source is None:
        return FREE
    return read_device(read_bundled(Path(__file__).with_name("devices"), source, "device"), str(source))


def read_device(tables: dict[str, Any], where: str) -> DeviceCost:
    """Return a device from parsed tables; its `profile` is a table, or the name or the file of one.

    Raises:
        ConfigError: The tables are invalid.
    """
    parts: dict[str, Any] = {}
    if tables.get("price") is not None:
        parts["price"] = Price.from_mapping(tables["price"], where=f"{where}, table price")
    match tables.get("profile"):
        case str(profile):
            parts["profile"] = load_profile(profile, QpuProfile)
        case Mapping() as profile:
            parts["profile"] = read_profile(profile, f"{where}, table profile", QpuProfile)
    return DeviceCost.from_mapping({**tables, **parts}, where=where)


def estimate(gates: Sequence[GateCounts], shots: int, device: DeviceCost, *, mitigated: bool = False) -> Cost:
    """Return the cost of circuits with these gates.

    Args:
        gates: Gates of each circuit, after transpilation.
        shots: Shots per circuit.
        device: Prices and profile.
        mitigated: True if the provider mitigates errors, which may cost more.

    Raises:
        ConfigError: `shots` is not a whole number of at least 1.
    """
    shots = as_integer(shots, "shots", minimum=1)
    price, profile = device.price, device.profile
    if price is not None:
        assumptions = [f"price: {price.source}, {price.year}"]
    else:
        assumptions = [f"price: {device.name} has none here; give --device FILE"]
    seconds = joules = None
    if profile is not None:
        zero = UncertainValue(0.0, 0.0, 0.0)
        parts = [
            qpu_cost(NativeGates(each.one_qubit, each.two_qubit), circuits, shots, profile)
            for each, circuits in Counter(gates).items()
        ]
        seconds = sum((part.seconds for part in parts), zero)
        joules = sum((part.energy.joules for part in parts), zero)
        assumptions.append(f"time and energy: profile of {profile.name}, gates one after another, no queue")
        used = {assumption.name: assumption for part in parts for assumption in part.assumptions}
        assumptions += [
            f"{each.name}: {each.basis} {each.value:,g} ({each.low:,g} to {each.high:,g}); {each.source}"
            for each in used.values()
        ]
    return Cost(
        circuits=len(gates),
        shots=shots * len(gates),
        one_qubit_gates=sum(each.one_qubit for each in gates),
        two_qubit_gates=sum(each.two_qubit for each in gates),
        price=None if price is None else sum(price.circuit_price(each, shots, mitigated) for each in gates),
        currency=None if price is None else price.currency,
        machine_s=None if seconds is None else seconds.value,
        assumptions=tuple(assumptions),
        energy_j=None if joules is None else joules.value,
        energy_range_j=None if joules is None else (joules.low, joules.high),
    )
