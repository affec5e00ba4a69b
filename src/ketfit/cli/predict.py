"""``ketfit predict``: the labels of a few sentences, or of a file of any length."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from ketfit.cli.ending import interruptible
from ketfit.cli.options import AsJson, Encoding, Model, MovedBody, TextColumn
from ketfit.console import plain, print_report, say, two_columns

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]


def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL or Parquet file by its suffix; any other holds a sentence a line. - is stdin.",
            allow_dash=True,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for the rows with their predictions; for inputs of any length."),
    ] = None,
    text_column: TextColumn = "text",
    encoding: Encoding = "utf-8",
    data_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Of an input without its suffix; lines: a sentence a line.")
    ] = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """The label of each sentence, and the probability of each class.

    With --output the rows of a file are predicted a block at a time in constant memory. Stopped or killed, the same
    command goes on.
    """
    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give sentences, or --input FILE, and not both")
    if output is not None and (input_file is None or str(input_file) == "-"):
        raise typer.BadParameter("--output goes with --input FILE, which is read twice: save the sentences to a file")
    if output is not None:
        assert input_file is not None
        _predict_file(model, input_file, output, text_column, encoding, data_format, body, as_json)
        return
    sentences = texts if input_file is None else _sentences(input_file, text_column, encoding, data_format)
    assert sentences is not None
    _predict_here(model, sentences, body, as_json)


def _predict_file(
    model: str,
    source: Path,
    output: Path,
    text_column: str,
    encoding: str,
    data_format: FileFormat | None,
    body: str | None,
    as_json: bool,
) -> None:
    from ketfit.learn.scoring import parts_folder, score_file
    from ketfit.learn.tables import text_table
    from ketfit.learn.text import TextClassifier

    table = text_table(source, data_format, text_column, encoding)
    say(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    with interruptible(f"the parts so far are in {parts_folder(output)}: the same command goes on from there"):
        scored = score_file(classifier, table, output, progress=True)
    report = {"model": model, "input": str(source), "output": str(output), **asdict(scored)}
    print_report(report, as_json, two_columns(report))


def _sentences(source: Path, text_column: str, encoding: str, data_format: FileFormat | None) -> list[str]:
    from ketfit.learn.data_sources import read_lines
    from ketfit.learn.tables import text_table

    if str(source) == "-" or not source.exists():  # it says what is missing
        return read_lines(source)
    table = text_table(source, data_format, text_column, encoding)
    if table.format == "lines" and encoding == "utf-8":
        return read_lines(source)
    return [text for block in table.blocks(4096) for text in block.texts]


def _predict_here(model: str, sentences: list[str], body: str | None, as_json: bool) -> None:
    from ketfit.learn.text import TextClassifier

    say(f"loading {model}")
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
        table.add_row(str(prediction["label"]), f"{row.max():.3f}", plain(str(prediction["text"])))
    print_report({"model": model, "predictions": predictions}, as_json, table)
