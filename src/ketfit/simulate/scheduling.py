"""Plan what the native kernel does for a circuit: which operations, in which order, on which bits."""

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
        rotations: For each angle, the number of the rotation of the circuit that it comes from.
        first_on_qubit: No operation before it acts on the qubit, so from |0...0> it is a part of the product state.
        fused: The kernel does it in one pass with the next operation.
    """

    target: int
    control: int | None = None
    angles: tuple[Angle, ...] = ()
    rotations: tuple[int, ...] = ()
    first_on_qubit: bool = False
    fused: bool = False

    @property
    def qubits(self) -> frozenset[int]:
        """Return the qubits that it acts on."""
        return frozenset({self.target} if self.control is None else {self.target, self.control})


@dataclass(frozen=True, slots=True)
class Stage:
    """Operations applied to a chunk while it is in the cache, and the bits of the unit that it spans, ascending."""

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


def cut_stages(
    operations: Sequence[Operation], n_qubits: int, sample_bits: int, chunk_bits: int, low_bits: int
) -> Iterator[Stage]:
    """Yield stages of `chunk_bits` bits at most, with the lowest `low_bits`, so that a chunk consists of long runs.

    A stage takes, in order, every operation that its bits can hold and that no operation left for later has to precede.
    """
    if chunk_bits < min(low_bits + 2, n_qubits + sample_bits):
        raise ValueError(f"chunk_bits={chunk_bits} cannot hold a CNOT beside the lowest {low_bits} bits")
    bits = n_qubits + sample_bits
    pending = deque(operations)
    while True:
        chosen = {n_qubits - 1 - place for place in range(min(low_bits - sample_bits, n_qubits))}
        blocked: set[int] = set()
        taken: list[Operation] = []
        left: list[Operation] = []
        while pending and len(blocked) < n_qubits:
            operation = pending.popleft()
            fits = len(chosen | operation.qubits) + sample_bits <= chunk_bits
            if fits and not blocked & operation.qubits:
                chosen |= operation.qubits
                taken.append(operation)
            else:
                blocked |= operation.qubits
                left.append(operation)
        pending.extendleft(reversed(left))
        positions = {*range(sample_bits), *(sample_bits + n_qubits - 1 - qubit for qubit in chosen)}
        spare = (position for position in range(bits) if position not in positions)
        positions.update(islice(spare, chunk_bits - len(positions)))
        yield Stage(tuple(sorted(positions)), tuple(taken))
        if not pending:
            return


def fuse_operations(
    operations: Iterable[Operation], in_lanes: frozenset[int], window: int = 64
) -> tuple[Operation, ...]:
    """Return the operations in an order in which many pairs fuse: one on y, then one on z that y controls, or none.

    Operations that are first on their qubit, or act on a qubit `in_lanes`, are not fused.
    """
    pending = deque(operations)
    done: list[Operation] = []
    while pending:
        operation = pending.popleft()
        partner = None
        if _fusible(operation, in_lanes):
            blocked: set[int] = set()
            for place, other in enumerate(islice(pending, window)):
                chained = other.control in (None, operation.target) and other.target not in operation.qubits
                if chained and _fusible(other, in_lanes) and not blocked & other.qubits:
                    partner = place
                    break
                blocked |= other.qubits
        if partner is None:
            done.append(operation)
        else:
            done += [replace(operation, fused=True), pending[partner]]
            del pending[partner]
    return tuple(done)


def _fusible(operation: Operation, in_lanes: frozenset[int]) -> bool:
    return not operation.first_on_qubit and not in_lanes & operation.qubits


def tables(stages: Sequence[Stage], n_qubits: int, sample_bits: int) -> tuple[IntArray, ...]:
    """Return the stages as the kernel's arrays: operations, offsets of their terms, terms, stages, positions."""
    ops: list[tuple[int, ...]] = []
    terms: list[tuple[int, int]] = []
    offsets, ranges = [0], []
    for stage in stages:
        bit = {n_qubits - 1 - (position - sample_bits): place for place, position in enumerate(stage.positions)}
        ranges.append((len(ops), len(stage.operations)))
        for operation in stage.operations:
            control = -1 if operation.control is None else bit[operation.control]
            ops.append((bit[operation.target], control, operation.fused, operation.first_on_qubit))
            numbers = [angle.index if angle.source == "weight" else ~angle.index for angle in operation.angles]
            terms += zip(numbers, operation.rotations, strict=True)
            offsets.append(len(terms))
    return (
        np.array(ops, np.int32).reshape(-1, 4),
        np.array(offsets, np.int32),
        np.array(terms, np.int32).reshape(-1, 2),
        np.array(ranges, np.int32),
        np.array([stage.positions for stage in stages], np.int32),
    )
