"""Heads that train, predict, save and resume with shots and noise."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ketfit import HeadConfig, NoiseConfig, QuantumHead, QuantumHeadClassifier, TrainConfig
from ketfit.errors import ConfigError, TrainingError
from ketfit.evaluation.compare import evaluate_head
from ketfit.persistence.model_files import load_model
from ketfit.simulate.expectation import MeasurementContext, expectation
from ketfit.simulate.mitigation import mitigated_expectation

NOISE = NoiseConfig(depolarizing_1q=0.005, depolarizing_2q=0.03, readout=((0.97, 0.05), (0.03, 0.95)))
SHAPE: dict[str, Any] = {"n_qubits": 4, "connectivity": 1, "encoder_layers": 1, "main_layers": 1}
SHORT = TrainConfig(epochs=4, learning_rate=0.1, batch_size=16)
X = np.random.default_rng(0).normal(size=(48, 8))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
WAYS: dict[str, dict[str, Any]] = {
    "shots": {"shots": 50},
    "straight through": {"shots": 50, "gradient": "straight_through"},
    "parameter shift": {"shots": 50, "gradient": "parameter_shift"},
    "no shots in training": {"shots": 50, "gradient": "exact"},
    "noise": {"noise": NOISE},
    "trajectories": {"noise": NOISE, "trajectories": 8},
    "both": {"noise": NOISE, "shots": 50},
    "sampled twice": {"noise": NOISE, "trajectories": 8, "shots": 50},
    "three qubits": {"noise": NOISE, "shots": 50, "n_measured": 3},
    "mitigated": {"noise": NOISE, "shots": 50, "mitigation": ("readout", "zero_noise")},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def fitted(seed: int = 0, **way: Any) -> QuantumHeadClassifier:
    return QuantumHeadClassifier(HeadConfig(**SHAPE, **way), SHORT, seed).fit(X, Y)


def numbers_of(classifier: QuantumHeadClassifier) -> dict[str, torch.Tensor]:
    return classifier.module_.state_dict()


def same(one: QuantumHeadClassifier, other: QuantumHeadClassifier) -> bool:
    pairs = zip(numbers_of(one).values(), numbers_of(other).values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


@every_way
def test_two_runs_of_a_seed_are_equal_and_two_draws_are_not(way: dict[str, Any]) -> None:
    one, other = fitted(**way), fitted(**way)
    assert same(one, other)
    first = one.predict_proba(X)
    np.testing.assert_array_equal(first, other.predict_proba(X))
    assert np.array_equal(first, one.predict_proba(X)) == (not one.head_config_.is_random)


@every_way
def test_training_moves_every_part(way: dict[str, Any]) -> None:
    classifier = fitted(**way)
    start = QuantumHead(classifier.head_config_, 8, 2)
    torch.manual_seed(0)
    start.double()(torch.from_numpy(X)).square().sum().backward()
    for name, parameter in start.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every_way
def test_a_run_that_was_stopped_goes_on_as_it_would_have(way: dict[str, Any], tmp_path: Path) -> None:
    whole = fitted(**way)
    head, place = HeadConfig(**SHAPE, **way), tmp_path / "run.checkpoint"
    stopped = QuantumHeadClassifier(head, SHORT)
    real = torch.optim.AdamW.step
    steps = []

    def step(self: Any, *args: Any) -> Any:
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(X, Y, checkpoint=place)
    assert place.exists()
    assert same(stopped.fit(X, Y, checkpoint=place), whole)


@pytest.mark.parametrize("other", [{"shots": 51}, {"noise": NOISE}, {"reference_amplitude": 0.5}, {}])
def test_a_checkpoint_of_other_settings_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "run.checkpoint"
    QuantumHeadClassifier(HeadConfig(**SHAPE, shots=50), SHORT).fit(X, Y, checkpoint=place)
    with pytest.raises(TrainingError, match="belongs to another run .its head"):
        QuantumHeadClassifier(HeadConfig(**SHAPE, **other), SHORT).fit(X, Y, checkpoint=place)


@pytest.mark.slow
@every_way
def test_a_saved_model_measures_as_it_did(way: dict[str, Any], tmp_path: Path) -> None:
    classifier = fitted(**way)
    classifier.save_pretrained(tmp_path / "model")
    loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
    assert loaded.head_config_ == classifier.head_config_
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted(**way).predict_proba(X))
    policy = json.loads((tmp_path / "model" / "config.json").read_text())["head"]["gradient"]
    assert policy == (way.get("gradient", "reparameterized") if "shots" in way else None)


@pytest.mark.slow
def test_the_card_says_how_it_was_measured(tmp_path: Path) -> None:
    for name, way in WAYS.items():
        fitted(**way).save_pretrained(tmp_path / name)
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert ("simulated exactly" in card, "The expectation values are exact" in card) == (False, False)
        assert ("| read-out | 50 shots, gradient " in card) == ("shots" in way)
        assert ("| noise | depolarizing_1q 0.005, depolarizing_2q 0.03, readout" in card) == ("noise" in way)
        assert (", by 8 trajectories a sample |" in card) == ("trajectories" in way)
    fitted().save_pretrained(tmp_path / "exact")
    card = (tmp_path / "exact" / "README.md").read_text(encoding="utf-8")
    assert "simulated exactly" in card
    assert "The expectation values are exact" in card
    assert "| noise | none |" in card


@pytest.mark.slow
@every_way
def test_a_copy_has_draws_of_its_own(way: dict[str, Any]) -> None:
    classifier = fitted(**way)
    for twin in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(twin.predict_proba(X), fitted(**way).predict_proba(X))


def test_a_head_that_was_trained_exactly_is_measured_under_anything_and_back() -> None:
    exact = fitted()
    noisy = exact.with_measurement(noise=NOISE, shots=200)
    assert same(noisy, exact)
    assert noisy.head_config_ == HeadConfig(**SHAPE, noise=NOISE, shots=200)
    assert exact.head_config_ == HeadConfig(**SHAPE)
    assert not np.array_equal(noisy.predict_proba(X), exact.predict_proba(X))
    np.testing.assert_array_equal(noisy.with_measurement().predict_proba(X), exact.predict_proba(X))
    trained = fitted(noise=NOISE, trajectories=8, shots=50)
    assert trained.with_measurement().head_config_ == HeadConfig(**SHAPE)
    with torch.no_grad():  # the copy's parameters are its own
        noisy.module_.weights.zero_()
    assert not same(noisy, exact)


def test_only_what_is_about_measurement_can_be_changed() -> None:
    with pytest.raises(ConfigError, match="'n_qubits' is not about measurement; known are shots, gradient, noise, "):
        fitted().with_measurement(n_qubits=5)
    with pytest.raises(ConfigError, match="trajectories=4 is about noise; give noise too"):
        fitted().with_measurement(trajectories=4)


def test_the_head_passes_its_settings_on(monkeypatch: pytest.MonkeyPatch) -> None:
    head = QuantumHead(HeadConfig(**SHAPE, noise=NOISE), 8, 2)
    x = torch.from_numpy(X).float()
    z = head.angle_scale * head.encoder(x)
    expected = head.linear(expectation(head.circuit, head.weights, z, noise=NOISE))
    torch.testing.assert_close(head(x), expected)
    mitigated = head.with_measurement(noise=NOISE, mitigation=("readout",))
    torch.testing.assert_close(mitigated(x), expected)  # not where it is trained
    values = mitigated_expectation(head.circuit, head.weights, z, noise=NOISE, mitigation=("readout",))
    torch.testing.assert_close(mitigated.eval()(x), head.linear(values))
    assert not torch.allclose(mitigated(x), expected, atol=1e-4)


def test_parameter_shift_counts_what_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    head = QuantumHead(HeadConfig(**SHAPE, shots=30, gradient="parameter_shift"), 8, 2)
    rows: list[int] = []
    run = MeasurementContext.distribution

    def counted(self: Any, *arguments: Any) -> torch.Tensor:
        result = run(self, *arguments)
        rows.append(len(result))
        return result

    monkeypatch.setattr(MeasurementContext, "distribution", counted)
    head(torch.from_numpy(X).float()).sum().backward()
    cost = head.step_cost(len(X))
    assert cost is not None
    assert (cost.circuits, cost.shots) == (sum(rows), 30 * sum(rows))
    assert QuantumHead(HeadConfig(**SHAPE), 8, 2).step_cost(len(X)) is None


def test_evaluate_head_of_several_draws_returns_their_spread() -> None:
    classifier = fitted().with_measurement(shots=5)
    twin = fitted().with_measurement(shots=5)
    shares = [float((twin.predict(X) == Y).mean()) for _ in range(6)]
    result, _ = evaluate_head(classifier, X, Y, 6)
    assert result.accuracy == pytest.approx(np.mean(shares))
    assert result.spread == pytest.approx(np.std(shares, ddof=1))
    assert (result.lowest, result.highest, result.draws) == (min(shares), max(shares), 6)
    assert result.interval[0] < result.accuracy < result.interval[1]
    assert evaluate_head(fitted(), X, Y, 1)[0].spread is None


def test_loaded_head_is_in_evaluation_mode(tmp_path: Path) -> None:
    fitted(**WAYS["mitigated"]).save_pretrained(tmp_path / "model")
    head, _ = load_model(tmp_path / "model")
    assert not any(module.training for module in head.modules())


def test_prediction_from_training_mode_is_that_of_evaluation_mode() -> None:
    """Whoever goes on training a fitted module by hand still predicts what inference gives."""
    one, other = fitted(**WAYS["mitigated"]), fitted(**WAYS["mitigated"])
    one.module_.train()
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.module_.training
    assert not other.module_.training
