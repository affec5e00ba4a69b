"""Draw a circuit as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.drawing.layout import Column, LabelledCircuit, fold_columns, is_cross, pack_columns, symbols
from ketfit.integers import as_integer


def draw_text(
    circuit: Circuit,
    weights: Iterable[float] | None = None,
    inputs: Iterable[float] | None = None,
    measured: Iterable[int] = (),
    width: int | None = 100,
) -> str:
    """Return the circuit as text, one wire per qubit, qubit 0 on top.

    ``●`` is a control and ``⊕`` the target of a CNOT; other gates are boxes. Global phases are left out. An angle shows
    as ``w3`` (weight 3) or ``x0`` (input 0), or as its value in radians for the given numbers.

    Args:
        circuit: What to draw.
        weights: Numbers of shape (n_weights,) in radians, or None to show names.
        inputs: Numbers of shape (n_inputs,) in radians, or None to show names.
        measured: Qubits that end in ``<Z>``.
        width: Characters in a line. A longer drawing is folded into parts of at least one column; None never
            folds.

    Raises:
        InputError: the numbers are of another shape or not finite.
        CircuitError: a measured qubit is out of range, not an integer, or named twice.
        ConfigError: the width is not an integer, or less than 1.
    """
    labelled = LabelledCircuit.from_numbers(circuit, weights, inputs, measured)
    wires = range(circuit.n_qubits)
    columns = [_text_column(labelled, column) for column in pack_columns(circuit)]
    indent = len(f"q{circuit.n_qubits - 1}: ")
    frame = indent + len("─ <Z>")
    room = None if width is None else as_integer(width, "width", minimum=1, hint="None never folds") - frame
    parts = fold_columns([len(column[0]) for column in columns], room)
    drawn = []
    for part in parts:
        mark = "─" if part.start == 0 else "«"
        head = _between_wires([f"{f'q{qubit}: ':>{indent}}{mark}" for qubit in wires])
        tails = labelled.wire_ends(" <Z>", "" if part.stop == len(columns) else "»")
        rows = zip(head, *columns[part], _between_wires(tails), strict=True)
        drawn.append("\n".join("".join(row).rstrip() for row in rows))
    return "\n\n".join(drawn)


def _text_column(labelled: LabelledCircuit, column: Column) -> list[str]:
    """Return the 2 * n_qubits - 1 lines of one column, all of one width: wires and the spaces between them."""
    cells = [""] * (2 * labelled.circuit.n_qubits - 1)
    for gate in column:
        for line in range(2 * min(gate.qubits) + 1, 2 * max(gate.qubits)):
            cells[line] = "│" if line % 2 else "┼"
        for control in gate.qubits[: gate.n_controls]:
            cells[2 * control] = "●"
        label = f"({labelled.gate_label(gate, 'w')})" if gate.parameters else ""
        for symbol, target in zip(symbols(gate), gate.qubits[gate.n_controls :], strict=True):
            cells[2 * target] = "⊕" if is_cross(gate) else f"┤{symbol}{label}├"
    width = max(map(len, cells), default=0)
    filled = []
    for line, cell in enumerate(cells):
        fill = " " if line % 2 else "─"
        before = (width - len(cell)) // 2
        filled.append(fill * before + cell + fill * (width - before - len(cell) + 1))
    return filled


def _between_wires(cells: Sequence[str]) -> list[str]:
    """Return the cells of the wires with the blank lines between them."""
    return [line for cell in cells for line in (cell, " " * len(cell))][:-1]
