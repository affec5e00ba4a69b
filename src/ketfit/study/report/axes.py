"""Matplotlib drawings as inline SVG in the colours and fonts of the report page.

A panel fits the width of a phone, one unit per pixel, so that its font size is kept; wider pages show panels side by
side. Colours are CSS variables, which the style sheet sets for light and dark mode.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ketfit.study.analysis.hypothesis_tests import Summary

PANEL, WIDE = 330, 420
FONT_SIZE = 12.0

# Matplotlib needs numeric colours; each is a placeholder for a CSS variable such as var(--ink).
INK, SOFT, GRID, FIRST, SECOND, BAND, PAPER = (f"#0101{number:02x}" for number in range(1, 8))
NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", FIRST: "first", SECOND: "second", BAND: "band", PAPER: "paper"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ketfit",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": FONT_SIZE,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": FONT_SIZE - 1,
    "ytick.labelsize": FONT_SIZE - 1,
}

MAX_ROWS = 24
MAX_COMPARISONS = 12
"""Comparisons on one body that are all shown; of more, only those of representative cells."""
ACCURACY = "test accuracy (%)"


class Style(NamedTuple):
    """Colour and marker of a mean; seeds are drawn `shift` points right of a vertical line."""

    color: str
    marker: str
    shift: float = -8


class Sample(NamedTuple):
    """Values over seeds, None if they are not drawn, with their mean and its interval; all are fractions."""

    values: Sequence[float] | None
    mean: float
    low: float | None
    high: float | None

    @classmethod
    def from_summary(cls, values: Sequence[float] | None, summary: Summary) -> Sample:
        """Return the sample of values and their summary."""
        return cls(values, summary.mean, summary.low, summary.high)


@dataclass(frozen=True)
class Panel:
    """One drawing: its SVG and its width in pixels."""

    svg: str
    width: int


@dataclass(frozen=True)
class Picture:
    """A figure of the report: one or more panels under one caption, in one section."""

    section: Literal["accuracy", "differences", "scans", "effects", "relations"]
    title: str
    caption: str
    panels: tuple[Panel, ...]


class Canvas:
    """One Matplotlib figure with a size in pixels."""

    def __init__(self, width: int, height: float) -> None:
        self.width = width
        self.figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        self.axes: Axes = self.figure.add_subplot()

    def panel(self, key: str, description: str) -> Panel:
        """Return the drawing; `key` is unique in the page, `description` is its text for screen readers."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return Panel(_inline_svg(file.getvalue(), key, description), self.width)

    def mark(self, sample: Sample, at: float, style: Style, along: Literal["x", "y"] = "y") -> None:
        """Draw a sample along an axis, at a position on the other: its mean, its interval, and seeds as dots beside."""

        def plot(fractions: Sequence[float], **options: Any) -> None:
            values, others = [100 * fraction for fraction in fractions], [at] * len(fractions)
            x, y = (values, others) if along == "x" else (others, values)
            self.axes.update_datalim(list(zip(x, y, strict=True)))  # moved dots do not count for the limits otherwise
            self.axes.plot(x, y, color=style.color, **options)

        if sample.values is not None:
            shift = (0, -7) if along == "x" else (style.shift, 0)
            moved = ScaledTranslation(shift[0] / 72, shift[1] / 72, self.figure.dpi_scale_trans)
            transform = self.axes.transData + moved
            dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "markeredgewidth": 0}
            plot(sample.values, **dots, alpha=0.65, zorder=2, transform=transform)
        if sample.low is not None and sample.high is not None:
            plot([sample.low, sample.high], linewidth=1.8, solid_capstyle="butt", zorder=3)
        plot([sample.mean], marker=style.marker, markersize=7, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=4)


def head_style(kind: str) -> Style:
    """Return the style of a kind of head."""
    return Style(FIRST, "o") if kind == "quantum" else Style(SOFT, "s")


def labelled_lines(labels: Sequence[str], xlabel: str) -> tuple[Canvas, list[float]]:
    """Return a canvas with one line per label, the label above it, and the y positions of the lines."""
    wrapped = [textwrap.wrap(label, 56, max_lines=2, placeholder=" …") or [""] for label in labels]
    bottom, positions = 0.0, []
    for lines in wrapped:
        bottom += 36.0 + 15.0 * (len(lines) - 1)
        positions.append(bottom)
    canvas = Canvas(WIDE, bottom + 58)
    axes = canvas.axes
    axes.set_ylim(bottom + 14, 6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    for y, lines in zip(positions, wrapped, strict=True):
        for number, text in enumerate(reversed(lines)):
            axes.text(0, y - 9 - 15 * number, text, transform=axes.get_yaxis_transform(), va="baseline", zorder=5)
    return canvas, positions


def avoid_overlap(positions: Iterable[float], min_distance: float) -> list[float]:
    """Return the positions nearest to those given, in their order, that keep `min_distance`.

    >>> avoid_overlap([1.0, 1.0, 1.0], 1)
    [0.0, 1.0, 2.0]
    """
    values = list(positions)
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    blocks: list[list[int]] = []  # runs of touching neighbours, each centred on the given positions
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _start(blocks[-1], values, min_distance) < _start(
            blocks[-2], values, min_distance
        ) + min_distance * len(blocks[-2]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    moved = [0.0] * len(values)
    for block in blocks:
        for number, index in enumerate(block):
            moved[index] = _start(block, values, min_distance) + min_distance * number
    return moved


def _start(block: Sequence[int], values: Sequence[float], min_distance: float) -> float:
    return sum(values[index] - min_distance * number for number, index in enumerate(block)) / len(block)


def _inline_svg(svg: str, key: str, description: str) -> str:
    """Return Matplotlib's file as an element without header, with unique ids and the colours and fonts of the page."""
    size = re.search(r'viewBox="([\d. ]+)"', svg)
    assert size is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="', f' id="{key}-', body)
    body = re.sub(r"(url\(#|href=\"#)", rf"\1{key}-", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for number, name in NAMES.items():
        body = body.replace(number, f"var(--{name})")
    label = html.escape(description)
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{size[1]}" role="img" aria-label="{label}">{body}'
