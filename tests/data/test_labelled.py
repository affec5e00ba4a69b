"""Weights of zero, validation weights and groups, for every way of fitting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ketfit.bodies.body import Body
from ketfit.data.labelled import LabelledTexts
from ketfit.data.splits import split_groups
from ketfit.errors import ConfigError, DataError, InputError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.end_to_end import tune_end_to_end
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig, TuneConfig

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
HELD = (["a fine film", "the bad film", "a good film"], ["yes", "no", "no"])
# Some would change the split, one the classes, one is a copy that would join groups, and two could not be used at all.
JUNK = ["not dull", "bad bad bad", "not", "GOOD  film", " ", None]
JUNK_LABELS = ["yes", "no", "junk", "no", "yes", None]
HEAD = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
SHORT = TrainConfig(epochs=4, learning_rate=0.1)
FULL = EndToEndConfig(epochs=2, batch_size=4, learning_rate=1e-3)
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=4)

TUNES = pytest.mark.parametrize("tune", [None, CONTRASTIVE, FULL], ids=["frozen", "contrastive", "full"])


def text(body: Path, tune: TuneConfig | None = None, **settings: Any) -> TextClassifier:
    return TextClassifier(str(body), HEAD, SHORT, **{"validation_fraction": 0.25, "tune": tune, **settings})


def interleaved(rows: list[Any], junk: list[Any]) -> list[Any]:
    """The junk between the rows and behind them."""
    return [value for pair in zip(rows[: len(junk)], junk, strict=True) for value in pair] + rows[len(junk) :]


def summary(fitted: TextClassifier) -> Any:
    head = fitted.classifier_
    return (
        fitted.predict_proba(TEXTS).tolist(),
        fitted.classes_.tolist(),
        head.history_,
        head.best_epoch_,
        (head.train_size_, head.validation_size_),
        fitted.body_.fingerprint,
    )


class TestZeroWeights:
    @pytest.mark.slow
    @TUNES
    @pytest.mark.parametrize("held", [False, True], ids=["share", "given"])
    def test_rows_of_weight_zero_do_not_affect_the_fit(
        self, tune: TuneConfig | None, held: bool, tiny_body_folder: Path
    ) -> None:
        weights = [1.0, 2.0, 0.5, 1.5, 3.0, 1.0, 0.25, 2.0]
        groups = [0, 1, 2, 0, 3, 4, 5, 3]
        validation = (*HELD, [1.0, 2.0, 0.5]) if held else None
        plain = text(tiny_body_folder, tune).fit(TEXTS, LABELS, weights, groups=groups, validation=validation)
        if held:
            validation = ([*HELD[0], None], [*HELD[1], "junk"], [1.0, 2.0, 0.5, 0.0])
        more = text(tiny_body_folder, tune).fit(
            interleaved(TEXTS, JUNK),
            interleaved(LABELS, JUNK_LABELS),
            interleaved(weights, [0] * 6),
            groups=interleaved(groups, [3, 2, 1, 5, 4, 0]),
            validation=validation,
        )
        assert summary(more) == summary(plain)

    @pytest.mark.slow
    @TUNES
    def test_weights_of_one_equal_no_weights(self, tune: TuneConfig | None, tiny_body_folder: Path) -> None:
        one = text(tiny_body_folder, tune).fit(TEXTS, LABELS, np.ones(8))
        assert summary(one) == summary(text(tiny_body_folder, tune).fit(TEXTS, LABELS))

    @pytest.mark.parametrize(
        "head",
        [
            LogisticRegressionHead(),
            ProjectedLogisticRegressionHead(3),
            ProjectedLogisticRegressionHead(3, directions="principal"),
            SVCHead(),
            MLPHead(train=SHORT),
            QuantumHeadClassifier(HEAD, SHORT),
        ],
        ids=repr,
    )
    def test_rows_of_weight_zero_are_dropped_by_every_head(self, head: Any) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 5)), np.arange(40) % 3
        weight = np.where(y == 2, 0.0, rng.uniform(0.5, 2, 40))
        weight[::7] = 0
        counts = weight > 0
        held = (x, y, weight)
        many = type(head)(**head.get_params(deep=False)).fit(x, y, weight, validation=held)
        few = type(head)(**head.get_params(deep=False)).fit(
            x[counts], y[counts], weight[counts], validation=tuple(part[counts] for part in held)
        )
        assert many.classes_.tolist() == few.classes_.tolist() == [0, 1]
        np.testing.assert_array_equal(many.predict_proba(x), few.predict_proba(x))

    def test_logistic_regression_equals_scikit_learn_on_rows_of_positive_weight(self) -> None:
        rng = np.random.default_rng(0)
        x, y, weight = rng.normal(size=(40, 5)), np.arange(40) % 2, rng.integers(0, 3, 40)
        theirs = LogisticRegression().fit(x[weight > 0], y[weight > 0], weight[weight > 0])
        np.testing.assert_array_equal(LogisticRegressionHead().fit(x, y, weight).coef_, theirs.coef_)

    def test_only_zero_weights_raises(self, tiny_body_folder: Path) -> None:
        # From scikit-learn 1.9 on, the words are its own.
        message = "is zero for every|at least one non-zero number"
        with pytest.raises(ValueError, match=message):
            text(tiny_body_folder).fit(TEXTS, LABELS, np.zeros(8))
        with pytest.raises(ValueError, match=message):
            text(tiny_body_folder).fit(TEXTS, LABELS, validation=(*HELD, [0, 0, 0]))
        with pytest.raises(ValueError, match=message):
            LogisticRegressionHead().fit(np.ones((2, 2)), [0, 1], [0, 0])

    def test_error_names_the_row_of_the_argument(self, tiny_body_folder: Path) -> None:
        for texts, labels, message in (
            (["", *TEXTS[1:4], "", *TEXTS[5:]], LABELS, r"texts\[4\]: the text is empty"),
            (TEXTS, ["yes"] * 4 + [None, "no", "no", "no"], r"labels\[4\] is missing"),
            (TEXTS, ["yes"] * 4 + ["a\ud800", "no", "no", "no"], r"labels\[4\] has the label 'a\\ud800'"),
        ):
            with pytest.raises(ValueError, match=message):
                text(tiny_body_folder).fit(texts, labels, [0, 0, 1, 1, 1, 1, 1, 1])

    @pytest.mark.parametrize("weights", [[1] * 7, [-1.0] * 8, [np.nan] * 8, [np.inf] * 8])
    def test_invalid_weights_raise(self, weights: Any, tiny_body_folder: Path) -> None:
        with pytest.raises(ValueError, match="sample_weight"):
            text(tiny_body_folder).fit(TEXTS, LABELS, weights)
        with pytest.raises(ValueError, match="sample_weight"):
            text(tiny_body_folder).fit(TEXTS, LABELS, np.array(weights))


class TestValidationWeights:
    """Validation loss and accuracies are means weighted by the weights of the validation samples."""

    WEIGHTS = (0.5, 3.0, 2.0)

    def expected(self, fitted: TextClassifier) -> tuple[float, float, float]:
        proba = fitted.predict_proba(HELD[0])
        codes = np.searchsorted(fitted.classes_, HELD[1])
        right = proba.argmax(axis=1) == codes
        losses = -np.log(proba[np.arange(3), codes])
        return (
            np.average(losses, weights=self.WEIGHTS),
            right.mean(),
            float(np.average(right, weights=self.WEIGHTS)),
        )

    @TUNES
    def test_validation_weights_of_given_samples_are_used(
        self, tune: TuneConfig | None, tiny_body_folder: Path
    ) -> None:
        fitted = text(tiny_body_folder, tune).fit(TEXTS, LABELS, validation=(*HELD, self.WEIGHTS))
        best = fitted.classifier_.history_[fitted.classifier_.best_epoch_]
        found = (best.validation_loss, best.validation_accuracy, best.validation_weighted_accuracy)
        assert found == pytest.approx(self.expected(fitted), rel=1e-4)
        plain = text(tiny_body_folder, tune).fit(TEXTS, LABELS, validation=HELD)
        assert plain.classifier_.history_[0].validation_loss != fitted.classifier_.history_[0].validation_loss

    @TUNES
    def test_validation_weights_of_a_share_follow_its_samples(
        self, tune: TuneConfig | None, tiny_body_folder: Path
    ) -> None:
        weights = np.array([1.0, 2.0, 0.5, 1.5, 3.0, 1.0, 0.25, 2.0])
        kept, held = LabelledTexts.from_columns(TEXTS, LABELS, weights).hold_out(0.25, 0)
        assert held is not None
        assert held.weight is not None and len(set(held.weight)) == 2
        shared = text(tiny_body_folder, tune).fit(TEXTS, LABELS, weights)
        given = text(tiny_body_folder, tune).fit(
            kept.texts, kept.labels, kept.weight, validation=(held.texts, held.labels, held.weight)
        )
        assert summary(shared) == summary(given)

    def test_validation_weights_of_a_head_are_used(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(30, 5)), np.arange(30) % 2
        weight = rng.uniform(0.1, 3, 30)
        fitted = MLPHead(train=SHORT, class_weight={0: 2.0, 1: 1.0}).fit(x, y, validation=(x, y, weight))
        best, proba = fitted.history_[fitted.best_epoch_], fitted.predict_proba(x)
        weights = weight * np.where(y == 0, 2.0, 1.0)
        right = proba.argmax(axis=1) == y
        assert best.validation_loss == pytest.approx(np.average(-np.log(proba[np.arange(30), y]), weights=weights))
        assert best.validation_accuracy == pytest.approx(right.mean(), rel=1e-12)
        assert best.validation_weighted_accuracy == pytest.approx(np.average(right, weights=weights))
        assert best.validation_accuracy != pytest.approx(best.validation_weighted_accuracy)

    def test_validation_weights_of_svm_are_used_in_calibration(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(30, 5)), np.arange(30) % 2
        one = SVCHead().fit(x, y, validation=(x, y, np.where(y == 0, 9.0, 1.0)))
        other = SVCHead().fit(x, y, validation=(x, y))
        assert one.predict_proba(x)[:, 0].mean() > other.predict_proba(x)[:, 0].mean() + 0.1

    def test_selection_by_accuracy_uses_weighted_accuracy(self) -> None:
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(40, 3)), rng.integers(2, size=40)
        config = TrainConfig(epochs=30, learning_rate=0.3, selection="accuracy", patience=None)
        weight = np.where(y == 0, 25.0, 1.0)
        fitted = MLPHead(train=config).fit(x, y, validation=(rng.normal(size=(40, 3)), y, weight))
        weighted = [row.validation_weighted_accuracy for row in fitted.history_]
        plain = [row.validation_accuracy for row in fitted.history_]
        assert fitted.best_epoch_ == int(np.argmax(weighted)) != int(np.argmax(plain))  # type: ignore[arg-type]


class TestGroups:
    def sides(self, tune: TuneConfig | None, body: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
        """Return the training and the validation sentences."""
        from ketfit.estimators import base as estimator

        seen: list[Any] = []
        plain = estimator.train
        monkeypatch.setattr(
            estimator, "train", lambda *args, **named: (seen.extend(args[1:3]), plain(*args, **named))[1]
        )
        fitted = text(body, tune, validation_fraction=0.5).fit(**given)
        embeddings = fitted.body_.encode(given["texts"]) if tune is not FULL else None
        return fitted, seen, embeddings

    @pytest.mark.parametrize("tune", [None, CONTRASTIVE], ids=["frozen", "contrastive"])
    def test_split_keeps_groups_and_copies_together(
        self, tune: TuneConfig | None, tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [*TEXTS, *(f" {sentence.upper()}" for sentence in TEXTS[:2]), "fine", "bad"]
        labels = [*LABELS, "yes", "yes", "yes", "no"]
        groups = [0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 8, 4]  # 0 and 2 share "good film", 1 and 3 "the good"
        together = [{0, 2, 8}, {1, 3, 9}, {4, 11}]
        fitted, (_, held), embeddings = self.sides(
            tune, tiny_body_folder, monkeypatch, texts=texts, labels=labels, groups=groups
        )
        assert fitted.classifier_.validation_size_ == len(held.y) > 0
        side = [
            "held" if np.isclose(held.x.numpy(), row, atol=1e-5).all(axis=1).any() else "kept" for row in embeddings
        ]
        for rows in together:
            assert len({side[row] for row in rows}) == 1

    @TUNES
    def test_one_group_per_sample_equals_no_groups(self, tune: TuneConfig | None, tiny_body_folder: Path) -> None:
        one = text(tiny_body_folder, tune).fit(TEXTS, LABELS, groups=list("abcdefgh"))
        assert summary(one) == summary(text(tiny_body_folder, tune).fit(TEXTS, LABELS))

    @TUNES
    def test_groups_decide_the_split_for_every_method(self, tune: TuneConfig | None, tiny_body_folder: Path) -> None:
        groups = [0, 0, 0, 0, 1, 1, 1, 1]  # nothing can be held out
        fitted = text(tiny_body_folder, tune).fit(TEXTS, LABELS, groups=groups)
        assert (fitted.classifier_.train_size_, fitted.classifier_.validation_size_) == (8, 0)

    @pytest.mark.parametrize("copies", [256, 512])
    def test_many_copies_join_groups_like_one(self, copies: int) -> None:
        found = split_groups(["one"] * 2 * copies + ["other"] * copies, np.repeat([0, 1, 1], copies))
        assert set(found) == {0}

    def test_groups_of_another_length_raise(self, tiny_body_folder: Path) -> None:
        with pytest.raises(InputError, match=r"groups has shape \(7,\); it needs one value per sample, \(8,\)"):
            text(tiny_body_folder).fit(TEXTS, LABELS, groups=range(7))


class TestBeforeALongTuning:
    """Invalid arguments raise before the body is tuned."""

    @pytest.mark.parametrize("tune", [CONTRASTIVE, FULL], ids=["contrastive", "full"])
    @pytest.mark.parametrize(
        ("settings", "given", "error", "message"),
        [
            ({}, {"validation": (["fine"], ["maybe"])}, DataError, "the validation labels hold 'maybe'"),
            ({}, {"validation": ([], [])}, InputError, "validation holds no sentence"),
            ({}, {"validation": (["fine"], ["yes"], [1, 2])}, ValueError, "sample_weight"),
            ({"calibrate": True, "validation_fraction": 0}, {}, ConfigError, "calibrate=True takes validation samples"),
            ({"class_weight": {"yes": 1, "no": -1}}, {}, ConfigError, "weights of classes are positive numbers"),
            ({"class_weight": {"maybe": 1}}, {}, ValueError, "which is not a label; known"),
            ({}, {"sample_weight": [1] * 4 + [0] * 4}, DataError, "two classes or more"),
            ({"last_layers": 2}, {}, ConfigError, "last_layers=2: .* has 1 layers"),
        ],
    )
    def test_invalid_data_raises_before_tuning(
        self,
        settings: dict[str, Any],
        given: dict[str, Any],
        error: type[Exception],
        message: str,
        tune: TuneConfig,
        tiny_body_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from ketfit.bodies import contrastive
        from ketfit.estimators import base as estimator

        monkeypatch.setattr(contrastive, "tune_body", lambda *_, **__: pytest.fail("it tuned"))
        monkeypatch.setattr(estimator, "train", lambda *_, **__: pytest.fail("it trained"))
        shape = {name: value for name, value in settings.items() if name != "last_layers"}
        tune = tune.updated(last_layers=settings.get("last_layers"))
        with pytest.raises(error, match=message):
            text(tiny_body_folder, tune, **shape).fit(TEXTS, LABELS, **given)


@pytest.mark.filterwarnings("ignore::ketfit.errors.DataWarning")
def test_end_to_end_calibrates_only_the_tuned_head(
    tiny_body_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ketfit.estimators import base as estimator
    from ketfit.estimators import end_to_end

    monkeypatch.setattr(estimator, "calibrated_temperature", lambda *_: pytest.fail("it calibrated the frozen head"))
    monkeypatch.setattr(end_to_end, "calibrated_temperature", lambda *_: 1.5)
    fitted = text(tiny_body_folder, FULL, calibrate=True).fit(TEXTS, LABELS)
    assert (fitted.classifier_.temperature_, fitted.classifier_.calibrate) == (1.5, True)
    fitted.save_pretrained(tmp_path / "model")
    assert TextClassifier.from_pretrained(tmp_path / "model").classifier_.temperature_ == 1.5


def test_end_to_end_unknown_label_of_weight_zero_is_accepted(tiny_body: Body, fresh_cache: Path) -> None:
    head = MLPHead(hidden=0, train=SHORT).fit(tiny_body.encode(TEXTS), LABELS)
    some = tune_end_to_end(tiny_body, head, TEXTS, LABELS, FULL, validation=HELD)
    more = tune_end_to_end(
        tiny_body,
        head,
        [*TEXTS, "fine"],
        [*LABELS, "maybe"],
        FULL,
        validation=([*HELD[0], "fine"], [*HELD[1], "maybe"], [1, 1, 1, 0]),
        sample_weight=[1] * 8 + [0],
    )
    assert more[0].fingerprint == some[0].fingerprint
    assert more[1].history_ == some[1].history_
    assert (more[1].train_size_, more[1].validation_size_) == (8, 3)


@pytest.mark.slow
def test_end_to_end_loaded_head_uses_its_class_weights(tiny_body: Body, fresh_cache: Path, tmp_path: Path) -> None:
    for weight in (None, {"yes": 3.0}, "balanced"):
        head = QuantumHeadClassifier(HEAD, SHORT, class_weight=weight).fit(tiny_body.encode(TEXTS), LABELS)
        head.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        one, other = (tune_end_to_end(tiny_body, each, TEXTS, LABELS, FULL)[1] for each in (head, loaded))
        assert one.history_ == other.history_
