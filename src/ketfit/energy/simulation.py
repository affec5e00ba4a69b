"""Time and energy of simulating a circuit, with a state vector or by contracting a tensor network.

The model is a roofline: a device works for max(bytes / bandwidth, operations / arithmetic) at constant power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ketfit.circuit.circuit import Circuit, Gate, cached_on_circuit
from ketfit.energy.profiles import ProcessorProfile, SourcedValue, StatevectorProfile
from ketfit.energy.qpu import Assumption, energy_from
from ketfit.energy.quantities import Assumed, Modelled, UncertainValue
from ketfit.errors import InputError

DECREASING = frozenset({"bandwidth_gb_s", "tflops", "bandwidth_share", "tflops_share", "link_gb_s", "gates_per_sweep"})
"""Numbers of a profile that lower the energy when they rise."""

UNUSED_VALUES = frozenset({"memory_gb"})


Resource = Literal["memory", "arithmetic", "link"]
SourcedValues = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SimulationCost:
    """Time and energy of one expectation value, the number of devices, and the limiting resource."""

    devices: int
    seconds: UncertainValue
    energy: Modelled | Assumed
    bound: Resource
    assumptions: tuple[Assumption, ...]


def statevector_cost(circuit: Circuit, processor: ProcessorProfile, program: StatevectorProfile) -> SimulationCost:
    """Return the cost of one run of `circuit` by a state-vector simulator, on as many devices as its state needs.

    Reading and writing the state moves 2 * 2**Q * amplitude_bytes in each of gates / gates_per_sweep sweeps; gates take
    2**Q * flops_per_rotation times their `arithmetic_of_gate`. On D > 1 devices the log2(D) topmost qubits are spread
    over them, and in every sweep the share log2(D) / Q of the gates first exchanges half of each device's amplitudes
    over the link. The work is shared evenly and all D devices draw power until the last is done.

    Args:
        circuit: Circuit to run; pass the light cone of the measured qubits.
        processor: Simulating device.
        program: Simulator. Its numbers are taken as they are: for a circuit whose gates are not all real, pass one of
            complex amplitudes.

    Raises:
        InputError: The state does not fit on one device, and the device has no link to others.
    """
    sourced_values = _sourced_values(processor, program)
    gates, rotations = _work(circuit)
    amplitudes = 2.0**circuit.n_qubits
    holds = 1e9 * processor.memory_gb.value / program.amplitude_bytes.value
    devices = max(1, 2 ** math.ceil(math.log2(amplitudes / holds)))
    if devices > 1 and processor.link_gb_s is None:
        raise InputError(
            f"{circuit.n_qubits} qubits take {amplitudes * program.amplitude_bytes.value / 1e9:,.0f} GB and "
            f"{processor.name} holds {processor.memory_gb.value:,.0f}; it has no link to others of its kind"
        )
    distributed = math.log2(devices) / circuit.n_qubits

    def parts(at: SourcedValues) -> dict[str, float]:
        sweeps, local = gates / at["gates_per_sweep"], amplitudes / devices
        local_bytes = local * at["amplitude_bytes"]
        return {
            "memory": sweeps * 2 * local_bytes / (1e9 * at["bandwidth_gb_s"] * at["bandwidth_share"]),
            "arithmetic": rotations * local * at["flops_per_rotation"] / (1e12 * at["tflops"] * at["tflops_share"]),
            "link": sweeps * distributed * 0.5 * local_bytes / (1e9 * at["link_gb_s"]) if devices > 1 else 0.0,
        }

    return _cost(sourced_values, parts, devices)


def arithmetic_of_gate(gate: Gate) -> float:
    """Return the operations on complex amplitudes that a gate takes, in units of a real rotation's 6 for each.

    A row of the matrix with k elements other than zero takes 4k - 2 real operations if they are real, 8k - 2 if not,
    and none if it copies one amplitude; so X, CNOT and SWAP take none.

    >>> arithmetic_of_gate(Gate("ry", (0,), (0.5,))), arithmetic_of_gate(Gate("cx", (0, 1)))
    (1.0, 0.0)
    """
    angles = (0.7 + 0.4 * index for index in range(len(gate.parameters)))  # none makes an element zero or real
    matrix = gate.matrix_at(*angles)
    operations = 0
    for row in matrix:
        elements = [element for element in row if element != 0]
        is_complex = any(element.imag != 0 for element in elements)
        operations += 0 if elements == [1] else (8 if is_complex else 4) * len(elements) - 2
    return operations / (6 * len(matrix))


@cached_on_circuit
def _work(circuit: Circuit) -> tuple[int, float]:
    """Return the number of gates, without global phases, and their arithmetic in rotations."""
    rotations = [arithmetic_of_gate(gate) for gate in circuit.gates if gate.qubits]
    return len(rotations), sum(rotations)


def contraction_cost(
    operations: float, elements_moved: float, processor: ProcessorProfile, element_bytes: int = 8
) -> SimulationCost:
    """Return the cost of one contraction of a real tensor network on one device that holds its largest tensors.

    Args:
        operations: Multiplications, each with an addition, as counted by cotengra for the contraction tree.
        elements_moved: Tensor elements read and written by the same tree.
        processor: Simulating device; its `tflops` are single precision, and numbers of 8 bytes reach half of them.
        element_bytes: Bytes of an element, 4 or 8.
    """
    sourced_values = _sourced_values(processor)

    def parts(at: SourcedValues) -> dict[str, float]:
        rate = 1e12 * at["tflops"] * at["tflops_share"] * 4 / element_bytes
        return {
            "memory": elements_moved * element_bytes / (1e9 * at["bandwidth_gb_s"] * at["bandwidth_share"]),
            "arithmetic": 2 * operations / rate,
            "link": 0.0,
        }

    return _cost({name: sourced for name, sourced in sourced_values.items() if name != "link_gb_s"}, parts, 1)


def _sourced_values(processor: ProcessorProfile, program: StatevectorProfile | None = None) -> dict[str, SourcedValue]:
    return {
        name: sourced
        for profile in (processor, program)
        for name, sourced in profile or ()
        if isinstance(sourced, SourcedValue) and name not in UNUSED_VALUES
    }


def _cost(
    sourced_values: Mapping[str, SourcedValue], parts: Callable[[SourcedValues], dict[str, float]], devices: int
) -> SimulationCost:
    """Return the cost; the ends of its range have every number where it costs least or most."""

    def at(end: str) -> SourcedValues:
        flipped = {"low": "high", "high": "low", "value": "value"}
        return {
            name: getattr(sourced.range, flipped[end] if name in DECREASING else end)
            for name, sourced in sourced_values.items()
        }

    values = {end: at(end) for end in ("value", "low", "high")}
    times = {end: parts(value) for end, value in values.items()}
    # Memory and arithmetic overlap; the link follows, since an exchange cannot start before its data are computed.
    seconds = {end: max(part["memory"], part["arithmetic"]) + part["link"] for end, part in times.items()}
    joules = {end: devices * values[end]["power_watts"] * seconds[end] for end in seconds}
    used = {name: sourced for name, sourced in sourced_values.items() if name != "link_gb_s" or devices > 1}
    energy, assumptions = energy_from(UncertainValue(**joules), used)
    bound = max(get_args(Resource), key=times["value"].__getitem__)
    return SimulationCost(devices, UncertainValue(**seconds), energy, bound, assumptions)
