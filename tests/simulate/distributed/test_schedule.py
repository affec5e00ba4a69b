"""Schedules of distributed states: order, local flips, and the amplitudes they exchange."""

from __future__ import annotations

import pytest

from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit
from ketfit.errors import CircuitError
from ketfit.simulate.distributed.exchange import Coordinates
from ketfit.simulate.distributed.schedule import Schedule, make_schedule, on_rank, word_on_rank
from ketfit.simulate.distributed.statevector import circuit_schedule
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import AngleTerms, PauliWord, Rotation
from ketfit.simulate.pauli_scheduling import Group, group_rotations
from tests.circuits_of_any_kind import random_general_circuit


def groups_of(circuit: Circuit) -> list[Group]:
    return group_rotations(program_of(circuit).lowered[0], from_zero=False)


@pytest.mark.parametrize("n_global", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_schedule_runs_every_group_once_in_an_equal_order_on_local_bits(seed: int, n_global: int) -> None:
    n_local = 6 - n_global
    groups = groups_of(random_general_circuit(6, 40, seed))
    schedule = make_schedule(groups, [PauliWord(1, 5)], 6, n_global, from_zero=False)
    coordinates, order = Coordinates(range(6)), []
    numbers = {group.rotations[0].index: number for number, group in enumerate(groups)}
    for segment in schedule.segments:
        if segment.exchange:
            coordinates.apply(segment.exchange)
        for group in segment.groups:
            assert group.x >> n_local == 0
            order.append(number := numbers[group.rotations[0].index])
            rotations = [coordinates.word(rotation.word) for rotation in groups[number].rotations]
            assert [rotation.word for rotation in group.rotations] == rotations
    assert sorted(order) == list(range(len(groups)))
    places = [order.index(number) for number in range(len(groups))]
    for number, later in enumerate(groups):
        for earlier, place in zip(groups[:number], places, strict=False):
            assert later.commutes(earlier) or place < places[number]
    assert schedule.words == (coordinates.word(PauliWord(1, 5)),)
    assert schedule.words[0].x >> n_local == 0


def exchanged(circuit: Circuit, n_global: int, from_zero: bool = True) -> Schedule:
    words = [PauliWord(0, 1 << (circuit.n_qubits - 1 - qubit)) for qubit in range(circuit.n_qubits)]
    return circuit_schedule(circuit, words, n_global, from_zero=from_zero)[0]


def test_schedule_of_gates_that_permute_amplitudes_or_are_diagonal_exchanges_nothing() -> None:
    gates = [Gate("cx", (2, 0)), Gate("rzz", (0, 1), (0.5,)), Gate("swap", (0, 3)), Gate("cp", (0, 1), (0.1,))]
    schedule = exchanged(Circuit(4, gates, 0, 0), 2, from_zero=False)
    assert schedule.exchanged_amplitudes == 0
    assert len(schedule.segments) == 1


def test_schedule_counts_exchanged_amplitudes() -> None:
    rotations = [Gate("rx", qubit, (0.3,)) for qubit in (3, 0, 1)]
    schedule = exchanged(Circuit(4, rotations, 0, 0), 2, from_zero=False)
    # The flips of three qubits are on two bits at a time: the two of the rank come together, for half of the part each.
    assert [len(exchange.masks) for exchange in schedule.exchanges] == [2]
    assert schedule.exchanged_amplitudes == 3


def test_schedule_from_zero_prepares_the_bits_of_the_rank() -> None:
    rotations = [Gate("ry", qubit, (Angle("weight", qubit),)) for qubit in range(4)]
    gates = [*rotations, cx(0, 1), cx(2, 3), Gate("ry", 1, (Angle("weight", 4),)), Gate("ry", 3, (Angle("weight", 5),))]
    schedule = exchanged(Circuit.from_gates(4, gates), 2)
    assert schedule.exchanges == []
    prepared = {rotation.word for group in schedule.before for rotation in group.rotations}
    assert prepared == {PauliWord(1, 1), PauliWord(2, 2)}


def test_schedule_exchanges_less_than_one_gate_at_a_time() -> None:
    circuit, n_global = reuploading_circuit(12, 1, 1, 4, 2), 3
    on_global = sum(gate.target < n_global for gate in circuit.gates)  # each would swap its qubit with a local one
    one_by_one = on_global * 2 ** (12 - n_global) // 2
    assert exchanged(circuit, n_global).exchanged_amplitudes < one_by_one / 3


def test_words_on_a_rank_have_the_sign_of_its_number() -> None:
    assert word_on_rank(PauliWord(0b001, 0b101), 1, 2, 0) == PauliWord(0b01, 0b01, -1)
    assert word_on_rank(PauliWord(0b001, 0b101), 2, 2, 1) == PauliWord(0b010, 0b010, 1)
    group = Group(0b001)
    group.rotations = [Rotation(PauliWord(0b001, 0b101), AngleTerms()), Rotation(PauliWord(0, 0b110), AngleTerms())]
    local = on_rank(group, 1, 2, 1)
    assert (local.x, local.masks) == (0b010, [0b010, 0b100])
    assert [rotation.word.sign for rotation in local.rotations] == [-1, -1]


def test_schedule_of_wide_observables_is_refused() -> None:
    words = [PauliWord(1, 0), PauliWord(2, 0)]
    with pytest.raises(CircuitError, match="X or Y on too many qubits for parts of 1 qubits, one on each of the 4"):
        make_schedule([], words, 3, 2, from_zero=True)
