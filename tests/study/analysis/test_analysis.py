"""Test the analysis of a study: effects, scans, and the description of the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ketfit.study.analysis.analysis import Analysis, analyse, ordered_levels
from ketfit.study.spec import StudyPlan
from ketfit.study.store import read_results
from ketfit.study.task import Task
from tests.study.results_in_memory import accuracy_of, study_in_memory
from tests.study.synthetic_studies import Skill, flat, make_study, study_settings

FACTORS = {"head.encoder_layers": [1, 2], "head.connectivity": [1, 3], "head.skip_connection": [False, True]}


def analyse_synthetic(folder: Path, settings: dict[str, Any], skill: Skill = flat, **options: Any) -> Analysis:
    record = make_study(folder, settings, skill, **options)
    return analyse(record, read_results(folder))


def kinds(analysis: Analysis) -> set[str]:
    return {caveat.kind for caveat in analysis.caveats}


def test_analyse_missing_and_failed_runs_compares_common_seeds(tmp_path: Path) -> None:
    analysis = analyse_synthetic(
        tmp_path,
        study_settings(),
        failed=lambda task: task.head == "logistic regression" and task.seed == 1,
        missing=lambda task: task.head == "quantum" and task.seed == 4,
    )
    assert analysis.comparisons[0].seeds == (0, 2, 3)
    assert analysis.comparisons[1].seeds == (0, 2, 3, 4)
    quantum, reference, _ = analysis.cells
    assert (quantum.missing, quantum.failed, quantum.seeds) == ((4,), (), (0, 1, 2, 3))
    assert (reference.missing, reference.failed) == ((), (1,))
    assert {"missing", "failed", "pairs", "seeds"} <= kinds(analysis)
    assert (analysis.study["done"], analysis.study["failed"], analysis.study["missing"]) == (13, 1, 1)


@pytest.mark.slow
def test_analyse_factorial_representative_is_best_on_validation(tmp_path: Path) -> None:
    def skill(task: Task) -> float:
        return 1.5 + task.levels["head.encoder_layers"] / 2 if task.head == "quantum" else 2.3

    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "interactions"})
    analysis = analyse_synthetic(tmp_path, settings, skill)
    quantum = [cell for cell in analysis.cells if cell.head == "quantum"]
    best = min(quantum, key=lambda cell: cell.validation_loss or 0)
    assert len(quantum) == 8 and [cell for cell in quantum if cell.standing] == [best]
    assert "many settings" in kinds(analysis)
    assert sum(each.standing for each in analysis.comparisons) == 2


@pytest.mark.slow
def test_analyse_effects_recover_simulated_effect(tmp_path: Path) -> None:
    def skill(task: Task) -> float:
        return 1.5 + (task.levels["head.connectivity"] == 3) if task.head == "quantum" else 2.3

    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "interactions"})
    (found,) = analyse_synthetic(tmp_path, settings, skill, sentences=1500).effects
    assert found.effects is not None and found.half_normal is not None and found.effects.error == "blocks"
    terms = {term.name: term for term in found.effects.terms}
    assert len(terms) == 6
    assert max(terms, key=lambda name: abs(terms[name].effect)) == "head.connectivity"
    assert (terms["head.connectivity"].p_adjusted or 1) < 0.05
    mains = [each for each in found.marginals if each.factors == ("head.connectivity",)]
    assert mains[1].accuracy.mean - mains[0].accuracy.mean == pytest.approx(terms["head.connectivity"].effect)


@pytest.mark.slow
def test_analyse_effects_exclude_seeds_without_whole_design(tmp_path: Path) -> None:
    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "main effects"})
    (found,) = analyse_synthetic(
        tmp_path / "a", settings, failed=lambda task: task.seed == 2 and task.levels.get("head.connectivity") == 3
    ).effects
    assert found.seeds == (0, 1, 3, 4) and found.left_out == (2,)
    (found,) = analyse_synthetic(
        tmp_path / "b", settings, missing=lambda task: task.levels.get("head.connectivity") == 3
    ).effects
    assert found.effects is None and found.problem


@pytest.mark.slow
def test_analyse_plackett_burman_has_effects_per_body(tmp_path: Path) -> None:
    names = ("n_encoders", "encoder_layers", "connectivity", "n_reuploads", "reupload_layers", "main_layers")
    factors: dict[str, list[Any]] = {f"head.{name}": [1, 2] for name in names}
    settings = study_settings(
        bodies=["one", "two"],
        factors={**factors, "head.skip_connection": [False, True]},
        design={"kind": "plackett-burman", "estimate": "main effects"},
    )
    analysis = analyse_synthetic(tmp_path, settings)
    assert [each.body for each in analysis.effects] == ["one", "two"]
    for each in analysis.effects:
        assert each.effects is not None and len(each.effects.terms) == 7 and each.half_normal is not None


@pytest.mark.slow
def test_analyse_scan_contains_own_setting(tmp_path: Path) -> None:
    factors = {"head.n_qubits": [4, 6, 8], "head.encoder_layers": [1, 4]}
    settings = study_settings(factors=factors, design={"kind": "scan"})
    analysis = analyse_synthetic(
        tmp_path, settings, lambda task: 1 + task.levels.get("head.n_qubits", 10) / 8, sentences=1500
    )
    qubits, layers = analysis.scans
    assert [point.level for point in qubits.points] == [4, 5, 6, 8]
    assert [point.own for point in qubits.points] == [False, True, False, False]
    assert [point.level for point in layers.points] == [1, 2, 4]
    own, high = qubits.points[1], qubits.points[3]
    assert own.difference is None and high.difference is not None
    assert high.difference.difference == pytest.approx(np.mean(np.subtract(high.values, own.values)))
    standing = [cell for cell in analysis.cells if cell.head == "quantum" and cell.standing]
    assert [cell.setting for cell in standing] == ["own setting"]
    assert standing[0].levels == {"head.n_qubits": 5, "head.encoder_layers": 2}


@pytest.mark.slow
def test_analyse_ignores_results_of_other_studies(tmp_path: Path) -> None:
    record = make_study(tmp_path, study_settings(), flat)
    results = read_results(tmp_path)
    other = next(iter(results.values()))
    assert analyse(record, {**results, "another": other}) == analyse(record, results)


@pytest.mark.slow
def test_analyse_does_not_depend_on_order_of_results(tmp_path: Path) -> None:
    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "interactions"}, seeds=3)
    record = make_study(tmp_path, settings, flat)
    results = read_results(tmp_path)
    orders = (results, dict(reversed(results.items())))
    texts = {json.dumps(analyse(record, order).to_json(), allow_nan=False) for order in orders}
    assert len(texts) == 1


@pytest.mark.slow
def test_analyse_effects_of_one_seed_use_residual_error(tmp_path: Path) -> None:
    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "main effects"}, seeds=1)
    (found,) = analyse_synthetic(tmp_path, settings).effects
    assert found.effects is not None and found.effects.error == "residual" and found.effects.terms[0].p_value


def test_analyse_describes_the_runs() -> None:
    record, results = study_in_memory(seeds=3)
    results = {
        name: result.updated(run={**result.run, "host": f"host{index % 2}", "finished": f"2026-01-0{1 + index}"})
        for index, (name, result) in enumerate(results.items())
    }
    study = analyse(record, results).study
    assert (study["tasks"], study["done"], study["failed"], study["missing"]) == (9, 9, 0, 0)
    assert (study["train_sizes"], study["validation_sizes"], study["test_sizes"]) == ([8], [2], [190])
    assert (study["hosts"], study["finished"]) == (["host0", "host1"], ["2026-01-01", "2026-01-09"])
    assert (study["reference"], study["seeds"]) == ("logistic regression", [0, 1, 2])


def test_analyse_marginal_means_and_effects_equal_pandas() -> None:
    def accuracy(task: Task) -> float:
        levels = task.levels
        return accuracy_of(task) + 0.02 * levels.get("head.connectivity", 0) * levels.get("head.encoder_layers", 0)

    factors = {"head.connectivity": [1, 3], "head.encoder_layers": [1, 2]}
    record, results = study_in_memory(
        accuracy, factors=factors, design={"kind": "full", "estimate": "interactions"}, seeds=3
    )
    (found,) = analyse(record, results).effects
    table = pd.DataFrame(
        {**task.levels, "seed": task.seed, "accuracy": (results[task.id].result or {})["test_accuracy"]}
        for task in record.tasks
        if task.head == "quantum"
    )
    for marginal in found.marginals:
        rows = table[np.all([table[f] == level for f, level in zip(marginal.factors, marginal.levels, strict=True)], 0)]
        assert marginal.values == pytest.approx(tuple(rows.groupby("seed")["accuracy"].mean()))
        assert marginal.accuracy.mean == pytest.approx(rows["accuracy"].mean())
    assert found.effects is not None
    terms = {term.name: term.effect for term in found.effects.terms}
    means = table.groupby(list(factors))["accuracy"].mean()
    for factor in factors:
        low, high = table.groupby(factor)["accuracy"].mean()
        assert terms[factor] == pytest.approx(high - low)
    assert terms[":".join(factors)] == pytest.approx((means[3, 2] - means[1, 2] - means[3, 1] + means[1, 1]) / 2)


@pytest.mark.parametrize(
    ("levels", "seen", "ordered"),
    [
        ([6, 4], [4, 6], (6, 4)),
        ([6, 4], [5, 4, 6], (4, 5, 6)),
        (["concat", "mean"], ["mean", "concat"], ("concat", "mean")),
        (["concat", "mean"], ["other", "mean"], ("other", "mean")),
        ({"low": 1, "high": 9, "integer": True}, [7, 2, 7, 4], (2, 4, 7)),
    ],
)
def test_ordered_levels_follow_the_plan_or_the_numbers(levels: Any, seen: list[Any], ordered: tuple[Any, ...]) -> None:
    factor = "head.merge" if isinstance(seen[0], str) else "head.n_qubits"
    kind = "latin-hypercube" if isinstance(levels, dict) else "scan"
    design = {"kind": kind, **({"samples": 3} if isinstance(levels, dict) else {})}
    plan = StudyPlan.from_mapping(study_settings(factors={factor: levels}, design=design))
    assert ordered_levels(plan, factor, seen) == ordered
