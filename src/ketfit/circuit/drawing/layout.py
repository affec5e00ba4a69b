"""Lay out the columns of a circuit for its text, figure and SVG drawings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ketfit.circuit.circuit import Angle, Circuit, Gate
from ketfit.circuit.export import angle_values, measured_qubits

Column = tuple[Gate, ...]


def pack_columns(circuit: Circuit) -> tuple[Column, ...]:
    """Return the gates in columns, each as far left as possible without touching another gate or a vertical line.

    A CNOT takes every wire from its control to its target.
    """
    columns: list[list[Gate]] = []
    filled = [0] * circuit.n_qubits
    for gate in circuit.gates:
        span = range(min(gate.qubits), max(gate.qubits) + 1)
        index = max(filled[wire] for wire in span)
        if index == len(columns):
            columns.append([])
        columns[index].append(gate)
        for wire in span:
            filled[wire] = index + 1
    return tuple(tuple(column) for column in columns)


def fold_columns(widths: Sequence[float], room: float | None) -> list[slice]:
    """Return the fewest parts of about equal width that fit in `room` (None: one part), each of at least one column."""
    parts = _fill(widths, math.inf if room is None else room)
    # The narrowest room that needs no further part, to the thousandth, makes the last part as full as the others.
    low, high = sum(widths) / len(parts), sum(widths) if room is None else room
    while high - low > 1e-3:
        middle = (low + high) / 2
        tighter = _fill(widths, middle)
        if len(tighter) == len(parts):
            parts, high = tighter, middle
        else:
            low = middle
    return parts


def _fill(widths: Sequence[float], room: float) -> list[slice]:
    parts = []
    start, used = 0, 0.0
    for index, width in enumerate(widths):
        if used + width > room and index > start:
            parts.append(slice(start, index))
            start, used = index, 0.0
        used += width
    return [*parts, slice(start, len(widths))]


@dataclass(frozen=True)
class LabelledCircuit:
    """A circuit to draw, the values of its angles that are known, and the qubits that end in <Z>."""

    circuit: Circuit
    values: Mapping[Angle, float]
    measured: tuple[int, ...]

    @classmethod
    def from_numbers(
        cls,
        circuit: Circuit,
        weights: Iterable[float] | None,
        inputs: Iterable[float] | None,
        measured: Iterable[int],
    ) -> LabelledCircuit:
        """Return a circuit with the given numbers, which are None to show names.

        Raises:
            InputError: the numbers are of another shape or not finite.
            CircuitError: a measured qubit is out of range, not an integer, or named twice.
        """
        return cls(circuit, angle_values(circuit, weights, inputs), measured_qubits(circuit, measured))

    def angle_label(self, angle: Angle, weight: str, index: str = "{}") -> str:
        """Return the angle's value, or its name: `weight` or "x", and its number in the format `index`."""
        if angle in self.values:
            return f"{round(self.values[angle], 2) + 0.0:.2f}"  # adding zero turns -0.0 into 0.0
        return (weight if angle.source == "weight" else "x") + index.format(angle.index)

    def wire_ends(self, mark: str, continuation: str) -> list[str]:
        """Return the text behind each wire: `continuation` if there is one, else `mark` on the measured qubits."""
        return [continuation or (mark if qubit in self.measured else "") for qubit in range(self.circuit.n_qubits)]
