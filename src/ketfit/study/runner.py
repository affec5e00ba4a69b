"""Running a study: the work that tasks share is done once, then whatever has no row yet is run."""

from __future__ import annotations

import logging
import platform
import socket
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.bodies.body import Body, load_body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import Split, few_shot_split
from ketfit.errors import ConfigWarning, DataOptionError
from ketfit.estimators.base import capacity_warning
from ketfit.estimators.classical import RAISE_HIDDEN
from ketfit.estimators.quantum import readout_warning
from ketfit.model.config import HeadConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.progress import ProgressBar
from ketfit.study.end_to_end import EndToEndRunner
from ketfit.study.executors import Arrays, Executor, Work
from ketfit.study.expand import BodyFacts, DataFacts, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.store import ResultLog, SplitKey, SplitRecord, StudyRecord, TaskResult, missing
from ketfit.study.task import Task, run_task_safely

_log = logging.getLogger(__name__)

TUNING = "tuning.safetensors"
"""The checkpoint of the body that is being tuned; it is gone when the body is done."""

PACKAGES = ("ketfit", "torch", "scikit-learn", "sentence-transformers", "numpy")


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is: tasks with a result, tasks that failed, tasks in all, and those this run did."""

    done: int
    failed: int
    total: int
    ran: int = 0


def run_study(
    plan: StudyPlan,
    folder: Path,
    executor: Executor,
    *,
    command: str,
    retry_failed: bool = False,
    progress: bool = False,
) -> StudyProgress:
    """Run the tasks of a plan that have no row in `folder` yet.

    The plan is checked as a whole before any work: every combination is resolved, every split is drawn. Rows of an
    earlier plan stay where they are and count again where the same task comes up.

    Args:
        plan: The plan.
        folder: Where ``study.json`` and ``rows.jsonl`` are or will be.
        executor: Who runs the tasks.
        command: What made it, for the report.
        retry_failed: Run those again that failed.
        progress: Show bars on stderr.

    Raises:
        ConfigError, DataError, BodyError: the plan cannot be run with these sentences and bodies.
        StudyError: the folder has another driver, or the workers cannot be had or keep dying.
        StorageError: the folder cannot be written; the rows so far stand.
    """
    dataset = _load_data(plan)
    data = DataFacts(
        name=dataset.name, fingerprint=dataset.fingerprint, size=len(dataset), n_classes=len(dataset.classes)
    )
    bodies = {body.label: load_body(body.name, revision=body.revision, dtype=body.dtype) for body in plan.bodies}
    facts = {name: BodyFacts(fingerprint=body.fingerprint, dimension=body.dimension) for name, body in bodies.items()}
    tasks = expand(plan, data, facts)
    _warn(tasks, data, facts)
    shared = _Shared(plan, dataset, bodies, tasks)
    with ResultLog(folder) as rows:
        StudyRecord.of(
            plan, tasks, command=command, versions=_versions(), data=data, bodies=facts, draws=shared.draws()
        ).write(folder)
        wanted = missing(tasks, rows.rows, retry_failed)
        apart = [task for task in wanted if not shared.is_together(task)]
        shared.embed(apart, folder / TUNING, progress)
        execute(rows, executor, apart, shared.arrays, progress)
        shared.train_together(rows, [task for task in wanted if shared.is_together(task)], folder, progress)
        return count(tasks, rows.rows, ran=len(wanted))


def _warn(tasks: Iterable[Task], data: DataFacts, bodies: Mapping[str, BodyFacts]) -> None:
    """Say once for each head and body what every fit of its tasks would say."""
    told = set()
    for task in tasks:
        head, advice = task.config["head"], ""
        if head["kind"] == "quantum":
            shape = HeadConfig.from_mapping(head["settings"])
            advice = readout_warning(shape, bodies[task.body].dimension, data.n_classes)
        elif head["kind"] == "mlp" and head["settings"]["hidden"]:
            advice = capacity_warning(head["settings"]["hidden"], data.n_classes, RAISE_HIDDEN)
        if advice:
            told.add(f"head {task.head!r} on {task.body}: {advice}")
    for message in sorted(told):
        warnings.warn(message, ConfigWarning, stacklevel=3)


def count(tasks: Iterable[Any], rows: Mapping[str, TaskResult], ran: int = 0) -> StudyProgress:
    """How many of the tasks have a result, and how many failed."""
    found = [rows.get(name) for name in {task.id: None for task in tasks}]
    failed = sum(row is not None and row.error is not None for row in found)
    return StudyProgress(sum(row is not None for row in found) - failed, failed, len(found), ran)


class _Shared:
    """What tasks have in common: the splits of each seed, drawn at once, tuned bodies, and the embeddings."""

    def __init__(self, plan: StudyPlan, dataset: Dataset, bodies: Mapping[str, Body], tasks: Iterable[Task]) -> None:
        self.dataset = dataset
        self.bodies = bodies
        self.tunings = {body.label: body.tune for body in plan.bodies}
        codes = {label: code for code, label in enumerate(dataset.classes)}
        self.codes = np.array([codes[label] for label in dataset.labels], np.int64)
        keys = dict.fromkeys(map(_draw, tasks))
        self.splits: dict[SplitKey, Split] = {key: few_shot_split(dataset, *key) for key in keys}
        if empty := [key for key, split in self.splits.items() if not len(split.test)]:
            raise DataOptionError(
                f"data.per_label={empty[0][0]} leaves no sentence of {dataset.name} to test on; lower it or add some"
            )
        self.embeddings: dict[tuple[str, SplitKey | None], NDArray[np.float32]] = {}

    def draws(self) -> tuple[SplitRecord, ...]:
        """The splits as the record has them, in the order of what fixes them."""
        return tuple(SplitRecord.of(*key, split=self.splits[key]) for key in sorted(self.splits))

    def embed(self, tasks: Iterable[Task], checkpoint: Path, progress: bool) -> None:
        """Embed all sentences with each body of the tasks, tuned for each draw where the plan has it so.

        Tuned bodies and embeddings come from the cache as far as it has them.
        """
        for label, draw in dict.fromkeys(map(self._embedding, tasks)):
            body, tuning = self.bodies[label], self.tunings[label]
            if draw is not None and isinstance(tuning, ContrastiveConfig):
                body = self._tune(body, tuning, draw, checkpoint, progress)
            _log.info("%s sentences of %s; embedding with %s", f"{len(self.dataset):,}", self.dataset.name, label)
            self.embeddings[label, draw] = body.encode(self.dataset.texts, progress=progress)

    def is_together(self, task: Task) -> bool:
        """Whether the body of a task is trained with its head."""
        return isinstance(self.tunings[task.body], EndToEndConfig)

    def train_together(self, rows: ResultLog, tasks: Iterable[Task], folder: Path, progress: bool) -> None:
        """Run the tasks whose body is trained with their head, one after the other on all cores of this machine."""
        together = EndToEndRunner(self.dataset.texts, self.codes, folder, progress)
        for task in tasks:
            tuning = self.tunings[task.body]
            assert isinstance(tuning, EndToEndConfig)
            rows.append(_row(task, together.attempt(task, self.bodies[task.body], tuning, self.splits[_draw(task)])))

    def _tune(self, body: Body, tuning: ContrastiveConfig, draw: SplitKey, checkpoint: Path, progress: bool) -> Body:
        from ketfit.bodies.contrastive import tune_body

        train = self.dataset.take(self.splits[draw].train)
        _log.info("tuning %s on the %d sentences of seed %d", body.name, len(train), draw[-1])
        tuned = tune_body(
            body, train.texts, train.labels, tuning, seed=draw[-1], checkpoint=checkpoint, progress=progress
        )
        checkpoint.unlink(missing_ok=True)
        return tuned

    def _embedding(self, task: Task) -> tuple[str, SplitKey | None]:
        return task.body, None if self.tunings[task.body] is None else _draw(task)

    def arrays(self, task: Task) -> Arrays:
        """The arrays of the task's `Material`; equal ones are the same objects."""
        split = self.splits[_draw(task)]
        return self.embeddings[self._embedding(task)], self.codes, split.train, split.validation, split.test


def _draw(task: Task) -> SplitKey:
    data = task.config["data"]
    return data["per_label"], data["validation_fraction"], task.seed


def execute(
    rows: ResultLog,
    executor: Executor,
    tasks: Sequence[Task],
    arrays: Callable[[Task], Arrays],
    progress: bool,
    work: Work = run_task_safely,
) -> None:
    """Run tasks, and append the row of each as it comes.

    Args:
        rows: Where to.
        executor: Who runs them.
        tasks: What to run.
        arrays: What a task works on, the arguments of `work` behind the task's configuration.
        progress: Show a bar on stderr.
        work: What is done for a task.

    Raises:
        StudyError: the workers cannot be had or keep dying.
        StorageError: a row cannot be written.
    """
    jobs = [(task.config, arrays(task)) for task in tasks]
    failed = 0
    with ProgressBar("tasks", len(tasks), shown=progress) as bar:
        for place, outcome in executor.run(work, jobs):
            task = tasks[place]
            row = _row(task, outcome)
            rows.append(row)
            failed += row.error is not None
            bar.advance(note=f"{bar.rate:.1f}/s" + (f", {failed} failed" if failed else ""))


def _row(task: Task, outcome: Mapping[str, Any]) -> TaskResult:
    run = {"host": socket.gethostname(), "finished": _now(), "seconds": outcome.get("timing")}
    return TaskResult(
        task=task.id, config=task.config, result=outcome.get("result"), error=outcome.get("error"), run=run
    )


def _load_data(plan: StudyPlan) -> Dataset:
    data = plan.data
    return load_dataset(
        data.source,
        text_column=data.text_column,
        label_column=data.label_column,
        split=data.split,
        revision=data.revision,
        format=data.format,
        encoding=data.encoding,
        delimiter=data.delimiter,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
