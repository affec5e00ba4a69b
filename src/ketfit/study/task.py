"""Tasks: one head on one draw of the sentences, named by the hash of everything that affects its result."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from threadpoolctl import ThreadpoolController

from ketfit.errors import ConfigWarning, KetFitError, TrainingError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.compare import Head
from ketfit.model.config import HeadConfig, TrainConfig

RESULTS_VERSION = 1
"""Part of every task's name: goes up when the library changes so that the same settings give other results."""


@dataclass(frozen=True)
class Task:
    """A task of a plan: its name, what it runs, and where it stands in the plan.

    Attributes:
        id: SHA-256 (hex) of `config`, whatever the order of its keys.
        config: All that affects the result, as JSON.
        head, body: Their names in the plan; they affect no result.
        levels: The level of every factor that applies to this head.
        seed: Of the draw of the sentences and of the training.
    """

    id: str
    config: dict[str, Any]
    head: str
    body: str
    levels: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, config: dict[str, Any], head: str, body: str, levels: dict[str, Any]) -> Task:
        """The task with the name that its `config` has."""
        return cls(content_hash(config), config, head, body, levels, config["seed"])


@dataclass(frozen=True, eq=False)
class TaskArrays:
    """All embeddings of a body, shape (n, dimension), class numbers, shape (n,), and the positions of three parts."""

    embeddings: NDArray[np.float32]
    codes: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def part(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Embeddings and class numbers of one of the parts."""
        return self.embeddings[rows], self.codes[rows]


def content_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a JSON object, independent of the order of its keys.

    Raises:
        ValueError: a number is not finite.
    """
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def run_task_safely(config: Mapping[str, Any], *material: NDArray[Any]) -> dict[str, Any]:
    """Run a task on its `TaskArrays`: ``{"result": ..., "timing": ...}``, or ``{"error": ...}`` if it fails.

    It works on one thread, so that its result is the same wherever and beside whatever it runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _thread_pools().limit(limits=1):
            return run_task(config, TaskArrays(*material))
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}
    finally:
        torch.set_num_threads(threads)


@lru_cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


def run_task(config: Mapping[str, Any], material: TaskArrays) -> dict[str, Any]:
    """Fit the head once for each try, choose among the tries on validation, and score the chosen one on test.

    A try whose training diverges is noted and not chosen. The test sentences are looked at once, by the chosen head.

    Args:
        config: As `Task.config`.
        material: Embeddings and parts of this task's seed.

    Returns:
        ``result``, which is the same for every run of the task, and ``timing`` in seconds.

    Raises:
        KetFitError: no try could be trained, or a setting does not fit the data.
    """
    train, validation, test = map(material.part, (material.train, material.validation, material.test))
    return score(fit_tries(config, train, validation), *test)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The head of the best try, what came of all tries, which of them it was, and the seconds that each took.

    ``validation_loss`` and ``validation_accuracy`` are those of `head`.
    """

    head: Head
    tries: list[dict[str, Any]]
    chosen: int
    seconds: list[float]
    validation_loss: float
    validation_accuracy: float


Part = tuple[NDArray[np.float32], NDArray[np.int64]]


def fit_tries(config: Mapping[str, Any], train: Part, validation: Part) -> Fitted:
    """Fit the head of a task once for each try; the best is chosen on validation, the first of equals.

    Raises:
        KetFitError: no try could be trained, or a setting does not fit the data.
    """
    tries: list[dict[str, Any]] = []
    seconds: list[float] = []
    best: tuple[tuple[float, ...], int, Head] | None = None  # rank, place among the tries, head
    for value in config["tries"]:
        start = time.perf_counter()
        head = build_head(config, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConfigWarning)  # the driver has said it, once for all tasks
                head.fit(*train, validation=validation)
            loss, accuracy = validate(head, *validation)
        except TrainingError as error:
            tries.append({"value": value, "error": str(error)})
            continue
        finally:
            seconds.append(time.perf_counter() - start)
        tries.append(
            {"value": value, "validation_loss": loss, "validation_accuracy": accuracy, "best_epoch": _epoch(head)}
        )
        rank = (loss,) if config["selection"] == "loss" else (-accuracy, loss)
        if best is None or rank < best[0]:
            best = (rank, len(tries) - 1, head)
    if best is None:
        raise TrainingError(f"none of the tries could be trained; the first: {tries[0]['error']}")
    _, chosen, head = best
    of_best = tries[chosen]
    return Fitted(head, tries, chosen, seconds, of_best["validation_loss"], of_best["validation_accuracy"])


def score(fitted: Fitted, X_test: NDArray[np.float32], y_test: NDArray[np.int64]) -> dict[str, Any]:
    """The ``result`` and the ``timing`` of a task from its head and the test part."""
    start = time.perf_counter()
    correct = fitted.head.predict(X_test) == y_test
    result = {
        "parameters": fitted.head.n_parameters_,
        "chosen": fitted.chosen,
        "tries": fitted.tries,
        "validation_loss": fitted.validation_loss,
        "validation_accuracy": fitted.validation_accuracy,
        "test_size": len(y_test),
        "test_accuracy": float(correct.mean()),
        "correct": pack_bits(correct),
    }
    seconds = fitted.seconds
    timing = {"fit": seconds[fitted.chosen], "all_tries": sum(seconds), "test": time.perf_counter() - start}
    return {"result": result, "timing": timing}


def build_head(config: Mapping[str, Any], value: float) -> Head:
    """The untrained head of a task for one try, a learning rate or an inverse strength of regularisation."""
    kind, settings, seed = config["head"]["kind"], config["head"]["settings"], config["seed"]
    if kind == "svc":
        return SVCHead(C=value)
    if kind == "logistic-regression":
        if settings["components"] is None:
            return LogisticRegressionHead(C=value)
        directions = settings.get("directions", "random")
        return ProjectedLogisticRegressionHead(settings["components"], C=value, seed=seed, directions=directions)
    train = TrainConfig.from_mapping({**config["train"], "learning_rate": value, "selection": config["selection"]})
    if kind == "mlp":
        return MLPHead(settings["hidden"], train=train, seed=seed, activation=settings["activation"])
    return QuantumHeadClassifier(HeadConfig.from_mapping(settings), train, seed)


def validate(head: Head, X: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of a fitted head."""
    probabilities = head.predict_proba(X)
    loss = log_loss(y, probabilities, labels=np.arange(probabilities.shape[1]))
    return float(loss), float((head.predict(X) == y).mean())


def _epoch(head: Head) -> int | None:
    return getattr(head, "best_epoch_", None)


def pack_bits(bits: NDArray[np.bool_]) -> str:
    """Booleans as text, eight in a byte, in base 64."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bits(text: str, size: int) -> NDArray[np.bool_]:
    """The `size` booleans that `pack_bits` wrote.

    Raises:
        KetFitError: the text holds another number of them.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise KetFitError(f"not base 64: {error}") from error
    if len(content) != (size + 7) // 8:
        raise KetFitError(f"{len(content)} bytes do not hold {size} bits")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=size).astype(bool)
