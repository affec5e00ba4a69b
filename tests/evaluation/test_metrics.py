"""Measures of predictions, against scikit-learn's and against cases that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, classification_report, log_loss

from ketfit.errors import ConfigError, DataWarning
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.metrics import calibration, evaluate_predictions
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.training.calibration import effective_counts, fit_temperature

CLASSES = np.array(["bad", "fine", "good"])


def predictions(n: int = 300, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of three classes, codes that they are drawn from at temperature 1, and the probabilities."""
    chance = np.random.default_rng(seed)
    logits = scale * chance.normal(size=(n, 3))
    codes = np.array([chance.choice(3, p=row) for row in softmax(logits, axis=1)])
    return logits, codes, softmax(logits, axis=1)


def test_the_classes_are_those_of_scikit_learn() -> None:
    _, codes, rows = predictions()
    made = evaluate_predictions([rows], CLASSES[codes], CLASSES)
    expected = classification_report(CLASSES[codes], CLASSES[rows.argmax(axis=1)], output_dict=True)
    for scores in made.classes:
        theirs = expected[str(scores.label)]
        assert scores.precision == pytest.approx(theirs["precision"])
        assert scores.recall == pytest.approx(theirs["recall"])
        assert scores.f1 == pytest.approx(theirs["f1-score"])
        assert scores.support == theirs["support"]
    for i, row in enumerate(made.confusion):
        assert sum(row) == made.classes[i].support
        for j, count in enumerate(row):
            assert count == ((codes == i) & (rows.argmax(axis=1) == j)).sum()


def test_draws_are_averaged() -> None:
    _, codes, rows = predictions()
    flipped = rows[:, ::-1]
    both = evaluate_predictions([rows, flipped], CLASSES[codes], CLASSES)
    single = [evaluate_predictions([draw], CLASSES[codes], CLASSES) for draw in (rows, flipped)]
    np.testing.assert_allclose(both.confusion, np.mean([one.confusion for one in single], axis=0))
    assert [scores.support for scores in both.classes] == [scores.support for scores in single[0].classes]
    assert both.calibration.brier == pytest.approx(np.mean([one.calibration.brier for one in single]))


def test_what_cannot_be_shared_is_none() -> None:
    rows = np.array([[0.8, 0.2, 0.0], [0.7, 0.3, 0.0]])
    bad, fine, good = evaluate_predictions([rows], np.array(["bad", "fine"]), CLASSES).classes
    assert (bad.precision, bad.recall, bad.support) == (0.5, 1.0, 1)
    assert (fine.precision, fine.recall, fine.f1, fine.support) == (None, 0.0, 0.0, 1)
    assert (good.precision, good.recall, good.f1, good.support) == (None, None, None, 0)


def test_losses_are_those_of_scikit_learn() -> None:
    _, codes, rows = predictions()
    made = calibration(rows, codes)
    assert made.nll == pytest.approx(log_loss(codes, rows))
    two = rows[:, :2] / rows[:, :2].sum(axis=1, keepdims=True)
    assert calibration(two, codes % 2).brier == pytest.approx(2 * brier_score_loss(codes % 2, two[:, 1]))


@pytest.mark.parametrize("confidence", [0.6, 0.75, 1.0])
def test_the_calibration_error_of_one_bin_is_its_gap(confidence: float) -> None:
    rows = np.tile([confidence, 1 - confidence], (10, 1))
    codes = np.array([0] * 7 + [1] * 3)
    assert calibration(rows, codes).ece == pytest.approx(abs(confidence - 0.7))


def test_gaps_of_several_bins_do_not_cancel() -> None:
    rows = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    codes = np.array([0] * 7 + [1] * 3 + [0] * 8 + [1] * 2)  # over-confident by 0.2, under-confident by 0.2
    assert calibration(rows, codes).ece == pytest.approx(0.2)
    assert calibration(rows, codes, bins=1).ece == pytest.approx(0)


def test_honest_probabilities_are_nearly_calibrated_and_overconfident_ones_are_not() -> None:
    logits, codes, rows = predictions(20_000)
    assert calibration(rows, codes).ece < 0.015
    assert calibration(softmax(3 * logits, axis=1), codes).ece > 0.1


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    logits, codes, _ = predictions(5_000)
    scaled, y = torch.from_numpy(factor * logits), torch.from_numpy(codes)
    found = fit_temperature(scaled, y, torch.ones(len(y)))
    assert found == pytest.approx(factor, rel=0.1)
    assert calibration(softmax(factor * logits / found, axis=1), codes).ece < 0.03

    def loss(logarithm: Any) -> float:
        losses = -log_softmax(factor * logits / np.exp(logarithm[0]), axis=1)[np.arange(len(codes)), codes]
        return float(losses.sum() + logarithm[0] ** 2 / (2 * 0.5**2))

    expected = np.exp(minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8}).x[0])
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_temperature_knows_weights() -> None:
    logits, codes, _ = predictions(50)
    weight = torch.tensor([1.0, 0, 3] * 16 + [1, 1])
    twice = torch.arange(50).repeat_interleave(weight.long())
    x, y = torch.from_numpy(logits), torch.from_numpy(codes)
    assert fit_temperature(x, y, weight) == pytest.approx(fit_temperature(x[twice], y[twice], torch.ones(len(twice))))


def draw(
    chance: np.random.Generator, n: int, classes: int, scale: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and classes drawn from what they should be."""
    honest = scale * chance.normal(size=(n, classes))
    codes = (softmax(honest, axis=1).cumsum(axis=1) > chance.random((n, 1))).argmax(axis=1)
    return temperature * honest, codes


def nll(logits: np.ndarray, codes: np.ndarray, temperature: float) -> float:
    return -float(log_softmax(logits / temperature, axis=1)[np.arange(len(codes)), codes].mean())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ketfit.errors.DataWarning")
@pytest.mark.parametrize("size", [3, 8, 20, 50])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [2.0, 5.0])
def test_few_samples_make_probabilities_no_worse_on_average(size: int, classes: int, scale: float) -> None:
    chance = np.random.default_rng(0)
    gains = {}
    for truth in (0.5, 0.7, 1.0, 1.5, 2.0, 4.0):
        gain = []
        for _ in range(60):
            logits, codes = draw(chance, size + 500, classes, scale, truth)
            y = torch.from_numpy(codes[:size])
            found = fit_temperature(torch.from_numpy(logits[:size]), y, torch.ones(size))
            gain.append(nll(logits[size:], codes[size:], 1) - nll(logits[size:], codes[size:], found))
        gains[truth] = float(np.mean(gain))
    assert np.mean(list(gains.values())) > 0
    assert min(gains.values()) > -0.03, "also where the logits were right as they are"


@pytest.mark.parametrize("truth", [0.5, 2.0, 5.0])
def test_many_samples_decide_the_temperature_alone(truth: float) -> None:
    logits, codes = draw(np.random.default_rng(0), 20_000, 3, 2.0, truth)
    x, y = torch.from_numpy(logits), torch.from_numpy(codes)
    errors = [abs(math.log(fit_temperature(x[:n], y[:n], torch.ones(n)) / truth)) for n in (20, 20_000)]
    assert errors[1] < 0.03
    assert errors[1] < errors[0]


class TestNoMinimumInside:
    """The temperature stays 1, with a warning, where ever smaller or ever larger ones fit ever better."""

    def kept(self, logits: list[list[float]], codes: list[int]) -> None:
        with pytest.warns(DataWarning, match="the temperature of the probabilities stays 1"):
            found = fit_temperature(torch.tensor(logits), torch.tensor(codes), torch.ones(len(codes)))
        assert found == 1.0

    def test_all_are_right(self) -> None:
        self.kept([[2.0, 0.0], [0.0, 0.5], [3.0, 1.0]], [0, 1, 0])
        self.kept([[400.0, 0.0], [0.0, 400.0]], [0, 1])
        self.kept([[0.02, 0.0]], [0])

    def test_all_are_wrong(self) -> None:
        self.kept([[2.0, 0.0], [0.0, 0.5]], [1, 0])

    def test_logits_are_equal(self) -> None:
        self.kept([[1.0, 1.0], [2.0, 2.0]], [0, 1])

    def test_one_wrong_of_many_is_inside(self) -> None:
        logits = torch.tensor([[2.0, 0.0]] * 9 + [[0.0, 2.0]])
        assert 0.5 < fit_temperature(logits, torch.zeros(10, dtype=torch.int64), torch.ones(10)) < 2


def test_the_unit_of_weights_does_not_count() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    for scale in (1e-3, 1.0, 1e3):
        assert effective_counts(scale * weight).sum() == pytest.approx(36 / 14)
    assert effective_counts(torch.full((7,), 0.3)).tolist() == pytest.approx([1.0] * 7)


class TestHead:
    """A head whose probabilities have a temperature."""

    shape = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1)

    def fitted(self, weight: Any = None, **settings: Any) -> tuple[QuantumHeadClassifier, np.ndarray]:
        chance = np.random.default_rng(0)
        x, y = chance.normal(size=(60, 5)), chance.integers(2, size=60)
        return QuantumHeadClassifier(self.shape, TrainConfig(epochs=5), **settings).fit(x, y, weight), x

    def test_labels_stay_and_probabilities_move(self) -> None:
        plain, x = self.fitted()
        scaled, _ = self.fitted(calibrate=True)
        assert plain.temperature_ == 1.0 != scaled.temperature_
        assert (plain.predict(x) == scaled.predict(x)).all()
        odds = [np.log(head.predict_proba(x)[:, 1] / head.predict_proba(x)[:, 0]) for head in (plain, scaled)]
        np.testing.assert_allclose(odds[0], scaled.temperature_ * odds[1], rtol=1e-9, atol=1e-12)

    def test_it_is_saved_with_the_model(self, tmp_path: Any) -> None:
        scaled, x = self.fitted(calibrate=True)
        scaled.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.temperature_, loaded.calibrate) == (scaled.temperature_, True)
        assert (loaded.predict_proba(x) == scaled.predict_proba(x)).all()
        measured = loaded.with_measurement(shots=10)
        assert measured.temperature_ == scaled.temperature_

    def test_without_validation_samples_there_is_none(self) -> None:
        with pytest.raises(ConfigError, match="calibrate=True takes validation samples, and there are none"):
            self.fitted(calibrate=True, validation_fraction=0)

    def test_the_unit_of_its_weights_does_not_count(self) -> None:
        found = [self.fitted(np.full(60, unit), calibrate=True)[0].temperature_ for unit in (1.0, 1e-4)]
        assert found[0] == pytest.approx(found[1], rel=1e-6)

    def test_few_samples_that_are_all_right_leave_the_probabilities_as_they_are(self, tmp_path: Any) -> None:
        x = np.random.default_rng(0).normal(size=(12, 5))
        y = (x[:, 0] > 0).astype(int)
        made = QuantumHeadClassifier(self.shape, TrainConfig(epochs=60, learning_rate=0.2), calibrate=True)
        with pytest.warns(DataWarning, match="stays 1: no number from 0.05 to 20.0 fits the 12 validation samples"):
            made.fit(x, y, validation=(5 * x, y))
        assert made.temperature_ == 1.0
        made.save_pretrained(tmp_path / "model")
        assert "not calibrated" in (tmp_path / "model" / "README.md").read_text()
        assert QuantumHeadClassifier.from_pretrained(tmp_path / "model").calibrate
