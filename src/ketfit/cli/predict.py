"""Predict labels of sentences or of a file: ``ketfit predict``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ketfit.cli.errors import exit_on_interrupt
from ketfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Model,
    MovedBody,
    TextColumn,
    check_body,
    naming_option,
)
from ketfit.cli.output import echo_stderr, key_value_table, literal_text, print_report
from ketfit.errors import DataError, DataOptionError

if TYPE_CHECKING:
    from ketfit.data.tables import TextTable

STDIN = "-"

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]


def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL or Parquet file; other files hold one sentence per line. - is stdin.",
            allow_dash=True,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for the rows with their predictions; for large inputs."),
    ] = None,
    text_column: TextColumn = "text",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    data_format: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Format of the input; lines: one sentence per line."),
    ] = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Predict the label of each sentence and the probability of each class.

    With --output the rows of a file are predicted block by block in constant memory; after an interruption the same
    command continues.
    """
    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give sentences, or --input FILE, and not both")
    if output is not None and (input_file is None or str(input_file) == STDIN):
        raise typer.BadParameter("--output goes with --input FILE, which is read twice: save the sentences to a file")
    check_body(body)
    if input_file is None:
        assert texts is not None
        options: dict[str, tuple[str | None, str | None]] = {
            "text-column": (text_column, "text"),
            "encoding": (encoding, "utf-8"),
        }
        options |= {"delimiter": (delimiter, None), "format": (data_format, None)}
        for name, (value, default) in options.items():
            if value != default:
                raise typer.BadParameter(f"--{name} is about --input FILE; leave it out")
        _print_predictions(model, texts, body, as_json)
        return
    from ketfit.data.tables import TextTable

    with naming_source(f"--input {input_file}"):
        table = TextTable.find(input_file, data_format, encoding, delimiter, text_column=text_column)
    if output is not None:
        _predict_file(model, table, output, body, as_json)
        return
    _print_predictions(model, read_sentences(table), body, as_json)


@contextmanager
def naming_source(source: str) -> Iterator[None]:
    """Name a file and its argument in errors about the options that describe it."""
    try:
        yield
    except DataOptionError as error:
        raise DataOptionError(f"{source}: {error}") from error


def read_sentences(table: TextTable) -> list[str]:
    """Return all sentences of a table.

    Raises:
        DataError: there are none.
    """
    if table.format == "lines" and table.text_column != "text":
        raise typer.BadParameter("--text-column has no meaning for a sentence a line; name the file's --format")
    sentences = [text for block in table.blocks(4096) for text in block.texts]
    if not sentences:
        raise DataError(f"{table.name} holds no sentence")
    return sentences


def _predict_file(model: str, table: TextTable, output: Path, body: str | None, as_json: bool) -> None:
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.batch_predict import check_output, parts_folder, predict_file

    with naming_option("--output", output):
        check_output(table, output)
    echo_stderr(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    with exit_on_interrupt(f"finished parts are in {parts_folder(output)}; run the same command to continue"):
        summary = predict_file(classifier, table, output, progress=True)
    report = {"model": model, "input": str(table.path), "output": str(output), **asdict(summary)}
    print_report(report, as_json, key_value_table(report))


def _print_predictions(model: str, sentences: list[str], body: str | None, as_json: bool) -> None:
    from ketfit.estimators.text import TextClassifier

    echo_stderr(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    probabilities = classifier.predict_proba(sentences, progress=True)
    classes = classifier.classes_.tolist()
    predictions = [
        {
            "text": text,
            "label": classes[int(row.argmax())],
            "probabilities": {str(name): float(p) for name, p in zip(classes, row, strict=True)},
        }
        for text, row in zip(sentences, probabilities, strict=True)
    ]
    table = Table("label", "probability", "sentence")
    for prediction, row in zip(predictions, probabilities, strict=True):
        table.add_row(literal_text(str(prediction["label"])), f"{row.max():.3f}", literal_text(str(prediction["text"])))
    print_report({"model": model, "predictions": predictions}, as_json, table)
