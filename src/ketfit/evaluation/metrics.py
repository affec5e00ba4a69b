"""Metrics of predictions: per class, and of the probabilities."""

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
class ClassMetrics:
    """The metrics of one class as fractions; None where they are undefined. `support` is its number of sentences."""

    label: int | str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Calibration:
    """The calibration of probabilities; every error is 0 for a perfect classifier.

    Attributes:
        ece: Expected calibration error: mean distance of confidence and accuracy over `bins` bins of equal width
            (Guo et al., arXiv 1706.04599, equation 3).
        bins: Number of bins.
        brier: Mean squared distance of the probabilities from the one-hot labels, summed over classes: 0 to 2.
        nll: Mean negative logarithm of the true class's probability.
    """

    ece: float
    bins: int
    brier: float
    nll: float


@dataclass(frozen=True)
class ClassificationReport:
    """The metrics of predictions, per class and of the probabilities.

    Attributes:
        classes: The metrics of each class.
        confusion: Number of sentences of class i that were predicted as class j, the mean over the draws.
        calibration: The calibration over all draws.
    """

    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[float, ...], ...]
    calibration: Calibration


def evaluate_predictions(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[Any], classes: NDArray[Any], bins: int = 15
) -> ClassificationReport:
    """Return the metrics of predicted probabilities against labels.

    Args:
        probabilities: One or more draws, each of shape (n, n_classes).
        labels: Shape (n,), each one of `classes`.
        classes: The sorted classes of the columns.
        bins: Number of bins of the calibration error.

    >>> report = evaluate_predictions([np.array([[0.9, 0.1], [0.4, 0.6]])], np.array([0, 1]), np.array([0, 1]))
    >>> report.classes[0].recall, report.confusion
    (1.0, ((1.0, 0.0), (0.0, 1.0)))
    """
    draws = len(probabilities)
    rows, truth = np.concatenate(probabilities), np.tile(labels, draws)
    predicted = classes[rows.argmax(axis=1)]
    scores = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=np.nan)
    confusion = confusion_matrix(truth, predicted, labels=classes) / draws
    return ClassificationReport(
        classes=tuple(
            ClassMetrics(label, _defined(precision), _defined(recall), _defined(f1), int(support) // draws)
            for label, precision, recall, f1, support in zip(classes.tolist(), *scores, strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration=calibration(rows, np.searchsorted(classes, truth), bins),
    )


def _defined(share: float) -> float | None:
    return None if math.isnan(share) else float(share)


def calibration(probabilities: NDArray[np.float64], codes: NDArray[np.int64], bins: int = 15) -> Calibration:
    """Return the calibration errors of probabilities.

    Args:
        probabilities: Shape (n, n_classes).
        codes: Class indices, shape (n,).
        bins: Number of bins of equal width.

    >>> calibration(np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 1])).ece
    0.25

    Raises:
        ConfigError: `bins` is not an integer, or less than 1.
    """
    bins, confidence = as_integer(bins, "bins", minimum=1), probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == codes
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)  # count times (accuracy - confidence)
    columns = np.arange(probabilities.shape[1])
    return Calibration(
        ece=float(abs(gaps).sum() / len(codes)),
        bins=bins,
        brier=float(((probabilities - np.equal.outer(codes, columns)) ** 2).sum(axis=1).mean()),
        nll=float(log_loss(codes, probabilities, labels=columns)),
    )
