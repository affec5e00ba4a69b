"""Strict JSON (RFC 8259): no NaN, no infinity, no repeated key."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from ketfit.errors import InputError


def dump_json(value: Any, what: str, **format: Any) -> str:
    """Return `value` as JSON text.

    Args:
        value: A value of JSON types.
        what: Name of the value for the error, such as "the plan".
        format: Keyword arguments of `json.dumps`.

    Raises:
        InputError: a number in `value` is not finite; the error gives its path.

    >>> dump_json({"cost": {"price": float("inf")}}, "the plan")
    Traceback (most recent call last):
    ketfit.errors.InputError: cost.price of the plan is inf, which JSON cannot hold: give finite numbers
    """
    try:
        return json.dumps(value, allow_nan=False, **format)
    except ValueError:
        non_finite = _find_non_finite(value)
        if non_finite is None:
            raise
        name, number = non_finite
        raise InputError(f"{name} of {what} is {number}, which JSON cannot hold: give finite numbers") from None


def _find_non_finite(value: Any, name: str = "") -> tuple[str, float] | None:
    """Return the path and the value of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (name or "a number", value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    results = (_find_non_finite(inner, f"{name}.{key}".lstrip(".")) for key, inner in items)
    return next(filter(None, results), None)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, repeats a key, or holds NaN, an infinity or a number that overflows.
        RecursionError: the text is nested too deeply.

    >>> parse_json('{"shots": 100, "shots": 200}')
    Traceback (most recent call last):
    ValueError: the key 'shots' appears 2 times; remove all but one
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            key, count = Counter(key for key, _ in pairs).most_common(1)[0]
            raise ValueError(f"the key {key!r} appears {count} times; remove all but one")
        return table

    def reject_constant(token: str) -> None:
        raise ValueError(f"{token} is not JSON; write null or a number")

    def finite(token: str) -> float:
        number = float(token)
        if math.isinf(number):
            raise ValueError(f"{token} is not a finite number")
        return number

    return json.loads(text, object_pairs_hook=unique, parse_constant=reject_constant, parse_float=finite)
