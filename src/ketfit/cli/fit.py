"""Train a head on labelled sentences and save the model: ``ketfit fit``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.options import (
    AsJson,
    ConfigFile,
    Data,
    DataOptions,
    Head,
    Output,
    Settings,
    Tune,
    check_body,
    check_outside_model,
    fit_config,
    sample_few_shot,
    takes_data_options,
)
from ketfit.cli.output import echo_stderr, key_value_table, print_report
from ketfit.errors import ConfigError

if TYPE_CHECKING:
    from ketfit.data.dataset import Dataset
    from ketfit.data.splits import Split
    from ketfit.estimators.text import TextClassifier
    from ketfit.training.loop import Epoch


@takes_data_options
def fit(
    data: Data,
    output: Output,
    body: Annotated[str | None, typer.Option(help="Body: a bundled one, a folder, or a name on the Hub.")] = None,
    tune: Tune = [],  # noqa: B006
    validation: Annotated[
        Literal["holdout", "cross"] | None,
        typer.Option(help="Choose the best epoch on a held-out share, or on folds, to train on all sentences then."),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(
            help="Kind of head; auto takes the simplest one that validates as well as the best. If left out, that of "
            "the settings file, or quantum."
        ),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = [],  # noqa: B006 - Typer reads it, nothing writes it
    few_shot: Annotated[
        int | None, typer.Option(help="Sentences per label to train on; the others are the test set.", min=2)
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to save progress in and to resume from.", dir_okay=False)
    ] = None,
    weight_column: Annotated[str | None, typer.Option(help="Column with the sample weights.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column with the groups; a split never divides a group.")
    ] = None,
    *,
    data_options: DataOptions,
    as_json: AsJson = False,
) -> None:
    """Train a quantum or classical head on labelled sentences and save the model."""
    from ketfit.data.splits import check_classes
    from ketfit.estimators.heads import AUTO
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.compare import accuracy_interval, with_interval
    from ketfit.persistence.model_files import check_model_folder
    from ketfit.persistence.schema import check_class_names
    from ketfit.storage.atomic import check_writable_file

    check_model_folder(output)
    check_outside_model(output, checkpoint=checkpoint)
    if checkpoint is not None:
        check_writable_file(checkpoint)
    chosen = fit_config(config, settings, body, tune, head, validation)
    check_body(body, revision=chosen.revision)
    dataset = data_options.load(data, weight_column=weight_column, group_column=group_column)
    dataset = _drop_zero_weights(dataset)
    check_classes(dataset)
    check_class_names(dataset.classes)
    _warn_text_label(dataset)
    class_weight = label_class_weights(chosen.class_weight, dataset.classes, dataset.name)
    parameters = {name: getattr(chosen, name) for name in type(chosen).model_fields}
    classifier = TextClassifier(**{**parameters, "class_weight": class_weight})
    parts = None
    if few_shot is not None:
        # "auto" uses all sentences for the choice, and then holds out what the chosen head needs.
        holds_out = classifier.uses_validation and chosen.head != AUTO
        fraction = chosen.validation_fraction if holds_out else 0.0
        shares = {"validation_fraction": fraction, "seed": chosen.seed}
        parts = sample_few_shot(dataset, few_shot, "--few-shot", **shares)
    echo_stderr(f"{len(dataset):,} sentences of {dataset.name}; loading {chosen.body}")
    with exit_on_interrupt(interrupted_message(checkpoint)):
        _fit_on(classifier, dataset, parts, checkpoint)
    report, metrics = training_report(classifier, dataset.name)
    if parts is not None:
        test = dataset.take(parts.test)
        correct = int((classifier.predict(test.texts, progress=True) == np.asarray(test.labels)).sum())
        accuracy, interval = accuracy_interval(correct, len(test))
        report |= {"test_size": len(test), "test_accuracy": accuracy, "interval": interval}
        metrics |= {**with_interval("test_accuracy", accuracy, interval), "test_sentences": len(test)}
    classifier.save_pretrained(output, data=dataset.name, metrics=metrics)
    report["model"] = str(output)
    print_report(report, as_json, key_value_table(report))


def training_report(classifier: TextClassifier, data: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what there is to say about a training, and the metrics in it for the model card."""
    from ketfit.estimators.base import TorchHeadClassifier
    from ketfit.estimators.quantum import QuantumHeadClassifier
    from ketfit.model.tuning import as_stages, describe_stages

    fitted = classifier.classifier_
    report: dict[str, Any] = {
        "data": data,
        "body": classifier.body_.name,
        "tuned": describe_stages(stages) if (stages := as_stages(classifier.tune)) else None,
        "head": fitted.kind,
        "parameters": fitted.n_parameters_,
        "train_size": fitted.train_size_,
        "validation_size": fitted.validation_size_,
    }
    metrics: dict[str, float] = {}
    if isinstance(fitted, TorchHeadClassifier):
        if classifier.validation_fraction and not fitted.validation_size_:
            echo_stderr("warning: too few sentences or groups for validation; the last epoch is kept")
        best = fitted.history_[fitted.best_epoch_]
        metrics = _accuracies(best)
        report |= {"best_epoch": fitted.best_epoch_, "validation_accuracy": best.validation_accuracy, **metrics}
        if fitted.fold_histories_:
            report["folds"] = len(fitted.fold_histories_)
    if isinstance(fitted, QuantumHeadClassifier):
        cost = fitted.module_.step_cost(min(fitted.train_config_.batch_size, fitted.train_size_))
        report |= {"qpu_step": asdict(cost)} if cost else {}
    if classifier.head_choice_ is not None:
        report["head_choice"] = classifier.head_choice_.model_dump()
    return report, metrics


def _drop_zero_weights(dataset: Dataset) -> Dataset:
    """Return the data set without the rows of weight zero."""
    return dataset if dataset.weights is None else dataset.take(np.flatnonzero(dataset.weights))


def _accuracies(best: Epoch) -> dict[str, float]:
    """Return the validation accuracies by name; the weighted one only if it differs."""
    plain, weighted = best.validation_accuracy, best.validation_weighted_accuracy
    if plain is None or weighted is None:
        return {}
    same = math.isclose(plain, weighted, rel_tol=1e-5)  # a head computes in float32
    return {"validation_accuracy": plain} | ({} if same else {"validation_weighted_accuracy": weighted})


def _warn_text_label(dataset: Dataset) -> None:
    """Warn about a few text labels among integers, which turn all labels into strings."""
    from ketfit.data.readers import INTEGER

    odd = [row for row, label in enumerate(dataset.labels) if isinstance(label, str) and not INTEGER.fullmatch(label)]
    if 0 < len(odd) <= len(dataset) / 10:
        label = dataset.labels[odd[0]]
        echo_stderr(
            f"warning: {dataset.name}: {dataset.describe_row(odd[0])} has the label {label!r}; all but {len(odd)} of "
            f"{len(dataset):,} labels are integers, so all are read as strings and {label!r} is a class"
        )


def label_class_weights(
    given: Literal["balanced"] | Mapping[str, float] | None, classes: Sequence[Any], source: str
) -> Literal["balanced"] | dict[Any, float] | None:
    """Return the class weights by label; the keys of TOML are strings, labels may be integers.

    Raises:
        ConfigError: A label is not among `classes`, those of `source`.
    """
    if given is None or isinstance(given, str):
        return given
    known = {str(label): label for label in classes}
    for name in given:
        if name not in known:
            raise ConfigError(
                f"class_weight.{name}: {source} has no such label; it has {', '.join(map(repr, known.values()))}"
            )
    return {known[name]: weight for name, weight in given.items()}


def _fit_on(classifier: TextClassifier, dataset: Dataset, parts: Split | None, checkpoint: Path | None) -> None:
    """Fit on all sentences, or on those of a few-shot split."""
    from ketfit.estimators.text import check_pairs
    from ketfit.model.tuning import ContrastiveConfig, as_stages

    train = dataset if parts is None else dataset.take(parts.train)
    held = dataset.take(parts.validation) if parts is not None and len(parts.validation) else None
    if held is not None and any(isinstance(stage, ContrastiveConfig) for stage in as_stages(classifier.tune)):
        check_pairs(np.array([*train.labels, *held.labels]), np.array(train.labels))
    validation = None if held is None else (held.texts, held.labels, held.weights)
    classifier.fit(
        train.texts,
        train.labels,
        train.weights,
        groups=train.groups,
        validation=validation,
        checkpoint=checkpoint,
        progress=True,
    )


def interrupted_message(checkpoint: Path | None) -> str:
    """Return the message of an interrupted fit: what is kept, and how to continue."""
    if checkpoint is None:
        return "embeddings are cached, training is lost; use --checkpoint FILE to make it resumable"
    return (
        f"finished epochs are in {checkpoint} or beside it, where contrastive tuning writes every five minutes; run "
        "the same command to continue"
    )
