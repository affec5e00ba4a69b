"""JSON as the standard has it, without NaN and infinities, which other readers refuse."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from ketfit.errors import InputError


def dump_json(value: Any, what: str, **format: Any) -> str:
    """Return `value` as JSON text.

    Args:
        value: Of JSON's types.
        what: What it is, for the error, such as "the plan".
        format: As for `json.dumps`.

    Raises:
        InputError: a number in it is not finite; the error says where it stands.

    >>> dump_json({"cost": {"price": float("inf")}}, "the plan")
    Traceback (most recent call last):
    ketfit.errors.InputError: cost.price of the plan is inf, which JSON cannot hold: give finite numbers
    """
    try:
        return json.dumps(value, allow_nan=False, **format)
    except ValueError:
        found = _not_finite(value)
        if found is None:
            raise
        name, number = found
        raise InputError(f"{name} of {what} is {number}, which JSON cannot hold: give finite numbers") from None


def _not_finite(value: Any, name: str = "") -> tuple[str, float] | None:
    """Return the place of the first number that is not finite, and the number."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (name or "a number", value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (_not_finite(inner, f"{name}.{key}".lstrip(".")) for key, inner in items)
    return next(filter(None, found), None)


def parse_json(text: str) -> Any:
    """JSON as the standard has it: no repeated key, no NaN and no infinity.

    Raises:
        ValueError: the text is anything else.
        RecursionError: it is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build the table of an object and refuse a key that appears twice."""
        table = dict(pairs)
        if len(table) < len(pairs):
            key, count = Counter(key for key, _ in pairs).most_common(1)[0]
            raise ValueError(f"the key {key!r} appears {count} times; remove all but one")
        return table

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON; write null or a number")

    def finite(token: str) -> float:
        """Read a number and refuse one that overflows to infinity."""
        number = float(token)
        if math.isinf(number):
            raise ValueError(f"{token} is not a finite number")
        return number

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
