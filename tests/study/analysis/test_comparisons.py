"""Test comparisons with the reference: SciPy and statsmodels as oracles, the partner of each cell, and open results."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_oracle
from statsmodels.stats.multitest import multipletests

from ketfit.study.analysis.cells import group_results, representative_groups
from ketfit.study.analysis.comparisons import HeadComparison, compare_all
from ketfit.study.analysis.hypothesis_tests import crossed_test, equivalence_test, paired_test
from ketfit.study.analysis.power import detectable_difference, seeds_needed
from ketfit.study.store import StudyRecord
from ketfit.study.task import Task
from tests.study.results_in_memory import SIZE, Results, failed_result, study_in_memory

VARIED = {
    "a": {"kind": "quantum", "settings": {"n_qubits": 5}},
    "b": {"kind": "quantum", "settings": {"n_qubits": 6}},
    "fixed": {"kind": "svc"},
}


def compare(record: StudyRecord, results: Results) -> tuple[HeadComparison, ...]:
    groups = group_results(record, results)
    return compare_all(record, groups, representative_groups(record, groups))


@pytest.fixture(scope="module")
def study() -> tuple[StudyRecord, Results]:
    return study_in_memory()


def test_compare_all_equals_scipy_and_statsmodels(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    groups = {group.head: group for group in group_results(record, results)}
    found = compare(record, results)
    assert [each.head for each in found] == ["quantum", "SVC"]
    for each in found:
        one, two = groups[each.head], groups["logistic regression"]
        oracle = stats.ttest_rel(one.values("test_accuracy"), two.values("test_accuracy"))
        assert each.paired is not None and each.difference == pytest.approx(each.paired.difference)
        assert (each.paired.statistic, each.paired.p_value) == pytest.approx((oracle.statistic, oracle.pvalue))
        p_values = []
        for seed in range(5):
            first, second = one.correct(seed), two.correct(seed)
            table = [[((first == a) & (second == b)).sum() for b in (True, False)] for a in (True, False)]
            p_values.append(mcnemar_oracle(np.array(table), exact=True).pvalue)
        assert each.mcnemar.median_p == pytest.approx(median(p_values))
        assert (each.mcnemar.significant, each.mcnemar.n) == (sum(p < 0.05 for p in p_values), 5)
    adjusted = multipletests([each.crossed.p_value for each in found if each.crossed], method="holm")[1]
    assert [each.adjusted_p for each in found] == pytest.approx(adjusted)


def test_compare_all_values_equal_hypothesis_tests(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    quantum, reference, _ = group_results(record, results)
    found = compare(record, results)[0]
    positions = [np.setdiff1d(np.arange(SIZE), range(seed, seed + 10)) for seed in range(5)]
    sides = [[group.correct(seed) for seed in range(5)] for group in (quantum, reference)]
    means = [[bits.mean() for bits in side] for side in sides]
    assert found.crossed == crossed_test(*sides, positions)
    assert found.corrected == paired_test(*means, test_train_ratio=190 / 8)
    assert found.equivalence == equivalence_test(found.crossed, 0.01)
    assert found.paired is not None
    sentence_error = found.crossed.sentence_error
    spread = found.paired.spread
    assert found.seeds_needed == seeds_needed(found.paired.difference, spread, sentence_error=sentence_error)
    assert found.detectable == detectable_difference(5, spread, sentence_error=sentence_error)


def test_compare_all_without_reference_is_empty() -> None:
    assert compare(*study_in_memory(report={})) == ()


def test_compare_all_without_results_of_the_reference_is_empty(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    reference = {task.id for task in record.tasks if task.head == "logistic regression"}
    assert compare(record, {name: result for name, result in results.items() if name not in reference}) == ()


def test_compare_all_uses_common_seeds(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    ids = {(task.head, task.seed): task.id for task in record.tasks}
    changed = {name: result for name, result in results.items() if name != ids["quantum", 4]}
    changed[ids["logistic regression", 1]] = failed_result(changed[ids["logistic regression", 1]])
    quantum, svc = compare(record, changed)
    assert (quantum.seeds, svc.seeds) == ((0, 2, 3), (0, 2, 3, 4))


def test_compare_all_one_common_seed_has_no_test() -> None:
    (found, _) = compare(*study_in_memory(seeds=1))
    assert len(found.differences) == 1 and found.mcnemar.n == 1
    optional = (found.crossed, found.paired, found.corrected, found.adjusted_p, found.equivalence, found.detectable)
    assert optional == (None,) * 6


def test_compare_all_varied_reference_is_compared_at_same_levels() -> None:
    record, results = study_in_memory(
        heads=VARIED, factors={"head.connectivity": [1, 3]}, design={"kind": "scan"}, report={"reference": "a"}
    )
    found = compare(record, results)
    pairs = {(each.head, *each.levels.values(), *each.reference_levels.values()) for each in found}
    assert pairs == {("a", 1, 2), ("a", 3, 2), ("b", 1, 1), ("b", 2, 2), ("b", 3, 3), ("fixed", 2)}
    assert {(each.head, each.setting) for each in found if each.standing} == {("b", "own setting"), ("fixed", "")}


def test_compare_all_different_splits_are_not_compared() -> None:
    heads = {
        "quantum": {"kind": "quantum", "settings": {"n_qubits": 5}},
        "logistic regression": {"kind": "logistic-regression", "vary": False},
    }
    record, results = study_in_memory(heads=heads, factors={"data.per_label": [5, 10]}, design={"kind": "scan"})
    assert [each.levels["data.per_label"] for each in compare(record, results)] == [5]


def test_compare_all_identical_heads_have_no_difference() -> None:
    heads = {"a": {"kind": "svc"}, "b": {"kind": "svc"}}
    (found,) = compare(*study_in_memory(heads=heads, report={"reference": "a"}))
    assert (found.difference, found.seeds_needed, found.detectable) == (0, None, None)
    assert found.crossed is not None and found.crossed.p_value == 1


def test_compare_all_bodies_are_compared_separately() -> None:
    def accuracy(task: Task) -> float:
        return {"one": 0.7, "two": 0.9}[task.body]

    found = compare(*study_in_memory(accuracy, bodies=["one", "two"]))
    assert [(each.body, each.head) for each in found] == [(b, h) for b in ("one", "two") for h in ("quantum", "SVC")]
    assert all(abs(each.difference) < 0.02 for each in found)
