"""What a report looks like to people."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ketfit.cli.output import key_value_table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        (0.123456, "0.1235"),
        ((1.0, 2.55555), "1 to 2.556"),
        ([0.38658150076225317, 0.7811934676271829], "0.3866, 0.7812"),
        (["negative", "positive"], "negative, positive"),
        (("price: a list, 2025 to date", "times: b"), "price: a list, 2025 to date; times: b"),
        (3, "3"),
        ("[bold]", "[bold]"),
    ],
)
def test_key_value_table_formats_values(value: Any, shown: str) -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(key_value_table({"name": value, "table": {"inner": value}}))
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in drawn.getvalue().splitlines()[1:-1]]
    assert rows == [["name", shown], ["table.inner", shown]]
