"""Files of a study: ``study.json`` has the plan and its tasks, ``rows.jsonl`` one result per line.

A report needs these two files only, neither the sentences nor the bodies. A result is appended as a whole line; an
incomplete last line, left by a kill, is ignored by readers and removed by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from ketfit.base_config import Config, Positive
from ketfit.data.splits import Split
from ketfit.errors import StudyError
from ketfit.storage.append_log import AppendLog, complete_lines
from ketfit.storage.atomic import write_file
from ketfit.storage.strict_json import dump_json, parse_json
from ketfit.study.expand import BodyMetadata, DataMetadata
from ketfit.study.spec import Lax, StudyPlan
from ketfit.study.task import Task

ROWS, RECORD, LOCK = "rows.jsonl", "study.json", ".lock"
FLUSH_SECONDS = 0.1
"""Longest delay between two flushes to the disk; a killed process loses no written result."""

SplitKey = tuple[int | float, float, int]
"""Key of a split: its size (see `DataPlan.split_size`), the fraction of its sentences for validation, and its seed."""


class TaskResult(Config):
    """Result of a task, one line of ``rows.jsonl``.

    Attributes:
        task: Id of the task.
        config: Configuration of the task.
        result: Result of `run_task`; None if the task failed.
        error: ``type`` and ``message``; None if the task succeeded.
        run: Host, end and duration, and the precision of each stage of tuning, which depends on the machine if the plan
            says `auto`. Two runs of one task differ in these entries only, if their precision is the same.
    """

    task: str
    config: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, str] | None
    run: dict[str, Any]


class PlannedTask(Config):
    """A task without its configuration; see `Task`."""

    id: str
    head: str
    body: str
    levels: dict[str, Any]
    seed: int


class SplitRecord(Config):
    """Positions of the sentences outside the test set of a split, to compare results sentence by sentence.

    Attributes:
        per_label: Number of sentences drawn per label; None for a hold-out.
        validation_fraction: Fraction of the drawn sentences for validation.
        seed: Seed of the split.
        not_tested: Sorted positions, from 0, of the drawn sentences and of their duplicates in the data set.
        test_fraction: Fraction of all sentences that a hold-out tests on; None for a few-shot draw.
    """

    per_label: Positive | None
    validation_fraction: float
    seed: int
    not_tested: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Lax]
    test_fraction: Annotated[float | None, Field(gt=0, lt=1)] = None

    @model_validator(mode="after")
    def _check_sorted(self) -> Self:
        if (self.per_label is None) == (self.test_fraction is None):
            raise ValueError(f"draws: seed {self.seed} needs either per_label or test_fraction")
        if any(one >= other for one, other in pairwise(self.not_tested)):
            raise ValueError(f"not_tested of seed {self.seed} must be sorted, each position once")
        return self

    @classmethod
    def from_split(cls, key: SplitKey, split: Split) -> SplitRecord:
        """Return the record of a split."""
        size, validation_fraction, seed = key
        others = np.sort(np.concatenate([split.train, split.validation, split.excluded]))
        return cls(
            per_label=size if isinstance(size, int) else None,
            validation_fraction=validation_fraction,
            seed=seed,
            not_tested=tuple(others.tolist()),
            test_fraction=None if isinstance(size, int) else size,
        )

    @property
    def key(self) -> SplitKey:
        """Key of the split."""
        size = self.per_label if self.test_fraction is None else self.test_fraction
        assert size is not None
        return size, self.validation_fraction, self.seed


class StudyRecord(Config):
    """Content of ``study.json``; `draws` has every split of the tasks once."""

    plan: Annotated[StudyPlan, Lax]
    command: str
    versions: dict[str, str]
    data: Annotated[DataMetadata, Lax]
    bodies: dict[str, Annotated[BodyMetadata, Lax]]
    tasks: Annotated[tuple[Annotated[PlannedTask, Lax], ...], Lax]
    draws: Annotated[tuple[Annotated[SplitRecord, Lax], ...], Lax]

    @model_validator(mode="after")
    def _check_draws(self) -> Self:
        if len({split.key for split in self.draws}) < len(self.draws):
            raise ValueError("draws holds a split twice")
        for split in self.draws:
            if split.not_tested and split.not_tested[-1] >= self.data.size:
                message = f"draws: not_tested of seed {split.seed} has {split.not_tested[-1]}"
                raise ValueError(f"{message}; positions go from 0 to {self.data.size - 1}")
        self.splits_by_task()
        return self

    def splits_by_task(self) -> dict[str, SplitRecord]:
        """Return the split of each task, by task id.

        Raises:
            ValueError: The split of a task is missing.
        """
        known, data = {split.key: split for split in self.draws}, self.plan.data
        splits = {}
        for task in self.tasks:
            key = task.levels.get("data.per_label", data.split_size), data.validation_fraction, task.seed
            if key not in known:
                size = f"{key[0]} sentences per label" if data.test_fraction is None else f"test_fraction {key[0]}"
                raise ValueError(f"draws has no split of {size} with seed {task.seed}")
            splits[task.id] = known[key]
        return splits

    def drawn_size(self, split: SplitRecord) -> int:
        """Return the number of sentences of a split for training and validation."""
        return len(split.not_tested) if split.per_label is None else split.per_label * self.data.n_classes

    def train_size(self, split: SplitRecord) -> int:
        """Return the number of training sentences of a split, if no group kept validation sentences in training."""
        return self.drawn_size(split) - self.validation_size(split)

    def validation_size(self, split: SplitRecord) -> int:
        """Return the number of validation sentences of a split, if no group kept them in training."""
        return round(self.drawn_size(split) * split.validation_fraction)

    def test_train_ratio(self, split: SplitRecord) -> float | None:
        """Return the test sentences per training sentence of a hold-out; None for a few-shot draw, which shares few."""
        if split.test_fraction is None:
            return None
        return (self.data.size - len(split.not_tested)) / self.train_size(split)

    def test_positions(self, split: SplitRecord) -> NDArray[np.int64]:
        """Return the sorted positions of a split's test sentences, the order of ``correct`` in its results."""
        others = np.array(split.not_tested, np.int64)
        return np.setdiff1d(np.arange(self.data.size, dtype=np.int64), others, assume_unique=True)

    @classmethod
    def from_tasks(cls, plan: StudyPlan, tasks: list[Task], **metadata: Any) -> StudyRecord:
        """Return the record of a plan and its tasks; `metadata` are the other fields."""
        planned = (PlannedTask(**{name: getattr(task, name) for name in PlannedTask.model_fields}) for task in tasks)
        return cls(plan=plan, tasks=tuple(planned), **metadata)

    def write(self, folder: Path) -> None:
        """Write ``study.json`` into a folder, replacing an older one.

        Raises:
            StorageError: The file cannot be written.
        """
        write_file(folder / RECORD, (dump_json(self.model_dump(mode="json"), "the study") + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> StudyRecord:
        """Return the record of a study's folder.

        Raises:
            StudyError: The file is missing or damaged.
        """
        path = folder / RECORD
        try:
            return cls(**parse_json(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise StudyError(f"{folder} holds no study: it has no {RECORD}; start one with ketfit study run") from error
        except OSError as error:
            raise StudyError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise StudyError(f"{path} is damaged ({error}); run the study again to rewrite it") from error


def read_results(folder: Path) -> dict[str, TaskResult]:
    """Return the results of a study's folder by task id; the last one of a task that ran again.

    Raises:
        StudyError: The file cannot be read, or a complete line is not a result.
    """
    path = folder / ROWS
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror or error}") from error
    results: dict[str, TaskResult] = {}
    for number, line in enumerate(complete_lines(content), start=1):
        try:
            result = TaskResult.from_mapping(parse_json(line.decode("utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise StudyError(
                f"{path}, line {number} is not a result ({error}); delete the line to run its task again"
            ) from error
        results[result.task] = result
    return results


class ResultLog:
    """Results of a study by task id, open for appending by one process at a time. Use it as a context manager.

    Args:
        folder: Folder of the study, created if missing.

    Raises:
        StudyError: Another run uses the folder, or a result is damaged.
        StorageError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        locked = StudyError(f"another ketfit study run uses {folder}; wait for it, or name another folder")
        self._log = AppendLog(folder / ROWS, LOCK, locked, FLUSH_SECONDS)
        self.results = self._log.open(lambda: read_results(folder))

    def append(self, result: TaskResult) -> None:
        """Append a result as one line, flushed to the disk within `FLUSH_SECONDS`.

        Raises:
            StorageError: The line cannot be written; earlier results are kept.
        """
        self._log.append(json.dumps(result.model_dump(mode="json"), separators=(",", ":"), allow_nan=False).encode())
        self.results[result.task] = result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._log.__exit__(*error)


def pending_tasks(tasks: Iterable[Task], results: Mapping[str, TaskResult], retry_failed: bool) -> list[Task]:
    """Return the tasks without a result, each once, in order; with `retry_failed` also those that failed."""
    done = {name for name, result in results.items() if not (retry_failed and result.error is not None)}
    return [task for name, task in {task.id: task for task in tasks}.items() if name not in done]
