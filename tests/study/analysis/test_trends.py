"""Test the trends of a study against least squares, mixed models and simulations with a known slope."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from ketfit.errors import ConfigError, InputError
from ketfit.study.analysis.analysis import Analysis, analyse
from ketfit.study.analysis.hypothesis_tests import crossed_test, holm
from ketfit.study.analysis.trends import Trend, TrendRun, adjust_trends, natural_scale, trend_test
from ketfit.study.spec import StudyPlan
from ketfit.study.store import StudyRecord
from ketfit.study.task import Task
from tests.study.results_in_memory import Results, accuracy_of, failed_result, study_in_memory
from tests.study.simulation import at_least, at_most
from tests.study.synthetic_studies import study_settings

SCAN = {"design": {"kind": "scan"}}
QUBITS = {"factors": {"head.n_qubits": [4, 5, 6, 8]}, **SCAN}


def simulate(
    rng: np.random.Generator,
    slope: float,
    levels: tuple[float, ...] = (0, 1, 2, 3),
    n_seeds: int = 5,
    size: int = 200,
    missing: frozenset[tuple[int, float]] = frozenset(),
    shared: bool = True,
    spread: float = 0.02,
) -> list[list[TrendRun]]:
    """Return runs with a known slope of their accuracy, with effects of seeds and of sentences on level and slope."""
    pool = np.arange(size)
    hard, steep = rng.normal(0, 0.15, size), rng.normal(0, 0.04, size)
    hard, steep = hard - hard.mean(), steep - steep.mean()
    seeds = []
    for seed in range(n_seeds):
        start, extra = rng.normal(0, 2 * spread), rng.normal(0, spread)
        runs = []
        for x in levels:
            p = 0.6 + start + hard + (slope + extra + steep) * (x - np.mean(levels))
            positions = pool if shared else pool + seed * size
            if (seed, x) not in missing:
                runs.append(TrendRun(x, rng.random(size) < np.clip(p, 0, 1), positions))
        seeds.append(runs)
    return seeds


def table_of(seeds: list[list[TrendRun]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"seed": seed, "x": run.x, "line": run.line, "y": run.correct.mean()}
        for seed, runs in enumerate(seeds)
        for run in runs
    )


MISSING = frozenset({(0, 3), (1, 0), (1, 1), (2, 2)})


@pytest.mark.parametrize("missing", [frozenset(), MISSING])
def test_trend_test_slope_equals_least_squares_with_seed_dummies(missing: frozenset[tuple[int, float]]) -> None:
    seeds = simulate(np.random.default_rng(1), 0.03, missing=missing)
    fit = smf.ols("y ~ x + C(seed)", table_of(seeds)).fit()
    test = trend_test(seeds)
    assert test.difference == pytest.approx(fit.params["x"], abs=1e-12)
    assert sum(test.weights) == pytest.approx(1)
    for runs, slope in zip(seeds, test.slopes, strict=True):
        fitted = np.polyfit([run.x for run in runs], [run.correct.mean() for run in runs], 1)
        assert slope == pytest.approx(fitted[0], abs=1e-12)


def test_trend_test_without_common_sentences_equals_t_test_of_slopes() -> None:
    test = trend_test(simulate(np.random.default_rng(2), 0.02, shared=False), level=0.9)
    found = stats.ttest_1samp(test.slopes, 0)
    low, high = found.confidence_interval(0.9)
    assert (test.statistic, test.p_value) == pytest.approx((found.statistic, found.pvalue))
    assert (test.low, test.high, test.df) == pytest.approx((low, high, 4))
    assert test.sentence_error == 0


@pytest.mark.parametrize("missing", [frozenset(), MISSING])
def test_trend_test_agrees_with_mixed_model(missing: frozenset[tuple[int, float]]) -> None:
    rng = np.random.default_rng(3)
    seeds = simulate(rng, 0.02, n_seeds=12, size=400, shared=False, spread=0.04, missing=missing)
    table = table_of(seeds).assign(y=lambda each: 100 * each["y"])
    fit = smf.mixedlm("y ~ x", table, groups=table["seed"], re_formula="~x").fit(reml=True)
    test = trend_test(seeds)
    slope, error = fit.fe_params["x"] / 100, fit.bse_fe["x"] / 100
    if not missing:  # with all levels for all seeds they are the same
        assert (test.difference, test.standard_error) == pytest.approx((slope, error), rel=1e-3)
    assert abs(test.difference - slope) < 0.3 * error
    assert test.standard_error == pytest.approx(error, rel=0.25)


def test_trend_test_missing_levels_equals_cr2_of_bell_and_mccaffrey() -> None:
    seeds = simulate(np.random.default_rng(4), 0.03, missing=MISSING, shared=False)
    table = table_of(seeds)
    x = (table["x"] - table.groupby("seed")["x"].transform("mean")).to_numpy()
    y = (table["y"] - table.groupby("seed")["y"].transform("mean")).to_numpy()
    total, rows = x @ x, [np.flatnonzero(table["seed"] == seed) for seed in range(5)]
    residual_maker = np.eye(len(x)) - np.outer(x, x) / total
    # One vector per seed: the residuals' contribution to the score, made unbiased by (I - H_jj)^(-1/2).
    contributions = []
    for part in rows:
        values, vectors = np.linalg.eigh(residual_maker[np.ix_(part, part)])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        vector = np.zeros(len(x))
        vector[part] = root @ x[part]
        contributions.append(residual_maker @ vector)
    variance = sum((vector @ y) ** 2 for vector in contributions) / total**2
    # Satterthwaite, with residuals about the means of the seeds
    within = np.eye(len(x))
    for part in rows:
        within[np.ix_(part, part)] -= 1 / len(part)
    gram = np.array([[one @ within @ other for other in contributions] for one in contributions])
    test = trend_test(seeds)
    assert test.seed_error**2 == pytest.approx(variance)
    assert test.df == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum())


def test_trend_test_of_two_levels_equals_crossed_test() -> None:
    seeds = simulate(np.random.default_rng(5), 0.05, levels=(1, 3))
    sentences = [runs[0].sentences for runs in seeds]
    difference = crossed_test([runs[1].correct for runs in seeds], [runs[0].correct for runs in seeds], sentences)
    test = trend_test(seeds)
    for name in ("difference", "standard_error", "low", "high", "seed_error", "sentence_error"):
        assert 2 * getattr(test, name) == pytest.approx(getattr(difference, name))
    assert (test.df, test.p_value, test.n_sentences) == pytest.approx((difference.df, difference.p_value, 200))


def test_trend_test_flat_without_spread_has_p_one() -> None:
    right = np.arange(20) < 15
    test = trend_test([[TrendRun(x, right, np.arange(20)) for x in range(3)]] * 3)
    assert (test.difference, test.p_value, test.low) == (0, 1, None)


def test_trend_test_compares_runs_of_one_line_only() -> None:
    rng = np.random.default_rng(6)
    easy, hard = simulate(rng, 0.05), simulate(rng, 0.05)
    lines = [
        [run._replace(line="a") for run in one] + [run._replace(x=run.x + 4, line="b") for run in other[:3]]
        for one, other in zip(easy, hard, strict=True)
    ]
    table = table_of(lines)
    fit = smf.ols("y ~ x + C(seed):C(line)", table).fit()
    assert trend_test(lines).difference == pytest.approx(fit.params["x"], abs=1e-12)


def test_trend_test_leaves_out_seeds_with_one_level_and_sentences_that_only_some_runs_test() -> None:
    seeds = simulate(np.random.default_rng(7), 0.05, n_seeds=3)
    cut = [
        [run if run.x else run._replace(correct=run.correct[50:], sentences=run.sentences[50:]) for run in runs]
        for runs in seeds
    ]
    kept = [[run._replace(correct=run.correct[50:], sentences=run.sentences[50:]) for run in runs] for runs in seeds]
    assert trend_test([*cut, seeds[0][:1]]) == trend_test(kept)


def test_trend_test_of_holdouts_is_wider() -> None:
    seeds = simulate(np.random.default_rng(8), 0.02)
    plain, corrected = trend_test(seeds), trend_test(seeds, test_train_ratio=3.0)
    assert corrected.difference == plain.difference
    assert corrected.standard_error == pytest.approx(plain.seed_error * math.sqrt(1 + 3.0 * 5))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda seeds: trend_test(seeds[:1]), InputError, "1 of 1 seeds have runs at two levels"),
        (lambda seeds: trend_test([seeds[0], seeds[1][:1]]), InputError, "1 of 2 seeds have runs at two levels"),
        (lambda seeds: trend_test(seeds, level=1.5), ConfigError, "level is 1.5"),
        (lambda seeds: trend_test(seeds, test_train_ratio=-1), ConfigError, "test_train_ratio is -1"),
        (
            lambda seeds: trend_test([[seeds[0][0], seeds[0][1]._replace(sentences=np.arange(300, 500))], *seeds]),
            InputError,
            "fewer than two test sentences in common",
        ),
    ],
)
def test_trend_test_invalid_input_raises(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(simulate(np.random.default_rng(9), 0.0, n_seeds=2))


@pytest.mark.slow
@pytest.mark.parametrize("missing", [frozenset(), MISSING])
def test_trend_test_holds_level_and_covers(missing: frozenset[tuple[int, float]]) -> None:
    rng, count = np.random.default_rng(10), 600
    flat = [trend_test(simulate(rng, 0.0, missing=missing)) for _ in range(count)]
    assert sum(test.p_value < 0.05 for test in flat) <= at_most(count, 0.06)
    steep = [trend_test(simulate(rng, 0.04, missing=missing)) for _ in range(count)]
    covered = sum(test.low is not None and test.low <= 0.04 <= (test.high or 0) for test in steep)
    assert covered >= at_least(count, 0.94)
    assert np.mean([test.difference for test in steep]) == pytest.approx(0.04, abs=0.002)


@pytest.mark.parametrize(
    ("levels", "scale"),
    [
        ([10, 11, 12, 13, 14, 15, 16], "linear"),
        ([6, 7, 8, 9, 10, 12, 14, 16], "linear"),
        ([5, 10, 15], "linear"),
        ([1, 2, 3, 4], "linear"),
        ([1, 2], "linear"),
        ([1, 2, 4, 8], "log2"),
        ([8, 1, 3], "log2"),
        ([1, 2, 3, 5], "log2"),
        ([0.01, 0.03, 0.1], "log2"),
        ([100, 1000], "log2"),
        ([0, 1, 2], "linear"),
        ([0.0, 0.01], "linear"),
        ([-1.0, 8.0], "linear"),
    ],
)
def test_natural_scale_follows_spacing_of_levels(levels: list[float], scale: str) -> None:
    assert natural_scale(levels) == scale


def rising(task: Task) -> float:
    return accuracy_of(task) + 0.02 * (task.levels.get("head.n_qubits", 4) - 6)


def trends_of(study: tuple[StudyRecord, Results]) -> tuple[Trend, ...]:
    return analyse(*study).trends


def accuracies(study: tuple[StudyRecord, Results], factor: str) -> dict[int, tuple[list[float], list[float]]]:
    """Return levels and accuracies by seed, of the tasks with a result."""
    record, results = study
    found: dict[int, tuple[list[float], list[float]]] = {}
    for task in record.tasks:
        if factor in task.levels and (result := results[task.id].result) is not None:
            xs, ys = found.setdefault(task.seed, ([], []))
            xs.append(task.levels[factor])
            ys.append(result["test_accuracy"])
    return found


def test_find_trends_of_a_scan_have_the_slope_of_the_rows() -> None:
    study = study_in_memory(rising, **QUBITS)
    (trend,) = trends_of(study)
    assert (trend.body, trend.head, trend.factor) == ("body-a", "quantum", "head.n_qubits")
    assert (trend.levels, trend.scale, trend.step, trend.seeds) == ((4, 5, 6, 8), "linear", 1, (0, 1, 2, 3, 4))
    slopes = [np.polyfit(xs, ys, 1)[0] for xs, ys in accuracies(study, "head.n_qubits").values()]
    assert trend.slopes == pytest.approx(slopes)
    assert trend.slope == pytest.approx(np.mean(slopes)) and trend.slope == pytest.approx(0.02, abs=0.003)
    assert trend.test is not None and trend.test.low is not None and 0 < trend.test.low < 0.02
    assert trend.adjusted_p == trend.test.p_value < 0.001


def test_find_trends_of_a_flat_factor_has_no_significance() -> None:
    (trend,) = trends_of(study_in_memory(**QUBITS))
    assert trend.test is not None and (trend.slope, trend.test.p_value, trend.test.low) == (0, 1, None)
    noise = np.random.default_rng(0)
    (trend,) = trends_of(study_in_memory(lambda task: accuracy_of(task) + noise.normal(0, 0.02), **QUBITS))
    assert trend.test is not None and trend.test.p_value > 0.05
    assert trend.test.low is not None and trend.test.low < 0 < (trend.test.high or 0)


def test_find_trends_doubling_levels_use_the_logarithm() -> None:
    factors = {"head.encoder_layers": [1, 2, 4, 8], "train.weight_decay": [0.0, 0.01, 0.02]}

    def accuracy(task: Task) -> float:
        return accuracy_of(task) + 0.02 * math.log2(task.levels.get("head.encoder_layers", 1))

    layers, decay, *others = trends_of(study_in_memory(accuracy, factors=factors, **SCAN))
    assert layers.scale == "log2" and layers.slope == pytest.approx(0.02, abs=0.003)
    assert (decay.scale, decay.step) == ("linear", 0.01) and abs(decay.slope) < 0.01
    assert not others
    assert (layers.adjusted_p, decay.adjusted_p) == holm([each.test.p_value for each in (layers, decay) if each.test])


def test_find_trends_plan_chooses_the_scale() -> None:
    report = {"trends": {"head.n_qubits": "log2"}}
    study = study_in_memory(rising, **QUBITS, report=report)
    (trend,) = trends_of(study)
    slopes = [np.polyfit(np.log2(xs), ys, 1)[0] for xs, ys in accuracies(study, "head.n_qubits").values()]
    assert trend.scale == "log2" and trend.slopes == pytest.approx(slopes)


def test_find_trends_missing_level_is_missing_in_its_seeds_only() -> None:
    record, results = study_in_memory(rising, **QUBITS)
    failed = {task.id for task in record.tasks if task.seed == 2 and task.levels.get("head.n_qubits") in (6, 8)}
    absent = {task.id for task in record.tasks if task.seed == 3 and task.levels.get("head.n_qubits") != 4}
    partial = {
        name: failed_result(result) if name in failed else result
        for name, result in results.items()
        if name not in absent
    }
    (trend,) = trends_of((record, partial))
    assert (trend.seeds, trend.levels) == ((0, 1, 2, 4), (4, 5, 6, 8))
    assert trend.test is not None and trend.test.weights[2] < min(trend.test.weights[:2])
    rows = accuracies(
        (record, {**results, **partial, **{name: failed_result(results[name]) for name in absent}}), "head.n_qubits"
    )
    table = pd.DataFrame({"seed": seed, "x": xs, "y": ys} for seed, (xs, ys) in rows.items()).explode(["x", "y"])
    fit = smf.ols("y ~ x + C(seed)", table.astype(float)).fit()
    assert trend.slope == pytest.approx(fit.params["x"], abs=1e-12)


def test_find_trends_two_levels_is_the_difference() -> None:
    factors = {"head.n_qubits": [5, 7]}
    analysis = analyse(*study_in_memory(rising, factors=factors, **SCAN))
    (trend,), difference = analysis.trends, analysis.scans[0].points[1].difference
    assert difference is not None and trend.slope == pytest.approx(difference.difference / 2)
    assert trend.test is not None and trend.test.p_value == pytest.approx(difference.p_value)


def test_find_trends_of_one_seed_have_no_test() -> None:
    (trend,) = trends_of(study_in_memory(rising, **QUBITS, seeds=1))
    assert trend.test is None and trend.adjusted_p is None and trend.slopes == (trend.slope,)


@pytest.mark.parametrize("levels", [["concat", "mean"], [False, True]])
def test_find_trends_levels_that_are_not_numbers_have_none(levels: list[Any]) -> None:
    factor = "head.merge" if isinstance(levels[0], str) else "head.skip_connection"
    assert trends_of(study_in_memory(factors={factor: levels}, **SCAN)) == ()


def test_find_trends_of_shots_use_the_levels_that_are_numbers() -> None:
    def accuracy(task: Task) -> float:
        return accuracy_of(task) + 0.01 * math.log2((task.levels.get("head.shots") or 64) / 64)

    factors = {"head.shots": ["none", 16, 64, 256], "head.noise": ["none", "ionq-forte"]}
    analysis = analyse(*study_in_memory(accuracy, factors=factors, **SCAN))
    (trend,) = analysis.trends
    assert (trend.levels, trend.scale) == ((16, 64, 256), "log2") and trend.slope == pytest.approx(0.01, abs=0.002)
    shots, noise = analysis.scans
    assert [point.level for point in shots.points] == [None, 16, 64, 256]
    assert [(point.level, point.own) for point in noise.points] == [(None, True), ("ionq-forte", False)]


def test_find_trends_of_a_full_design_average_over_other_factors() -> None:
    factors = {"head.n_qubits": [4, 5, 6], "head.merge": ["concat", "mean"]}
    study = study_in_memory(rising, factors=factors, design={"kind": "full"})
    (trend,) = trends_of(study)
    record, results = study
    rows = pd.DataFrame(
        {"seed": task.seed, "x": task.levels["head.n_qubits"], "y": (results[task.id].result or {})["test_accuracy"]}
        for task in record.tasks
        if task.levels
    )
    means = rows.groupby(["seed", "x"])["y"].mean().unstack()
    assert trend.slopes == pytest.approx([np.polyfit(means.columns, row, 1)[0] for row in means.to_numpy()])


def test_find_trends_other_designs_have_none() -> None:
    design = {"kind": "plackett-burman"}
    factors = {f"head.{name}": [1, 2] for name in ("encoder_layers", "connectivity", "main_layers")}
    assert trends_of(study_in_memory(factors=factors, design=design)) == ()
    assert trends_of(study_in_memory()) == ()


def test_find_trends_of_sample_sizes_use_common_sentences() -> None:
    factors = {"data.per_label": [3, 5, 12]}
    trends = trends_of(study_in_memory(factors=factors, **SCAN))
    assert [trend.head for trend in trends] == ["quantum", "logistic regression", "SVC"]
    for trend in trends:
        assert trend.test is not None and trend.test.n_sentences == 180
        assert trend.scale == "log2"


def test_find_trends_own_level_of_zero_has_no_logarithm() -> None:
    heads = {"quantum": {"kind": "quantum", "settings": {"n_qubits": 5, "reupload_layers": 0}}}
    factors = {"head.reupload_layers": [1, 2, 4]}
    (trend,) = trends_of(study_in_memory(heads=heads, factors=factors, report={}, **SCAN))
    assert (trend.scale, trend.levels) == ("log2", (1, 2, 4))


def test_find_trends_of_each_named_head_and_body() -> None:
    heads = {name: {"kind": "quantum", "settings": {"n_qubits": 5, "main_layers": n}} for n, name in enumerate("ab", 1)}
    analysis = analyse(*study_in_memory(heads=heads, bodies=["one", "two"], report={}, **QUBITS))
    assert [(trend.body, trend.head) for trend in analysis.trends] == [
        ("one", "a"), ("one", "b"), ("two", "a"), ("two", "b"),
    ]  # fmt: skip
    tested = [trend.test.p_value for trend in analysis.trends if trend.test]
    assert tuple(trend.adjusted_p for trend in analysis.trends) == holm(tested)


def test_adjust_trends_takes_the_family_of_several_studies() -> None:
    one, other = (trends_of(study_in_memory(skill, **QUBITS)) for skill in (rising, accuracy_of))
    family = adjust_trends((*one, *other))
    assert tuple(trend.adjusted_p for trend in family) == holm([each.test.p_value for each in family if each.test])
    assert family[0].adjusted_p == pytest.approx(2 * (one[0].adjusted_p or 0))


def test_trends_are_json() -> None:
    analysis: Analysis = analyse(*study_in_memory(rising, **QUBITS))
    (written,) = json.loads(json.dumps(analysis.to_json(), allow_nan=False))["trends"]
    assert written["slope"] == written["test"]["difference"] and len(written["slopes"]) == 5


@pytest.mark.parametrize(
    ("trends", "factors", "words"),
    [
        (
            {"head.n_qubit": "log2"},
            {"head.n_qubits": [4, 5]},
            "'head.n_qubit' is not a factor of this plan; known: head",
        ),
        ({"head.merge": "linear"}, {"head.merge": ["concat", "mean"]}, "'head.merge' has fewer than two levels"),
        ({"head.main_layers": "log2"}, {"head.main_layers": [0, 1]}, "has the level 0, which has no logarithm"),
        ({"head.n_qubits": "octaves"}, {"head.n_qubits": [4, 5]}, "input should be 'linear' or 'log2'"),
    ],
)
def test_plan_with_invalid_trend_raises(trends: dict[str, str], factors: dict[str, Any], words: str) -> None:
    settings = study_settings(factors=factors, report={"trends": trends}, **SCAN)
    with pytest.raises(ConfigError, match=words):
        StudyPlan.from_mapping(settings)
