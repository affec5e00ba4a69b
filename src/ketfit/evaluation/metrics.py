"""How good predictions are: class by class, and as probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from ketfit.integers import as_integer


@dataclass(frozen=True)
class ClassScores:
    """One class: shares of what was predicted as it and of what is it; None where there is nothing to share."""

    label: int | str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say; all are 0 for a perfect oracle.

    Attributes:
        ece: Expected calibration error: mean distance of confidence and accuracy over `bins` bins of equal width
            (Guo et al., arXiv 1706.04599, equation 3).
        bins: How many.
        brier: Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.
        nll: Mean negative logarithm of the true class's probability.
    """

    ece: float
    bins: int
    brier: float
    nll: float


@dataclass(frozen=True)
class ClassificationReport:
    """What predictions are worth, class by class and as probabilities.

    Attributes:
        classes: A row each.
        confusion: Sentences of class i that were predicted as class j; with several draws, their mean.
        calibration: Of all draws.
    """

    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[float, ...], ...]
    calibration: Calibration


def evaluate_predictions(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[Any], classes: NDArray[Any], bins: int = 15
) -> ClassificationReport:
    """Compare predictions with labels.

    Args:
        probabilities: One draw or several, each of shape (n, n_classes).
        labels: Shape (n,), each one of `classes`.
        classes: What the columns are, sorted.
        bins: Of the calibration error.
    """
    draws = len(probabilities)
    rows, truth = np.concatenate(probabilities), np.tile(labels, draws)
    predicted = classes[rows.argmax(axis=1)]
    scores = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=np.nan)
    confusion = confusion_matrix(truth, predicted, labels=classes) / draws
    return ClassificationReport(
        classes=tuple(
            ClassScores(label, _defined(precision), _defined(recall), _defined(f1), int(support) // draws)
            for label, precision, recall, f1, support in zip(classes.tolist(), *scores, strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration=calibration(rows, np.searchsorted(classes, truth), bins),
    )


def _defined(share: float) -> float | None:
    return None if math.isnan(share) else float(share)


def calibration(probabilities: NDArray[np.float64], codes: NDArray[np.int64], bins: int = 15) -> Calibration:
    """Return how well probabilities of shape (n, n_classes) fit the true columns `codes`, shape (n,).

    Raises:
        ConfigError: `bins` is not an integer, or less than 1.
    """
    bins, confidence = as_integer(bins, "bins", minimum=1), probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == codes
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(
        which, weights=right - confidence, minlength=bins
    )  # of a bin: count times (accuracy - confidence)
    columns = np.arange(probabilities.shape[1])
    return Calibration(
        ece=float(abs(gaps).sum() / len(codes)),
        bins=bins,
        brier=float(((probabilities - np.equal.outer(codes, columns)) ** 2).sum(axis=1).mean()),
        nll=float(log_loss(codes, probabilities, labels=columns)),
    )
