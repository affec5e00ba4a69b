"""How good predictions are: class by class, and as probabilities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from torch import Tensor, nn

from ketfit.errors import DataWarning
from ketfit.integers import as_integer

TEMPERATURES = (0.05, 20.0)
"""Where the best temperature is looked for."""

PRIOR_SPREAD = 0.5
"""Standard deviation of the logarithm of the temperature before any sample is seen: 95 % between 1/e and e."""


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
class Report:
    """What predictions are worth, class by class and as probabilities.

    Attributes:
        classes: A row each.
        confusion: Sentences of class i that were predicted as class j; with several draws, their mean.
        calibration: Of all draws.
    """

    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[float, ...], ...]
    calibration: Calibration


def report(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[Any], classes: NDArray[Any], bins: int = 15
) -> Report:
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
    return Report(
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


def fit_temperature(logits: Tensor, y: Tensor, weight: Tensor) -> float:
    """Return the number to divide logits by, fitted by cross-entropy (Guo et al., section 4.2) and drawn towards 1.

    The logarithm of the temperature has a normal prior with mean 0 and standard deviation `PRIOR_SPREAD`: what is
    minimised is the sum of the cross-entropies, each times its weight, plus ``log(T)**2 / (2 * PRIOR_SPREAD**2)``. The
    sum grows with the number of samples and the prior does not, so that a few samples move the temperature a little
    and hundreds decide it.

    Without a minimum inside `TEMPERATURES` before the prior is added, the samples say nothing about the temperature:
    where all of them are predicted right, ever smaller ones fit ever better, and where the logits are worse than none,
    ever larger ones. It is 1 then, with a warning.

    Args:
        logits: Shape (n, n_classes), of samples that were not trained on.
        y: Class numbers, shape (n,).
        weight: How many samples each of them stands for, shape (n,), positive; see `sample_counts`.

    Returns:
        Between the two `TEMPERATURES`; above 1 if the logits are too sure of themselves.
    """
    logits, weight = logits.double(), weight.double()
    own = logits.gather(1, y[:, None])[:, 0]

    def slope(temperature: float) -> float:
        """Return the derivative of the loss by the inverse of the temperature; it grows with that inverse."""
        mean = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1)
        return float(weight @ (mean - own))

    def penalised(logarithm: float) -> float:
        losses = nn.functional.cross_entropy(logits / math.exp(logarithm), y, reduction="none")
        return float(weight @ losses) + logarithm**2 / (2 * PRIOR_SPREAD**2)

    low, high = TEMPERATURES
    rounding = 1e-9 * float(weight.sum() * logits.abs().max())
    if not (slope(low) > rounding and slope(high) < -rounding):
        warnings.warn(
            f"the temperature of the probabilities stays 1: no number from {low} to {high} fits the {len(y)} "
            "validation samples best, for all of them are predicted right, or hardly any; give more validation samples",
            DataWarning,
            stacklevel=2,
        )
        return 1.0
    bounds = (math.log(low), math.log(high))
    return math.exp(minimize_scalar(penalised, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def sample_counts(weight: Tensor) -> Tensor:
    """Return weights scaled so that they sum to Kish's effective number of samples, whatever unit they came in."""
    return weight * (weight.sum() / (weight @ weight))
