"""Small fitted models, and edits of their saved files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from torch import Tensor

from ketfit.errors import ModelFileError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.persistence.schema import METADATA, WEIGHTS

TINY = HeadConfig(n_qubits=2, encoder_layers=1, connectivity=1, main_layers=1)


SHORT = TrainConfig(epochs=2)


TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]


WORDS = ["positive"] * 4 + ["negative"] * 4


def vectors(n: int = 12, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 4)).astype(dtype)


def fitted(labels: Any = (0, 1), dtype: str = "float64", **settings: Any) -> QuantumHeadClassifier:
    y = np.array(labels)[np.arange(12) % len(labels)]
    return QuantumHeadClassifier(**{"head": TINY, "train": SHORT, **settings}).fit(vectors(dtype=dtype), y)


def same(one: QuantumHeadClassifier, other: QuantumHeadClassifier) -> bool:
    x = vectors()
    return bool((one.predict_proba(x) == other.predict_proba(x)).all() and (one.predict(x) == other.predict(x)).all())


def metadata_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / METADATA).read_text())
    return content


def sealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata with the hash of its other keys, as JSON with sorted keys."""
    rest = {key: value for key, value in metadata.items() if key != "record_sha256"}
    return {**rest, "record_sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def write_metadata(folder: Path, metadata: Any) -> None:
    (folder / METADATA).write_text(json.dumps(metadata))


def write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write other tensors and their hash into the metadata, to reach the checks after the hash."""
    content = safetensors.torch.save(tensors)
    (folder / WEIGHTS).write_bytes(content)
    write_metadata(folder, {**metadata_of(folder), "weights_sha256": hashlib.sha256(content).hexdigest()})


def assert_rejected(folder: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        QuantumHeadClassifier.from_pretrained(folder)
