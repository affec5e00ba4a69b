"""A plot of the energies with their bands, and of the sensitivities of the crossover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketfit.energy.crossover import FOLLOW_UP, MAX_QUBITS, PAPER, Crossover, CrossoverPoint
from ketfit.errors import optional_imports

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#1f5fa8", "#c4551b", "#6b7f2a", "#7a5195", "#4d4d4d", "#0f8b8d")
_DASHES = ("-", "-", (0, (3, 2)))  # curves of similar devices overlap
_MAX_SHIFTS = 8


def draw_comparison(points: Sequence[CrossoverPoint], crossover: Crossover) -> Figure:
    """Draw the joules of one inference against qubits, and the numbers that move the crossover most.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with optional_imports("Drawing the comparison", "draw"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

    with rc_context({"svg.hashsalt": "ketfit", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        for index, device in enumerate(dict.fromkeys(point.device for point in points)):
            color, dashes = _COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)]
            own = [point for point in points if point.device == device]
            x = [point.qubits for point in own]
            label = f"{device} ({own[0].kind})"
            left.plot(x, [point.joules for point in own], color=color, linewidth=1.8, linestyle=dashes, label=label)
            left.fill_between(x, [p.low for p in own], [p.high for p in own], color=color, alpha=0.13, lw=0)
        for qubits, name in ((PAPER, "paper, 46"), (FOLLOW_UP, "follow-up, 34")):
            left.axvline(qubits, color="#888888", linewidth=0.9, linestyle=(0, (4, 3)))
            left.text(qubits + 0.4, 0.02, name, transform=left.get_xaxis_transform(), rotation=90, va="bottom")
        left.set_yscale("log")
        left.set_xlabel("qubits")
        left.set_ylabel("joules of one inference")
        left.legend(loc="upper left", frameon=False)
        left.spines[["top", "right"]].set_visible(False)
        shifts = [shift for shift in crossover.shifts if shift.at_low != shift.at_high][:_MAX_SHIFTS]
        for index, shift in enumerate(shifts):
            ends = sorted(MAX_QUBITS if end is None else end for end in (shift.at_low, shift.at_high))
            right.plot(ends, [index, index], color=_COLORS[0], linewidth=7, solid_capstyle="butt")
            right.text(ends[1] + 0.3, index, shift.name.replace("_", " "), va="center")
        if crossover.qubits is not None:
            right.axvline(crossover.qubits, color="#222222", linewidth=0.9)
        right.set_ylim(max(len(shifts), 1) - 0.4, -0.7)
        right.set_yticks([])
        right.margins(x=0.9)
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_xlabel(f"crossover with {crossover.device} (qubits),\none number moved at a time")
        right.spines[["top", "right", "left"]].set_visible(False)
    return figure
