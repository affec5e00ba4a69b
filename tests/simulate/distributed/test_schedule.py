"""Schedules of distributed states: order, layouts, and the amplitudes they exchange."""

from __future__ import annotations

import pytest

from ketfit.circuit import Circuit, Gate, reuploading_circuit
from ketfit.circuit.lowering import ConstantUnitary, lower
from ketfit.errors import CircuitError
from ketfit.simulate.distributed.schedule import make_schedule, mixed_qubits
from tests.circuits_of_any_kind import random_general_circuit


@pytest.mark.parametrize("n_global", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_schedule_runs_every_operation_once_in_an_equal_order(seed: int, n_global: int) -> None:
    circuit = random_general_circuit(6, 40, seed)
    schedule = make_schedule(circuit, n_global, frozenset((0, 5)), seed % 2 == 0)
    ordered = [id(operation) for segment in schedule.segments for operation in segment.operations]
    operations = lower(circuit)
    assert sorted(ordered) == sorted(map(id, operations))
    place = {operation: number for number, operation in enumerate(ordered)}
    for number, later in enumerate(operations):
        for earlier in operations[:number]:
            shared = set(earlier.qubits) & set(later.qubits)
            if shared & {*mixed_qubits(earlier), *mixed_qubits(later)}:
                assert place[id(earlier)] < place[id(later)]


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_schedule_mixes_local_qubits_alone_and_swaps_lead_from_layout_to_layout(seed: int, is_free: bool) -> None:
    circuit, n_global = random_general_circuit(7, 40, seed), 3
    schedule = make_schedule(circuit, n_global, frozenset((1, 2)), is_free)
    layout = list(schedule.segments[0].layout)
    assert is_free or layout == list(range(7))
    for segment in schedule.segments:
        for one, other in segment.swapped:
            assert one < n_global <= other
            layout[one], layout[other] = layout[other], layout[one]
        assert tuple(layout) == segment.layout
        assert all(set(mixed_qubits(each)) <= set(layout[n_global:]) for each in segment.operations)
    assert {1, 2} <= set(layout[n_global:])


def test_schedule_without_mixed_global_qubits_exchanges_nothing() -> None:
    gates = [Gate("cx", (0, 2)), Gate("rzz", (0, 1), (0.5,)), Gate("ccx", (0, 1, 3)), Gate("cp", (0, 1), (0.1,))]
    schedule = make_schedule(Circuit(4, gates, 0, 0), 2, frozenset(), False)
    assert schedule.exchanged_amplitudes == 0
    assert len(schedule.segments) == 1


def test_schedule_counts_exchanged_amplitudes() -> None:
    gates = [Gate("h", 3), Gate("h", 0), Gate("h", 1), Gate("h", 3)]
    schedule = make_schedule(Circuit(4, gates, 0, 0), 2, frozenset(), False)
    # Qubits 0 and 1 come together, for two of the local ones; a rank keeps a quarter of its four amplitudes.
    assert [len(segment.swapped) for segment in schedule.segments] == [0, 2]
    assert schedule.exchanged_amplitudes == 3


def test_schedule_exchanges_less_than_one_gate_at_a_time() -> None:
    circuit, n_global = reuploading_circuit(12, 1, 1, 4, 2), 3
    schedule = make_schedule(circuit, n_global, frozenset(), True)
    on_global = sum(gate.target < n_global for gate in circuit.gates)  # each would swap its qubit with a local one
    one_by_one = on_global * 2 ** (12 - n_global) // 2
    assert schedule.exchanged_amplitudes < one_by_one / 3


def test_mixed_qubits_of_matrices() -> None:
    def mixed(name: str, *qubits: int) -> tuple[int, ...]:
        return mixed_qubits(ConstantUnitary(Gate(name, qubits).matrix_at(), qubits))

    assert mixed("cx", 4, 1) == (1,)
    assert mixed("cz", 4, 1) == ()
    assert mixed("swap", 4, 1) == (4, 1)
    assert mixed("ccx", 0, 1, 2) == (2,)


def test_schedule_of_wide_operations_is_refused() -> None:
    swap = Circuit(3, [Gate("swap", (0, 1))], 0, 0)
    with pytest.raises(CircuitError, match=r"qubits \(0, 1\) mixes 2 qubits, and each of the 4 ranks holds 1"):
        make_schedule(swap, 2, frozenset(), False)
    with pytest.raises(CircuitError, match="X or Y on 2 qubits, and each of the 4 ranks holds 1"):
        make_schedule(Circuit(3, [], 0, 0), 2, frozenset((0, 1)), False)
