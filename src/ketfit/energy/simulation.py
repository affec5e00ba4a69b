"""What a circuit costs to simulate: all amplitudes held, or a tensor network contracted; seconds and joules.

A roofline: a device works for max(bytes / bandwidth, operations / arithmetic), and draws its power all the while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ketfit.circuit.circuit import Circuit
from ketfit.energy.profiles import ProcessorProfile, SourcedValue, StatevectorProfile
from ketfit.energy.qpu import Assumption
from ketfit.energy.quantities import Assumed, Modelled, UncertainValue
from ketfit.errors import InputError

LEANER = frozenset({"bandwidth_gb_s", "tflops", "bandwidth_share", "tflops_share", "link_gb_s", "gates_per_sweep"})
"""Figures of which more means less energy."""

UNUSED = frozenset({"memory_gb"})


@dataclass(frozen=True, slots=True)
class SimulationCost:
    """Time and energy of one expectation value, the devices that it takes, and what limits it."""

    devices: int
    seconds: UncertainValue
    energy: Modelled | Assumed
    bound: Literal["memory", "arithmetic", "link"]
    assumptions: tuple[Assumption, ...]


SourcedValues = Mapping[str, float]


def statevector_cost(circuit: Circuit, processor: ProcessorProfile, program: StatevectorProfile) -> SimulationCost:
    """One run of `circuit` by a program that holds its 2**Q amplitudes, on as many devices as hold them.

    Reading and writing the state moves 2 * 2**Q * amplitude_bytes in each of gates / gates_per_sweep sweeps; rotations
    take 2**Q * flops_per_rotation each. On D > 1 devices the log2(D) topmost qubits are spread over them, and in every
    sweep the share log2(D) / Q of the gates first exchanges half of each device's amplitudes over the link. The work is
    shared evenly and all D devices draw power until the last is done.

    Args:
        circuit: What runs; pass the light cone of what is measured.
        processor: The device.
        program: The simulator.

    Raises:
        InputError: the state does not fit on one device, and the device has no link to others.
    """
    figures = _figures(processor, program)
    counts = circuit.gate_counts()
    gates, rotations = sum(counts.values()), counts["ry"]
    amplitudes = 2.0**circuit.n_qubits
    holds = 1e9 * processor.memory_gb.value / program.amplitude_bytes.value
    devices = max(1, 2 ** math.ceil(math.log2(amplitudes / holds)))
    if devices > 1 and processor.link_gb_s is None:
        raise InputError(
            f"{circuit.n_qubits} qubits take {amplitudes * program.amplitude_bytes.value / 1e9:,.0f} GB and "
            f"{processor.name} holds {processor.memory_gb.value:,.0f}; it has no link to others of its kind"
        )
    spread = math.log2(devices) / circuit.n_qubits

    def parts(at: SourcedValues) -> dict[str, float]:
        sweeps, own = gates / at["gates_per_sweep"], amplitudes / devices
        local = own * at["amplitude_bytes"]
        return {
            "memory": sweeps * 2 * local / (1e9 * at["bandwidth_gb_s"] * at["bandwidth_share"]),
            "arithmetic": rotations * own * at["flops_per_rotation"] / (1e12 * at["tflops"] * at["tflops_share"]),
            "link": sweeps * spread * 0.5 * local / (1e9 * at["link_gb_s"]) if devices > 1 else 0.0,
        }

    return _cost(figures, parts, devices)


def contraction_cost(
    operations: float, elements_moved: float, processor: ProcessorProfile, element_bytes: int = 8
) -> SimulationCost:
    """One contraction of a tensor network of real numbers, on one device that holds its largest tensors.

    Args:
        operations: Multiplications, each with an addition: cotengra's count for the very tree that is run.
        elements_moved: Tensor elements read and written, by the same tree.
        processor: The device. Its `tflops` are of single precision; numbers of 8 bytes get half of them.
        element_bytes: 4 or 8.
    """
    figures = _figures(processor)

    def parts(at: SourcedValues) -> dict[str, float]:
        rate = 1e12 * at["tflops"] * at["tflops_share"] * 4 / element_bytes
        return {
            "memory": elements_moved * element_bytes / (1e9 * at["bandwidth_gb_s"] * at["bandwidth_share"]),
            "arithmetic": 2 * operations / rate,
            "link": 0.0,
        }

    return _cost({name: figure for name, figure in figures.items() if name != "link_gb_s"}, parts, 1)


def _figures(processor: ProcessorProfile, program: StatevectorProfile | None = None) -> dict[str, SourcedValue]:
    found = {name: figure for source in (processor, program) for name, figure in source or () if name not in UNUSED}
    return {name: figure for name, figure in found.items() if isinstance(figure, SourcedValue)}


def _cost(
    figures: Mapping[str, SourcedValue], parts: Callable[[SourcedValues], dict[str, float]], devices: int
) -> SimulationCost:
    """Both ends have every figure where it costs least or most; time without the power's own range."""

    def at(end: Literal["value", "low", "high"]) -> SourcedValues:
        flipped = {"low": "high", "high": "low", "value": "value"}
        return {
            name: getattr(figure.range, flipped[end] if name in LEANER else end) for name, figure in figures.items()
        }

    values = {end: at(end) for end in ("value", "low", "high")}
    times = {end: parts(value) for end, value in values.items()}
    shown = times["value"]
    # A device that waits on its link has done its own work meanwhile or before: the longest of memory and arithmetic,
    # and then the link, since an exchange cannot start before what it exchanges is computed.
    seconds = {end: max(part["memory"], part["arithmetic"]) + part["link"] for end, part in times.items()}
    joules = {end: devices * values[end]["power_watts"] * seconds[end] for end in seconds}
    used = {name: figure for name, figure in figures.items() if name != "link_gb_s" or devices > 1}
    published = all(figure.basis == "published" for figure in used.values())
    energy = UncertainValue(joules["value"], joules["low"], joules["high"])
    bound: Literal["memory", "arithmetic", "link"] = max(("memory", "arithmetic", "link"), key=lambda part: shown[part])
    return SimulationCost(
        devices,
        UncertainValue(seconds["value"], seconds["low"], seconds["high"]),
        Modelled(energy) if published else Assumed(energy),
        bound,
        tuple(Assumption.of(name, figure) for name, figure in used.items()),
    )
