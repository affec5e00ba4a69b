"""``ketfit evaluate``: how good a saved model is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer

from ketfit.cli.options import (
    AsJson,
    Data,
    DataFormat,
    DataSplit,
    Delimiter,
    Encoding,
    LabelColumn,
    Model,
    MovedBody,
    TextColumn,
    blamed_on,
    check_body,
)
from ketfit.cli.output import echo_stderr, evaluation_table, print_report
from ketfit.integers import as_integer


def evaluate(
    model: Model,
    data: Data,
    shots: Annotated[int | None, typer.Option(help="Read the QPU circuit from so many shots.")] = None,
    noise: Annotated[
        str | None, typer.Option(help="Noise of the QPU circuit: ionq-forte, ionq-aria, or a TOML file.")
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(help="Average noise over so many trajectories; exact if left out.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="First switch off what the model was trained with.")] = False,
    mitigate: Annotated[list[str], typer.Option(help="readout or zero_noise; may be repeated.")] = [],  # noqa: B006
    repeats: Annotated[
        int | None, typer.Option(help="How often shots and trajectories are drawn anew, 10 if left out.", min=1)
    ] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    split: DataSplit = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    data_format: DataFormat = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a saved model on labelled sentences, over all and by class, exact or as a device would have it.

    Shots and noise are those the model was trained with, but for what the options change.
    """
    from ketfit.data.dataset import load_dataset
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.compare import evaluate_head
    from ketfit.hardware.runs.postprocessing import check_mitigation
    from ketfit.model.head import MEASUREMENT
    from ketfit.simulate.noise import load_noise

    check_body(body)
    for name, value in (("shots", shots), ("trajectories", trajectories)):
        if value is not None:
            as_integer(value, name, minimum=1)
    with blamed_on("--noise", noise):
        noisy = None if noise is None else load_noise(noise)
    with blamed_on("--mitigate", ", ".join(mitigate)):
        mitigation = check_mitigation(mitigate)
    columns = {"text_column": text_column, "label_column": label_column}
    dataset = load_dataset(data, **columns, split=split, format=data_format, encoding=encoding, delimiter=delimiter)
    echo_stderr(f"{len(dataset):,} sentences of {dataset.name}; loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    dataset = classifier.match_labels(dataset)
    trained = classifier.classifier_.head_config_
    settings = {name: off if exact else getattr(trained, name) for name, off in MEASUREMENT.items()}
    given = {"shots": shots, "noise": noisy, "trajectories": trajectories, "mitigation": mitigation}
    settings |= {name: value for name, value in given.items() if value not in (None, ())}
    classifier = classifier.with_measurement(**settings)
    head = classifier.classifier_
    if repeats is not None and not head.head_config_.is_random:
        raise typer.BadParameter("--repeats draws shots or trajectories anew, and this measurement has neither")
    embeddings = classifier.body_.encode(dataset.texts, progress=True)
    drawn = (repeats or 10) if head.head_config_.is_random else 1
    accuracy, details = evaluate_head(head, embeddings, np.asarray(dataset.labels), drawn)
    measured = head.head_config_.model_dump(mode="json", include=set(MEASUREMENT), exclude_defaults=True)
    report = {
        "model": model,
        "data": dataset.name,
        "size": len(dataset),
        **asdict(accuracy),
        "measurement": measured,
        "temperature": head.temperature_,
        **asdict(details),
    }
    print_report(report, as_json, evaluation_table(report))
