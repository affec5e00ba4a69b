"""Print the results of several heads: a table, a picture of their intervals and the conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from ketfit.cli.output import console, literal_text

if TYPE_CHECKING:
    from ketfit.evaluation.compare import HeadResult

MIN_BAR, MAX_BAR = 16, 60
"""Columns of the picture."""


def head_report(heads: Sequence[HeadResult], conclusions: Sequence[str], title: str) -> Group:
    """Return the table, the picture and the conclusions."""
    table = Table("head", "parameters", "test accuracy", "95 % interval", "fit", title=title)
    for head in heads:
        interval = "none" if head.interval is None else "{:.2%} to {:.2%}".format(*head.interval)
        row = (f"{head.parameters:,}", f"{head.test_accuracy:.2%}", interval, f"{head.fit_seconds:.1f} s")
        table.add_row(literal_text(head.name), *row)
    names = max(len(head.name) for head in heads)
    width = min(max(console().width - names - 2, MIN_BAR), MAX_BAR)
    picture = interval_bars(heads, width)
    return Group(table, literal_text("\n".join(["", *picture, "", *conclusions])))


def interval_bars(heads: Sequence[HeadResult], width: int) -> list[str]:
    r"""Return one line per head with its interval and its mean on a common axis, and the ends of the axis.

    Args:
        heads: The results.
        width: Columns of the axis.

    >>> from ketfit.evaluation.compare import HeadResult
    >>> rows = [HeadResult("a", 3, 0.6, (0.5, 0.7), 0.0), HeadResult("circuit", 3, 0.8, (0.7, 0.9), 0.0)]
    >>> print(*interval_bars(rows, 21), sep="\n")
    a        |----o----|
    circuit            |----o----|
             50.0 %         90.0 %
    """
    ends = [bound for head in heads for bound in (head.interval or (head.test_accuracy,))]
    low, high = min(ends), max(ends)
    scale = (width - 1) / (high - low) if high > low else 0.0
    names = max(len(head.name) for head in heads)
    lines = []
    for head in heads:
        first, last = (round((bound - low) * scale) for bound in head.interval or (head.test_accuracy,) * 2)
        bar = [" "] * first + ["-"] * (last - first + 1)
        bar[first] = bar[last] = "|"
        bar[round((head.test_accuracy - low) * scale)] = "o"
        lines.append(f"{head.name:{names}}  {''.join(bar)}")
    left, right = f"{100 * low:.1f} %", f"{100 * high:.1f} %"
    return [*lines, f"{'':{names}}  {left}{right:>{width - len(left)}}"]
