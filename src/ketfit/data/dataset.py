"""Labelled sentences, and their readers: the bundled set, files and the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ketfit.data.readers import (
    FORMATS,
    TableFile,
    check_encoding,
    read_bundled,
    read_hub,
)
from ketfit.data.sequences import as_list, is_missing, label_fault, scalar_fault, text_fault
from ketfit.errors import DataError, DataOptionError

Positions = NDArray[np.int64]
Format = Literal["csv", "tsv", "jsonl", "parquet"]
Label = str | int

BUNDLED = "rotten-tomatoes"

_MAX_WEIGHT = float(np.finfo(np.float32).max)

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Dataset:
    """Labelled sentences; row i is `texts[i]`, `labels[i]`.

    Errors count rows from 1, without a header; indices (`take`, `Split`) start at 0.

    Attributes:
        name: Name of the data set for errors.
        texts: The sentences, length n.
        labels: The labels, length n, all str or all int.
        weights: The training weight of each row, length n; None gives all rows the same weight.
        groups: The group of each row, str or int, length n; a split never separates rows of one group.
        lines: The line of the file on which each row starts, for errors.

    Raises:
        DataError: there are no rows, lengths differ, a text is empty, a label is missing or of another type, label
            types are mixed, a weight is not a finite number of at least 0, or a group is missing.

    >>> reviews = Dataset("reviews", ("good film", "dull film"), ("pos", "neg"))
    >>> len(reviews), reviews.classes
    (2, ('neg', 'pos'))
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
        texts = tuple(as_list(self.texts, f"{self.name}: texts", "a list of sentences", error=DataError))
        labels = tuple(as_list(self.labels, f"{self.name}: labels", "a list of labels", error=DataError))
        if len(texts) != len(labels):
            raise DataError(f"{self.name}: {len(texts)} texts but {len(labels)} labels; give one label per text")
        if not texts:
            raise DataError(f"{self.name}: the data set is empty; it needs at least one row")
        for row, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
            fault = text_fault(text) or label_fault(label)
            if fault:
                raise DataError(f"{self.name}: row {row}{fault}")
            if isinstance(label, str) != isinstance(labels[0], str):
                raise DataError(
                    f"{self.name}: row {row} has the label {label!r}, row 1 has {labels[0]!r}; use all str or all int"
                )
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "labels", labels)
        self._check_column("weights", _weight_fault)
        self._check_column("groups", partial(scalar_fault, noun="group"))

    def _check_column(self, name: str, find_fault: Callable[[Any], str]) -> None:
        """Check the length and the values of a column."""
        if getattr(self, name) is None:
            return
        values = tuple(as_list(getattr(self, name), f"{self.name}: {name}", error=DataError))
        if len(values) != len(self):
            raise DataError(f"{self.name}: {len(self)} texts but {len(values)} {name}; give one per text")
        for row, value in enumerate(values):
            if fault := find_fault(value):
                raise DataError(f"{self.name}: {self.describe_row(row)}{fault}")
        object.__setattr__(self, name, tuple(map(float, values)) if name == "weights" else values)

    def describe_row(self, index: int) -> str:
        """Return the number of a row, from 1, and its line if that is known, for errors."""
        return f"row {index + 1}" + ("" if self.lines is None else f" (line {self.lines[index]})")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def classes(self) -> tuple[str, ...] | tuple[int, ...]:
        """The distinct labels, sorted."""
        return cast("tuple[str, ...] | tuple[int, ...]", tuple(sorted(set(self.labels))))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the texts and labels in their order, without the name."""
        digest = hashlib.sha256()
        for row in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """Return the rows at `indices`, from 0, in that order.

        Raises:
            DataError: `indices` is empty, not a 1-d array of integers, or has a value outside 0 to len - 1.
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
        columns = {
            name: None if column is None else tuple(column[i] for i in positions)
            for name in ("texts", "labels", "weights", "groups", "lines")
            for column in [getattr(self, name)]
        }
        return Dataset(self.name, **columns)  # type: ignore[arg-type]

    def with_labels_of(self, classes: Sequence[Label]) -> Dataset:
        """Return the data set with its labels in the type of the classes of a model.

        The string ``"1"`` and the integer 1 are the same label: the type in a file depends on its format and on its
        other labels. Other spellings, such as ``"01"`` and ``"1.0"``, are other labels.

        Raises:
            DataError: a label is not in `classes`; the message names the first such row.
        """
        known = {str(label): label for label in classes}
        for index, label in enumerate(self.labels):
            if str(label) not in known:
                raise DataError(
                    f"{self.name}: {self.describe_row(index)} has the label {label!r}; the model knows "
                    f"{', '.join(map(repr, classes))}"
                )
        return replace(self, labels=tuple(known[str(label)] for label in self.labels))  # type: ignore[arg-type]


def _weight_fault(weight: object) -> str:
    if is_missing(weight):
        return " has no weight; remove the row or fill it"
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        return f" has the weight {weight!r} of type {type(weight).__name__}; weights are numbers"
    if not 0 <= weight <= _MAX_WEIGHT:
        return f" has the weight {weight!r}; weights are finite and not negative"
    return ""


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
    """Read labelled sentences from the bundled set, a file, or the Hugging Face Hub.

    ``"rotten-tomatoes"`` is the bundled set: 8,530 sentences of film reviews, ``negative`` or ``positive``
    (Pang and Lee 2005), from the extra `bundled`. To read a file of that name, pass ``"./rotten-tomatoes"``.

    Files are CSV, TSV, JSONL or Parquet, by suffix (``.ndjson`` is JSONL) or `format`; a pipe is read once. CSV is
    quoted as in RFC 4180. TSV has no quoting (IANA text/tab-separated-values, as in GLUE): a quote is an ordinary
    character, and a field holds neither tab nor line break. In both, labels that are all integers become int. JSONL and
    Parquet keep their types. A byte order mark is skipped. Blank lines are errors.

    Other names of the form ``"user/name"`` are Hub data sets, read with the extra `datasets`; with
    ``HF_HUB_OFFLINE=1`` they come from the local cache. Class labels stay integers; -1 is a missing label there.

    Args:
        source: ``"rotten-tomatoes"``, a path, or a Hub data set ``"user/name"``. A `Path` is always a file.
        text_column: The column with the sentences.
        label_column: The column with the labels.
        split: The split of a Hub data set, such as ``"train"``; required there, not allowed elsewhere.
        revision: The commit, branch or tag of a Hub data set.
        format: The format of a file; None takes it from the suffix.
        encoding: The encoding of a CSV, TSV or JSONL file.
        delimiter: The delimiter of a CSV file, such as ``";"``; None is a comma.
        weight_column: The column with the training weight of each row, finite numbers of at least 0.
        group_column: The column with the group of each row; a split never separates rows of one group.

    Raises:
        DataOptionError: an option is unknown, has no meaning for the source, or names a missing column.
        DataError: the source cannot be found, reached, decoded, parsed or used; the message has the place and cause.
        MissingExtraError: the package that the source needs is not installed.

    >>> dataset = load_dataset("rotten-tomatoes")
    >>> len(dataset), dataset.classes
    (8530, ('negative', 'positive'))
    """
    named = {"text_column": text_column, "label_column": label_column}
    optional = {"weight_column": weight_column, "group_column": group_column}
    named |= {option: column for option, column in optional.items() if column is not None}
    for option, column in named.items():
        twin = next(other for other, name in named.items() if name == column)
        if twin != option:
            raise DataOptionError(f"{twin} and {option} are both {column!r}; they must be two columns")
    check_encoding(encoding)
    columns, path = tuple(named.values()), Path(source)
    file_options: dict[str, str | None] = {"format": format, "encoding": encoding, "delimiter": delimiter}
    if source == BUNDLED:
        _reject_options("the bundled data set", **{**named, **optional}, split=split, revision=revision, **file_options)
        name, content = BUNDLED, read_bundled()
    elif format is None and not path.exists() and is_hub_name(source):
        _reject_options("a Hub data set", encoding=encoding, delimiter=delimiter)
        name, content = str(source), read_hub(str(source), columns, split, revision)
    else:
        _reject_options("a file", split=split, revision=revision)
        # A model card is UTF-8, so that undecodable bytes of a file name are escaped.
        name = path.name.encode(errors="backslashreplace").decode()
        hint = "; standard input is /dev/stdin, with format= (--format)" if str(path) == "-" else ""
        if not path.exists():
            raise DataError(f"there is no file {path}; a data set on the Hub is named 'user/name'{hint}")
        content = TableFile.find(path, format, encoding, delimiter).read_columns(columns)
    selected = dict(zip(named, content.columns, strict=True))
    weights = selected.get("weight_column")
    dataset = Dataset(
        name,
        tuple(selected["text_column"]),
        tuple(selected["label_column"]),
        None if weights is None else tuple(map(_parse_weight, weights)),
        tuple(selected["group_column"]) if "group_column" in selected else None,
        None if content.lines is None else tuple(content.lines),
    )
    if dataset.weights is not None and not any(dataset.weights):
        raise DataError(
            f"{name}: every weight in {weight_column!r} is zero; give some rows of each class a positive one"
        )
    return dataset


def _parse_weight(weight: Any) -> Any:
    """Return a decimal or a number in a string as float, a blank string as None, anything else unchanged."""
    if isinstance(weight, Decimal) or (isinstance(weight, str) and _NUMBER.fullmatch(weight)):
        return float(weight)
    return None if isinstance(weight, str) and not weight.strip() else weight


def _reject_options(kind: str, **options: str | None) -> None:
    """Raise DataOptionError if an option differs from its default."""
    for name, value in options.items():
        if value != (load_dataset.__kwdefaults__ or {})[name]:
            raise DataOptionError(f"{name}={value!r} has no meaning for {kind}; leave it out")


def is_hub_name(source: str | os.PathLike[str]) -> bool:
    """Return whether a source has the form of a Hub data set name, ``user/name``, and no suffix of a file.

    >>> is_hub_name("user/reviews"), is_hub_name("data/reviews.csv")
    (True, False)
    """
    return (
        isinstance(source, str)
        and _HUB_NAME.fullmatch(source) is not None
        and Path(source).suffix.lower().removeprefix(".") not in (*FORMATS, "ndjson", "json", "txt", "gz")
    )
