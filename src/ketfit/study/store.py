"""What a study leaves on disk: ``study.json``, what is to be run, and ``rows.jsonl``, a line for each task that was.

The two say all that a report needs; neither the sentences nor the bodies are asked again.

A row is there or it is not. It is appended whole and flushed; the line that a kill cuts off has no line break, does not
count, and is taken off when the next driver opens the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Positive
from ketfit.data.splits import Split
from ketfit.errors import StudyError
from ketfit.storage.append_log import AppendLog, complete_lines
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json, parse_json
from ketfit.study.expand import BodyFacts, DataFacts
from ketfit.study.spec import StudyPlan
from ketfit.study.task import Task

ROWS, RECORD, LOCK = "rows.jsonl", "study.json", ".lock"
FLUSH_SECONDS = 0.1
"""Rows that come faster than this are flushed to the disk together; a kill of the process loses none of them."""

SplitKey = tuple[int, float, int]
"""What fixes a draw: how many sentences of each label, the share of them that validates, and the seed."""


class TaskResult(Config):
    """One line of ``rows.jsonl``: what came of a task.

    Attributes:
        task: The task's name.
        config: All that affects the result.
        result: See `run_task`; None if the task failed.
        error: ``type`` and ``message``; None if it did not.
        run: When, where and how long: all that differs between two runs of one task.
    """

    task: str
    config: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, str] | None
    run: dict[str, Any]


class PlannedTask(Config):
    """Where a task stands in its plan; see `Task`."""

    id: str
    head: str
    body: str
    levels: dict[str, Any]
    seed: int


class SplitRecord(Config):
    """Which sentences one seed does not test on, so that rows can be compared sentence by sentence without the data.

    Attributes:
        per_label: How many sentences of each label were drawn.
        validation_fraction: The share of the drawn ones that validates.
        seed: Of the draw.
        not_tested: Positions in the data set, from 0 and sorted, of the drawn sentences and of their copies.
    """

    per_label: Positive
    validation_fraction: float
    seed: int
    not_tested: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),  # JSON has lists only
    ]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        if any(one >= other for one, other in pairwise(self.not_tested)):
            raise ValueError(f"not_tested of seed {self.seed} must be sorted, each position once")
        return self

    @classmethod
    def of(cls, per_label: int, validation_fraction: float, seed: int, split: Split) -> SplitRecord:
        """The draw that made a split."""
        others = np.sort(np.concatenate([split.train, split.validation, split.excluded]))
        return cls(
            per_label=per_label, validation_fraction=validation_fraction, seed=seed, not_tested=tuple(others.tolist())
        )

    @property
    def key(self) -> SplitKey:
        """What fixes it."""
        return self.per_label, self.validation_fraction, self.seed


class StudyRecord(Config):
    """The content of ``study.json``; `draws` has every draw of the tasks once."""

    plan: StudyPlan
    command: str
    versions: dict[str, str]
    data: DataFacts
    bodies: dict[str, BodyFacts]
    tasks: tuple[PlannedTask, ...]
    draws: tuple[SplitRecord, ...]

    @model_validator(mode="after")
    def _draws_fit(self) -> Self:
        if len({draw.key for draw in self.draws}) < len(self.draws):
            raise ValueError("draws has one of them twice")
        for draw in self.draws:
            if draw.not_tested and draw.not_tested[-1] >= self.data.size:
                raise ValueError(
                    f"draws: not_tested of seed {draw.seed} has {draw.not_tested[-1]}; "
                    f"positions go from 0 to {self.data.size - 1}"
                )
        self.draws_by_task()
        return self

    def draws_by_task(self) -> dict[str, SplitRecord]:
        """The draw of each task, by the task's name.

        Raises:
            ValueError: the draw of a task is not there.
        """
        known, data = {draw.key: draw for draw in self.draws}, self.plan.data
        found = {}
        for task in self.tasks:
            key = task.levels.get("data.per_label", data.per_label), data.validation_fraction, task.seed
            if key not in known:
                raise ValueError(f"draws has none of {key[0]} sentences a label with seed {task.seed}")
            found[task.id] = known[key]
        return found

    def test_positions(self, draw: SplitRecord) -> NDArray[np.int64]:
        """Positions of a draw's test sentences in the data set, sorted: the order in which rows tell what was right."""
        others = np.array(draw.not_tested, np.int64)
        return np.setdiff1d(np.arange(self.data.size, dtype=np.int64), others, assume_unique=True)

    @classmethod
    def of(cls, plan: StudyPlan, tasks: list[Task], **facts: Any) -> StudyRecord:
        """The record of a plan and its tasks."""
        planned = (PlannedTask(**{name: getattr(task, name) for name in PlannedTask.model_fields}) for task in tasks)
        return cls(plan=plan, tasks=tuple(planned), **facts)

    def write(self, folder: Path) -> None:
        """Put it in a study's folder, in the place of an older one.

        Raises:
            StorageError: it cannot be written.
        """
        write_file(folder / RECORD, (dump_json(self.model_dump(mode="json"), "the study") + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> StudyRecord:
        """The record of a study's folder.

        Raises:
            StudyError: there is none, or it is damaged.
        """
        path = folder / RECORD
        try:
            table = parse_json(path.read_text(encoding="utf-8"))
            return cls(
                plan=StudyPlan.from_mapping(table["plan"]),
                command=table["command"],
                versions=table["versions"],
                data=DataFacts.from_mapping(table["data"]),
                bodies={name: BodyFacts.from_mapping(facts) for name, facts in table["bodies"].items()},
                tasks=tuple(PlannedTask.from_mapping(task) for task in table["tasks"]),
                draws=tuple(SplitRecord.from_mapping(draw) for draw in table["draws"]),
            )
        except FileNotFoundError as error:
            raise StudyError(f"{folder} holds no study: it has no {RECORD}; begin with ketfit study run") from error
        except OSError as error:
            raise StudyError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StudyError(f"{path} is damaged ({error}); run the study again to write it anew") from error


def read_results(folder: Path) -> dict[str, TaskResult]:
    """The rows of a study's folder by task; of a task that was tried again, the last one.

    Raises:
        StudyError: a whole line is not a row; it is never passed over.
    """
    path = folder / ROWS
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror or error}") from error
    rows: dict[str, TaskResult] = {}
    for number, line in enumerate(complete_lines(content), start=1):
        try:
            row = TaskResult.from_mapping(parse_json(line.decode("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise StudyError(
                f"{path}, line {number} is not a row ({error}); take the line out to run it again"
            ) from error
        rows[row.task] = row
    return rows


class ResultLog:
    """The rows of a study, open for appending, by one driver at a time. Use it as a context manager.

    Args:
        folder: The study's folder; made if it is missing.

    Raises:
        StudyError: another driver has the folder, or a row is damaged.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        taken = StudyError(f"another ketfit study run has {folder}; wait for it, or name another folder")
        self._lines = AppendLog(folder / ROWS, LOCK, taken, FLUSH_SECONDS)
        self.rows = self._lines.open(lambda: read_results(folder))

    def append(self, row: TaskResult) -> None:
        """Add a row at the end: one write, and soon after it is on the disk.

        Raises:
            StorageError: it cannot be written; the rows before it stand.
        """
        self._lines.append(json.dumps(row.model_dump(mode="json"), separators=(",", ":"), allow_nan=False).encode())
        self.rows[row.task] = row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.__exit__(*error)


def missing(tasks: Iterable[Task], rows: Mapping[str, TaskResult], retry_failed: bool) -> list[Task]:
    """The tasks without a row, each once, in order; with `retry_failed` also those that failed."""
    wanted = {task.id: task for task in tasks}
    return [
        task for task in wanted.values() if task.id not in rows or (retry_failed and rows[task.id].error is not None)
    ]
