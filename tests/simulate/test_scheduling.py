"""Schedules of the native kernel: every gate exactly once, in an order that respects dependencies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketfit.circuit import Angle, Circuit, cx, reuploading_circuit, ry
from ketfit.simulate.scheduling import (
    Operation,
    Stage,
    fuse_operations,
    merge_gates,
    partition_stages,
    to_kernel_arrays,
)
from tests.circuits import random_angles, random_circuit, reference_state

W = [Angle("weight", k) for k in range(5)]
PAPER = reuploading_circuit(10, 2, 2, 3, 2)


@st.composite
def circuits(draw: st.DrawFn, max_gates: int = 60) -> Circuit:
    """Generate a random circuit; a rotation follows half of the CNOTs."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    circuit = random_circuit(draw(st.integers(1, 9)), draw(st.integers(3, max_gates)), rng.randrange(2**32))
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    gates = []
    for gate in circuit.gates:
        gates.append(gate)
        if gate.angle is None and rng.random() < 0.5:
            gates.append(ry(gate.target, rng.choice(angles)))
    return Circuit.from_gates(circuit.n_qubits, gates)


def as_circuit(operations: Iterable[Operation], like: Circuit) -> Circuit:
    """Return the operations as a circuit of gates."""
    gates = []
    for operation in operations:
        gates += [] if operation.control is None else [cx(operation.control, operation.target)]
        gates += [ry(operation.target, angle) for angle in operation.angles]
    return Circuit(like.n_qubits, tuple(gates), like.n_weights, like.n_inputs)


def assert_same_state(mine: Circuit, other: Circuit) -> None:
    weights, inputs = random_angles(other, seed=1)
    states = [reference_state(circuit, weights, inputs) for circuit in (mine, other)]
    np.testing.assert_allclose(*states, rtol=0, atol=1e-12)


def assert_same_order(mine: Sequence[Operation], other: Sequence[Operation], n_qubits: int) -> None:
    """Check that both sequences have the same operations, in the same order on every qubit."""
    bare = [replace(operation, fused=False) for operation in mine]
    assert Counter(bare) == Counter(other)
    for qubit in range(n_qubits):
        assert [s for s in bare if qubit in s.qubits] == [s for s in other if qubit in s.qubits]


def count_fused(operations: Sequence[Operation], in_lanes: frozenset[int]) -> int:
    """Return the number of operations in pairs, and check that each pair is valid."""
    firsts = [k for k, operation in enumerate(operations) if operation.fused]
    for first, second in [(operations[k], operations[k + 1]) for k in firsts]:
        assert not second.fused
        assert not first.first_on_qubit
        assert not second.first_on_qubit
        assert not in_lanes & (first.qubits | second.qubits)
        assert second.control in (None, first.target)
        assert second.target not in first.qubits
    return 2 * len(firsts)


# --- merge_gates --------------------------------------------------------------------------------------------------


A, B = W[:2]
FIRST = Operation(0, None, (A,), (0,), first_on_qubit=True)


@pytest.mark.parametrize(
    ("gates", "operations"),
    [
        ([cx(0, 1), ry(1, A)], [Operation(1, 0, (A,), (0,))]),
        ([cx(0, 1), ry(1, A), ry(1, B)], [Operation(1, 0, (A, B), (0, 1))]),
        ([cx(0, 1), ry(0, A)], [Operation(1, 0), Operation(0, None, (A,), (0,))]),
        ([ry(0, A), ry(0, B)], [Operation(0, None, (A, B), (0, 1), first_on_qubit=True)]),
        (
            [ry(0, A), ry(1, B), ry(0, A)],
            [replace(FIRST, angles=(A, A), rotations=(0, 2)), Operation(1, None, (B,), (1,), first_on_qubit=True)],
        ),
        ([ry(0, A), cx(0, 1), ry(0, B)], [FIRST, Operation(1, 0), Operation(0, None, (B,), (1,))]),
        ([cx(1, 2), cx(0, 1), ry(2, A)], [Operation(2, 1, (A,), (0,)), Operation(1, 0)]),
        ([cx(0, 1), cx(0, 1), ry(1, A)], [Operation(1, 0), Operation(1, 0, (A,), (0,))]),
        ([], []),
    ],
)
def test_merge_gates_joins_rotations_to_last_operation(gates, operations):
    assert merge_gates(Circuit(3, tuple(gates), 5, 0)) == operations


@given(circuits())
@settings(max_examples=60, deadline=None)
def test_merge_gates_keeps_the_unitary(circuit):
    operations = merge_gates(circuit)
    assert_same_state(as_circuit(operations, circuit), circuit)
    rotations = [gate for gate in circuit.gates if gate.angle is not None]
    found = {r: ry(s.target, angle) for s in operations for angle, r in zip(s.angles, s.rotations, strict=True)}
    assert found == dict(enumerate(rotations))
    seen: set[int] = set()
    for operation in operations:
        assert operation.first_on_qubit == (operation.target not in seen and operation.control is None)
        assert not operation.fused
        seen |= operation.qubits


def test_merge_gates_paper_block_is_one_operation():
    operations = merge_gates(PAPER)
    assert [operation.first_on_qubit for operation in operations] == [True] * 10 + [False] * (len(operations) - 10)
    blocks = [operation for operation in operations if operation.control is not None]
    assert len(blocks) == PAPER.gate_counts()["cx"] == 140
    assert all(operation.angles for operation in blocks)


# --- partition_stages ---------------------------------------------------------------------------------------------


@given(circuits(), st.integers(0, 3), st.integers(0, 5), st.integers(2, 6))
@settings(max_examples=150, deadline=None)
def test_partition_stages_has_every_operation_in_valid_order(circuit, sample_bits, more_low_bits, more_bits):
    n, operations = circuit.n_qubits, merge_gates(circuit)
    low_bits = sample_bits + more_low_bits
    bits = n + sample_bits
    chunk_bits = min(low_bits + more_bits, bits)
    stages = list(partition_stages(operations, n, sample_bits, chunk_bits, low_bits))
    assert_same_order([operation for stage in stages for operation in stage.operations], operations, n)
    assert all(stage.operations for stage in stages) or not operations
    assert chunk_bits < bits or len(stages) == 1
    for stage in stages:
        assert len(stage.positions) == chunk_bits
        assert list(stage.positions) == sorted(set(stage.positions))
        assert set(stage.positions) <= set(range(bits))
        assert stage.positions[: min(low_bits, bits)] == tuple(range(min(low_bits, bits)))
        inside = {n - 1 - (position - sample_bits) for position in stage.positions}
        assert all(operation.qubits <= inside for operation in stage.operations)


def test_partition_stages_takes_operations_after_deferred_ones():
    gates = (cx(0, 1), cx(2, 3), ry(6, W[0]), cx(3, 6), ry(6, W[1]), ry(5, W[2]), ry(1, W[3]), ry(2, W[4]))
    operations = merge_gates(Circuit(8, gates, 5, 0))
    stages = list(
        partition_stages(operations, 8, sample_bits=0, chunk_bits=6, low_bits=4)
    )  # qubits 4 to 7 and two others
    of_stages = [[(operation.control, operation.target) for operation in stage.operations] for stage in stages]
    assert of_stages == [[(0, 1), (None, 6), (None, 5)], [(2, 3), (3, 6), (None, 2)]]


def test_partition_stages_without_operations_yields_empty_stage():
    assert list(partition_stages([], 3, 1, 4, 3)) == [Stage((0, 1, 2, 3), ())]


# --- fuse_operations ----------------------------------------------------------------------------------------------


@given(circuits(), st.sets(st.integers(0, 8)), st.integers(1, 64))
@settings(max_examples=150, deadline=None)
def test_fuse_operations_gives_valid_pairs_in_valid_order(circuit, in_lanes, window):
    operations = merge_gates(circuit)
    fused = fuse_operations(operations, frozenset(in_lanes), window)
    assert_same_order(fused, operations, circuit.n_qubits)
    count_fused(fused, frozenset(in_lanes))
    assert not fused or not fused[-1].fused


@pytest.mark.parametrize("circuit", [PAPER, PAPER.light_cone((0,)), PAPER.light_cone((7,))])
def test_fuse_operations_ring_fuses_most_operations(circuit):
    fused = fuse_operations(merge_gates(circuit), frozenset())
    assert count_fused(fused, frozenset()) >= 0.8 * len(fused)


# --- all together -------------------------------------------------------------------------------------------------


@given(circuits(), st.integers(0, 3), st.integers(0, 3), st.integers(2, 9))
@settings(max_examples=80, deadline=None)
def test_to_kernel_arrays_reproduce_the_circuit(circuit, lane_bits, sample_bits, more_bits):
    n, sample_bits = circuit.n_qubits, min(sample_bits, lane_bits)
    operations = merge_gates(circuit)
    chunk_bits = min(lane_bits + 2 + more_bits, n + sample_bits)
    stages = partition_stages(operations, n, sample_bits, chunk_bits, low_bits=lane_bits + 2)
    in_lanes = frozenset(n - 1 - place for place in range(min(n, lane_bits - sample_bits)))
    fused = [Stage(stage.positions, fuse_operations(stage.operations, in_lanes)) for stage in stages]
    ops, offsets, terms, ranges, positions = to_kernel_arrays(fused, n, sample_bits).values()
    assert len(offsets) == len(ops) + 1
    assert [first for first, _ in ranges] == [sum(count for _, count in ranges[:k]) for k in range(len(ranges))]
    read = []
    for stage, (first, count) in enumerate(ranges.tolist()):
        qubits = [n - 1 - (position - sample_bits) for position in positions[stage].tolist()]
        for op in range(first, first + count):
            target, control, is_fused, start = ops[op].tolist()
            of_op = terms[offsets[op] : offsets[op + 1]].tolist()
            angles = tuple(Angle("weight", angle) if angle >= 0 else Angle("input", ~angle) for angle, _ in of_op)
            rotations = tuple(rotation for _, rotation in of_op)
            control = None if control < 0 else qubits[control]
            read.append(Operation(qubits[target], control, angles, rotations, bool(start), bool(is_fused)))
    assert read == [operation for stage in fused for operation in stage.operations]
    assert_same_state(as_circuit(read, circuit), circuit)
