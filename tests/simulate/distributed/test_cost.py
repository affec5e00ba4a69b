"""The cost of distributed runs, from their schedules."""

from __future__ import annotations

import pytest

from ketfit.circuit import Circuit, Gate, reuploading_circuit
from ketfit.errors import ConfigError
from ketfit.simulate.distributed.cost import distributed_cost, measure_rate
from ketfit.simulate.distributed.schedule import make_schedule


def test_distributed_cost_counts_memory_bytes_and_seconds() -> None:
    circuit = Circuit(5, [Gate("h", 0), Gate("cx", (0, 1)), Gate("h", 1), Gate("h", 4)], 0, 0)
    cost = distributed_cost(circuit, 4, 1e3, 1e-3, measured=tuple(range(5)))
    schedule = make_schedule(circuit, 2, frozenset(), True)
    assert (cost.local_qubits, cost.memory_bytes) == (3, 4 * 8 * 2**3)
    assert cost.exchanged_bytes == 8 * schedule.exchanged_amplitudes
    assert cost.exchange_seconds == pytest.approx(cost.exchanged_bytes / 1e3)
    assert cost.compute_seconds == pytest.approx(4 * 8 * 1e-3)
    both = distributed_cost(circuit, 4, 1e3, 1e-3, measured=tuple(range(5)), gradient=True)
    assert (both.memory_bytes, both.exchanged_bytes) == (2 * cost.memory_bytes, 3 * cost.exchanged_bytes)
    assert both.seconds == pytest.approx(3 * cost.exchange_seconds + 4 * cost.compute_seconds)


def test_distributed_cost_of_one_rank_exchanges_nothing() -> None:
    assert distributed_cost(reuploading_circuit(6, 1, 1, 1, 1), 1, 1e9, 1e-9).exchanged_bytes == 0


@pytest.mark.parametrize("ranks", [3, 64, 128])
def test_distributed_cost_of_wrong_ranks_is_refused(ranks: int) -> None:
    with pytest.raises(
        ConfigError, match=f"{ranks} ranks cannot share a state of 6 qubits; use a power of two up to 32"
    ):
        distributed_cost(reuploading_circuit(6, 1, 1, 1, 1), ranks, 1e9, 1e-9)


def test_measure_rate_is_of_this_machine() -> None:
    assert 1e-12 < measure_rate(reuploading_circuit(8, 1, 1, 1, 1)) < 1e-3
