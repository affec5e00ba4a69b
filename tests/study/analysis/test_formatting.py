"""Test the text of numbers and names in reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketfit.study.analysis import formatting as fmt
from tests.study.results_in_memory import comparison_of

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("fraction", "digits", "plus", "text"),
    [
        (0.8830, 2, False, "88.30"),
        (-0.004, 1, False, f"{MINUS}0.4"),
        (0.012, 1, True, "+1.2"),
        (-0.00001, 2, False, "0.00"),
        (0.00001, 2, True, "0.00"),
    ],
)
def test_points_has_true_minus_and_no_signed_zero(fraction: float, digits: int, plus: bool, text: str) -> None:
    assert fmt.points(fraction, digits, plus) == text


@given(st.floats(-1, 1), st.integers(0, 4), st.booleans())
def test_points_equals_rounded_number(fraction: float, digits: int, plus: bool) -> None:
    text = fmt.points(fraction, digits, plus).replace(MINUS, "-")
    assert float(text) == pytest.approx(np.round(100 * fraction, digits), abs=1.01 * 10.0**-digits)
    assert ("+" in text) == (plus and float(text) > 0)


def test_interval_names_both_bounds_or_is_a_dash() -> None:
    assert fmt.interval(-0.01, 0.02, 1, True) == f"{MINUS}1.0 to +2.0"
    assert fmt.interval(0.004, 0.02) == "0.40 to 2.00"
    assert fmt.interval(None, None) == fmt.interval(0.1, None) == DASH


@pytest.mark.parametrize(
    ("p", "text", "equation"),
    [
        (0.0001, "< 0.001", "< 0.001"),
        (0.03, "0.030", "= 0.030"),
        (0.0342, "0.034", "= 0.034"),
        (0.095, "0.10", "= 0.10"),
        (0.214, "0.21", "= 0.21"),
        (0.999, "> 0.99", "> 0.99"),
        (None, DASH, DASH),
    ],
)
def test_p_value_has_two_digits_between_its_limits(p: float | None, text: str, equation: str) -> None:
    assert (fmt.p_value(p), fmt.p_value(p, equals=True)) == (text, equation)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.004, "4 ms"), (0.0951, "95 ms"), (1.96, "1.96 s"), (99.9, "99.9 s"), (123.0, "2 min 3 s"), (None, DASH)],
)
def test_seconds_has_a_fitting_unit(value: float | None, text: str) -> None:
    assert fmt.seconds(value) == text


def test_percent_and_margin_points_drop_trailing_zeros() -> None:
    assert fmt.percent(0.95) == "95\N{NO-BREAK SPACE}%" and fmt.percent(0.999) == "99.9\N{NO-BREAK SPACE}%"
    assert [fmt.margin_points(margin) for margin in (0.01, 0.005, 0.02)] == ["1 point", "0.5 points", "2 points"]


def test_count_uses_plural_and_thousands() -> None:
    assert [fmt.count(number, "seed") for number in (0, 1, 2, 1234)] == ["0 seeds", "1 seed", "2 seeds", "1,234 seeds"]


def test_utc_time_names_the_zone() -> None:
    assert fmt.utc_time("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04:05 UTC"


def test_join_names_uses_semicolons_if_a_name_has_a_comma() -> None:
    assert fmt.join_names(["a"]) == "a"
    assert fmt.join_names(["a", "b"]) == "a and b"
    assert fmt.join_names("abc") == "a, b and c"
    assert fmt.join_names(["a, b", "c", "d"]) == "a, b; c; and d"


def test_sentence_capitalizes_plain_words_only() -> None:
    assert fmt.sentence("quantum head") == "Quantum head"
    assert fmt.sentence("lr-2 wins") == "lr-2 wins"
    assert fmt.sentence("sLoRA wins") == "sLoRA wins"


def test_level_name_of_each_type() -> None:
    levels = (True, False, None, 0.03, 1e-05, 7, "mean")
    assert [fmt.level_name(level) for level in levels] == ["on", "off", "none", "0.03", "1e-05", "7", "mean"]


def test_names_of_factors_terms_and_settings_are_words() -> None:
    assert fmt.factor_name("head.n_qubits") == "qubits"
    assert fmt.factor_name("train.learning_rate") == "learning rate"
    assert fmt.term_name("head.n_qubits:train.epochs") == "qubits \N{MULTIPLICATION SIGN} epochs"
    assert fmt.setting_name({"head.encoder_layers": 2, "head.skip_connection": True}) == (
        "encoder layers 2, skip connection on"
    )
    assert fmt.setting_name({}) == ""


def test_cell_name_has_the_setting_in_brackets() -> None:
    comparison = comparison_of(0.0, 0.1, 0.5)
    assert fmt.cell_name(comparison) == "q"
