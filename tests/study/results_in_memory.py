"""Studies in memory: results with chosen test sentences right, without data set, body or files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ketfit.study.analysis.cells import Cell, Group, group_results, make_cell, representative_groups
from ketfit.study.analysis.comparisons import HeadComparison, Sentencewise
from ketfit.study.analysis.hypothesis_tests import CrossedTest, equivalence_test
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.store import SplitRecord, StudyRecord, TaskResult
from ketfit.study.task import Task, pack_bits
from tests.study.synthetic_studies import study_settings

SIZE = 200
"""Sentences of the data set; the first 10, shifted by the seed, are drawn."""

Results = dict[str, TaskResult]


def accuracy_of(task: Task) -> float:
    """Return the accuracy of a head, which changes a little with the seed."""
    start, slope = {"quantum": (0.7, 0.01), "SVC": (0.9, -0.005)}.get(task.head, (0.8, 0.005))
    return start + slope * task.seed


def study_in_memory(
    accuracy: Callable[[Task], float] = accuracy_of, result: dict[str, Any] | None = None, **changes: Any
) -> tuple[StudyRecord, Results]:
    """Return a record and its results.

    Args:
        accuracy: Share of the test sentences that a task has right, at random.
        result: Entries of all results to replace.
        changes: Settings of the plan to replace in those of `study_settings`.
    """
    data_plan = {"source": "synthetic", "per_label": 5, "validation_fraction": 0.2}
    plan = StudyPlan.from_mapping(study_settings(**{"data": data_plan, **changes}))
    data = DataMetadata(name="synthetic", fingerprint="d", size=SIZE, n_classes=2)
    bodies = {body.label: BodyMetadata(fingerprint=body.label, dimension=16) for body in plan.bodies}
    tasks = expand(plan, data, bodies)
    draws = {(task.config["data"]["per_label"], task.seed): None for task in tasks}
    record = StudyRecord.from_tasks(
        plan,
        tasks,
        command="test",
        versions={"ketfit": "1"},
        data=data,
        bodies=bodies,
        draws=tuple(
            SplitRecord(
                per_label=per_label,
                validation_fraction=plan.data.validation_fraction,
                seed=seed,
                not_tested=tuple(range(seed, seed + 2 * per_label)),
            )
            for per_label, seed in draws
        ),
    )
    return record, {task.id: _result(task, accuracy(task), result or {}) for task in tasks}


def _result(task: Task, accuracy: float, changes: dict[str, Any]) -> TaskResult:
    size = SIZE - 2 * task.config["data"]["per_label"]
    correct = np.random.default_rng(int(task.id[:8], 16)).permutation(size) < round(accuracy * size)
    score = float(correct.mean())
    chosen = min(1, len(task.config["tries"]) - 1)
    tries = [
        {"value": value, "validation_loss": 1 - score, "validation_accuracy": score, "best_epoch": 2}
        for value in task.config["tries"]
    ]
    result = {
        "parameters": 17,
        "chosen": chosen,
        "tries": tries,
        "validation_loss": 1 - score,
        "validation_accuracy": score,
        "test_size": size,
        "test_accuracy": score,
        "correct": pack_bits(correct),
    }
    seconds = {"fit": 0.1 * (1 + task.seed), "all_tries": 0.3 * (1 + task.seed)}
    run = {"host": "here", "finished": None, "seconds": seconds}
    return TaskResult(task=task.id, config=task.config, result={**result, **changes}, error=None, run=run)


def failed_result(result: TaskResult) -> TaskResult:
    """Return the result of the same task, failed."""
    return result.updated(result=None, error={"type": "TrainingError", "message": "the loss is not finite"})


def cells_of(record: StudyRecord, results: Results) -> tuple[list[Group], list[Cell]]:
    """Return the groups of a study and their cells."""
    groups = group_results(record, results)
    representative = list(representative_groups(record, groups).values())
    return groups, [make_cell(group, record, any(group is one for one in representative)) for group in groups]


def comparison_of(low: float, high: float, adjusted_p: float, margin: float = 0.01) -> HeadComparison:
    """Return a comparison over many seeds with the given bounds of its interval."""
    difference, error = (low + high) / 2, (high - low) / (2 * 1.96)
    test = CrossedTest(difference, error, 1e6, 0.95, low, high, difference / error, adjusted_p, 20, 1000, error, 0.0)
    return HeadComparison(
        body="b", head="q", levels={}, setting="", reference="r", reference_levels={}, standing=True, seeds=(0, 1),
        differences=(low, high), difference=difference, mcnemar=Sentencewise(0.5, 0, 2), crossed=test,
        adjusted_p=adjusted_p, equivalence=equivalence_test(test, margin),
    )  # fmt: skip
