"""Fitted and saved models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from tests.persistence.saved_models import SHORT, TEXTS, TINY, WORDS, fitted


@pytest.fixture(scope="module")
def old() -> QuantumHeadClassifier:
    return fitted()


@pytest.fixture(scope="module")
def new() -> QuantumHeadClassifier:
    return fitted(seed=1)


@pytest.fixture(scope="module")
def saved(old: QuantumHeadClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    old.save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of a saved model that a test may break."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def classifier(tiny_body_folder: Path) -> TextClassifier:
    return TextClassifier(str(tiny_body_folder), TINY.updated(n_qubits=4), SHORT).fit(TEXTS, WORDS)


@pytest.fixture
def folder(classifier: TextClassifier, tmp_path: Path) -> Path:
    """A saved text model that a test may break."""
    classifier.save_pretrained(tmp_path / "model", data="eight sentences", metrics={"accuracy": 0.5})
    return tmp_path / "model"
