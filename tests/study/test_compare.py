"""The plan of a comparison, the splits of small and large data sets, and the head to choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ketfit.data.dataset import Dataset
from ketfit.errors import ConfigError, DataError, StudyError
from ketfit.study.compare import HEADS, REFERENCE, HeadComparisonResult, choose_split, compare_results, comparison_plan
from ketfit.study.spec import BodyPlan, DataPlan
from ketfit.study.store import read_results
from ketfit.study.task import Task
from tests.study.synthetic_studies import make_study

BODY = BodyPlan(name="made body")
SMALL = {"per_label": 20}
SAME_QUANTUM_HEAD = "quantum head for a QPU"  # the same as the quantum head on 16 dimensions, and named first


def compared(folder: Path, skills: Mapping[str, float], draws: int = 8, **made: Any) -> HeadComparisonResult:
    """Return the comparison of a made study; `skills` are log odds by kind, 1 if left out."""
    plan = comparison_plan(DataPlan(per_label=20), BODY, draws=draws).model_dump(mode="json")
    record = make_study(folder, plan, lambda task: skills.get(task.head, 1.0), **made)
    return compare_results(record, read_results(folder))


def dataset(*sizes: int) -> Dataset:
    labels = [label for label, size in zip("abc", sizes, strict=False) for _ in range(size)]
    return Dataset("reviews", tuple(f"sentence {n}" for n in range(len(labels))), tuple(labels))


def test_comparison_plan_has_all_heads_and_the_reference() -> None:
    plan = comparison_plan(DataPlan(), BODY)
    assert list(plan.heads) == [name for name, _ in HEADS.values()]
    assert plan.report.reference == REFERENCE
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert plan.heads["paper's head"].quantum(768, 2) != plan.heads["quantum head"].quantum(768, 2)


def test_comparison_plan_with_named_heads_keeps_reference_and_order() -> None:
    plan = comparison_plan(DataPlan(), BODY, ["quantum", "mlp"], draws=2)
    assert list(plan.heads) == [REFERENCE, "MLP, matched", "quantum head"]


@pytest.mark.parametrize(
    ("heads", "draws", "message"),
    [
        (["forest"], 5, "unknown head 'forest'; known: logistic, svc, mlp, qpu, quantum, paper"),
        (["logistic"], 5, "needs another head beside logistic"),
        (["mlp"], 5, "'mlp' has as many parameters as 'quantum'"),
        (["svc"], 1, "draws"),
    ],
)
def test_comparison_plan_refuses_heads_and_draws(heads: list[str], draws: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparison_plan(DataPlan(), BODY, heads, draws)


def test_choose_split_depends_on_rarest_label() -> None:
    assert choose_split(dataset(512, 600)) == {"per_label": 256}
    assert choose_split(dataset(511, 600)) == {"test_fraction": 0.25}
    assert choose_split(dataset(8, 900, 900)) == {"test_fraction": 0.25}


def test_choose_split_counts_copies_once() -> None:
    copies = Dataset("reviews", ("good", "Good ", *(f"film {n}" for n in range(14))), ("a",) * 8 + ("b",) * 8)
    with pytest.raises(DataError, match="the label 'a' has 7 different sentences, and a comparison needs 8"):
        choose_split(copies)


def test_choose_split_of_one_class_raises() -> None:
    with pytest.raises(DataError, match="two or more classes"):
        choose_split(dataset(900))


def test_equal_heads_leave_logistic_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, {})
    assert found.best == REFERENCE
    assert [row.name for row in found.heads] == [name for name, _ in HEADS.values()]
    assert [each.head for each in found.differences] == [name for name, _ in HEADS.values()][1:]
    adjusted = {each.head: each.adjusted_p for each in found.analysis.comparisons}
    for row, each in zip(found.heads[1:], found.differences, strict=True):
        assert each.difference == pytest.approx(row.test_accuracy - found.heads[0].test_accuracy)
        assert each.adjusted_p == adjusted[each.head]


def test_clearly_better_head_is_chosen(tmp_path: Path) -> None:
    assert compared(tmp_path, {"quantum head": 3.0}).best == SAME_QUANTUM_HEAD


def test_simplest_of_two_better_heads_is_chosen(tmp_path: Path) -> None:
    assert compared(tmp_path, {"SVC (RBF)": 3.0, "quantum head": 3.02}).best == "SVC (RBF)"


def test_better_head_that_is_worse_than_the_best_is_not_chosen(tmp_path: Path) -> None:
    assert compared(tmp_path, {"SVC (RBF)": 2.0, "quantum head": 4.0}).best == SAME_QUANTUM_HEAD


def test_head_with_failed_runs_is_left_out(tmp_path: Path) -> None:
    def failed(task: Task) -> bool:
        return task.head == "SVC (RBF)" and task.seed > 1

    found = compared(tmp_path, {}, draws=3, failed=failed)
    assert list(found.left_out) == ["SVC (RBF)"]
    assert found.left_out["SVC (RBF)"].startswith("1 of 3 runs failed: ")
    assert "SVC (RBF)" not in {row.name for row in found.heads} | {each.head for each in found.differences}


def test_failed_reference_raises(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing can be compared: logistic regression: 2 of 2 runs failed"):
        compared(tmp_path, {}, draws=2, failed=lambda task: task.head == REFERENCE)
