"""Circuits as SVG: well-formed, with every gate and angle, in the order of the drawing as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ketfit.circuit.ansatz import encoder_circuit, reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.circuit.drawing.layout import pack_columns
from ketfit.circuit.drawing.svg import SvgLayout, draw_svg, svg_file
from ketfit.errors import CircuitError, InputError

CIRCUIT = reuploading_circuit(4, 2, 1, 1, 2)


def parts(text: str, tag: str, style: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(text).iter(tag) if part.get("class") == style]


def test_draw_svg_shows_every_gate() -> None:
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


def test_draw_svg_numbers_are_inside_boxes_and_frame() -> None:
    text = draw_svg(CIRCUIT, [-1.005] * CIRCUIT.n_weights, [-0.001] * CIRCUIT.n_inputs)
    labels = {part.text for part in parts(text, "text", "angle")}
    assert labels in ({"\N{MINUS SIGN}1.00", "0.00"}, {"\N{MINUS SIGN}1.01", "0.00"})
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", text):
        assert 0 <= float(x) <= width and 0 <= float(y) <= height


def test_draw_svg_of_small_circuit_has_expected_lines() -> None:
    text = draw_svg(Circuit(1, (ry(0, Angle("weight", 0)),), 1, 0))
    assert [part.text for part in ElementTree.fromstring(text).iter("text")] == ["q0", "RY", "θ0"]


def test_draw_svg_wrong_numbers_are_refused() -> None:
    with pytest.raises(InputError):
        draw_svg(CIRCUIT, [0.0])
    with pytest.raises(CircuitError):
        draw_svg(CIRCUIT, measured=[4])


def test_draw_svg_folds_at_sections_and_keeps_order() -> None:
    circuit = encoder_circuit(4, 2, 1)
    sections = [("first", 8), ("wall", 4), ("second", 8)]
    whole = draw_svg(circuit, measured=[0], layout=SvgLayout(sections=sections))
    folded = draw_svg(circuit, measured=[0], layout=SvgLayout(400, sections))
    # A bracket is 6 px narrower than the columns under it: four CNOTs and four RY, or the wall.
    spans = [tuple(map(float, ends)) for ends in re.findall(r"M([\d.]+) -4V-9H([\d.]+)V", folded)]
    assert [stop - start for start, stop in spans] == [4 * 22 + 4 * 38 - 6, 38 - 6, 4 * 22 + 4 * 38 - 6]
    for text, heads in ((whole, 4), (folded, 8)):
        labels = [part.text or "" for part in parts(text, "text", "angle")]
        assert labels == [f"θ{index}" for index in range(12)][:4] + labels[4:8] + [
            f"θ{index}" for index in range(8, 12)
        ]
        assert sorted(labels[4:8]) == ["θ4", "θ5", "θ6", "θ7"]
        assert [part.text for part in parts(text, "text", "section")] == ["first", "wall", "second"]
        assert len(re.findall(r">q\d<", text)) == heads
        assert text.count("⟨Z⟩") == 1
    assert "…" not in whole and folded.count("…") == 4
    assert float(ElementTree.fromstring(folded).get("width", "inf")) <= 400


@pytest.mark.parametrize("sections", [[("short", 51)], [("long", 60)], [("back", 60), ("and forth", -8)]])
def test_draw_svg_wrong_sections_are_refused(sections: list[tuple[str, int]]) -> None:
    with pytest.raises(CircuitError, match="sections"):
        draw_svg(encoder_circuit(4, 3, 2), layout=SvgLayout(sections=sections))


def test_svg_file_has_drawing_and_colours() -> None:
    drawing = draw_svg(CIRCUIT, layout=SvgLayout(sections=[("<all> & more", len(CIRCUIT.gates))]))
    root = ElementTree.fromstring(svg_file(drawing))
    svg = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{svg}svg" and root.get("width") == ElementTree.fromstring(drawing).get("width")
    style = root.find(f"{svg}style")
    assert style is not None and style.text is not None and "prefers-color-scheme: dark" in style.text
    assert [part.text for part in root.iter(f"{svg}text") if part.get("class") == "section"] == ["<all> & more"]
    assert len(list(root.iter(f"{svg}text"))) == drawing.count("<text")
