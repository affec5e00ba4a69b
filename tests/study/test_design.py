"""Test the points of designs and their balance."""

from __future__ import annotations

import importlib
import itertools
import sys

import numpy as np
import pytest

from ketfit.errors import ConfigError, MissingExtraError
from ketfit.study.design import design_points
from ketfit.study.spec import DesignPlan, LevelRange

SIX = {f"head.{name}": (0, 1) for name in "abcdef"}


def signs(points: list[dict], factors: dict) -> np.ndarray:
    return np.array([[2 * list(factors[name]).index(point[name]) - 1 for name in factors] for point in points])


def test_design_points_heads_returns_one_empty_point() -> None:
    assert design_points(DesignPlan(), {}) == [{}]


def test_design_points_scan_changes_one_factor_at_a_time() -> None:
    points = design_points(DesignPlan(kind="scan"), {"head.a": (1, 2, 3), "train.b": (0.1, 0.2)})
    assert points == [{}, {"head.a": 1}, {"head.a": 2}, {"head.a": 3}, {"train.b": 0.1}, {"train.b": 0.2}]


def test_design_points_full_returns_every_combination_once() -> None:
    factors = {"head.a": (1, 2, 3), "head.b": ("x", "y"), "head.c": (True, False)}
    points = design_points(DesignPlan(kind="full"), factors)
    assert {tuple(point.values()) for point in points} == set(itertools.product(*factors.values()))
    assert len(points) == 12


@pytest.mark.parametrize(
    ("design", "runs"),
    [
        (DesignPlan(kind="fractional", resolution=3), 8),
        (DesignPlan(kind="fractional", resolution=4), 16),
        (DesignPlan(kind="fractional", generators="a b c d e abcde"), 32),
        (DesignPlan(kind="plackett-burman"), 8),
    ],
)
def test_design_points_two_level_is_balanced_and_orthogonal(design: DesignPlan, runs: int) -> None:
    table = signs(design_points(design, SIX), SIX)
    assert len(table) == runs
    np.testing.assert_array_equal(table.T @ table, runs * np.eye(6))
    np.testing.assert_array_equal(table.sum(axis=0), 0)


def test_design_points_resolution_4_does_not_alias_main_effects() -> None:
    table = signs(design_points(DesignPlan(kind="fractional", resolution=4), SIX), SIX)
    for first, second in itertools.combinations(range(6), 2):
        np.testing.assert_array_equal(table.T @ (table[:, first] * table[:, second]), 0)


def test_design_points_generators_define_the_levels() -> None:
    factors = dict.fromkeys(("train.a", "train.b", "train.c"), (-1, 1))
    for point in design_points(DesignPlan(kind="fractional", generators="a b ab"), factors):
        assert point["train.c"] == point["train.a"] * point["train.b"]


def test_design_points_latin_hypercube_samples_every_slice_once() -> None:
    factors = {
        "train.rate": LevelRange(low=1e-4, high=1e-1, log=True),
        "train.decay": LevelRange(low=-1.0, high=1.0),
        "head.layers": LevelRange(low=1, high=4, integer=True),
        "head.kind": ("x", "y"),
    }
    points = design_points(DesignPlan(kind="latin-hypercube", samples=40, seed=3), factors)
    rates = np.sort(np.log10([point["train.rate"] for point in points]))
    np.testing.assert_array_equal(np.floor((rates + 4) / 3 * 40), np.arange(40))
    decays = np.sort([point["train.decay"] for point in points])
    np.testing.assert_array_equal(np.floor((decays + 1) / 2 * 40), np.arange(40))
    assert np.bincount([point["head.layers"] for point in points]).tolist() == [0, 10, 10, 10, 10]
    assert sorted(point["head.kind"] for point in points) == ["x"] * 20 + ["y"] * 20
    assert all(isinstance(point["head.layers"], int) for point in points)
    assert points == design_points(DesignPlan(kind="latin-hypercube", samples=40, seed=3), factors)
    assert points != design_points(DesignPlan(kind="latin-hypercube", samples=40, seed=4), factors)


def test_design_points_logarithmic_integers_are_uniform_in_the_logarithm() -> None:
    factors = {"head.shots": LevelRange(low=10, high=10_000, log=True, integer=True)}
    points = design_points(DesignPlan(kind="latin-hypercube", samples=300, seed=1), factors)
    shots = np.array([point["head.shots"] for point in points])
    assert np.histogram(shots, [10, 100, 1000, 10_001])[0] == pytest.approx([100, 100, 100], abs=3)
    assert all(isinstance(point["head.shots"], int) for point in points)


@pytest.mark.parametrize(
    ("design", "factors", "message"),
    [
        (DesignPlan(kind="fractional", resolution=7), SIX, "resolution=7 of 6 factors: no such fraction is known"),
        (DesignPlan(kind="fractional", generators="a b ab"), SIX, "are for 3 factors; the plan has 6"),
        (DesignPlan(kind="fractional", generators="a b c d e z1"), SIX, "no such fraction is known"),
        (
            DesignPlan(kind="full"),
            {f"head.{i}": (0, 1) for i in range(30)},
            "1,073,741,824 points, more than the limit of 100,000",
        ),
    ],
)
def test_design_points_impossible_design_raises_config_error(design: DesignPlan, factors: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        design_points(design, factors)


def test_design_import_without_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyDOE3", None)
    monkeypatch.delitem(sys.modules, "ketfit.study.design")
    with pytest.raises(MissingExtraError, match=r"pip install 'ketfit\[study\]'"):
        importlib.import_module("ketfit.study.design")
