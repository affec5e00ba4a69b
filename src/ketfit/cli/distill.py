"""Train a smaller body and head to follow a saved model: ``ketfit distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.fit import interrupted_message, label_class_weights, training_report
from ketfit.cli.options import (
    AsJson,
    ConfigFile,
    Delimiter,
    Encoding,
    Head,
    Model,
    MovedBody,
    Output,
    Settings,
    TextColumn,
    check_body,
    check_outside_model,
    fit_config,
)
from ketfit.cli.output import echo_stderr, key_value_table, print_report
from ketfit.cli.predict import FileFormat, naming_source, read_sentences


def distill(
    model: Model,
    data: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV, JSONL or Parquet file of sentences; other files hold one sentence per line. Labels in it "
            "are not read.",
            metavar="DATA",
        ),
    ],
    output: Output,
    student: Annotated[
        str | None,
        typer.Option(
            help="Body of the new model: a bundled one, a folder, or a name on the Hub. If left out, that of the "
            "settings file, or all-MiniLM-L6-v2."
        ),
    ] = None,
    head: Annotated[
        Head | None,
        typer.Option(help="Kind of head. If left out, that of the settings file, or of the head of MODEL."),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = [],  # noqa: B006 - Typer reads it, nothing writes it
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to save progress in and to resume from.", dir_okay=False)
    ] = None,
    text_column: TextColumn = "text",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    data_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Format of the file; lines: one sentence per line.")
    ] = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Train a smaller body and head to follow a saved model on unlabelled sentences, and save the new model."""
    from ketfit.estimators.distillation import check_student
    from ketfit.estimators.distillation import distill as distill_classifier
    from ketfit.estimators.text import TextClassifier
    from ketfit.persistence.model_files import check_model_folder
    from ketfit.storage.atomic import check_writable_file

    check_model_folder(output)
    check_outside_model(output, checkpoint=checkpoint)
    if checkpoint is not None:
        check_writable_file(checkpoint)
    chosen = fit_config(config, settings, student, [], head, loss="cosine")
    check_body(body)
    check_body(chosen.body, "--student", chosen.revision)
    from ketfit.data.tables import TextTable

    with naming_source(f"DATA {data}"):
        table = TextTable.find(data, data_format, encoding, delimiter, text_column=text_column)
    sentences = read_sentences(table)
    echo_stderr(f"{len(sentences):,} sentences of {data.name}; loading {model}")
    teacher = TextClassifier.from_pretrained(model, body=body)
    check_student(teacher, chosen.body, chosen.revision)
    parameters: dict[str, Any] = {name: getattr(chosen, name) for name in type(chosen).model_fields}
    name = parameters.pop("body")
    parameters["class_weight"] = label_class_weights(chosen.class_weight, teacher.classes_.tolist(), model)
    if head == "quantum" and chosen.head is None:
        parameters["head"] = head
    with exit_on_interrupt(interrupted_message(checkpoint)):
        classifier = distill_classifier(teacher, sentences, name, checkpoint=checkpoint, progress=True, **parameters)
    report, metrics = training_report(classifier, data.name)
    source = f"{data.name}, labelled by {Path(model).name}".encode(errors="backslashreplace").decode()
    classifier.save_pretrained(output, data=source, metrics=metrics)
    report |= {"teacher": model, "model": str(output)}
    print_report(report, as_json, key_value_table(report))
