"""QuantumHeadClassifier with shots and noise, calibrated, in a pipeline and as the head of a SetFit model."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ketfit import NoiseConfig, QuantumHead
from ketfit.bodies.body import Body
from ketfit.data.splits import holdout_split
from ketfit.errors import ConfigError, DataWarning, InputError, TrainingError
from ketfit.estimators.base import EmbeddingSource, FitData
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.compare import evaluate_head
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.projection import Projection
from ketfit.persistence.model_files import load_model
from ketfit.simulate.expectation import expectation
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.mitigation import mitigated_expectation

NOISE = NoiseConfig(depolarizing_1q=0.005, depolarizing_2q=0.03, readout=((0.97, 0.05), (0.03, 0.95)))


SHAPE: dict[str, Any] = {"n_qubits": 4, "connectivity": 1, "encoder_layers": 1, "main_layers": 1}


SHORT = TrainConfig(epochs=4, learning_rate=0.1, batch_size=16)


BODY_HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)
TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = [1, 1, 1, 1, 0, 0, 0, 0]
FEW_EPOCHS = TrainConfig(epochs=3, learning_rate=0.1)


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
def test_equal_seeds_fit_equally_and_predictions_sample_anew(way: dict[str, Any]) -> None:
    one, other = fitted(**way), fitted(**way)
    assert same(one, other)
    first = one.predict_proba(X)
    np.testing.assert_array_equal(first, other.predict_proba(X))
    assert np.array_equal(first, one.predict_proba(X)) == (not one.head_config_.is_random)


@every_way
def test_fit_trains_every_parameter(way: dict[str, Any]) -> None:
    classifier = fitted(**way)
    start = QuantumHead(classifier.head_config_, 8, 2)
    torch.manual_seed(0)
    start.double()(torch.from_numpy(X)).square().sum().backward()
    for name, parameter in start.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every_way
def test_resumed_fit_equals_an_uninterrupted_one(way: dict[str, Any], tmp_path: Path) -> None:
    whole = fitted(**way)
    head, checkpoint = HeadConfig(**SHAPE, **way), tmp_path / "run.checkpoint"
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
            stopped.fit(X, Y, checkpoint=checkpoint)
    assert checkpoint.exists()
    assert same(stopped.fit(X, Y, checkpoint=checkpoint), whole)


@pytest.mark.parametrize("other", [{"shots": 51}, {"noise": NOISE}, {"reference_amplitude": 0.5}, {}])
def test_checkpoint_of_other_settings_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    QuantumHeadClassifier(HeadConfig(**SHAPE, shots=50), SHORT).fit(X, Y, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="belongs to another run .its head"):
        QuantumHeadClassifier(HeadConfig(**SHAPE, **other), SHORT).fit(X, Y, checkpoint=checkpoint)


@pytest.mark.slow
@every_way
def test_loaded_model_has_the_same_measurement(way: dict[str, Any], tmp_path: Path) -> None:
    classifier = fitted(**way)
    classifier.save_pretrained(tmp_path / "model")
    loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
    assert loaded.head_config_ == classifier.head_config_
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted(**way).predict_proba(X))
    policy = json.loads((tmp_path / "model" / "config.json").read_text())["head"]["gradient"]
    assert policy == (way.get("gradient", "reparameterized") if "shots" in way else None)


@pytest.mark.slow
def test_model_card_lists_the_measurement(tmp_path: Path) -> None:
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
def test_copy_samples_from_its_own_stream(way: dict[str, Any]) -> None:
    classifier = fitted(**way)
    for twin in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(twin.predict_proba(X), fitted(**way).predict_proba(X))


def test_with_measurement_changes_shots_and_noise_and_back() -> None:
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


def test_with_measurement_refuses_other_settings() -> None:
    with pytest.raises(ConfigError, match="'n_qubits' is not about measurement; known are shots, gradient, noise, "):
        fitted().with_measurement(n_qubits=5)
    with pytest.raises(ConfigError, match="trajectories=4 is about noise; give noise too"):
        fitted().with_measurement(trajectories=4)


def test_forward_uses_the_measurement_settings(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_step_cost_of_parameter_shift_equals_the_circuits_run(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_predict_in_training_mode_equals_evaluation_mode() -> None:
    """A fitted module in training mode predicts as in evaluation mode."""
    one, other = fitted(**WAYS["mitigated"]), fitted(**WAYS["mitigated"])
    one.module_.train()
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.module_.training
    assert not other.module_.training


class TestCalibrate:
    """Heads with a calibrated temperature."""

    shape = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1)

    def fitted(self, weight: Any = None, **settings: Any) -> tuple[QuantumHeadClassifier, np.ndarray]:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 5)), rng.integers(2, size=60)
        return QuantumHeadClassifier(self.shape, TrainConfig(epochs=5), **settings).fit(x, y, weight), x

    def test_calibrate_changes_probabilities_and_not_labels(self) -> None:
        plain, x = self.fitted()
        scaled, _ = self.fitted(calibrate=True)
        assert plain.temperature_ == 1.0 != scaled.temperature_
        assert (plain.predict(x) == scaled.predict(x)).all()
        odds = [np.log(head.predict_proba(x)[:, 1] / head.predict_proba(x)[:, 0]) for head in (plain, scaled)]
        np.testing.assert_allclose(odds[0], scaled.temperature_ * odds[1], rtol=1e-9, atol=1e-12)

    def test_temperature_is_saved_with_the_model(self, tmp_path: Any) -> None:
        scaled, x = self.fitted(calibrate=True)
        scaled.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert (loaded.temperature_, loaded.calibrate) == (scaled.temperature_, True)
        assert (loaded.predict_proba(x) == scaled.predict_proba(x)).all()
        measured = loaded.with_measurement(shots=10)
        assert measured.temperature_ == scaled.temperature_

    def test_calibrate_without_validation_samples_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="calibrate=True takes validation samples, and there are none"):
            self.fitted(calibrate=True, validation_fraction=0)

    def test_temperature_ignores_the_unit_of_the_weights(self) -> None:
        found = [self.fitted(np.full(60, unit), calibrate=True)[0].temperature_ for unit in (1.0, 1e-4)]
        assert found[0] == pytest.approx(found[1], rel=1e-6)

    def test_calibrate_on_correct_samples_keeps_temperature_one(self, tmp_path: Any) -> None:
        x = np.random.default_rng(0).normal(size=(12, 5))
        y = (x[:, 0] > 0).astype(int)
        made = QuantumHeadClassifier(self.shape, TrainConfig(epochs=60, learning_rate=0.2), calibrate=True)
        with pytest.warns(DataWarning, match="stays 1: no number from 0.05 to 20.0 fits the 12 validation samples"):
            made.fit(x, y, validation=(5 * x, y))
        assert made.temperature_ == 1.0
        made.save_pretrained(tmp_path / "model")
        assert "not calibrated" in (tmp_path / "model" / "README.md").read_text()
        assert QuantumHeadClassifier.from_pretrained(tmp_path / "model").calibrate


def test_pipeline_of_body_and_head_equals_head_on_embeddings(tiny_body: Body) -> None:
    embed = FunctionTransformer(lambda texts: tiny_body.encode(texts), validate=False)
    pipeline = make_pipeline(embed, QuantumHeadClassifier(BODY_HEAD, FEW_EPOCHS)).fit(TEXTS, LABELS)
    embeddings = tiny_body.encode(TEXTS)
    head = QuantumHeadClassifier(BODY_HEAD, FEW_EPOCHS).fit(embeddings, LABELS)
    np.testing.assert_array_equal(pipeline.predict_proba(TEXTS), head.predict_proba(embeddings))


class TestSetFit:
    @pytest.mark.parametrize("labels", [LABELS, ["good"] * 4 + ["bad"] * 4])
    def test_setfit_model_with_a_quantum_head_predicts_equally(self, labels: Any, tiny_body_folder: Path) -> None:
        from setfit import SetFitModel

        body = SentenceTransformer(str(tiny_body_folder), device="cpu")
        model = SetFitModel(model_body=body, model_head=QuantumHeadClassifier(BODY_HEAD, FEW_EPOCHS))
        model.fit(TEXTS, labels, num_epochs=1, show_progress_bar=False)
        predicted, proba = model.predict(TEXTS), model.predict_proba(TEXTS)
        embeddings = body.encode(TEXTS)
        head = QuantumHeadClassifier(BODY_HEAD, FEW_EPOCHS).fit(embeddings, labels)
        np.testing.assert_allclose(np.asarray(proba), head.predict_proba(embeddings), atol=1e-5)
        assert np.asarray(predicted).tolist() == head.predict(embeddings).tolist()
        assert np.asarray(model.predict("good film")).tolist() == np.asarray(predicted).tolist()[0]


class TestComponents:
    """Principal components of the training embeddings."""

    HEAD = HeadConfig(**{**SHAPE, "n_qubits": 3, "components": 4, "reference_amplitude": 1})

    def fitted(self, x: Any = X, y: Any = Y, **arguments: Any) -> QuantumHeadClassifier:
        return QuantumHeadClassifier(self.HEAD, SHORT).fit(x, y, **arguments)

    def test_projection_is_fitted_on_training_side_only(self) -> None:
        classifier = self.fitted()
        train, validation = holdout_split(Y, 0.15, 0)
        assert len(validation)
        expected = Projection(8, 4).double()
        expected.fit(X[train])
        projection = classifier.module_.projection
        assert projection is not None
        assert torch.equal(projection.directions, expected.directions)
        assert torch.equal(projection.mean, expected.mean)
        assert classifier.n_parameters_ == self.HEAD.count_parameters(8, 2)["total"]

    def test_projection_leaves_out_validation_and_weights_of_zero(self) -> None:
        x, y = np.concatenate([X, 100 * X]), np.concatenate([Y, Y])
        weights = np.repeat([1.0, 0.0], len(X))
        held = (100 * X, Y)
        one = self.fitted(x, y, sample_weight=weights, validation=held)
        other = self.fitted(validation=held)
        for name, tensor in other.module_.state_dict().items():
            assert torch.equal(one.module_.state_dict()[name], tensor), name

    def test_predictions_equal_head_on_pca(self) -> None:
        classifier = self.fitted()
        train, _ = holdout_split(Y, 0.15, 0)
        pca = PCA(4, svd_solver="full").fit(X[train])
        projection = classifier.module_.projection
        assert projection is not None
        signs = (pca.components_ * projection.directions.numpy()).sum(axis=1)
        plain = QuantumHead(self.HEAD.updated(components=None), 4, 2, dtype=torch.float64)
        tensors = classifier.module_.state_dict()
        plain.load_state_dict({name: tensors[name] for name in plain.state_dict()})
        with torch.no_grad():
            logits = plain.eval()(torch.from_numpy(pca.transform(X) * signs))
        np.testing.assert_allclose(classifier.predict_proba(X), logits.softmax(dim=1), atol=1e-10)

    def test_too_many_components_raise_and_keep_the_old_fit(self) -> None:
        classifier = self.fitted()
        before = classifier.predict_proba(X)
        with pytest.raises(ConfigError, match=r"components=4: 4 training sentences, .* at most 3 principal components"):
            classifier.set_params(validation_fraction=0).fit(X[:4], [0, 1, 0, 1])
        with pytest.raises(ConfigError, match="components=4: an embedding of width 3 has 3 principal components"):
            classifier.fit(X[:, :3], Y)
        with pytest.raises(ConfigError, match="the 12 training embeddings have only 2 principal components"):
            classifier.fit(np.repeat(X[:3], 4, axis=0), [0, 1] * 6)
        assert np.array_equal(classifier.predict_proba(X), before)

    def test_embedding_at_the_mean_raises(self) -> None:
        classifier = self.fitted()
        assert classifier.module_.projection is not None
        with pytest.raises(InputError, match="projected embedding 1 is all zeros"):
            classifier.predict([X[0], classifier.module_.projection.mean.numpy()])

    def test_zero_embedding_away_from_the_mean_is_predicted(self) -> None:
        assert len(self.fitted(X + 1).predict(np.zeros((1, 8)))) == 1

    def test_copies_and_measured_copies_have_the_projection(self) -> None:
        classifier = self.fitted()
        for copied in (
            copy.deepcopy(classifier),
            pickle.loads(pickle.dumps(classifier)),
            classifier.with_measurement(),
        ):
            assert np.array_equal(copied.predict_proba(X), classifier.predict_proba(X))

    def test_checkpoint_of_sentences_resumes_with_embeddings_of_other_last_bits(self, tmp_path: Path) -> None:
        source = EmbeddingSource("body", np.array([str(row) for row in range(len(X))]), None)
        first = QuantumHeadClassifier(self.HEAD, SHORT)._fit(FitData(X, Y, source=source), tmp_path / "c", False)
        again = QuantumHeadClassifier(self.HEAD, SHORT)
        again._fit(FitData(X * (1 + 1e-7), Y, source=source), tmp_path / "c", False)
        assert again.history_ == first.history_
        assert np.array_equal(again.predict_proba(X), first.predict_proba(X))
        with pytest.raises(TrainingError, match="its head differ"):
            QuantumHeadClassifier(self.HEAD.updated(components=3), SHORT)._fit(
                FitData(X, Y, source=source), tmp_path / "c", False
            )
