"""Tasks of a study: one head on one split. Its id is the hash of everything that affects the result."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from threadpoolctl import ThreadpoolController

from ketfit.errors import ConfigWarning, KetFitError, TrainingError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier, require_quantum_head
from ketfit.evaluation.compare import Head
from ketfit.model.config import HeadConfig, TrainConfig

RESULTS_VERSION = 1
"""Part of every task id; increase it when a change of the library changes results of the same settings."""


_thread_pools = lru_cache(ThreadpoolController)

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Embeddings, shape (n, dimension), and class numbers, shape (n,)."""


@dataclass(frozen=True)
class Task:
    """A task of a plan.

    Attributes:
        id: SHA-256 (hex) of `config`, independent of the order of its keys.
        config: Everything that affects the result, as JSON.
        head: Name of the head in the plan; it does not affect the result.
        body: Label of the body in the plan; it does not affect the result.
        levels: Level of every factor that applies to this head.
        seed: Seed of the split and of the training.
    """

    id: str
    config: dict[str, Any]
    head: str
    body: str
    levels: dict[str, Any]
    seed: int

    @classmethod
    def from_config(cls, config: dict[str, Any], head: str, body: str, levels: dict[str, Any]) -> Task:
        """Return the task with the id of its `config`."""
        return cls(content_hash(config), config, head, body, levels, config["seed"])


class TaskArrays(NamedTuple):
    """Embeddings of a body, shape (n, dimension), class numbers, shape (n,), and the positions of each part."""

    embeddings: NDArray[np.float32]
    codes: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def part(self, positions: NDArray[np.int64]) -> Part:
        """Return the embeddings and class numbers at these positions."""
        return self.embeddings[positions], self.codes[positions]


def content_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a JSON object, independent of the order of its keys.

    Raises:
        ValueError: A number is not finite.

    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def run_task_safely(config: Mapping[str, Any], *arrays: NDArray[Any]) -> dict[str, Any]:
    """Run a task on its `TaskArrays` and return ``{"result": ..., "timing": ...}``, or ``{"error": ...}`` if it fails.

    The task runs on one thread, so that its result does not depend on the machine's load. The configuration
    ``{"tasks": [...]}`` runs tasks with the same `training_hash`: they train once, and the return value is
    ``{"outcomes": [...]}``.
    """
    run = partial(_run_together, config["tasks"]) if "tasks" in config else partial(run_task, config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _thread_pools().limit(limits=1):
            return _outcome(lambda: run(TaskArrays(*arrays)))
    finally:
        torch.set_num_threads(threads)


def _outcome(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return run()
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def run_task(config: Mapping[str, Any], arrays: TaskArrays) -> dict[str, Any]:
    """Fit the head once per try, choose among the tries on validation, and score the chosen one on test.

    A try whose training diverges is recorded and not chosen. Only the chosen head predicts the test sentences, once.

    Args:
        config: Configuration of the task, see `Task.config`.
        arrays: Embeddings and parts of the task's split.

    Returns:
        ``result``, which is the same for every run of the task, and ``timing`` in seconds.

    Raises:
        KetFitError: No try could be trained, or a setting does not fit the data.
    """
    train, validation, test = map(arrays.part, (arrays.train, arrays.validation, arrays.test))
    return score(config, fit_tries(config, train, validation), *test)


def training_hash(config: Mapping[str, Any]) -> str:
    """Return the hash of a task's configuration without the measurement on its test sentences.

    Tasks with the same hash have the same training, the try and the epoch that are chosen included.
    """
    return content_hash({**config, "head": {key: value for key, value in config["head"].items() if key != "test"}})


def _run_together(configs: Sequence[Mapping[str, Any]], arrays: TaskArrays) -> dict[str, Any]:
    """Return the outcomes of tasks with the same training; a measurement that fails leaves the others."""
    train, validation, test = map(arrays.part, (arrays.train, arrays.validation, arrays.test))
    fitted = fit_tries(configs[0], train, validation)
    return {"outcomes": [_outcome(partial(score, config, fitted, *test)) for config in configs]}


@dataclass(frozen=True, eq=False)
class FittedHead:
    """Head of the best try with its validation scores, and the record and the seconds of each try."""

    head: Head
    tries: list[dict[str, Any]]
    chosen: int
    seconds: list[float]
    validation_loss: float
    validation_accuracy: float


def fit_tries(config: Mapping[str, Any], train: Part, validation: Part) -> FittedHead:
    """Fit the head of a task once per try and choose the best on validation, the first of equals.

    Raises:
        KetFitError: No try could be trained, or a setting does not fit the data.
    """
    tries: list[dict[str, Any]] = []
    seconds: list[float] = []
    best: tuple[tuple[float, ...], int, Head] | None = None  # rank, index of the try, head
    for value in config["tries"]:
        start = time.perf_counter()
        head = build_head(config, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConfigWarning)  # the driver warns once for all tasks
                head.fit(*train, validation=validation)
            loss, accuracy = validate(head, *validation)
        except TrainingError as error:
            tries.append({"value": value, "error": str(error)})
            continue
        finally:
            seconds.append(time.perf_counter() - start)
        tries.append({"value": value, "validation_loss": loss, "validation_accuracy": accuracy})
        tries[-1]["best_epoch"] = getattr(head, "best_epoch_", None)
        rank = (loss,) if config["selection"] == "loss" else (-accuracy, loss)
        if best is None or rank < best[0]:
            best = (rank, len(tries) - 1, head)
    if best is None:
        raise TrainingError(f"none of the tries could be trained; the first: {tries[0]['error']}")
    _, chosen, head = best
    best_try = tries[chosen]
    return FittedHead(head, tries, chosen, seconds, best_try["validation_loss"], best_try["validation_accuracy"])


def score(
    config: Mapping[str, Any], fitted: FittedHead, X_test: NDArray[np.float32], y_test: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the ``result`` and the ``timing`` of a task from its head and the test part.

    A head that was trained exactly predicts the test sentences with the shots and noise in ``head.test``, if any.
    """
    start, head = time.perf_counter(), fitted.head
    if measured := config["head"].get("test"):
        head = require_quantum_head(head, "measure with shots or noise").with_measurement(**measured)
    correct = head.predict(X_test) == y_test
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
    """Return the unfitted head of a task for one try: a learning rate, or an inverse regularization strength."""
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
    """Return the mean cross-entropy and the accuracy of a fitted head."""
    probabilities = head.predict_proba(X)
    loss = log_loss(y, probabilities, labels=np.arange(probabilities.shape[1]))
    return float(loss), float((head.predict(X) == y).mean())


def pack_bits(bits: NDArray[np.bool_]) -> str:
    """Return booleans as base64 text, eight per byte.

    >>> pack_bits(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bits(text: str, size: int) -> NDArray[np.bool_]:
    """Return the `size` booleans that `pack_bits` wrote.

    Raises:
        KetFitError: The text is not base64, or has another number of bytes.

    >>> unpack_bits("oA==", 3)
    array([ True, False,  True])
    """
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise KetFitError(f"the packed bits are not base64: {error}; run the task again") from error
    if len(content) != (size + 7) // 8:
        raise KetFitError(f"{len(content)} bytes do not hold {size} bits; run the task again")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=size).astype(bool)
