"""A drawing for the inside of a page: SVG by Matplotlib, in the colours and the letters of the page.

A panel is as wide as a telephone, one unit to a pixel, so that its letters keep their size; the page sets panels side
by side where it has room. Colours are names that the page's style sheet gives a meaning to, in light and in dark.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

PANEL, WIDE = 330, 420
LETTERS = 12.0

# Matplotlib wants numbers for colours; these stand for what the page calls var(--ink) and so on.
INK, SOFT, GRID, FIRST, SECOND, BAND, PAPER = (f"#0101{number:02x}" for number in range(1, 8))
NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", FIRST: "first", SECOND: "second", BAND: "band", PAPER: "paper"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ketfit",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": LETTERS,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": LETTERS,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": LETTERS - 1,
    "ytick.labelsize": LETTERS - 1,
}

MAX_ROWS = 24
FEW = 12
"""Comparisons on a body that are all shown; of more, those that stand for their heads."""
ACCURACY = "test accuracy (%)"

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Panel:
    """One drawing: its SVG, and how wide it wants to be, in pixels."""

    svg: str
    width: int


@dataclass(frozen=True)
class Picture:
    """A figure of the report: one or more panels under one caption, in the section `place`."""

    place: Literal["accuracy", "differences", "scans", "effects", "relations"]
    title: str
    caption: str
    panels: tuple[Panel, ...]


class Canvas:
    """One Matplotlib figure of so many pixels, and its way into a page."""

    def __init__(self, width: int, height: float) -> None:
        self.width = width
        self.figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        self.axes: Axes = self.figure.add_subplot()

    def panel(self, key: str, description: str) -> Panel:
        """The finished drawing. `key` is unique in the page, `description` is read aloud in its place."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return Panel(_for_page(file.getvalue(), key, description), self.width)

    def across(self, values: Sequence[float], at: float, color: str) -> None:
        """Seeds as dots just below the line of their mean."""
        self._dots(values, [at] * len(values), color, (0, -7))

    def along(self, values: Sequence[float], at: float, color: str, shift: float = -8) -> None:
        """Seeds as dots just to the left of their mean, or `shift` to its right."""
        self._dots([at] * len(values), values, color, (shift, 0))

    def _dots(self, x: Sequence[float], y: Sequence[float], color: str, shift: tuple[float, float]) -> None:
        self.axes.update_datalim(list(zip(x, y, strict=True)))  # what is moved does not count by itself
        moved = ScaledTranslation(shift[0] / 72, shift[1] / 72, self.figure.dpi_scale_trans)
        self.axes.plot(
            x,
            y,
            linestyle="none",
            marker="o",
            markersize=4,
            markeredgewidth=0,
            color=color,
            alpha=0.65,
            zorder=2,
            transform=self.axes.transData + moved,
        )

    def mean(
        self, x: float, y: float, color: str, marker: str = "o", *, h: Bounds | None = None, v: Bounds | None = None
    ) -> None:
        """A mean with its interval, along the x axis (`h`) or the y axis (`v`)."""
        for bounds, horizontal in ((h, True), (v, False)):
            if bounds is not None and bounds[0] is not None and bounds[1] is not None:
                ends = list(bounds)
                line = (ends, [y, y]) if horizontal else ([x, x], ends)
                self.axes.plot(*line, color=color, linewidth=1.8, solid_capstyle="butt", zorder=3)
        self.axes.plot(
            [x], [y], marker=marker, markersize=7, color=color, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=4
        )


def head_style(kind: str) -> tuple[str, str]:
    """Colour and marker: quantum heads stand out, classical ones are the ground."""
    return (FIRST, "o") if kind == "quantum" else (SOFT, "s")


def in_points(low: float | None, high: float | None) -> Bounds:
    """An interval of fractions in percentage points."""
    return (None, None) if low is None or high is None else (100 * low, 100 * high)


def rows(labels: Sequence[str], xlabel: str) -> tuple[Canvas, list[float]]:
    """A canvas with a line for each label, the label above the line, and where the lines are."""
    wrapped = [textwrap.wrap(label, 56, max_lines=2, placeholder=" …") or [""] for label in labels]
    place, places = 0.0, []
    for words in wrapped:
        place += 36.0 + 15.0 * (len(words) - 1)
        places.append(place)
    canvas = Canvas(WIDE, place + 58)
    axes = canvas.axes
    axes.set_ylim(place + 14, 6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    for at, words in zip(places, wrapped, strict=True):
        for number, text in enumerate(reversed(words)):
            axes.text(0, at - 9 - 15 * number, text, transform=axes.get_yaxis_transform(), va="baseline", zorder=5)
    return canvas, places


def avoid_overlap(wanted: Iterable[float], least: float) -> list[float]:
    """Places as near as can be to those wanted, in their order, no two nearer to each other than `least`."""
    values = list(wanted)
    order = sorted(range(len(values)), key=lambda place: (values[place], place))
    blocks: list[list[int]] = []  # runs of neighbours that touch, each centred on where its members want to be
    for place in order:
        blocks.append([place])
        while len(blocks) > 1 and _start(blocks[-1], values, least) < _start(blocks[-2], values, least) + least * len(
            blocks[-2]
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    found = [0.0] * len(values)
    for block in blocks:
        for number, place in enumerate(block):
            found[place] = _start(block, values, least) + least * number
    return found


def _start(block: Sequence[int], values: Sequence[float], least: float) -> float:
    return sum(values[place] - least * number for number, place in enumerate(block)) / len(block)


def _for_page(svg: str, key: str, description: str) -> str:
    """Matplotlib's file as an element of a page: no header, names of its own, the page's colours and letters."""
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
