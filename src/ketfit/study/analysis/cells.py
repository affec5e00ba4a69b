"""Cells of a study: one head on one body at one combination of levels, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.study.analysis.formatting import setting_name
from ketfit.study.analysis.hypothesis_tests import Summary, summarize, summarize_crossed
from ketfit.study.store import SplitRecord, StudyRecord, TaskResult
from ketfit.study.task import unpack_bits

SEEDS_FOR_BOOTSTRAP = 20
"""Below, the bootstrap covers less than it says; see `summarize`."""


@dataclass(frozen=True)
class Group:
    """Tasks and draws of one cell by seed, its rows with a result, and the seeds that failed or are still to be run."""

    body: str
    head: str
    levels: Mapping[str, Any]
    rows: Mapping[int, TaskResult] = field(repr=False)
    tasks: Mapping[int, str]
    draws: Mapping[int, SplitRecord] = field(repr=False)
    failed: tuple[int, ...]
    missing: tuple[int, ...]

    def results(self, name: str) -> list[Any]:
        """One figure of the results, seed by seed."""
        return [(row.result or {})[name] for row in self.rows.values()]

    def correct(self, seed: int) -> NDArray[np.bool_]:
        """Which test sentences the head of this seed gets right."""
        result = self.rows[seed].result or {}
        return unpack_bits(result["correct"], result["test_size"])

    def common_seeds(self, other: Group) -> list[int]:
        """The seeds with a result here and in another group, on the same draw of the sentences."""
        return [seed for seed in self.rows if seed in other.rows and self.draws[seed] == other.draws[seed]]

    def validation(self, selection: str) -> float:
        """What the plan selects on, over the seeds; the smaller, the better."""
        sign = 1 if selection == "loss" else -1
        return float(sign * mean(self.results(f"validation_{selection}")))


@dataclass(frozen=True)
class Cell:
    """A cell as it is reported. Accuracies are fractions, times are medians in seconds.

    Attributes:
        setting: The levels in words; of a scan only what differs from the head's own setting.
        standing: Whether it stands for its head: the head's own setting, or of a factorial design the one that is
            best on validation.
        accuracy: With a t interval, for new seeds on the same sentences.
        crossed: With an interval for new seeds and new sentences; None for one seed.
        bootstrap: With a BCa interval; None below twenty seeds.
        best: The best seed's: the largest of so many draws, not an estimate of anything.
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


def group_rows(record: StudyRecord, rows: Mapping[str, TaskResult]) -> list[Group]:
    """The tasks of a study in their cells, in the order of the plan's bodies and heads."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for task in record.tasks:
        found.setdefault((task.body, task.head, json.dumps(task.levels, sort_keys=True)), []).append(task)
    draws = record.splits_by_task()
    bodies, heads = [body.label for body in record.plan.bodies], list(record.plan.heads)
    groups = []
    for tasks in found.values():
        tasks.sort(key=lambda task: task.seed)
        done = {task.seed: rows[task.id] for task in tasks if task.id in rows}
        groups.append(
            Group(
                body=tasks[0].body,
                head=tasks[0].head,
                levels=tasks[0].levels,
                rows={seed: row for seed, row in done.items() if row.result is not None},
                tasks={task.seed: task.id for task in tasks},
                draws={task.seed: draws[task.id] for task in tasks},
                failed=tuple(seed for seed, row in done.items() if row.result is None),
                missing=tuple(task.seed for task in tasks if task.id not in rows),
            )
        )
    return sorted(groups, key=lambda group: (bodies.index(group.body), heads.index(group.head)))


def own_levels(record: StudyRecord, body: str, head: str, factors: Sequence[str]) -> dict[str, Any]:
    """The levels that a head has by itself, of the factors named."""
    plan, tables = record.plan, {"data": {"per_label": record.plan.data.per_label}}
    tables["train"] = plan.train_config().model_dump(mode="json")
    if plan.heads[head].kind == "quantum":
        config = plan.heads[head].quantum(record.bodies[body].dimension, record.data.n_classes)
        tables["head"] = config.model_dump(mode="json")
    split = {factor: factor.partition(".") for factor in factors}
    return {factor: tables[table][setting] for factor, (table, _, setting) in split.items()}


def describe_setting(record: StudyRecord, group: Group) -> str:
    """See `Cell.setting`."""
    levels = dict(group.levels)
    if levels and record.plan.design.kind == "scan":
        own = own_levels(record, group.body, group.head, list(levels))
        levels = {factor: level for factor, level in levels.items() if level != own[factor]}
        return setting_name(levels) or "own setting"
    return setting_name(levels)


def representative_groups(record: StudyRecord, groups: Sequence[Group]) -> dict[tuple[str, str], Group]:
    """The cell that stands for each head on each body: see `Cell`. A head without any result has none."""
    found = {}
    for body, head in dict.fromkeys((group.body, group.head) for group in groups):
        mine = [group for group in groups if (group.body, group.head) == (body, head) and group.rows]
        own = [group for group in mine if group.levels == own_levels(record, body, head, list(group.levels))]
        if mine and own and record.plan.design.kind in ("heads", "scan"):
            found[body, head] = own[0]
        elif mine:
            found[body, head] = min(mine, key=lambda group: group.validation(record.plan.budget.selection))
    return found


def make_cell(group: Group, record: StudyRecord, standing: bool) -> Cell:
    """What is reported of a group."""
    level, seeds = record.plan.report.level, tuple(group.rows)
    accuracies = tuple(group.results("test_accuracy"))
    crossed = None
    if len(seeds) > 1:
        positions = [record.test_positions(group.draws[seed]) for seed in seeds]
        crossed = summarize_crossed([group.correct(seed) for seed in seeds], positions, level=level)
    times = [row.run.get("seconds") or {} for row in group.rows.values()]
    settings: dict[str, Any] = next((row.config["head"]["settings"] for row in group.rows.values()), {})
    return Cell(
        body=group.body,
        head=group.head,
        kind=record.plan.heads[group.head].kind,
        levels=group.levels,
        setting=describe_setting(record, group),
        standing=standing,
        seeds=seeds,
        failed=group.failed,
        missing=group.missing,
        accuracies=accuracies,
        accuracy=summarize(accuracies, level=level) if seeds else None,
        crossed=crossed,
        bootstrap=_bootstrap(accuracies, level),
        best=max(accuracies, default=None),
        validation_accuracy=_middle(mean, group.results("validation_accuracy")),
        validation_loss=_middle(mean, group.results("validation_loss")),
        parameters=_middle(max, group.results("parameters")),
        n_qubits=settings.get("n_qubits"),
        fit_seconds=_middle(median, [time["fit"] for time in times if "fit" in time]),
        all_tries_seconds=_middle(median, [time["all_tries"] for time in times if "all_tries" in time]),
    )


def _bootstrap(accuracies: Sequence[float], level: float) -> Summary | None:
    return summarize(accuracies, method="bootstrap", level=level) if len(accuracies) >= SEEDS_FOR_BOOTSTRAP else None


def _middle(of: Any, values: Sequence[Any]) -> Any:
    return of(values) if values else None
