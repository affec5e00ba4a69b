"""Predict the labels of a file of any length, in constant memory, and resume after an interruption.

Until the output is complete, the folder ``OUTPUT.parts`` beside it holds ``job.json``, which identifies the model and
the input, and one part with the predictions of each block of rows, written atomically. A later run of the same job
skips the existing parts; at the end the parts are joined. A part depends on its block alone, so that an interruption
does not change the bytes of the output.
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
from ketfit.data.tables import (
    Block,
    TableFormat,
    TableWriter,
    TextTable,
    output_format,
)
from ketfit.errors import DataError, DataOptionError, DataWarning, StorageError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.heads import HeadEstimator
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.head import MEASUREMENT
from ketfit.progress import ProgressBar
from ketfit.rng import torch_stream
from ketfit.storage.atomic import write_file
from ketfit.storage.hashing import hash_file, hash_tensors
from ketfit.storage.strict_json import dump_json, parse_json

BLOCK_ROWS = 4096
"""Rows of a part: the most that a kill can lose, and the rows that are in memory at once."""

JOB, LOCK = "job.json", ".lock"
LABEL, PROBABILITY = "predicted_label", "probability_"


@dataclass(frozen=True)
class PredictionSummary:
    """The rows of the output, those among them that an earlier run predicted, and the duration of this run."""

    rows: int
    resumed: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """Everything that determines the bytes of the output."""

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
    """Return the folder of the parts of an incomplete output."""
    return output.with_name(f"{output.name}.parts")


def check_output(table: TextTable, output: Path) -> TableFormat:
    """Check an output file before a model is loaded, and return its format.

    Raises:
        DataOptionError: The input is a pipe, or the output format cannot hold its columns.
        StorageError: The output exists.
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
    """Predict the label of each row of a file, and write its rows with the predictions to another file.

    The new columns are ``predicted_label`` and ``probability_CLASS`` for each class. The whole input is read and
    checked before the first prediction. Embeddings are not cached. Shots and noise are those of the training, and each
    block samples from a random stream of its own.

    Args:
        classifier: A fitted classifier.
        table: The input.
        output: The file to write: CSV, TSV, JSONL or Parquet by its suffix.
        block_rows: Rows of a part, at least 1; another number gives other last digits.
        progress: Show bars on stderr.

    Raises:
        DataError: The input cannot be used, was changed meanwhile, or the parts beside the output are of another job.
        DataOptionError, StorageError: As in `check_output`.
        StorageError: Another process writes the output, or it cannot be written.
        BodyError, InputError: As in `TextClassifier.predict_proba`.
    """
    check_is_fitted(classifier, "classifier_")
    start = time.perf_counter()
    writer = TableWriter(check_output(table, output), table.name, table.delimiter)
    with _locked_folder(parts_folder(output)) as folder:
        job, header, signature = _validate_input(classifier, table, writer, block_rows, progress)
        _check_job(folder, job)
        parts = [folder / f"{number:08d}.part" for number in range(-(-job.rows // block_rows))]
        resumed = _write_parts(_Predictor(classifier, writer, table), parts, job, progress)
        if _file_signature(table.path) != signature:
            raise DataError(f"{table.path} was changed while it was read; remove {folder}, and start again")
        writer.join(parts, header, output)
    shutil.rmtree(folder, ignore_errors=True)
    return PredictionSummary(job.rows, resumed, time.perf_counter() - start)


def _write_parts(predictor: _Predictor, parts: list[Path], job: Job, progress: bool) -> int:
    """Write the missing parts, and return the number of rows in the existing ones."""
    exists, size = [part.exists() for part in parts], job.block_rows
    resumed = sum(min(size, job.rows - number * size) for number, skip in enumerate(exists) if skip)
    with ProgressBar("predicting", job.rows, shown=progress, done=resumed) as bar:
        for number, block in enumerate(predictor.table.blocks(size)):
            if not exists[number]:
                write_file(parts[number], predictor.predict_block(block, number))
                bar.advance(len(block))
    return resumed


class _Predictor:
    """Predicts blocks of rows, each with a random stream of its own."""

    def __init__(self, classifier: TextClassifier, writer: TableWriter, table: TextTable) -> None:
        fitted = classifier.classifier_
        self.head: HeadEstimator = fitted
        if isinstance(fitted, QuantumHeadClassifier):  # a copy: its generator is set below
            settings = {name: getattr(fitted.head_config_, name) for name in MEASUREMENT}
            self.head = fitted.with_measurement(**settings)
        self.body, self.classes = classifier.body_, classifier.classes_
        self.writer, self.table = writer, table
        self.warned = False

    def predict_block(self, block: Block, number: int) -> bytes:
        """Return the encoded rows of block `number` with their predictions."""
        if isinstance(self.head, QuantumHeadClassifier):
            self.head.module_.generator = torch_stream(self.head.seed_, "shots", number)
        with warnings.catch_warnings():
            if self.warned:  # every block would give the same warning
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
            f"{PROBABILITY}{name}": probabilities[:, index].tolist() for index, name in enumerate(self.classes.tolist())
        }
        return self.writer.encode_block(block, columns)


def model_fingerprint(classifier: TextClassifier) -> str:
    """Return the SHA-256 (hex) of everything in a fitted classifier that its predictions depend on."""
    fitted = classifier.classifier_
    saved = fitted.to_saved()
    settings = {
        "head": saved.config.identity(),
        "classes": classifier.classes_.tolist(),
        "body": [classifier.body_.fingerprint, classifier.body_.dtype],
    }
    if isinstance(fitted, TorchHeadClassifier):
        settings |= {
            "temperature": fitted.temperature_,
            "batch_size": fitted.train_config_.batch_size,
            "seed": fitted.seed_,
            "device": str(next(iter(saved.tensors.values())).device),
        }
    if not isinstance(fitted, QuantumHeadClassifier):
        settings["kind"] = fitted.kind
    return hash_tensors(saved.tensors, json.dumps(settings, sort_keys=True))


def _validate_input(
    classifier: TextClassifier, table: TextTable, writer: TableWriter, block_rows: int, progress: bool
) -> tuple[Job, list[str], tuple[int, int]]:
    """Read and check the whole input; return the job, the columns of the output, and the signature of the input."""
    signature = _file_signature(table.path)
    placeholder = classifier.classes_[:1].tolist()
    rows, header = 0, []
    names = [LABEL, *(f"{PROBABILITY}{name}" for name in classifier.classes_.tolist())]
    with ProgressBar("checking", None, shown=progress) as bar:
        for block in table.blocks(block_rows):
            if not rows:
                header = [*(block.rows[0] if isinstance(block.rows, list) else block.rows.column_names), *names]
                writer.encode_header(header)
            if not rows or table.format != "parquet":  # fail now, not after hours
                added = {name: placeholder * len(block) for name in names}
                writer.encode_block(block, added)
            rows += len(block)
            bar.set(rows)
        bar.set(rows, rows)
    if not rows:
        raise DataError(f"{table.name} holds no sentence")
    try:
        digest = hash_file(table.path)
    except OSError as error:
        raise DataError(f"cannot read {table.path}: {error.strerror or error}") from error
    job = Job(
        ketfit_version=ketfit.__version__,
        model=model_fingerprint(classifier),
        input=digest,
        text_column=table.text_column,
        encoding=table.encoding,
        delimiter=table.delimiter,
        input_format=table.format,
        output_format=writer.format,
        block_rows=block_rows,
        rows=rows,
    )
    return job, header, signature


def _check_job(folder: Path, job: Job) -> None:
    """Write the job file of a new job, or check that the existing one describes the same job."""
    path = folder / JOB
    if not path.exists():
        unknown = [entry.name for entry in folder.iterdir() if entry.name != LOCK]
        if unknown:
            raise StorageError(f"{folder} holds {unknown[0]!r} and no {JOB}; remove it, or name another output")
        write_file(path, (dump_json(asdict(job), "the job", indent=2) + "\n").encode())
        return
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder} to start again") from error
    if stored == asdict(job):
        return
    found = stored if isinstance(stored, dict) else {}
    changed = [name for name, value in asdict(job).items() if found.get(name) != value] or ["keys"]
    raise DataError(
        f"{folder} has predictions of another job: its {', '.join(changed)} differ; use the same arguments to resume, "
        "remove it to start again, or name another output"
    )


@contextmanager
def _locked_folder(folder: Path) -> Iterator[Path]:
    """Create the folder of the parts if it is missing, and lock it against other processes."""
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
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return status.st_size, status.st_mtime_ns
