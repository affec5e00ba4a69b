"""Draw the figures of a report by Matplotlib, as inline SVG in the colours and fonts of the page.

A panel fits the width of a phone, one unit per pixel, so that its font size is kept; wider pages show panels side by
side. Colours are CSS variables, which the style sheet sets for light and dark mode.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis, HeadEffects, Marginal, Scan
from ketfit.study.analysis.cells import Cell
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
MAX_PAIRS = 6
MAX_EFFECT_NAMES = 6
MIN_EFFECTS = 5
"""With fewer effects a half-normal plot cannot show which are noise."""
MAX_HEAD_NAMES = 14
MAX_DOTS = 60


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


def draw(analysis: Analysis) -> tuple[Picture, ...]:
    """Return all figures of a report in order; figures without data are omitted."""
    with matplotlib.rc_context(STYLE):
        pictures: list[Picture] = []
        for number, body in enumerate(analysis.study["bodies"]):
            for make in (_accuracies, _differences, _relations):
                pictures += make(analysis, body, number)
        for number, (_, scans) in enumerate(groupby(analysis.scans, key=attrgetter("body", "head"))):
            pictures += scan_pictures(analysis, list(scans), number)
        for number, each in enumerate(analysis.effects):
            pictures += effect_pictures(each, number)
    return tuple(pictures)


def _accuracies(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    cells = [cell for cell in analysis.cells if cell.body == body and cell.standing and cell.accuracy][:MAX_ROWS]
    if not cells:
        return
    canvas, ys = labelled_lines([fmt.cell_name(cell) for cell in cells], ACCURACY)
    for cell, y in zip(cells, ys, strict=True):
        assert cell.accuracy is not None
        canvas.mark(Sample.from_summary(cell.accuracies, cell.accuracy), y, head_style(cell.kind), "x")
        if cell.head == analysis.study["reference"]:
            canvas.axes.axvline(100 * cell.accuracy.mean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    label = "; ".join(f"{fmt.cell_name(cell)} {fmt.points(cell.accuracy.mean)} %" for cell in cells if cell.accuracy)
    dashed = " The dashed line is the mean of the reference." if analysis.study["reference"] else ""
    level, bars = 100 * analysis.study["level"], ""
    if any(cell.accuracy and cell.accuracy.low is not None for cell in cells):
        bars = f", bars {level:g} % t intervals of the mean, for new seeds on the same sentences"
    caption = (
        "Large marks are means over seeds (circles: quantum heads; squares: classical heads), small dots the seeds"
        f"{bars}.{dashed}"
    )
    panel = canvas.panel(f"accuracy{number}", f"Mean test accuracy on {body}: {label}.")
    yield Picture("accuracy", f"Test accuracy on {body}", caption, (panel,))


def _differences(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    found = [each for each in analysis.comparisons if each.body == body]
    shown = found if len(found) <= MAX_COMPARISONS else [each for each in found if each.standing][:MAX_ROWS]
    if not shown:
        return
    kinds = {cell.head: cell.kind for cell in analysis.cells}
    margin = 100 * analysis.study["margin"]
    canvas, ys = labelled_lines([fmt.cell_name(each) for each in shown], "difference in test accuracy (points)")
    canvas.axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    canvas.axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    for each, y in zip(shown, ys, strict=True):
        low, high = (each.crossed.low, each.crossed.high) if each.crossed else (None, None)
        canvas.mark(Sample(each.differences, each.difference, low, high), y, head_style(kinds[each.head]), "x")
    label = "; ".join(f"{fmt.cell_name(each)} {fmt.points(each.difference, plus=True)} points" for each in shown)
    bars = ""
    if any(each.crossed is not None for each in shown):
        bars = f", bars {100 * analysis.study['level']:g} % intervals for new seeds and new sentences"
    more = (
        "" if len(shown) == len(found) else f" Of {len(found)} comparisons, those of the settings that stand for heads."
    )
    title = f"Differences from {shown[0].reference} on {body}"
    caption = (
        f"Large marks are mean paired differences, small dots the seeds{bars}. "
        f"The band is the margin of ±{fmt.margin_points(margin / 100)} that the plan calls irrelevant.{more}"
    )
    yield Picture("differences", title, caption, (canvas.panel(f"difference{number}", f"{title}: {label}."),))


def _relations(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    cells = [cell for cell in analysis.cells if cell.body == body and cell.accuracy]
    qubits = {cell.n_qubits for cell in cells if cell.n_qubits is not None}
    dots = sum(len(cell.seeds) for cell in cells) <= MAX_DOTS
    drawn = [
        _relation(cells, "parameters", "trainable parameters", f"parameters{number}", dots),
        _relation(cells, "n_qubits", "qubits of an encoder", f"qubits{number}", dots) if len(qubits) > 1 else None,
        _relation(cells, "fit_seconds", "seconds to fit the chosen try (median)", f"seconds{number}", dots),
    ]
    panels = tuple(panel for panel in drawn if panel is not None)
    seeds = ", and small dots for the seeds" if dots else "; seeds are left out, as there are too many to tell apart"
    if panels:
        yield Picture(
            "relations",
            f"Accuracy against size and time on {body}",
            "Every cell of the study: its mean over seeds (circles: quantum heads; squares: classical heads), its "
            f"interval as in the figure of accuracies{seeds}. Names stand at the settings that "
            "stand for their heads.",
            panels,
        )


def _relation(cells: Sequence[Cell], attribute: str, xlabel: str, key: str, dots: bool) -> Panel | None:
    shown = [cell for cell in cells if (getattr(cell, attribute) or 0) > 0]
    if len(shown) < 2:
        return None
    xs = [getattr(cell, attribute) for cell in shown]
    canvas = Canvas(PANEL, 290)
    axes = canvas.axes
    for cell, x in zip(shown, xs, strict=True):
        assert cell.accuracy is not None
        canvas.mark(Sample.from_summary(cell.accuracies if dots else None, cell.accuracy), x, head_style(cell.kind))
    axes.set(xlabel=xlabel, ylabel=ACCURACY)
    axes.grid(axis="y")
    axes.margins(x=0.12)
    if attribute == "n_qubits":
        axes.set_xticks(sorted(set(xs)))
    else:
        axes.set_xscale("log")
        near = max(xs) < 30 * min(xs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:,.0f}")
    _name_marks(canvas, [cell for cell in shown if cell.standing], attribute)
    label = "; ".join(
        f"{fmt.cell_name(cell)}: {x:.3g}, {fmt.points(cell.accuracy.mean)} %"
        for cell, x in zip(shown, xs, strict=True)
        if cell.accuracy
    )
    return canvas.panel(key, f"Test accuracy against {xlabel}. {label}.")


def _name_marks(canvas: Canvas, cells: Sequence[Cell], attribute: str) -> None:
    named = [(cell, cell.accuracy) for cell in cells[:MAX_HEAD_NAMES] if cell.accuracy]
    name_beside(
        canvas,
        [
            (getattr(cell, attribute), 100 * accuracy.mean, cell.head, head_style(cell.kind).color)
            for cell, accuracy in named
        ],
        longest=25,
    )


def name_beside(canvas: Canvas, points: Sequence[tuple[float, float, str, str]], longest: int) -> None:
    """Write the names of points in a column beside the axes, each with a line to its point, without overlap.

    Args:
        canvas: Canvas with the points; its margin holds the names.
        points: Place on both axes, name and colour of each.
        longest: Number of characters that the margin has room for; longer names end with an ellipsis.
    """
    bottom, top = canvas.axes.get_ylim()
    heights = avoid_overlap([(y - bottom) / (top - bottom) for _, y, _, _ in points], 0.068)
    line = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 2, "shrinkB": 5}
    for height, (x, y, name, color) in zip(heights, points, strict=True):
        canvas.axes.annotate(
            name if len(name) <= longest else f"{name[: longest - 1]}…",
            (x, y),
            (1.06, height),
            textcoords="axes fraction",
            va="center",
            fontsize=10.5,
            color=color,
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def scan_pictures(analysis: Analysis, scans: Sequence[Scan], number: int) -> Iterator[Picture]:
    """Yield the figure of one head's scans, a panel per factor; `number` makes its ids unique."""
    body, head = scans[0].body, scans[0].head
    scans = [scan for scan in scans if len(scan.points) > 1]
    representative = [cell for cell in analysis.cells if cell.body == body and cell.standing]
    reference = next((cell for cell in representative if cell.head == analysis.study["reference"] != head), None)
    values = [value for scan in scans for point in scan.points for value in point.values]
    style = head_style(next((cell.kind for cell in representative if cell.head == head), "quantum"))
    panels = []
    for index, scan in enumerate(scans):
        canvas = Canvas(PANEL, 250)
        if reference is not None and reference.accuracy is not None:
            canvas.axes.axhline(100 * reference.accuracy.mean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            values = [*values, reference.accuracy.mean]
        xs = level_positions(canvas.axes, [point.level for point in scan.points])
        labels = []
        for x, point in zip(xs, scan.points, strict=True):
            own_style = style._replace(marker="D") if point.own else style
            canvas.mark(Sample.from_summary(point.values, point.accuracy), x, own_style)
            labels.append(f"{fmt.level_name(point.level)}: {fmt.points(point.accuracy.mean)} %")
        canvas.axes.plot(
            xs, [100 * point.accuracy.mean for point in scan.points], color=style.color, linewidth=1, zorder=2
        )
        canvas.axes.set(xlabel=fmt.factor_name(scan.factor), ylabel=ACCURACY if index == 0 else "")
        panels.append((canvas, f"{head}, {fmt.factor_name(scan.factor)}: {'; '.join(labels)}."))
    if not panels:
        return
    _same_height([canvas for canvas, _ in panels], values)
    dashed = f" The dashed line is {reference.head}." if reference is not None else ""
    yield Picture(
        "scans",
        f"{head} on {body}, one setting at a time",
        f"Means over seeds with {100 * analysis.study['level']:g} % t intervals, small dots the seeds; a diamond is "
        f"the head's own setting{', which all panels share' if len(panels) > 1 else ''}.{dashed}",
        tuple(canvas.panel(f"scan{number}-{index}", label) for index, (canvas, label) in enumerate(panels)),
    )


def _same_height(canvases: Sequence[Canvas], values: Sequence[float]) -> None:
    """Give all canvases the same y axis."""
    lows, highs = zip(*(canvas.axes.get_ylim() for canvas in canvases), strict=True)
    low = min([*lows, *(100 * value for value in values)])
    high = max([*highs, *(100 * value for value in values)])
    for canvas in canvases:
        canvas.axes.set_ylim(low, high)
        canvas.axes.grid(axis="y")


def level_positions(axes: Axes, levels: Sequence[Any]) -> list[float]:
    """Set and return the x positions of levels: numbers to scale, logarithmic if they span a factor of 20."""
    numbers = all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in levels)
    xs = [float(level) for level in levels] if numbers else [float(index) for index in range(len(levels))]
    if numbers and min(xs) > 0 and max(xs) / min(xs) >= 20:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xticks(xs, [fmt.level_name(level) for level in levels])
    axes.xaxis.set_minor_locator(NullLocator())
    return xs


def effect_pictures(each: HeadEffects, number: int) -> Iterator[Picture]:
    """Yield the figures of effects, main effects, interactions and half-normal plot; `number` makes ids unique."""
    if each.effects is None:
        return
    where = f"{each.head} on {each.body}"
    yield _effect_sizes(each, where, number)
    mains = [mean for mean in each.marginals if len(mean.factors) == 1]
    if mains:
        drawn = [_main_effect(each, factor) for factor in dict.fromkeys(mean.factors for mean in mains)]
        _same_height([canvas for canvas, _ in drawn], [value for mean in mains for value in mean.values])
        yield Picture(
            "effects",
            f"Main effects, {where}",
            "Mean accuracy at each level over all levels of the other factors: means over seeds with t intervals, and "
            "the seeds as dots. What a seed does to all levels alike is in these intervals only.",
            tuple(canvas.panel(f"main{number}-{index}", label) for index, (canvas, label) in enumerate(drawn)),
        )
    pairs = _largest_pairs(each)
    if pairs:
        drawn = [_interaction(each, pair) for pair in pairs]
        values = [value for mean in each.marginals if mean.factors in pairs for value in mean.values]
        _same_height([canvas for canvas, _ in drawn], values)
        all_pairs = sum(len(mean) == 2 for mean in dict.fromkeys(mean.factors for mean in each.marginals))
        more = f" The {len(pairs)} largest of {all_pairs}." if all_pairs > len(pairs) else ""
        yield Picture(
            "effects",
            f"Interactions, {where}",
            f"Mean accuracy at the levels of two factors; parallel lines are no interaction.{more}",
            tuple(canvas.panel(f"pair{number}-{index}", label) for index, (canvas, label) in enumerate(drawn)),
        )
    if each.half_normal is not None and len(each.half_normal.effects) >= MIN_EFFECTS:
        yield _half_normal(each, where, number)


def _effect_sizes(each: HeadEffects, where: str, number: int) -> Picture:
    assert each.effects is not None
    ordered = sorted(each.effects.terms, key=lambda term: -abs(term.effect))[:MAX_ROWS]
    canvas, xs = labelled_lines([fmt.term_name(term.name) for term in ordered], "effect on test accuracy (points)")
    canvas.axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    for term, y in zip(ordered, xs, strict=True):
        sample = Sample(seed_effects(each, term.name), term.effect, term.low, term.high)
        canvas.mark(sample, y, Style(FIRST, "o"), "x")
    label = "; ".join(f"{fmt.term_name(term.name)} {fmt.points(term.effect, plus=True)} points" for term in ordered)
    cut = f" The {MAX_ROWS} largest of {len(each.effects.terms)}." if len(each.effects.terms) > MAX_ROWS else ""
    return Picture(
        "effects",
        f"Effects, {where}",
        "The change of mean accuracy from the low to the high level of a factor, and half the difference of such "
        f"changes for an interaction, largest first; bars are {100 * each.effects.level:g} % intervals, dots the "
        f"seeds.{cut}",
        (canvas.panel(f"effects{number}", f"Effects on {where}: {label}."),),
    )


def seed_effects(each: HeadEffects, term: str) -> list[float]:
    """Return the effect of a two-level factor, or of a pair of them, in each seed, from the marginal means."""
    means = [mean for mean in each.marginals if ":".join(mean.factors) == term]
    if len(means) == 2:
        return [high - low for low, high in zip(means[0].values, means[1].values, strict=True)]
    if len(means) == 4:  # low low, low high, high low, high high
        return [(a - b - c + d) / 2 for a, b, c, d in zip(*(mean.values for mean in means), strict=True)]
    return []


def _main_effect(each: HeadEffects, factors: tuple[str, ...]) -> tuple[Canvas, str]:
    means = [mean for mean in each.marginals if mean.factors == factors]
    canvas = Canvas(PANEL, 220)
    xs = level_positions(canvas.axes, [fmt.level_name(mean.levels[0]) for mean in means])
    canvas.axes.plot(xs, [100 * mean.accuracy.mean for mean in means], color=FIRST, linewidth=1, zorder=2)
    for x, mean in zip(xs, means, strict=True):
        canvas.mark(Sample.from_summary(mean.values, mean.accuracy), x, Style(FIRST, "o"))
    canvas.axes.set(xlabel=fmt.factor_name(factors[0]), ylabel=ACCURACY)
    label = "; ".join(f"{fmt.level_name(mean.levels[0])}: {fmt.points(mean.accuracy.mean)} %" for mean in means)
    return canvas, f"Main effect of {fmt.factor_name(factors[0])}. {label}."


def _largest_pairs(each: HeadEffects) -> list[tuple[str, ...]]:
    assert each.effects is not None
    sizes = {tuple(term.source.split(":")): abs(term.effect) for term in each.effects.terms if ":" in term.source}
    drawn = {mean.factors for mean in each.marginals}
    return sorted((pair for pair in sizes if pair in drawn), key=lambda pair: -sizes[pair])[:MAX_PAIRS]


def _interaction(each: HeadEffects, pair: tuple[str, ...]) -> tuple[Canvas, str]:
    means = [mean for mean in each.marginals if mean.factors == pair]
    canvas = Canvas(PANEL, 230)
    first = list(dict.fromkeys(mean.levels[0] for mean in means))
    xs = level_positions(canvas.axes, [fmt.level_name(level) for level in first])
    lines = {
        level: [mean for mean in means if mean.levels[1] == level]
        for level in dict.fromkeys(m.levels[1] for m in means)
    }
    ends = avoid_overlap([100 * line[-1].accuracy.mean for line in lines.values()], _label_height(means))
    styles = (Style(FIRST, "o"), Style(SECOND, "s", shift=8))
    for (level, line), style, dashes, end in zip(lines.items(), styles, ("solid", (0, (5, 2))), ends, strict=False):
        color, dodge = style.color, 0.04 if style.shift > 0 else -0.04
        canvas.axes.plot(xs, [100 * mean.accuracy.mean for mean in line], color=color, linewidth=1.4, linestyle=dashes)
        for x, mean in zip(xs, line, strict=True):
            canvas.mark(Sample.from_summary(mean.values, mean.accuracy), x + dodge, style)
        canvas.axes.annotate(
            f"{fmt.factor_name(pair[1])} {fmt.level_name(level)}", (xs[-1] + 0.1, end), (9, 0),
            textcoords="offset points", va="center", fontsize=10.5, color=color,
        )  # fmt: skip
    canvas.axes.set_xlim(-0.25, len(first) + 0.1)
    canvas.axes.set(xlabel=fmt.factor_name(pair[0]), ylabel=ACCURACY)
    label = "; ".join(
        f"{fmt.setting_name(dict(zip(pair, mean.levels, strict=True)))}: {fmt.points(mean.accuracy.mean)} %"
        for mean in means
    )
    return canvas, f"Interaction of {fmt.factor_name(pair[0])} and {fmt.factor_name(pair[1])}. {label}."


def _label_height(means: Sequence[Marginal]) -> float:
    values = [100 * value for mean in means for value in mean.values]
    return max(max(values) - min(values), 0.1) / 8


def _half_normal(each: HeadEffects, where: str, number: int) -> Picture:
    plot = each.half_normal
    assert plot is not None
    canvas = Canvas(WIDE, 320)
    axes = canvas.axes
    sizes = [100 * effect for effect in plot.effects]
    top = max(plot.quantiles) * 1.08
    axes.plot(sizes, plot.quantiles, linestyle="none", marker="o", markersize=6, color=FIRST, zorder=3)
    right = 1.12 * max([*sizes, 100 * plot.pseudo_error])
    if plot.pseudo_error > 0:
        axes.plot([0, 100 * plot.pseudo_error * top], [0, top], color=SOFT, linewidth=1, zorder=1)
        for bound, name, drop in ((100 * plot.margin, "ME", 0), (100 * plot.simultaneous_margin, "SME", -13)):
            if bound < 2 * max(sizes):  # with few effects the margins are too wide for the plot
                right = max(right, 1.12 * bound)
                axes.axvline(bound, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
                axes.annotate(
                    name, (bound, top), (4, drop), textcoords="offset points", va="top", color=SOFT, fontsize=10
                )
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)
    for name, x, y in list(zip(plot.names, sizes, plot.quantiles, strict=True))[-MAX_EFFECT_NAMES:]:
        in_right_half = x > 0.5 * axes.get_xlim()[1]
        shift, align = (-7, "right") if in_right_half else (7, "left")
        axes.annotate(
            fmt.term_name(name),
            (x, y),
            (shift, 0),
            textcoords="offset points",
            va="center",
            ha=align,
            fontsize=10.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
        )
    axes.set(xlabel="absolute effect (points)", ylabel="half-normal quantile")
    label = "; ".join(
        f"{fmt.term_name(name)} {fmt.points(size)}" for name, size in zip(plot.names, plot.effects, strict=True)
    )
    return Picture(
        "effects",
        f"Half-normal plot of the effects, {where}",
        "Effects that are noise lie along the line, which stands for Lenth's pseudo standard error, "
        f"{fmt.points(plot.pseudo_error)} points. One effect named beforehand is more than noise beyond ME, "
        f"{fmt.points(plot.margin)} points; the largest of all beyond SME, "
        f"{fmt.points(plot.simultaneous_margin)} points.",
        (canvas.panel(f"halfnormal{number}", f"Absolute effects on {where} in points: {label}."),),
    )


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
    # Matplotlib makes ids from the last digits of coordinates, in which processors differ.
    names = dict.fromkeys(re.findall(r' id="([^"]+)"', body))
    ids = {name: f"{key}-{number}" for number, name in enumerate(names)}
    body = re.sub(r'( id="|url\(#|href="#)([^")]+)', lambda found: found[1] + ids[found[2]], body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for number, name in NAMES.items():
        body = body.replace(number, f"var(--{name})")
    label = html.escape(description)
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{size[1]}" role="img" aria-label="{label}">{body}'
