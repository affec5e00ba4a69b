"""JSON that is written holds finite numbers alone, and an error says which one is not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ketfit.cli.output import print_report
from ketfit.errors import InputError
from ketfit.storage.strict_json import dump_json, parse_json


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "é"]}, [[]], "text", 1e308, -5e-324])
def test_dump_json_of_finite_values_equals_json_dumps(value: Any) -> None:
    assert dump_json(value, "it") == json.dumps(value)
    assert dump_json(value, "it", indent=1, sort_keys=True) == json.dumps(value, indent=1, sort_keys=True)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda number: number, "a number"),
        (lambda number: {"cost": {"price": number}}, "cost.price"),
        (lambda number: {"rows": [{"a": 1.0}, {"a": number}]}, "rows.1.a"),
        (lambda number: {"range": (0.0, number)}, "range.1"),
    ],
)
def test_dump_json_non_finite_number_raises_with_its_path(
    capsys: pytest.CaptureFixture[str], number: float, value: Any, place: str
) -> None:
    with pytest.raises(InputError, match=f"^{place} of the report is "):
        dump_json(value(number), "the report")
    with pytest.raises(InputError, match=f"^{place} of .* is "):
        print_report(value(number), True, "")
    assert capsys.readouterr().out == ""


def test_parse_json_rejects_what_the_standard_excludes() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, {"a": "ü"}]}') == {"a": [1, 2.5, None, True, {"a": "ü"}]}
    for text in ('{"a": 1, "a": 1}', "NaN", "[-Infinity]", "1e999", "[1,]", "{a: 1}"):
        with pytest.raises(ValueError, match=r"2 times|not JSON|Expecting|Illegal|finite"):
            parse_json(text)
