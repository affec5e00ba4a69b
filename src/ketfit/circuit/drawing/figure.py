"""Draw a circuit with Matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from ketfit.circuit.circuit import Circuit, Gate
from ketfit.circuit.drawing.layout import LabelledCircuit, fold_columns, is_cross, pack_columns, symbols
from ketfit.errors import optional_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Lengths in the figure are in units of the distance between two wires, which is this many inches.
_INCHES = 0.4
_BOX = 0.74
_RING = 0.2
_DOT = 0.09
_BOX_PITCH = 0.94
_CX_PITCH = 0.56
_HEAD = 0.95
_LEAD = 0.3
_TAIL = 0.95
_GAP = 0.7
_STROKE = 0.7  # points


def draw_figure(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
    width: float | None = 7.0,
) -> Figure:
    """Return a Matplotlib figure in the style of the paper's Figure 3, with qubit 0 on top.

    Boxes are gates such as RY, with theta (a weight), x (an input, on grey) or the value in radians; dots are controls.
    The figure belongs to no window and changes no global state: save it with ``figure.savefig("circuit.pdf")``.

    Args:
        circuit: What to draw.
        weights: Numbers of shape (n_weights,) in radians, or None to show names.
        inputs: Numbers of shape (n_inputs,) in radians, or None to show names.
        measured: Qubits that end in <Z>.
        width: Inches, at most. A longer drawing is folded into parts of at least one column; None never
            folds.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range, not an integer, or named twice.
        MissingExtraError: matplotlib is not installed.
    """
    with optional_imports("Drawing a figure", "draw"):
        from matplotlib.figure import Figure

    labelled = LabelledCircuit.from_numbers(circuit, weights, inputs, measured)
    columns = pack_columns(circuit)
    widths = [max((_pitch(labelled, gate) for gate in column), default=_CX_PITCH) for column in columns]
    frame = _HEAD + _TAIL
    parts = fold_columns(widths, None if width is None else width / _INCHES - frame)
    across = frame + max(sum(widths[part]) for part in parts)
    pitch = circuit.n_qubits + _GAP
    down = len(parts) * pitch - _GAP
    figure = Figure(figsize=(across * _INCHES, down * _INCHES), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, across), ylim=(down - 0.5, -0.5))
    axes.set_axis_off()
    for number, part in enumerate(parts):
        tails = labelled.wire_ends(r"\langle Z \rangle", "" if part.stop == len(columns) else r"\cdots")
        _figure_wires(axes, tails, number * pitch, _HEAD + sum(widths[part]))
        left = _HEAD
        for column, width_of_column in zip(columns[part], widths[part], strict=True):
            for gate in column:
                _figure_gate(axes, labelled, gate, (left + width_of_column / 2, number * pitch))
            left += width_of_column
    return figure


def _figure_wires(axes: Axes, tails: Sequence[str], top: float, right: float) -> None:
    start, stop = _HEAD - _LEAD, right + _LEAD
    for qubit, tail in enumerate(tails):
        y = top + qubit
        _figure_line(axes, (start, stop), (y, y), layer=1)
        _figure_label(axes, (start - 0.1, y), f"q_{{{qubit}}}", size=9, align="right")
        if tail:
            _figure_label(axes, (stop + 0.1, y), tail, size=9, align="left")


def _figure_gate(axes: Axes, labelled: LabelledCircuit, gate: Gate, top: tuple[float, float]) -> None:
    """Draw a gate in the column at `top`, where the wire of qubit 0 is."""
    from matplotlib.patches import Circle

    x, wires = top[0], [top[1] + qubit for qubit in gate.qubits]
    controls, targets = wires[: gate.n_controls], wires[gate.n_controls :]
    if len(wires) > 1:
        ends = (controls[0], targets[0]) if len(wires) == 2 and controls else (min(wires), max(wires))
        _figure_line(axes, (x, x), ends, layer=2)
    for control in controls:
        axes.add_patch(Circle((x, control), _DOT, facecolor="black", linewidth=0, zorder=3))
    for symbol, target in zip(symbols(gate), targets, strict=True):
        if is_cross(gate):
            _figure_cross(axes, (x, target))
        else:
            _figure_box(axes, labelled, gate, symbol, (x, target))


def _figure_cross(axes: Axes, center: tuple[float, float]) -> None:
    from matplotlib.patches import Circle

    x, y = center
    axes.add_patch(Circle((x, y), _RING, facecolor="white", edgecolor="black", linewidth=_STROKE, zorder=3))
    _figure_line(axes, (x - _RING, x + _RING), (y, y), layer=4)
    _figure_line(axes, (x, x), (y - _RING, y + _RING), layer=4)


def _figure_box(axes: Axes, labelled: LabelledCircuit, gate: Gate, symbol: str, center: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    x, y = center
    fill = "0.9" if labelled.reads_input(gate) else "white"
    width = _pitch(labelled, gate) - _BOX_PITCH + _BOX
    corner = (x - width / 2, y - _BOX / 2)
    axes.add_patch(Rectangle(corner, width, _BOX, facecolor=fill, edgecolor="black", linewidth=_STROKE, zorder=3))
    label = labelled.gate_label(gate, r"\theta", "_{{{}}}")
    _figure_label(axes, (x, y - 0.16 if label else y), _formula(symbol), size=7.5)
    if not label:
        return
    # Names are short whatever their index; a number must shrink to stay inside its box.
    size = min(6.5, 32 / len(label)) if gate.is_ry_or_cx and gate.angle in labelled.values else 7.5
    _figure_label(axes, (x, y + 0.18), label, size)


def _pitch(labelled: LabelledCircuit, gate: Gate) -> float:
    """Return the width of the column that a gate needs."""
    if is_cross(gate):
        return _CX_PITCH
    if gate.is_ry_or_cx:
        return _BOX_PITCH
    return max(_BOX_PITCH, 0.3 + 0.16 * max(len(gate.symbol), len(labelled.gate_label(gate, "w"))))


def _formula(symbol: str) -> str:
    """Return a gate's symbol as a formula."""
    if symbol.startswith("R"):
        axes = symbol[1:]
        return f"R_{axes}" if len(axes) == 1 else f"R_{{{axes}}}"
    return {"S†": r"S^\dagger", "T†": r"T^\dagger", "√X": r"\sqrt{X}"}.get(symbol, rf"\mathrm{{{symbol}}}")


def _figure_line(axes: Axes, x: tuple[float, float], y: tuple[float, float], layer: int) -> None:
    axes.plot(x, y, color="black", linewidth=_STROKE, solid_capstyle="butt", zorder=layer)


def _figure_label(
    axes: Axes,
    point: tuple[float, float],
    formula: str,
    size: float,
    align: Literal["left", "center", "right"] = "center",
) -> None:
    axes.text(
        *point, f"${formula}$", ha=align, va="center", fontsize=size, math_fontfamily="cm", color="black", zorder=5
    )
