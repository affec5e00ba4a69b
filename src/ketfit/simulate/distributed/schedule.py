"""Schedules of distributed state vectors: which gates run between two exchanges of qubits.

The 2**k ranks hold parts of the state: k qubits are global, and their bits are those of the rank's number. A rank can
apply a gate to its part alone if the gate is diagonal on the global qubits it acts on; it then knows their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import block_diagonal
from ketfit.circuit.lowering import ConstantUnitary, LoweredOperation, lower
from ketfit.errors import CircuitError


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations that run without communication.

    Attributes:
        operations: They, in an order that gives the same state as that of the circuit.
        layout: Qubit at each position. The first positions are global, the most significant bit of the rank first; the
            others are local, the most significant bit of the index first.
        swapped: Pairs of a global and a local position that are exchanged before the segment.
    """

    operations: tuple[LoweredOperation, ...]
    layout: tuple[int, ...]
    swapped: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Segments in the order they run, for 2**n_global ranks."""

    segments: tuple[Segment, ...]
    n_global: int

    @property
    def exchanged_amplitudes(self) -> int:
        """Amplitudes that each rank sends for one sample in one pass over the circuit.

        With m pairs of qubits swapped at once, a rank keeps the share 2**-m of its part.
        """
        local = 2 ** (len(self.segments[0].layout) - self.n_global)
        return sum(local - (local >> len(segment.swapped)) for segment in self.segments)


def mixed_qubits(operation: LoweredOperation) -> tuple[int, ...]:
    """Return the qubits on which an operation is not diagonal, which have to be local.

    >>> from ketfit.circuit.lowering import PauliRotation
    >>> mixed_qubits(PauliRotation("ZX", (0, 3), 0.5))
    (3,)
    """
    if isinstance(operation, ConstantUnitary):
        kept = block_diagonal(operation.matrix)
        return tuple(qubit for qubit, diagonal in zip(operation.qubits, kept, strict=True) if not diagonal)
    return tuple(qubit for qubit, letter in zip(operation.qubits, operation.word, strict=True) if letter != "Z")


@cached_on_circuit
def make_schedule(circuit: Circuit, n_global: int, last_local: frozenset[int], is_free: bool) -> Schedule:
    """Return a schedule with few exchanges.

    Each segment takes all operations that commute with those left before them and need no exchange; then the local
    qubits become those whose next use is soonest, all in one exchange.

    Args:
        circuit: Circuit to run.
        n_global: Binary logarithm of the number of ranks.
        last_local: Qubits that have to be local at the end.
        is_free: True if any layout may come first, as for |0...0>; else the first qubits are global.

    Raises:
        CircuitError: An operation mixes more qubits than are local.
    """
    pending = [
        (operation, frozenset(operation.qubits), frozenset(mixed_qubits(operation))) for operation in lower(circuit)
    ]
    n_local = circuit.n_qubits - n_global
    for operation, _, mixed in pending:
        if len(mixed) > n_local:
            raise CircuitError(
                f"an operation on qubits {operation.qubits} mixes {len(mixed)} qubits, and each of the {2**n_global} "
                f"ranks holds {n_local}; run it with fewer ranks"
            )
    if len(last_local) > n_local:
        raise CircuitError(
            f"the observables have X or Y on {len(last_local)} qubits, and each of the {2**n_global} ranks holds "
            f"{n_local}; run it with fewer ranks, or measure them one by one"
        )
    layout = list(range(circuit.n_qubits))
    if is_free:
        layout = _with_local(layout, n_global, _soonest([mixed for *_, mixed in pending], last_local, layout, n_global))
    segments: list[Segment] = []
    swapped: list[tuple[int, int]] = []
    while True:
        taken, pending = _runnable(pending, frozenset(layout[n_global:]))
        if taken or swapped or not pending or not segments:
            segments.append(Segment(tuple(taken), tuple(layout), tuple(swapped)))
        if not pending and last_local <= set(layout[n_global:]):
            return Schedule(tuple(segments), n_global)
        before = layout
        layout = _with_local(layout, n_global, _soonest([mixed for *_, mixed in pending], last_local, layout, n_global))
        swapped = [
            (position, layout.index(qubit))
            for position, qubit in enumerate(before[:n_global])
            if layout[position] != qubit
        ]


_Pending = tuple[LoweredOperation, frozenset[int], frozenset[int]]


def _runnable(pending: Sequence[_Pending], local: frozenset[int]) -> tuple[list[LoweredOperation], list[_Pending]]:
    """Return the operations that can run now, and the others."""
    taken: list[LoweredOperation] = []
    left: list[_Pending] = []
    blocked: set[int] = set()  # qubits of operations that are left
    mixed_by_left: set[int] = set()
    for entry in pending:
        operation, qubits, mixed = entry
        # Two operations commute if both are diagonal on each of the qubits they share.
        if mixed <= local and mixed_by_left.isdisjoint(qubits) and blocked.isdisjoint(mixed):
            taken.append(operation)
        else:
            left.append(entry)
            blocked |= qubits
            mixed_by_left |= mixed
    return taken, left


def _soonest(
    mixed: Sequence[frozenset[int]], last_local: frozenset[int], layout: Sequence[int], n_global: int
) -> set[int]:
    """Return as many qubits as are local: those that are mixed soonest, and else those that are local now."""
    next_use = dict.fromkeys(layout, math.inf)
    for time, qubits in reversed(list(enumerate((*mixed, last_local)))):
        next_use.update(dict.fromkeys(qubits, time))
    position = {qubit: place for place, qubit in enumerate(layout)}
    return set(sorted(layout, key=lambda qubit: (next_use[qubit], -position[qubit]))[: len(layout) - n_global])


def _with_local(layout: Sequence[int], n_global: int, local: set[int]) -> list[int]:
    """Return the layout in which each qubit that becomes local changes place with one that becomes global."""
    result = list(layout)
    coming = [place for place in range(n_global) if layout[place] in local]
    going = [place for place in range(n_global, len(layout)) if layout[place] not in local]
    for one, other in zip(coming, going, strict=True):
        result[one], result[other] = layout[other], layout[one]
    return result
