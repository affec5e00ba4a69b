"""Compare all heads on one data set: the plan of such a study, its differences, and the head to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ketfit.data.dataset import Dataset
from ketfit.data.splits import check_classes, duplicate_groups
from ketfit.errors import ConfigError, DataError, StudyError
from ketfit.evaluation.compare import HeadResult
from ketfit.evaluation.paired_difference import PairedDifference
from ketfit.integers import as_integer
from ketfit.study.analysis.analysis import Analysis, analyse
from ketfit.study.analysis.cells import Cell
from ketfit.study.spec import BodyPlan, DataPlan, StudyPlan
from ketfit.study.store import StudyRecord, TaskResult

REFERENCE = "logistic regression"
_QUANTUM = "quantum head"

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": (REFERENCE, {"kind": "logistic-regression"}),
    "svc": ("SVC (RBF)", {"kind": "svc"}),
    "mlp": ("MLP, matched", {"kind": "mlp", "match": _QUANTUM}),
    "qpu": ("quantum head for a QPU", {"kind": "quantum", "start": "qpu"}),
    "quantum": (_QUANTUM, {"kind": "quantum", "start": "recommended"}),
    "paper": ("paper's head", {"kind": "quantum", "start": "paper"}),
}
"""Name and `HeadPlan` settings of each head that can be compared, the simplest first."""

FEW_SHOT = 256
"""Sentences per label of a few-shot draw, as in the paper."""
TEST_FRACTION = 0.25
"""Share of the sentences that a hold-out tests on."""
MIN_PER_LABEL = 8
"""Different sentences of each label that a hold-out needs: two to test on, one to validate on and some to train on."""


@dataclass(frozen=True)
class HeadComparisonResult:
    """Results of all heads.

    Attributes:
        heads: One row per head with a result for every seed, in the order of the plan.
        differences: Differences of the other heads to logistic regression.
        left_out: Why a head has no row, by name.
        analysis: The analysis of the study.
        best: The simplest head that is not shown to be worse than the best one.
    """

    heads: tuple[HeadResult, ...]
    differences: tuple[PairedDifference, ...]
    left_out: Mapping[str, str]
    analysis: Analysis
    best: str


def comparison_plan(data: DataPlan, body: BodyPlan, heads: Sequence[str] = (), draws: int = 5) -> StudyPlan:
    """Return the plan of a comparison.

    Every head is trained with its default settings, as ``ketfit fit`` trains it: one try per head and seed.

    Args:
        data: The data set and its splits.
        body: The body.
        heads: Keys of `HEADS`, of which logistic regression is always one; none is all of them.
        draws: Number of seeds, at least 2.

    Raises:
        ConfigError: A head is unknown, there is only one, the head that the mlp is matched to is missing, or `draws` is
            not an integer of 2 or more.

    >>> plan = comparison_plan(DataPlan(), BodyPlan(name="all-MiniLM-L6-v2"), ["svc"])
    >>> list(plan.heads)
    ['logistic regression', 'SVC (RBF)']
    """
    if unknown := [name for name in heads if name not in HEADS]:
        raise ConfigError(f"unknown head {unknown[0]!r}; known: {', '.join(HEADS)}")
    chosen = dict(HEADS[name] for name in HEADS if not heads or name in heads or name == "logistic")
    if len(chosen) < 2:
        raise ConfigError("a comparison needs another head beside logistic; name more")
    if HEADS["mlp"][0] in chosen and _QUANTUM not in chosen:
        raise ConfigError("the head 'mlp' has as many parameters as 'quantum'; name that head too")
    settings = {
        "name": f"Heads on {data.source}",
        "question": f"Which head do the sentences of {data.source} need?",
        "seeds": as_integer(draws, "draws", minimum=2),
        "bodies": [body],
        "data": data,
        "heads": chosen,
        "report": {"reference": REFERENCE},
    }
    return StudyPlan.from_mapping(settings, where="the comparison")


def choose_split(dataset: Dataset) -> dict[str, int | float]:
    """Return the splits of a data set as settings of `DataPlan`: few-shot draws, or hold-outs of a small one.

    A draw takes 256 sentences of each label, if every label has at least twice as many different ones.

    Raises:
        DataError: The data set has one class, or fewer than `MIN_PER_LABEL` different sentences of a label.
    """
    check_classes(dataset)
    pairs = zip(duplicate_groups(dataset.texts).tolist(), dataset.labels, strict=True)
    labels = [label for _, label in set(pairs)]
    counts = {label: labels.count(label) for label in dataset.classes}
    rarest = min(counts, key=lambda label: counts[label])
    if counts[rarest] >= 2 * FEW_SHOT:
        return {"per_label": FEW_SHOT}
    if counts[rarest] < MIN_PER_LABEL:
        raise DataError(
            f"{dataset.name}: the label {rarest!r} has {counts[rarest]} different sentences, and a comparison needs "
            f"{MIN_PER_LABEL} of each label; add sentences, or leave the label out"
        )
    return {"test_fraction": TEST_FRACTION}


def compare_results(record: StudyRecord, results: Mapping[str, TaskResult]) -> HeadComparisonResult:
    """Return the comparison of the heads of a finished study.

    Raises:
        StudyError: Logistic regression failed, or all other heads did.
    """
    analysis = analyse(record, results)
    complete = {cell.head: cell for cell in analysis.cells if not (cell.failed or cell.missing)}
    left_out = {cell.head: _failure(record, results, cell) for cell in analysis.cells if cell.head not in complete}
    if REFERENCE not in complete or len(complete) < 2:
        raise StudyError(f"nothing can be compared: {'; '.join(f'{head}: {why}' for head, why in left_out.items())}")
    return HeadComparisonResult(
        heads=tuple(_row(cell) for cell in complete.values()),
        differences=tuple(_differences(analysis, list(complete))),
        left_out=left_out,
        analysis=analysis,
        best=_simplest_adequate(record, results, analysis, complete),
    )


def _simplest_adequate(
    record: StudyRecord, results: Mapping[str, TaskResult], analysis: Analysis, complete: Mapping[str, Cell]
) -> str:
    """Return the simplest head that is not shown to be worse than the best.

    It is logistic regression unless a head is shown to be better, so that the choice agrees with the conclusions. All
    others are tested against the head with the best mean, in a family of their own.
    """
    if not any(each.is_shown and each.difference > 0 for each in _differences(analysis, list(complete))):
        return REFERENCE
    best = max(complete, key=lambda head: sum(complete[head].accuracies))
    plan = record.plan.updated(report=record.plan.report.updated(reference=best))
    against = _differences(analyse(record.updated(plan=plan), results), list(complete))
    worse = {each.head for each in against if each.is_shown and each.difference < 0}
    return next(head for head in complete if head not in worse and head != REFERENCE)


def _differences(analysis: Analysis, heads: Sequence[str]) -> list[PairedDifference]:
    found = []
    for each in analysis.comparisons:
        if each.head in heads and each.crossed is not None and each.adjusted_p is not None:
            low, high = each.crossed.low, each.crossed.high
            interval = None if low is None or high is None else (low, high)
            found.append(PairedDifference(each.head, each.difference, interval, each.adjusted_p))
    return found


def _row(cell: Cell) -> HeadResult:
    crossed = cell.crossed
    assert crossed is not None
    assert cell.parameters is not None
    assert cell.fit_seconds is not None
    interval = None if crossed.low is None or crossed.high is None else (crossed.low, crossed.high)
    return HeadResult(cell.head, cell.parameters, crossed.mean, interval, cell.fit_seconds)


def _failure(record: StudyRecord, results: Mapping[str, TaskResult], cell: Cell) -> str:
    """Return how many runs of a head failed, and the error of the first."""
    errors = [
        results[task.id].error
        for task in record.tasks
        if task.head == cell.head and task.id in results and results[task.id].error is not None
    ]
    first = errors[0]["message"] if errors and errors[0] else "no result"
    return f"{len(cell.failed) + len(cell.missing)} of {len(record.plan.seeds)} runs failed: {first}"
