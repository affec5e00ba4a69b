"""Memory, exchanged bytes and time of a distributed run, from its schedule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ketfit.circuit.circuit import Circuit
from ketfit.errors import ConfigError
from ketfit.integers import as_integer
from ketfit.simulate import _kernel
from ketfit.simulate.complex_statevector import plan_of_groups
from ketfit.simulate.distributed.schedule import Schedule, on_rank, word_on_rank
from ketfit.simulate.distributed.statevector import circuit_schedule, kernel_layout
from ketfit.simulate.native import kernel_gradients, kernel_threads
from ketfit.simulate.pauli_program import AmplitudeMap, PauliProgram, PauliWord
from ketfit.simulate.pauli_scheduling import Group

EXCHANGES_OF_GRADIENT = 3
"""Exchanges of a value with its gradients, in those of the value: the adjoint pass moves two states."""

CALIBRATION_BITS = 22
"""Binary logarithm of the number of amplitudes on which a schedule is timed."""


@dataclass(frozen=True)
class ComputeTimes:
    """Times of a rank's computations of one sample, in seconds for each of its amplitudes.

    Attributes:
        value: Of a value.
        gradient: Of a value and its gradients.
    """

    value: float
    gradient: float


@dataclass(frozen=True)
class DistributedCost:
    """Cost of one run of a circuit for one sample in single precision.

    Attributes:
        qubits: Width of the circuit.
        ranks: Number of ranks.
        local_qubits: Qubits of the part of a rank.
        exchanges: Exchanges of amplitudes in one pass.
        memory_bytes: Memory of a rank.
        exchanged_bytes: Bytes that a rank sends.
        exchange_seconds: Time of the exchanges.
        compute_seconds: Time of the computations.
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
    times: ComputeTimes,
    *,
    gradient: bool = False,
    measured: tuple[int, ...] = (0,),
) -> DistributedCost:
    """Return the cost of <Z> of some qubits, of one sample from |0...0>.

    Args:
        circuit: Circuit to run.
        ranks: Number of ranks, a power of two.
        bytes_per_second: Rate at which a rank sends, while it receives at the same rate.
        times: Times of the computations, as `measure_times` returns them.
        gradient: Include the gradients of weights and inputs.
        measured: Qubits to measure.

    Raises:
        ConfigError: The number of ranks is not a power of two, or too large for the circuit.
    """
    schedule, _ = _schedule(circuit, ranks, measured)
    amplitude_bytes = 4 if schedule.is_real else 8
    states, passes = (2, EXCHANGES_OF_GRADIENT) if gradient else (1, 1)
    sent = amplitude_bytes * schedule.exchanged_amplitudes * passes
    return DistributedCost(
        qubits=circuit.n_qubits,
        ranks=ranks,
        local_qubits=schedule.n_local,
        exchanges=len(schedule.exchanges),
        memory_bytes=amplitude_bytes * ((states << schedule.n_local) + schedule.buffered_amplitudes),
        exchanged_bytes=sent,
        exchange_seconds=sent / bytes_per_second,
        compute_seconds=(times.gradient if gradient else times.value) * 2**schedule.n_local,
    )


def measure_times(circuit: Circuit, ranks: int, measured: tuple[int, ...] = (0,)) -> ComputeTimes:
    """Return the times of a rank's computations as this machine takes them, with all threads of this process.

    The schedule runs without its exchanges, and on parts of at most 2**`CALIBRATION_BITS` amplitudes, to whose bits its
    rotations are mapped.

    Raises:
        ConfigError: The number of ranks is not a power of two, or too large for the circuit.
    """
    schedule, program = _schedule(circuit, ranks, measured)
    bits = min(schedule.n_local, CALIBRATION_BITS)
    layout = kernel_layout(bits, 4, schedule.is_real)
    plans = []
    for segment in schedule.segments:
        local = [on_rank(group, 0, schedule.n_local, layout.sample_bits) for group in segment.groups]
        groups = [_on_bits(group, layout.bits) for group in local]
        words = schedule.words if segment is schedule.segments[-1] else ()
        observed = [word_on_rank(replace(word, x=0), 0, bits, layout.sample_bits) for word in words]
        counts = (program.n_weights, program.n_inputs, 0)
        plans.append(plan_of_groups(groups, observed, AmplitudeMap.empty(), layout, counts))
    forward, backward = _seconds(plans, program)
    return ComputeTimes(forward / 2**bits, (forward + backward) / 2**bits)


def _seconds(plans: Sequence[Any], program: PauliProgram) -> tuple[float, float]:
    """Return the times of a pass over plans for one sample, and of an adjoint pass, with those of new memory."""
    weights, inputs = torch.rand(program.n_weights), torch.rand(1, program.n_inputs)
    batch = _kernel.CircuitBatch(4, 1, weights.data_ptr(), inputs.data_ptr())
    derivatives = torch.empty_like(weights), torch.empty_like(inputs)
    gradients = kernel_gradients(*derivatives, None)
    values = torch.ones(1, plans[-1].n_words)
    forward, backward = [], []
    for _ in range(5):
        start = time.perf_counter()
        states = torch.empty(plans[0].unit_numbers)
        plans[0].prepare(batch, states.data_ptr(), 0, kernel_threads())
        for plan in plans:
            plan.advance(batch, states.data_ptr(), values.data_ptr() if plan.n_words else 0, kernel_threads())
        middle = time.perf_counter()
        adjoints = torch.empty_like(states)
        for plan in reversed(plans):
            word_grads = values.data_ptr() if plan.n_words else 0
            plan.retreat(batch, states.data_ptr(), adjoints.data_ptr(), word_grads, gradients, kernel_threads())
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
    return statistics.median(forward), statistics.median(backward)


def _on_bits(group: Group, bits: int) -> Group:
    """Return a group with the bits above some left out, or others in place of them if that leaves none."""
    x = _mask_on_bits(group.x, bits)
    product_bit = group.product_bit if group.product_bit is not None and group.product_bit < bits else None
    return group.mapped(x, product_bit, lambda word: PauliWord(x if word.x else 0, word.z & (1 << bits) - 1))


def _mask_on_bits(mask: int, bits: int) -> int:
    low = mask & (1 << bits) - 1
    return low if low or not mask else 1 << mask.bit_length() % bits


def _schedule(circuit: Circuit, ranks: int, measured: tuple[int, ...]) -> tuple[Schedule, PauliProgram]:
    ranks = as_integer(ranks, "ranks", minimum=1)
    if ranks & (ranks - 1) or ranks >= 2**circuit.n_qubits:
        raise ConfigError(
            f"{ranks} ranks cannot share a state of {circuit.n_qubits} qubits; use a power of two up to "
            f"{2 ** (circuit.n_qubits - 1)}"
        )
    words = [PauliWord(0, 1 << (circuit.n_qubits - 1 - qubit)) for qubit in measured]
    return circuit_schedule(circuit, words, ranks.bit_length() - 1, from_zero=True)
