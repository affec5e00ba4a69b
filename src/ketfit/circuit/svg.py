"""Circuits as SVG text: quick to make, and in the colours of the page around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ketfit.circuit.circuit import Angle, Circuit, Gate
from ketfit.circuit.draw import pack_columns
from ketfit.circuit.export import angle_values, measured_qubits

# Pixels: the distance of two wires, the size of a box, the widths of columns of CNOTs and of boxes, and of both ends.
_PITCH, _BOX, _CX, _RY, _HEAD, _TAIL = 38, 30, 22, 38, 40, 44


def draw_svg(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
) -> str:
    """The circuit as an ``<svg>`` element, unfolded, one wire for each qubit, qubit 0 on top.

    Lines and letters have the colour of the text around (``currentColor``). A page may style the classes ``box``,
    ``input`` (a box whose angle is an input) and ``dot``; without a style a box is white.

    Args:
        circuit: What to draw.
        weights: Numbers of shape (n_weights,) in radians, or None to show names.
        inputs: Numbers of shape (n_inputs,) in radians, or None to show names.
        measured: Qubits that end in <Z>.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range or named twice.
    """
    values = angle_values(circuit, weights, inputs)
    ends = measured_qubits(circuit, measured)
    columns = pack_columns(circuit)
    widths = [_RY if any(gate.angle for gate in column) else _CX for column in columns]
    right = _HEAD + sum(widths)
    parts = [_wire(qubit, right, qubit in ends) for qubit in range(circuit.n_qubits)]
    left = _HEAD
    for column, width in zip(columns, widths, strict=True):
        parts += [_gate(gate, left + width / 2, values) for gate in column]
        left += width
    across, down = right + _TAIL, circuit.n_qubits * _PITCH
    return (
        f'<svg class="circuit" width="{across}" height="{down}" viewBox="0 0 {across} {down}" role="img" '
        f'aria-label="{len(circuit.gates)} gates on {circuit.n_qubits} qubits" fill="currentColor" '
        f'stroke="none" font-size="10" text-anchor="middle">{"".join(parts)}</svg>'
    )


def _height(qubit: int) -> float:
    return (qubit + 0.5) * _PITCH


def _wire(qubit: int, right: float, measured: bool) -> str:
    y = _height(qubit)
    end = f'<text x="{right + 26}" y="{y + 4}" font-size="12">⟨Z⟩</text>' if measured else ""
    return f'<text x="16" y="{y + 4}" font-size="12">q{qubit}</text>{_line(_HEAD - 8, y, right + 8, y)}{end}'


def _gate(gate: Gate, x: float, values: Mapping[Angle, float]) -> str:
    y = _height(gate.target)
    if gate.angle is None:
        control = _height(gate.qubits[0])
        return (
            f"{_line(x, control, x, y)}"
            f'<circle class="dot" cx="{x}" cy="{control}" r="3.5"/>'
            f'<circle class="box" cx="{x}" cy="{y}" r="7" fill="white" stroke="currentColor"/>'
            f"{_line(x - 7, y, x + 7, y)}{_line(x, y - 7, x, y + 7)}"
        )
    kind = "input" if gate.angle.source == "input" else "box"
    corner = f'x="{x - _BOX / 2}" y="{y - _BOX / 2}" width="{_BOX}" height="{_BOX}" rx="4"'
    return (
        f'<rect class="{kind}" {corner} fill="white" stroke="currentColor"/>'
        f'<text x="{x}" y="{y - 3}" font-size="9">RY</text>'
        f'<text class="angle" x="{x}" y="{y + 10}" font-size="9.5">{_label(gate.angle, values)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor"/>'


def _label(angle: Angle, values: Mapping[Angle, float]) -> str:
    if angle in values:
        return f"{round(values[angle], 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")  # adding zero turns -0.0 into 0.0
    return f"{'θ' if angle.source == 'weight' else 'x'}{angle.index}"
