"""Sequences of any library as Python lists and NumPy arrays, taken by position.

An index of pandas names rows but does not order them: row i of the texts belongs to row i of the labels, weights and
groups, whatever their labels are. Every public function that takes such columns reads them through this module.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing, check_consistent_length
from sklearn.utils.validation import _check_sample_weight

from ketfit.errors import DataError, InputError, KetFitError

_PLAIN = (str, int, float, bool, type(None))


def as_list(
    values: Any, name: str, *, must: str = "must be a list", one: str = "", error: type[KetFitError] = InputError
) -> list[Any]:
    """Return the entries of a one-dimensional sequence in their order, as Python values.

    Taken are lists and other sequences, NumPy arrays, pandas Series (with any index) and Index, Arrow arrays, columns
    of `datasets`, polars Series and torch tensors.

    Args:
        values: The sequence.
        name: The argument's name in errors.
        must: What the argument has to be, for errors.
        one: What to do about a single string, for errors.
        error: The exception to raise.

    Raises:
        KetFitError: of the class `error`, if it is a scalar, a string, a mapping, a set, an iterator, a table or an
            array with another number of axes than one.
    """
    if hasattr(values, "__array__") and not hasattr(values, "__len__"):
        values = np.asarray(values)
    if fault := _not_a_column(values, one):
        raise error(f"{name} {must}, not {fault}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "mM":
        return list(values)  # tolist would turn nanoseconds into integers
    read = next((way for way in ("tolist", "to_pylist", "to_list") if callable(getattr(values, way, None))), None)
    entries = list(values) if read is None else getattr(values, read)()
    return [entry if type(entry) in _PLAIN else _plain(entry) for entry in entries]


def _not_a_column(values: Any, one: str) -> str:
    """Return what is wrong with a value that should be one column, and the fix; "" if nothing is."""
    kind, shape = type(values).__name__, getattr(values, "shape", None)
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        return f"{kind}{one}"
    if isinstance(values, Mapping):
        return f"{kind}; pass one of its entries, or list(values.values())"
    if isinstance(values, Set):
        return f"{kind}, which has no order; pass a list"
    columns = getattr(values, "columns", getattr(values, "column_names", None))
    if isinstance(shape, tuple) and len(shape) == 2 and columns is not None:
        named = columns[0] if len(columns) and isinstance(columns[0], (str, int)) else "text"
        return f"a table ({kind}); pass one column: frame[{named!r}]"
    if isinstance(shape, tuple) and len(shape) != 1:
        return f"an array of shape {tuple(shape)}" + ("; pass one column: array[:, 0]" if len(shape) > 1 else "")
    if not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
        return kind + ("; pass list(...) of it" if hasattr(values, "__iter__") else "")
    return ""


def _plain(entry: Any) -> Any:
    """Return a scalar of NumPy, torch or Arrow as Python's own; anything else stays."""
    if hasattr(entry, "as_py"):
        return entry.as_py()
    if getattr(entry, "ndim", None) == 0 and hasattr(entry, "item") and getattr(entry.dtype, "kind", "") not in "mM":
        return entry.item()
    return str.__str__(entry) if isinstance(entry, str) else entry  # str() of a member of an enum is its name


def is_missing(value: object) -> bool:
    """Return whether an entry says that there is none: None, NaN, NaT or pandas' NA."""
    if type(value) in (str, int, bool):
        return False
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # NA has no truth value, and neither has a comparison of arrays
        return type(value).__name__ == "NAType"


def as_texts(texts: Any, name: str = "texts") -> list[Any]:
    """Return the entries of a sequence of sentences; `check_texts` says whether they are sentences.

    Raises:
        InputError: it is not a sequence.
    """
    return as_list(texts, name, must="must be a list of sentences", one="; for one sentence: [sentence]")


def checked_texts(texts: Any, name: str = "texts") -> list[str]:
    """Return sentences as a list of strings that a body can embed.

    Raises:
        InputError: they are not a sequence of strings, or one is missing, blank or not valid Unicode.
    """
    sentences = as_texts(texts, name)
    check_texts(sentences, name, range(len(sentences)))
    return sentences


def check_texts(sentences: Sequence[Any], name: str, rows: Sequence[int], blank: bool = False) -> None:
    """Refuse entries that are not sentences.

    Args:
        sentences: The entries.
        name: The argument's name in errors.
        rows: The position of each entry in the argument, for errors.
        blank: Allow blank sentences.

    Raises:
        InputError: an entry is missing, not a string, blank or not valid Unicode.
    """
    for row, text in zip(rows, sentences, strict=True):
        if not isinstance(text, str):
            fix = "; it is missing: fill it, or remove the row" if is_missing(text) else ""
            raise InputError(f"{name}[{row}] is of type {type(text).__name__}, not str{fix}")
        if not blank and not text.strip():
            raise InputError(f"{name}[{row}] is blank; remove it")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name}[{row}] is not valid Unicode: {error}") from error


def _refuse_missing(entry: Any, where: str) -> None:
    if is_missing(entry):
        raise InputError(f"{where} is missing ({entry!r}); fill it, or remove the row")


def as_labels(labels: Any, name: str = "labels", rows: Sequence[int] | None = None) -> NDArray[Any]:
    """Return labels as an array of one axis: all strings, all booleans or all numbers.

    Args:
        labels: Labels.
        name: The argument's name in errors.
        rows: The position of each label in the argument, for errors; None is 0, 1, ...

    Raises:
        InputError: they are not a sequence, one is missing or of another type, or types are mixed.
    """
    usual = is_column(labels)
    if usual and (labels.dtype.kind in "biuU" or (labels.dtype.kind == "f" and not np.isnan(labels).any())):
        column: NDArray[Any] = labels
        return column
    entries = as_list(labels, name, must="must be a list of labels")
    for row, entry in zip(rows or range(len(entries)), entries, strict=True):
        _refuse_missing(entry, f"{name}[{row}]")
        if isinstance(entry, (list, tuple, np.ndarray)):
            raise InputError(f"{name} should be a 1d array, one label for each sample; {name}[{row}] is {entry!r}")
        if _kind(entry) is None:
            raise InputError(f"{name}[{row}] is of type {type(entry).__name__}; labels are strings or integers")
        if _kind(entry) != _kind(entries[0]):
            raise InputError(
                f"{name} mix types: {entries[0]!r} and {entry!r} (position {row}); use all strings or all integers"
            )
    texts = bool(entries) and isinstance(entries[0], str)
    as_objects = texts and any(entry.endswith("\0") for entry in entries)  # else NumPy cuts it off
    column = np.array(entries, dtype=object if as_objects or (usual and labels.dtype.kind == "O" and texts) else None)
    if column.dtype.kind not in "iu" and all(type(entry) is int for entry in entries) and entries:
        raise InputError(f"{name} hold integers of more than 64 bits; use strings")
    return column


def is_column(values: Any) -> bool:
    """Return whether a value is an array of NumPy's own with one axis, none of whose entries is masked."""
    return isinstance(values, np.ndarray) and not isinstance(values, np.ma.MaskedArray) and values.ndim == 1


def _kind(label: Any) -> str | None:
    if isinstance(label, str):
        return "string"
    if isinstance(label, bool):
        return "boolean"
    return "number" if isinstance(label, numbers.Real) else None


def check_saveable_labels(labels: NDArray[Any], name: str = "labels", rows: Sequence[int] | None = None) -> None:
    """Refuse labels that a saved model cannot hold: it has strings and integers.

    Args:
        labels: Labels, shape (n,).
        name: The argument's name in errors.
        rows: The position of each label in the argument, for errors; None is 0, 1, ...

    Raises:
        DataError: a label is something else, or a string that is not valid Unicode or ends in a null character.
    """
    if labels.dtype.kind in "iu":
        return
    for row, label in zip(rows or range(len(labels)), labels.tolist(), strict=True):
        if not isinstance(label, (str, int)) or isinstance(label, bool):
            raise DataError(
                f"only string and integer labels can be saved; these are {labels.dtype}, and {name}[{row}] is "
                f"{label!r}: convert them, for instance with str"
            )
        if isinstance(label, str) and (label.endswith("\0") or not _encodes(label)):
            raise DataError(
                f"{name}[{row}] is {label!r}, which holds half of a surrogate pair or ends in a null character and "
                "cannot be saved; rename it"
            )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_weights(weights: Any, name: str = "sample_weight") -> Any:
    """Return weights of samples as an array of floats; None stays None, and so does an array of NumPy.

    Whether they are finite, not negative and as many as the samples is for scikit-learn's own check to say.

    Raises:
        InputError: they are not a sequence of numbers, or one is missing.
    """
    array = isinstance(weights, np.ndarray) and not isinstance(weights, np.ma.MaskedArray)
    if weights is None or (array and weights.ndim and weights.dtype.kind in "biuf"):
        return weights
    entries = as_list(weights, name, must="must be a list of numbers")
    for row, entry in enumerate(entries):
        _refuse_missing(entry, f"{name}[{row}]")
        if not isinstance(entry, numbers.Real):
            raise InputError(f"{name}[{row}] is {entry!r}; weights are numbers")
    return np.array(entries, dtype=np.float64)


def counted(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Return samples, labels and weights without the rows of weight zero, as a head of scikit-learn takes them.

    Raises:
        InputError: labels or weights are not a sequence of usable values.
        DataError: every weight is zero.
        ValueError: scikit-learn refuses the weights.
    """
    y = as_labels(y, "y") if y is not None and getattr(y, "ndim", 1) == 1 else y
    if sample_weight is None:
        return X, y, None
    weight = _check_sample_weight(as_weights(sample_weight), X, ensure_non_negative=True)
    rows = np.flatnonzero(weight > 0)
    if not len(rows):
        raise DataError("sample_weight is zero for every sample; give some of each class a positive weight")
    check_consistent_length(X, y)
    return _safe_indexing(X, rows), y[rows], weight[rows]


def as_groups(groups: Any, name: str = "groups", length: int | None = None) -> NDArray[np.int64]:
    """Return a number for each entry, equal for equal entries and counted from 0 as they appear; shape (n,).

    Raises:
        InputError: they are not a sequence of hashable values, one is missing, or there are not `length` of them.
    """
    must = "must hold one hashable value per sample, shape (n,)"
    entries = as_list(groups, name, must=must)
    if length is not None and len(entries) != length:
        raise InputError(f"{name} has shape ({len(entries)},); it needs one value per sample, ({length},)")
    known: dict[Any, int] = {}
    codes = np.empty(len(entries), dtype=np.int64)
    for row, entry in enumerate(entries):
        _refuse_missing(entry, f"{name}[{row}]")
        try:
            codes[row] = known.setdefault(entry, len(known))
        except TypeError as error:
            raise InputError(f"{name} {must}: {error}") from error
    return codes


def validation_parts(validation: Any) -> tuple[Any, Any, Any]:
    """Return samples, labels and weights of a `validation` argument; weights are None if there are none.

    Raises:
        InputError: it is not a tuple of two or three.
    """
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise InputError(
            f"validation is {type(validation).__name__}"
            f"{f' of {len(validation)}' if isinstance(validation, (tuple, list)) else ''}; "
            "pass (samples, labels) or (samples, labels, sample_weight)"
        )
    samples, labels, *rest = validation
    return samples, labels, rest[0] if rest else None
