"""Drawings of circuits of any gate."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.drawing.figure import draw_figure
from ketfit.circuit.drawing.svg import draw_svg
from ketfit.circuit.drawing.text import draw_text
from ketfit.circuit.gate import GATES
from tests.circuits_of_any_kind import random_general_circuit

W0, X0 = Angle("weight", 0), Angle("input", 0)
CIRCUIT = Circuit.from_gates(
    3,
    [
        Gate("h", 0),
        Gate("rx", 1, (2 * W0 - X0 + 0.5,)),
        Gate("ccx", (0, 2, 1)),
        Gate("gphase", (), (W0,)),
        Gate("crz", (2, 0), (-W0,)),
        Gate("swap", (0, 1)),
        Gate("unitary", (1, 2), matrix=np.eye(4)),
        Gate("u", 0, (0.25, X0, W0)),
    ],
)


def test_draw_text_shows_every_gate():
    found = sorted(re.findall("┤(.*?)├", draw_text(CIRCUIT, width=None)))
    assert found == ["H", "RX(-x0+2w0+0.50)", "RZ(-w0)", "SWAP", "SWAP", "U(0.25,x0,w0)", "U0", "U1"]
    assert draw_text(Circuit.from_gates(3, [Gate("ccx", (0, 2, 1)), Gate("cz", (2, 0))])).splitlines() == [
        "q0: ─●─┤Z├─",
        "     │  │",
        "q1: ─⊕──┼──",
        "     │  │",
        "q2: ─●──●──",
    ]


def test_draw_text_shows_numbers_of_sums():
    text = draw_text(CIRCUIT, weights=[1.0], inputs=[0.25], width=None)
    assert "┤RX(2.25)├" in text
    assert "┤U(0.25,0.25,1.00)├" in text
    assert text.count("●") == 3


@pytest.mark.parametrize("name", [*GATES, "unitary"])
def test_every_gate_is_drawn(name):
    circuit = random_general_circuit(3, 4, 1, names=(name,))
    n_gates = 0 if name == "gphase" else len(circuit.gates)
    lines = draw_text(circuit, width=None).splitlines()
    assert len(lines) == 5
    svg = draw_svg(circuit)
    assert svg.count("<rect") + svg.count('<circle class="box"') >= n_gates
    figure = draw_figure(circuit)
    assert len(figure.axes[0].patches) >= n_gates
