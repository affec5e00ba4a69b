"""Folders of synthetic studies: results that heads of a known accuracy would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.rng import numpy_stream
from ketfit.study.expand import BodyMetadata, DataMetadata, expand
from ketfit.study.spec import StudyPlan
from ketfit.study.store import ROWS, SplitKey, SplitRecord, StudyRecord, TaskResult
from ketfit.study.task import Task, pack_bits

Skill = Callable[[Task], float]
TaskPredicate = Callable[[Task], bool]

HOSTILE = "<script>alert('q')</script> & \"quotes\" $x^2$"


def study_settings(**changes: Any) -> dict[str, Any]:
    """Return a plan of one quantum and two classical heads, with changes on top."""
    return {
        "name": "A synthetic study",
        "question": "Are the numbers of a report those of its results?",
        "seeds": 5,
        "bodies": ["body-a"],
        "data": {"source": "", "per_label": 20, "validation_fraction": 0.25},
        "budget": {"learning_rates": [0.01, 0.03, 0.1], "regularization": [0.1, 1.0, 10.0]},
        "heads": {
            "quantum": {"kind": "quantum", "settings": {"n_qubits": 5}},
            "logistic regression": {"kind": "logistic-regression"},
            "SVC": {"kind": "svc"},
        },
        "report": {"reference": "logistic regression"},
        **changes,
    }


def make_study(
    folder: Path,
    settings: dict[str, Any],
    skill: Skill,
    *,
    sentences: int = 600,
    failed: TaskPredicate = lambda task: False,
    missing: TaskPredicate = lambda task: False,
    chosen: Callable[[Task], int] = lambda task: 1,
) -> StudyRecord:
    """Write a study's folder; `skill` is the log odds of a correct label for a sentence of average difficulty."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sentences.tsv"
    lines = [f"sentence number {number}\t{'good' if number % 2 else 'bad'}" for number in range(sentences)]
    path.write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")
    dataset = load_dataset(str(path))
    plan = StudyPlan.from_mapping({**settings, "data": {**settings["data"], "source": str(path)}})
    data = DataMetadata(name="synthetic sentences", fingerprint=dataset.fingerprint, size=len(dataset), n_classes=2)
    bodies = {body.name: BodyMetadata(fingerprint=f"{n:064x}", dimension=16) for n, body in enumerate(plan.bodies)}
    tasks = expand(plan, data, bodies)
    splits = {key: few_shot_split(dataset, *key) for key in map(split_key, tasks)}
    record = StudyRecord.from_tasks(
        plan,
        tasks,
        command=f"ketfit study run plan.toml -o {folder.name}",
        versions={"python": "3.11.7", "ketfit": "0.1.0"},
        data=data,
        bodies=bodies,
        draws=tuple(
            SplitRecord.from_split(key, split) for key, split in sorted(splits.items(), key=lambda item: item[0])
        ),
    )
    record.write(folder)
    difficulty = np.random.default_rng(0).normal(0, 1.5, sentences)
    results: dict[str, TaskResult] = {}
    for number, task in enumerate(tasks):
        if not missing(task):
            correct = _correct(task, skill(task) - difficulty[splits[split_key(task)].test])
            results[task.id] = _failed_result(task) if failed(task) else _result(task, correct, chosen(task), number)
    lines = [json.dumps(result.model_dump(mode="json")) for result in results.values()]
    (folder / ROWS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return record


def split_key(task: Task) -> SplitKey:
    """Return the key of a task's split."""
    data = task.config["data"]
    return data["per_label"], data["validation_fraction"], task.seed


def _correct(task: Task, log_odds: Any) -> Any:
    """Sample correctness with a difficulty per sentence, an effect per seed and an effect per task."""
    shared = numpy_stream(task.seed, "split").normal(0, 0.1)
    own = np.random.default_rng(int(task.id[:12], 16))
    return own.random(len(log_odds)) < 1 / (1 + np.exp(-2 * (log_odds + shared + own.normal(0, 0.08))))


def _result(task: Task, correct: Any, chosen: int, number: int) -> TaskResult:
    accuracy = float(correct.mean())
    validation = round(10 * accuracy) / 10
    tries = [
        {
            "value": value,
            "validation_loss": 1.2 - accuracy + 0.1 * abs(index - chosen),
            "validation_accuracy": validation,
            "best_epoch": 7,
        }
        for index, value in enumerate(task.config["tries"])
    ]
    chosen = min(chosen, len(tries) - 1)
    kind, settings = task.config["head"]["kind"], task.config["head"]["settings"]
    parameters = (
        settings["n_qubits"] * (settings["connectivity"] * settings["encoder_layers"] + 1) if kind == "quantum" else 17
    )
    result = {
        "parameters": parameters,
        "chosen": chosen,
        "tries": tries,
        "validation_loss": tries[chosen]["validation_loss"],
        "validation_accuracy": validation,
        "test_size": len(correct),
        "test_accuracy": accuracy,
        "correct": pack_bits(correct),
    }
    fit = parameters / 100 + 0.001 * (number % 7)
    seconds = {"fit": fit, "all_tries": 3 * fit, "test": 0.01}
    run = {
        "host": "synthetic",
        "finished": f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}+00:00",
        "seconds": seconds,
    }
    return TaskResult(task=task.id, config=task.config, result=result, error=None, run=run)


def _failed_result(task: Task) -> TaskResult:
    error = {"type": "TrainingError", "message": f"the loss is not finite {HOSTILE}"}
    return TaskResult(
        task=task.id,
        config=task.config,
        result=None,
        error=error,
        run={"host": "synthetic", "finished": None, "seconds": None},
    )


def flat(task: Task) -> float:
    """Return log odds that depend on the head only."""
    return {"quantum": 2.0, "logistic regression": 2.3, "SVC": 2.3}.get(task.head, 2.1)
