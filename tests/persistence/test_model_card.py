"""The model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ketfit.energy.crossover import CrossoverModel
from ketfit.energy.profiles import QpuProfile, StatevectorProfile, load_profile
from ketfit.evaluation.compare import with_interval
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.persistence.model_card import ENERGY_PROFILE, ENERGY_SHOTS
from ketfit.persistence.schema import CARD
from tests.persistence.saved_models import (
    TINY,
    fitted,
    metadata_of,
)


def card_of(tmp_path: Path, classifier: Any = None, **facts: Any) -> str:
    (classifier or fitted(("bad", "good"))).save_pretrained(tmp_path / "model", **facts)
    return (tmp_path / "model" / CARD).read_text(encoding="utf-8")


def test_model_card_contains_metadata_and_circuit(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "data": "twelve random vectors",
        "metrics": {"test_accuracy": 0.51234567, "test_loss": 1},
    }
    classifier = fitted(("bad", "good"))
    card = card_of(tmp_path, classifier, **facts)
    assert "`bad`, `good`" in card
    assert "QuantumHeadClassifier.from_pretrained" in card
    assert "shape (n, 4)" in card
    assert "| data | `twelve random vectors` |" in card
    assert "| test accuracy | 0.5123 |" in card
    assert "| test loss | 1 |" in card
    assert "| samples | 10 to train, 2 to validate |" in card
    assert f"{classifier.n_parameters_} total" in card
    assert "1 of 2 qubits, 1 layers, connectivity 1" in card
    for sign in ("None", "undefined", "{{", "{%", "nan"):
        assert sign not in card
    assert card.startswith("---\nlibrary_name: ketfit\n")
    assert "base_model" not in card
    record = metadata_of(tmp_path / "model")
    assert (record["data"], record["metrics"]) == (facts["data"], facts["metrics"])


def test_model_card_shows_interval_beside_metric(tmp_path: Path) -> None:
    metrics = {**with_interval("test_accuracy", 0.75, (0.7, 0.8)), "test_sentences": 8018, "loss_low": 0.5}
    card = card_of(tmp_path, metrics=metrics)
    assert "| test accuracy | 0.7500 (95 % interval 0.7000 to 0.8000) |" in card
    assert "| test sentences | 8,018 |" in card
    assert "| loss low | 0.5000 |" in card, "an end of no interval is a figure like others"
    assert card.count("interval") == 1
    assert "not calibrated" in card
    assert "Its accuracy was" not in card


def test_model_card_without_data_and_metrics_says_so(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    assert "| data | not recorded |" in card
    assert "Measured" not in card
    assert "Its accuracy was not recorded." in card
    assert "None" not in card


def test_model_card_shows_labels_unchanged(tmp_path: Path) -> None:
    assert "`R&B`, `don't know`" in card_of(tmp_path, fitted(("don't know", "R&B")))


def test_model_card_of_text_model_names_the_body(folder: Path, tiny_body_folder: Path) -> None:
    card = (folder / CARD).read_text(encoding="utf-8")
    assert "TextClassifier.from_pretrained" in card
    assert "frozen, 16 dimensions" in card
    assert metadata_of(folder)["body"]["fingerprint"] in card
    assert "None" not in card
    assert str(tiny_body_folder) not in card, "the place of the body on this machine is nobody's business"


def energy_of(head: HeadConfig) -> tuple[float, float, float]:
    """Return the energy of one inference as in ``ketfit energy``, for one number of shots."""
    qpu, program = load_profile(ENERGY_PROFILE, QpuProfile), load_profile("statevector", StatevectorProfile)
    shots = head.shots or ENERGY_SHOTS
    point = next(CrossoverModel(head, qpu, program, (shots, shots, shots)).points([], [head.qpu_qubits]))
    return point.joules, point.low, point.high


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({}, "1,000 shots"),
        ({"n_measured": 2}, "1,000 shots"),
        ({"readout": ("X0 Y1",)}, "1,000 shots"),
        ({"readout": ("X0", "Z0", "Y1")}, "2 circuits of 1,000 shots each"),
        ({"readout": ("X0", "Z0", "Y0"), "shots": 50}, "3 circuits of 50 shots each"),
    ],
)
def test_model_card_has_the_energy_of_all_circuits_of_an_inference(
    settings: dict[str, Any], runs: str, tmp_path: Path
) -> None:
    head = TINY.updated(**settings)
    card = card_of(tmp_path, fitted(head=head, train=TrainConfig(epochs=1)))
    joules, low, high = energy_of(head)
    assert f"about {joules:,.0f} J an inference of {runs} on " in card
    assert f", {low:,.0f} to {high:,.0f} J: " in card


def test_model_card_of_words_on_many_qubits_has_no_energy(tmp_path: Path) -> None:
    word = " ".join(f"Z{qubit}" for qubit in range(13))
    head = TINY.updated(n_qubits=7, n_encoders=2, readout=(word,))
    card = card_of(tmp_path, fitted(head=head, train=TrainConfig(epochs=1)))
    assert "| energy | not estimated: shots of a Pauli word on more than 12 qubits are not supported |" in card
