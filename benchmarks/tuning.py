"""Contrastive tuning beside the trainers of SetFit and sentence-transformers: seconds, sentence passes, accuracy.

    python benchmarks/tuning.py --data sst2.tsv --per-label 64 --output benchmarks/results/tuning-minilm.jsonl

Every way tunes the same body on the same training sentences of each draw with the same seed, one after the other in one
process, after a first tuning on a few sentences that is not timed; logistic regression on the embeddings is then scored
on the other sentences of the data set. A sentence pass is one sentence in one forward pass of training. Every row is
written when it is complete, and an interrupted run resumes with the same options.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import typer
from datasets import Dataset as HubDataset
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression

from ketfit import ContrastiveConfig
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.bodies.contrastive_sampling import PairSampler
from ketfit.data.dataset import Dataset, load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import KetFitError
from ketfit.evaluation.compare import accuracy_interval
from ketfit.storage.append_log import AppendLog, read_json_lines
from ketfit.study.analysis.hypothesis_tests import crossed_test
from ketfit.study.task import pack_bits, unpack_bits

SUPERVISED = ContrastiveConfig()
WHOLE_BATCHES = ContrastiveConfig(batch_size=64)  # the default before few sentences had smaller batches
PAIRS = ContrastiveConfig(loss="cosine", precision="float32")  # the default of version 1


@dataclass(frozen=True)
class Sentences:
    """The training sentences of one draw, and their labels."""

    texts: list[str]
    labels: NDArray[Any]
    seed: int


Rows = dict[tuple[str, int], dict[str, Any]]  # by way and seed
Tuned = tuple[SentenceTransformer, int]  # the tuned transformer, and its sentence passes

OPTIONS = {
    "body": "--body",
    "data": "--data",
    "fingerprint": "--data with the fingerprint",
    "per_label": "--per-label",
    "test_size": "--test-sentences",
}
"""Entries of a row that must be those of the run, and the option that each comes from."""


class PassCounter:
    """Counter of the sentences that a transformer reads in training."""

    def __init__(self, transformer: SentenceTransformer) -> None:
        self.passes = 0
        transformer.register_forward_pre_hook(self._count)

    def _count(self, transformer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if transformer.training:
            self.passes += len(inputs[0]["input_ids"])


def setfit(body: Body, train: Sentences, num_iterations: int | None) -> Tuned:
    """Tune by SetFit's trainer; None samples as its default does, which is oversampling of all pairs."""
    _, codes = np.unique(train.labels, return_inverse=True)
    transformer = SentenceTransformer(str(body.folder), device="cpu")
    model, counter = SetFitModel(transformer, LogisticRegression(max_iter=1000)), PassCounter(transformer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=train.seed, num_iterations=num_iterations, report_to="none", save_strategy="no"
        )
        dataset = HubDataset.from_dict({"text": train.texts, "label": codes.tolist()})
        Trainer(model, arguments, dataset).train()
    return transformer, counter.passes


def sentence_transformers(body: Body, train: Sentences) -> Tuned:
    """Tune by sentence-transformers' trainer on label-grouped batches, with as many epochs as KetFit."""
    _, codes = np.unique(train.labels, return_inverse=True)
    transformer = SentenceTransformer(str(body.folder), device="cpu")
    counter = PassCounter(transformer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            seed=train.seed,
            num_train_epochs=SUPERVISED.epochs,
            per_device_train_batch_size=SUPERVISED.batch_size_for(len(codes), len(set(codes.tolist()))),
            learning_rate=SUPERVISED.rate_for(body.dimension),
            warmup_ratio=SUPERVISED.warmup,
            batch_sampler=BatchSamplers.GROUP_BY_LABEL,
            report_to="none",
            save_strategy="no",
        )
        dataset = HubDataset.from_dict({"sentence": train.texts, "label": codes.tolist()})
        loss = BatchAllTripletLoss(transformer)
        SentenceTransformerTrainer(transformer, arguments, dataset, loss=loss).train()
    return transformer, counter.passes


def ketfit(body: Body, train: Sentences, config: ContrastiveConfig) -> Tuned:
    """Tune by KetFit, with a new cache, so that no stored body is taken."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"KETFIT_CACHE": folder}):
        transformer = tune_body(body, train.texts, train.labels, config, seed=train.seed).transformer
    rows = PairSampler.from_labels(train.texts, train.labels, config).rows(config, train.seed)
    return transformer, len(rows.sentences)


WAYS: dict[str, Callable[[Body, Sentences], Tuned] | None] = {
    "frozen": None,
    "ketfit": lambda body, train: ketfit(body, train, SUPERVISED),
    "ketfit, batches of 64": lambda body, train: ketfit(body, train, WHOLE_BATCHES),
    "ketfit, cosine pairs": lambda body, train: ketfit(body, train, PAIRS),
    "sentence-transformers": sentence_transformers,
    "setfit, num_iterations=1": lambda body, train: setfit(body, train, 1),
    "setfit, num_iterations=5": lambda body, train: setfit(body, train, 5),
    "setfit": lambda body, train: setfit(body, train, None),
}


def draw(data: Dataset, per_label: int, seed: int, limit: int) -> tuple[Sentences, NDArray[np.int64]]:
    """Return the training sentences of a draw, and the positions of at most `limit` of the other sentences."""
    split = few_shot_split(data, per_label, seed=seed)
    train = data.take(split.train)
    test = np.random.default_rng(seed).permutation(split.test)[:limit]
    return Sentences(list(train.texts), np.array(train.labels), seed), test


def warm_up(way: str, body: Body, train: Sentences) -> None:
    """Tune once on four sentences of each label, so that no row contains imports and first calls."""
    few = np.concatenate([np.flatnonzero(train.labels == label)[:4] for label in np.unique(train.labels)])
    if tune := WAYS[way]:
        tune(body, Sentences([train.texts[i] for i in few], train.labels[few], train.seed))


def row(way: str, body: Body, train: Sentences, others: Dataset) -> dict[str, Any]:
    """Return the seconds, the sentence passes and the accuracy on the other sentences of one way on one draw."""
    load, start = os.getloadavg()[0], time.perf_counter()
    cpu = time.process_time()
    tune = WAYS[way]
    transformer, passes = (body.transformer, 0) if tune is None else tune(body, train)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    x, z = (transformer.encode(part, show_progress_bar=False) for part in (train.texts, others.texts))
    correct = LogisticRegression(max_iter=1000).fit(x, train.labels).predict(z) == np.array(others.labels)
    accuracy, interval = accuracy_interval(int(correct.sum()), len(correct))
    return {
        "way": way,
        "seed": train.seed,
        "train_size": len(train.texts),
        "test_size": len(correct),
        "sentence_passes": passes,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "load_average_before": round(load, 2),
        "accuracy": accuracy,
        "interval": interval,
        "correct": pack_bits(correct),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def read_rows(output: Path, of_run: Mapping[str, Any], tests: Mapping[int, NDArray[np.int64]]) -> Rows:
    """Return the rows of a file for the seeds of `tests`.

    Args:
        output: JSON-lines file.
        of_run: Entries that every row has. Rows of earlier versions have no fingerprint.
        tests: Positions of the test sentences of each seed of this run.

    Raises:
        typer.BadParameter: A row comes from a run with another option.
    """
    lines = read_json_lines(output)
    for line in lines:
        test = tests.get(line["seed"])
        expected = dict(of_run) if test is None else {**of_run, "test_size": len(test)}
        for key, value in expected.items():
            if (found := line.get(key, value)) != value:
                theirs, ours = (f"{OPTIONS[key]} {each}" for each in (found, value))
                raise typer.BadParameter(f"{output} has rows of {theirs}, this run has {ours}; give another file")
    return {(line["way"], line["seed"]): line for line in lines if line["seed"] in tests}


def difference(rows: Rows, tests: dict[int, NDArray[np.int64]], way: str) -> str:
    """Return KetFit's accuracy minus that of another way in points, with its interval for new draws and sentences."""
    seeds = sorted(seed for seed in tests if {("ketfit", seed), (way, seed)} <= rows.keys())
    if way == "ketfit" or len(seeds) < 2:
        return ""
    ours, other = (
        [unpack_bits(rows[name, seed]["correct"], len(tests[seed])) for seed in seeds] for name in ("ketfit", way)
    )
    found = crossed_test(ours, other, [tests[seed] for seed in seeds])
    interval = (
        "" if found.low is None or found.high is None else f" ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
    )
    return f"{100 * found.difference:+.2f}{interval}"


def table(rows: Rows, tests: dict[int, NDArray[np.int64]], names: Sequence[str]) -> str:
    """Return means over the draws, ratios to KetFit's seconds, and paired differences, in Markdown."""
    lines = ["| way | accuracy | KetFit minus it | seconds | times KetFit's | sentence passes |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    keys = ("accuracy", "seconds", "sentence_passes")
    means = {
        name: [float(np.mean([line[key] for (way, _), line in rows.items() if way == name])) for key in keys]
        for name in names
    }
    for name, (accuracy, seconds, passes) in means.items():
        ratio = f"{seconds / means['ketfit'][1]:.1f}" if "ketfit" in means else ""
        points = difference(rows, tests, name)
        lines.append(f"| {name} | {accuracy:.2%} | {points} | {seconds:,.0f} | {ratio} | {passes:,.0f} |")
    return "\n".join(lines)


def main(
    data: Annotated[str, typer.Option(help="File with columns text and label.")],
    output: Annotated[Path, typer.Option(help="JSON-lines file to add missing rows to; other options need another.")],
    body: Annotated[str, typer.Option(help="Body.")] = "all-MiniLM-L6-v2",
    per_label: Annotated[int, typer.Option(help="Sentences drawn per label; 85 % of them are trained on.")] = 64,
    seeds: Annotated[int, typer.Option(help="Draws.")] = 3,
    test_sentences: Annotated[int, typer.Option(help="At most so many of the other sentences are scored.")] = 1500,
    way: Annotated[list[str] | None, typer.Option(help="Ways to run; all by default.")] = None,
) -> None:
    """Run the missing rows draw by draw, and print means, ratios and paired differences."""
    names = way or list(WAYS)
    if unknown := set(names) - WAYS.keys():
        raise typer.BadParameter(f"unknown way {min(unknown)!r}; known: {', '.join(WAYS)}")
    dataset, loaded = load_dataset(data), load_body(body, device="cpu")
    draws = {seed: draw(dataset, per_label, seed, test_sentences) for seed in range(seeds)}
    tests = {seed: test for seed, (_, test) in draws.items()}
    data_of_run = {"data": Path(dataset.name).stem, "fingerprint": dataset.fingerprint, "per_label": per_label}
    of_run = {"body": loaded.name, **data_of_run}
    output.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(output, ".lock", KetFitError(f"another process writes {output}")) as file:
        rows = file.open(lambda: read_rows(output, of_run, tests))
        warm: set[str] = set()
        for seed, (train, test) in draws.items():
            for name in names:
                if (name, seed) in rows:
                    continue
                if name not in warm:
                    warm_up(name, loaded, train)
                    warm.add(name)
                line = rows[name, seed] = of_run | row(name, loaded, train, dataset.take(test))
                file.append(json.dumps(line).encode())
                print(f"seed {seed}, {name}: {line['accuracy']:.2%} after {line['seconds']:.0f} s", flush=True)
    print("\n" + table(rows, tests, names))


if __name__ == "__main__":
    typer.run(main)
