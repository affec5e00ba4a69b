from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pytest

from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.study.analysis.analysis import Analysis, analyse
from ketfit.study.analysis.comparisons import HeadComparison, Sentencewise
from ketfit.study.analysis.hypothesis_tests import (
    CrossedTest,
    crossed_test,
    equivalence_test,
    holm,
    mcnemar,
    paired_test,
    summarize,
)
from ketfit.study.report.summary import conclusion, summary_sentences, verdict
from ketfit.study.store import StudyRecord, TaskResult, read_results
from ketfit.study.task import Task, unpack_bits
from tests.study.synthetic_studies import Skill, flat, make_study, study_settings

FACTORS = {"head.encoder_layers": [1, 2], "head.connectivity": [1, 3], "head.skip_connection": [False, True]}


def analyse_made(folder: Path, settings: dict[str, Any], skill: Skill = flat, **options: Any) -> Analysis:
    record = make_study(folder, settings, skill, **options)
    return analyse(record, read_results(folder))


def rows_of(folder: Path, record: StudyRecord, head: str) -> list[TaskResult]:
    rows = read_results(folder)
    return [rows[task.id] for task in sorted(record.tasks, key=lambda task: task.seed) if task.head == head]


def kinds(analysis: Analysis) -> set[str]:
    return {caveat.kind for caveat in analysis.caveats}


@pytest.fixture(scope="module")
def plain_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRecord, Analysis]:
    folder = tmp_path_factory.mktemp("plain")
    record = make_study(folder, study_settings(), flat)
    return folder, record, analyse(record, read_results(folder))


def test_analyse_cell_summarizes_rows_of_its_seeds(plain_study: tuple[Path, StudyRecord, Analysis]) -> None:
    folder, record, analysis = plain_study
    assert [cell.head for cell in analysis.cells] == ["quantum", "logistic regression", "SVC"]
    for cell in analysis.cells:
        rows = rows_of(folder, record, cell.head)
        results = [row.result or {} for row in rows]
        accuracies = [result["test_accuracy"] for result in results]
        assert cell.accuracy == summarize(accuracies)
        assert cell.best == max(accuracies)
        assert cell.validation_accuracy == pytest.approx(mean(result["validation_accuracy"] for result in results))
        assert cell.parameters == results[0]["parameters"]
        assert cell.fit_seconds == median(row.run["seconds"]["fit"] for row in rows)
        assert cell.standing and cell.crossed is not None and cell.bootstrap is None


def test_analyse_comparison_equals_hypothesis_tests(plain_study: tuple[Path, StudyRecord, Analysis]) -> None:
    folder, record, analysis = plain_study
    quantum, reference = (rows_of(folder, record, head) for head in ("quantum", "logistic regression"))
    one, two = (
        [unpack_bits(row.result["correct"], 560) for row in rows if row.result] for rows in (quantum, reference)
    )
    found = analysis.comparisons[0]
    assert (found.head, found.reference, found.seeds) == ("quantum", "logistic regression", (0, 1, 2, 3, 4))
    dataset = load_dataset(str(folder / "sentences.tsv"))
    positions = [few_shot_split(dataset, 20, 0.25, seed).test for seed in range(5)]
    assert found.crossed == crossed_test(one, two, positions)
    means = [bits.mean() for bits in one], [bits.mean() for bits in two]
    assert found.paired == paired_test(*means)
    assert found.corrected == paired_test(*means, test_train_ratio=560 / 30)
    p_values = [mcnemar(a, b).p_value for a, b in zip(one, two, strict=True)]
    assert found.mcnemar.median_p == median(p_values)
    assert found.mcnemar.significant == sum(p < 0.05 for p in p_values)
    assert found.difference == pytest.approx(found.crossed.difference)
    family = holm([each.crossed.p_value for each in analysis.comparisons if each.crossed])
    assert tuple(each.adjusted_p for each in analysis.comparisons) == family
    assert found.equivalence is not None and found.equivalence.margin == 0.01
    assert found.detectable and found.seeds_needed


def test_analyse_twenty_seeds_adds_bootstrap(tmp_path: Path) -> None:
    cell = analyse_made(tmp_path, study_settings(seeds=20)).cells[0]
    assert cell.bootstrap == summarize(cell.accuracies, method="bootstrap")


def test_analyse_missing_and_failed_runs_compares_common_seeds(tmp_path: Path) -> None:
    analysis = analyse_made(
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
def test_analyse_two_bodies_compares_each_separately(tmp_path: Path) -> None:
    analysis = analyse_made(tmp_path, study_settings(bodies=["one", "two"]))
    assert [(each.body, each.head) for each in analysis.comparisons] == [
        (body, head) for body in ("one", "two") for head in ("quantum", "SVC")
    ]
    assert summary_sentences(analysis)[0].startswith("On one, quantum is ")


def test_analyse_without_reference_has_no_comparison(tmp_path: Path) -> None:
    analysis = analyse_made(tmp_path, study_settings(report={}))
    assert analysis.comparisons == ()
    assert "names no reference" in summary_sentences(analysis)[1]


def test_analyse_one_seed_has_no_intervals(tmp_path: Path) -> None:
    analysis = analyse_made(tmp_path, study_settings(seeds=1))
    assert all(cell.accuracy and cell.accuracy.low is None and cell.crossed is None for cell in analysis.cells)
    assert all(
        each.crossed is None and each.paired is None and each.adjusted_p is None for each in analysis.comparisons
    )
    assert "One seed says nothing" in summary_sentences(analysis)[0]


def test_analyse_without_results_has_no_answer(tmp_path: Path) -> None:
    analysis = analyse_made(tmp_path, study_settings(), missing=lambda task: True)
    assert analysis.study["done"] == 0 and analysis.comparisons == ()
    assert summary_sentences(analysis) == ["There is no result yet, so there is nothing to answer."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odds", "told"),
    [
        (4.0, "The difference is larger than the margin of 1 point"),
        (2.3, "no difference was shown"),
        (0.5, "The difference is larger than the margin of 1 point"),
    ],
)
def test_summary_sentences_follow_the_test(tmp_path: Path, odds: float, told: str) -> None:
    skill = {"quantum": odds, "logistic regression": 2.3, "SVC": 2.3}
    analysis = analyse_made(tmp_path, study_settings(), lambda task: skill[task.head], sentences=1500)
    found = analysis.comparisons[0]
    assert found.crossed is not None and found.crossed.low is not None and found.crossed.high is not None
    answer = summary_sentences(analysis)[0]
    assert told in answer
    assert f"{100 * abs(found.difference):.1f}" in answer or f"{100 * abs(found.difference):.2f}" in answer
    assert ("above" in answer) == (found.difference > 0)


@pytest.mark.slow
def test_analyse_identical_heads_are_equivalent(tmp_path: Path) -> None:
    heads = {"a": {"kind": "svc"}, "b": {"kind": "svc"}}
    analysis = analyse_made(tmp_path, study_settings(heads=heads, report={"reference": "a"}))
    found = analysis.comparisons[0]
    assert found.difference == 0 and found.equivalence is not None
    assert "twins" in kinds(analysis)
    assert "level with a" in summary_sentences(analysis)[0]


@pytest.mark.slow
def test_analyse_factorial_representative_is_best_on_validation(tmp_path: Path) -> None:
    def skill(task: Task) -> float:
        return 1.5 + task.levels["head.encoder_layers"] / 2 if task.head == "quantum" else 2.3

    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "interactions"})
    analysis = analyse_made(tmp_path, settings, skill)
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
    (found,) = analyse_made(tmp_path, settings, skill, sentences=1500).effects
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
    (found,) = analyse_made(
        tmp_path / "a", settings, failed=lambda task: task.seed == 2 and task.levels.get("head.connectivity") == 3
    ).effects
    assert found.seeds == (0, 1, 3, 4) and found.left_out == (2,)
    (found,) = analyse_made(
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
    analysis = analyse_made(tmp_path, settings)
    assert [each.body for each in analysis.effects] == ["one", "two"]
    for each in analysis.effects:
        assert each.effects is not None and len(each.effects.terms) == 7 and each.half_normal is not None


@pytest.mark.slow
def test_analyse_scan_contains_own_setting(tmp_path: Path) -> None:
    factors = {"head.n_qubits": [4, 6, 8], "head.encoder_layers": [1, 4]}
    settings = study_settings(factors=factors, design={"kind": "scan"})
    analysis = analyse_made(
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
def test_analyse_varied_reference_is_compared_at_same_levels(tmp_path: Path) -> None:
    heads = {
        "a": {"kind": "quantum", "settings": {"n_qubits": 5}},
        "b": {"kind": "quantum", "settings": {"n_qubits": 6}},
        "fixed": {"kind": "svc"},
    }
    settings = study_settings(
        heads=heads, factors={"head.connectivity": [1, 3]}, design={"kind": "scan"}, report={"reference": "a"}
    )
    found = analyse_made(tmp_path, settings).comparisons
    pairs = {(each.head, *each.levels.values(), *each.reference_levels.values()) for each in found}
    assert pairs == {("a", 1, 2), ("a", 3, 2), ("b", 1, 1), ("b", 2, 2), ("b", 3, 3), ("fixed", 2)}


def test_analyse_different_splits_are_not_compared(tmp_path: Path) -> None:
    heads = {
        "quantum": {"kind": "quantum", "settings": {"n_qubits": 5}},
        "logistic regression": {"kind": "logistic-regression", "vary": False},
    }
    settings = study_settings(heads=heads, factors={"data.per_label": [10, 20, 40]}, design={"kind": "scan"})
    found = analyse_made(tmp_path, settings).comparisons
    assert [each.levels["data.per_label"] for each in found] == [20]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [0, 2])
def test_find_caveats_chosen_edge_of_grid_names_head(tmp_path: Path, chosen: int) -> None:
    analysis = analyse_made(tmp_path, study_settings(), chosen=lambda task: chosen if task.head == "SVC" else 1)
    (edge,) = [caveat for caveat in analysis.caveats if caveat.kind == "edge"]
    assert "SVC (5 of 5 runs, mostly" in edge.text and "quantum" not in edge.text


@pytest.mark.slow
def test_find_caveats_reports_only_those_that_apply(tmp_path: Path) -> None:
    settings = study_settings(budget={"learning_rates": [0.03], "regularization": [1.0]}, train={"epochs": 8}, seeds=3)
    analysis = analyse_made(tmp_path, settings, lambda task: -1.0 if task.head == "quantum" else 2.3)
    assert {"seeds", "one try", "short", "chance", "validation", "best"} <= kinds(analysis)
    calm = analyse_made(tmp_path / "calm", study_settings())
    assert kinds(calm) == {"validation", "best"}


@pytest.mark.slow
def test_analyse_ignores_rows_of_other_studies(tmp_path: Path) -> None:
    record = make_study(tmp_path, study_settings(), flat)
    rows = read_results(tmp_path)
    other_row = next(iter(rows.values()))
    assert analyse(record, {**rows, "another": other_row}) == analyse(record, rows)


@pytest.mark.slow
def test_analyse_does_not_depend_on_row_order(tmp_path: Path) -> None:
    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "interactions"}, seeds=3)
    record = make_study(tmp_path, settings, flat)
    rows = read_results(tmp_path)
    texts = {
        json.dumps(analyse(record, order).to_json(), allow_nan=False) for order in (rows, dict(reversed(rows.items())))
    }
    assert len(texts) == 1


def told(low: float, high: float, adjusted_p: float, margin: float = 0.01) -> HeadComparison:
    """Return a comparison with the given bounds over many seeds."""
    mean_, error = (low + high) / 2, (high - low) / (2 * 1.96)
    test = CrossedTest(mean_, error, 1e6, 0.95, low, high, mean_ / error, adjusted_p, 20, 1000, error, 0.0)
    return HeadComparison(
        body="b", head="q", levels={}, setting="", reference="r", reference_levels={}, standing=True, seeds=(0, 1),
        differences=(low, high), difference=mean_, mcnemar=Sentencewise(0.5, 0, 2), crossed=test,
        adjusted_p=adjusted_p, equivalence=equivalence_test(test, margin),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "p", "sentence", "words"),
    [
        (-0.020, -0.004, 0.004, "q is 1.2 points below r (95 % interval 0.4 to 2.0, for new seeds and new", "lower"),
        (
            -0.020,
            -0.012,
            0.001,
            "The difference is larger than the margin of 1 point",
            "lower, by more than the margin",
        ),
        (0.012, 0.020, 0.001, "q is 1.60 points above r", "higher, by more than the margin"),
        (0.002, 0.006, 0.001, "There is a difference, but it is smaller than", "higher, within the margin"),
        (0.004, 0.020, 0.004, "whether it is larger than the margin of 1 point that the plan", "higher"),
        (
            0.004,
            0.020,
            0.2,
            "not once all comparisons of this study are allowed for",
            "no worse by more than the margin",
        ),
        (-0.004, 0.004, 0.9, "Whatever there is lies within the margin of 1 point", "no difference beyond the margin"),
        (-0.003, 0.018, 0.3, "It is no worse by more than the margin", "no worse by more than the margin"),
        (-0.030, 0.010, 0.4, "It may be as large as 3.0 points, so whether it lies within the margin", "open"),
    ],
)
def test_verdict_and_conclusion_follow_interval(low: float, high: float, p: float, sentence: str, words: str) -> None:
    study = {"level": 0.95, "margin": 0.01, "design": {"kind": "heads"}}
    comparison = told(low, high, p)
    assert sentence in verdict(comparison, study).replace("\N{NO-BREAK SPACE}", " ")
    assert conclusion(comparison, study) == words


def test_verdict_without_spread_has_no_interval() -> None:
    test = CrossedTest(0.05, 0.0, 4.0, 0.95, None, None, None, 0.0625, 5, 1000, 0.0, 0.0)
    comparison = replace(told(0.0, 0.1, 0.0625), crossed=test, equivalence=equivalence_test(test, 0.01))
    study = {"level": 0.95, "margin": 0.01, "design": {"kind": "heads"}}
    assert "not to be had, as all seeds differ alike" in verdict(comparison, study)


@pytest.mark.slow
def test_find_caveats_counts_diverged_tries(tmp_path: Path) -> None:
    record = make_study(tmp_path, study_settings(seeds=2), flat)
    rows = read_results(tmp_path)
    for name, row in list(rows.items()):
        if row.config["head"]["kind"] == "quantum" and row.result:
            tries = [{"value": 0.1, "error": "the loss is not finite"}, *row.result["tries"][1:]]
            rows[name] = row.updated(result={**row.result, "tries": tries})
    (lost,) = [caveat for caveat in analyse(record, rows).caveats if caveat.kind == "diverged"]
    assert "quantum (2 of 6 tries)" in lost.text


@pytest.mark.slow
def test_analyse_effects_of_one_seed_use_residual_error(tmp_path: Path) -> None:
    settings = study_settings(factors=FACTORS, design={"kind": "full", "estimate": "main effects"}, seeds=1)
    (found,) = analyse_made(tmp_path, settings).effects
    assert found.effects is not None and found.effects.error == "residual" and found.effects.terms[0].p_value
