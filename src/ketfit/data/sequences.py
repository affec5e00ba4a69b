"""Conversion of sequences of any library to Python lists and NumPy arrays, and checks of texts and labels.

Columns are matched by position: row i of the texts belongs to row i of the labels, weights and groups, whatever their
pandas index is.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing, check_consistent_length
from sklearn.utils.validation import _check_sample_weight

from ketfit.errors import DataError, InputError, KetFitError

_PYTHON_TYPES = (str, int, float, bool, type(None))
ONE_SENTENCE = "; for one sentence: [sentence]"
_LABELS = "a list of labels"
_SURROGATE = re.compile("[\ud800-\udfff]")  # the characters that UTF-8 cannot encode


def as_list(
    values: Any, name: str, expected: str = "a list", *, string_hint: str = "", error: type[KetFitError] = InputError
) -> list[Any]:
    """Return the entries of a one-dimensional sequence in their order, as Python values.

    Lists and other sequences, NumPy arrays, pandas Series (with any index) and Index, Arrow arrays, columns of
    `datasets`, polars Series and torch tensors are accepted.

    Args:
        values: The sequence.
        name: Name of the argument for errors.
        expected: Description of the argument for errors.
        string_hint: Advice for the error if a single string is passed.
        error: The exception to raise.

    Raises:
        KetFitError: of the class `error`, if `values` is a scalar, a string, a mapping, a set, an iterator, a table or
            an array whose number of axes is not one.

    >>> import numpy as np
    >>> as_list(np.array([1, 2]), "labels")
    [1, 2]
    """
    if hasattr(values, "__array__") and not hasattr(values, "__len__"):
        values = np.asarray(values)
    if fault := _column_fault(values, string_hint):
        raise error(f"{name} must be {expected}, not {fault}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "mM":
        return list(values)  # tolist would turn nanoseconds into integers
    convert = next((name for name in ("tolist", "to_pylist", "to_list") if callable(getattr(values, name, None))), None)
    entries = list(values) if convert is None else getattr(values, convert)()
    return [entry if type(entry) in _PYTHON_TYPES else _to_python(entry) for entry in entries]


def _column_fault(values: Any, string_hint: str) -> str:
    """Return the fault of a value that should be one column, and the fix; "" if it has none."""
    kind, shape = type(values).__name__, getattr(values, "shape", None)
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        return f"{kind}{string_hint}"
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


def _to_python(entry: Any) -> Any:
    """Return a scalar of NumPy, torch or Arrow as a Python value, anything else unchanged."""
    if hasattr(entry, "as_py"):
        return entry.as_py()
    if getattr(entry, "ndim", None) == 0 and hasattr(entry, "item") and getattr(entry.dtype, "kind", "") not in "mM":
        return entry.item()
    return str.__str__(entry) if isinstance(entry, str) else entry  # str() of a member of an enum is its name


def is_missing(value: object) -> bool:
    """Return whether an entry is a missing value: None, NaN, NaT or NA of pandas."""
    if type(value) in (str, int, bool):
        return False
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # neither NA nor a comparison of arrays has a truth value
        return type(value).__name__ == "NAType"


def text_fault(text: object, *, allow_blank: bool = False) -> str:
    """Return the fault of a sentence, to be appended to its place in an error; "" if it has none."""
    if is_missing(text):
        return ": the text is missing; remove the row or fill it"
    if not allow_blank and isinstance(text, str) and not text.strip():
        return ": the text is empty; remove the row or fill it"
    if not isinstance(text, str):
        return f": the text is {type(text).__name__}, not str; convert it or choose another text column"
    if surrogate := _SURROGATE.search(text):
        return f": the text has half of a surrogate pair at character {surrogate.start()}; repair it at its source"
    return ""


def label_fault(label: object) -> str:
    """Return the fault of a label, to be appended to its place in an error; "" if it has none."""
    if fault := scalar_fault(label, "label"):
        return fault
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        return f" has the label {label}, which 64 bits cannot hold; write it as a string"
    if isinstance(label, str) and (surrogate := _SURROGATE.search(label)):
        index = surrogate.start()
        return f" has the label {label!r} with half of a surrogate pair at character {index}; repair it at its source"
    return ""


def scalar_fault(value: object, noun: str) -> str:
    """Return the fault of a value that should be a str or an int, not blank; "" if it has none."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return f" has no {noun}; remove the row or fill it"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return f" has the {noun} {value!r} of type {type(value).__name__}; {noun}s are str or int"
    return ""


def as_texts(texts: Any, *, allow_blank: bool = False) -> list[Any]:
    """Return the entries of a sequence of sentences.

    Args:
        texts: The sentences.
        allow_blank: Accept blank sentences.

    Raises:
        InputError: `texts` is not a sequence of strings, or an entry is missing, blank or not valid Unicode.

    >>> as_texts("one film")
    Traceback (most recent call last):
    ketfit.errors.InputError: texts must be a list of sentences, not str; for one sentence: [sentence]
    """
    sentences = as_list(texts, "texts", "a list of sentences", string_hint=ONE_SENTENCE)
    check_texts(sentences, "texts", range(len(sentences)), allow_blank=allow_blank)
    return sentences


def check_texts(sentences: Sequence[Any], name: str, rows: Sequence[int], *, allow_blank: bool = False) -> None:
    """Check that entries are sentences.

    Args:
        sentences: The entries.
        name: Name of the argument for errors.
        rows: The index of each entry in the argument, for errors.
        allow_blank: Accept blank sentences.

    Raises:
        InputError: an entry is missing, not a string, blank or not valid Unicode.
    """
    for row, text in zip(rows, sentences, strict=True):
        if fault := text_fault(text, allow_blank=allow_blank):
            raise InputError(f"{name}[{row}]{fault}")


def _check_present(entry: Any, where: str) -> None:
    """Raise InputError if an entry is missing."""
    if is_missing(entry):
        raise InputError(f"{where} is missing ({entry!r}); fill it, or remove the row")


def as_labels(labels: Any, name: str = "labels", rows: Sequence[int] | None = None) -> NDArray[Any]:
    """Return labels as an array of shape (n,): all strings, all booleans or all numbers.

    Args:
        labels: Labels.
        name: Name of the argument for errors.
        rows: The index of each label in the argument, for errors; None is 0, 1, ...

    Raises:
        InputError: `labels` is not a sequence, a label is missing or of another type, or types are mixed.

    >>> as_labels(["pos", "neg"]).tolist()
    ['pos', 'neg']
    """
    is_array = is_numpy_column(labels)
    if is_array and (labels.dtype.kind in "biuU" or (labels.dtype.kind == "f" and not np.isnan(labels).any())):
        column: NDArray[Any] = labels
        return column
    entries = as_list(labels, name, _LABELS)
    for row, entry in zip(rows or range(len(entries)), entries, strict=True):
        _check_present(entry, f"{name}[{row}]")
        if isinstance(entry, (list, tuple, np.ndarray)):
            raise InputError(f"{name} should be a 1d array, one label for each sample; {name}[{row}] is {entry!r}")
        if _kind(entry) is None:
            raise InputError(f"{name}[{row}] is of type {type(entry).__name__}; labels are strings or integers")
        if _kind(entry) != _kind(entries[0]):
            raise InputError(
                f"{name} mix types: {entries[0]!r} and {entry!r} (index {row}); use all strings or all integers"
            )
    texts = bool(entries) and isinstance(entries[0], str)
    as_objects = texts and any(entry.endswith("\0") for entry in entries)  # NumPy cuts trailing null characters off
    column = np.array(
        entries, dtype=object if as_objects or (is_array and labels.dtype.kind == "O" and texts) else None
    )
    if column.dtype.kind not in "iu" and all(type(entry) is int for entry in entries) and entries:
        raise InputError(f"{name} hold integers of more than 64 bits; use strings")
    return column


def is_numpy_column(values: Any) -> bool:
    """Return whether a value is a NumPy array with one axis and without a mask."""
    return isinstance(values, np.ndarray) and not isinstance(values, np.ma.MaskedArray) and values.ndim == 1


def _kind(label: Any) -> str | None:
    if isinstance(label, str):
        return "string"
    if isinstance(label, bool):
        return "boolean"
    return "number" if isinstance(label, numbers.Real) else None


def check_saveable_labels(labels: NDArray[Any], name: str = "labels", rows: Sequence[int] | None = None) -> None:
    """Check that a saved model can hold the labels.

    Args:
        labels: Labels, shape (n,).
        name: Name of the argument for errors.
        rows: The index of each label in the argument, for errors; None is 0, 1, ...

    Raises:
        DataError: a label is neither a string nor an integer, is blank or not valid Unicode, or ends in a null
            character.
    """
    if labels.dtype.kind in "iu":
        return
    for row, label in zip(rows or range(len(labels)), labels.tolist(), strict=True):
        fault = label_fault(label)
        if isinstance(label, str) and label.endswith("\0"):
            fault = f" has the label {label!r}, which ends in a null character; rename it"
        if fault:
            raise DataError(f"these labels cannot be saved: {name}[{row}]{fault}")


def as_weights(weights: Any, name: str = "sample_weight") -> Any:
    """Return sample weights as an array of floats; None and numeric NumPy arrays are returned unchanged.

    scikit-learn checks later that they are finite, not negative and as many as the samples.

    Raises:
        InputError: `weights` is not a sequence of numbers, or a weight is missing.
    """
    is_array = isinstance(weights, np.ndarray) and not isinstance(weights, np.ma.MaskedArray)
    if weights is None or (is_array and weights.ndim and weights.dtype.kind in "biuf"):
        return weights
    entries = as_list(weights, name, "a list of numbers")
    for row, entry in enumerate(entries):
        _check_present(entry, f"{name}[{row}]")
        if not isinstance(entry, numbers.Real):
            raise InputError(f"{name}[{row}] is {entry!r}; weights are numbers")
    return np.array(entries, dtype=np.float64)


def positive_weights(weights: Any, samples: Any, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows whose weight is positive, and their weights.

    Raises:
        InputError: `weights` is not a sequence of numbers, or a weight is missing.
        DataError: every weight is zero.
        ValueError: scikit-learn rejects the weights.
    """
    array = _check_sample_weight(as_weights(weights, name), samples, ensure_non_negative=True)
    rows = np.flatnonzero(array > 0)
    if not len(rows):
        raise DataError(f"{name} is zero for every sample; give some of each class a positive weight")
    return rows, array[rows]


def drop_zero_weights(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Return samples, labels and weights without the rows of weight zero, for an estimator of scikit-learn.

    Raises:
        InputError: labels or weights are not sequences, or an entry cannot be used.
        DataError: every weight is zero.
        ValueError: scikit-learn rejects the weights.
    """
    is_column = y is not None and getattr(y, "ndim", 1) == 1
    if sample_weight is None:
        return X, as_labels(y, "y") if is_column else y, None
    rows, weight = positive_weights(sample_weight, X, "sample_weight")
    check_consistent_length(X, y)
    if not is_column:  # scikit-learn rejects it, or warns of a table with one column
        return _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows), weight
    labels = y[rows] if is_numpy_column(y) else [*map(as_list(y, "y", _LABELS).__getitem__, rows)]
    return _safe_indexing(X, rows), as_labels(labels, "y", rows.tolist()), weight


def as_groups(groups: Any, name: str = "groups", length: int | None = None) -> NDArray[np.int64]:
    """Return one number per entry, shape (n,): equal for equal entries, from 0 in order of appearance.

    Raises:
        InputError: `groups` is not a sequence of hashable values, a group is missing, or there are not `length` groups.

    >>> as_groups(["film 2", "film 1", "film 2"]).tolist()
    [0, 1, 0]
    """
    expected = "a list of one hashable value per sample, shape (n,)"
    entries = as_list(groups, name, expected)
    if length is not None and len(entries) != length:
        raise InputError(f"{name} has shape ({len(entries)},); it needs one value per sample, ({length},)")
    known: dict[Any, int] = {}
    codes = np.empty(len(entries), dtype=np.int64)
    for row, entry in enumerate(entries):
        _check_present(entry, f"{name}[{row}]")
        try:
            codes[row] = known.setdefault(entry, len(known))
        except TypeError as error:
            raise InputError(f"{name} must be {expected}: {error}") from error
    return codes


def unpack_validation(validation: Any) -> tuple[Any, Any, Any]:
    """Return the samples, the labels and the weights, or None, of a `validation` argument.

    Raises:
        InputError: `validation` is not a tuple of two or three.
    """
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise InputError(
            f"validation is {type(validation).__name__}"
            f"{f' of {len(validation)}' if isinstance(validation, (tuple, list)) else ''}; "
            "pass (samples, labels) or (samples, labels, sample_weight)"
        )
    samples, labels, *rest = validation
    return samples, labels, rest[0] if rest else None
