"""Circuits as SVG: well-formed, with every gate and angle, in the order of the drawing as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.circuit.draw import pack_columns
from ketfit.circuit.svg import draw_svg
from ketfit.errors import CircuitError, InputError

CIRCUIT = reuploading_circuit(4, 2, 1, 1, 2)


def parts(text: str, tag: str, style: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(text).iter(tag) if part.get("class") == style]


def test_every_gate_is_there() -> None:
    text = draw_svg(CIRCUIT, measured=[0])
    counts = CIRCUIT.gate_counts()
    inputs = sum(gate.angle is not None and gate.angle.source == "input" for gate in CIRCUIT.gates)
    assert len(parts(text, "rect", "input")) == inputs == 8
    assert len(parts(text, "rect", "box")) == counts["ry"] - inputs
    assert len(parts(text, "circle", "dot")) == len(parts(text, "circle", "box")) == counts["cx"]
    labels = [part.text for part in parts(text, "text", "angle")]
    in_order = [gate.angle for column in pack_columns(CIRCUIT) for gate in column if gate.angle]
    assert labels == [f"{'θ' if angle.source == 'weight' else 'x'}{angle.index}" for angle in in_order]
    assert text.count("⟨Z⟩") == 1


def test_numbers_stand_in_the_boxes_and_everything_inside_the_frame() -> None:
    text = draw_svg(CIRCUIT, [-1.005] * CIRCUIT.n_weights, [-0.001] * CIRCUIT.n_inputs)
    labels = {part.text for part in parts(text, "text", "angle")}
    assert labels in ({"\N{MINUS SIGN}1.00", "0.00"}, {"\N{MINUS SIGN}1.01", "0.00"})
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", text):
        assert 0 <= float(x) <= width and 0 <= float(y) <= height


def test_the_lines_of_a_small_circuit() -> None:
    text = draw_svg(Circuit(1, (ry(0, Angle("weight", 0)),), 1, 0))
    assert [part.text for part in ElementTree.fromstring(text).iter("text")] == ["q0", "RY", "θ0"]


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError):
        draw_svg(CIRCUIT, [0.0])
    with pytest.raises(CircuitError):
        draw_svg(CIRCUIT, measured=[4])
