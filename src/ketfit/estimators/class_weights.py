"""Weights of classes, looked up by label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight

from ketfit.errors import ConfigError

ClassWeight = Mapping[Any, float] | Literal["balanced"] | None


def weights_by_class(class_weight: ClassWeight, labels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weight of each sample by its class, shape (n,); 1 for classes that `class_weight` does not name.

    scikit-learn looks labels that are digits up as integers, so that weights of "0" and "1" would be unknown to it.

    >>> weights_by_class({"1": 2.0}, np.array(["0", "1"])).tolist()
    [1.0, 2.0]

    Raises:
        ConfigError: A weight is not a positive number, or a class that is not among the labels has one.
    """
    if isinstance(class_weight, Mapping):
        known = np.unique(labels).tolist()
        unknown = [name for name in class_weight if name not in known]
        if unknown and any(name not in class_weight for name in known):
            labels_text = ", ".join(map(repr, known))
            raise ConfigError(
                f"class_weight has a weight of {unknown[0]!r}, which is not a label; known: {labels_text}"
            )
        values: list[Any] = [class_weight.get(label, 1.0) for label in labels.tolist()]
        numbers = all(isinstance(value, Real) for value in values)
        weights = np.array(values if numbers else [math.nan] * len(values), dtype=np.float64)
    else:
        weights = compute_sample_weight(class_weight, labels)
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ConfigError(f"class_weight={class_weight!r} does not fit; weights of classes are positive numbers")
    return weights
