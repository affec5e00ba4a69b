"""Lay out the columns of a circuit for its text, figure and SVG drawings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ketfit.circuit.angle import Angle, AngleExpression, affine_form, substitute
from ketfit.circuit.circuit import Circuit, Gate, gate_angles
from ketfit.circuit.export import angle_values, measured_qubits

Column = tuple[Gate, ...]


def pack_columns(circuit: Circuit) -> tuple[Column, ...]:
    """Return the gates in columns, each as far left as possible without touching another gate or a vertical line.

    A gate takes every wire from its first to its last qubit. Global phases, which have no wire, are left out.
    """
    columns: list[list[Gate]] = []
    filled = [0] * circuit.n_qubits
    for gate in circuit.gates:
        if not gate.qubits:
            continue
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


def is_cross(gate: Gate) -> bool:
    """Return True for CNOT and Toffoli gates, whose target is drawn as a cross in a circle."""
    return gate.name in ("cx", "ccx")


def symbols(gate: Gate) -> list[str]:
    """Return the symbol on each qubit of the gate that is not a control; a constant unitary numbers its qubits."""
    targets = gate.qubits[gate.n_controls :]
    if gate.matrix is not None and len(targets) > 1:
        return [f"{gate.symbol}{place}" for place in range(len(targets))]
    return [gate.symbol] * len(targets)


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

    def angle_label(self, angle: AngleExpression, weight: str, index: str = "{}") -> str:
        """Return the angle's value, or its name: `weight` or "x", and its number in the format `index`.

        A sum shows its factors and its offset, such as ``2w3+1.57``.
        """
        terms, offset = affine_form(substitute(angle, self.values))
        label = ""
        for each, factor in terms:
            name = (weight if each.source == "weight" else "x") + index.format(each.index)
            scale = {1.0: "", -1.0: "-"}.get(factor, f"{factor:.3g}")
            label += ("+" if label and factor > 0 else "") + scale + name
        if terms and offset == 0:
            return label
        value = f"{round(offset, 2) + 0.0:.2f}"  # adding zero turns -0.0 into 0.0
        return label + ("+" if label and not value.startswith("-") else "") + value

    def gate_label(self, gate: Gate, weight: str, index: str = "{}") -> str:
        """Return the labels of the gate's angles, separated by commas."""
        return ",".join(self.angle_label(parameter, weight, index) for parameter in gate.parameters)

    def reads_input(self, gate: Gate) -> bool:
        """Return True if an angle of the gate is computed from an input."""
        return any(angle.source == "input" for angle in gate_angles(gate))

    def wire_ends(self, mark: str, continuation: str) -> list[str]:
        """Return the text behind each wire: `continuation` if there is one, else `mark` on the measured qubits."""
        return [continuation or (mark if qubit in self.measured else "") for qubit in range(self.circuit.n_qubits)]
