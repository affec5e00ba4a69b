"""Predict the labels of a file, or of a folder of files, of any length, in constant memory, and resume.

Until the output is complete, the folder ``OUTPUT.parts`` beside it holds ``job.json``, which identifies the model and
the input, and one part with the predictions of each block of rows, written atomically. A later run of the same job
skips the existing parts; at the end the parts are joined. A part depends on its block alone, so that an interruption
does not change the bytes of the output. In a folder, each file is a shard whose parts have a folder of their own, and
which is joined as soon as its last part is written.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sklearn.utils.validation import check_is_fitted

import ketfit
from ketfit.data.tables import (
    TableFormat,
    TableWriter,
    TextTable,
    output_format,
)
from ketfit.errors import DataError, DataOptionError, DataWarning, StorageError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.evaluation.block_executors import BlockExecutor, LocalBlockExecutor
from ketfit.evaluation.block_predictor import LABEL, PROBABILITY, BlockPredictor, BlockTask
from ketfit.progress import ProgressBar
from ketfit.storage.atomic import write_file
from ketfit.storage.hashing import hash_file, hash_tensors
from ketfit.storage.strict_json import dump_json, parse_json

BLOCK_ROWS = 4096
"""Rows of a part: the most that a kill can lose, and the rows that are in memory at once."""

JOB, LOCK = "job.json", ".lock"


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


@dataclass(frozen=True)
class _Shard:
    """An input file with its output, its parts, and its job.

    Attributes:
        counters: First counters of the random streams of its blocks.
        header: Columns of the output.
        signature: Size and time of the input when it was checked.
    """

    table: TextTable
    writer: TableWriter
    output: Path
    parts_folder: Path
    counters: tuple[int, ...]
    job: Job
    header: list[str]
    signature: tuple[int, int]

    @property
    def parts(self) -> list[Path]:
        """The file of each block."""
        return [self.parts_folder / f"{number:08d}.part" for number in range(-(-self.job.rows // self.job.block_rows))]

    def missing_blocks(self) -> Iterator[BlockTask]:
        """Yield the blocks that have no part yet."""
        parts, size = self.parts, self.job.block_rows
        exists = [part.exists() for part in parts]
        for number, block in enumerate(self.table.blocks(size)):
            if number >= len(parts):
                raise self._changed()
            if not exists[number]:
                name = f"rows {number * size + 1} to {number * size + len(block)} of {self.table.name}"
                yield BlockTask(block, self.writer, (*self.counters, number), parts[number], name)

    def count_existing_rows(self) -> int:
        """Return the number of rows in the existing parts, or in the output if it is there."""
        if self.output.exists():
            return self.job.rows
        size = self.job.block_rows
        return sum(min(size, self.job.rows - number * size) for number, part in enumerate(self.parts) if part.exists())

    def join(self) -> None:
        """Write the output from the parts, and remove them."""
        if _file_signature(self.table.path) != self.signature:
            raise self._changed()
        self.writer.join(self.parts, self.header, self.output)
        with suppress(OSError):
            for part in self.parts:
                part.unlink()

    def _changed(self) -> DataError:
        return DataError(
            f"{self.table.path} was changed while it was read; remove {self.parts_folder}, and start again"
        )


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


def find_shards(folder: Path, text_column: str = "text") -> list[TextTable]:
    """Return the Parquet files of a folder, in the order of their names.

    Files whose names begin with a dot or an underscore are left out; other tools mark a complete folder with them.

    Raises:
        DataError: The folder has none, or has a subfolder or another file.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    if other := [entry for entry in entries if entry.suffix.lower() != ".parquet" or entry.is_dir()]:
        raise DataError(f"{other[0]} is not a Parquet file; an input folder holds Parquet files only: move it away")
    if not entries:
        raise DataError(f"{folder} has no Parquet file; name a folder of .parquet files, or one file")
    return [TextTable.find(entry, "parquet", text_column=text_column) for entry in entries]


def check_output_folder(source: Path, output: Path) -> None:
    """Check the output of a folder before a model is loaded.

    Raises:
        DataOptionError: The output is the input, or in it.
        StorageError: The output exists, and no interrupted run left it.
    """
    if output.resolve().is_relative_to(source.resolve()):
        raise DataOptionError(f"{output} is in the input folder {source}; name an output folder outside it")
    if os.path.lexists(output) and not (output.is_dir() and (parts_folder(output) / JOB).is_file()):
        raise StorageError(f"{output} is there already; remove it, or name another output")


def predict_file(
    classifier: TextClassifier,
    table: TextTable,
    output: Path,
    *,
    block_rows: int = BLOCK_ROWS,
    executor: BlockExecutor | None = None,
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
        executor: Executor of the blocks, such as `RayBlockExecutor`; None is this process.
        progress: Show bars on stderr.

    Raises:
        DataError: The input cannot be used, was changed meanwhile, or the parts beside the output are of another job.
        DataOptionError, StorageError: As in `check_output`.
        StorageError: Another process writes the output, or it cannot be written.
        BodyError, InputError: As in `TextClassifier.predict_proba`.
        ClusterError: As in `RayBlockExecutor`.
    """
    check_is_fitted(classifier, "classifier_")
    start = time.perf_counter()
    writer = TableWriter(check_output(table, output), table.name, table.delimiter)
    with _locked_folder(parts_folder(output)) as folder:
        job, header, signature = _validate_input(classifier, table, writer, block_rows, progress)
        _check_job(folder, asdict(job))
        shard = _Shard(table, writer, output, folder, (), job, header, signature)
        resumed = _predict_shards(classifier, [shard], executor or LocalBlockExecutor(), progress)
    shutil.rmtree(folder, ignore_errors=True)
    return PredictionSummary(job.rows, resumed, time.perf_counter() - start)


def predict_folder(
    classifier: TextClassifier,
    source: Path,
    output: Path,
    *,
    text_column: str = "text",
    block_rows: int = BLOCK_ROWS,
    executor: BlockExecutor | None = None,
    progress: bool = False,
) -> PredictionSummary:
    """Predict the Parquet files of a folder, and write a file of the same name to another folder for each.

    Each output is written atomically when it is complete; a later run of the same job continues. See `predict_file`.

    Args:
        classifier: A fitted classifier.
        source: The folder of the input, see `find_shards`.
        output: The folder to write.
        text_column: Column with the sentences.
        block_rows: As in `predict_file`.
        executor: As in `predict_file`.
        progress: Show bars on stderr.

    Raises:
        DataError, DataOptionError, StorageError: As in `predict_file`, `find_shards` and `check_output_folder`.
        BodyError, InputError, ClusterError: As in `predict_file`.
    """
    check_is_fitted(classifier, "classifier_")
    start = time.perf_counter()
    check_output_folder(source, output)
    tables = find_shards(source, text_column)
    with _locked_folder(parts_folder(output)) as folder:
        shards = []
        for index, table in enumerate(tables):
            writer = TableWriter("parquet", table.name)
            job, header, signature = _validate_input(classifier, table, writer, block_rows, progress)
            name = table.path.name
            shards.append(_Shard(table, writer, output / name, folder / name, (index,), job, header, signature))
        _check_job(folder, {shard.output.name: asdict(shard.job) for shard in shards})
        resumed = _predict_shards(classifier, shards, executor or LocalBlockExecutor(), progress)
    shutil.rmtree(folder, ignore_errors=True)
    return PredictionSummary(sum(shard.job.rows for shard in shards), resumed, time.perf_counter() - start)


def _predict_shards(classifier: TextClassifier, shards: list[_Shard], executor: BlockExecutor, progress: bool) -> int:
    """Write the missing outputs, and return the number of rows that earlier runs predicted."""
    resumed = sum(shard.count_existing_rows() for shard in shards)
    unfinished = [shard for shard in shards if not shard.output.exists()]
    owners = {shard.parts_folder: shard for shard in unfinished}
    missing = {folder: sum(not part.exists() for part in shard.parts) for folder, shard in owners.items()}
    warned = False
    with ProgressBar("predicting", sum(shard.job.rows for shard in shards), shown=progress, done=resumed) as bar:
        for folder in [folder for folder, count in missing.items() if not count]:
            owners[folder].join()
        tasks = chain.from_iterable(shard.missing_blocks() for shard in unfinished if missing[shard.parts_folder])
        with closing(executor.run(BlockPredictor(classifier), tasks)) as results:
            for task, predicted in results:
                if predicted.warning is not None and not warned:  # every block would give the same warning
                    warnings.warn(f"{predicted.warning} It may be so further on, too.", DataWarning, stacklevel=3)
                    warned = True
                write_file(task.part, predicted.content)
                bar.advance(len(task.block))
                missing[task.part.parent] -= 1
                if not missing[task.part.parent]:
                    owners[task.part.parent].join()
    if short := [shard for shard in unfinished if missing[shard.parts_folder]]:
        raise short[0]._changed()
    return resumed


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


def _check_job(folder: Path, job: Mapping[str, Any]) -> None:
    """Write the job file of a new job, or check that the existing one describes the same job.

    Args:
        folder: Folder of the parts.
        job: The fields of a `Job`; for a folder, those of each shard by its name.
    """
    path = folder / JOB
    if not path.exists():
        unknown = [entry.name for entry in folder.iterdir() if entry.name != LOCK]
        if unknown:
            raise StorageError(f"{folder} holds {unknown[0]!r} and no {JOB}; remove it, or name another output")
        write_file(path, (dump_json(job, "the job", indent=2) + "\n").encode())
        return
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove {folder} to start again") from error
    if stored == job:
        return
    raise DataError(
        f"{folder} has predictions of another job: its {', '.join(_differences(stored, job))} differ; use the same "
        "arguments to resume, remove it to start again, or name another output"
    )


def _differences(stored: Any, job: Mapping[str, Any]) -> list[str]:
    """Return the fields that differ; for a folder, the files that are in one job only, else fields with a file each."""
    found = stored if isinstance(stored, dict) else {}
    if found.keys() == job.keys() and all(isinstance(value, dict) for value in (*found.values(), *job.values())):
        fields: dict[str, str] = {}
        for name in job:
            for field in _differences(found[name], job[name]):
                fields.setdefault(field, f"{field} of {name}")
        return list(fields.values())
    return [name for name in {**job, **found} if name not in job or name not in found or found[name] != job[name]]


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
