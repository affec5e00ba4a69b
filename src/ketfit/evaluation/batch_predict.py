"""Predictions for a file of any length: in constant memory, and with nothing lost when they are interrupted.

Beside the output stands, while it is made, a folder ``OUTPUT.parts``: ``job.json`` says of which model and which input,
and each part has the predictions of one block of rows, written whole or not at all. A run that finds parts of the same
job goes on behind them, and the parts become the output in the end. What is in a part depends on its block alone, so
that the output has the same bytes whether the run was interrupted or not.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sklearn.utils.validation import check_is_fitted

import ketfit
from ketfit.data.readers import DIALECTS
from ketfit.data.tables import (
    Block,
    TableFormat,
    TextTable,
    encode_block,
    encode_header,
    fingerprint_file,
    join_parts,
    output_format,
)
from ketfit.errors import DataError, DataOptionError, DataWarning, StorageError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.head import MEASUREMENT
from ketfit.progress import ProgressBar
from ketfit.rng import torch_stream
from ketfit.storage.atomic import write_file
from ketfit.storage.hashing import hash_tensors
from ketfit.storage.strict_json import dump_json, parse_json

BLOCK_ROWS = 4096
"""Rows of a part: what a kill can lose, and what is in memory at once."""

JOB, LOCK = "job.json", ".lock"
LABEL, PROBABILITY = "predicted_label", "probability_"


@dataclass(frozen=True)
class PredictionSummary:
    """What `predict_file` did: the rows of the output, and how many of them an earlier run had made."""

    rows: int
    resumed: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """All that decides the bytes of the output."""

    ketfit_version: str
    model: str
    input: str
    text_column: str
    encoding: str
    delimiter: str | None
    input_format: str
    output_format: str
    block_rows: int
    rows: int


def parts_folder(output: Path) -> Path:
    """Where the parts of an output are while it is made."""
    return output.with_name(f"{output.name}.parts")


def check_output(table: TextTable, output: Path) -> TableFormat:
    """Return the format of an output file; ask here before a model is loaded.

    Raises:
        DataOptionError: the input is a pipe, or the output cannot hold its columns.
        StorageError: the output is there already.
    """
    if not table.path.is_file():
        raise DataOptionError(
            f"{table.name} can be read only once, and --output reads its input twice; save it in a file first"
        )
    format = output_format(table, output)
    if os.path.lexists(output):
        raise StorageError(f"{output} is there already; remove it, or name another output")
    return format


def predict_file(
    classifier: TextClassifier,
    table: TextTable,
    output: Path,
    *,
    block_rows: int = BLOCK_ROWS,
    progress: bool = False,
) -> PredictionSummary:
    """Predict the label of each row of a file, and write its rows with the predictions added to another file.

    The new columns are ``predicted_label`` and ``probability_CLASS`` for each class. The whole input is read and
    checked before the first prediction. Embeddings are not cached. Shots and noise are those the model was trained
    with, and each block draws from a stream of its own.

    Args:
        classifier: Fitted.
        table: The input.
        output: The file to write: CSV, TSV, JSONL or Parquet by its suffix.
        block_rows: Rows of a part, at least 1; another number gives other last digits.
        progress: Show bars on stderr.

    Raises:
        DataError: the input cannot be used, changed meanwhile, or the parts beside the output are of another job.
        DataOptionError, StorageError: as in `check_output`.
        StorageError: another process makes the output, or it cannot be written.
        BodyError, InputError: as in `TextClassifier.predict_proba`.
    """
    check_is_fitted(classifier, "classifier_")
    start = time.perf_counter()
    format = check_output(table, output)
    with _locked_folder(parts_folder(output)) as folder:
        job, header, stamp = _validate_input(classifier, table, format, block_rows, progress)
        _check_job(folder, job)
        parts = [folder / f"{number:08d}.part" for number in range(-(-job.rows // block_rows))]
        there = [part.exists() for part in parts]
        resumed = sum(min(block_rows, job.rows - number * block_rows) for number, made in enumerate(there) if made)
        predictor = _Predictor(classifier, format, table)
        with ProgressBar("predicting", job.rows, shown=progress, done=resumed) as bar:
            for number, block in enumerate(table.blocks(block_rows)):
                if there[number]:
                    continue
                write_file(parts[number], predictor.part(block, number))
                bar.advance(len(block))
        if _file_signature(table.path) != stamp:
            raise DataError(f"{table.path} was changed while it was read; remove {folder}, and start again")
        join_parts(parts, header, format, output, table.delimiter)
    shutil.rmtree(folder, ignore_errors=True)
    return PredictionSummary(job.rows, resumed, time.perf_counter() - start)


class _Predictor:
    """Makes parts of blocks, each from a stream of chance of its own."""

    def __init__(self, classifier: TextClassifier, format: TableFormat, table: TextTable) -> None:
        fitted = classifier.classifier_
        settings = {name: getattr(fitted.head_config_, name) for name in MEASUREMENT}
        self.head: QuantumHeadClassifier = fitted.with_measurement(**settings)  # a copy: its generator is set below
        self.body, self.classes = classifier.body_, classifier.classes_
        self.format, self.table = format, table
        self.warned = False

    def part(self, block: Block, number: int) -> bytes:
        """The rows of block `number` with their predictions."""
        self.head.module_.generator = torch_stream(self.head.seed_, "shots", number)
        with warnings.catch_warnings():
            if self.warned:  # of every block it would be the same
                warnings.simplefilter("ignore", UserWarning)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                embeddings = self.body.encode(block.texts, cache=False)
            if caught:
                warnings.warn(f"{caught[0].message} It may be so further on, too.", DataWarning, stacklevel=2)
                self.warned = True
        probabilities = self.head.predict_proba(embeddings)
        columns: dict[str, list[Any]] = {LABEL: self.classes[probabilities.argmax(axis=1)].tolist()}
        columns |= {
            f"{PROBABILITY}{name}": probabilities[:, place].tolist() for place, name in enumerate(self.classes.tolist())
        }
        return encode_block(block, columns, self.format, self.table.name, self.table.delimiter)


def model_fingerprint(classifier: TextClassifier) -> str:
    """SHA-256 (hex) over all of a fitted classifier that its predictions depend on."""
    fitted = classifier.classifier_
    facts = {
        "head": fitted.head_config_.model_dump(mode="json"),
        "classes": classifier.classes_.tolist(),
        "temperature": fitted.temperature_,
        "batch_size": fitted.train_config_.batch_size,
        "seed": fitted.seed_,
        "body": [classifier.body_.fingerprint, classifier.body_.dtype],
        "device": str(fitted.module_.weights.device),
    }
    return hash_tensors(fitted.module_.state_dict(), json.dumps(facts, sort_keys=True))


def _validate_input(
    classifier: TextClassifier, table: TextTable, format: TableFormat, block_rows: int, progress: bool
) -> tuple[Job, list[str], tuple[int, int]]:
    """Read the input once: every row is fit to be predicted; what job it makes, its columns, and its stamp."""
    stamp = _file_signature(table.path)
    zero = [classifier.classes_[:1].tolist()[0]]
    rows, header = 0, []
    names = [LABEL, *(f"{PROBABILITY}{name}" for name in classifier.classes_.tolist())]
    with ProgressBar("checking", None, shown=progress) as bar:
        for block in table.blocks(block_rows):
            if not rows:
                header = [*(block.rows[0] if isinstance(block.rows, list) else block.rows.column_names), *names]
                if format in DIALECTS:
                    encode_header(header, format, table.name, table.delimiter)
            if not rows or table.format != "parquet":  # what could not be written is told now, not in hours
                added = {name: zero * len(block) for name in names}
                encode_block(block, added, format, table.name, table.delimiter)
            rows += len(block)
            bar.set(rows)
        bar.set(rows, rows)
    if not rows:
        raise DataError(f"{table.name} holds no sentence")
    job = Job(
        ketfit_version=ketfit.__version__,
        model=model_fingerprint(classifier),
        input=fingerprint_file(table.path),
        text_column=table.text_column,
        encoding=table.encoding,
        delimiter=table.delimiter,
        input_format=table.format,
        output_format=format,
        block_rows=block_rows,
        rows=rows,
    )
    return job, header, stamp


def _check_job(folder: Path, job: Job) -> None:
    """Begin a job, or go on with the same one."""
    path = folder / JOB
    if not path.exists():
        strangers = [entry.name for entry in folder.iterdir() if entry.name != LOCK]
        if strangers:
            raise StorageError(f"{folder} holds {strangers[0]!r} and no {JOB}; remove it, or name another output")
        write_file(path, (dump_json(asdict(job), "the job", indent=2) + "\n").encode())
        return
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder} to start again") from error
    if found == asdict(job):
        return
    there = found if isinstance(found, dict) else {}
    other = [name for name, value in asdict(job).items() if there.get(name) != value] or ["keys"]
    raise DataError(
        f"{folder} has predictions of another job: its {', '.join(other)} differ; go on with what it was begun with, "
        "remove it to start again, or name another output"
    )


@contextmanager
def _locked_folder(folder: Path) -> Iterator[Path]:
    """The folder of the parts, made if it is missing, while no other process has it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StorageError(f"another process writes to {folder}; wait for it, or name another output") from error
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        lock.release()


def _file_signature(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns
