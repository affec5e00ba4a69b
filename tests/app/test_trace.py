"""The path of a sentence, station by station, against the classifier itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ketfit import HeadConfig, NoiseConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.app.trace import (
    MAX_CHARACTERS,
    ClassicalTrace,
    MeasurementSettings,
    TracePredictor,
    fit_baseline,
    trace,
    trained_settings,
)
from ketfit.app.views import render_circuit, render_classical, render_outputs, render_prediction
from ketfit.bodies.body import Body, load_body
from ketfit.data.dataset import Dataset
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.simulate.expectation import expectation
from ketfit.simulate.mitigation import mitigate_readout

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
    {"components": 3},
    {"noise": NoiseConfig(bit_flip=0.02, readout=((0.95, 0.1), (0.05, 0.9)))},
    {"readout": ("X0 Z1", "Z0", "Y3")},
]
SETTINGS = [
    MeasurementSettings(),
    MeasurementSettings(shots=50),
    MeasurementSettings(two_qubit_error=0.05),
    MeasurementSettings(30, 0.02, 0),
]


def test_fixture_calibrated_head_has_temperature(body: Body) -> None:
    assert make(body, calibrate=True).classifier_.temperature_ != 1.0


@pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(head) or "plain")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_trace_ends_with_prediction_of_classifier(
    body: Body, head: dict[str, Any], settings: MeasurementSettings
) -> None:
    classifier = make(body, **head)
    traced = TracePredictor(classifier).trace("a good film", settings)
    noise = (head.get("noise") or NoiseConfig()).updated(depolarizing_2q=settings.two_qubit_error)
    told = {"shots": settings.shots, "noise": None if noise == NoiseConfig() else noise}
    measured = classifier.with_measurement(**{name: value for name, value in told.items() if value is not None})
    assert traced.probabilities == pytest.approx(measured.predict_proba(["a good film"])[0], abs=1e-6)
    assert traced.label == measured.predict(["a good film"])[0] or settings.shots
    exact = classifier.with_measurement().predict_proba(["a good film"])[0]
    assert traced.exact_probabilities == pytest.approx(exact, abs=1e-6)
    if "readout" in head:
        assert (traced.words, traced.outcomes, len(traced.expectations)) == (head["readout"], (), 3)
        return
    if settings.shots:
        assert sum(outcome.count or 0 for outcome in traced.outcomes) == settings.shots
        shares = [(outcome.count or 0) / settings.shots for outcome in traced.outcomes]
    else:
        shares = [outcome.probability for outcome in traced.outcomes]
    signs = np.array([[1 - 2 * int(bit) for bit in outcome.bits] for outcome in traced.outcomes])
    assert np.array(shares) @ signs == pytest.approx(traced.expectations, abs=1e-5)


def test_trace_intermediate_values_equal_those_of_head(body: Body) -> None:
    classifier = make(body, n_encoders=2, n_qubits=4, connectivity=1)
    traced = TracePredictor(classifier).trace("a good film", MeasurementSettings())
    head = classifier.classifier_.module_
    embedding = body.encode(["a good film"])
    assert traced.embedded.embedding == pytest.approx(embedding[0])
    with torch.no_grad():
        readouts = head.encoder(torch.from_numpy(embedding))[0]
    assert np.array(traced.encoder_expectations).shape == (2, 4)
    assert np.concatenate(traced.encoder_expectations) == pytest.approx(readouts.numpy(), abs=1e-6)
    assert traced.inputs == pytest.approx((head.angle_scale * readouts).tolist(), abs=1e-6)
    assert traced.weights == pytest.approx(head.weights.tolist())
    assert traced.circuit == head.circuit


def test_trace_has_components_of_head(body: Body) -> None:
    predictor = TracePredictor(make(body, components=3))
    projected = predictor.classifier.classifier_.module_.project(torch.from_numpy(body.encode(["a good film"])))
    traced = predictor.trace("a good film", MeasurementSettings())
    assert traced.components == pytest.approx(projected[0].tolist(), abs=1e-6)
    assert TracePredictor(make(body)).trace("a good film", MeasurementSettings()).components is None


def test_trace_of_words_shows_each_word_with_its_expectation(body: Body) -> None:
    classifier = make(body, ansatz="ising", readout=("X0 Z1", "Z0", "Y3"))
    traced = TracePredictor(classifier).trace("a good film", MeasurementSettings(shots=50, two_qubit_error=0.01))
    head = classifier.classifier_.module_
    exact = expectation(head.circuit, head.weights, torch.tensor([traced.inputs]), observables=head.config.observables)
    assert traced.exact_expectations == pytest.approx(exact[0].tolist(), abs=1e-6)
    html = render_circuit(traced) + render_outputs(traced)
    assert "50 shots of each of 2 groups of words that are measured together" in html
    assert "Every two-qubit gate depolarizes" in html
    counts = head.circuit.gate_counts()
    assert f"{counts['ry']} gates on one qubit and {counts['rzz'] + counts['rxx']} on several on 5 qubits" in html
    assert "⟨Z⟩" not in html
    for name, value in zip(("X0 Z1", "Z0", "Y3"), traced.exact_expectations, strict=True):
        assert f'title="{name}">{name}</span>' in html
        assert f"exact {round(value, 3) + 0.0:+.3f}".replace("-", "\N{MINUS SIGN}") in html
    many = replace(traced, words=("Z0",) * 70, expectations=(0.5,) * 70, exact_expectations=(0.5,) * 70)
    assert "and 6 more" in render_outputs(many)


def test_trace_same_draw_gives_same_counts(body: Body) -> None:
    predictor = TracePredictor(make(body))
    counts = [
        [outcome.count for outcome in predictor.trace("a good film", MeasurementSettings(4000, 0.0, draw)).outcomes]
        for draw in (0, 0, 1, 2)
    ]
    assert counts[0] == counts[1]
    assert len({tuple(count) for count in counts}) > 1


def test_trace_wide_circuit_uses_trajectories(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketfit.app.trace.MAX_EXACT_QUBITS", 4)
    predictor = TracePredictor(make(body))
    traced = predictor.trace("a good film", MeasurementSettings(two_qubit_error=0.05))
    monkeypatch.setattr("ketfit.app.trace.MAX_EXACT_QUBITS", 5)
    exact = predictor.trace("a good film", MeasurementSettings(two_qubit_error=0.05))
    assert (traced.trajectories, exact.trajectories) == (1000, None)
    assert traced.expectations == pytest.approx(exact.expectations, abs=6 / 1000**0.5)


def test_trace_wide_circuit_with_damping_stays_exact(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketfit.app.trace.MAX_EXACT_QUBITS", 4)
    damping = NoiseConfig(t1_us=1e5, t2_us=1e5, time_2q_us=970.0)
    settings = MeasurementSettings(two_qubit_error=0.01)
    predictor = TracePredictor(make(body, noise=damping))
    traced = predictor.trace("a good film", settings)
    noise = damping.updated(depolarizing_2q=0.01)
    expected = predictor.classifier.with_measurement(noise=noise).predict_proba(["a good film"])[0]
    assert traced.trajectories is None
    assert traced.probabilities == pytest.approx(expected, abs=1e-6)
    assert predictor.probabilities(["a good film"], settings).rows[0] == pytest.approx(expected, abs=1e-6)
    twirled = TracePredictor(make(body, noise=damping.updated(pauli_twirl=True)))
    assert twirled.trace("a good film", settings).trajectories == 1000


MITIGATED: list[dict[str, Any]] = [
    {"mitigation": ("readout",), "n_measured": 2},
    {"mitigation": ("zero_noise",)},
    {"mitigation": ("readout", "zero_noise"), "readout": ("X0 Z1", "Z0")},
]


@pytest.mark.parametrize("head", MITIGATED, ids=str)
@pytest.mark.parametrize("shots", [None, 50])
def test_trace_applies_mitigation_of_model(body: Body, head: dict[str, Any], shots: int | None) -> None:
    noise = NoiseConfig(depolarizing_2q=0.02, readout=((0.95, 0.1), (0.05, 0.9)))
    classifier = make(body, noise=noise, **head)
    predictor, settings = TracePredictor(classifier), MeasurementSettings(shots, 0.05)
    traced = predictor.trace("a good film", settings)
    noise = noise.updated(depolarizing_2q=0.05)
    measured = classifier.with_measurement(shots=shots, noise=noise, mitigation=head["mitigation"])
    expected = measured.predict_proba(["a good film"])[0]
    assert traced.probabilities == pytest.approx(expected, abs=1e-6)
    assert predictor.probabilities(["a good film"], settings).rows[0] == pytest.approx(expected, abs=1e-6)
    html = render_outputs(traced)
    assert "The expectations below are mitigated by" in html
    assert "standard errors" not in html
    if head["mitigation"] == ("readout",):
        signs = torch.tensor([[1.0 - 2 * int(bit) for bit in outcome.bits] for outcome in traced.outcomes])
        values = torch.tensor([outcome.share for outcome in traced.outcomes]) @ signs
        assert traced.expectations == pytest.approx(mitigate_readout(values, noise.readout).tolist(), abs=1e-5)


def test_trace_without_noise_is_not_mitigated(body: Body) -> None:
    predictor = TracePredictor(make(body, noise=NoiseConfig(depolarizing_2q=0.02), mitigation=("zero_noise",)))
    traced = predictor.trace("a good film", MeasurementSettings())
    assert traced.mitigation == ()
    assert traced.expectations == pytest.approx(traced.exact_expectations, abs=1e-6)
    assert "mitigated" not in render_outputs(traced)


def test_fit_baseline_without_label_of_model_fails(body: Body) -> None:
    classifier = make(body, classes=3, n_measured=3)
    part = [(text, label) for text, label in zip(TEXTS, LABELS, strict=True) if label != "good"]
    texts, labels = zip(*part, strict=True)
    with pytest.raises(DataError, match="part.csv has no sentence labelled 'good'; the comparison needs every label"):
        fit_baseline(classifier, Dataset("part.csv", texts, labels))


def test_fit_baseline_equals_scikit_learn(body: Body) -> None:
    classifier = make(body, classes=3, n_measured=3)
    predictor = TracePredictor(classifier, fit_baseline(classifier, Dataset("d", TEXTS, LABELS)))
    opinion = predictor.trace("the good film", MeasurementSettings()).baseline
    other = LogisticRegression().fit(body.encode(TEXTS), LABELS)
    assert opinion is not None
    assert opinion.probabilities == pytest.approx(other.predict_proba(body.encode(["the good film"]))[0], abs=1e-6)
    assert opinion.label == other.predict(body.encode(["the good film"]))[0]
    with pytest.raises(DataError, match="'odd'"):
        fit_baseline(classifier, Dataset("d", TEXTS, ("odd", *LABELS[1:])))


def test_trained_settings_are_those_of_model(body: Body) -> None:
    head = make(body, shots=20, noise=NoiseConfig(depolarizing_2q=0.01)).classifier_.module_
    assert trained_settings(head) == MeasurementSettings(20, 0.01)
    assert trained_settings(make(body).classifier_.module_) == MeasurementSettings()


@pytest.mark.parametrize("sentence", ["", "  \n", "x" * (MAX_CHARACTERS + 1), "\ud800"])
def test_trace_invalid_sentence_is_refused(body: Body, sentence: str) -> None:
    with pytest.raises(InputError):
        TracePredictor(make(body)).trace(sentence, MeasurementSettings())


def test_trace_impossible_settings_are_refused(body: Body) -> None:
    predictor = TracePredictor(make(body))
    embedded = predictor.embed("a good film")
    for settings in (MeasurementSettings(shots=0), MeasurementSettings(two_qubit_error=1.5)):
        with pytest.raises(ConfigError):
            trace(predictor.classifier, embedded, settings)


def test_trace_truncated_sentence_has_notice(body: Body) -> None:
    embedded = TracePredictor(make(body)).embed("good " * 390)
    assert embedded.notice is not None
    assert "are truncated" in embedded.notice
    predictor = TracePredictor(make(body))
    notice = predictor.probabilities(["good " * 390, "a good film"], MeasurementSettings()).notice
    assert notice is not None
    assert notice.startswith("1 of 2 new sentences")
    assert predictor.probabilities(["a good film"], MeasurementSettings()).notice is None


def test_trace_sentence_is_not_written_to_disk(body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make(body)
    monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "cache"))
    TracePredictor(classifier).trace("a secret film", MeasurementSettings())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["logistic-regression", "svc", "mlp"])
def test_trace_of_classical_head_has_its_probabilities(kind: str, body: Body, tiny_body_folder: Path) -> None:
    classifier = TextClassifier(str(tiny_body_folder), kind, validation_fraction=0.4)  # type: ignore[arg-type]
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS)]
    predictor = TracePredictor(classifier.fit(texts, LABELS))
    traced = predictor.trace("a good film", MeasurementSettings())
    assert isinstance(traced, ClassicalTrace)
    expected = classifier.predict_proba(["a good film"])
    np.testing.assert_array_equal([traced.probabilities], expected)
    np.testing.assert_array_equal(predictor.probabilities(["a good film"], MeasurementSettings()).rows, expected)
    assert traced.label == traced.exact_label == classifier.predict(["a good film"])[0]
    assert predictor.trained_settings is None
    html = render_prediction(traced) + render_classical(traced)
    assert f"The {traced.head} says" in html
    assert "Embedding" in html
    assert "qubit" not in html
    for settings in (MeasurementSettings(shots=10), MeasurementSettings(two_qubit_error=0.1)):
        with pytest.raises(ConfigError, match="has no circuit to run with shots or noise"):
            predictor.trace("a film", settings)
        with pytest.raises(ConfigError, match="has no circuit to run with shots or noise"):
            predictor.probabilities(["a film"], settings)
