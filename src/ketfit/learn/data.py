"""Labelled sentences: where they come from, and how they are split without a sentence on two sides."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ketfit.errors import ConfigError, DataError, InputError
from ketfit.integers import as_integer
from ketfit.learn.data_sources import FORMATS, Content, read_bundled, read_file, read_hub
from ketfit.learn.sequences import as_groups, as_list, as_texts, check_texts, is_missing
from ketfit.seeds import numpy_stream

Positions = NDArray[np.int64]
Format = Literal["csv", "tsv", "jsonl", "parquet"]

BUNDLED = "rotten-tomatoes"

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_DEFAULTS = {
    "text_column": "text",
    "label_column": "label",
    "split": None,
    "revision": None,
    "format": None,
    "encoding": "utf-8",
}


@dataclass(frozen=True)
class Dataset:
    """Sentences with their labels: row i is `texts[i]`, `labels[i]`. Labels are all str or all int.

    Messages count rows from 1, as an editor does; a header is not a row. Positions (`take`, `Split`) start at 0.

    Raises:
        DataError: no rows, lengths that differ, an empty text, a missing label, labels of other or of mixed types.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] | tuple[int, ...]

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
        labels = tuple(self.labels[i] for i in positions)
        return Dataset(self.name, tuple(self.texts[i] for i in positions), cast("tuple[str, ...]", labels))


def text_fault(text: object) -> str:
    """What is wrong with a sentence, to be put behind where it stands; "" if nothing is."""
    if is_missing(text) or (isinstance(text, str) and not text.strip()):
        return ": the text is empty; remove the row or fill it"
    if not isinstance(text, str):
        return f": the text is {type(text).__name__}, not str; convert it or choose another text column"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f": the text has half of a surrogate pair at character {error.start}; repair it at its source"
    return ""


def _label_fault(label: object) -> str:
    if is_missing(label) or (isinstance(label, str) and not label.strip()):
        return " has no label; remove the row or fill it"
    if isinstance(label, bool) or not isinstance(label, (str, int)):
        return f" has the label {label!r} of type {type(label).__name__}; labels are str or int"
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
) -> Dataset:
    r"""Read labelled sentences from the bundled set, a file, or the Hugging Face Hub.

    ``"rotten-tomatoes"`` is the bundled set: 8,530 sentences of film reviews, ``negative`` or ``positive``
    (Pang and Lee 2005), from the extra `bundled`. A file of that name is read as ``"./rotten-tomatoes"``.

    Files are CSV, TSV, JSONL or Parquet, by suffix or `format`. CSV is quoted as in RFC 4180. TSV has no quoting
    (IANA text/tab-separated-values, as in GLUE): a quote is a character like any other, and a field holds
    neither tab nor line break. In both, labels that are all integers become int. JSONL and Parquet keep their
    types. A UTF-8 byte order mark is skipped. Blank lines are errors.

    Anything else that looks like ``"user/name"`` is a Hub data set, read with the extra `datasets`; with
    ``HF_HUB_OFFLINE=1`` it comes from the local cache. Class labels keep their integers, and -1 there means none.

    Args:
        source: ``"rotten-tomatoes"``, a path, or a Hub data set ``"user/name"``. A `Path` is always a file.
        text_column, label_column: The columns with the sentences and with their labels.
        split: The split of a Hub data set, such as ``"train"``; needed there and nowhere else.
        revision: The commit, branch or tag of a Hub data set.
        format: The format of a file whose suffix does not tell.
        encoding: How the bytes of a CSV, TSV or JSONL file are decoded.

    Raises:
        DataError: the source cannot be found, reached, decoded, parsed or used; the message says where and why.
        MissingExtraError: the package that the source needs is not installed.
    """
    if text_column == label_column:
        raise DataError(f"text_column and label_column are both {text_column!r}; they must be two columns")
    columns, path = (text_column, label_column), Path(source)
    if source == BUNDLED:
        names = {"text_column": text_column, "label_column": label_column}
        _refuse("the bundled data set", **names, split=split, revision=revision, format=format, encoding=encoding)
        name, content = BUNDLED, read_bundled()
    elif format is None and not path.exists() and _looks_like_hub_name(source):
        _refuse("a Hub data set", encoding=encoding)
        name, content = str(source), read_hub(str(source), columns, split, revision)
    else:
        _refuse("a file", split=split, revision=revision)
        name, content = path.name, _read_local(path, columns, format, encoding)
    return Dataset(name, tuple(content[0]), tuple(content[1]))


def _refuse(kind: str, **options: str | None) -> None:
    for name, value in options.items():
        if value != _DEFAULTS[name]:
            raise DataError(f"{name}={value!r} has no meaning for {kind}; leave it out")


def _looks_like_hub_name(source: str | os.PathLike[str]) -> bool:
    return (
        isinstance(source, str)
        and _HUB_NAME.fullmatch(source) is not None
        and Path(source).suffix.lower().removeprefix(".") not in FORMATS
    )


def _read_local(path: Path, columns: tuple[str, str], format: str | None, encoding: str) -> Content:
    if path.is_dir():
        raise DataError(f"{path} is a directory; name one file in it")
    if not path.exists():
        raise DataError(f"there is no file {path}; a data set on the Hub is named 'user/name'")
    kind = format or path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise DataError(f"{path}: unknown format {kind!r}; known are {', '.join(FORMATS)}; name one with format=")
    if kind == "parquet":
        _refuse("a Parquet file", encoding=encoding)
    return read_file(path, columns, kind, encoding)


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted positions (from 0) of a data set's rows; the four parts are disjoint and cover it.

    `left_out` are the copies of drawn sentences: they may stand neither in training nor in the test set.
    """

    train: Positions
    validation: Positions
    test: Positions
    left_out: Positions


def duplicate_groups(texts: Sequence[str]) -> Positions:
    """Return a number per text, equal for texts that are the same but for white space and letter case; shape (n,).

    Raises:
        InputError: `texts` is not a sequence of strings.
    """
    sentences = as_texts(texts)
    check_texts(sentences, "texts", range(len(sentences)), blank=True)
    return as_groups([" ".join(text.split()).casefold() for text in sentences])


def few_shot_split(dataset: Dataset, per_label: int = 256, validation_fraction: float = 0.15, seed: int = 0) -> Split:
    """The paper's protocol: `per_label` sentences of each label, cut into training and validation; the rest is test.

    Two labels with 256 sentences each give 435 to train and 77 to validate. The cut is stratified. Of the copies of
    one sentence (see `duplicate_groups`) at most one is drawn, and the others, whatever their label, are left out.

    Args:
        dataset: What is split; at least two classes.
        per_label: How many sentences of each label are drawn, at least 2.
        validation_fraction: The share of the drawn sentences that validates, at least 0 and below 1.
        seed: Fixes the draw and the cut.

    Raises:
        ConfigError: `per_label` or `validation_fraction` is out of range.
        DataError: only one class, or too few different sentences of a label.
    """
    if as_integer(per_label, "per_label") < 2:
        raise ConfigError(f"per_label must be at least 2, one to train and one to validate; got {per_label}")
    _check_fraction("validation_fraction", validation_fraction)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name}: every label is {dataset.classes[0]!r}; a classifier needs two or more classes"
        )
    rng = numpy_stream(seed, "split")
    groups = duplicate_groups(dataset.texts)
    numbers = {label: code for code, label in enumerate(dataset.classes)}
    codes = np.array([numbers[label] for label in dataset.labels], dtype=np.int64)
    pool = _draw(dataset, codes, groups, per_label, rng)
    train, validation = _cut(codes[pool], validation_fraction, groups[pool], rng)
    copies = np.isin(groups, groups[pool])
    return Split(
        train=pool[train],
        validation=pool[validation],
        test=np.flatnonzero(~copies),
        left_out=np.setdiff1d(np.flatnonzero(copies), pool),
    )


def _draw(dataset: Dataset, codes: Positions, groups: Positions, per_label: int, rng: np.random.Generator) -> Positions:
    """Sorted positions of `per_label` rows of every class, at most one of each group."""
    drawn = np.array([], dtype=np.int64)
    for code, label in enumerate(dataset.classes):
        rows = rng.permutation(np.flatnonzero(codes == code))
        rows = rows[~np.isin(groups[rows], groups[drawn])]
        rows = rows[np.sort(np.unique(groups[rows], return_index=True)[1])]  # the first copy of every sentence
        if len(rows) < per_label:
            raise DataError(
                f"{dataset.name}: the label {label!r} has only {len(rows)} different sentences to draw from; "
                f"lower per_label={per_label} or add sentences"
            )
        drawn = np.append(drawn, rows[:per_label])
    return np.sort(drawn)


def holdout_split(
    y: NDArray[np.integer[Any]], fraction: float, seed: int, groups: Sequence[Hashable] | NDArray[Any] | None = None
) -> tuple[Positions, Positions]:
    """Keep a stratified share of what a classifier is fitted on for validation.

    The share is ``round(fraction * n)``, spread over the classes in proportion; every class keeps at least one
    sample in training. With `groups`, whole groups are drawn, and the share may come out smaller where they are large.

    Args:
        y: Integer-coded classes, shape (n,).
        fraction: The share that validates, at least 0 and below 1.
        seed: Fixes the draw.
        groups: One hashable value per sample; samples of equal value never fall on both sides.

    Returns:
        The sorted positions to train on and to validate on; the latter may be empty.

    Raises:
        ConfigError: `fraction` is out of range.
        InputError: `y` or `groups` has the wrong shape or type.
    """
    _check_fraction("fraction", fraction)
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"y must hold integer class codes in shape (n,), n > 0; got {y.dtype} in shape {y.shape}")
    numbers = np.arange(len(y)) if groups is None else as_groups(groups)
    if len(numbers) != len(y):
        raise InputError(f"groups must hold one value per sample: {len(y)} samples, {len(numbers)} groups")
    codes = np.unique(y, return_inverse=True)[1]
    return _cut(codes, fraction, numbers, numpy_stream(seed, "validation"))


def _check_fraction(name: str, fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ConfigError(f"{name} must be at least 0 and below 1, got {fraction}")


def _cut(codes: Positions, fraction: float, groups: Positions, rng: np.random.Generator) -> tuple[Positions, Positions]:
    """Positions to train and to validate: whole groups in random order, while every class has room for them."""
    room = _apportion(round(fraction * len(codes)), np.bincount(codes))
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    held = np.zeros(len(codes), dtype=bool)
    for pick in rng.permutation(len(members)):
        counts = np.bincount(codes[members[pick]], minlength=len(room))
        if (counts <= room).all():
            room -= counts
            held[members[pick]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _apportion(total: int, sizes: Positions) -> Positions:
    """Spread `total` over classes by largest remainder, ties to the first, leaving one sample of each class."""
    whole, limits = sizes.sum(), sizes - 1
    total = min(total, limits.sum())
    counts: Positions = np.minimum(total * sizes // whole, limits)
    while counts.sum() < total:
        owed = np.where(counts < limits, total * sizes - counts * whole, np.iinfo(np.int64).min)
        counts[np.argmax(owed)] += 1
    return counts
