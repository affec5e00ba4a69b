"""validation="cross": epochs chosen on folds, then a fit on everything, for heads and for tuned bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from ketfit.bodies import contrastive
from ketfit.bodies.body import Body
from ketfit.data.splits import fold_splits
from ketfit.errors import ConfigError, DataError, DataWarning
from ketfit.estimators import end_to_end
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.training import cross_validation
from ketfit.training.calibration import effective_counts, fit_temperature

X = np.random.default_rng(0).normal(size=(40, 8))
Y = np.where(X[:, 0] + np.random.default_rng(1).normal(size=40) > 0, "yes", "no")
SHAPE = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1)
TRAIN = TrainConfig(epochs=12, learning_rate=0.3, patience=2)
CROSS: dict[str, Any] = {"train": TRAIN, "validation": "cross", "n_folds": 4, "seed": 2}
TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
BODY_HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4, precision="float32")
END_TO_END = EndToEndConfig(epochs=3, batch_size=4, learning_rate=1e-3, patience=1, precision="float32")

heads = pytest.mark.parametrize("head", [QuantumHeadClassifier(SHAPE, **CROSS), MLPHead(hidden=2, **CROSS)])


def holdout(head: TorchHeadClassifier, **settings: Any) -> TorchHeadClassifier:
    return clone(head).set_params(validation="holdout", **settings)  # type: ignore[no-any-return]


def weights(head: TorchHeadClassifier) -> list[torch.Tensor]:
    return list(head.module_.state_dict().values())


class TestHeads:
    @heads
    def test_epochs_are_those_of_the_best_mean_over_folds(self, head: TorchHeadClassifier) -> None:
        fitted = clone(head).fit(X, Y)
        histories = []
        for train, held in fold_splits(Y, 4, 2):
            one = holdout(head, train=TRAIN.updated(patience=None))
            histories.append(one.fit(X[train], Y[train], validation=(X[held], Y[held])).history_)
        means = np.mean([[epoch.validation_loss for epoch in history] for history in histories], axis=0)
        assert fitted.fold_histories_ == tuple(histories)
        assert fitted.best_epoch_ == means.argmin() < 11
        assert [epoch.validation_loss for epoch in fitted.history_] == pytest.approx(means[: fitted.best_epoch_ + 1])
        assert (fitted.train_size_, fitted.validation_size_) == (40, 40)

    @heads
    def test_last_fit_is_that_of_all_samples_for_the_chosen_epochs(self, head: TorchHeadClassifier) -> None:
        fitted = clone(head).fit(X, Y)
        epochs = fitted.best_epoch_ + 1
        whole = holdout(head, validation_fraction=0, train=TRAIN.updated(epochs=epochs)).fit(X, Y)
        assert all(map(torch.equal, weights(fitted), weights(whole)))
        assert [e.train_loss for e in fitted.history_] == [e.train_loss for e in whole.history_]
        again = clone(head).fit(X, Y)
        assert all(map(torch.equal, weights(fitted), weights(again)))
        assert whole.fold_histories_ == ()

    def test_cosine_schedule_is_that_of_all_epochs(self) -> None:
        train = TRAIN.updated(schedule="cosine")
        fitted = MLPHead(hidden=2, **{**CROSS, "train": train}).fit(X, Y)
        assert len(fitted.history_) < 12
        rates = [epoch.learning_rate for epoch in fitted.fold_histories_[0]]
        assert [epoch.learning_rate for epoch in fitted.history_] == rates[: len(fitted.history_)]

    def test_temperature_is_fitted_on_out_of_fold_logits(self) -> None:
        fitted = MLPHead(hidden=2, calibrate=True, **CROSS).fit(X, Y)
        logits, codes = [], []
        train_config = TRAIN.updated(epochs=fitted.best_epoch_ + 1)
        for train, held in fold_splits(Y, 4, 2):
            one = MLPHead(hidden=2, train=train_config, seed=2, validation_fraction=0).fit(X[train], Y[train])
            logits.append(torch.from_numpy(np.log(one.predict_proba(X[held]))))
            codes.append(torch.from_numpy((Y[held] == "yes").astype(int)))
        expected = fit_temperature(torch.cat(logits), torch.cat(codes), effective_counts(torch.ones(40)))
        assert fitted.temperature_ == pytest.approx(expected, rel=1e-4)
        assert fitted.temperature_ != 1
        assert fitted.fit_settings_.calibrate

    def test_groups_and_zero_weights_are_respected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[set[float], set[float]]] = []
        real = cross_validation.train_fold

        def record(module: Any, samples: Any, validation: Any, *rest: Any, **settings: Any) -> Any:
            seen.append((set(samples.x[:, 0].tolist()), set(validation.x[:, 0].tolist())))
            return real(module, samples, validation, *rest, **settings)

        monkeypatch.setattr("ketfit.estimators.base.train_fold", record)
        groups = np.arange(40) % 10
        labels = np.where(groups % 2, "yes", "no")
        weight = np.where(np.arange(40) == 7, 0.0, 1.0)
        fitted = MLPHead(hidden=0, **CROSS).fit(X, labels, weight, groups=groups)
        assert fitted.validation_size_ == 39
        group_of = dict(zip(X[:, 0].tolist(), groups.tolist(), strict=True))
        for train, held in seen:
            assert not {group_of[x] for x in train} & {group_of[x] for x in held}
            assert len(train | held) == 39

    def test_feature_names_are_those_of_all_samples(self) -> None:
        names = [f"column {i}" for i in range(8)]
        fitted = MLPHead(hidden=0, **CROSS).fit(pd.DataFrame(X, columns=names), Y)
        assert fitted.feature_names_in_.tolist() == names

    def test_interrupted_fit_resumes_after_the_finished_folds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        head, real, calls = MLPHead(hidden=2, calibrate=True, **CROSS), cross_validation.train, []

        def stop(*given: Any, **settings: Any) -> Any:
            calls.append(given)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*given, **settings)

        monkeypatch.setattr(cross_validation, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            clone(head).fit(X, Y, checkpoint=tmp_path / "run")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.fold-1", "run.fold-2"]
        again = clone(head).fit(X, Y, checkpoint=tmp_path / "run")
        assert len(calls) == 3 + 2
        whole = clone(head).fit(X, Y)
        assert all(map(torch.equal, weights(again), weights(whole)))
        assert again.temperature_ == pytest.approx(whole.temperature_)
        assert again.history_ == whole.history_

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"n_folds": 20}, DataError, "the label 'no' has .* samples, and n_folds=20 needs one for each fold"),
            ({"n_folds": 1}, ConfigError, "n_folds"),
            ({"validation": "k-fold"}, ConfigError, "validation='k-fold': it is holdout or cross"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(
        self, settings: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        labels = np.array(["yes"] * 30 + ["no"] * 10)
        with pytest.raises(error, match=message):
            MLPHead(**{**CROSS, **settings}).fit(X, labels)

    def test_validation_samples_beside_folds_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="validation='cross' divides the samples of fit itself; leave out the"):
            MLPHead(**CROSS).fit(X, Y, validation=(X, Y))


class TestText:
    @pytest.fixture
    def text(self, tiny_body_folder: Path) -> TextClassifier:
        train = TrainConfig(epochs=3, learning_rate=0.1)
        return TextClassifier(str(tiny_body_folder), BODY_HEAD, train, validation="cross", n_folds=2)

    def test_frozen_body_equals_the_head_on_its_embeddings(self, text: TextClassifier, tiny_body: Body) -> None:
        text.fit(TEXTS, LABELS)
        settings = {name: getattr(text, name) for name in QuantumHeadClassifier._get_param_names()}
        head = QuantumHeadClassifier(**settings).fit(tiny_body.encode(TEXTS), LABELS)
        np.testing.assert_allclose(text.predict_proba(TEXTS), head.predict_proba(tiny_body.encode(TEXTS)), rtol=1e-5)
        assert text.classifier_.validation_size_ == 8

    def test_copies_of_a_sentence_are_in_one_fold(self, text: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = spy_on_tuning(monkeypatch)
        text.set_params(tune=CONTRASTIVE).fit([*TEXTS, *(f" {each.upper()} " for each in TEXTS)], LABELS * 2)
        parts = [{each.strip().lower() for each in texts} for texts in seen]
        assert [len(texts) for texts in seen] == [8, 8, 16]
        assert not parts[0] & parts[1]
        assert parts[2] == set(TEXTS)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:the temperature of the probabilities stays 1")
    @pytest.mark.parametrize("calibrate", [False, True])
    def test_stages_choose_epochs_on_folds_of_their_own_bodies(
        self, text: TextClassifier, calibrate: bool, monkeypatch: pytest.MonkeyPatch, tiny_body: Body
    ) -> None:
        started: list[tuple[str, Any, int]] = []
        real = end_to_end._prepare

        def record(body: Body, head: Any, data: Any, *rest: Any) -> Any:
            started.append((body.fingerprint, head, len(data)))
            return real(body, head, data, *rest)

        monkeypatch.setattr(end_to_end, "_prepare", record)
        text.set_params(tune=[CONTRASTIVE, END_TO_END], calibrate=calibrate).fit(TEXTS, LABELS)
        fitted = text.classifier_
        assert [size for *_, size in started] == [4, 4, 8]
        assert len({tiny_body.fingerprint, *(name for name, *_ in started)}) == 4, "a contrastive body for each fit"
        assert len({head.best_epoch_ for _, head, _ in started}) == 1
        assert not all(map(torch.equal, weights(started[0][1]), weights(started[1][1])))
        losses = np.mean([[e.validation_loss for e in history] for history in fitted.fold_histories_], axis=0)
        assert len(losses) == 3, "all epochs, whatever the patience"
        assert fitted.best_epoch_ == losses.argmin() == len(fitted.history_) - 1
        assert [e.validation_loss for e in fitted.history_] == pytest.approx(losses[: len(fitted.history_)].tolist())
        assert (fitted.train_size_, fitted.validation_size_) == (8, 8)
        assert fitted.fit_settings_.calibrate == calibrate
        assert text.body_.tuning is not None
        assert text.body_.tuning.stages == (CONTRASTIVE, END_TO_END)
        again = clone(text).fit(TEXTS, LABELS)
        assert again.body_.fingerprint == text.body_.fingerprint
        np.testing.assert_array_equal(again.predict_proba(TEXTS), text.predict_proba(TEXTS))

    @pytest.mark.slow
    def test_interrupted_stages_resume(
        self, text: TextClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text.set_params(tune=[CONTRASTIVE, END_TO_END])
        whole = clone(text).fit(TEXTS, LABELS)
        real, calls = end_to_end.train_fold, []

        def stop(*given: Any, **settings: Any) -> Any:
            calls.append(given)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*given, **settings)

        monkeypatch.setattr(end_to_end, "train_fold", stop)
        with pytest.raises(KeyboardInterrupt):
            clone(text).fit(TEXTS, LABELS, checkpoint=tmp_path / "run")
        names = {"run", "run.fold-1", "run.fold-2", "run.head.fold-1", "run.head.fold-2", "run.tuning-2.fold-1"}
        assert {path.name for path in tmp_path.iterdir()} == names
        again = clone(text).fit(TEXTS, LABELS, checkpoint=tmp_path / "run")
        assert again.body_.fingerprint == whole.body_.fingerprint
        np.testing.assert_array_equal(again.predict_proba(TEXTS), whole.predict_proba(TEXTS))

    def test_folds_without_pairs_are_refused_before_tuning(
        self, text: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = spy_on_tuning(monkeypatch)
        text.set_params(tune=CONTRASTIVE)
        with pytest.raises(DataError, match="a fold leaves one sentence of label 'no' to train on"):
            text.fit(TEXTS[:6], LABELS[:6])
        with pytest.raises(DataError, match="the label 'no' has 1 different sentences or groups, and n_folds=2 needs"):
            text.fit(TEXTS[:5], LABELS[:5])
        assert not seen

    def test_tuning_of_folds_has_no_patience_no_report_and_no_pairs_of_its_fold(
        self, text: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[list[str], Any, Any, bool]] = []

        def tune_body(body: Body, texts: Any, labels: Any, config: Any, **named: Any) -> Body:
            seen.append((texts, config.patience, named["pairs"], named["on_epoch_end"] is None))
            return replace(body)

        monkeypatch.setattr(contrastive, "tune_body", tune_body)
        text.set_params(tune=CONTRASTIVE.updated(loss="cosine", patience=2))
        pairs = [(TEXTS[0], TEXTS[1], 1.0), *((one, one, 1.0) for one in TEXTS)]
        with pytest.warns(DataWarning, match="pairs have a sentence that is held out"):
            text.fit(TEXTS, LABELS, pairs=pairs)
        *folds, whole = seen
        assert whole == (TEXTS, None, pairs, False)
        for texts, patience, used, silent in folds:
            assert patience is None and silent
            assert {one for one, _, _ in used} | {other for _, other, _ in used} <= set(texts)

    def test_validation_sentences_beside_folds_are_refused(self, text: TextClassifier) -> None:
        with pytest.raises(ConfigError, match="validation='cross' divides the samples of fit itself"):
            text.fit(TEXTS, LABELS, validation=(["good"], ["yes"]))


def spy_on_tuning(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the list that records the sentences of each contrastive tuning, which then does nothing."""
    seen: list[list[str]] = []

    def tune_body(body: Body, texts: Sequence[str], *_: Any, validation: Any, **__: Any) -> Body:
        assert validation is None
        seen.append(list(texts))
        return replace(body)

    monkeypatch.setattr(contrastive, "tune_body", tune_body)
    return seen
