"""Tables with a column of sentences, read and written a block of rows at a time: of any length in constant memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from ketfit.data.dataset import text_fault
from ketfit.data.readers import (
    DIALECTS,
    STDIN,
    check_delimiter,
    check_encoding,
    delimited_rows,
    json_rows,
    open_lines,
    open_parquet,
    require_columns,
    resolve_format,
    source_name,
)
from ketfit.errors import DataError, DataOptionError
from ketfit.storage.atomic import staged_file
from ketfit.storage.hashing import hash_file

TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]
"""``lines`` is a text file with a sentence on each line and nothing else."""

_PIECE = 2**20
_ROWS_PER_GROUP = 2**16  # of a Parquet file that is written
_ANY = ("csv", "tsv", "jsonl", "parquet")
_WRITES: dict[str, tuple[str, ...]] = {"lines": _ANY, "csv": _ANY, "tsv": _ANY, "jsonl": ("jsonl",)}
_WRITES["parquet"] = ("parquet",)

_PANDAS_STRINGS = ("unicode", "string", "empty", "mixed", "mixed-integer")  # pandas writes mixed ones as strings

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a table.

    Attributes:
        texts: The sentence of each row.
        rows: All columns of each row, of a Parquet file as Arrow has them.
        lines: Of JSONL, each row as it is written.
    """

    texts: list[str]
    rows: list[dict[str, Any]] | pa.Table
    lines: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextTable:
    """A file of rows with a sentence in each.

    Attributes:
        path: The file, which may be a pipe; ``-`` is standard input.
        format: Of the file.
        text_column: The column with the sentences; of ``lines`` the name that it gets.
        encoding: Of anything but Parquet.
        delimiter: Of CSV; None is a comma.
    """

    path: Path
    format: TableFormat
    text_column: str = "text"
    encoding: str = "utf-8"
    delimiter: str | None = None

    def blocks(self, size: int) -> Iterator[Block]:
        """All rows in their order, `size` at a time; the last block may be shorter.

        Raises:
            DataError: the file cannot be read, has no such column, or a row cannot be used; it says which.
        """
        yield from self._parquet_blocks(size) if self.format == "parquet" else self._text_blocks(size)

    def _text_blocks(self, size: int) -> Iterator[Block]:
        with open_lines(self.path, self.encoding, self.format) as lines:
            rows = self._rows(lines)
            while some := list(islice(rows, size)):
                texts = []
                for line, row, _ in some:
                    texts.append(row[self.text_column])
                    if fault := text_fault(texts[-1]):
                        raise DataError(f"{self.name}, line {line}{fault}")
                written = [text for _, _, text in some] if self.format == "jsonl" else None
                yield Block(texts, [row for _, row, _ in some], written)

    def _rows(self, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any], str]]:
        """The number of the line of each row, the row, and the line."""
        wanted = [self.text_column]
        if self.format == "jsonl":
            yield from json_rows(self.name, lines, wanted)
        elif self.format == "lines":
            for number, line in enumerate(lines, start=1):
                yield number, {self.text_column: line.removesuffix("\n").removesuffix("\r")}, line
        else:
            for number, row in delimited_rows(self.name, lines, self.format, wanted, self.delimiter):
                yield number, row, ""

    def _parquet_blocks(self, size: int) -> Iterator[Block]:
        done = 0
        with open_parquet(self.path, buffer_size=_PIECE, pre_buffer=False) as file:
            require_columns(self.name, [self.text_column], file.schema_arrow.names)
            # A group at a time: some nested types cannot be read across the end of one.
            groups = range(file.num_row_groups)
            batches = (batch for group in groups for batch in file.iter_batches(size, row_groups=[group]))
            for table in _rebatched(batches, size, file.schema_arrow):
                texts = table[self.text_column].to_pylist()
                for place, text in enumerate(texts):
                    if fault := text_fault(text):
                        raise DataError(f"{self.name}, row {done + place + 1}{fault}")
                done += len(texts)
                yield Block(texts, table)

    @property
    def name(self) -> str:
        """The name of the table in messages."""
        return source_name(self.path)


def text_table(
    path: Path,
    format: TableFormat | None = None,
    text_column: str = "text",
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> TextTable:
    """The table in a file, a pipe, or standard input.

    Args:
        path: Of the file; ``-`` is standard input.
        format: If left out, the suffix says; files that end with ``.txt`` or have no suffix, and standard input, are
            text with a sentence on each line.
        text_column: The column with the sentences; of ``lines`` the name that it gets.
        encoding: Of anything but Parquet.
        delimiter: Of CSV; None is a comma.

    Raises:
        DataError: there is no such file.
        DataOptionError: the format is unknown, or an option does not fit it.
    """
    if str(path) != STDIN and (path.is_dir() or not path.exists()):
        raise DataError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    found = resolve_format(path, format, lines=True)
    check_delimiter(delimiter, found)
    check_encoding(encoding)
    if found == "parquet" and encoding != "utf-8":
        raise DataOptionError(f"encoding={encoding!r} has no meaning for a Parquet file; leave it out")
    return TextTable(path, found, text_column, encoding, delimiter)  # type: ignore[arg-type]


def output_format(table: TextTable, output: Path) -> TableFormat:
    """The format of an output file, by its suffix.

    Raises:
        DataOptionError: it has none that is known, or cannot hold the columns of `table` as they are.
    """
    allowed = _WRITES[table.format]
    try:
        format = resolve_format(output, None)
    except DataOptionError:
        format = None
    if format not in allowed:
        raise DataOptionError(
            f"{output}: rows of {table.format} are written as {' or '.join(f'.{name}' for name in allowed)}, so that "
            "their columns stay what they are; name such a file"
        )
    return format  # type: ignore[return-value]


def fingerprint_file(path: Path) -> str:
    """SHA-256 (hex) of a file, read a piece at a time.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def encode_block(block: Block, added: Columns, format: TableFormat, where: str, delimiter: str | None = None) -> bytes:
    """A block with columns added, as a part that `join_parts` takes.

    Args:
        block: Rows as they were read.
        added: The columns by name, of strings, integers or floats.
        format: Of the part.
        where: What the block is of, for messages.
        delimiter: Of CSV; None is a comma.

    Raises:
        DataError: a column to be added is there already, or the format cannot hold a field.
    """
    rows = block.rows
    present = set(rows.column_names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
    if taken := [name for name in added if name in present]:
        raise DataError(f"{where} has a column {taken[0]!r} already; rename it, for the predictions get that name")
    try:
        if format == "parquet":
            return _parquet_part(rows, added, where)
        assert not isinstance(rows, pa.Table)
        news = zip(*added.values(), strict=True)
        if format == "jsonl":
            lines = block.lines or [json.dumps(row, ensure_ascii=False) for row in rows]
            return "".join(
                _extended(line, dict(zip(added, new, strict=True))) for line, new in zip(lines, news, strict=True)
            ).encode()
        if (longest := max(map(len, block.texts))) > csv.field_size_limit():  # readers of CSV would refuse it
            raise DataError(
                f"{where}: a sentence has {longest} characters, too many for {format}; name a .jsonl or .parquet"
            )
        return _delimited(
            [(*row.values(), *new) for row, new in zip(rows, news, strict=True)], format, where, delimiter
        )
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has half of a surrogate pair in a column; repair it at its source") from error


def encode_header(header: Sequence[str], format: TableFormat, where: str, delimiter: str | None = None) -> bytes:
    """The first line of CSV or TSV.

    Raises:
        DataError: the format cannot hold a name.
    """
    if format == "tsv" and header[0].startswith("\ufeff"):
        raise DataError(f"{where}: TSV cannot begin with a byte order mark in a name; name a .csv or .jsonl")
    return _delimited([header], format, where, delimiter)


def _extended(line: str, new: Mapping[str, Any]) -> str:
    """An object as it is written, with more keys behind its own: other columns keep their numbers and escapes."""
    return f"{line.rstrip().removesuffix('}')}, {json.dumps(new, ensure_ascii=False).removeprefix('{')}\n"


def _parquet_part(rows: list[dict[str, Any]] | pa.Table, added: Columns, where: str) -> bytes:
    if not isinstance(rows, pa.Table):
        rows = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})
    _check_pandas_columns(rows.schema, where)
    for name, values in added.items():
        rows = rows.append_column(name, pa.array(values))
    sink = io.BytesIO()
    parquet.write_table(rows, sink)
    return sink.getvalue()


def _check_pandas_columns(schema: pa.Schema, where: str) -> None:
    """Refuse a data frame whose column labels are not strings: pandas could not read the output.

    It would convert the names of the new columns to the type of the others.
    """
    labels = (schema.pandas_metadata or {}).get("column_indexes", [])
    if len(labels) > 1 or any(label["pandas_type"] not in _PANDAS_STRINGS for label in labels):
        raise DataError(
            f"{where}: its pandas columns are named by {labels[0]['pandas_type']} values or by several levels, not by "
            "strings; rename them, for example with df.columns = df.columns.map(str)"
        )


def join_parts(
    parts: Sequence[Path], header: Sequence[str], format: TableFormat, output: Path, delimiter: str | None = None
) -> None:
    """Make one file of parts, in their order and in constant memory; it is there whole or not at all.

    Args:
        parts: Made by `encode_block`, at least one.
        header: Names of the columns, for CSV and TSV.
        format: Of the parts and of the output.
        output: The file.
        delimiter: Of CSV; None is a comma.

    Raises:
        StorageError: it cannot be written.
    """
    with staged_file(output) as staged:
        if format == "parquet":
            _join_parquet(parts, staged)
            return
        with staged.open("xb") as file:
            if format in DIALECTS:
                file.write(encode_header(header, format, str(output), delimiter))
            for part in parts:
                file.write(part.read_bytes())


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    schema = parquet.read_schema(parts[0])
    with parquet.ParquetWriter(output, schema) as writer:
        for table in _rebatched(_batches(parts), _ROWS_PER_GROUP, schema):
            writer.write_table(table.combine_chunks())


def _batches(parts: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with parquet.ParquetFile(part) as file:
            yield from file.iter_batches(_ROWS_PER_GROUP)


def _rebatched(batches: Iterator[pa.RecordBatch], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows, `size` at a time: a reader's batches end where a row group does, and lack the metadata."""
    kept: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        kept.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(kept, schema)
            yield table.slice(0, size)
            kept = table.slice(size).to_batches()
            count -= size
    if count:
        yield pa.Table.from_batches(kept, schema)


def _delimited(rows: Sequence[Sequence[Any]], format: TableFormat, where: str, delimiter: str | None) -> bytes:
    if format == "tsv":
        text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        if "\r" in text or text.count("\n") > len(rows) or text.count("\t") > sum(map(len, rows)) - len(rows):
            raise DataError(f"{where}: TSV cannot hold a field with a tab or a line break; name a .csv or .jsonl")
        return text.encode()
    sink = io.StringIO(newline="")
    dialect: dict[str, Any] = {"lineterminator": "\n", "delimiter": delimiter or ","}
    csv.writer(sink, **dialect).writerows(rows)
    if "\r" in sink.getvalue() or sink.getvalue().startswith("\ufeff"):
        # The writer quotes a line feed, but no carriage return, which ends a line as well, and no byte order mark.
        sink = io.StringIO(newline="")
        plain, quoting = csv.writer(sink, **dialect), csv.writer(sink, quoting=csv.QUOTE_ALL, **dialect)
        for row in rows:
            unsafe = str(row[0]).startswith("\ufeff") or any("\r" in str(cell) for cell in row)
            (quoting if unsafe else plain).writerow(row)
    return sink.getvalue().encode()
