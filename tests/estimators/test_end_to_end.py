"""End-to-end training: gradients, parameter groups, selection and resumption."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ketfit.bodies.body import Body
from ketfit.bodies.finetuned import tokenize, trainable_copy
from ketfit.data.labelled import LabelledTexts
from ketfit.errors import ConfigError, DataError, InsufficientMemoryError, TrainingError
from ketfit.estimators import end_to_end
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.end_to_end import TunedModule, tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.model.tuning import EndToEndConfig
from ketfit.training import loop as train

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
HELD = (["a fine good film", "the dull bad film"], ["yes", "no"])
SHAPE = HeadConfig(n_qubits=5, encoder_layers=2, connectivity=2, main_layers=1, reference_amplitude=1)
SHORT = TrainConfig(epochs=2)
QUICK = EndToEndConfig(epochs=3, batch_size=4, learning_rate=1e-3, patience=None, precision="float32")


@pytest.fixture
def quantum(tiny_body: Body) -> QuantumHeadClassifier:
    return QuantumHeadClassifier(SHAPE, SHORT).fit(tiny_body.encode(TEXTS), LABELS, validation=None)


@pytest.fixture
def linear(tiny_body: Body) -> MLPHead:
    return MLPHead(hidden=0, train=SHORT).fit(tiny_body.encode(TEXTS), LABELS)


def joined(body: Body, head: nn.Module, config: EndToEndConfig = QUICK) -> tuple[TunedModule, Tensor]:
    """Return a module of a new copy of the body, and the tokens of the sentences."""
    transformer = trainable_copy(body, config.last_layers)
    features = tokenize(transformer, TEXTS)
    names = [name for name, value in features.items() if isinstance(value, Tensor)]
    return TunedModule(transformer, head, config, names).eval(), torch.stack([features[name] for name in names], dim=1)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


class TestModule:
    def test_tuned_module_equals_body_then_head(self, tiny_body: Body) -> None:
        head = QuantumHead(SHAPE, 16, 3)
        module, tokens = joined(tiny_body, head)
        embeddings = tiny_body.encode(TEXTS, cache=False)
        with torch.no_grad():
            np.testing.assert_allclose(module.embed(tokens).numpy(), embeddings, atol=1e-6)
            np.testing.assert_allclose(module(tokens), head(torch.from_numpy(embeddings)), atol=1e-6)

    def test_padding_does_not_change_the_logits(self, tiny_body: Body) -> None:
        module, tokens = joined(tiny_body, QuantumHead(SHAPE, 16, 2))
        wider = torch.cat([tokens, torch.zeros(8, tokens.shape[1], 7, dtype=tokens.dtype)], dim=2)
        with torch.no_grad():
            assert torch.equal(module(wider), module(tokens))
            np.testing.assert_allclose(module(wider[:1]), module(tokens)[:1], atol=1e-6)

    def test_gradients_reach_the_first_layer(self, tiny_body: Body) -> None:
        module, tokens = joined(tiny_body, QuantumHead(SHAPE, 16, 2))
        nn.functional.cross_entropy(module(tokens), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])).backward()
        words = tokens[:, module.names.index("input_ids")].unique()
        first = module.transformer[0].auto_model.embeddings.word_embeddings.weight.grad
        assert (first[words[words > 0]].abs().amax(dim=1) > 0).all(), "every word that was read"
        layer = module.transformer[0].auto_model.encoder.layer[0].attention.self.query.weight.grad
        assert layer.abs().max() > 0
        assert module.head.encoder.weights.grad.abs().max() > 0

    @pytest.mark.parametrize("shape", [SHAPE, HeadConfig(n_qubits=4, encoder_layers=1, connectivity=1, main_layers=1)])
    def test_gradients_through_amplitudes_equal_finite_differences(self, shape: HeadConfig, tiny_body: Body) -> None:
        module, tokens = joined(tiny_body, QuantumHead(shape, 16, 2))
        module.double()
        parts = dict(module.named_parameters())
        names = [name for name in parts if "word_embeddings" in name or "query.weight" in name or "LayerNorm" in name]
        names += ["head.encoder.weights", "head.weights"]
        weights = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def value() -> Tensor:
            return (weights * module(tokens)).sum()

        value().backward()
        for name in names:
            parameter, step = parts[name], 1e-6
            index = int(parameter.grad.abs().argmax())  # type: ignore[union-attr]
            flat = parameter.detach().view(-1)
            values = []
            with torch.no_grad():
                for sign in (1, -1):
                    flat[index] += sign * step
                    values.append(value().item())
                    flat[index] -= sign * step
            numeric = (values[0] - values[1]) / (2 * step)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(numeric, rel=1e-5, abs=1e-8), name  # type: ignore[union-attr]

    def test_projection_stays_fixed_and_passes_gradients_on(self, tiny_body: Body) -> None:
        shape = SHAPE.updated(n_qubits=3, components=3)
        classifier = QuantumHeadClassifier(shape, SHORT, validation_fraction=0).fit(tiny_body.encode(TEXTS), LABELS)
        body, tuned = tune_end_to_end(tiny_body, classifier, TEXTS, LABELS, QUICK)
        changed = moved(state(classifier.module_), tuned.module_)
        assert "encoder.weights" in changed
        assert not {name for name in changed if name.startswith("projection")}
        assert body.fingerprint != tiny_body.fingerprint
        module, tokens = joined(tiny_body, tuned.module_)
        nn.functional.cross_entropy(module(tokens), torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])).backward()
        layer = module.transformer[0].auto_model.encoder.layer[0].attention.self.query.weight.grad
        assert layer.abs().max() > 0

    def test_dropout_uses_the_generator_alone(self, tiny_body: Body) -> None:
        module, tokens = joined(tiny_body, QuantumHead(SHAPE, 16, 2))
        module.train()
        before = torch.get_rng_state()
        results = []
        for seed in (0, 0, 1):
            module.generator = torch.Generator().manual_seed(seed)
            assert module.head.generator is module.generator
            results.append(module(tokens).detach())
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
        assert torch.equal(torch.get_rng_state(), before)

    def test_parameter_groups_have_their_own_learning_rates(self, tiny_body: Body) -> None:
        config = EndToEndConfig(learning_rate=1e-5, angle_learning_rate=1e-3, linear_learning_rate=1e-2)
        head = QuantumHead(SHAPE.updated(train_angle_scale=True), 16, 2)
        module, _ = joined(tiny_body, head, config)
        parts = module.parameter_groups()
        assert [rate for _, rate in parts] == [1e-5, 1e-3, 1e-2]
        assert [sum(map(torch.numel, part)) for part, _ in parts] == [
            sum(map(torch.numel, module.transformer.parameters())),
            head.parameter_counts()["total"] - head.parameter_counts()["linear"],
            head.parameter_counts()["linear"],
        ]
        classical, _ = joined(tiny_body, nn.Sequential(nn.Linear(16, 3), nn.GELU(), nn.Linear(3, 2)), config)
        assert [rate for _, rate in classical.parameter_groups()] == [1e-5, 1e-2]


class TestTuning:
    def test_head_follows_the_body_to_its_device(
        self, tiny_body: Body, quantum: QuantumHeadClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = end_to_end.trainable_copy
        monkeypatch.setattr(end_to_end, "trainable_copy", lambda *arguments: plain(*arguments).to("meta"))
        run = end_to_end._prepare(tiny_body, quantum, LabelledTexts.from_columns(TEXTS, LABELS), None, QUICK, None)
        assert {parameter.device.type for parameter in run.module.parameters()} == {"meta"}
        assert {parameter.device.type for parameter in quantum.module_.parameters()} == {"cpu"}

    @pytest.mark.parametrize("kind", ["quantum", "linear"])
    def test_tune_trains_all_parts_of_copies(
        self, kind: str, tiny_body: Body, request: pytest.FixtureRequest, fresh_cache: Path
    ) -> None:
        head: TorchHeadClassifier = request.getfixturevalue(kind)
        before, body_before = state(head.module_), state(tiny_body.transformer)
        body, fitted = tune_end_to_end(tiny_body, head, TEXTS, LABELS, QUICK.updated(epochs=8), validation=HELD)
        assert not moved(before, head.module_)
        assert not moved(body_before, tiny_body.transformer)
        assert moved(before, fitted.module_) >= ({"encoder.weights", "weights", "linear.weight"} & before.keys())
        assert "0.auto_model.embeddings.word_embeddings.weight" in {
            name.replace("0.model.", "0.auto_model.") for name in moved(body_before, body.transformer)
        }
        assert fitted.history_[-1].train_loss < fitted.history_[0].train_loss
        assert (body.tuning.stages[0].method, body.name) == ("full", tiny_body.name)  # type: ignore[union-attr]
        assert body.folder.name == body.fingerprint[:32]

    def test_tune_restores_the_best_epoch(
        self, tiny_body: Body, quantum: QuantumHeadClassifier, fresh_cache: Path
    ) -> None:
        config = QUICK.updated(epochs=6, learning_rate=0.02, angle_learning_rate=0.1, schedule="constant")
        body, fitted = tune_end_to_end(tiny_body, quantum, TEXTS, LABELS, config, validation=HELD)
        losses = [row.validation_loss for row in fitted.history_]
        assert fitted.best_epoch_ == int(np.argmin(losses))  # type: ignore[arg-type]
        assert fitted.best_epoch_ < 5, "otherwise nothing was restored"
        proba = fitted.predict_proba(body.encode(HELD[0]))
        measured = -np.mean(np.log([proba[0, 1], proba[1, 0]]))
        assert measured == pytest.approx(losses[fitted.best_epoch_], rel=1e-4)

    def test_tune_with_patience_stops_early(
        self, tiny_body: Body, quantum: QuantumHeadClassifier, fresh_cache: Path
    ) -> None:
        config = QUICK.updated(epochs=40, learning_rate=0.05, patience=2, schedule="constant")
        _, fitted = tune_end_to_end(tiny_body, quantum, TEXTS, LABELS, config, validation=HELD)
        assert len(fitted.history_) == fitted.best_epoch_ + 3 < 40

    def test_last_layers_leaves_the_others_unchanged(self, tiny_body: Body, linear: MLPHead, fresh_cache: Path) -> None:
        body, _ = tune_end_to_end(tiny_body, linear, TEXTS, LABELS, QUICK.updated(last_layers=1))
        names = moved(state(tiny_body.transformer), body.transformer)
        assert names
        assert all(".layer.0." in name for name in names)

    def test_equal_seeds_give_equal_bodies(self, tiny_body: Body, linear: MLPHead, fresh_cache: Path) -> None:
        other = copy.copy(linear).set_params(seed=1)
        bodies = [tune_end_to_end(tiny_body, head, TEXTS, LABELS, QUICK)[0] for head in (linear, linear, other)]
        assert bodies[0].fingerprint == bodies[1].fingerprint != bodies[2].fingerprint

    def test_sentences_of_weight_zero_are_left_out(self, tiny_body: Body, linear: MLPHead, fresh_cache: Path) -> None:
        kept = [0, 1, 2, 4, 5, 6]
        some = tune_end_to_end(tiny_body, linear, [TEXTS[i] for i in kept], [LABELS[i] for i in kept], QUICK)[0]
        weighted = tune_end_to_end(tiny_body, linear, TEXTS, LABELS, QUICK, sample_weight=[1, 1, 1, 0, 1, 1, 1, 0])[0]
        assert weighted.fingerprint == some.fingerprint

    def test_group_by_length_batches_sentences_of_similar_length(
        self, tiny_body: Body, linear: MLPHead, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        widths: list[list[int]] = []
        plain = TunedModule.embed

        def embed(module: TunedModule, tokens: Tensor) -> Tensor:
            if module.training:
                widths.append(tokens[:, module.names.index("attention_mask")].sum(dim=1).tolist())
            return plain(module, tokens)

        monkeypatch.setattr(TunedModule, "embed", embed)
        spreads = []
        for grouped in (True, False):
            widths.clear()
            config = QUICK.updated(group_by_length=grouped, batch_size=3, epochs=8)
            tune_end_to_end(tiny_body, linear, [*TEXTS[:6], "the film " * 4, "not a " * 6], LABELS, config)
            epochs = [widths[start : start + 3] for start in range(0, len(widths), 3)]
            assert len({str(sorted(width for batch in epoch for width in batch)) for epoch in epochs}) == 1
            assert len({str(epoch) for epoch in epochs}) > 1, "in another order each time"
            spreads.append(np.mean([max(batch) - min(batch) for batch in widths]))
        assert spreads[0] < spreads[1]

    def test_bfloat16_tunes_a_float32_body(
        self, tiny_body: Body, quantum: QuantumHeadClassifier, fresh_cache: Path
    ) -> None:
        body, fitted = tune_end_to_end(tiny_body, quantum, TEXTS, LABELS, QUICK.updated(precision="bfloat16"))
        assert {tensor.dtype for tensor in body.transformer.parameters()} == {torch.float32}
        assert fitted.module_.weights.dtype == torch.float32
        exact, _ = tune_end_to_end(tiny_body, quantum, TEXTS, LABELS, QUICK)
        assert exact.fingerprint != body.fingerprint

    @pytest.mark.parametrize("kind", ["quantum", "linear"])
    def test_resumed_run_gives_the_same_body_and_head(
        self,
        kind: str,
        tiny_body: Body,
        request: pytest.FixtureRequest,
        fresh_cache: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        head: TorchHeadClassifier = request.getfixturevalue(kind)
        whole = tune_end_to_end(tiny_body, head, TEXTS, LABELS, QUICK, validation=HELD)
        plain = train._TrainingRun.save

        def save(run: Any, path: Path) -> None:
            plain(run, path)
            if len(run.history) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(train._TrainingRun, "save", save)
            tune_end_to_end(tiny_body, head, TEXTS, LABELS, QUICK, validation=HELD, checkpoint=tmp_path / "c")
        again = tune_end_to_end(tiny_body, head, TEXTS, LABELS, QUICK, validation=HELD, checkpoint=str(tmp_path / "c"))
        assert again[0].fingerprint == whole[0].fingerprint
        assert not moved(state(whole[1].module_), again[1].module_)
        assert again[1].history_ == whole[1].history_
        for change, named in (
            ({"texts": TEXTS[::-1]}, "data"),
            ({"config": QUICK.updated(weight_decay=0.0)}, "training settings and head"),
            ({"head": copy.copy(head).set_params(seed=9)}, "seed"),
        ):
            given = {"head": head, "texts": TEXTS, "config": QUICK, **change}
            with pytest.raises(TrainingError, match=rf"belongs to another run \(its {named} differ\)"):
                tune_end_to_end(tiny_body, labels=LABELS, validation=HELD, checkpoint=tmp_path / "c", **given)


class TestBadInput:
    def test_unknown_labels_are_refused(self, tiny_body: Body, linear: MLPHead, fresh_cache: Path) -> None:
        with pytest.raises(DataError, match="the labels hold 'maybe', which the head was not fitted on"):
            tune_end_to_end(tiny_body, linear, TEXTS, [*LABELS[:-1], "maybe"], QUICK)
        with pytest.raises(DataError, match="'maybe'"):
            tune_end_to_end(tiny_body, linear, TEXTS, LABELS, QUICK, validation=(["good"], ["maybe"]))

    def test_more_last_layers_than_the_body_has_are_refused(self, tiny_body: Body, linear: MLPHead) -> None:
        with pytest.raises(ConfigError, match="last_layers=3: .* has 1 layers"):
            tune_end_to_end(tiny_body, linear, TEXTS, LABELS, QUICK.updated(last_layers=3))

    def test_head_of_another_width_is_refused(self, tiny_body: Body, fresh_cache: Path) -> None:
        narrow = QuantumHeadClassifier(SHAPE, SHORT).fit(tiny_body.encode(TEXTS)[:, :9], LABELS)
        with pytest.raises(ConfigError, match="takes embeddings of width 9; .* makes 16"):
            tune_end_to_end(tiny_body, narrow, TEXTS, LABELS, QUICK)

    def test_too_little_memory_fails_before_training(
        self, tiny_body: Body, linear: MLPHead, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000))
        monkeypatch.setattr("ketfit.memory.ALWAYS_AVAILABLE", 0)
        monkeypatch.setattr(end_to_end, "train", lambda *_, **__: pytest.fail("it started"))
        with pytest.raises(InsufficientMemoryError, match=r"tuning needs .* of copies of the weights"):
            tune_end_to_end(tiny_body, linear, TEXTS, LABELS, QUICK)
