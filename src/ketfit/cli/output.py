"""Print reports on stdout and messages on stderr."""

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
    r"""Print characters that the encoding of stdout or stderr lacks as escapes, such as ``\\U0001f600``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_report(report: dict[str, Any], as_json: bool, table: RenderableType, hint: str | None = None) -> None:
    """Print a report as one JSON object, or as its table, followed by a hint on stderr."""
    if as_json:
        print(dump_json(report, "the report"))  # noqa: T201
        return
    console().print(table)
    if hint:
        echo_stderr(hint)


def key_value_table(report: dict[str, Any]) -> Table:
    """Return a table of the names and values of a report, with one level of nesting."""
    table = Table(show_header=False)
    for name, value in report.items():
        if isinstance(value, dict):
            for inner, figure in value.items():
                table.add_row(literal_text(f"{name}.{inner}"), literal_text(_format_value(figure)))
        else:
            table.add_row(literal_text(name), literal_text(_format_value(value)))
    return table


def evaluation_table(report: dict[str, Any]) -> Group:
    """Return the tables of ``ketfit evaluate``: metrics, classes and confusion matrix."""
    hidden = {"classes", "confusion"}
    if report["draws"] == 1:
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


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ("; " if any(isinstance(part, str) for part in value) else " to ").join(map(_format_value, value))
    return str(value)


def literal_text(text: str) -> Text:
    """Return text that Rich prints literally, without markup in square brackets."""
    return Text(text)


def console() -> Console:
    """Return the console of stdout."""
    return Console()


def echo_stderr(message: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)


def fail(error: KetFitError, code: int) -> NoReturn:
    """Print an error on stderr and exit."""
    echo_stderr(f"error: {error}")
    sys.exit(code)
