"""Effects of designs: published examples, statsmodels and SciPy as oracles, and simulated data."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import pyDOE3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multivariate import test_mvmean as hotelling

from ketfit.errors import ConfigError, InputError, MissingExtraError
from ketfit.study.analysis.effects import (
    Design,
    Effects,
    check_estimable,
    confounded_interactions,
    half_normal,
    main_effects,
)
from ketfit.study.analysis.hypothesis_tests import holm
from tests.study.simulation import at_least, at_most

# Montgomery, Design and Analysis of Experiments: filtration rate (gal/h) of a 2^4 factorial in standard order.
FILTRATION = [45, 71, 48, 65, 68, 60, 80, 65, 43, 100, 45, 104, 75, 86, 70, 96]
ALL_WORDS = [word for size in (2, 3, 4) for word in combinations("ABCD", size)]

Point = dict[str, Any]


def factorial(names: str, levels: tuple[Any, ...] = (-1, 1)) -> list[Point]:
    """Return all points in standard order: the first factor changes fastest."""
    return [dict(zip(names, point[::-1], strict=True)) for point in product(levels, repeat=len(names))]


def estimate(points: Any, response: Any, *, error: Any = "residual", level: float = 0.95, **terms: Any) -> Effects:
    """Return the effects of a design with these points and terms."""
    return main_effects(Design(points, **terms), response, error=error, level=level)


def check(points: Any, **terms: Any) -> None:
    """Raise if the design with these points and terms cannot estimate them all."""
    check_estimable(Design(points, **terms))


def by_name(effects: Effects) -> dict[str, float]:
    return {term.name: term.effect for term in effects.terms}


# Effects


def test_main_effects_published_factorial_matches() -> None:
    """Montgomery, the filtration example of chapter 6: estimates of all fifteen effects."""
    published = {"A": 21.625, "B": 3.125, "C": 9.875, "D": 14.625, "A:B": 0.125, "A:C": -18.125, "A:D": 16.625}
    published |= {"B:C": 2.375, "B:D": -0.375, "C:D": -1.125, "A:B:C": 1.875, "A:B:D": 4.125, "A:C:D": -1.625}
    published |= {"B:C:D": -2.625, "A:B:C:D": 1.375}
    points = factorial("ABCD")
    saturated = estimate(points, FILTRATION, interactions=ALL_WORDS)
    assert by_name(saturated) == pytest.approx(published)
    assert (saturated.df, saturated.residual_spread, saturated.r_squared) == (0, None, pytest.approx(1))
    assert {(t.standard_error, t.low, t.statistic, t.p_value, t.p_adjusted) for t in saturated.terms} == {(None,) * 5}
    assert {source.p_value for source in saturated.sources} == {None}

    pairs = estimate(points, FILTRATION)
    assert by_name(pairs) == pytest.approx({name: size for name, size in published.items() if name.count(":") < 2})
    # The rest is the sum of squares of the five that were left out: 4 times the square of each.
    left = math.sqrt(4 * sum(size**2 for name, size in published.items() if name.count(":") > 1) / 5)
    assert (pairs.df, pairs.residual_spread) == (5, pytest.approx(left))
    assert pairs.terms[0].standard_error == pytest.approx(2 * left / math.sqrt(16))


def test_main_effects_published_fraction_matches() -> None:
    """Montgomery, chapter 8: the half of the filtration example with I = ABCD."""
    runs = [
        (point, y) for point, y in zip(factorial("ABCD"), FILTRATION, strict=True) if np.prod(list(point.values())) > 0
    ]
    points, response = zip(*runs, strict=True)
    pairs = [("A", "B"), ("A", "C"), ("A", "D")]
    found = by_name(estimate(points, response, interactions=pairs))
    published = {"A": 19.0, "B": 1.5, "C": 14.0, "D": 16.5, "A:B": -1.0, "A:C": -18.5, "A:D": 19.0}
    assert found == pytest.approx(published)
    with pytest.raises(ConfigError, match="cannot tell A:B from C:D; A:C from B:D; A:D from B:C: ask"):
        check(points)
    check(points, interactions=False)


def test_main_effects_published_blocks_match() -> None:
    """Montgomery, chapter 4, vascular grafts: four pressures, six batches of resin, F = 8.11, p = 0.0019, MSE 7.33."""
    yields = {
        8500: [90.3, 89.2, 98.2, 93.9, 87.4, 97.9],
        8700: [92.5, 89.5, 90.6, 94.7, 87.0, 95.8],
        8900: [85.5, 90.8, 89.6, 86.2, 88.0, 93.4],
        9100: [82.5, 89.5, 85.6, 87.4, 78.9, 90.7],
    }
    points = [{"pressure": pressure} for pressure in yields for _ in range(6)]
    found = estimate(points, np.concatenate(list(yields.values())), blocks=[*range(6)] * 4)
    (source,) = found.sources
    assert (source.name, source.df, source.df_error) == ("pressure", 3, 15)
    assert (source.statistic, source.p_value) == (pytest.approx(8.11, abs=0.005), pytest.approx(0.0019, abs=5e-5))
    assert found.residual_spread == pytest.approx(math.sqrt(7.33), abs=0.001)
    names = ["pressure[8700]", "pressure[8900]", "pressure[9100]"]
    means = [np.mean(yields[pressure]) - np.mean(yields[8500]) for pressure in (8700, 8900, 9100)]
    assert by_name(found) == pytest.approx(dict(zip(names, means, strict=True)))


def unbalanced() -> tuple[list[Point], list[int], np.ndarray]:
    rng = np.random.default_rng(0)
    points = list(product([2, 8], ["x", "y"], ["mean", "concat", "sum"])) * 3
    blocks = np.repeat([3, 5, 9], 12)
    kept = rng.permutation(36)[:31]
    rows = [dict(zip(("q", "wall", "merge"), points[k], strict=True)) for k in kept]
    return rows, blocks[kept].tolist(), rng.normal(size=31)


def test_main_effects_unbalanced_equals_statsmodels() -> None:
    points, blocks, y = unbalanced()
    found = estimate(points, y, blocks=blocks, level=0.9)
    frame = pd.DataFrame(points).assign(y=y, block=blocks)
    frame["q"] = frame["q"].map({2: -0.5, 8: 0.5})
    frame["wall"] = frame["wall"].map({"x": -0.5, "y": 0.5})
    fit = ols("y ~ q + wall + C(merge) + I(2 * q * wall) + C(block)", frame).fit()
    names = ["q", "wall", "C(merge)[T.mean]", "C(merge)[T.sum]", "I(2 * q * wall)"]
    assert [term.name for term in found.terms] == ["q", "wall", "merge[mean]", "merge[sum]", "q:wall"]
    assert [term.source for term in found.terms] == ["q", "wall", "merge", "merge", "q:wall"]
    intervals = fit.conf_int(0.1)
    for term, name in zip(found.terms, names, strict=True):
        oracle = (fit.params[name], fit.bse[name], *intervals.loc[name], fit.tvalues[name], fit.pvalues[name])
        assert dataclasses.astuple(term)[2:8] == pytest.approx(oracle)
    assert (found.n, found.df, found.level, found.error) == (31, fit.df_resid, 0.9, "residual")
    assert (found.residual_spread, found.r_squared) == pytest.approx((math.sqrt(fit.mse_resid), fit.rsquared))
    table = anova_lm(fit, typ=3)
    for source, name in zip(found.sources, ["q", "wall", "C(merge)", "I(2 * q * wall)"], strict=True):
        assert (source.statistic, source.p_value) == pytest.approx((table.loc[name, "F"], table.loc[name, "PR(>F)"]))
        assert (source.df, source.df_error) == (table.loc[name, "df"], fit.df_resid)
    for family in (found.terms, found.sources):
        assert [t.p_adjusted for t in family] == pytest.approx(holm([t.p_value for t in family]))  # type: ignore[misc]


def test_main_effects_named_interactions_of_three_levels() -> None:
    points, blocks, y = unbalanced()
    found = estimate(points, y, interactions=[("q", "merge")], blocks=blocks)
    frame = pd.DataFrame(points).assign(y=y, block=blocks)
    full = ols("y ~ C(q) * C(merge) + C(wall) + C(block)", frame).fit()
    small = ols("y ~ C(q) + C(merge) + C(wall) + C(block)", frame).fit()
    f, p_value, df = full.compare_f_test(small)
    assert [term.name for term in found.terms][-2:] == ["q:merge[mean]", "q:merge[sum]"]
    source = found.sources[-1]
    assert (source.name, source.df, source.statistic, source.p_value) == (
        "q:merge",
        df,
        *map(pytest.approx, (f, p_value)),
    )
    # Half of how much more q does with one merge than with the first.
    by_hand = full.params["C(q)[T.8]:C(merge)[T.sum]"] / 2
    assert by_name(found)["q:merge[sum]"] == pytest.approx(by_hand)


def test_main_effects_order_of_levels_sets_sign() -> None:
    points = [{"wall": wall, "q": q} for wall in (True, False) for q in ("ten", "two")]
    found = estimate(points, [4.0, 3.0, 2.0, 1.0], interactions=False)
    assert by_name(found) == pytest.approx({"wall": 2.0, "q": -1.0})
    turned = estimate(
        points, [4.0, 3.0, 2.0, 1.0], factors={"q": ["two", "ten"], "wall": [True, False]}, interactions=False
    )
    assert by_name(turned) == pytest.approx({"q": 1.0, "wall": -2.0})
    assert list(by_name(turned)) == ["q", "wall"]


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=24, max_size=24),
    st.floats(-5, 5),
    st.floats(0.1, 10),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_main_effects_are_linear_and_order_independent(y: list[float], shift: float, scale: float, random: Any) -> None:
    points, blocks = factorial("abc") * 3, [block for block in "xyz" for _ in range(8)]
    found = estimate(points, y, blocks=blocks)
    order = list(range(24))
    random.shuffle(order)
    moved = estimate(
        [points[k] for k in order],
        [y[k] * scale + shift + ord(blocks[k]) for k in order],
        blocks=[blocks[k] for k in order],
    )
    expected = {name: effect * scale for name, effect in by_name(found).items()}
    assert by_name(moved) == pytest.approx(expected, abs=1e-9)


def test_main_effects_saturated_design_has_no_error() -> None:
    points = factorial("ab") * 2
    exact = estimate(points, [point["a"] + 0.1 * point["b"] for point in points])
    assert by_name(exact) == pytest.approx({"a": 2.0, "b": 0.2, "a:b": 0.0}, abs=1e-12)
    assert exact.residual_spread is None
    assert {term.p_value for term in exact.terms} == {None}
    constant = estimate(points, [0.9] * 8)
    assert (constant.r_squared, constant.residual_spread) == (None, None)
    assert by_name(constant) == pytest.approx({"a": 0, "b": 0, "a:b": 0}, abs=1e-12)


# Errors over blocks


def test_main_effects_block_error_tests_effects_of_blocks() -> None:
    rng = np.random.default_rng(1)
    points = [{"a": a, "m": m} for a in (0, 1) for m in "xyz"]
    y = rng.normal(size=(7, 6))
    found = estimate(points * 7, y.ravel(), blocks=np.repeat(range(7), 6).tolist(), error="blocks", level=0.9)
    gains = y[:, 3:].mean(axis=1) - y[:, :3].mean(axis=1)
    oracle = stats.ttest_1samp(gains, 0)
    interval = oracle.confidence_interval(0.9)
    assert dataclasses.astuple(found.terms[0])[2:8] == pytest.approx(
        (gains.mean(), gains.std(ddof=1) / math.sqrt(7), interval.low, interval.high, oracle.statistic, oracle.pvalue)
    )
    assert (found.df, found.error) == (6, "blocks")
    merges = (y[:, :3] + y[:, 3:]) / 2
    joint = hotelling(merges[:, 1:] - merges[:, :1], np.zeros(2))
    source = found.sources[1]
    assert (source.df, source.df_error) == (2, 5)
    assert (source.statistic, source.p_value) == pytest.approx((joint.statistic, joint.pvalue))
    pooled = estimate(points * 7, y.ravel(), blocks=np.repeat(range(7), 6).tolist())
    assert by_name(found) == pytest.approx(by_name(pooled))


def test_main_effects_few_blocks_have_no_joint_test() -> None:
    points = [{"m": m} for m in "wxyz"]
    found = estimate(
        points * 3, np.random.default_rng(2).normal(size=12), blocks=[0] * 4 + [1] * 4 + [2] * 4, error="blocks"
    )
    assert found.sources[0].p_value is None
    assert all(term.p_value is not None for term in found.terms)


def test_main_effects_incomplete_block_is_named() -> None:
    points = factorial("ab") * 3
    blocks = [4] * 4 + [5] * 4 + [6] * 4
    with pytest.raises(ConfigError, match="block 6 lacks points of the design"):
        estimate(points[:-1], np.arange(11.0), blocks=blocks[:-1], error="blocks")
    assert estimate(points[:-1], np.arange(11.0), blocks=blocks[:-1]).df == 5


def simulated(rng: np.random.Generator, varies: float) -> tuple[list[Point], list[int], np.ndarray]:
    """Return 2^3 points for 5 seeds with effects 0.01, 0 and 0, each varying between seeds."""
    points = factorial("abc") * 5
    codes = np.array([[point[name] for name in "abc"] for point in points[:8]])
    slopes = np.array([0.005, 0, 0]) + varies * rng.normal(size=(5, 3))
    y = 0.9 + 0.02 * rng.normal(size=(5, 1)) + slopes @ codes.T + 0.01 * rng.normal(size=(5, 8))
    return points, np.repeat(range(5), 8).tolist(), y.ravel()


@pytest.mark.slow
@pytest.mark.parametrize(("error", "varies"), [("residual", 0.0), ("blocks", 0.0), ("blocks", 0.02)])
def test_main_effects_hold_level_and_cover(error: Any, varies: float) -> None:
    rng, count = np.random.default_rng(3), 600
    missed, rejected, family, joint = 0, 0, 0, 0
    for _ in range(count):
        points, blocks, y = simulated(rng, varies)
        found = estimate(points, y, blocks=blocks, error=error)
        a, b, *_ = found.terms
        missed += not a.low <= 0.01 <= a.high  # type: ignore[operator]
        rejected += b.p_value < 0.05  # type: ignore[operator]
        joint += found.sources[1].p_value < 0.05  # type: ignore[operator]
        family += min(term.p_adjusted for term in found.terms[1:]) < 0.05  # type: ignore[type-var]
    assert at_least(count, 0.05) <= missed <= at_most(count, 0.05)
    assert rejected == joint
    assert at_least(count, 0.05) <= rejected <= at_most(count, 0.05)
    assert family <= at_most(count, 0.05)


def test_main_effects_residual_error_rejects_too_often_if_effects_vary() -> None:
    rng = np.random.default_rng(4)
    runs = [simulated(rng, 0.02) for _ in range(200)]
    rejected = sum(estimate(p, y, blocks=b, interactions=False).terms[1].p_value < 0.05 for p, b, y in runs)  # type: ignore[operator]
    assert rejected > at_most(200, 0.1)


@pytest.mark.slow
def test_main_effects_joint_tests_hold_level() -> None:
    rng, count = np.random.default_rng(5), 500
    points, blocks = [{"m": m, "a": a} for m in "xyz" for a in "uv"] * 6, np.repeat(range(6), 6).tolist()
    for error in ("residual", "blocks"):
        rejected = 0
        for _ in range(count):
            y = rng.normal(size=36) + np.repeat(rng.normal(size=6), 6)
            rejected += estimate(points, y, blocks=blocks, error=error).sources[0].p_value < 0.05  # type: ignore[arg-type, operator]
        assert at_least(count, 0.05) <= rejected <= at_most(count, 0.05)


# Estimable terms


def test_check_estimable_resolution_three_names_aliases() -> None:
    half = [{"a": a, "b": b, "c": a * b} for a in (-1, 1) for b in (-1, 1)]
    with pytest.raises(ConfigError, match="cannot tell a from b:c; b from a:c; c from a:b: ask for fewer"):
        check(half)
    check(half, interactions=False)
    with pytest.raises(ConfigError, match="cannot tell c from a:b: "):
        check(half, interactions=[("a", "b")])


def test_confounded_interactions_bias_the_estimated_main_effects() -> None:
    """A response of one interaction alone moves exactly the main effects that the interaction is listed for."""
    points = [dict(zip("abcdefgh", map(int, row), strict=True)) for row in pyDOE3.pbdesign(8)]
    listed = confounded_interactions(Design(points))
    for one, other in combinations("abcdefgh", 2):
        effects = main_effects(Design(points, interactions=False), [point[one] * point[other] for point in points])
        moved = {term.name for term in effects.terms if abs(term.effect) > 1e-9}
        assert moved == {name for name in "abcdefgh" if f"{one}:{other}" in listed.get(name, [])}
        assert moved, "Plackett-Burman designs confound every interaction in part"


def test_confounded_interactions_of_a_full_design_are_none() -> None:
    points = [{"a": a, "b": b, "c": c} for a, b, c in product((0, 1), (0, 1), "xyz")]
    assert confounded_interactions(Design(points)) == {}


def test_check_estimable_three_aliases_are_one_group() -> None:
    quarter = [{**p, "e": p["a"] * p["b"] * p["c"], "f": p["b"] * p["c"] * p["d"]} for p in factorial("abcd")]
    with pytest.raises(ConfigError) as caught:
        check(quarter)
    groups = str(caught.value).removeprefix("this design cannot tell ").split(": ask")[0].split("; ")
    # Montgomery, the 2^(6-2) with E = ABC and F = BCD: its table of aliases among two-factor interactions.
    published = ["AB CE", "AC BE", "AD EF", "AE BC DF", "AF DE", "BD CF", "BF CD"]
    expected = {frozenset(":".join(word).lower() for word in line.split()) for line in published}
    assert {frozenset(group.split(" from ")) for group in groups} == expected


def test_check_estimable_finds_partial_aliases() -> None:
    """The 12 runs of Plackett and Burman (1946): each main effect is mixed with every interaction of the others."""
    row = [1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1]
    runs = [np.roll(row, k) for k in range(11)] + [np.full(11, -1)]
    points = [dict(zip("abcdefghijk", run.tolist(), strict=True)) for run in runs]
    check(points, interactions=False)
    with pytest.raises(ConfigError, match="a from b from .* and 54 more: "):
        check(points)
    five = [{name: point[name] for name in "abcd"} for point in points]
    check(five)  # four factors project to what can be estimated with all interactions


def test_check_estimable_factors_aliased_with_blocks_or_each_other() -> None:
    points = factorial("ab") + factorial("ab")
    with pytest.raises(ConfigError, match="cannot tell the blocks from a: "):
        check(points, blocks=[point["a"] for point in points])
    twins = [{"a": a, "b": a, "c": c} for a in (0, 1) for c in (0, 1)]
    with pytest.raises(ConfigError, match="cannot tell the mean from a:b; a from b; a:c from b:c: "):
        check(twins)
    holes = [{"m": m, "a": a} for m in "xyz" for a in (0, 1)][:-1]
    check(holes)
    with pytest.raises(ConfigError, match="m"):
        check(holes, interactions=[("m", "a")])


@given(st.lists(st.tuples(*[st.sampled_from([0, 1])] * 4), min_size=2, max_size=14))
@settings(max_examples=80, deadline=None)
def test_check_estimable_raises_exactly_if_rank_deficient(rows: list[tuple[int, ...]]) -> None:
    points = [dict(zip("abcd", row, strict=True)) for row in rows]
    if any(len({point[name] for point in points}) < 2 for name in "abcd"):
        return
    codes = np.array(rows) * 2 - 1
    words = [codes[:, list(word)].prod(axis=1) for size in (1, 2) for word in combinations(range(4), size)]
    matrix = np.column_stack([np.ones(len(rows)), *words])
    if np.linalg.matrix_rank(matrix) == 11:
        check(points)
        return
    with pytest.raises(ConfigError) as caught:
        check(points)
    # A term is named exactly if it can be changed without a change of any response.
    null = np.linalg.svd(matrix)[2][np.linalg.matrix_rank(matrix) :]
    names = ["the mean", *"abcd", *map(":".join, combinations("abcd", 2))]
    mixed = {name for name, part in zip(names, np.abs(null).max(axis=0), strict=True) if part > 1e-9}
    named = str(caught.value).removeprefix("this design cannot tell ").split(": ask")[0]
    assert {name for group in named.split("; ") for name in group.split(" from ")} == mixed


# Half-normal plots


def test_half_normal_published_factorial_matches() -> None:
    """Lenth (1989) on the filtration example, as in Montgomery: PSE = 2.625, ME = 6.748, SME = 13.699."""
    found = half_normal(estimate(factorial("ABCD"), FILTRATION, interactions=ALL_WORDS))
    assert found.pseudo_error == pytest.approx(2.625)
    assert (found.margin, found.simultaneous_margin) == pytest.approx((6.748, 13.699), abs=0.005)
    active = [name for name, size in zip(found.names, found.effects, strict=True) if size > found.margin]
    assert set(active) == {"A", "C", "D", "A:C", "A:D"}
    assert list(found.effects) == sorted(found.effects)
    assert found.names[-1] == "A"
    assert found.quantiles == pytest.approx([stats.halfnorm.ppf((k - 0.5) / 15) for k in range(1, 16)])


def test_half_normal_zero_effects_has_zero_margins() -> None:
    found = half_normal(estimate(factorial("ab"), [0.9] * 4))
    assert (found.pseudo_error, found.margin) == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.slow
def test_half_normal_margins_hold_level() -> None:
    rng, count = np.random.default_rng(6), 500
    points = factorial("abcd")
    words = [word for size in (2, 3, 4) for word in combinations("abcd", size)]
    one, any_ = 0, 0
    for _ in range(count):
        found = half_normal(estimate(points, rng.normal(size=16), interactions=words))
        one += dict(zip(found.names, found.effects, strict=True))["a"] > found.margin
        any_ += found.effects[-1] > found.simultaneous_margin
    assert 0 < one <= at_most(count, 0.05)
    assert 0 < any_ <= at_most(count, 0.05)


# Invalid input

AB = factorial("ab")
Y = [1.0, 2.0, 3.0, 4.5]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: estimate(AB, Y[:3]), "4 points but 3 responses"),
        (lambda: estimate(AB, [1.0, 2.0, math.nan, 4.0]), r"response\[2\] is not finite"),
        (lambda: estimate(AB, []), "response has the shape"),
        (lambda: estimate(AB, Y, blocks=[1, 2]), "4 points but 2 blocks"),
    ],
)
def test_invalid_array_raises_input_error(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check([]), "the design has no points"),
        (lambda: check([{"a": 1, "b": 2}, {"a": 1, "b": 3}]), r"factor a has the levels \[1\]"),
        (lambda: check([{"a": 1}, {"b": 2}]), r"point 1 has the factors \['b'\], not \['a'\]"),
        (lambda: check([{"a": 1}, {"a": "x"}]), "the levels of a cannot be sorted; .* factors="),
        (lambda: check([{"a": 1}, {"a": None}]), "the levels of a cannot be sorted"),
        (lambda: check(AB, factors={"a": [-1, 1]}), "point 0 has the factors"),
        (lambda: check(AB, factors={"a": [-1, 1], "b": [-1, 0, 1]}), r"levels \[-1, 0, 1\], but the points"),
        (lambda: check(AB, factors={"a": [-1, 1], "b": [-1, 1, 1]}), "but the points have"),
        (lambda: check(AB, factors={"a": [-1, 1], "b": []}), r"factor b has the levels \[\]"),
        (lambda: check(AB, interactions=[("a", "z")]), r"\('a', 'z'\) must name two or more of .* a, b"),
        (lambda: check(AB, interactions=[("a", "a")]), "must name two or more"),
        (lambda: check(AB, interactions=[("a",)]), "must name two or more"),
        (lambda: check(AB, interactions=["ab"]), "must name two or more"),  # type: ignore[list-item]
        (lambda: estimate(AB, Y, error="none"), "error 'none' is not possible"),  # type: ignore[arg-type]
        (lambda: estimate(AB, Y, error="blocks"), "'blocks' with at least two blocks"),
        (lambda: estimate(AB, Y, error="blocks", blocks=[1] * 4), "'blocks' with at least two blocks"),
        (lambda: estimate(AB, Y, level=95), "level is 95"),
        (lambda: estimate(AB[:3], Y[:3]), "cannot tell"),
        (lambda: half_normal(estimate(AB, Y, interactions=False)), "three or more effects"),
        (lambda: half_normal(estimate([{"m": m} for m in "wxyz"], Y)), "all of two-level factors"),
        (lambda: half_normal(estimate(AB, Y), level=0), "level is 0"),
    ],
)
def test_invalid_setting_raises_config_error(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()


def test_effects_are_frozen_and_json() -> None:
    found = estimate(factorial("abc"), [1.0, 2.0, 4.0, 3.0, 5.0, 7.0, 6.0, 9.0])
    for value in (found, half_normal(found)):
        text = json.dumps(dataclasses.asdict(value), allow_nan=False)
        assert json.loads(text) == json.loads(json.dumps(dataclasses.asdict(value)))
    assert type(found.df) is int
    assert all(type(value) in (float, str) for value in dataclasses.astuple(found.terms[0]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.n = 3  # type: ignore[misc]


def test_main_effects_without_statsmodels_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.regression.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"effects of factors .* pip install 'ketfit\[study\]'"):
        main_effects(Design([{"a": 0}, {"a": 1}]), [1.0, 3.0])
