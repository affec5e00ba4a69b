"""Contrastive tuning beside the trainers of SetFit and sentence-transformers: seconds, sentence passes, accuracy.

    python benchmarks/tuning.py --data sst2.tsv --per-label 64 --output benchmarks/results/tuning-minilm.jsonl

Every way tunes the same body on the same training sentences of each draw with the same seed, one after the other in one
process; logistic regression on the embeddings is then scored on the other sentences of the data set. Every row is
written when it is complete, and an interrupted run resumes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss
from sentence_transformers.training_args import BatchSamplers
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression

from ketfit import ContrastiveConfig
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.contrastive import tune_body
from ketfit.data.dataset import load_dataset
from ketfit.data.splits import few_shot_split
from ketfit.errors import KetFitError
from ketfit.evaluation.compare import accuracy_interval
from ketfit.storage.append_log import AppendLog, read_json_lines
from ketfit.study.task import pack_bits

SUPERVISED = ContrastiveConfig()
PAIRS = ContrastiveConfig(loss="cosine", precision="float32")  # the default of version 1


@dataclass(frozen=True)
class Sentences:
    """The training sentences of one draw, and their labels."""

    texts: list[str]
    labels: NDArray[Any]
    seed: int


Tuned = tuple[SentenceTransformer, int]  # the tuned transformer, and the number of sentences that it read


def setfit(body: Body, train: Sentences, num_iterations: int | None) -> Tuned:
    """Tune by SetFit's trainer; None samples as its default does, which is oversampling of all pairs."""
    _, codes = np.unique(train.labels, return_inverse=True)
    model = SetFitModel(SentenceTransformer(str(body.folder), device="cpu"), LogisticRegression(max_iter=1000))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=train.seed, num_iterations=num_iterations, report_to="none", save_strategy="no"
        )
        dataset = HubDataset.from_dict({"text": train.texts, "label": codes.tolist()})
        trainer = Trainer(model, arguments, dataset)
        trainer.train()
    return model.model_body, 2 * arguments.embedding_batch_size * trainer.st_trainer.state.global_step


def sentence_transformers(body: Body, train: Sentences) -> Tuned:
    """Tune by sentence-transformers' trainer on label-grouped batches, with as many passes as KetFit's."""
    _, codes = np.unique(train.labels, return_inverse=True)
    transformer = SentenceTransformer(str(body.folder), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            seed=train.seed,
            num_train_epochs=SUPERVISED.epochs,
            per_device_train_batch_size=SUPERVISED.batch_size,
            learning_rate=SUPERVISED.rate_for(body.dimension),
            warmup_ratio=SUPERVISED.warmup,
            batch_sampler=BatchSamplers.GROUP_BY_LABEL,
            report_to="none",
            save_strategy="no",
        )
        dataset = HubDataset.from_dict({"sentence": train.texts, "label": codes.tolist()})
        trainer = SentenceTransformerTrainer(transformer, arguments, dataset, loss=BatchAllTripletLoss(transformer))
        trainer.train()
    return transformer, SUPERVISED.batch_size * trainer.state.global_step


def ketfit(body: Body, train: Sentences, config: ContrastiveConfig) -> Tuned:
    """Tune by KetFit; a body in the cache is removed, so that it is tuned now."""
    tuned = tune_body(body, train.texts, train.labels, config, seed=train.seed)
    shutil.rmtree(tuned.folder)
    if config.loss == "cosine":
        return tuned.transformer, 4 * config.pairs_per_sentence * config.epochs * len(train.texts)
    return tuned.transformer, config.epochs * len(train.texts)


WAYS: dict[str, Callable[[Body, Sentences], Tuned] | None] = {
    "frozen": None,
    "ketfit": lambda body, train: ketfit(body, train, SUPERVISED),
    "ketfit, cosine pairs": lambda body, train: ketfit(body, train, PAIRS),
    "sentence-transformers": sentence_transformers,
    "setfit, num_iterations=1": lambda body, train: setfit(body, train, 1),
    "setfit, num_iterations=5": lambda body, train: setfit(body, train, 5),
    "setfit": lambda body, train: setfit(body, train, None),
}


def row(way: str, body: Body, data: Any, per_label: int, seed: int, limit: int) -> dict[str, Any]:
    """Return the seconds, the sentence passes and the test accuracy of one way on one draw."""
    split = few_shot_split(data, per_label, seed=seed)
    texts, labels = np.array(data.texts, dtype=object), np.array(data.labels)
    train = Sentences(texts[split.train].tolist(), labels[split.train], seed)
    test = np.random.default_rng(seed).permutation(split.test)[:limit]
    load, start = os.getloadavg()[0], time.perf_counter()
    cpu = time.process_time()
    tune = WAYS[way]
    transformer, passes = (body.transformer, 0) if tune is None else tune(body, train)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    x, z = (transformer.encode(part, show_progress_bar=False) for part in (train.texts, texts[test].tolist()))
    correct = LogisticRegression(max_iter=1000).fit(x, train.labels).predict(z) == labels[test]
    accuracy, interval = accuracy_interval(int(correct.sum()), len(correct))
    return {
        "way": way,
        "body": body.name,
        "data": Path(data.name).stem,
        "per_label": per_label,
        "seed": seed,
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


def main(
    data: Annotated[str, typer.Option(help="File with columns text and label.")],
    output: Annotated[Path, typer.Option(help="JSON-lines file to add the missing rows to.")],
    body: Annotated[str, typer.Option(help="Body.")] = "all-MiniLM-L6-v2",
    per_label: Annotated[int, typer.Option(help="Sentences drawn per label; 85 % of them are trained on.")] = 64,
    seeds: Annotated[int, typer.Option(help="Draws.")] = 3,
    test_sentences: Annotated[int, typer.Option(help="At most so many of the other sentences are scored.")] = 1500,
    way: Annotated[list[str] | None, typer.Option(help="Ways to run; all by default.")] = None,
) -> None:
    """Run the missing rows draw by draw, and print means and ratios."""
    names = way or list(WAYS)
    if unknown := set(names) - WAYS.keys():
        raise typer.BadParameter(f"unknown way {min(unknown)!r}; known: {', '.join(WAYS)}")
    dataset, loaded = load_dataset(data), load_body(body, device="cpu")
    output.parent.mkdir(parents=True, exist_ok=True)
    with AppendLog(output, ".lock", KetFitError(f"another process writes {output}")) as file:
        done = {
            (line["way"], line["body"], line["data"], line["per_label"], line["seed"])
            for line in file.open(lambda: read_json_lines(output))
        }
        for seed in range(seeds):
            for name in names:
                if (name, loaded.name, Path(dataset.name).stem, per_label, seed) not in done:
                    line = row(name, loaded, dataset, per_label, seed, test_sentences)
                    file.append(json.dumps(line).encode())
                    print(f"seed {seed}, {name}: {line['accuracy']:.2%} after {line['seconds']:.0f} s", flush=True)
    rows = [line for line in read_json_lines(output) if (line["body"], line["per_label"]) == (loaded.name, per_label)]
    ours = np.mean([line["seconds"] for line in rows if line["way"] == "ketfit"])
    print("\n| way | accuracy | seconds | times KetFit's | sentence passes |\n|---|---:|---:|---:|---:|")
    for name in names:
        own = [line for line in rows if line["way"] == name]
        accuracy, seconds, passes = (
            np.mean([line[key] for line in own]) for key in ("accuracy", "seconds", "sentence_passes")
        )
        print(f"| {name} | {accuracy:.2%} | {seconds:,.0f} | {seconds / ours:.1f} | {passes:,.0f} |")


if __name__ == "__main__":
    typer.run(main)
