"""Convert integers of any kind (Python, NumPy, torch) to Python's, so that equal numbers hash and compare alike."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from ketfit.errors import ConfigError, KetFitError


def as_integer(
    value: Any, name: str, *, minimum: int | None = None, error: type[KetFitError] = ConfigError, hint: str = ""
) -> int:
    """Return an integer of any kind as a Python integer.

    Every type with ``__index__`` counts as an integer, zero-dimensional integer arrays and tensors included. Booleans,
    floats (also whole ones), strings and arrays with an axis do not.

    Args:
        value: What should be an integer.
        name: What it is called in the error.
        minimum: The smallest allowed value; None allows every integer.
        error: The exception to raise.
        hint: What else would be accepted, put at the end of the error, such as "None is the exact value".

    Raises:
        KetFitError: of the class `error`, if it is not an integer or less than `minimum`.

    >>> import numpy as np
    >>> as_integer(np.int64(3), "shots", minimum=1)
    3
    >>> as_integer(2.0, "shots", minimum=1)
    Traceback (most recent call last):
    ketfit.errors.ConfigError: shots=2.0: it must be a whole number of at least 1
    """
    number = value if type(value) is int else _index(value)
    if number is None or (minimum is not None and number < minimum):
        bound = "" if minimum is None else f" of at least {minimum}"
        raise error(f"{name}={value!r}: it must be a whole number{bound}{f'; {hint}' if hint else ''}")
    return number


def as_integers(
    values: Iterable[Any], name: str, *, minimum: int | None = None, error: type[KetFitError] = ConfigError
) -> tuple[int, ...]:
    """Return a sequence of integers of any kind as a tuple of Python integers.

    Args:
        values: A range, a sequence, or an array, tensor or Series with one axis; neither a string nor a mapping.
        name: What it is called in the error.
        minimum: The smallest allowed value; None allows every integer.
        error: The exception to raise.

    Raises:
        KetFitError: of the class `error`, naming its index, if one is not an integer or less than `minimum`.

    >>> import numpy as np
    >>> as_integers(np.arange(3), "qubits")
    (0, 1, 2)
    >>> as_integers((0, 0.5), "qubits")
    Traceback (most recent call last):
    ketfit.errors.ConfigError: qubits[1]=0.5: it must be a whole number
    """
    if type(values) not in (tuple, range, list):
        # Iterating over a table or a mapping would give its names, and over bytes their codes.
        flat = getattr(values, "ndim", 1) == 1 and not isinstance(values, (str, bytes, bytearray, Mapping))
        if not flat or not isinstance(values, Iterable):
            raise error(f"{name}={values!r}: it must be a row of whole numbers, such as (0, 1)")
    numbers = tuple(values)
    for value in numbers:
        if type(value) is not int:
            break
    else:
        if minimum is None:
            return numbers
    return tuple(
        as_integer(value, f"{name}[{index}]", minimum=minimum, error=error) for index, value in enumerate(numbers)
    )


def _index(value: Any) -> int | None:
    # bool, numpy.bool_ and tensors of booleans are numbers 0 and 1 to some of operator.index's callees.
    if isinstance(value, bool) or getattr(value, "ndim", 0) != 0 or "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
