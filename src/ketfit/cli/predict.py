"""Predict labels of sentences or of a file: ``ketfit predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
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
    from ketfit.evaluation.batch_predict import PredictionSummary
    from ketfit.evaluation.block_executors import BlockExecutor

STDIN = "-"

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]


def predict(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL or Parquet file, or folder of Parquet files; other files hold one sentence per line. "
            "- is stdin.",
            allow_dash=True,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File, or folder, for the rows with their predictions; for large inputs."),
    ] = None,
    text_column: TextColumn = "text",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    data_format: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Format of the input; lines: one sentence per line."),
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster, such as auto or HOST:PORT.")] = None,
    body: MovedBody = None,
    as_json: AsJson = False,
) -> None:
    """Predict the label of each sentence and the probability of each class.

    With --output the rows of a file, or of a folder of files, are predicted block by block in constant memory; after
    an interruption the same command continues.
    """
    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give sentences, or --input FILE, and not both")
    if output is not None and (input_file is None or str(input_file) == STDIN):
        raise typer.BadParameter("--output goes with --input FILE, which is read twice: save the sentences to a file")
    if engine == "ray" and output is None:
        raise typer.BadParameter("--engine ray goes with --input and --output")
    if engine == "local" and address is not None:
        raise typer.BadParameter("--address is for --engine ray")
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

    if input_file.is_dir():
        if output is None:
            raise typer.BadParameter(f"--input {input_file} is a folder; name the folder of its --output")
        if (encoding, delimiter) != ("utf-8", None) or data_format not in (None, "parquet"):
            raise typer.BadParameter("--encoding, --delimiter and --format do not apply to a folder of Parquet files")
        _write_predictions(
            model, _folder_job(input_file, output, text_column), _executor(engine, address), body, as_json
        )
        return
    with naming_source(f"--input {input_file}"):
        table = TextTable.find(input_file, data_format, encoding, delimiter, text_column=text_column)
    if output is not None:
        _write_predictions(model, _file_job(table, output), _executor(engine, address), body, as_json)
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


@dataclass(frozen=True)
class _Job:
    """Input and output, and the function that predicts them with a classifier."""

    input: Path
    output: Path
    predict: Callable[..., PredictionSummary]


def _file_job(table: TextTable, output: Path) -> _Job:
    from ketfit.evaluation.batch_predict import check_output, predict_file

    with naming_option("--output", output):
        check_output(table, output)
    return _Job(table.path, output, partial(predict_file, table=table, output=output))


def _folder_job(source: Path, output: Path, text_column: str) -> _Job:
    from ketfit.evaluation.batch_predict import check_output_folder, find_shards, predict_folder

    with naming_option("--output", output):
        check_output_folder(source, output)
    find_shards(source)
    return _Job(source, output, partial(predict_folder, source=source, output=output, text_column=text_column))


def _executor(engine: Literal["local", "ray"], address: str | None) -> BlockExecutor:
    from ketfit.evaluation.block_executors import LocalBlockExecutor, RayBlockExecutor

    return RayBlockExecutor(address) if engine == "ray" else LocalBlockExecutor()


def _write_predictions(model: str, job: _Job, executor: BlockExecutor, body: str | None, as_json: bool) -> None:
    from ketfit.estimators.text import TextClassifier
    from ketfit.evaluation.batch_predict import parts_folder

    echo_stderr(f"loading {model}")
    classifier = TextClassifier.from_pretrained(model, body=body)
    with exit_on_interrupt(f"finished parts are in {parts_folder(job.output)}; run the same command to continue"):
        summary = job.predict(classifier, executor=executor, progress=True)
    report = {"model": model, "input": str(job.input), "output": str(job.output), **asdict(summary)}
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
