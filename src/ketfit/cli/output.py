"""What the command line prints: reports on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ketfit.errors import KetFitError
from ketfit.storage.strict_json import dump_json


def escape_unprintable() -> None:
    """Have characters that the encoding of stdout or stderr lacks printed as escapes, such as ``\\U0001f600``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_report(report: dict[str, Any], as_json: bool, table: RenderableType, hint: str | None = None) -> None:
    """A report as one JSON object, or as its table and a hint on stderr."""
    if as_json:
        print(dump_json(report, "the report"))  # noqa: T201
        return
    console().print(table)
    if hint:
        echo_stderr(hint)


def key_value_table(report: dict[str, Any]) -> Table:
    """A report as names and values, its nested tables one level down; what is None shows as none."""
    table = Table(show_header=False)
    for name, value in report.items():
        if isinstance(value, dict):
            for inner, figure in value.items():
                table.add_row(literal_text(f"{name}.{inner}"), literal_text(_shown(figure)))
        else:
            table.add_row(literal_text(name), literal_text(_shown(value)))
    return table


def evaluation_table(report: dict[str, Any]) -> Group:
    """What `ketfit evaluate` reports: its figures, its classes, and what was taken for what."""
    hidden = {"classes", "confusion"}
    if report["draws"] == 1:  # of one draw they say nothing
        hidden |= {"draws", "spread", "lowest", "highest"}
    figures = {name: value for name, value in report.items() if name not in hidden}
    classes = Table("class", "precision", "recall", "F1", "sentences", title="by class")
    confusion = Table("is / predicted as", title="confusion")
    for row in report["classes"]:
        shares = ("none" if row[name] is None else f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        classes.add_row(literal_text(str(row["label"])), *shares, f"{row['support']:,}")
        confusion.add_column(literal_text(str(row["label"])), justify="right")
    for row, counts in zip(report["classes"], report["confusion"], strict=True):
        confusion.add_row(literal_text(str(row["label"])), *(f"{count:,.6g}" for count in counts))
    return Group(key_value_table(figures), classes, confusion)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if value is None:
        return "none"
    if isinstance(value, tuple):  # a range, or sentences
        return ("; " if any(isinstance(part, str) for part in value) else " to ").join(map(_shown, value))
    return str(value)


def literal_text(text: str) -> Text:
    """Text as it is: a sentence in square brackets is no markup."""
    return Text(text)


def console() -> Console:
    """Standard output, as wide as the terminal."""
    return Console()


def echo_stderr(message: str) -> None:
    """A line on stderr."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)


def fail(error: KetFitError, code: int) -> NoReturn:
    """End with an error on stderr."""
    echo_stderr(f"error: {error}")
    sys.exit(code)
