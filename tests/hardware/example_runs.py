"""Small runs for the tests: a head of three qubits, some sentences, a simulator that takes four circuits a job."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.hardware.backends.base import Backend
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.plan import PreparedRun, plan_run, write_plan
from ketfit.model.config import HeadConfig, TrainConfig

SHOTS = 200
SENTENCES = 12
FAST_RETRY = RetryPolicy(deadline_s=0.2, initial_pause_s=0.001, max_pause_s=0.01)


@lru_cache
def embeddings(count: int = SENTENCES) -> Any:
    """Distinct rows of width 6."""
    return np.random.default_rng(0).normal(size=(count, 6))


@lru_cache
def classifier(**head: Any) -> QuantumHeadClassifier:
    settings = {"n_qubits": 3, "encoder_layers": 1, "main_layers": 1, "reference_amplitude": 1.0, **head}
    x = np.random.default_rng(1).normal(size=(40, 6))
    labels = np.where(x[:, 0] > 0, "good", "bad")
    return QuantumHeadClassifier(HeadConfig(**settings), TrainConfig(epochs=30)).fit(x, labels)


def simulator(folder: Path, max_circuits: int = 4, **settings: Any) -> Simulator:
    return Simulator(folder / "jobs", max_circuits=max_circuits, **settings)


def write_example_plan(folder: Path, backend: Backend | None = None, **settings: Any) -> PreparedRun:
    """Write a plan of the example classifier into a folder, and return it."""
    labels = settings.pop("labels", None)
    prepared = plan_run(
        settings.pop("classifier", None) or classifier(),
        settings.pop("embeddings", embeddings()),
        backend or simulator(folder),
        name="simulator",
        options={"max_circuits": 4},
        labels=labels,
        **{"shots": SHOTS, **settings},
    )
    write_plan(folder, prepared)
    return prepared
