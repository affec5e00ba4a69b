"""The table and the picture of several heads."""

from __future__ import annotations

import pytest
from rich.console import Console

from ketfit.cli.head_table import head_report, interval_bars
from ketfit.evaluation.compare import HeadResult

HEADS = [
    HeadResult("logistic [regression]", 385, 0.75, (0.7, 0.8), 0.0),
    HeadResult("circuit", 751, 0.85, (0.75, 0.9), 1.234),
]


def test_interval_bars_share_one_axis() -> None:
    first, second, axis = interval_bars(HEADS, 41)
    offset = len("logistic [regression]") + 2
    assert first[offset:] == "|---------o---------|"
    assert second[offset:].rstrip() == " " * 10 + "|" + "-" * 19 + "o" + "-" * 9 + "|"
    assert axis.split() == ["70.0", "%", "90.0", "%"]
    assert len(axis) == offset + 41


@pytest.mark.parametrize("interval", [None, (0.5, 0.5)])
def test_interval_bars_without_width_show_mean(interval: tuple[float, float] | None) -> None:
    line, axis = interval_bars([HeadResult("head", 3, 0.5, interval, 0.0)], 20)
    assert line == "head  o"
    assert axis.split() == ["50.0", "%", "50.0", "%"]


def test_head_report_prints_names_literally_and_without_color() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(head_report([*HEADS, HeadResult("same", 3, 0.8, None, 0.0)], ["circuit [is] better"], "title"))
    out = capture.get()
    assert "\x1b" not in out
    assert out.count("logistic [regression]") == 2
    assert "circuit [is] better" in out
    assert "75.00% to 90.00%" in out
    assert "none" in out
