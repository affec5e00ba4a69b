"""Numbers and names as text, for the report of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketfit.study.analysis.cells import Cell
    from ketfit.study.analysis.comparisons import HeadComparison
    from ketfit.study.analysis.trends import Trend

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def signed(text: str) -> str:
    """Replace the hyphen of a number's text by a minus sign; drop the sign of a zero."""
    return (text if text.strip("+-0.") else text.lstrip("+-")).replace("-", MINUS)


def points(fraction: float, digits: int = 2, plus: bool = False) -> str:
    """Return a fraction in percentage points or per cent.

    >>> points(0.883), points(0.012, plus=True)
    ('88.30', '+1.20')
    """
    return signed(f"{100 * fraction:{'+' if plus else ''}.{digits}f}")


def interval(low: float | None, high: float | None, digits: int = 2, plus: bool = False) -> str:
    """Return an interval as ``0.40 to 2.00``, or a dash without bounds."""
    if low is None or high is None:
        return NONE
    return f"{points(low, digits, plus)} to {points(high, digits, plus)}"


def p_value(p: float | None, equals: bool = False) -> str:
    """Return a p-value as ``0.034``, ``0.21`` or ``< 0.001``; with `equals` as ``= 0.034``."""
    if p is None:
        return NONE
    if p < 0.001:
        return "< 0.001"
    text = "> 0.99" if p > 0.99 else f"{p:.2f}" if p >= 0.095 else f"{p:.3f}"
    return f"= {text}" if equals and text[0] == "0" else text


def percent(level: float) -> str:
    """Return a level as ``95 %``, with a no-break space."""
    return f"{100 * level:g}\N{NO-BREAK SPACE}%"


def seconds(value: float | None) -> str:
    """Return a time as ``4 ms``, ``1.96 s`` or ``2 min 3 s``."""
    if value is None:
        return NONE
    if value < 0.1:
        return f"{1000 * value:.2g} ms"
    if value < 100:
        return f"{value:.3g} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def utc_time(text: str) -> str:
    """Return an ISO time in UTC as ``2026-01-01 00:00:00 UTC``."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 seed``, ``2 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_names(names: Iterable[str]) -> str:
    """Join names as ``a, b and c``, with semicolons if a name contains a comma."""
    *first, last = names
    if len(first) > 1 and any("," in name for name in (*first, last)):
        return "; ".join([*first, f"and {last}"])
    return f"{', '.join(first)} and {last}" if first else last


def sentence(text: str) -> str:
    """Capitalize the first letter if the first word is a plain lower-case word."""
    word = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if word.isalpha() and word.islower() else text


def margin_points(margin: float) -> str:
    """Return a margin as ``1 point`` or ``0.5 points``."""
    number = f"{100 * margin:.4g}"
    return f"{number} point{'' if number == '1' else 's'}"


def level_name(level: Any) -> str:
    """Return a level as text: ``on``, ``none``, ``0.03``."""
    if level is None:
        return "none"
    if isinstance(level, bool):
        return "on" if level else "off"
    return f"{level:.4g}" if isinstance(level, float) else str(level)


def factor_name(factor: str) -> str:
    """Return ``head.encoder_layers`` as ``encoder layers``.

    >>> factor_name("data.per_label")
    'sentences per label'
    """
    if factor == "data.per_label":
        return "sentences per label"
    return (factor.partition(".")[2].removeprefix("n_") or factor).replace("_", " ")


def trend_unit(trend: Trend) -> str:
    """Return the unit of a trend's slope: ``per doubling``, ``per step of 1``."""
    return "per doubling" if trend.scale == "log2" else f"per step of {trend.step:g}"


def term_name(term: str) -> str:
    """Return a term of a fitted model as ``encoder layers x connectivity``."""
    return " \N{MULTIPLICATION SIGN} ".join(factor_name(part) for part in term.split(":"))


def setting_name(levels: Mapping[str, Any]) -> str:
    """Return levels as ``encoder layers 2, connectivity 3``."""
    return ", ".join(f"{factor_name(factor)} {level_name(level)}" for factor, level in levels.items())


def cell_name(cell: Cell | HeadComparison) -> str:
    """Return the head of a cell or a comparison with its setting in brackets."""
    return f"{cell.head} ({cell.setting})" if cell.setting else cell.head
