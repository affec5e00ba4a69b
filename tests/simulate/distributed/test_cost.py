"""The cost of distributed runs, from their schedules."""

from __future__ import annotations

import pytest

from ketfit.circuit import Circuit, Gate, reuploading_circuit
from ketfit.errors import ConfigError
from ketfit.simulate.distributed.cost import ComputeTimes, distributed_cost, measure_times
from ketfit.simulate.distributed.statevector import circuit_schedule
from ketfit.simulate.pauli_program import PauliWord

TIMES = ComputeTimes(1e-3, 4e-3)


@pytest.mark.parametrize(("name", "amplitude_bytes"), [("ry", 4), ("rx", 8)])
def test_distributed_cost_counts_memory_bytes_and_seconds(name: str, amplitude_bytes: int) -> None:
    gates = [
        Gate(name, 0, (0.1,)),
        Gate("cx", (0, 1)),
        Gate(name, 1, (0.2,)),
        Gate("cx", (1, 0)),
        Gate(name, 0, (0.3,)),
    ]
    circuit = Circuit(3, gates, 0, 0)
    cost = distributed_cost(circuit, 4, 1e3, TIMES, measured=(0, 1, 2))
    schedule, _ = circuit_schedule(circuit, [PauliWord(0, 1 << bit) for bit in range(3)], 2, from_zero=True)
    assert cost.exchanges == len(schedule.exchanges) > 0
    assert (cost.local_qubits, cost.memory_bytes) == (1, amplitude_bytes * (2 + 2))
    assert cost.exchanged_bytes == amplitude_bytes * schedule.exchanged_amplitudes
    assert cost.exchange_seconds == pytest.approx(cost.exchanged_bytes / 1e3)
    assert cost.compute_seconds == pytest.approx(2e-3)
    both = distributed_cost(circuit, 4, 1e3, TIMES, measured=(0, 1, 2), gradient=True)
    assert both.memory_bytes - cost.memory_bytes == amplitude_bytes * 2
    assert both.exchanged_bytes == 3 * cost.exchanged_bytes
    assert both.seconds == pytest.approx(3 * cost.exchange_seconds + 4 * cost.compute_seconds)


def test_distributed_cost_of_one_rank_exchanges_nothing() -> None:
    assert distributed_cost(reuploading_circuit(6, 1, 1, 1, 1), 1, 1e9, TIMES).exchanged_bytes == 0


@pytest.mark.parametrize("ranks", [3, 64, 128])
def test_distributed_cost_of_wrong_ranks_is_refused(ranks: int) -> None:
    with pytest.raises(
        ConfigError, match=f"{ranks} ranks cannot share a state of 6 qubits; use a power of two up to 32"
    ):
        distributed_cost(reuploading_circuit(6, 1, 1, 1, 1), ranks, 1e9, TIMES)


@pytest.mark.parametrize("ranks", [1, 2, 2**20])
def test_measured_times_are_of_this_machine(ranks: int) -> None:
    times = measure_times(
        reuploading_circuit(22, 1, 1, 1, 1) if ranks > 2 else reuploading_circuit(8, 1, 1, 1, 1), ranks
    )
    assert 0 < times.value < times.gradient < 1
