"""The path of a sentence, station by station, against the classifier itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ketfit import HeadConfig, NoiseConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.app.trace import LONGEST, MeasurementSettings, TracePredictor, fit_classical, own_settings, trace
from ketfit.bodies.body import Body, load_body
from ketfit.data.dataset import Dataset
from ketfit.errors import ConfigError, DataError, InputError

TEXTS = ("good fine film", "the good film", "bad dull film", "the bad film", "not film", "film the fine") * 4
LABELS = ("good", "good", "bad", "bad", "so so", "so so") * 4


@pytest.fixture(scope="module")
def body(tiny_body_folder: Path) -> Body:
    return load_body(tiny_body_folder, device="cpu")


def make(body: Body, classes: int = 2, calibrate: bool = False, **head: Any) -> TextClassifier:
    rows = [row for row, label in enumerate(LABELS) if classes == 3 or label != "so so"]
    config = HeadConfig(**{"n_qubits": 5, "main_layers": 1, **head})
    quantum = QuantumHeadClassifier(config, TrainConfig(epochs=4), calibrate=calibrate)
    texts, labels = [TEXTS[row] for row in rows], np.array([LABELS[row] for row in rows])
    embeddings = body.encode(texts)
    doubtful = labels.copy()
    doubtful[0] = labels[labels != labels[0]][0]
    held = (embeddings, doubtful) if calibrate else None  # where all are right there is nothing to calibrate on
    return TextClassifier.from_parts(body, quantum.fit(embeddings, labels, validation=held))


HEADS: list[dict[str, Any]] = [
    {},
    {"calibrate": True},
    {"skip_connection": True},
    {"classes": 3, "n_measured": 3},
    {"n_encoders": 2, "n_qubits": 4, "connectivity": 1},
    {"n_encoders": 2, "merge": "mean"},
    {"noise": NoiseConfig(bit_flip=0.02, readout=((0.95, 0.1), (0.05, 0.9)))},
]
SETTINGS = [
    MeasurementSettings(),
    MeasurementSettings(shots=50),
    MeasurementSettings(two_qubit_error=0.05),
    MeasurementSettings(30, 0.02, 0),
]


def test_the_calibrated_head_of_these_tests_has_a_temperature(body: Body) -> None:
    assert make(body, calibrate=True).classifier_.temperature_ != 1.0


@pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(head) or "plain")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_end_of_the_path_is_what_the_classifier_says(
    body: Body, head: dict[str, Any], settings: MeasurementSettings
) -> None:
    classifier = make(body, **head)
    journey = TracePredictor(classifier).travel("a good film", settings)
    noise = (head.get("noise") or NoiseConfig()).updated(depolarizing_2q=settings.two_qubit_error)
    told = {"shots": settings.shots, "noise": None if noise == NoiseConfig() else noise}
    measured = classifier.with_measurement(**{name: value for name, value in told.items() if value is not None})
    assert journey.probabilities == pytest.approx(measured.predict_proba(["a good film"])[0], abs=1e-6)
    assert journey.label == measured.predict(["a good film"])[0] or settings.shots
    exact = classifier.with_measurement().predict_proba(["a good film"])[0]
    assert journey.exact_probabilities == pytest.approx(exact, abs=1e-6)
    if settings.shots:
        assert sum(reading.count or 0 for reading in journey.readings) == settings.shots
        shares = [(reading.count or 0) / settings.shots for reading in journey.readings]
    else:
        shares = [reading.probability for reading in journey.readings]
    signs = np.array([[1 - 2 * int(bit) for bit in reading.bits] for reading in journey.readings])
    assert np.array(shares) @ signs == pytest.approx(journey.values, abs=1e-5)


def test_the_stations_between(body: Body) -> None:
    classifier = make(body, n_encoders=2, n_qubits=4, connectivity=1)
    journey = TracePredictor(classifier).travel("a good film", MeasurementSettings())
    head = classifier.classifier_.module_
    embedding = body.encode(["a good film"])
    assert journey.embedded.embedding == pytest.approx(embedding[0])
    with torch.no_grad():
        readouts = head.encoder(torch.from_numpy(embedding))[0]
    assert np.array(journey.readouts).shape == (2, 4)
    assert np.concatenate(journey.readouts) == pytest.approx(readouts.numpy(), abs=1e-6)
    assert journey.inputs == pytest.approx((head.angle_scale * readouts).tolist(), abs=1e-6)
    assert journey.weights == pytest.approx(head.weights.tolist())
    assert journey.circuit == head.circuit


def test_a_draw_is_the_same_again_and_another_draw_is_another(body: Body) -> None:
    traveller = TracePredictor(make(body))
    counts = [
        [reading.count for reading in traveller.travel("a good film", MeasurementSettings(4000, 0.0, draw)).readings]
        for draw in (0, 0, 1, 2)
    ]
    assert counts[0] == counts[1]
    assert len({tuple(count) for count in counts}) > 1


def test_wide_circuits_take_trajectories(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketfit.app.trace.WIDEST_EXACT", 4)
    traveller = TracePredictor(make(body))
    journey = traveller.travel("a good film", MeasurementSettings(two_qubit_error=0.05))
    monkeypatch.setattr("ketfit.app.trace.WIDEST_EXACT", 5)
    exact = traveller.travel("a good film", MeasurementSettings(two_qubit_error=0.05))
    assert (journey.trajectories, exact.trajectories) == (1000, None)
    assert journey.values == pytest.approx(exact.values, abs=6 / 1000**0.5)


def test_logistic_regression_is_that_of_scikit_learn(body: Body) -> None:
    classifier = make(body, classes=3, n_measured=3)
    traveller = TracePredictor(classifier, fit_classical(classifier, Dataset("d", TEXTS, LABELS)))
    opinion = traveller.travel("the good film", MeasurementSettings()).classical
    other = LogisticRegression().fit(body.encode(TEXTS), LABELS)
    assert opinion is not None
    assert opinion.probabilities == pytest.approx(other.predict_proba(body.encode(["the good film"]))[0], abs=1e-6)
    assert opinion.label == other.predict(body.encode(["the good film"]))[0]
    with pytest.raises(DataError, match="'odd'"):
        fit_classical(classifier, Dataset("d", TEXTS, ("odd", *LABELS[1:])))


def test_the_sliders_start_where_the_model_was_trained(body: Body) -> None:
    head = make(body, shots=20, noise=NoiseConfig(depolarizing_2q=0.01)).classifier_.module_
    assert own_settings(head) == MeasurementSettings(20, 0.01)
    assert own_settings(make(body).classifier_.module_) == MeasurementSettings()


@pytest.mark.parametrize("sentence", ["", "  \n", "x" * (LONGEST + 1), "\ud800"])
def test_what_is_no_sentence_is_refused(body: Body, sentence: str) -> None:
    with pytest.raises(InputError):
        TracePredictor(make(body)).travel(sentence, MeasurementSettings())


def test_settings_that_cannot_be_are_refused(body: Body) -> None:
    traveller = TracePredictor(make(body))
    embedded = traveller.embed("a good film")
    for settings in (MeasurementSettings(shots=0), MeasurementSettings(two_qubit_error=1.5)):
        with pytest.raises(ConfigError):
            trace(traveller.classifier, embedded, settings)


def test_a_sentence_that_is_too_long_for_the_body_is_told(body: Body) -> None:
    embedded = TracePredictor(make(body)).embed("good " * 390)
    assert embedded.notice is not None
    assert "are truncated" in embedded.notice


def test_what_visitors_type_is_not_written_to_the_disk(
    body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make(body)
    monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "cache"))
    TracePredictor(classifier).travel("a secret film", MeasurementSettings())
    assert not (tmp_path / "cache").exists()
