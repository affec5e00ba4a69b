"""Differences on one split against statsmodels and NumPy, and the conclusions in words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from ketfit.evaluation.paired_difference import PairedDifference, conclusions, differences_on_one_split


def test_differences_on_one_split_equal_statsmodels() -> None:
    rng = np.random.default_rng(0)
    correct = {name: rng.random(300) < share for name, share in (("base", 0.7), ("a", 0.8), ("b", 0.72), ("c", 0.55))}
    found = differences_on_one_split(correct, "base")
    assert [each.head for each in found] == ["a", "b", "c"]
    p_values = []
    for each in found:
        gaps = correct[each.head].astype(float) - correct["base"]
        half = norm.ppf(0.975) * gaps.std() / np.sqrt(len(gaps))
        assert each.difference == pytest.approx(gaps.mean(), abs=1e-12)
        assert each.interval == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-12)
        table = [[np.sum(correct[each.head] & correct["base"]), np.sum(gaps > 0)], [np.sum(gaps < 0), 0]]
        p_values.append(mcnemar(table, exact=True).pvalue)
    adjusted = multipletests(p_values, method="holm")[1]
    assert [each.adjusted_p for each in found] == pytest.approx(adjusted.tolist(), rel=1e-10)
    assert {each.head for each in found if each.is_shown} == {"a"}


def test_equal_heads_have_no_interval() -> None:
    correct = np.array([True, False, True])
    (found,) = differences_on_one_split({"base": correct, "same": correct}, "base")
    assert (found.difference, found.interval, found.adjusted_p) == (0.0, None, 1.0)
    assert conclusions([found], "base")[1] == "no difference from base is shown for same, +0.0 points"


def test_conclusions_name_better_worse_and_open_heads() -> None:
    found = [
        PairedDifference("better", 0.012, (0.003, 0.021), 0.01),
        PairedDifference("worse", -0.05, (-0.07, -0.03), 0.001),
        PairedDifference("open", 0.004, (-0.001, 0.009), 0.2),
    ]
    assert conclusions(found, "base") == [
        "better is better than base by 1.2 points [0.3, 2.1]",
        "worse is worse than base by 5.0 points [3.0, 7.0]",
        "no difference from base is shown for open, +0.4 points [-0.1, +0.9]",
    ]


def test_conclusions_without_better_head_call_reference_enough() -> None:
    found = [PairedDifference("open", 0.004, (0.001, 0.007), 0.06)]
    assert conclusions(found, "base")[0] == "base is enough: no head is shown to be better"


def test_conclusions_name_the_adjusted_p_if_the_interval_excludes_zero() -> None:
    (_, sentence) = conclusions([PairedDifference("a circuit", -0.015, (-0.024, -0.005), 0.09)], "a line")
    assert sentence == (
        "no difference from a line is shown for a circuit, -1.5 points [-2.4, -0.5] (p 0.09 after Holm's adjustment)"
    )
