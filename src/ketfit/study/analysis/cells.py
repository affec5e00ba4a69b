"""Cells of a study: the runs of one head on one body at one combination of levels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.study.analysis.formatting import setting_name
from ketfit.study.analysis.hypothesis_tests import CrossedTest, Summary, crossed_test, summarize, summarize_crossed
from ketfit.study.spec import NONE
from ketfit.study.store import PlannedTask, SplitRecord, StudyRecord, TaskResult
from ketfit.study.task import unpack_bits

SEEDS_FOR_BOOTSTRAP = 20
"""With fewer seeds the bootstrap interval covers too little; see `summarize`."""


@dataclass(frozen=True)
class Group:
    """Tasks, splits and results of one cell by seed, with the seeds that failed or have no result yet."""

    body: str
    head: str
    levels: Mapping[str, Any]
    results: Mapping[int, TaskResult] = field(repr=False)
    tasks: Mapping[int, str]
    draws: Mapping[int, SplitRecord] = field(repr=False)
    failed: tuple[int, ...]
    missing: tuple[int, ...]

    def value(self, name: str, seed: int) -> Any:
        """Return the value `name` of the result of a seed."""
        return (self.results[seed].result or {})[name]

    def values(self, name: str) -> list[Any]:
        """Return the value `name` of each result, in the order of seeds."""
        return [self.value(name, seed) for seed in self.results]

    def correct(self, seed: int) -> NDArray[np.bool_]:
        """Return one bool per test sentence: whether the head of this seed is right."""
        return unpack_bits(self.value("correct", seed), self.value("test_size", seed))

    def common_seeds(self, other: Group) -> list[int]:
        """Return the seeds with a result in both groups on the same split."""
        return [seed for seed in self.results if seed in other.results and self.draws[seed] == other.draws[seed]]

    def validation(self, selection: str) -> float:
        """Return the mean validation value that the plan selects on; smaller is better."""
        sign = 1 if selection == "loss" else -1
        return float(sign * mean(self.values(f"validation_{selection}")))


@dataclass(frozen=True)
class Cell:
    """Summary of one cell. Accuracies are fractions, times are medians in seconds.

    Attributes:
        setting: The levels as text; for a scan only those that differ from the head's own setting.
        standing: True if the cell represents its head: it has the head's own setting, or in a factorial design the
            best validation value.
        accuracy: With a t interval, for new seeds on the same sentences.
        crossed: With an interval for new seeds and new sentences; None for one seed.
        bootstrap: With a BCa interval; None below twenty seeds.
        best: The largest accuracy of all seeds; a biased estimate of the mean.
    """

    body: str
    head: str
    kind: str
    levels: Mapping[str, Any]
    setting: str
    standing: bool
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    missing: tuple[int, ...]
    accuracies: tuple[float, ...]
    accuracy: Summary | None
    crossed: Summary | None
    bootstrap: Summary | None
    best: float | None
    validation_accuracy: float | None
    validation_loss: float | None
    parameters: int | None
    n_qubits: int | None
    fit_seconds: float | None
    all_tries_seconds: float | None


def group_results(record: StudyRecord, results: Mapping[str, TaskResult]) -> list[Group]:
    """Group the tasks of a study into cells, in the order of the plan's bodies and heads."""
    found: dict[tuple[str, str, str], list[PlannedTask]] = {}
    for task in record.tasks:
        found.setdefault((task.body, task.head, json.dumps(task.levels, sort_keys=True)), []).append(task)
    draws = record.splits_by_task()
    bodies, heads = [body.label for body in record.plan.bodies], list(record.plan.heads)
    groups = []
    for tasks in found.values():
        tasks.sort(key=lambda task: task.seed)
        done = {task.seed: results[task.id] for task in tasks if task.id in results}
        groups.append(
            Group(
                body=tasks[0].body,
                head=tasks[0].head,
                levels=tasks[0].levels,
                results={seed: result for seed, result in done.items() if result.result is not None},
                tasks={task.seed: task.id for task in tasks},
                draws={task.seed: draws[task.id] for task in tasks},
                failed=tuple(seed for seed, result in done.items() if result.result is None),
                missing=tuple(task.seed for task in tasks if task.id not in results),
            )
        )
    return sorted(groups, key=lambda group: (bodies.index(group.body), heads.index(group.head)))


def by_head(groups: Iterable[Group]) -> dict[tuple[str, str], list[Group]]:
    """Return the groups of each body and head, in order."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.body, group.head), []).append(group)
    return found


def varied_groups(record: StudyRecord, groups: Iterable[Group]) -> list[Group]:
    """Return the groups of the varied quantum heads, or of all varied heads if none of them is quantum."""
    varied = [group for group in groups if group.levels]
    return [group for group in varied if record.plan.heads[group.head].kind == "quantum"] or varied


def own_levels(record: StudyRecord, group: Group, changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the levels in the own settings of a group's head, of the factors that apply to it.

    Args:
        record: The study.
        group: A group of the head.
        changed: Levels that differ from the head's own; settings whose default depends on them follow.
    """
    plan, changed = record.plan, changed or {}
    tables = {"data": {"per_label": plan.data.per_label}, "train": plan.train_config().model_dump(mode="json")}
    split = {factor: factor.partition(".") for factor in group.levels}
    if plan.heads[group.head].kind == "quantum":
        settings = {
            split[factor][2]: plan.value_of(factor, NONE if level is None else level)
            for factor, level in changed.items()
            if split[factor][0] == "head"
        }
        dimension = record.bodies[group.body].dimension
        config = plan.heads[group.head].quantum(dimension, record.data.n_classes, **settings)
        tables["head"] = config.model_dump(mode="json")
    own = {factor: plan.level_of(factor, tables[table][setting]) for factor, (table, _, setting) in split.items()}
    return {**own, **changed}


def is_on_line(record: StudyRecord, group: Group, factor: str) -> bool:
    """Return True if a group of a scan has the own settings of its head, or differs in one factor alone.

    Settings whose default depends on that factor may differ too.
    """
    own, level = own_levels(record, group), group.levels[factor]
    return group.levels == (own if level == own[factor] else own_levels(record, group, {factor: level}))


def describe_setting(record: StudyRecord, group: Group) -> str:
    """Return the levels of a group as text; see `Cell.setting`."""
    if not group.levels or record.plan.design.kind != "scan":
        return setting_name(group.levels)
    own = own_levels(record, group)
    changed = {factor: level for factor, level in group.levels.items() if level != own[factor]}
    return setting_name(changed) or "own setting"


def representative_groups(record: StudyRecord, groups: Sequence[Group]) -> dict[tuple[str, str], Group]:
    """Return the group that represents each (body, head) with a result; see `Cell.standing`."""
    found = {}
    for key, mine in by_head(group for group in groups if group.results).items():
        own = own_levels(record, mine[0]) if record.plan.design.kind in ("heads", "scan") else None
        best = min(mine, key=lambda group: group.validation(record.plan.budget.selection))
        found[key] = next((group for group in mine if group.levels == own), best)
    return found


def crossed_difference(record: StudyRecord, group: Group, other: Group, seeds: Sequence[int]) -> CrossedTest:
    """Test the difference of two groups on their common seeds, for new seeds and new sentences."""
    correct, other_correct = ([each.correct(seed) for seed in seeds] for each in (group, other))
    positions = [record.test_positions(group.draws[seed]) for seed in seeds]
    ratio = record.test_train_ratio(group.draws[seeds[0]])
    return crossed_test(correct, other_correct, positions, test_train_ratio=ratio, level=record.plan.report.level)


def make_cell(group: Group, record: StudyRecord, representative: bool) -> Cell:
    """Summarize a group as a cell."""
    level, seeds = record.plan.report.level, tuple(group.results)
    accuracies = tuple(group.values("test_accuracy"))
    enough_seeds, crossed = len(seeds) >= SEEDS_FOR_BOOTSTRAP, None
    if len(seeds) > 1:
        positions = [record.test_positions(group.draws[seed]) for seed in seeds]
        ratio = record.test_train_ratio(group.draws[seeds[0]])
        correct = [group.correct(seed) for seed in seeds]
        crossed = summarize_crossed(correct, positions, test_train_ratio=ratio, level=level)
    times = [result.run.get("seconds") or {} for result in group.results.values()]
    settings: dict[str, Any] = next((result.config["head"]["settings"] for result in group.results.values()), {})
    return Cell(
        body=group.body,
        head=group.head,
        kind=record.plan.heads[group.head].kind,
        levels=group.levels,
        setting=describe_setting(record, group),
        standing=representative,
        seeds=seeds,
        failed=group.failed,
        missing=group.missing,
        accuracies=accuracies,
        accuracy=summarize(accuracies, level=level) if seeds else None,
        crossed=crossed,
        bootstrap=summarize(accuracies, method="bootstrap", level=level) if enough_seeds else None,
        best=max(accuracies, default=None),
        validation_accuracy=_or_none(mean, group.values("validation_accuracy")),
        validation_loss=_or_none(mean, group.values("validation_loss")),
        parameters=_or_none(max, group.values("parameters")),
        n_qubits=settings.get("n_qubits"),
        fit_seconds=_or_none(median, [time["fit"] for time in times if "fit" in time]),
        all_tries_seconds=_or_none(median, [time["all_tries"] for time in times if "all_tries" in time]),
    )


def _or_none(statistic: Any, values: Sequence[Any]) -> Any:
    return statistic(values) if values else None
