"""Figures of the page of the paper's results, in the style of a study's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis
from ketfit.study.analysis.cells import Cell
from ketfit.study.report.plots import (
    ACCURACY,
    FIRST,
    INK,
    NAMES,
    SECOND,
    SOFT,
    Canvas,
    Panel,
    Sample,
    Style,
    effect_pictures,
    head_style,
    labelled_lines,
    level_positions,
    name_beside,
)

STYLES = (Style(FIRST, "o"), Style(SECOND, "s"), Style(INK, "D"), Style(FIRST, "^"), Style(SECOND, "v"))
WIDTH, HEIGHT, MAX_NAME = 560, 330, 34
LINES = ("logistic regression", "SVC (RBF)")
"""Baselines that are lines in figures without levels, where each baseline also has a mark."""

LIGHT = {"ink": "#1c1e22", "soft": "#565b64", "grid": "#e6e7ea", "first": "#0f5ea8", "second": "#b0440f"}
LIGHT |= {"band": "#edf0f4", "paper": "#fdfdfc"}
DARK = {"ink": "#e6e7e9", "soft": "#a7adb7", "grid": "#2b2f36", "first": "#74b6f3", "second": "#f09a60"}
DARK |= {"band": "#22272e", "paper": "#15171b"}
"""Colours of the style sheet of a report, for figures that are files."""


@dataclass(frozen=True)
class Point:
    """One mark of a figure: mean accuracy and interval for new draws and new sentences, as fractions."""

    body: str
    head: str
    factor: str | None
    level: Any
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class NamedPanel:
    """A panel with the name of its file and a title."""

    name: str
    title: str
    panel: Panel


@dataclass(frozen=True)
class Figure:
    """The panels of one result, their marks, and the caption."""

    panels: tuple[NamedPanel, ...]
    points: tuple[Point, ...]
    caption: str


def draw_study(name: str, analysis: Analysis, baselines: Sequence[Cell]) -> Figure:
    """Return the figure of a study: its effects, its levels, or its heads, on each body, beside the baselines."""
    if analysis.effects:
        return _draw_effects(name, analysis)
    panels: list[NamedPanel] = []
    points: list[Point] = []
    bodies = dict.fromkeys(cell.body for cell in analysis.cells if cell.accuracy)
    for body in bodies:
        cells = [cell for cell in analysis.cells if cell.body == body and cell.accuracy]
        lines = [cell for cell in baselines if cell.body == body and cell.kind != "quantum" and cell.accuracy]
        factors = dict.fromkeys(factor for cell in cells for factor in cell.levels)
        for factor in factors or (None,):
            key = f"paper-{name.replace('_', '-')}-{len(panels)}"
            canvas, mine = _draw_heads(cells, lines) if factor is None else _draw_levels(cells, lines, factor)
            what = "heads" if factor is None else fmt.factor_name(factor)
            title = f"Test accuracy of {what}, {body}" if factor is None else f"Test accuracy against {what}, {body}"
            panels.append(NamedPanel(key, title, canvas.panel(key, f"{title}: {_described(mine)}.")))
            points += mine
    level = fmt.percent(analysis.study["level"])
    lines_said = (
        " Lines with bands are the classical heads of the baselines, with the same intervals." if baselines else ""
    )
    caption = (
        f"Means over draws with {level} intervals for new draws and new sentences; small dots are draws.{lines_said}"
    )
    return Figure(tuple(panels), tuple(points), caption)


def _draw_effects(name: str, analysis: Analysis) -> Figure:
    panels, points, caption = [], [], ""
    for number, each in enumerate(analysis.effects):
        if each.effects is not None:
            picture = next(iter(effect_pictures(each, number)))
            key = f"paper-{name.replace('_', '-')}-{number}"
            caption = f"{picture.caption} The intervals are for new draws from the same sentences."
            panels.append(NamedPanel(key, picture.title, picture.panels[0]))
            points += [
                Point(each.body, each.head, "effect", term.name, term.effect, term.low, term.high)
                for term in each.effects.terms
            ]
    return Figure(tuple(panels), tuple(points), caption)


def _point(cell: Cell, factor: str | None) -> Point:
    assert cell.accuracy is not None
    bounds = (cell.crossed.low, cell.crossed.high) if cell.crossed else (None, None)
    varied = factor if factor in cell.levels else None
    level = None if varied is None else cell.levels[varied]
    return Point(cell.body, cell.head, varied, level, cell.accuracy.mean, *bounds)


def _sample(cell: Cell, point: Point) -> Sample:
    return Sample(cell.accuracies, point.mean, point.low, point.high)


def _described(points: Sequence[Point]) -> str:
    return "; ".join(
        f"{point.head}{'' if point.factor is None else f' {fmt.level_name(point.level)}'} {fmt.points(point.mean)} % "
        f"({fmt.interval(point.low, point.high)})"
        for point in points
    )


def _draw_levels(cells: Sequence[Cell], lines: Sequence[Cell], factor: str) -> tuple[Canvas, list[Point]]:
    """Draw accuracy against the levels of one factor; the other factors have the levels of the head's own setting."""
    series = {
        head: mine for head in dict.fromkeys(cell.head for cell in cells) if len(mine := _line(cells, head, factor)) > 1
    }
    canvas = Canvas(WIDTH, HEIGHT)
    levels = {fmt.level_name(cell.levels[factor]): cell.levels[factor] for mine in series.values() for cell in mine}
    ordered = sorted(levels.items(), key=lambda item: _order(item[1]))
    xs_of = level_positions(canvas.axes, [level for _, level in ordered])
    places = dict(zip([name for name, _ in ordered], xs_of, strict=True))
    points: list[Point] = []
    ends: list[tuple[float, float, str, str]] = []  # x, y, label, colour
    for (head, mine), style in zip(series.items(), STYLES, strict=False):
        own = [_point(cell, factor) for cell in mine]
        xs = [places[fmt.level_name(point.level)] for point in own]
        canvas.axes.plot(xs, [100 * point.mean for point in own], color=style.color, linewidth=1, zorder=2)
        for x, cell, point in zip(xs, mine, own, strict=True):
            canvas.mark(_sample(cell, point), x, style)
        ends.append((xs[-1], 100 * own[-1].mean, head, style.color))
        points += own
    points += _draw_lines(canvas, lines, "y")
    right = canvas.axes.get_xlim()[1]
    ends += [(right, 100 * cell.accuracy.mean, cell.head, SOFT) for cell in lines if cell.accuracy]
    name_beside(canvas, ends, MAX_NAME)
    canvas.axes.set(xlabel=fmt.factor_name(factor), ylabel=ACCURACY)
    canvas.axes.grid(axis="y")
    return canvas, points


def _line(cells: Sequence[Cell], head: str, factor: str) -> list[Cell]:
    """Return the cells of a head at all levels of a factor, at its own levels of the other factors."""
    mine = [cell for cell in cells if cell.head == head and factor in cell.levels]
    own = next((cell.levels for cell in mine if cell.standing), {})
    fitting = [cell for cell in mine if all(cell.levels[name] == own[name] for name in own if name != factor)]
    return sorted(fitting, key=lambda cell: _order(cell.levels[factor]))


def _order(level: Any) -> tuple[bool, float]:
    """Return the key that sorts levels: numbers by size, others behind them in the order of the plan."""
    number = isinstance(level, (int, float)) and not isinstance(level, bool)
    return (not number, float(level) if number else 0.0)


def _draw_lines(canvas: Canvas, lines: Sequence[Cell], axis: str) -> list[Point]:
    points = [_point(cell, None) for cell in lines]
    line, band = (
        (canvas.axes.axhline, canvas.axes.axhspan) if axis == "y" else (canvas.axes.axvline, canvas.axes.axvspan)
    )
    for point in points:
        line(100 * point.mean, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        if point.low is not None and point.high is not None:
            band(100 * point.low, 100 * point.high, color=SOFT, alpha=0.05, linewidth=0, zorder=0)
    return points


def _draw_heads(cells: Sequence[Cell], lines: Sequence[Cell]) -> tuple[Canvas, list[Point]]:
    """Draw the accuracy of each head, and of each baseline that the study lacks."""
    known = {cell.head for cell in cells}
    shown = [*cells, *(cell for cell in lines if cell.head not in known)]
    canvas, ys = labelled_lines([fmt.cell_name(cell) for cell in shown], ACCURACY)
    points = [_point(cell, None) for cell in shown]
    for cell, point, y in zip(shown, points, ys, strict=True):
        canvas.mark(_sample(cell, point), y, head_style(cell.kind), "x")
    _draw_lines(canvas, [cell for cell in lines if cell.head in LINES], "x")
    return canvas, points


def draw_energy(report: Mapping[str, Any]) -> Figure:
    """Return the figure of the energies of one inference, on the QPU and on the first device that simulates."""
    canvas = Canvas(WIDTH, HEIGHT)
    devices = list(dict.fromkeys(row["device"] for row in report["rows"]))[:2]
    for device, style in zip(devices, STYLES, strict=False):
        rows = [row for row in report["rows"] if row["device"] == device]
        xs = [row["qubits"] for row in rows]
        canvas.axes.plot(xs, [row["joules"] for row in rows], color=style.color, linewidth=1.6, label=device)
        low, high = ([row[end] for row in rows] for end in ("low", "high"))
        canvas.axes.fill_between(xs, low, high, color=style.color, alpha=0.13, linewidth=0)
    for qubits in report["published"].values():
        canvas.axes.axvline(qubits, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    canvas.axes.set_yscale("log")
    canvas.axes.set(xlabel="qubits", ylabel="joules of one inference")
    canvas.axes.legend(loc="upper left", frameon=False)
    title = f"Energy of one inference, {report['qpu']} against {report['against']}"
    low, high = report["range"]
    label = f"{title}: they cross at {report['crossover_qubits']} qubits ({low} to {high})."
    caption = (
        "Lines: all numbers at their values; bands: at the ends of their ranges. Dashed: the paper's estimate and its "
        "follow-up's measurement."
    )
    return Figure((NamedPanel("paper-energy-0", title, canvas.panel("paper-energy-0", label)),), (), caption)


def svg_file(named: NamedPanel) -> str:
    """Return a panel as a file with the colours of a report, light and dark."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colors.items()) for colors in (LIGHT, DARK))
    assert LIGHT.keys() == set(NAMES.values())
    style = f"<style>svg{{{light};--sans:sans-serif;font-family:sans-serif}}"
    style += f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, _, body = named.panel.svg.partition(">")
    namespace = '<svg xmlns="http://www.w3.org/2000/svg"'
    return f"{namespace}{head.removeprefix('<svg')}>{style}{body}\n"
