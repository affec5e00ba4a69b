"""Compare heads on one split: the same training, validation and test samples for each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ketfit.data.sequences import as_labels
from ketfit.data.splits import Split
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.heads import HeadEstimator
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.metrics import ClassificationReport, evaluate_predictions
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig

Head = HeadEstimator


@dataclass(frozen=True)
class HeadResult:
    """One row of a comparison: accuracies as fractions, the 95 % interval, the duration of `fit` in seconds.

    The interval is None if nothing varies. `correct` tells which test sentences are right, shape (n,), on one split.
    """

    name: str
    parameters: int
    test_accuracy: float
    interval: tuple[float, float] | None
    fit_seconds: float
    correct: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return all but `correct` as plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "correct"}


def standard_heads(
    embedding_dim: int, n_classes: int, *, train: TrainConfig | None = None, seed: int = 0
) -> dict[str, Head]:
    """Return the recommended quantum head and its classical counterparts, untrained, by name.

    The number of hidden units of the perceptron brings it closest to the quantum head's number of parameters.

    Args:
        embedding_dim: Width of the embeddings.
        n_classes: Number of classes.
        train: Training settings of the quantum head and of the perceptron; None is `TrainConfig()`.
        seed: Seed of both.

    >>> list(standard_heads(384, 2))
    ['quantum head', 'logistic regression', 'SVC (RBF)', 'MLP, matched']
    """
    quantum = HeadConfig.recommended(embedding_dim, n_classes)
    size = count_parameters(quantum, embedding_dim, n_classes)
    return {
        "quantum head": QuantumHeadClassifier(quantum, train, seed),
        "logistic regression": LogisticRegressionHead(),
        "SVC (RBF)": SVCHead(),
        "MLP, matched": MLPHead(match_parameters=size, train=train, seed=seed),
    }


def count_parameters(config: HeadConfig, embedding_dim: int, n_classes: int) -> int:
    """Return the number of trainable parameters of the quantum head that `config` describes."""
    return config.count_parameters(embedding_dim, n_classes)["total"]


def compare_heads(
    heads: Mapping[str, Head],
    embeddings: NDArray[Any],
    labels: NDArray[Any],
    split: Split,
    *,
    progress: bool = False,
) -> Iterator[HeadResult]:
    """Fit each head on the training samples, and yield its accuracy on the test samples.

    Heads that are trained in epochs choose the best epoch on the validation samples.

    Args:
        heads: Untrained heads by name; they are fitted in place, one at each step of the iterator.
        embeddings: Shape (n, embedding_dim).
        labels: Shape (n,).
        split: Rows of the three parts.
        progress: Show a bar for each training on stderr.
    """
    embeddings, labels = np.asarray(embeddings), as_labels(labels)
    train, validation, (X_test, y_test) = (
        (embeddings[rows], labels[rows]) for rows in (split.train, split.validation, split.test)
    )
    for name, head in heads.items():
        start = time.perf_counter()
        head.fit(*train, validation=validation if len(split.validation) else None, progress=progress)
        seconds = time.perf_counter() - start
        correct = head.predict(X_test) == y_test
        accuracy, interval = accuracy_interval(int(correct.sum()), len(y_test))
        yield HeadResult(name, head.n_parameters_, accuracy, interval, seconds, correct)


@dataclass(frozen=True)
class RepeatedAccuracy:
    """The mean accuracy over repeated draws of shots and trajectories, and the spread of the draws.

    `interval` is the 95 % interval of the mean for the sampling of the test sentences; `spread` is the standard
    deviation of the single draws, None for one draw.
    """

    accuracy: float
    interval: tuple[float, float]
    draws: int
    spread: float | None
    lowest: float
    highest: float


def evaluate_head(
    head: Head, embeddings: NDArray[Any], labels: NDArray[Any], draws: int
) -> tuple[RepeatedAccuracy, ClassificationReport]:
    """Evaluate a fitted head on the same samples `draws` times, each time with new shots and trajectories.

    Args:
        head: A fitted head.
        embeddings: Shape (n, embedding_dim).
        labels: Shape (n,).
        draws: At least 1.

    Returns:
        The accuracy, and the report of all draws.

    Raises:
        ConfigError: `draws` is not an integer, or less than 1.
    """
    labels, draws = as_labels(labels), as_integer(draws, "draws", minimum=1)
    probabilities = [head.predict_proba(embeddings) for _ in range(draws)]
    correct = [int((head.classes_[draw.argmax(axis=1)] == labels).sum()) for draw in probabilities]
    _, interval = accuracy_interval(round(statistics.mean(correct)), len(labels))
    shares = [count / len(labels) for count in correct]
    spread = statistics.stdev(shares) if draws > 1 else None
    accuracy = RepeatedAccuracy(statistics.mean(shares), interval, draws, spread, min(shares), max(shares))
    return accuracy, evaluate_predictions(probabilities, labels, head.classes_)


def accuracy_interval(correct: int, total: int) -> tuple[float, tuple[float, float]]:
    """Return the accuracy and its 95 % Wilson interval, which covers the sampling of the test sentences alone.

    >>> accuracy, (low, high) = accuracy_interval(90, 100)
    >>> accuracy, round(low, 3), round(high, 3)
    (0.9, 0.826, 0.945)
    """
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return correct / total, (float(interval.low), float(interval.high))


def with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    """Return a metric and the ends of its 95 % interval, as metrics that a model card shows in one line.

    >>> with_interval("test_accuracy", 0.9, (0.8, 1.0))
    {'test_accuracy': 0.9, 'test_accuracy_low': 0.8, 'test_accuracy_high': 1.0}
    """
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
