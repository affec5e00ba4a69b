"""Scheduling of a circuit for the native kernel: its operations, their order, and the bits that each stage spans."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from ketfit.circuit.circuit import Angle, Circuit

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Operation:
    """A CNOT from `control` (or none) and then a rotation by the sum of `angles`, on the qubit `target`.

    Attributes:
        rotations: Index of each angle's rotation among the rotations of the circuit.
        first_on_qubit: True if no earlier operation acts on the qubit; from |0...0> it prepares a product state.
        fused: True if the kernel applies it together with the next operation.
    """

    target: int
    control: int | None = None
    angles: tuple[Angle, ...] = ()
    rotations: tuple[int, ...] = ()
    first_on_qubit: bool = False
    fused: bool = False

    @property
    def qubits(self) -> frozenset[int]:
        """Return the qubits of the operation."""
        return frozenset({self.target} if self.control is None else {self.target, self.control})


@dataclass(frozen=True, slots=True)
class Stage:
    """Operations that are applied to a chunk while it is in the cache, and its bits of the unit, ascending."""

    positions: tuple[int, ...]
    operations: tuple[Operation, ...]


def merge_gates(circuit: Circuit) -> list[Operation]:
    """Return the gates as operations; a rotation joins the last operation on its qubit, if that is its target."""
    operations: list[Operation] = []
    last: dict[int, int] = {}  # for each qubit the last operation on it

    def add(operation: Operation) -> None:
        last.update(dict.fromkeys(operation.qubits, len(operations)))
        operations.append(operation)

    rotation = count()
    for gate in circuit.gates:
        before = last.get(gate.target)
        if gate.angle is None:
            add(Operation(gate.target, gate.control))
            continue
        own = Operation(gate.target, None, (gate.angle,), (next(rotation),), first_on_qubit=before is None)
        if before is None or operations[before].target != gate.target:
            add(own)
        else:
            operation = operations[before]
            operations[before] = replace(
                operation, angles=operation.angles + own.angles, rotations=operation.rotations + own.rotations
            )
    return operations


def partition_stages(
    operations: Sequence[Operation], n_qubits: int, sample_bits: int, chunk_bits: int, low_bits: int
) -> Iterator[Stage]:
    """Yield stages of at most `chunk_bits` bits; each has the lowest `low_bits`, so that memory access is contiguous.

    A stage takes, in order, every operation that fits its bits and does not depend on a deferred operation.
    """
    if chunk_bits < min(low_bits + 2, n_qubits + sample_bits):
        raise ValueError(f"chunk_bits={chunk_bits} cannot hold a CNOT beside the lowest {low_bits} bits")
    bits = n_qubits + sample_bits
    pending = deque(operations)
    while True:
        chosen = {n_qubits - 1 - bit for bit in range(min(low_bits - sample_bits, n_qubits))}
        blocked: set[int] = set()
        accepted: list[Operation] = []
        deferred: list[Operation] = []
        while pending and len(blocked) < n_qubits:
            operation = pending.popleft()
            fits = len(chosen | operation.qubits) + sample_bits <= chunk_bits
            if fits and not blocked & operation.qubits:
                chosen |= operation.qubits
                accepted.append(operation)
            else:
                blocked |= operation.qubits
                deferred.append(operation)
        pending.extendleft(reversed(deferred))
        positions = {*range(sample_bits), *(sample_bits + n_qubits - 1 - qubit for qubit in chosen)}
        free = (position for position in range(bits) if position not in positions)
        positions.update(islice(free, chunk_bits - len(positions)))
        yield Stage(tuple(sorted(positions)), tuple(accepted))
        if not pending:
            return


def fuse_operations(
    operations: Iterable[Operation], in_lanes: frozenset[int], window: int = 64
) -> tuple[Operation, ...]:
    """Return the operations, reordered so that many consecutive pairs can be fused.

    A pair acts on target y, then on target z with y as its control or without one. Operations that are first on their
    qubit, or act on a qubit `in_lanes`, are not fused.
    """
    pending = deque(operations)
    ordered: list[Operation] = []
    while pending:
        operation = pending.popleft()
        partner = None
        if _fusible(operation, in_lanes):
            blocked: set[int] = set()
            for index, other in enumerate(islice(pending, window)):
                chained = other.control in (None, operation.target) and other.target not in operation.qubits
                if chained and _fusible(other, in_lanes) and not blocked & other.qubits:
                    partner = index
                    break
                blocked |= other.qubits
        if partner is None:
            ordered.append(operation)
        else:
            ordered += [replace(operation, fused=True), pending[partner]]
            del pending[partner]
    return tuple(ordered)


def _fusible(operation: Operation, in_lanes: frozenset[int]) -> bool:
    return not operation.first_on_qubit and not in_lanes & operation.qubits


def to_kernel_arrays(stages: Sequence[Stage], n_qubits: int, sample_bits: int) -> dict[str, IntArray]:
    """Return the stages as the kernel's arrays: operations, offsets of their terms, terms, stages, positions."""
    ops: list[tuple[int, ...]] = []
    terms: list[tuple[int, int]] = []
    offsets, ranges = [0], []
    for stage in stages:
        bit = {n_qubits - 1 - (position - sample_bits): index for index, position in enumerate(stage.positions)}
        ranges.append((len(ops), len(stage.operations)))
        for operation in stage.operations:
            control = -1 if operation.control is None else bit[operation.control]
            ops.append((bit[operation.target], control, operation.fused, operation.first_on_qubit))
            numbers = [angle.index if angle.source == "weight" else ~angle.index for angle in operation.angles]
            terms += zip(numbers, operation.rotations, strict=True)
            offsets.append(len(terms))
    return {
        "operations": np.array(ops, np.int32).reshape(-1, 4),
        "term_offsets": np.array(offsets, np.int32),
        "terms": np.array(terms, np.int32).reshape(-1, 2),
        "stages": np.array(ranges, np.int32),
        "positions": np.array([stage.positions for stage in stages], np.int32),
    }
