"""What the native kernel does for a circuit, in which order, on which bits: worked out once and kept."""

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
class Step:
    """A CNOT from `control` (or none) and then a rotation by the sum of `angles`, on the qubit `target`.

    `rotations` counts, for each angle, which of the circuit's rotations it came from. `start` says that nothing touched
    the qubit before, so that from |0...0> the step belongs to the product state. `fused` joins it with the next step.
    """

    target: int
    control: int | None = None
    angles: tuple[Angle, ...] = ()
    rotations: tuple[int, ...] = ()
    start: bool = False
    fused: bool = False

    @property
    def qubits(self) -> frozenset[int]:
        """The qubits it acts on."""
        return frozenset({self.target} if self.control is None else {self.target, self.control})


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that a chunk takes while it is in the cache, and the bits of the unit that a chunk spans, ascending."""

    positions: tuple[int, ...]
    steps: tuple[Step, ...]


def merge_gates(circuit: Circuit) -> list[Step]:
    """The gates as steps: a rotation joins the step before it on its qubit, if that step ends there."""
    steps: list[Step] = []
    last: dict[int, int] = {}  # of each qubit: the step that touched it last

    def add(step: Step) -> None:
        last.update(dict.fromkeys(step.qubits, len(steps)))
        steps.append(step)

    rotation = count()
    for gate in circuit.gates:
        before = last.get(gate.target)
        if gate.angle is None:
            add(Step(gate.target, gate.control))
            continue
        own = Step(gate.target, None, (gate.angle,), (next(rotation),), start=before is None)
        if before is None or steps[before].target != gate.target:
            add(own)
        else:
            step = steps[before]
            steps[before] = replace(step, angles=step.angles + own.angles, rotations=step.rotations + own.rotations)
    return steps


def cut_stages(
    steps: Sequence[Step], n_qubits: int, sample_bits: int, chunk_bits: int, low_bits: int
) -> Iterator[Stage]:
    """Stages of at most `chunk_bits` bits, among them the lowest `low_bits`, so that a chunk is made of long runs.

    A stage takes, in order, every step that its bits can hold and that no step left for later has to precede.
    """
    if chunk_bits < min(low_bits + 2, n_qubits + sample_bits):
        raise ValueError(f"chunk_bits={chunk_bits} cannot hold a CNOT beside the lowest {low_bits} bits")
    bits = n_qubits + sample_bits
    pending = deque(steps)
    while True:
        chosen = {n_qubits - 1 - place for place in range(min(low_bits - sample_bits, n_qubits))}
        blocked: set[int] = set()
        taken: list[Step] = []
        left: list[Step] = []
        while pending and len(blocked) < n_qubits:
            step = pending.popleft()
            fits = len(chosen | step.qubits) + sample_bits <= chunk_bits
            if fits and not blocked & step.qubits:
                chosen |= step.qubits
                taken.append(step)
            else:
                blocked |= step.qubits
                left.append(step)
        pending.extendleft(reversed(left))
        positions = {*range(sample_bits), *(sample_bits + n_qubits - 1 - qubit for qubit in chosen)}
        spare = (position for position in range(bits) if position not in positions)
        positions.update(islice(spare, chunk_bits - len(positions)))
        yield Stage(tuple(sorted(positions)), tuple(taken))
        if not pending:
            return


def fuse_steps(steps: Iterable[Step], in_lanes: frozenset[int], window: int = 64) -> tuple[Step, ...]:
    """The steps in an order that lets as many as possible run two at a time: one on y, then one on z, from y or bare.

    Starts, and steps that touch a qubit `in_lanes`, stay alone.
    """
    pending = deque(steps)
    done: list[Step] = []
    while pending:
        step = pending.popleft()
        partner = None
        if _fusible(step, in_lanes):
            blocked: set[int] = set()
            for place, other in enumerate(islice(pending, window)):
                chained = other.control in (None, step.target) and other.target not in step.qubits
                if chained and _fusible(other, in_lanes) and not blocked & other.qubits:
                    partner = place
                    break
                blocked |= other.qubits
        if partner is None:
            done.append(step)
        else:
            done += [replace(step, fused=True), pending[partner]]
            del pending[partner]
    return tuple(done)


def _fusible(step: Step, in_lanes: frozenset[int]) -> bool:
    return not step.start and not in_lanes & step.qubits


def tables(stages: Sequence[Stage], n_qubits: int, sample_bits: int) -> tuple[IntArray, ...]:
    """The stages as the kernel reads them: operations, where the terms of each begin, terms, stages, positions."""
    ops: list[tuple[int, ...]] = []
    terms: list[tuple[int, int]] = []
    offsets, ranges = [0], []
    for stage in stages:
        bit = {n_qubits - 1 - (position - sample_bits): place for place, position in enumerate(stage.positions)}
        ranges.append((len(ops), len(stage.steps)))
        for step in stage.steps:
            control = -1 if step.control is None else bit[step.control]
            ops.append((bit[step.target], control, step.fused, step.start))
            numbers = [angle.index if angle.source == "weight" else ~angle.index for angle in step.angles]
            terms += zip(numbers, step.rotations, strict=True)
            offsets.append(len(terms))
    return (
        np.array(ops, np.int32).reshape(-1, 4),
        np.array(offsets, np.int32),
        np.array(terms, np.int32).reshape(-1, 2),
        np.array(ranges, np.int32),
        np.array([stage.positions for stage in stages], np.int32),
    )
