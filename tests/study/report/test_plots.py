"""Test the figures of a report: which are drawn, the numbers in their descriptions, and the drawing itself."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from ketfit.study.analysis.analysis import Analysis, analyse
from ketfit.study.analysis.formatting import points
from ketfit.study.analysis.hypothesis_tests import summarize
from ketfit.study.report import plots
from ketfit.study.report.plots import Canvas, Picture, Sample, Style, avoid_overlap, draw, head_style, labelled_lines
from tests.study.results_in_memory import study_in_memory

FACTORIAL: dict[str, Any] = {
    "factors": {"head.connectivity": [1, 3], "head.encoder_layers": [1, 2]},
    "design": {"kind": "full", "estimate": "interactions"},
    "seeds": 3,
}


def sections(pictures: tuple[Picture, ...]) -> list[str]:
    return [picture.section for picture in pictures]


def descriptions(picture: Picture) -> str:
    return " ".join(match for panel in picture.panels for match in re.findall(r'aria-label="([^"]*)"', panel.svg))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(*study_in_memory())


def test_draw_describes_means_and_differences(analysis: Analysis) -> None:
    accuracy, differences, relations = draw(analysis)
    for cell in analysis.cells:
        assert cell.accuracy is not None
        assert f"{cell.head} {points(cell.accuracy.mean)} %" in descriptions(accuracy)
        assert f"{cell.head}: 17, {points(cell.accuracy.mean)} %" in descriptions(relations)
    for each in analysis.comparisons:
        assert f"{each.head} {points(each.difference, plus=True)} points" in descriptions(differences)
    assert len(relations.panels) == 2


def test_draw_without_results_has_no_figures() -> None:
    assert draw(analyse(study_in_memory()[0], {})) == ()


def test_draw_without_reference_has_no_differences() -> None:
    assert sections(draw(analyse(*study_in_memory(report={})))) == ["accuracy", "relations"]


def test_draw_ids_are_unique_over_bodies() -> None:
    pictures = draw(analyse(*study_in_memory(bodies=["one", "two"], seeds=2)))
    ids = [name for picture in pictures for panel in picture.panels for name in re.findall(r' id="([^"]+)"', panel.svg)]
    assert len(ids) == len(set(ids)) > 100
    assert [picture.title for picture in pictures if picture.section == "accuracy"] == [
        "Test accuracy on one",
        "Test accuracy on two",
    ]


def test_panel_is_the_same_if_the_last_digit_of_a_coordinate_differs() -> None:
    def drawn(y: float) -> str:
        canvas = Canvas(300, 200)
        canvas.axes.plot([0, 1], [0.1, y])
        canvas.axes.set_ylim(0, y)
        return canvas.panel("key", "").svg

    assert drawn(0.9) == drawn(np.nextafter(0.9, 1))


def test_draw_scan_has_a_panel_per_factor() -> None:
    factors = {"head.n_qubits": [4, 6], "head.connectivity": [1, 3]}
    found = draw(analyse(*study_in_memory(factors=factors, design={"kind": "scan"}, seeds=3)))
    (scan,) = [picture for picture in found if picture.section == "scans"]
    assert scan.title == "quantum on body-a, one setting at a time"
    assert len(scan.panels) == 2 and "quantum, connectivity: 1: " in descriptions(scan)
    assert "The dashed line is logistic regression." in scan.caption


def test_draw_factorial_has_effects_main_effects_and_interactions() -> None:
    found = draw(analyse(*study_in_memory(**FACTORIAL)))
    titles = [picture.title for picture in found if picture.section == "effects"]
    assert titles == [f"{kind}, quantum on body-a" for kind in ("Effects", "Main effects", "Interactions")]


def test_draw_many_effects_adds_half_normal_plot() -> None:
    factors = {"head.connectivity": [1, 3], "head.encoder_layers": [1, 2], "head.skip_connection": [False, True]}
    found = draw(analyse(*study_in_memory(**{**FACTORIAL, "factors": factors, "seeds": 2})))
    assert "Half-normal plot of the effects, quantum on body-a" in [picture.title for picture in found]


def test_seed_effects_average_to_the_estimated_effects() -> None:
    (each,) = analyse(*study_in_memory(**FACTORIAL)).effects
    assert each.effects is not None
    for term in each.effects.terms:
        assert np.mean(plots.seed_effects(each, term.name)) == pytest.approx(term.effect)
    assert plots.seed_effects(each, "another") == []


def test_canvas_panel_is_well_formed_svg_in_colors_of_the_page() -> None:
    with matplotlib.rc_context(plots.STYLE):
        canvas = Canvas(plots.PANEL, 200)
        canvas.mark(Sample([0.1, 0.2], 0.15, 0.1, 0.2), 1.0, Style(plots.FIRST, "o"))
        panel = canvas.panel("key", 'a "quoted" <text>')
    assert panel.width == plots.PANEL
    root = ElementTree.fromstring(panel.svg)
    assert root.attrib["aria-label"] == 'a "quoted" <text>'
    assert "var(--first)" in panel.svg and "#0101" not in panel.svg and "font-family: inherit" in panel.svg
    assert all(name.startswith("key-") for name in re.findall(r' id="([^"]+)"', panel.svg))


@pytest.mark.parametrize("along", ["x", "y"])
def test_canvas_mark_draws_dots_interval_and_mean(along: Any) -> None:
    canvas = Canvas(plots.PANEL, 200)
    canvas.mark(Sample([0.1, 0.2], 0.15, 0.12, 0.18), 3.0, Style("red", "s"), along)
    dots, bar, mean = (line.get_xydata() for line in canvas.axes.lines)
    column = 0 if along == "x" else 1
    for line, values in ((dots, [10, 20]), (bar, [12, 18]), (mean, [15])):
        np.testing.assert_allclose(line[:, column], values)
        np.testing.assert_array_equal(line[:, 1 - column], 3)
    assert canvas.axes.lines[2].get_marker() == "s"


def test_canvas_mark_without_values_or_interval_draws_the_mean() -> None:
    canvas = Canvas(plots.PANEL, 200)
    canvas.mark(Sample.from_summary(None, summarize([0.5])), 1.0, head_style("quantum"))
    assert len(canvas.axes.lines) == 1


def test_head_style_tells_quantum_from_classical_heads() -> None:
    assert head_style("quantum") != head_style("svc") == head_style("mlp")


def test_labelled_lines_wraps_long_labels() -> None:
    short, long = labelled_lines(["a", "b"], "x"), labelled_lines(["a", "word " * 15], "x")
    assert short[1] == [36, 72] and long[1] == [36, 87]
    assert [text.get_text() for text in short[0].axes.texts] == ["a", "b"]
    many = labelled_lines(["word " * 60], "x")[0].axes.texts
    assert len(many) == 2 and many[0].get_text().endswith("…")


def test_avoid_overlap_keeps_minimum_distance() -> None:
    assert avoid_overlap([], 1) == []
    assert avoid_overlap([3.0, 1.0], 1) == [3.0, 1.0]
    assert avoid_overlap([1.0, 1.0, 1.0], 1) == [0.0, 1.0, 2.0]
    found = sorted(avoid_overlap([0.1, 0.2, 0.25, 0.9], 0.2))
    assert all(b - a > 0.2 - 1e-9 for a, b in pairwise(found))
