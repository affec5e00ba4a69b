"""Runner of a study: prepare what tasks share once, then run the tasks that have no result yet."""

from __future__ import annotations

import logging
import platform
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.bodies.body import Body, load_body
from ketfit.bodies.finetuned import available_precision
from ketfit.bodies.reference import BodyReference
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import Split, few_shot_split, stratified_split
from ketfit.errors import ConfigWarning, DataOptionError, DataWarning
from ketfit.estimators.base import capacity_warning
from ketfit.estimators.classical import RAISE_HIDDEN
from ketfit.estimators.quantum import readout_warning
from ketfit.model.config import HeadConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, Precision
from ketfit.progress import ProgressBar
from ketfit.study.end_to_end import EndToEndRunner, run_end_to_end_tasks, shared_training
from ketfit.study.executors import Arrays, Executor, RayExecutor, Result, Work
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.store import ResultLog, SplitKey, SplitRecord, StudyRecord, TaskResult, pending_tasks
from ketfit.study.task import Task, TaskArrays, content_hash, run_task_safely, training_hash

_log = logging.getLogger(__name__)

TUNING = "tuning.safetensors"
"""Checkpoint of a body being tuned, with the hash of its tuning appended to the stem; deleted when tuning ends."""

MIN_TEST_SIZE = 2
"""Minimum number of test sentences of a split: intervals for new sentences need two."""

PrecisionOf = Callable[[Task], Sequence[Precision]]

PACKAGES = ("ketfit", "torch", "scikit-learn", "sentence-transformers", "numpy")


@dataclass(frozen=True)
class StudyProgress:
    """Numbers of tasks with a result, of failed tasks, of all tasks, and of those that this run ran."""

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
    dataset: Dataset | None = None,
) -> StudyProgress:
    """Run the tasks of a plan that have no result in `folder` yet.

    The whole plan is checked before any task runs: every combination is resolved and every split is drawn. Results of
    an earlier plan are kept and reused where the same task occurs.

    Args:
        plan: The plan.
        folder: Folder of ``study.json`` and ``rows.jsonl``, new or to continue.
        executor: Executor of the tasks.
        command: Command line of the study, for the report.
        retry_failed: Run failed tasks again.
        progress: Show progress bars on stderr.
        dataset: The sentences of the plan's data set; None reads them.

    Raises:
        ConfigError, DataError, BodyError: The plan does not fit these sentences and bodies.
        StudyError: Another run uses the folder, or the workers cannot be started or keep dying.
        StorageError: The folder cannot be written; earlier results are kept.
    """
    dataset = _load_data(plan) if dataset is None else dataset
    data = DataMetadata(
        name=dataset.name, fingerprint=dataset.fingerprint, size=len(dataset), n_classes=len(dataset.classes)
    )
    bodies = {body.label: load_body(body.name, revision=body.revision, dtype=body.dtype) for body in plan.bodies}
    metadata = {
        name: BodyMetadata(fingerprint=body.fingerprint, dimension=body.dimension) for name, body in bodies.items()
    }
    tasks = expand(plan, data, metadata)
    _warn(tasks, data, metadata)
    inputs = _StudyInputs(plan, dataset, bodies, tasks)
    versions = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    with ResultLog(folder) as log:
        StudyRecord.from_tasks(
            plan, tasks, command=command, versions=versions, data=data, bodies=metadata, draws=inputs.split_records()
        ).write(folder)
        pending = pending_tasks(tasks, log.results, retry_failed)
        poolable = [task for task in pending if not inputs.is_end_to_end(task)]
        inputs.embed(poolable, folder / TUNING, progress)
        jobs = [(task, inputs.arrays(task)) for task in poolable]
        run_tasks(log, executor, jobs, progress, precision=inputs.contrastive_precision)
        end_to_end = [task for task in pending if inputs.is_end_to_end(task)]
        if isinstance(executor, RayExecutor):
            inputs.distribute_end_to_end(log, executor, end_to_end, folder / TUNING, progress)
        else:
            inputs.run_end_to_end(log, end_to_end, folder, progress)
        return count_results(tasks, log.results, ran=len(pending))


def _warn(tasks: Iterable[Task], data: DataMetadata, bodies: Mapping[str, BodyMetadata]) -> None:
    """Warn once per head and body of a configuration that limits the result."""
    messages = set()
    for task in tasks:
        head, advice = task.config["head"], ""
        if head["kind"] == "quantum":
            shape = HeadConfig.from_mapping(head["settings"])
            advice = readout_warning(shape, bodies[task.body].dimension, data.n_classes)
        elif head["kind"] == "mlp" and head["settings"]["hidden"]:
            advice = capacity_warning(head["settings"]["hidden"], data.n_classes, RAISE_HIDDEN)
        if advice:
            messages.add(f"head {task.head!r} on {task.body}: {advice}")
    for message in sorted(messages):
        warnings.warn(message, ConfigWarning, stacklevel=3)


def count_results(tasks: Iterable[Any], results: Mapping[str, TaskResult], ran: int = 0) -> StudyProgress:
    """Count the tasks that have a result and those that failed; tasks with the same id count once."""
    ids = {task.id for task in tasks}
    failed = [results[name].error is not None for name in ids & results.keys()]
    return StudyProgress(len(failed) - sum(failed), sum(failed), len(ids), ran)


class _StudyInputs:
    """Inputs that tasks share: the splits of each seed, the tuned bodies and the embeddings."""

    def __init__(self, plan: StudyPlan, dataset: Dataset, bodies: Mapping[str, Body], tasks: Iterable[Task]) -> None:
        self.dataset = dataset
        self.bodies = bodies
        self.plans = {body.label: body for body in plan.bodies}
        codes = {label: code for code, label in enumerate(dataset.classes)}
        self.codes = np.array([codes[label] for label in dataset.labels], np.int64)
        keys = dict.fromkeys(map(_split_key, tasks))
        self.splits: dict[SplitKey, Split] = {key: _draw_split(dataset, key) for key in keys}
        if short := [key for key, split in self.splits.items() if len(split.test) < MIN_TEST_SIZE]:
            name, change = ("per_label", "lower") if plan.data.test_fraction is None else ("test_fraction", "raise")
            raise DataOptionError(
                f"data.{name}={short[0][0]} leaves fewer than {MIN_TEST_SIZE} test sentences of {dataset.name}; "
                f"{change} it or add sentences"
            )
        if bare := [key for key, split in self.splits.items() if not len(split.validation)]:
            _, fraction, seed = bare[0]
            raise DataOptionError(
                f"data.validation_fraction={fraction} leaves no validation sentence of {dataset.name} with seed "
                f"{seed}; raise it or add sentences"
            )
        self.embeddings: dict[tuple[str, SplitKey | None], NDArray[np.float32]] = {}

    def split_records(self) -> tuple[SplitRecord, ...]:
        """Return the records of all splits, in the order of their keys."""
        return tuple(SplitRecord.from_split(key, self.splits[key]) for key in sorted(self.splits))

    def embed(self, tasks: Iterable[Task], checkpoint: Path, progress: bool) -> None:
        """Embed all sentences with each body of the tasks, tuned once per split if the plan asks for it."""
        for label, key in dict.fromkeys(map(self._embedding_key, tasks)):
            body = self.bodies[label] if key is None else self._tuned_body(label, key, checkpoint, progress)
            _log.info("%s sentences of %s; embedding with %s", f"{len(self.dataset):,}", self.dataset.name, label)
            self.embeddings[label, key] = body.encode(self.dataset.texts, progress=progress)

    def is_end_to_end(self, task: Task) -> bool:
        """Return True if the body of a task is trained end to end with its head."""
        return self.plans[task.body].is_end_to_end

    def run_end_to_end(self, log: ResultLog, tasks: Iterable[Task], folder: Path, progress: bool) -> None:
        """Run the end-to-end tasks one after the other on all cores of this machine."""
        runner = EndToEndRunner(self.dataset.texts, self.codes, folder, progress)
        for (label, key), group in groupby(tasks, lambda task: (task.body, _split_key(task))):
            body = self._tuned_body(label, key, folder / TUNING, progress)
            tuning = self.plans[label].stages[-1]
            assert isinstance(tuning, EndToEndConfig)
            for task in group:
                outcome = runner.run_task(task, body, tuning, self.splits[key])
                log.append(_task_result(task, outcome, self.contrastive_precision(task)))

    def distribute_end_to_end(
        self, log: ResultLog, executor: RayExecutor, tasks: Iterable[Task], checkpoint: Path, progress: bool
    ) -> None:
        """Run the end-to-end tasks on the nodes of a cluster; those that start from the same body at the same time."""
        by_body: dict[tuple[str, SplitKey | None], dict[str, list[Task]]] = {}
        for task in tasks:
            contrastive = isinstance(self.plans[task.body].stages[0], ContrastiveConfig)
            start = task.body, _split_key(task) if contrastive else None
            by_body.setdefault(start, {}).setdefault(shared_training(task), []).append(task)
        for (label, key), groups in by_body.items():
            body = self.bodies[label] if key is None else self._tuned_body(label, key, checkpoint, progress)
            shared = (self.dataset.texts, self.codes, BodyReference.from_body(body))
            tuning = self.plans[label].stages[-1]
            jobs = [
                ({"tasks": group, "tuning": tuning, "split": self.splits[_split_key(group[0])]}, shared)
                for group in groups.values()
            ]
            _log.info("training %s end to end on the cluster: %d bodies", body.name, len(jobs))
            outcomes = executor.run_end_to_end(run_end_to_end_tasks, jobs)
            _run_jobs(log, outcomes, list(groups.values()), progress, self.contrastive_precision)

    def _tuned_body(self, label: str, key: SplitKey, checkpoint: Path, progress: bool) -> Body:
        """Return the body after its contrastive stage on the training sentences of a split, if it has that stage."""
        body, (stage, *_) = self.bodies[label], self.plans[label].stages
        if not isinstance(stage, ContrastiveConfig):
            return body
        from ketfit.bodies.contrastive import tune_body

        train, held_out = (self.dataset.take(rows) for rows in (self.splits[key].train, self.splits[key].validation))
        _log.info("tuning %s on the %d sentences of seed %d", body.name, len(train), key[-1])
        inputs = {"data": self.dataset.fingerprint, "body": body.fingerprint, "split": list(key)}
        tuning = {"tune": stage.identity(), "precision": available_precision(stage.precision, body.transformer.device)}
        checkpoint = checkpoint.with_stem(f"{checkpoint.stem}-{content_hash(inputs | tuning)[:16]}")
        tuned = tune_body(
            body,
            train.texts,
            train.labels,
            stage,
            seed=key[-1],
            validation=(held_out.texts, held_out.labels),
            checkpoint=checkpoint,
            progress=progress,
        )
        checkpoint.unlink(missing_ok=True)
        return tuned

    def contrastive_precision(self, task: Task) -> list[Precision]:
        """Return the precision that the contrastive stage of a task's body has on this machine; empty without one."""
        device, stages = self.bodies[task.body].transformer.device, self.plans[task.body].stages
        return [
            available_precision(stage.precision, device) for stage in stages if isinstance(stage, ContrastiveConfig)
        ]

    def _embedding_key(self, task: Task) -> tuple[str, SplitKey | None]:
        return task.body, _split_key(task) if self.plans[task.body].stages else None

    def arrays(self, task: Task) -> TaskArrays:
        """Return the arrays of a task; equal arrays are the same object."""
        split, embeddings = self.splits[_split_key(task)], self.embeddings[self._embedding_key(task)]
        return TaskArrays(embeddings, self.codes, split.train, split.validation, split.test)


def _split_key(task: Task) -> SplitKey:
    data = task.config["data"]
    return (
        data["test_fraction"] if "test_fraction" in data else data["per_label"],
        data["validation_fraction"],
        task.seed,
    )


def _draw_split(dataset: Dataset, key: SplitKey) -> Split:
    size, validation_fraction, seed = key
    if isinstance(size, int):
        return few_shot_split(dataset, size, validation_fraction, seed)
    return stratified_split(dataset, size, validation_fraction, seed)


def run_tasks(
    log: ResultLog,
    executor: Executor,
    tasks: Sequence[tuple[Task, Arrays]],
    progress: bool,
    work: Work = run_task_safely,
    *,
    precision: PrecisionOf = lambda task: (),
) -> None:
    """Run tasks, those with the same training as one job, and append the results of each job as it finishes.

    Args:
        log: Log for the results.
        executor: Executor of the tasks.
        tasks: Tasks with their arrays, which follow the configuration as arguments of `work`.
        progress: Show a progress bar on stderr.
        work: Function that runs a task.
        precision: Function of a task that returns the precision of each stage that tuned its body, for its result.

    Raises:
        StudyError: The workers cannot be started or keep dying.
        StorageError: A result cannot be written.
    """
    by_training: dict[str, tuple[list[Task], Arrays]] = {}
    for task, arrays in tasks:
        key = training_hash(task.config) if "test" in task.config["head"] else task.id  # the id is the hash of the rest
        by_training.setdefault(key, ([], arrays))[0].append(task)
    shared = list(by_training.values())
    jobs = [(group[0].config if len(group) == 1 else {"tasks": [t.config for t in group]}, a) for group, a in shared]
    _run_jobs(log, executor.run(work, jobs), [group for group, _ in shared], progress, precision)


def _run_jobs(
    log: ResultLog,
    outcomes: Iterator[tuple[int, Result]],
    groups: Sequence[list[Task]],
    progress: bool,
    precision: PrecisionOf,
) -> None:
    """Append the results of the tasks of each job as it finishes."""
    failed = 0
    with ProgressBar("tasks", sum(map(len, groups)), shown=progress) as bar:
        for index, outcome in outcomes:
            group = groups[index]
            for message in outcome.get("warnings", ()):
                warnings.warn(message, DataWarning, stacklevel=2)
            for task, each in zip(group, outcome.get("outcomes", [outcome] * len(group)), strict=True):
                result = _task_result(task, each, precision(task))
                log.append(result)
                failed += result.error is not None
                bar.advance(note=f"{bar.rate:.1f}/s" + (f", {failed} failed" if failed else ""))


def _task_result(task: Task, outcome: Mapping[str, Any], precision: Sequence[Precision]) -> TaskResult:
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    run = {"host": socket.gethostname(), "finished": finished, "seconds": outcome.get("timing")}
    if stages := [*precision, *filter(None, [outcome.get("precision")])]:
        run["precision"] = stages
    return TaskResult(
        task=task.id, config=task.config, result=outcome.get("result"), error=outcome.get("error"), run=run
    )


def _load_data(plan: StudyPlan) -> Dataset:
    options = plan.data.model_dump(exclude={"source", "per_label", "validation_fraction", "test_fraction"})
    return load_dataset(plan.data.source, **options)
