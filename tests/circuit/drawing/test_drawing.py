from __future__ import annotations

import io
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, Rectangle

from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit, ring_layers, ry
from ketfit.circuit.drawing.figure import draw_figure
from ketfit.circuit.drawing.layout import pack_columns
from ketfit.circuit.drawing.text import draw_text
from ketfit.errors import CircuitError, InputError, MissingExtraError
from tests.circuits import random_angles, random_circuit

CROSSING = Circuit.from_gates(
    4, [cx(3, 0), ry(1, Angle("weight", 0)), cx(1, 2), ry(3, Angle("input", 0)), cx(0, 1), cx(2, 3)]
)

UPLOAD_AND_RING = """\
q0: ─┤RY(x0)├─●─────────────────────⊕─┤RY(w2)├─┤RY(w3)├─ <Z>
              │                     │
q1: ─┤RY(x1)├─⊕─┤RY(w0)├─●──────────┼─┤RY(w4)├──────────
                         │          │
q2: ─┤RY(x2)├────────────⊕─┤RY(w1)├─●─┤RY(w5)├────────── <Z>"""

FOLDED = """\
q0: ─┤RY(x0)├─●────────────»
              │
q1: ─┤RY(x1)├─⊕─┤RY(w0)├─●─»
                         │
q2: ─┤RY(x2)├────────────⊕─»

q0: «─────────⊕─┤RY(w2)├─┤RY(w3)├─ <Z>
              │
q1: «─────────┼─┤RY(w4)├──────────
              │
q2: «┤RY(w1)├─●─┤RY(w5)├────────── <Z>"""

CROSSED_WIRES = """\
q0: ─⊕────────────●─
     │            │
q1: ─┼─┤RY(w0)├─●─⊕─
     │          │
q2: ─┼──────────⊕─●─
     │            │
q3: ─●─┤RY(x0)├───⊕─ <Z>"""

NUMBERS = """\
q0: ─⊕──────────────●─
     │              │
q1: ─┼─┤RY(0.52)├─●─⊕─
     │            │
q2: ─┼────────────⊕─●─
     │              │
q3: ─●─┤RY(0.00)├───⊕─"""


def test_draw_text_of_upload_and_ring_equals_text():
    assert draw_text(reuploading_circuit(3, 1, 1, 0, 1), measured=(0, 2)) == UPLOAD_AND_RING


def test_draw_text_folds_into_parts_of_similar_width():
    assert draw_text(reuploading_circuit(3, 1, 1, 0, 1), measured=(2, 0), width=50) == FOLDED


def test_draw_text_crosses_wires():
    assert draw_text(CROSSING, measured=(3,)) == CROSSED_WIRES


def test_draw_text_shows_given_numbers_without_minus_zero():
    assert draw_text(CROSSING, weights=[0.52], inputs=np.array([-0.001])) == NUMBERS
    assert "RY(-1.57)" in draw_text(CROSSING, weights=[-np.pi / 2])
    assert "RY(x0)" in draw_text(CROSSING, weights=[-np.pi / 2])


def test_draw_text_without_gates_shows_wires():
    assert draw_text(Circuit(2, (), 0, 0), measured=[1]) == "q0: ─\n\nq1: ─ <Z>"
    assert draw_text(Circuit(1, (), 0, 0)) == "q0: ─"


def test_draw_text_aligns_two_digit_wires():
    lines = draw_text(ring_layers(11, 1, 1), width=None).splitlines()
    assert [line[:6] for line in lines[::2]] == [f" q{k}: ─" for k in range(10)] + ["q10: ─"]
    assert len({len(line) for line in lines[::2]}) == 1


@pytest.mark.parametrize("seed", range(20))
def test_draw_text_can_be_parsed(seed):
    circuit = random_circuit(n_qubits=1 + seed % 6, n_gates=4 + 2 * seed, seed=seed)
    text = draw_text(circuit, width=None)
    assert _on_each_wire(_read_back(text), circuit.n_qubits) == _on_each_wire(circuit.gates, circuit.n_qubits)


@pytest.mark.parametrize("width", [1, 30, 60, 100])
def test_draw_text_folded_keeps_gates_and_width(width):
    circuit = random_circuit(n_qubits=5, n_gates=60, seed=width)
    text = draw_text(circuit, measured=range(5), width=width)
    counts = circuit.gate_counts()
    assert (text.count("RY("), text.count("●"), text.count("⊕")) == (counts["ry"], counts["cx"], counts["cx"])
    assert text.count("<Z>") == 5
    if width >= 30:
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("seed", range(20))
def test_pack_columns_keeps_order_and_packs_left(seed):
    circuit = random_circuit(n_qubits=2 + seed % 5, n_gates=10 + seed, seed=seed)
    columns = pack_columns(circuit)
    drawn = [gate for column in columns for gate in column]
    assert _on_each_wire(drawn, circuit.n_qubits) == _on_each_wire(circuit.gates, circuit.n_qubits)
    occupied: set[int] = set()
    for column in columns:
        wires = [wire for gate in column for wire in _span(gate)]
        assert len(wires) == len(set(wires))
        assert not occupied or all(occupied & set(_span(gate)) for gate in column)
        occupied = set(wires)


def test_draw_figure_shows_every_gate_and_label():
    circuit = reuploading_circuit(4, 1, 1, 2, 2)
    figure = draw_figure(circuit, measured=(0, 3))
    (axes,) = figure.axes
    labels = Counter(text.get_text() for text in axes.texts)
    counts = circuit.gate_counts()
    assert labels["$R_Y$"] == counts["ry"] == circuit.n_weights + circuit.n_inputs
    assert all(labels[rf"$\theta_{{{k}}}$"] == 1 for k in range(circuit.n_weights))
    assert all(labels[rf"$x_{{{k}}}$"] == 1 for k in range(4))
    assert labels[r"$\langle Z \rangle$"] == 2
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == counts["ry"]
    assert sum(isinstance(patch, Circle) for patch in axes.patches) == 2 * counts["cx"]


def test_draw_figure_shows_given_numbers():
    (axes,) = draw_figure(CROSSING, weights=[0.517]).axes
    labels = {text.get_text() for text in axes.texts}
    assert {"$0.52$", "$x_{0}$"} <= labels


def test_draw_figure_folds_to_width():
    circuit = ring_layers(4, 3, 2)
    wide, folded = draw_figure(circuit, width=None), draw_figure(circuit, width=4.0)
    assert folded.get_figwidth() <= 4.0 < wide.get_figwidth()
    assert folded.get_figheight() > 2 * wide.get_figheight()
    assert Counter(text.get_text() for text in folded.axes[0].texts)[r"$\cdots$"] % 4 == 0
    assert r"$\cdots$" not in {text.get_text() for text in wide.axes[0].texts}
    assert draw_figure(Circuit(2, (), 0, 0)).get_figwidth() > 0


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_draw_figure_can_be_saved(kind):
    file = io.BytesIO()
    draw_figure(ring_layers(3, 1, 2), measured=(0,)).savefig(file, format=kind)
    assert {"png": b"PNG", "svg": b"<svg", "pdf": b"%PDF"}[kind] in file.getvalue()


@pytest.mark.parametrize("numbers", [False, True])
def test_draw_figure_labels_do_not_overlap(numbers):
    circuit = random_circuit(n_qubits=12, n_gates=80, seed=5)
    weights, inputs = random_angles(circuit, 0) if numbers else (None, None)
    figure = draw_figure(circuit, 4 * weights if numbers else None, inputs, measured=range(12))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    # Less a pixel on each side, which rounding may add to what is printed.
    extents = [text.get_window_extent(canvas.get_renderer()).padded(-1) for text in axes.texts]
    assert not any(first.overlaps(second) for first, second in combinations(extents, 2))
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, Rectangle)]
    for text, extent in zip(axes.texts, extents, strict=True):
        if re.match(r"\$(R_Y|\\theta|x|-?\d)", text.get_text()):
            assert any(_inside(extent, box) for box in boxes), text
        else:
            assert _inside(extent, figure.bbox), text


def test_draw_figure_changes_no_global_state():
    program = (
        "import io, sys, matplotlib\n"
        "settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\n"
        "from ketfit.circuit import ring_layers\n"
        "from ketfit.circuit.drawing.figure import draw_figure\n"
        "draw_figure(ring_layers(3, 1, 1), measured=[0]).savefig(io.BytesIO(), format='png')\n"
        "print('matplotlib.pyplot' in sys.modules, settings() == before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_draw_figure_without_matplotlib_names_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"Drawing a figure .*pip install 'ketfit\[draw\]'"):
        draw_figure(ring_layers(3, 1, 1))
    assert "RY(w0)" in draw_text(ring_layers(3, 1, 1))


@pytest.mark.parametrize("draw", [draw_text, draw_figure])
def test_drawing_invalid_arguments_are_refused_by_name(draw):
    circuit = reuploading_circuit(3, 1, 1, 1, 1)
    with pytest.raises(InputError, match="weights has 2 numbers, the circuit has n_weights=12"):
        draw(circuit, weights=[0.1, 0.2])
    with pytest.raises(InputError, match=r"inputs\[1\] is nan"):
        draw(circuit, inputs=[0.1, float("nan"), 0.2])
    with pytest.raises(CircuitError, match="qubit 3 cannot be measured"):
        draw(circuit, measured=[3])


def _span(gate: Gate) -> range:
    return range(min(gate.qubits), max(gate.qubits) + 1)


def _on_each_wire(gates: list[Gate] | tuple[Gate, ...], n_qubits: int) -> list[list[Gate]]:
    """Two orders of gates are the same circuit exactly if every wire meets the same gates in the same order."""
    return [[gate for gate in gates if qubit in gate.qubits] for qubit in range(n_qubits)]


def _read_back(text: str) -> list[Gate]:
    lines = text.splitlines()
    found: list[tuple[float, Gate]] = []
    for row, line in enumerate(lines):
        for match in re.finditer(r"┤RY\(([wx])(\d+)\)├", line):
            source = "weight" if match[1] == "w" else "input"
            found.append(((match.start() + match.end() - 1) / 2, ry(row // 2, Angle(source, int(match[2])))))
        for match in re.finditer("⊕", line):
            place = match.start()
            step = -1 if row and lines[row - 1][place : place + 1] == "│" else 1
            end = row + step
            while lines[end][place] != "●":
                assert lines[end][place] in "│┼"
                end += step
            found.append((place, cx(end // 2, row // 2)))
    return [gate for _, gate in sorted(found, key=lambda item: item[0])]


def _inside(inner, outer) -> bool:
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1
