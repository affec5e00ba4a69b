"""Distillation: accuracy of a teacher, and of a smaller student before and after; sentences per second of both bodies.

    python benchmarks/distill.py --data rotten-tomatoes --per-label 64 --output benchmarks/results/distill.json

The teacher is tuned on a few labelled sentences. The student before is tuned on the same sentences alone; the student
after follows the teacher on other sentences, whose labels are not used. All are tested on the same sentences, which no
training used.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from ketfit import ContrastiveConfig, TextClassifier, distill
from ketfit.bodies.body import Body
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.evaluation.compare import accuracy_interval
from ketfit.evaluation.paired_difference import differences_on_one_split
from ketfit.model.classical import HeadKind


def speed(body: Body, texts: Sequence[str], rounds: int) -> float:
    """Return the sentences per second of the fastest round, without a cache."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        body.encode(texts, cache=False)
        seconds.append(time.perf_counter() - start)
    return len(texts) / min(seconds)


def draw(
    data: Dataset, per_label: int, unlabelled: int, test_sentences: int, seed: int
) -> tuple[Dataset, Dataset, Dataset]:
    """Return the labelled sentences, those to distil on, and at most `test_sentences` others to test on."""
    split = few_shot_split(data, per_label, seed=seed)
    rest = np.random.default_rng(seed).permutation(split.test)
    if len(rest) <= unlabelled:
        raise typer.BadParameter(f"--unlabelled {unlabelled} leaves none of {len(rest)} sentences to test on")
    labelled = np.concatenate([split.train, split.validation])
    return data.take(labelled), data.take(rest[:unlabelled]), data.take(rest[unlabelled : unlabelled + test_sentences])


def scores(correct: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Return the accuracies with intervals, and the paired differences, from the sentences that each has right."""
    accuracies = {name: accuracy_interval(int(right.sum()), len(right)) for name, right in correct.items()}
    return {
        "accuracy": {name: {"accuracy": value, "interval": interval} for name, (value, interval) in accuracies.items()},
        "differences_to_student_before": [asdict(each) for each in differences_on_one_split(correct, "student before")],
    }


def main(
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    data: Annotated[str, typer.Option(help="Data set.")] = "rotten-tomatoes",
    teacher_body: Annotated[str, typer.Option(help="Body of the teacher.")] = "all-mpnet-base-v2",
    student_body: Annotated[str, typer.Option(help="Body of the student.")] = "all-MiniLM-L6-v2",
    head: Annotated[HeadKind, typer.Option(help="Kind of head of all three.")] = "logistic-regression",
    per_label: Annotated[int, typer.Option(help="Labelled sentences per label.")] = 64,
    unlabelled: Annotated[int, typer.Option(help="Sentences to distil on, without their labels.")] = 4000,
    test_sentences: Annotated[int, typer.Option(help="At most so many other sentences are tested on.")] = 4000,
    speed_sentences: Annotated[int, typer.Option(help="Sentences to time the bodies on.")] = 500,
    rounds: Annotated[int, typer.Option(help="How often each body embeds them; the fastest round counts.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of all training.")] = 0,
) -> None:
    """Train the three classifiers, test them, time the bodies, and write one JSON object."""
    dataset = load_dataset(data)
    labelled, pool, test = draw(dataset, per_label, unlabelled, test_sentences, seed)
    settings: dict[str, Any] = {"head": head, "seed": seed, "tune": ContrastiveConfig()}
    teacher = TextClassifier(teacher_body, **settings).fit(labelled.texts, labelled.labels, progress=True)
    before = TextClassifier(student_body, **settings).fit(labelled.texts, labelled.labels, progress=True)
    after = distill(teacher, pool.texts, student_body, progress=True, head=head, seed=seed)
    classifiers = {"student before": before, "student after": after, "teacher": teacher}
    truth = np.asarray(test.labels)
    correct = {name: each.predict(test.texts, progress=True) == truth for name, each in classifiers.items()}
    speeds = {
        name: speed(classifiers[name].body_, test.texts[:speed_sentences], rounds)
        for name in ("teacher", "student after")
    }
    found = {
        "data": dataset.name,
        "bodies": {"teacher": teacher_body, "student": student_body},
        "head": head,
        "labelled": len(labelled),
        "unlabelled": len(pool),
        "test_size": len(truth),
        "seed": seed,
        **scores(correct),
        "sentences_per_second": speeds,
        "threads": torch.get_num_threads(),
        "processor": platform.processor(),
        "torch": torch.__version__,
    }
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
