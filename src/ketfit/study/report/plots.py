"""Figures of a report about heads: accuracies, differences, and accuracy against size and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.ticker import LogLocator, NullLocator

from ketfit.study.analysis.analysis import Analysis
from ketfit.study.analysis.cells import Cell
from ketfit.study.analysis.comparisons import HeadComparison
from ketfit.study.analysis.formatting import cell_name, margin_points, points
from ketfit.study.report.axes import (
    ACCURACY,
    BAND,
    MAX_COMPARISONS,
    MAX_ROWS,
    PANEL,
    SOFT,
    STYLE,
    Bounds,
    Canvas,
    Panel,
    Picture,
    avoid_overlap,
    head_style,
    in_points,
    rows,
)
from ketfit.study.report.factor_plots import by_head, effect_pictures, scan_pictures

MAX_NAMES = 14
MAX_DOTS = 60


def draw(analysis: Analysis) -> tuple[Picture, ...]:
    """Return all figures of a report in order; figures without data are omitted."""
    with matplotlib.rc_context(STYLE):
        pictures: list[Picture] = []
        for number, body in enumerate(analysis.study["bodies"]):
            for make in (_accuracies, _differences, _relations):
                pictures += make(analysis, body, number)
        for number, scans in enumerate(by_head(analysis.scans)):
            pictures += scan_pictures(analysis, scans, number)
        for number, each in enumerate(analysis.effects):
            pictures += effect_pictures(each, number)
    return tuple(pictures)


def _accuracies(analysis: Analysis, body: str, number: int) -> Iterator[Picture]:
    cells = [cell for cell in analysis.cells if cell.body == body and cell.standing and cell.accuracy][:MAX_ROWS]
    if not cells:
        return
    canvas, ys = rows([cell_name(cell) for cell in cells], ACCURACY)
    for cell, y in zip(cells, ys, strict=True):
        assert cell.accuracy is not None
        color, marker = head_style(cell.kind)
        canvas.seed_dots_x([100 * value for value in cell.accuracies], y, color)
        h = in_points(cell.accuracy.low, cell.accuracy.high)
        canvas.mean(100 * cell.accuracy.mean, y, color, marker, h=h)
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
    canvas, ys = rows([cell_name(each) for each in shown], "difference in test accuracy (points)")
    canvas.axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    canvas.axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
    for each, y in zip(shown, ys, strict=True):
        color, marker = head_style(kinds[each.head])
        canvas.seed_dots_x([100 * value for value in each.differences], y, color)
        canvas.mean(100 * each.difference, y, color, marker, h=_test_bounds(each))
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


def _test_bounds(each: HeadComparison) -> Bounds:
    return (None, None) if each.crossed is None else in_points(each.crossed.low, each.crossed.high)


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
        color, marker = head_style(cell.kind)
        x = getattr(cell, attribute)
        if dots:
            canvas.seed_dots_y([100 * value for value in cell.accuracies], x, color)
        canvas.mean(x, 100 * cell.accuracy.mean, color, marker, v=in_points(cell.accuracy.low, cell.accuracy.high))
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
    cells = cells[:MAX_NAMES]
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
            color=head_style(cell.kind)[0],
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 2, "shrinkB": 5},
        )
