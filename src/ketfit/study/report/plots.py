"""Draw the figures of a report: heads, differences, scans, effects and interactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from ketfit.study.analysis.analysis import Analysis, HeadEffects, Marginal, Scan
from ketfit.study.analysis.cells import Cell
from ketfit.study.analysis.formatting import (
    cell_name,
    factor_name,
    level_name,
    margin_points,
    points,
    setting_name,
    term_name,
)
from ketfit.study.report.axes import (
    ACCURACY,
    BAND,
    FIRST,
    MAX_COMPARISONS,
    MAX_ROWS,
    PANEL,
    PAPER,
    SECOND,
    SOFT,
    STYLE,
    WIDE,
    Canvas,
    Panel,
    Picture,
    Sample,
    Style,
    avoid_overlap,
    head_style,
    labelled_lines,
)

MAX_PAIRS = 6
MAX_EFFECT_NAMES = 6
MIN_EFFECTS = 5
"""With fewer effects a half-normal plot cannot show which are noise."""
MAX_HEAD_NAMES = 14
MAX_DOTS = 60


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
    canvas, ys = labelled_lines([cell_name(cell) for cell in cells], ACCURACY)
    for cell, y in zip(cells, ys, strict=True):
        assert cell.accuracy is not None
        canvas.mark(Sample.from_summary(cell.accuracies, cell.accuracy), y, head_style(cell.kind), "x")
        if cell.head == analysis.study["reference"]:
            canvas.axes.axvline(100 * cell.accuracy.mean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    label = "; ".join(f"{cell_name(cell)} {points(cell.accuracy.mean)} %" for cell in cells if cell.accuracy)
    dashed = " The dashed line is the mean of the reference." if analysis.study["reference"] else ""
    caption = (
        "Large marks are means over seeds (circles: quantum heads; squares: classical heads), small dots the seeds"
        f"{_bars(analysis, cells)}.{dashed}"
    )
    panel = canvas.panel(f"accuracy{number}", f"Mean test accuracy on {body}: {label}.")
    yield Picture("accuracy", f"Test accuracy on {body}", caption, (panel,))


def _bars(analysis: Analysis, cells: Sequence[Cell]) -> str:
    if not any(cell.accuracy and cell.accuracy.low is not None for cell in cells):
        return ""
    return f", bars {100 * analysis.study['level']:g} % t intervals of the mean, for new seeds on the same sentences"


def _differences(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    found = [each for each in analysis.comparisons if each.body == body]
    shown = found if len(found) <= MAX_COMPARISONS else [each for each in found if each.standing][:MAX_ROWS]
    if not shown:
        return
    kinds = {cell.head: cell.kind for cell in analysis.cells}
    margin = 100 * analysis.study["margin"]
    canvas, ys = labelled_lines([cell_name(each) for each in shown], "difference in test accuracy (points)")
    canvas.axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    canvas.axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    for each, y in zip(shown, ys, strict=True):
        low, high = (each.crossed.low, each.crossed.high) if each.crossed else (None, None)
        canvas.mark(Sample(each.differences, each.difference, low, high), y, head_style(kinds[each.head]), "x")
    label = "; ".join(f"{cell_name(each)} {points(each.difference, plus=True)} points" for each in shown)
    bars = ""
    if any(each.crossed is not None for each in shown):
        bars = f", bars {100 * analysis.study['level']:g} % intervals for new seeds and new sentences"
    more = (
        "" if len(shown) == len(found) else f" Of {len(found)} comparisons, those of the settings that stand for heads."
    )
    title = f"Differences from {shown[0].reference} on {body}"
    caption = (
        f"Large marks are mean paired differences, small dots the seeds{bars}. "
        f"The band is the margin of ±{margin_points(margin / 100)} that the plan calls irrelevant.{more}"
    )
    yield Picture("differences", title, caption, (canvas.panel(f"difference{number}", f"{title}: {label}."),))


def _relations(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    cells = [cell for cell in analysis.cells if cell.body == body and cell.accuracy]
    qubits = {cell.n_qubits for cell in cells if cell.n_qubits is not None}
    panels = [_relation(cells, "parameters", "trainable parameters", True, f"parameters{number}")]
    if len(qubits) > 1:
        panels.append(_relation(cells, "n_qubits", "qubits of an encoder", False, f"qubits{number}"))
    panels.append(_relation(cells, "fit_seconds", "seconds to fit the chosen try (median)", True, f"seconds{number}"))
    panels = [panel for panel in panels if panel is not None]
    few_seeds = sum(len(cell.seeds) for cell in cells) <= MAX_DOTS
    dots = (
        ", and small dots for the seeds" if few_seeds else "; seeds are left out, as there are too many to tell apart"
    )
    if panels:
        yield Picture(
            "relations",
            f"Accuracy against size and time on {body}",
            "Every cell of the study: its mean over seeds (circles: quantum heads; squares: classical heads), its "
            f"interval as in the figure of accuracies{dots}. Names stand at the settings that "
            "stand for their heads. Times are of one thread, on whatever ran the study.",
            tuple(panel for panel in panels if panel is not None),
        )


def _relation(cells: Sequence[Cell], attribute: str, xlabel: str, log: bool, key: str) -> Panel | None:
    dots = sum(len(cell.seeds) for cell in cells) <= MAX_DOTS
    shown = [cell for cell in cells if (getattr(cell, attribute) or 0) > 0]
    if len(shown) < 2:
        return None
    canvas = Canvas(PANEL, 290)
    axes = canvas.axes
    for cell in shown:
        assert cell.accuracy is not None
        sample = Sample.from_summary(cell.accuracies if dots else None, cell.accuracy)
        canvas.mark(sample, getattr(cell, attribute), head_style(cell.kind))
    axes.set(xlabel=xlabel, ylabel=ACCURACY)
    axes.grid(axis="y")
    axes.margins(x=0.12)
    if not log:
        axes.set_xticks(sorted({getattr(cell, attribute) for cell in shown}))
    else:
        axes.set_xscale("log")
        xs = [getattr(cell, attribute) for cell in shown]
        near = max(xs) < 30 * min(xs)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:,.0f}")
    _name_marks(canvas, [cell for cell in shown if cell.standing], attribute)
    label = "; ".join(
        f"{cell_name(cell)}: {getattr(cell, attribute):.3g}, {points(cell.accuracy.mean)} %"
        for cell in shown
        if cell.accuracy
    )
    return canvas.panel(key, f"Test accuracy against {xlabel}. {label}.")


def _name_marks(canvas: Canvas, cells: Sequence[Cell], attribute: str) -> None:
    """Write names in a column beside the axes, each with a line to its mark, without overlap."""
    axes = canvas.axes
    cells = cells[:MAX_HEAD_NAMES]
    bottom, top = axes.get_ylim()
    heights = [(100 * cell.accuracy.mean - bottom) / (top - bottom) for cell in cells if cell.accuracy]
    for y, cell in zip(avoid_overlap(heights, 0.068), cells, strict=True):
        assert cell.accuracy is not None
        axes.annotate(
            cell.head if len(cell.head) <= 25 else f"{cell.head[:24]}…",
            (getattr(cell, attribute), 100 * cell.accuracy.mean),
            (1.06, y),
            textcoords="axes fraction",
            va="center",
            fontsize=10.5,
            color=head_style(cell.kind).color,
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 2, "shrinkB": 5},
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
        xs = _level_positions(canvas.axes, [point.level for point in scan.points])
        labels = []
        for x, point in zip(xs, scan.points, strict=True):
            own_style = style._replace(marker="D") if point.own else style
            canvas.mark(Sample.from_summary(point.values, point.accuracy), x, own_style)
            labels.append(f"{level_name(point.level)}: {points(point.accuracy.mean)} %")
        canvas.axes.plot(
            xs, [100 * point.accuracy.mean for point in scan.points], color=style.color, linewidth=1, zorder=2
        )
        canvas.axes.set(xlabel=factor_name(scan.factor), ylabel=ACCURACY if index == 0 else "")
        panels.append((canvas, f"{head}, {factor_name(scan.factor)}: {'; '.join(labels)}."))
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


def _level_positions(axes: Axes, levels: Sequence[Any]) -> list[float]:
    """Set and return the x xs of levels: numbers to scale, logarithmic if they span a factor of 20."""
    numbers = all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in levels)
    xs = [float(level) for level in levels] if numbers else [float(index) for index in range(len(levels))]
    if numbers and min(xs) > 0 and max(xs) / min(xs) >= 20:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xticks(xs, [level_name(level) for level in levels])
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
    canvas, xs = labelled_lines([term_name(term.name) for term in ordered], "effect on test accuracy (points)")
    canvas.axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    for term, y in zip(ordered, xs, strict=True):
        sample = Sample(seed_effects(each, term.name), term.effect, term.low, term.high)
        canvas.mark(sample, y, Style(FIRST, "o"), "x")
    label = "; ".join(f"{term_name(term.name)} {points(term.effect, plus=True)} points" for term in ordered)
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
    xs = _level_positions(canvas.axes, [level_name(mean.levels[0]) for mean in means])
    canvas.axes.plot(xs, [100 * mean.accuracy.mean for mean in means], color=FIRST, linewidth=1, zorder=2)
    for x, mean in zip(xs, means, strict=True):
        canvas.mark(Sample.from_summary(mean.values, mean.accuracy), x, Style(FIRST, "o"))
    canvas.axes.set(xlabel=factor_name(factors[0]), ylabel=ACCURACY)
    label = "; ".join(f"{level_name(mean.levels[0])}: {points(mean.accuracy.mean)} %" for mean in means)
    return canvas, f"Main effect of {factor_name(factors[0])}. {label}."


def _largest_pairs(each: HeadEffects) -> list[tuple[str, ...]]:
    assert each.effects is not None
    sizes = {tuple(term.source.split(":")): abs(term.effect) for term in each.effects.terms if ":" in term.source}
    drawn = {mean.factors for mean in each.marginals}
    return sorted((pair for pair in sizes if pair in drawn), key=lambda pair: -sizes[pair])[:MAX_PAIRS]


def _interaction(each: HeadEffects, pair: tuple[str, ...]) -> tuple[Canvas, str]:
    means = [mean for mean in each.marginals if mean.factors == pair]
    canvas = Canvas(PANEL, 230)
    first = list(dict.fromkeys(mean.levels[0] for mean in means))
    xs = _level_positions(canvas.axes, [level_name(level) for level in first])
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
            f"{factor_name(pair[1])} {level_name(level)}", (xs[-1] + 0.1, end), (9, 0),
            textcoords="offset points", va="center", fontsize=10.5, color=color,
        )  # fmt: skip
    canvas.axes.set_xlim(-0.25, len(first) + 0.1)
    canvas.axes.set(xlabel=factor_name(pair[0]), ylabel=ACCURACY)
    label = "; ".join(
        f"{setting_name(dict(zip(pair, mean.levels, strict=True)))}: {points(mean.accuracy.mean)} %" for mean in means
    )
    return canvas, f"Interaction of {factor_name(pair[0])} and {factor_name(pair[1])}. {label}."


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
            term_name(name),
            (x, y),
            (shift, 0),
            textcoords="offset points",
            va="center",
            ha=align,
            fontsize=10.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
        )
    axes.set(xlabel="absolute effect (points)", ylabel="half-normal quantile")
    label = "; ".join(f"{term_name(name)} {points(size)}" for name, size in zip(plot.names, plot.effects, strict=True))
    return Picture(
        "effects",
        f"Half-normal plot of the effects, {where}",
        "Effects that are noise lie along the line, which stands for Lenth's pseudo standard error, "
        f"{points(plot.pseudo_error)} points. One effect named beforehand is more than noise beyond ME, "
        f"{points(plot.margin)} points; the largest of all beyond SME, {points(plot.simultaneous_margin)} points.",
        (canvas.panel(f"halfnormal{number}", f"Absolute effects on {where} in points: {label}."),),
    )
