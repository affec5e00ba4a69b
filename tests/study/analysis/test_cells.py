"""Test the cells of a study: groups of results, their summaries and the cell that represents a head."""

from __future__ import annotations

from statistics import median

import numpy as np
import pandas as pd
import pytest

from ketfit.study.analysis.cells import (
    SEEDS_FOR_BOOTSTRAP,
    by_head,
    crossed_difference,
    describe_setting,
    group_results,
    is_on_line,
    own_levels,
    representative_groups,
)
from ketfit.study.analysis.hypothesis_tests import crossed_test, summarize, summarize_crossed
from ketfit.study.store import StudyRecord
from ketfit.study.task import Task
from tests.study.results_in_memory import SIZE, Results, accuracy_of, cells_of, failed_result, study_in_memory

SCAN = {"factors": {"head.n_qubits": [4, 6]}, "design": {"kind": "scan"}}


@pytest.fixture(scope="module")
def study() -> tuple[StudyRecord, Results]:
    return study_in_memory()


def test_group_results_follows_plan_and_splits_results_by_state(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    changed = dict(results)
    ids = {(task.head, task.seed): task.id for task in record.tasks}
    changed[ids["SVC", 3]] = failed_result(changed[ids["SVC", 3]])
    del changed[ids["SVC", 1]]
    groups = group_results(record, changed)
    assert [group.head for group in groups] == list(record.plan.heads)
    svc = groups[2]
    assert (tuple(svc.results), svc.failed, svc.missing) == ((0, 2, 4), (3,), (1,))
    assert svc.tasks == {seed: ids["SVC", seed] for seed in range(5)}
    assert svc.common_seeds(groups[0]) == groups[0].common_seeds(svc) == [0, 2, 4]


def test_group_values_and_correct_sentences_are_those_of_results(study: tuple[StudyRecord, Results]) -> None:
    group = group_results(*study)[0]
    assert group.values("test_accuracy") == [group.correct(seed).mean() for seed in range(5)]
    assert group.value("test_size", 2) == len(group.correct(2)) == SIZE - 10
    assert group.validation("accuracy") == -np.mean(group.values("validation_accuracy"))
    assert group.validation("loss") == pytest.approx(np.mean(group.values("validation_loss")))


def test_group_common_seeds_need_the_same_split() -> None:
    record, results = study_in_memory(factors={"data.per_label": [5, 10]}, design={"kind": "scan"})
    small, large = (group for group in group_results(record, results) if group.head == "SVC")
    assert small.common_seeds(small) == [0, 1, 2, 3, 4]
    assert small.common_seeds(large) == []


def test_by_head_groups_in_order() -> None:
    groups = group_results(*study_in_memory(bodies=["one", "two"], **SCAN))
    found = by_head(groups)
    assert list(found) == [
        (body, head) for body in ("one", "two") for head in ("quantum", "logistic regression", "SVC")
    ]
    assert [len(part) for part in found.values()] == [3, 1, 1] * 2
    assert [group for part in found.values() for group in part] == groups


def test_make_cell_statistics_equal_pandas(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    table = pd.DataFrame(
        {"head": task.head, "seed": task.seed, **(results[task.id].result or {}), **results[task.id].run["seconds"]}
        for task in record.tasks
    )
    _, cells = cells_of(record, results)
    for cell in cells:
        rows = table[table["head"] == cell.head].sort_values("seed")
        accuracy = rows["test_accuracy"]
        assert cell.accuracy is not None
        assert (cell.seeds, cell.accuracies) == (tuple(rows["seed"]), tuple(accuracy))
        assert (cell.accuracy.mean, cell.accuracy.spread) == pytest.approx((accuracy.mean(), accuracy.std()))
        assert cell.best == accuracy.max()
        assert cell.validation_accuracy == pytest.approx(rows["validation_accuracy"].mean())
        assert cell.validation_loss == pytest.approx(rows["validation_loss"].mean())
        assert (cell.fit_seconds, cell.all_tries_seconds) == (rows["fit"].median(), rows["all_tries"].median())
        assert cell.parameters == 17
    assert [cell.n_qubits for cell in cells] == [5, None, None]
    assert [cell.kind for cell in cells] == ["quantum", "logistic-regression", "svc"]


def test_make_cell_intervals_equal_hypothesis_tests(study: tuple[StudyRecord, Results]) -> None:
    (group, *_), (cell, *_) = cells_of(*study)
    positions = [np.setdiff1d(np.arange(SIZE), range(seed, seed + 10)) for seed in range(5)]
    assert cell.accuracy == summarize(cell.accuracies)
    assert cell.crossed == summarize_crossed([group.correct(seed) for seed in range(5)], positions)
    assert cell.bootstrap is None


def test_make_cell_many_seeds_adds_bootstrap() -> None:
    _, (cell, *_) = cells_of(*study_in_memory(seeds=SEEDS_FOR_BOOTSTRAP))
    assert cell.bootstrap == summarize(cell.accuracies, method="bootstrap")


def test_make_cell_without_results_has_no_numbers(study: tuple[StudyRecord, Results]) -> None:
    _, (cell, *_) = cells_of(study[0], {})
    assert (cell.seeds, cell.missing, cell.standing) == ((), (0, 1, 2, 3, 4), False)
    numbers = (cell.accuracy, cell.crossed, cell.best, cell.validation_loss, cell.parameters, cell.fit_seconds)
    assert numbers == (None,) * 6


def test_make_cell_of_one_seed_has_no_interval() -> None:
    _, (cell, *_) = cells_of(*study_in_memory(seeds=1))
    assert cell.accuracy is not None
    assert (cell.accuracy.n, cell.accuracy.low, cell.crossed) == (1, None, None)


def test_own_levels_are_those_of_the_head_and_the_plan() -> None:
    factors = {"head.n_qubits": [4, 6], "train.epochs": [3, 4], "data.per_label": [5, 7]}
    record, results = study_in_memory(factors=factors, design={"kind": "scan"}, train={})
    quantum, classical = (
        next(group for group in group_results(record, results) if group.head == head) for head in ("quantum", "SVC")
    )
    epochs = record.plan.train_config().epochs
    assert own_levels(record, quantum) == {"head.n_qubits": 5, "train.epochs": epochs, "data.per_label": 5}
    assert own_levels(record, classical) == {"data.per_label": 5}


def test_scan_line_has_the_settings_that_follow_from_the_scanned_one() -> None:
    """On three components the recommended head has two qubits, and its connectivity is 1."""
    heads = {"quantum": {"kind": "quantum", "start": "recommended"}}
    factors = {"head.components": [3, 7], "head.connectivity": [1, 2]}
    record, results = study_in_memory(heads=heads, factors=factors, design={"kind": "scan"}, report={})
    groups = group_results(record, results)
    lines = {factor: [g.levels[factor] for g in groups if is_on_line(record, g, factor)] for factor in factors}
    assert sorted(map(str, lines["head.components"])) == ["3", "7", "None"]
    own = own_levels(record, groups[0])
    assert set(lines["head.connectivity"]) == {1, 2, own["head.connectivity"]}
    assert own_levels(record, groups[0], {"head.components": 3})["head.connectivity"] < own["head.connectivity"]


def test_describe_setting_of_a_scan_names_changes_only() -> None:
    record, results = study_in_memory(**SCAN)
    settings = [describe_setting(record, group) for group in group_results(record, results)]
    assert settings == ["own setting", "qubits 4", "qubits 6", "", ""]


def test_describe_setting_of_a_factorial_names_all_levels() -> None:
    record, results = study_in_memory(factors={"head.n_qubits": [4, 5]}, design={"kind": "full"})
    settings = [describe_setting(record, group) for group in group_results(record, results)]
    assert settings == ["qubits 4", "qubits 5", "", ""]


def test_representative_group_of_a_scan_has_the_own_setting() -> None:
    record, results = study_in_memory(lambda task: 0.9 if task.levels.get("head.n_qubits") == 6 else 0.5, **SCAN)
    groups = group_results(record, results)
    assert representative_groups(record, groups)["body-a", "quantum"].levels == {"head.n_qubits": 5}
    unfinished = {name: result for name, result in results.items() if name not in groups[0].tasks.values()}
    best = representative_groups(record, group_results(record, unfinished))["body-a", "quantum"]
    assert best.levels == {"head.n_qubits": 6}, "without its own setting the best on validation stands for a head"


@pytest.mark.parametrize("selection", ["loss", "accuracy"])
def test_representative_group_of_a_factorial_is_best_on_validation(selection: str) -> None:
    def accuracy(task: Task) -> float:
        return accuracy_of(task) + 0.02 * task.levels.get("head.n_qubits", 0)

    budget = {"learning_rates": [0.01], "regularization": [1.0], "selection": selection}
    record, results = study_in_memory(
        accuracy, factors={"head.n_qubits": [4, 5, 6]}, design={"kind": "full"}, budget=budget
    )
    found = representative_groups(record, group_results(record, results))
    assert found["body-a", "quantum"].levels == {"head.n_qubits": 6}
    assert set(found) == {("body-a", head) for head in record.plan.heads}


def test_crossed_difference_uses_positions_of_the_splits(study: tuple[StudyRecord, Results]) -> None:
    record, _ = study
    one, other, _ = group_results(*study)
    positions = [np.setdiff1d(np.arange(SIZE), range(seed, seed + 10)) for seed in (1, 3)]
    expected = crossed_test([one.correct(s) for s in (1, 3)], [other.correct(s) for s in (1, 3)], positions)
    assert crossed_difference(record, one, other, [1, 3]) == expected


def test_median_of_times_ignores_results_without_times(study: tuple[StudyRecord, Results]) -> None:
    record, results = study
    first = next(task.id for task in record.tasks if task.head == "quantum" and task.seed == 0)
    _, (cell, *_) = cells_of(record, {**results, first: results[first].updated(run={"host": "here"})})
    assert cell.fit_seconds == median([0.2, 0.1 * 3, 0.4, 0.5])
