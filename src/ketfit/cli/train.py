"""``ketfit demo`` and ``ketfit fit``: from sentences to a saved model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ketfit.cli.ending import interruptible
from ketfit.cli.options import (
    AsJson,
    ConfigFile,
    Data,
    DataFormat,
    DataSplit,
    Encoding,
    LabelColumn,
    Output,
    Settings,
    TextColumn,
    Tune,
    fit_config,
)
from ketfit.console import print_report, say, two_columns

if TYPE_CHECKING:
    from ketfit.learn.data import Dataset
    from ketfit.learn.text import TextClassifier


def demo(
    data: Annotated[str, typer.Option(help="Data set; the default is bundled.")] = "rotten-tomatoes",
    body: Annotated[str, typer.Option(help="Body; the default is bundled.")] = "all-MiniLM-L6-v2",
    per_label: Annotated[int, typer.Option(help="Sentences drawn of each label, to train and to validate.")] = 256,
    seed: Annotated[int, typer.Option(help="Source of all chance.")] = 0,
    output: Output = Path("ketfit-demo"),
    as_json: AsJson = False,
) -> None:
    """Train quantum and classical heads on the same few sentences, compare them on all the others, save the model."""
    from ketfit.learn.body import load_body
    from ketfit.learn.classifier import QuantumHeadClassifier
    from ketfit.learn.compare import compare_heads, standard_heads, with_interval
    from ketfit.learn.data import few_shot_split, load_dataset
    from ketfit.learn.files import check_place
    from ketfit.learn.text import TextClassifier

    check_place(output)
    dataset = load_dataset(data)
    split = few_shot_split(dataset, per_label, seed=seed)
    say(f"embedding {len(dataset):,} sentences with {body}")
    loaded = load_body(body)
    with interruptible("the embeddings so far are kept: the same command goes on from there"):
        embeddings = loaded.encode(dataset.texts, progress=True)
    heads = standard_heads(loaded.dimension, len(dataset.classes), seed=seed)
    rows = []
    for row in compare_heads(heads, embeddings, np.asarray(dataset.labels), split, progress=True):
        say(f"{row.name}: {row.test_accuracy:.2%} of {len(split.test):,} test sentences, {row.fit_seconds:.1f} s")
        rows.append(row)
    quantum = heads["quantum head"]
    assert isinstance(quantum, QuantumHeadClassifier)
    metrics = with_interval("test_accuracy", rows[0].test_accuracy, rows[0].interval)
    metrics["test_sentences"] = len(split.test)
    TextClassifier.from_parts(loaded, quantum).save_pretrained(output, data=dataset.name, metrics=metrics)
    report = {
        "data": dataset.name,
        "body": loaded.name,
        "train_size": len(split.train),
        "test_size": len(split.test),
        "heads": [asdict(row) for row in rows],
        "model": str(output),
    }
    title = (
        f"{dataset.name}: {len(split.train)} to train, {len(split.validation)} to validate, {len(split.test):,} to test"
    )
    table = Table("head", "parameters", "test accuracy", "95 % interval", "fit", title=title)
    for row in rows:
        low, high = row.interval
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            f"{row.test_accuracy:.2%}",
            f"{low:.2%} to {high:.2%}",
            f"{row.fit_seconds:.1f} s",
        )
    print_report(report, as_json, table, f"saved in {output}; try: ketfit predict {output} 'a film to remember'")


def fit(
    data: Data,
    output: Output,
    body: Annotated[str | None, typer.Option(help="Body: a bundled one, a folder, or a name on the Hub.")] = None,
    tune: Annotated[
        Tune | None, typer.Option(help="How the body is trained; if left out, as the settings say, or frozen.")
    ] = None,
    config: ConfigFile = None,
    settings: Settings = [],  # noqa: B006 - Typer reads it, nothing writes it
    few_shot: Annotated[
        int | None, typer.Option(help="Train on so many sentences per label, test on the rest.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to resume from after an interruption.")] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split: DataSplit = None,
    encoding: Encoding = "utf-8",
    data_format: DataFormat = None,
    as_json: AsJson = False,
) -> None:
    """Train a quantum head on labelled sentences and save the model."""
    from ketfit.learn.compare import accuracy_interval, with_interval
    from ketfit.learn.data import load_dataset
    from ketfit.learn.files import check_place
    from ketfit.learn.text import TextClassifier

    check_place(output)
    chosen = fit_config(config, settings, body, tune)
    columns = {"text_column": text_column, "label_column": label_column}
    dataset = load_dataset(data, **columns, split=split, format=data_format, encoding=encoding)
    say(f"{len(dataset):,} sentences of {dataset.name}; loading {chosen.body}")
    classifier = TextClassifier(**{name: getattr(chosen, name) for name in type(chosen).model_fields})
    with interruptible(_kept(checkpoint)):
        test = _fit_on(classifier, dataset, few_shot, checkpoint)
    fitted = classifier.classifier_
    best = fitted.history_[fitted.best_epoch_]
    report: dict[str, Any] = {
        "data": dataset.name,
        "body": classifier.body_.name,
        "tuned": chosen.tune.method if chosen.tune else None,
        "parameters": fitted.n_parameters_,
        "train_size": fitted.train_size_,
        "validation_size": fitted.validation_size_,
        "best_epoch": fitted.best_epoch_,
        "validation_accuracy": best.validation_accuracy,
    }
    if cost := fitted.module_.step_cost(min(fitted.train_config_.batch_size, fitted.train_size_)):
        report["qpu_step"] = asdict(cost)
    metrics = {} if best.validation_accuracy is None else {"validation_accuracy": best.validation_accuracy}
    if test is not None:
        correct = int((classifier.predict(test.texts, progress=True) == np.asarray(test.labels)).sum())
        accuracy, interval = accuracy_interval(correct, len(test))
        report |= {"test_size": len(test), "test_accuracy": accuracy, "interval": interval}
        metrics |= {**with_interval("test_accuracy", accuracy, interval), "test_sentences": len(test)}
    classifier.save_pretrained(output, data=dataset.name, metrics=metrics)
    report["model"] = str(output)
    print_report(report, as_json, two_columns(report))


def _fit_on(
    classifier: TextClassifier, dataset: Dataset, few_shot: int | None, checkpoint: Path | None
) -> Dataset | None:
    """Fit on all sentences; or on `few_shot` of each label, and then the others are returned, to test on."""
    from ketfit.learn.data import few_shot_split
    from ketfit.learn.text import check_pairs
    from ketfit.model.tuning import ContrastiveConfig

    if few_shot is None:
        classifier.fit(dataset.texts, dataset.labels, checkpoint=checkpoint, progress=True)
        return None
    parts = few_shot_split(dataset, few_shot, classifier.validation_fraction, classifier.seed)
    train = dataset.take(parts.train)
    held = dataset.take(parts.validation) if len(parts.validation) else None
    if held is not None and isinstance(classifier.tune, ContrastiveConfig):
        check_pairs([*train.labels, *held.labels], train.labels)
    validation = None if held is None else (held.texts, held.labels)
    classifier.fit(train.texts, train.labels, validation=validation, checkpoint=checkpoint, progress=True)
    return dataset.take(parts.test)


def _kept(checkpoint: Path | None) -> str:
    """What an interrupted fit leaves, and how it goes on."""
    if checkpoint is None:
        return "the embeddings so far are kept, the training is not: with --checkpoint FILE it goes on where it stopped"
    return f"all epochs so far are in {checkpoint} (a body's tuning beside it): the same command goes on from there"
