"""Tables with a column of sentences, read and written in blocks of rows, in constant memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from ketfit.data.readers import (
    DIALECTS,
    FORMATS,
    SUFFIXES,
    TableFile,
    require_columns,
)
from ketfit.data.sequences import text_fault
from ketfit.errors import DataError, DataOptionError
from ketfit.storage.atomic import staged_file

TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "lines"]
"""``lines`` is a text file with one sentence per line."""

_BUFFER_BYTES = 2**20
_ROWS_PER_GROUP = 2**16  # of the Parquet files written here
_OUTPUT_FORMATS = {"jsonl": ("jsonl",), "parquet": ("parquet",)}  # other inputs: any

_PANDAS_STRINGS = ("unicode", "string", "empty", "mixed", "mixed-integer")  # pandas writes mixed ones as strings

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a table.

    Attributes:
        rows: All columns of each row; an Arrow table for Parquet.
        text_column: Column with the sentences.
        lines: The lines of JSONL; None for other formats.
    """

    rows: list[dict[str, Any]] | pa.Table
    text_column: str
    lines: list[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def texts(self) -> list[str]:
        """The sentence of each row."""
        if isinstance(self.rows, pa.Table):  # strings of Python are made where they are used: perhaps on another node
            return self.rows[self.text_column].to_pylist()  # type: ignore[no-any-return]
        return [row[self.text_column] for row in self.rows]

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields; an Arrow table as one buffer, which Ray stores faster than the buffers of its columns."""
        return {**self.__dict__, "rows": _to_stream(self.rows) if isinstance(self.rows, pa.Table) else self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the fields."""
        rows = state["rows"]
        self.__dict__.update(state, rows=rows if isinstance(rows, list) else pa.ipc.open_stream(rows).read_all())


@dataclass(frozen=True)
class TextTable(TableFile):
    """A table with a sentence in each row; `text_column` is its column, or for ``lines`` the name given to it."""

    text_column: str = "text"

    holds_sentences: ClassVar[bool] = True

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield all rows in order, `size` at a time; the last block may be shorter.

        Raises:
            DataError: the file cannot be read, the text column is missing, or a row cannot be used.
        """
        yield from self._parquet_blocks(size) if self.format == "parquet" else self._text_blocks(size)

    def _text_blocks(self, size: int) -> Iterator[Block]:
        with self.open_rows([self.text_column]) as rows:
            while batch := list(islice(rows, size)):
                for number, row, _ in batch:
                    if fault := text_fault(row[self.text_column]):
                        raise DataError(f"{self.name}, line {number}{fault}")
                raw_lines = [line for _, _, line in batch] if self.format == "jsonl" else None
                yield Block([row for _, row, _ in batch], self.text_column, raw_lines)

    def _parquet_blocks(self, size: int) -> Iterator[Block]:
        done = 0
        with self.open_parquet(buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            require_columns(self.name, [self.text_column], file.schema_arrow.names)
            # One row group at a time: some nested types cannot be read across groups.
            groups = range(file.num_row_groups)
            batches = (batch for group in groups for batch in file.iter_batches(size, row_groups=[group]))
            for table in _rebatched(batches, size, file.schema_arrow):
                for index, text in _suspect_texts(table[self.text_column]):
                    if fault := text_fault(text):
                        raise DataError(f"{self.name}, row {done + index + 1}{fault}")
                done += len(table)
                yield Block(table, self.text_column)


def _suspect_texts(column: pa.ChunkedArray) -> Iterator[tuple[int, Any]]:
    """Yield the index and value of each text that may have a fault; Arrow finds the others much faster."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        with suppress(pa.ArrowInvalid):  # not UTF-8: the error of Python, below, says where
            column.validate(full=True)
            blank = pc.or_(pc.utf8_is_space(column), pc.equal(column, ""))
            indices = pc.indices_nonzero(pc.fill_null(blank, True))
            yield from zip(indices.to_pylist(), column.take(indices).to_pylist(), strict=True)
            return
    yield from enumerate(column.to_pylist())


def output_format(table: TextTable, output: Path) -> TableFormat:
    """Return the format of an output file, by its suffix.

    Raises:
        DataOptionError: the suffix is unknown, or the format cannot hold the columns of `table` unchanged.
    """
    allowed = _OUTPUT_FORMATS.get(table.format, FORMATS)
    format = SUFFIXES.get(output.suffix.lower().removeprefix("."))
    if format not in allowed:
        raise DataOptionError(
            f"{output}: rows of {table.format} are written as {' or '.join(f'.{name}' for name in allowed)}, so that "
            "their columns stay unchanged; name such a file"
        )
    return format  # type: ignore[return-value]


@dataclass(frozen=True)
class TableWriter:
    """Encode rows as parts of a file, and join the parts.

    Attributes:
        format: Format of the file.
        where: Name of the table for errors.
        delimiter: Delimiter of CSV; None is a comma.
    """

    format: TableFormat
    where: str
    delimiter: str | None = None

    def encode_block(self, block: Block, added: Columns) -> bytes:
        """Return a block with added columns as a part for `join`.

        Args:
            block: The rows.
            added: The added columns by name: strings, integers or floats.

        Raises:
            DataError: the table has an added column already, or the format cannot hold a field.
        """
        rows = block.rows
        present = set(rows.column_names) if isinstance(rows, pa.Table) else {name for row in rows for name in row}
        if taken := [name for name in added if name in present]:
            raise DataError(
                f"{self.where} has a column {taken[0]!r} already; rename it, because a column of predictions gets that "
                "name"
            )
        try:
            if self.format == "parquet":
                return _arrow_part(rows, added, self.where)
            assert not isinstance(rows, pa.Table)
            new_values = zip(*added.values(), strict=True)
            if self.format == "jsonl":
                lines = block.lines or [json.dumps(row, ensure_ascii=False) for row in rows]
                return "".join(
                    _extend_object(line, dict(zip(added, new, strict=True)))
                    for line, new in zip(lines, new_values, strict=True)
                ).encode()
            if (longest := max(map(len, block.texts))) > csv.field_size_limit():  # readers of CSV would reject it
                raise DataError(
                    f"{self.where}: a sentence has {longest} characters, too many for {self.format}; name a .jsonl or "
                    ".parquet"
                )
            return self._delimited([(*row.values(), *new) for row, new in zip(rows, new_values, strict=True)])
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.where} has half of a surrogate pair in a column; repair it at its source"
            ) from error

    def encode_header(self, header: Sequence[str]) -> bytes:
        """Return the header line of CSV and TSV; other formats have none.

        Raises:
            DataError: the format cannot hold a column name.
        """
        if self.format not in DIALECTS:
            return b""
        if self.format == "tsv" and header[0].startswith("\ufeff"):
            raise DataError(f"{self.where}: TSV cannot begin with a byte order mark in a name; name a .csv or .jsonl")
        return self._delimited([header])

    def join(self, parts: Sequence[Path], header: Sequence[str], output: Path) -> None:
        """Join parts to one file, in order, in constant memory, and atomically.

        Args:
            parts: Files written with `encode_block`, at least one.
            header: Column names, for CSV and TSV.
            output: The file to write.

        Raises:
            StorageError: the file cannot be written.
        """
        with staged_file(output) as staged:
            if self.format == "parquet":
                _join_parquet(parts, staged)
                return
            with staged.open("xb") as file:
                file.write(self.encode_header(header))
                for part in parts:
                    file.write(part.read_bytes())

    def _delimited(self, rows: Sequence[Sequence[Any]]) -> bytes:
        if self.format == "tsv":
            text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
            if "\r" in text or text.count("\n") > len(rows) or text.count("\t") > sum(map(len, rows)) - len(rows):
                raise DataError(
                    f"{self.where}: TSV cannot hold a field with a tab or a line break; name a .csv or .jsonl"
                )
            return text.encode()
        sink = io.StringIO(newline="")
        dialect: dict[str, Any] = {"lineterminator": "\n", "delimiter": self.delimiter or ","}
        csv.writer(sink, **dialect).writerows(rows)
        if "\r" in sink.getvalue() or sink.getvalue().startswith("\ufeff"):
            # The writer quotes neither a carriage return, which ends a line too, nor a byte order mark.
            sink = io.StringIO(newline="")
            plain, quoting = csv.writer(sink, **dialect), csv.writer(sink, quoting=csv.QUOTE_ALL, **dialect)
            for row in rows:
                unsafe = str(row[0]).startswith("\ufeff") or any("\r" in str(cell) for cell in row)
                (quoting if unsafe else plain).writerow(row)
        return sink.getvalue().encode()


def _extend_object(line: str, new: Mapping[str, Any]) -> str:
    """Append keys to a JSON object in its text, so that the other columns keep their numbers and escapes."""
    return f"{line.rstrip().removesuffix('}')}, {json.dumps(new, ensure_ascii=False).removeprefix('{')}\n"


def _arrow_part(rows: list[dict[str, Any]] | pa.Table, added: Columns, where: str) -> bytes:
    if not isinstance(rows, pa.Table):
        rows = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})
    _check_pandas_columns(rows.schema, where)
    for name, values in added.items():
        rows = rows.append_column(name, pa.array(values))
    return _to_stream(rows).to_pybytes()  # type: ignore[no-any-return]  # read back much faster than Parquet


def _to_stream(table: pa.Table) -> pa.Buffer:
    """Return the stream format of Arrow, which, unlike its file format, may have a dictionary per batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _check_pandas_columns(schema: pa.Schema, where: str) -> None:
    """Check that the columns of a pandas data frame are named by strings.

    Otherwise pandas could not read the output: it would convert the names of the new columns to the type of the others.
    """
    labels = (schema.pandas_metadata or {}).get("column_indexes", [])
    if len(labels) > 1 or any(label["pandas_type"] not in _PANDAS_STRINGS for label in labels):
        raise DataError(
            f"{where}: its pandas columns are named by {labels[0]['pandas_type']} values or by several levels, not by "
            "strings; rename them, for example with df.columns = df.columns.map(str)"
        )


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    with pa.OSFile(str(parts[0])) as file:
        schema = pa.ipc.open_stream(file).schema
    with parquet.ParquetWriter(output, schema) as writer:
        for table in _rebatched(_batches(parts), _ROWS_PER_GROUP, schema):
            writer.write_table(table.combine_chunks())


def _batches(parts: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pa.OSFile(str(part)) as file:
            yield from pa.ipc.open_stream(file)


def _rebatched(batches: Iterator[pa.RecordBatch], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows `size` at a time, with the schema's metadata; batches of a reader end at row groups."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        pending.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(pending, schema)
            yield table.slice(0, size)
            pending = table.slice(size).to_batches()
            count -= size
    if count:
        yield pa.Table.from_batches(pending, schema)
