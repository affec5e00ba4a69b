"""Draw circuits as SVG, in the colours of the surrounding page or as files with their own colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby, pairwise

from ketfit.circuit.circuit import Circuit, Gate
from ketfit.circuit.drawing.layout import Column, LabelledCircuit, fold_columns, is_cross, pack_columns, symbols
from ketfit.errors import CircuitError
from ketfit.integers import as_integer

# Pixels: the distance of two wires, the size of a box, the widths of columns of CNOTs and of boxes, and of both ends;
# the height of the names of sections, and of the gap between the parts of a folded drawing.
_PITCH, _BOX, _CX, _RY, _HEAD, _TAIL = 38, 30, 22, 38, 40, 44
_NAMES, _GAP = 30, 16

_STYLE = """
svg { color: #1b1f24; font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.page, .box { fill: #ffffff; } .input, .filled { fill: #d9eef0; } .quiet { fill: #59636e; }
@media (prefers-color-scheme: dark) {
  svg { color: #e6e8eb; } .page, .box { fill: #14181d; } .input, .filled { fill: #1d4a50; } .quiet { fill: #a3adb8; }
}
"""


@dataclass(frozen=True)
class SvgLayout:
    """The width and the sections of a drawing.

    Attributes:
        width: Pixels, at most. A longer drawing is folded into parts of at least one column; None never folds.
        sections: Names above the wires, each with its number of gates, in their order and for all of them. Sections
            that fit into the width are kept in one part.
    """

    width: float | None = None
    sections: Sequence[tuple[str, int]] = ()


def draw_svg(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
    layout: SvgLayout = SvgLayout(),
) -> str:
    """Return the circuit as an ``<svg>`` element, one wire per qubit, qubit 0 on top.

    Lines and letters have the colour of the text around (``currentColor``). A page may style the classes ``box``,
    ``input`` (a box whose angle is an input) and ``dot``; without a style a box is white. `svg_file` makes a file.

    Args:
        circuit: What to draw.
        weights: Numbers of shape (n_weights,) in radians, or None to show names.
        inputs: Numbers of shape (n_inputs,) in radians, or None to show names.
        measured: Qubits that end in <Z>.
        layout: Width and sections of the drawing.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range or named twice, or the sections are not all the gates.
    """
    labelled = LabelledCircuit.from_numbers(circuit, weights, inputs, measured)
    columns = list(_named_columns(circuit, layout.sections))
    widths = [max((_width(labelled, gate) for gate in column), default=_CX) for _, column in columns]
    folds = _folds(
        [name for name, _ in columns], widths, None if layout.width is None else layout.width - _HEAD - _TAIL
    )
    across = _HEAD + max(sum(widths[fold]) for fold in folds) + _TAIL
    names = _NAMES if layout.sections else 0
    pitch = names + circuit.n_qubits * _PITCH + _GAP
    drawn = []
    for number, fold in enumerate(folds):
        part = _part(labelled, columns[fold], widths[fold], goes_on=fold.stop < len(columns))
        top = number * pitch + names
        drawn.append(f'<g transform="translate(0 {top})">{part}</g>' if top else part)
    return (
        svg_open(across, len(folds) * pitch - _GAP, f"{len(circuit.gates)} gates on {circuit.n_qubits} qubits")
        + "".join(drawn)
        + "</svg>"
    )


def svg_open(across: float, down: float, label: str) -> str:
    """Return the opening tag of a drawing, with its size in pixels and its alternative text."""
    return (
        f'<svg class="circuit" width="{across}" height="{down}" viewBox="0 0 {across} {down}" role="img" '
        f'aria-label="{escape(label)}" fill="currentColor" stroke="none" font-size="10" text-anchor="middle">'
    )


def svg_file(drawing: str) -> str:
    """Return a drawing as the content of a file, with a background and the colours of a light or a dark screen."""
    opening, rest = drawing.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{opening}><style>{_STYLE}</style><rect class="page" width="100%" height="100%" rx="8"/>{rest}\n'


def _named_columns(circuit: Circuit, sections: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Column]]:
    """Yield the columns, each with the name of its section; no column has gates of two sections."""
    if not sections:
        yield from (("", column) for column in pack_columns(circuit))
        return
    sizes = [as_integer(gates, f"sections[{index}]", error=CircuitError) for index, (_, gates) in enumerate(sections)]
    named = sum(sizes)
    if named != len(circuit.gates) or min(sizes) < 0:
        raise CircuitError(f"the sections name {named} gates; the circuit has {len(circuit.gates)}")
    start = 0
    for (name, _), gates in zip(sections, sizes, strict=True):
        own = circuit.with_gates(circuit.gates[start : start + gates])
        yield from ((name, column) for column in pack_columns(own))
        start += gates


def _folds(names: Sequence[str], widths: Sequence[float], room: float | None) -> list[slice]:
    """Return the columns of each part: whole sections where all of them fit in `room`."""
    sizes = [len(list(group)) for _, group in groupby(names)]
    starts = [0, *accumulate(sizes)]
    wide = [sum(widths[start:stop]) for start, stop in pairwise(starts)]
    if room is None or len(sizes) == 1 or max(wide, default=0) > room:
        return fold_columns(widths, room)
    return [slice(starts[fold.start], starts[fold.stop]) for fold in fold_columns(wide, room)]


def _part(
    labelled: LabelledCircuit, columns: Sequence[tuple[str, Column]], widths: Sequence[float], goes_on: bool
) -> str:
    """Return one part of a drawing: wires, gates and the names of the sections above."""
    right = _HEAD + sum(widths)
    tails = labelled.wire_ends("⟨Z⟩", "…" if goes_on else "")
    parts = [_wire(qubit, right, tail) for qubit, tail in enumerate(tails)]
    left: float = _HEAD
    for name, group in groupby(zip(columns, widths, strict=True), key=lambda entry: entry[0][0]):
        start = left
        for (_, column), width in group:
            parts += [_gate(labelled, gate, left + width / 2) for gate in column]
            left += width
        if name:
            parts.append(_name(name, start + 3, left - 3))
    return "".join(parts)


def _name(name: str, start: float, stop: float) -> str:
    bracket = f"M{start} -4V-9H{stop}V-4"
    return (
        f'<path d="{bracket}" fill="none" stroke="currentColor"/>'
        f'<text class="section" x="{(start + stop) / 2}" y="-15" font-size="11">{escape(name)}</text>'
    )


def _height(qubit: int) -> float:
    return (qubit + 0.5) * _PITCH


def _wire(qubit: int, right: float, end: str) -> str:
    y = _height(qubit)
    tail = f'<text x="{right + 26}" y="{y + 4}" font-size="12">{end}</text>' if end else ""
    return f'<text x="16" y="{y + 4}" font-size="12">q{qubit}</text>{_line(_HEAD - 8, y, right + 8, y)}{tail}'


def _gate(labelled: LabelledCircuit, gate: Gate, x: float) -> str:
    heights = [_height(qubit) for qubit in gate.qubits]
    controls, targets = heights[: gate.n_controls], heights[gate.n_controls :]
    parts = []
    if len(heights) > 1:
        ends = (controls[0], targets[0]) if len(heights) == 2 and controls else (min(heights), max(heights))
        parts.append(_line(x, ends[0], x, ends[1]))
    parts += [f'<circle class="dot" cx="{x}" cy="{control}" r="3.5"/>' for control in controls]
    for symbol, y in zip(symbols(gate), targets, strict=True):
        parts.append(_cross(x, y) if is_cross(gate) else _box(labelled, gate, symbol, (x, y)))
    return "".join(parts)


def _width(labelled: LabelledCircuit, gate: Gate) -> float:
    """Return the width of the column that a gate needs."""
    if is_cross(gate):
        return _CX
    if gate.is_ry_or_cx:  # a name or a rounded number
        return _RY
    return max(_RY, 8 + 6 * max(len(gate.symbol), len(labelled.gate_label(gate, "θ"))))


def _cross(x: float, y: float) -> str:
    return (
        f'<circle class="box" cx="{x}" cy="{y}" r="7" fill="white" stroke="currentColor"/>'
        f"{_line(x - 7, y, x + 7, y)}{_line(x, y - 7, x, y + 7)}"
    )


def _box(labelled: LabelledCircuit, gate: Gate, symbol: str, center: tuple[float, float]) -> str:
    x, y = center
    label = labelled.gate_label(gate, "θ").replace("-", "\N{MINUS SIGN}")
    kind = "input" if labelled.reads_input(gate) else "box"
    width = _width(labelled, gate) - _RY + _BOX
    corner = f'x="{x - width / 2}" y="{y - _BOX / 2}" width="{width}" height="{_BOX}" rx="4"'
    box = f'<rect class="{kind}" {corner} fill="white" stroke="currentColor"/>'
    if not label:
        return f'{box}<text x="{x}" y="{y + 3}" font-size="9">{symbol}</text>'
    return (
        f'{box}<text x="{x}" y="{y - 3}" font-size="9">{symbol}</text>'
        f'<text class="angle" x="{x}" y="{y + 10}" font-size="9.5">{label}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="currentColor"/>'
