"""Tables with a column of sentences, read and written a block of rows at a time: of any length in constant memory."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
from pyarrow import parquet

from ketfit.errors import DataError
from ketfit.learn.data import text_fault
from ketfit.learn.data_sources import DIALECTS, check_fields, json_record, numbered_records, require_columns
from ketfit.learn.files import staged_file

TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]
"""``lines`` is a text file with a sentence on each line and nothing else."""

_PIECE = 2**20
_ROWS_PER_GROUP = 2**16  # of a Parquet file that is written
_ANY = ("csv", "tsv", "jsonl", "parquet")
_WRITES: dict[str, tuple[str, ...]] = {"lines": _ANY, "csv": _ANY, "tsv": _ANY, "jsonl": ("jsonl",)}
_WRITES["parquet"] = ("parquet",)

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Block:
    """Some rows in a row: their sentences, and all their columns (of a Parquet file as Arrow has them)."""

    texts: list[str]
    rows: list[dict[str, Any]] | pa.Table

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextTable:
    """A file of rows with a sentence in each.

    Attributes:
        path: The file.
        format: Of the file.
        text_column: The column with the sentences; of ``lines`` the name that it gets.
        encoding: Of anything but Parquet.
    """

    path: Path
    format: TableFormat
    text_column: str = "text"
    encoding: str = "utf-8"

    def blocks(self, size: int) -> Iterator[Block]:
        """All rows in their order, `size` at a time; the last block may be shorter.

        Raises:
            DataError: the file cannot be read, has no such column, or a row cannot be used; it says which.
        """
        yield from self._parquet_blocks(size) if self.format == "parquet" else self._text_blocks(size)

    def _text_blocks(self, size: int) -> Iterator[Block]:
        with self._opened() as stream:
            rows = {"jsonl": self._json_rows, "lines": self._line_rows}.get(self.format, self._delimited_rows)(stream)
            while some := list(islice(rows, size)):
                yield Block([row[self.text_column] for row in some], some)

    def _parquet_blocks(self, size: int) -> Iterator[Block]:
        done = 0
        try:
            with parquet.ParquetFile(self.path, buffer_size=_PIECE, pre_buffer=False) as file:
                require_columns(str(self.path), [self.text_column], file.schema_arrow.names)
                for table in _rebatched(file.iter_batches(batch_size=size), size):
                    texts = table[self.text_column].to_pylist()
                    for place, text in enumerate(texts):
                        self._check(f"{self.path}, row {done + place + 1}", text)
                    done += len(texts)
                    yield Block(texts, table)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: not a readable Parquet file: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[io.TextIOWrapper]:
        try:
            codecs.lookup(self.encoding)
            with self.path.open("rb") as file:
                # Line ends as they are: CSV knows its own, and to Unicode a line ends in more ways than in JSONL.
                newline = "" if self.format in DIALECTS else "\n"
                encoding = "utf-8-sig" if self.encoding.lower() in ("utf-8", "utf8") else self.encoding
                yield io.TextIOWrapper(file, encoding, newline=newline)
        except LookupError as error:
            raise DataError(f"unknown encoding {self.encoding!r}; use a Python codec such as 'utf-8'") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: bytes {error.object[error.start : error.end]!r} are not valid {self.encoding}; "
                "name the right encoding, for instance cp1252 or utf-16"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _delimited_rows(self, stream: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
        records = numbered_records(self.path, stream, self.format)
        header = next(records, (0, []))[1]
        if not header:
            raise DataError(f"{self.path}: the file is empty")
        require_columns(str(self.path), [self.text_column], header)
        for line, cells in records:
            check_fields(f"{self.path}, line {line}", cells, header, self.format)
            row = dict(zip(header, cells, strict=True))
            self._check(f"{self.path}, line {line}", row[self.text_column])
            yield row

    def _json_rows(self, stream: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(stream, start=1):
            where = f"{self.path}, line {number}"
            row = json_record(where, line)
            require_columns(where, [self.text_column], list(row))
            self._check(where, row[self.text_column])
            yield row

    def _line_rows(self, stream: io.TextIOWrapper) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(stream, start=1):
            text = line.removesuffix("\n").removesuffix("\r")
            self._check(f"{self.path}, line {number}", text)
            yield {self.text_column: text}

    def _check(self, where: str, text: object) -> None:
        if fault := text_fault(text):
            raise DataError(f"{where}{fault}")


def text_table(
    path: Path, format: TableFormat | None = None, text_column: str = "text", encoding: str = "utf-8"
) -> TextTable:
    """The table in a file; without a `format` its suffix tells, and any other suffix is a text file of lines.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    return TextTable(path, format or _format_of(path) or "lines", text_column, encoding)


def output_format(table: TextTable, output: Path) -> TableFormat:
    """The format of an output file, by its suffix.

    Raises:
        DataError: it has none that is known, or cannot hold the columns of `table` as they are.
    """
    format = _format_of(output)
    allowed = _WRITES[table.format]
    if format is None or format not in allowed:
        raise DataError(
            f"{output}: rows of {table.format} are written as {' or '.join(f'.{name}' for name in allowed)}, so that "
            "their columns stay what they are; name such a file"
        )
    return format


def fingerprint_file(path: Path) -> str:
    """SHA-256 (hex) of a file, read a piece at a time.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def encode_block(block: Block, added: Columns, format: TableFormat, where: str) -> bytes:
    """A block with columns added, as a part that `join_parts` takes.

    Args:
        block: Rows as they were read.
        added: The columns by name, of strings, integers or floats.
        format: Of the part.
        where: What the block is of, for messages.

    Raises:
        DataError: a column to be added is there already, or TSV cannot hold a field.
    """
    rows = block.rows
    present = set(rows.column_names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
    if taken := [name for name in added if name in present]:
        raise DataError(f"{where} has a column {taken[0]!r} already; rename it, for the predictions get that name")
    if format == "parquet":
        return _parquet_part(rows, added)
    assert not isinstance(rows, pa.Table)
    news = zip(*added.values(), strict=True)
    wider = [{**row, **dict(zip(added, new, strict=True))} for row, new in zip(rows, news, strict=True)]
    if format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in wider).encode()
    return _delimited(wider, format, where)


def _parquet_part(rows: list[dict[str, Any]] | pa.Table, added: Columns) -> bytes:
    if not isinstance(rows, pa.Table):
        rows = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})
    for name, values in added.items():
        rows = rows.append_column(name, pa.array(values))
    sink = io.BytesIO()
    parquet.write_table(rows.replace_schema_metadata(None), sink)
    return sink.getvalue()


def join_parts(parts: Sequence[Path], header: Sequence[str], format: TableFormat, output: Path) -> None:
    """Make one file of parts, in their order and in constant memory; it is there whole or not at all.

    Args:
        parts: Made by `encode_block`, at least one.
        header: Names of the columns, for CSV and TSV.
        format: Of the parts and of the output.
        output: The file.

    Raises:
        StorageError: it cannot be written.
    """
    with staged_file(output) as staged:
        if format == "parquet":
            _join_parquet(parts, staged)
            return
        with staged.open("xb") as file:
            if format in DIALECTS:
                file.write(_delimited([dict(zip(header, header, strict=True))], format, str(output)))
            for part in parts:
                file.write(part.read_bytes())


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    schema = parquet.read_schema(parts[0])
    with parquet.ParquetWriter(output, schema) as writer:
        batches = (batch for part in parts for batch in parquet.read_table(part, schema=schema).to_batches())
        for table in _rebatched(batches, _ROWS_PER_GROUP):
            writer.write_table(table.combine_chunks())


def _rebatched(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows, `size` at a time: a reader's batches end where a row group does."""
    kept: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        kept.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(kept)
            yield table.slice(0, size)
            kept = table.slice(size).to_batches()
            count -= size
    if count:
        yield pa.Table.from_batches(kept)


def _delimited(rows: Sequence[Mapping[str, Any]], format: TableFormat, where: str) -> bytes:
    if format == "csv":
        sink = io.StringIO(newline="")
        csv.writer(sink, lineterminator="\n").writerows(row.values() for row in rows)
        return sink.getvalue().encode()
    lines = []
    for row in rows:
        cells = [str(value) for value in row.values()]
        if any(sign in cell for cell in cells for sign in "\t\n\r"):
            raise DataError(f"{where}: TSV cannot hold a field with a tab or a line break; name a .csv or .jsonl")
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


def _format_of(path: Path) -> TableFormat | None:
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in get_args(TableFormat) and suffix != "lines" else None  # type: ignore[return-value]
