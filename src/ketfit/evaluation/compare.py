"""Heads side by side on one split: the same training, validation and test samples for each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ketfit.data.sequences import as_labels
from ketfit.data.splits import Split
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.metrics import ClassificationReport, evaluate_predictions
from ketfit.integers import as_integer
from ketfit.model.config import HeadConfig, TrainConfig

Head = QuantumHeadClassifier | LogisticRegressionHead | SVCHead | MLPHead


@dataclass(frozen=True)
class HeadResult:
    """One row of a comparison: accuracies as fractions, the interval at 95 %, the time of `fit` in seconds."""

    name: str
    parameters: int
    test_accuracy: float
    interval: tuple[float, float]
    fit_seconds: float


def standard_heads(
    embedding_dim: int, n_classes: int, *, train: TrainConfig | None = None, seed: int = 0
) -> dict[str, Head]:
    """The recommended quantum head and its classical counterparts, untrained, by name.

    The perceptron has the number of hidden units that comes closest to the quantum head's parameters.
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
    """Fit each head on the training samples, and score it on the test samples.

    Heads that are trained in epochs choose theirs on the validation samples.

    Args:
        heads: Untrained heads by name; they are fitted in place, one at each step of the iterator.
        embeddings: Shape (n, embedding_dim).
        labels: Shape (n,).
        split: Positions of the three parts.
        progress: Show each training's bar on stderr.
    """
    embeddings, labels = np.asarray(embeddings), as_labels(labels)
    train, validation, (X_test, y_test) = (
        (embeddings[rows], labels[rows]) for rows in (split.train, split.validation, split.test)
    )
    for name, head in heads.items():
        start = time.perf_counter()
        head.fit(*train, validation=validation if len(split.validation) else None, progress=progress)
        seconds = time.perf_counter() - start
        correct = int((head.predict(X_test) == y_test).sum())
        accuracy, interval = accuracy_interval(correct, len(y_test))
        yield HeadResult(name, head.n_parameters_, accuracy, interval, seconds)


@dataclass(frozen=True)
class RepeatedAccuracy:
    """The mean accuracy over draws of shots and trajectories, and how the draws spread.

    `interval` is the 95 % interval of the mean for the chance of the test sentences; `spread` is the standard deviation
    of the single draws, None if there was one.
    """

    accuracy: float
    interval: tuple[float, float]
    draws: int
    spread: float | None
    lowest: float
    highest: float


def repeated_accuracy(head: Head, embeddings: NDArray[Any], labels: NDArray[Any], draws: int) -> RepeatedAccuracy:
    """Score a fitted head on the same samples `draws` times, each with shots and trajectories of its own.

    Args:
        head: Fitted.
        embeddings: Shape (n, embedding_dim).
        labels: Shape (n,).
        draws: At least 1.

    Raises:
        ConfigError: `draws` is not an integer, or less than 1.
    """
    labels, draws = as_labels(labels), as_integer(draws, "draws", minimum=1)
    return accuracy_of_draws([int((head.predict(embeddings) == labels).sum()) for _ in range(draws)], len(labels))


def evaluate_head(
    head: QuantumHeadClassifier, embeddings: NDArray[Any], labels: NDArray[Any], draws: int
) -> tuple[RepeatedAccuracy, ClassificationReport]:
    """As `repeated_accuracy`, and what the same draws say of each class and of the probabilities."""
    labels, draws = as_labels(labels), as_integer(draws, "draws", minimum=1)
    probabilities = [head.predict_proba(embeddings) for _ in range(draws)]
    correct = [int((head.classes_[draw.argmax(axis=1)] == labels).sum()) for draw in probabilities]
    return accuracy_of_draws(correct, len(labels)), evaluate_predictions(probabilities, labels, head.classes_)


def accuracy_of_draws(correct: Sequence[int], total: int) -> RepeatedAccuracy:
    """What it means that each draw had so many of `total` samples right."""
    _, interval = accuracy_interval(round(statistics.mean(correct)), total)
    shares = [count / total for count in correct]
    spread = statistics.stdev(shares) if len(shares) > 1 else None
    return RepeatedAccuracy(statistics.mean(shares), interval, len(shares), spread, min(shares), max(shares))


def accuracy_interval(correct: int, total: int) -> tuple[float, tuple[float, float]]:
    """Accuracy and its 95 % Wilson interval: the chance of the test sentences alone, not that of training."""
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return correct / total, (float(interval.low), float(interval.high))


def with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    """A figure and the ends of its 95 % interval, as metrics of a model that its card shows in one line."""
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
