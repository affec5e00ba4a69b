"""Memory, exchanged bytes and time of a distributed run, from its schedule."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.lowering import lower
from ketfit.errors import ConfigError
from ketfit.integers import as_integer
from ketfit.simulate.distributed.schedule import make_schedule

PARTS, PARTS_WITH_GRADIENT = 4, 8
"""Memory of a rank in parts of the state: a part before and after a segment, the kernel's two, and their gradients."""

EXCHANGES_OF_GRADIENT, PASSES_OF_GRADIENT = 3, 4
"""Exchanges and passes of a value with its gradients, in those of the value: the adjoint pass moves two states."""

CALIBRATION_QUBITS = 20


@dataclass(frozen=True)
class DistributedCost:
    """Cost of one run of a circuit for one sample in single precision.

    Attributes:
        qubits: Width of the circuit.
        ranks: Number of ranks.
        local_qubits: Qubits of the part of a rank.
        exchanges: Exchanges of qubits in one pass.
        memory_bytes: Memory of a rank.
        exchanged_bytes: Bytes that a rank sends.
        exchange_seconds: Time of the exchanges.
        compute_seconds: Time of the passes over the states.
    """

    qubits: int
    ranks: int
    local_qubits: int
    exchanges: int
    memory_bytes: int
    exchanged_bytes: int
    exchange_seconds: float
    compute_seconds: float

    @property
    def seconds(self) -> float:
        """Time of the run."""
        return self.exchange_seconds + self.compute_seconds


def distributed_cost(
    circuit: Circuit,
    ranks: int,
    bytes_per_second: float,
    seconds_per_amplitude: float,
    *,
    gradient: bool = False,
    measured: tuple[int, ...] = (0,),
) -> DistributedCost:
    """Return the cost of <Z> of some qubits, of one sample from |0...0>.

    Args:
        circuit: Circuit to run.
        ranks: Number of ranks, a power of two.
        bytes_per_second: Rate at which a rank sends, while it receives at the same rate.
        seconds_per_amplitude: Time of one operation on one amplitude of a rank, as `measure_rate` returns it.
        gradient: Include the gradients of weights and inputs.
        measured: Qubits to measure.

    Raises:
        ConfigError: The number of ranks is not a power of two, or too large for the circuit.
        CircuitError: An operation mixes more qubits than a rank holds.
    """
    ranks = as_integer(ranks, "ranks", minimum=1)
    if ranks & (ranks - 1) or ranks >= 2**circuit.n_qubits:
        raise ConfigError(
            f"{ranks} ranks cannot share a state of {circuit.n_qubits} qubits; use a power of two up to "
            f"{2 ** (circuit.n_qubits - 1)}"
        )
    n_global = ranks.bit_length() - 1
    cone = circuit.light_cone(measured)
    schedule = make_schedule(cone, n_global, frozenset(), True)
    part = 8 << (circuit.n_qubits - n_global)
    sent = 8 * schedule.exchanged_amplitudes * (EXCHANGES_OF_GRADIENT if gradient else 1)
    work = len(lower(cone)) * (part // 8) * (PASSES_OF_GRADIENT if gradient else 1)
    return DistributedCost(
        qubits=circuit.n_qubits,
        ranks=ranks,
        local_qubits=circuit.n_qubits - n_global,
        exchanges=sum(bool(segment.swapped) for segment in schedule.segments),
        memory_bytes=part * (PARTS_WITH_GRADIENT if gradient else PARTS),
        exchanged_bytes=sent,
        exchange_seconds=sent / bytes_per_second,
        compute_seconds=work * seconds_per_amplitude,
    )


def measure_rate(circuit: Circuit) -> float:
    """Return the seconds of one operation on one amplitude on this machine, from gates like those of the circuit.

    Its gates run on the first `CALIBRATION_QUBITS` qubits, with all threads of this process, as far as they fit there.
    """
    from ketfit.simulate.complex_statevector import ProgramBatch, simulate
    from ketfit.simulate.lowered_program import program_of

    width = min(circuit.n_qubits, CALIBRATION_QUBITS)
    fitting = [gate for gate in circuit.gates if max(gate.qubits, default=0) < width]
    local = Circuit(width, tuple(fitting), circuit.n_weights, circuit.n_inputs)
    weights, inputs = torch.rand(circuit.n_weights), torch.rand(1, circuit.n_inputs)
    batch = ProgramBatch(program_of(local), weights, inputs)
    operations = max(1, len(lower(local)))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        simulate(batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / (operations * 2.0**width)
