"""Temperature scaling against scipy, and on samples of a known temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ketfit.errors import DataWarning
from ketfit.evaluation.metrics import calibration
from ketfit.training.calibration import effective_counts, fit_temperature


def predictions(n: int = 300, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits of three classes, codes sampled from them at temperature 1, and the probabilities."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 3))
    codes = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    return logits, codes, softmax(logits, axis=1)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_fit_temperature_recovers_a_factor(factor: float) -> None:
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


def test_fit_temperature_weights_equal_repeated_samples() -> None:
    logits, codes, _ = predictions(50)
    weight = torch.tensor([1.0, 0, 3] * 16 + [1, 1])
    twice = torch.arange(50).repeat_interleave(weight.long())
    x, y = torch.from_numpy(logits), torch.from_numpy(codes)
    assert fit_temperature(x, y, weight) == pytest.approx(fit_temperature(x[twice], y[twice], torch.ones(len(twice))))


def draw(
    rng: np.random.Generator, n: int, classes: int, scale: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are `temperature` times too large, and classes sampled from the correct ones."""
    honest = scale * rng.normal(size=(n, classes))
    codes = (softmax(honest, axis=1).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return temperature * honest, codes


def nll(logits: np.ndarray, codes: np.ndarray, temperature: float) -> float:
    return -float(log_softmax(logits / temperature, axis=1)[np.arange(len(codes)), codes].mean())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ketfit.errors.DataWarning")
@pytest.mark.parametrize("size", [3, 8, 20, 50])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [2.0, 5.0])
def test_fit_temperature_of_few_samples_does_no_harm_on_average(size: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(0)
    gains = {}
    for truth in (0.5, 0.7, 1.0, 1.5, 2.0, 4.0):
        gain = []
        for _ in range(60):
            logits, codes = draw(rng, size + 500, classes, scale, truth)
            y = torch.from_numpy(codes[:size])
            found = fit_temperature(torch.from_numpy(logits[:size]), y, torch.ones(size))
            gain.append(nll(logits[size:], codes[size:], 1) - nll(logits[size:], codes[size:], found))
        gains[truth] = float(np.mean(gain))
    assert np.mean(list(gains.values())) > 0
    assert min(gains.values()) > -0.03, "also where the logits were right as they are"


@pytest.mark.parametrize("truth", [0.5, 2.0, 5.0])
def test_fit_temperature_of_many_samples_ignores_the_prior(truth: float) -> None:
    logits, codes = draw(np.random.default_rng(0), 20_000, 3, 2.0, truth)
    x, y = torch.from_numpy(logits), torch.from_numpy(codes)
    errors = [abs(math.log(fit_temperature(x[:n], y[:n], torch.ones(n)) / truth)) for n in (20, 20_000)]
    assert errors[1] < 0.03
    assert errors[1] < errors[0]


class TestNoMinimumInside:
    """Samples that do not determine the temperature: it stays 1, with a warning."""

    def kept(self, logits: list[list[float]], codes: list[int]) -> None:
        with pytest.warns(DataWarning, match="the temperature of the probabilities stays 1"):
            found = fit_temperature(torch.tensor(logits), torch.tensor(codes), torch.ones(len(codes)))
        assert found == 1.0

    def test_fit_temperature_of_correct_samples_is_one(self) -> None:
        self.kept([[2.0, 0.0], [0.0, 0.5], [3.0, 1.0]], [0, 1, 0])
        self.kept([[400.0, 0.0], [0.0, 400.0]], [0, 1])
        self.kept([[0.02, 0.0]], [0])

    def test_fit_temperature_of_wrong_samples_is_one(self) -> None:
        self.kept([[2.0, 0.0], [0.0, 0.5]], [1, 0])

    def test_fit_temperature_of_equal_logits_is_one(self) -> None:
        self.kept([[1.0, 1.0], [2.0, 2.0]], [0, 1])

    def test_fit_temperature_with_one_wrong_sample_is_fitted(self) -> None:
        logits = torch.tensor([[2.0, 0.0]] * 9 + [[0.0, 2.0]])
        assert 0.5 < fit_temperature(logits, torch.zeros(10, dtype=torch.int64), torch.ones(10)) < 2


def test_effective_counts_ignore_the_unit() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    for scale in (1e-3, 1.0, 1e3):
        assert effective_counts(scale * weight).sum() == pytest.approx(36 / 14)
    assert effective_counts(torch.full((7,), 0.3)).tolist() == pytest.approx([1.0] * 7)
