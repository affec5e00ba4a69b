"""Labelled sentences: where they come from, and how they are split without a sentence on two sides."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ketfit.data.readers import (
    FORMATS,
    Content,
    check_delimiter,
    check_encoding,
    read_bundled,
    read_file,
    read_hub,
    resolve_format,
)
from ketfit.data.sequences import as_list, is_missing
from ketfit.errors import DataError, DataOptionError

Positions = NDArray[np.int64]
Format = Literal["csv", "tsv", "jsonl", "parquet"]
Label = str | int

BUNDLED = "rotten-tomatoes"

_HEAVIEST = float(np.finfo(np.float32).max)

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DEFAULTS = {
    "text_column": "text",
    "label_column": "label",
    "split": None,
    "revision": None,
    "format": None,
    "encoding": "utf-8",
    "delimiter": None,
    "weight_column": None,
    "group_column": None,
}


@dataclass(frozen=True)
class Dataset:
    """Sentences with their labels: row i is `texts[i]`, `labels[i]`. Labels are all str or all int.

    Messages count rows from 1, as an editor does; a header is not a row. Positions (`take`, `Split`) start at 0.

    Attributes:
        name: What messages call it.
        texts: The sentences.
        labels: As many, all str or all int.
        weights: The weight of each row in training; None weighs all alike.
        groups: The group of each row, str or int; rows of one group stay on one side of every split. None is no groups.
        lines: The line of its file on which each row starts, for messages.

    Raises:
        DataError: no rows, lengths that differ, an empty text, a missing label, labels of other or of mixed types, a
            weight that is no finite number from 0, or a missing group.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | tuple[int, ...]
    weights: tuple[float, ...] | None = None
    groups: tuple[Label, ...] | None = None
    lines: tuple[int, ...] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or isinstance(self.labels, str):
            raise DataError(f"{self.name}: texts and labels are sequences with one entry per row, not one string")
        texts = tuple(as_list(self.texts, f"{self.name}: texts", must="must be a list of sentences", error=DataError))
        labels = tuple(as_list(self.labels, f"{self.name}: labels", must="must be a list of labels", error=DataError))
        if len(texts) != len(labels):
            raise DataError(f"{self.name}: {len(texts)} texts but {len(labels)} labels; give one label per text")
        if not texts:
            raise DataError(f"{self.name}: the data set is empty; it needs at least one row")
        for row, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
            fault = text_fault(text) or _label_fault(label)
            if fault:
                raise DataError(f"{self.name}: row {row}{fault}")
            if isinstance(label, str) != isinstance(labels[0], str):
                raise DataError(
                    f"{self.name}: row {row} has the label {label!r}, row 1 has {labels[0]!r}; use all str or all int"
                )
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "labels", labels)
        self._check_column("weights", _weight_fault)
        self._check_column("groups", _group_fault)

    def _check_column(self, name: str, fault_of: Callable[[Any], str]) -> None:
        """Refuse a column of another length than the texts, or with a value that cannot be used."""
        if getattr(self, name) is None:
            return
        values = tuple(as_list(getattr(self, name), f"{self.name}: {name}", error=DataError))
        if len(values) != len(self):
            raise DataError(f"{self.name}: {len(self)} texts but {len(values)} {name}; give one per text")
        for row, value in enumerate(values):
            if fault := fault_of(value):
                raise DataError(f"{self.name}: {self.place(row)}{fault}")
        object.__setattr__(self, name, tuple(map(float, values)) if name == "weights" else values)

    def place(self, position: int) -> str:
        """Return what messages call the row at a position: its number from 1 and, if it is known, its line."""
        return f"row {position + 1}" + ("" if self.lines is None else f" (line {self.lines[position]})")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def classes(self) -> tuple[str, ...] | tuple[int, ...]:
        """The different labels, sorted."""
        return cast("tuple[str, ...] | tuple[int, ...]", tuple(sorted(set(self.labels))))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the texts and labels in their order; the name does not count."""
        digest = hashlib.sha256()
        for row in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """The rows at `indices` (positions from 0), in that order.

        Raises:
            DataError: no indices, indices that are not whole numbers, or one outside 0 to len - 1.
        """
        positions = np.asarray(indices)
        if positions.size == 0:
            raise DataError(f"{self.name}: no rows to take; the part of the split is empty")
        if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
            raise DataError(
                f"{self.name}: take needs a 1-d array of whole numbers; for a mask use np.flatnonzero(mask)"
            )
        if positions.min() < 0 or positions.max() >= len(self):
            raise DataError(
                f"{self.name}: positions run from 0 to {len(self) - 1}, got {positions.min()} to {positions.max()}"
            )
        parts = {
            name: None if column is None else tuple(column[i] for i in positions)
            for name in ("texts", "labels", "weights", "groups", "lines")
            for column in [getattr(self, name)]
        }
        return Dataset(self.name, **parts)  # type: ignore[arg-type]

    def with_labels_of(self, classes: Sequence[Label]) -> Dataset:
        """Return the data set with its labels in the type of a model's classes.

        The string ``"1"`` and the integer 1 are the same label, for which of the two a file holds depends on its format
        and on its other labels. Other spellings, such as ``"01"`` and ``"1.0"``, are other labels.

        Raises:
            DataError: a label is none of `classes`; the message names the first such row.
        """
        known = {str(label): label for label in classes}
        for position, label in enumerate(self.labels):
            if str(label) not in known:
                raise DataError(
                    f"{self.name}: {self.place(position)} has the label {label!r}; the model knows "
                    f"{', '.join(map(repr, classes))}"
                )
        return replace(self, labels=tuple(known[str(label)] for label in self.labels))  # type: ignore[arg-type]


def text_fault(text: object) -> str:
    """What is wrong with a sentence, to be put behind where it stands; "" if nothing is."""
    if is_missing(text) or (isinstance(text, str) and not text.strip()):
        return ": the text is empty; remove the row or fill it"
    if not isinstance(text, str):
        return f": the text is {type(text).__name__}, not str; convert it or choose another text column"
    if (half := _half_pair(text)) is not None:
        return f": the text has half of a surrogate pair at character {half}; repair it at its source"
    return ""


def _label_fault(label: object) -> str:
    """Return the fault of a label, to be put behind its place in an error; "" if it has none."""
    if is_missing(label) or (isinstance(label, str) and not label.strip()):
        return " has no label; remove the row or fill it"
    if isinstance(label, bool) or not isinstance(label, (str, int)):
        return f" has the label {label!r} of type {type(label).__name__}; labels are str or int"
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        return f" has the label {label}, which 64 bits cannot hold; write it as a string"
    if isinstance(label, str) and (half := _half_pair(label)) is not None:
        return f" has the label {label!r} with half of a surrogate pair at character {half}; repair it at its source"
    return ""


def _group_fault(group: object) -> str:
    if is_missing(group) or (isinstance(group, str) and not group.strip()):
        return " has no group; remove the row or fill it"
    if isinstance(group, bool) or not isinstance(group, (str, int)):
        return f" has the group {group!r} of type {type(group).__name__}; groups are str or int"
    return ""


def _weight_fault(weight: object) -> str:
    if is_missing(weight):
        return " has no weight; remove the row or fill it"
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        return f" has the weight {weight!r} of type {type(weight).__name__}; weights are numbers"
    if not 0 <= weight <= _HEAVIEST:
        return f" has the weight {weight!r}; weights are finite and not negative"
    return ""


def _half_pair(text: str) -> int | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def load_dataset(
    source: str | os.PathLike[str],
    *,
    text_column: str = "text",
    label_column: str = "label",
    split: str | None = None,
    revision: str | None = None,
    format: Format | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    weight_column: str | None = None,
    group_column: str | None = None,
) -> Dataset:
    r"""Read labelled sentences from the bundled set, a file, or the Hugging Face Hub.

    ``"rotten-tomatoes"`` is the bundled set: 8,530 sentences of film reviews, ``negative`` or ``positive``
    (Pang and Lee 2005), from the extra `bundled`. A file of that name is read as ``"./rotten-tomatoes"``.

    Files are CSV, TSV, JSONL or Parquet, by suffix (``.ndjson`` is JSONL) or `format`; a pipe is read once. CSV is
    quoted as in RFC 4180. TSV has no quoting (IANA text/tab-separated-values, as in GLUE): a quote is a character like
    any other, and a field holds neither tab nor line break. In both, labels that are all integers become int. JSONL and
    Parquet keep their types. A byte order mark is skipped. Blank lines are errors.

    Anything else that looks like ``"user/name"`` is a Hub data set, read with the extra `datasets`; with
    ``HF_HUB_OFFLINE=1`` it comes from the local cache. Class labels keep their integers, and -1 there means none.

    Args:
        source: ``"rotten-tomatoes"``, a path, or a Hub data set ``"user/name"``. A `Path` is always a file.
        text_column, label_column: The columns with the sentences and with their labels.
        split: The split of a Hub data set, such as ``"train"``; needed there and nowhere else.
        revision: The commit, branch or tag of a Hub data set.
        format: The format of a file whose suffix does not tell.
        encoding: How the bytes of a CSV, TSV or JSONL file are decoded.
        delimiter: What separates the fields of a CSV file, such as ``";"``; None is a comma.
        weight_column: The column with the weight of each row in training, finite numbers from 0.
        group_column: The column with the group of each row; rows of one group stay on one side of a split.

    Raises:
        DataOptionError: an option is unknown, has no meaning for the source, or names a column that is not there.
        DataError: the source cannot be found, reached, decoded, parsed or used; the message says where and why.
        MissingExtraError: the package that the source needs is not installed.
    """
    named = {"text_column": text_column, "label_column": label_column}
    extra = {"weight_column": weight_column, "group_column": group_column}
    named |= {option: column for option, column in extra.items() if column is not None}
    for option, column in named.items():
        twin = next(other for other, name in named.items() if name == column)
        if twin != option:
            raise DataOptionError(f"{twin} and {option} are both {column!r}; they must be two columns")
    check_encoding(encoding)
    columns, path = tuple(named.values()), Path(source)
    local: dict[str, str | None] = {"format": format, "encoding": encoding, "delimiter": delimiter}
    if source == BUNDLED:
        _refuse("the bundled data set", **{**named, **extra}, split=split, revision=revision, **local)
        name, content = BUNDLED, read_bundled()
    elif format is None and not path.exists() and is_hub_name(source):
        _refuse("a Hub data set", encoding=encoding, delimiter=delimiter)
        name, content = str(source), read_hub(str(source), columns, split, revision)
    else:
        _refuse("a file", split=split, revision=revision)
        # Bytes of a file's name that are not UTF-8 could not be written into a model's card.
        name = path.name.encode(errors="backslashreplace").decode()
        content = _read_local(path, columns, format, encoding, delimiter)
    found = dict(zip(named, content.columns, strict=True))
    weights = found.get("weight_column")
    dataset = Dataset(
        name,
        tuple(found["text_column"]),
        tuple(found["label_column"]),
        None if weights is None else tuple(map(_number, weights)),
        tuple(found["group_column"]) if "group_column" in found else None,
        None if content.lines is None else tuple(content.lines),
    )
    if dataset.weights is not None and not any(dataset.weights):
        raise DataError(
            f"{name}: every weight in {weight_column!r} is zero; give some rows of each class a positive one"
        )
    return dataset


def _number(weight: Any) -> Any:
    """A weight as a number if it is written as one, or is a decimal; else as it is."""
    if isinstance(weight, Decimal) or (isinstance(weight, str) and _NUMBER.fullmatch(weight)):
        return float(weight)
    return None if isinstance(weight, str) and not weight.strip() else weight


def _refuse(kind: str, **options: str | None) -> None:
    for name, value in options.items():
        if value != _DEFAULTS[name]:
            raise DataOptionError(f"{name}={value!r} has no meaning for {kind}; leave it out")


def is_hub_name(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is named like a data set on the Hub, and not like a file."""
    return (
        isinstance(source, str)
        and _HUB_NAME.fullmatch(source) is not None
        and Path(source).suffix.lower().removeprefix(".") not in (*FORMATS, "ndjson", "json", "txt", "gz")
    )


def _read_local(
    path: Path, columns: Sequence[str], format: str | None, encoding: str, delimiter: str | None
) -> Content:
    if path.is_dir():
        raise DataError(f"{path} is a directory; name one file in it")
    if not path.exists():
        hint = "; standard input is /dev/stdin, with format= (--format)" if str(path) == "-" else ""
        raise DataError(f"there is no file {path}; a data set on the Hub is named 'user/name'{hint}")
    kind = resolve_format(path, format)
    check_delimiter(delimiter, kind)
    if kind == "parquet":
        _refuse("a Parquet file", encoding=encoding)
    return read_file(path, columns, kind, encoding, delimiter)
