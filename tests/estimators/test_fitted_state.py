"""Parameters set after `fit`, feature names, and warnings about labels and readouts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ketfit.errors import ConfigWarning, DataWarning, ModelFileError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.evaluation.batch_predict import model_fingerprint
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig
from ketfit.persistence.schema import METADATA
from tests.persistence.saved_models import metadata_of, sealed, write_metadata

TEXTS = ["good film", "the good", "fine film", "good fine", "bad film", "dull", "not good", "the dull film"]
LABELS = ["yes"] * 4 + ["no"] * 4
EXACT = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1)
HEAD = EXACT.updated(shots=100)
SHORT = TrainConfig(epochs=3, learning_rate=0.1)
CHANGES: list[dict[str, Any]] = [
    {"seed": 9},
    {"head": HEAD.updated(n_qubits=6, n_encoders=2, encoder_input="slices")},
    {"head": None},
    {"train": TrainConfig(epochs=7, batch_size=3)},
    {"train": None},
    {"validation_fraction": 0.5},
    {"class_weight": "balanced"},
    {"class_weight": {"no": 7.0}},
    {"class_weight": None},
    {"calibrate": False},
    {"device": "meta"},
]
TEXT_CHANGES: list[dict[str, Any]] = [
    {"body": "another/body"},
    {"dtype": "bfloat16"},
    {"tune": ContrastiveConfig()},
    {"revision": "main"},
    {"cache": False},
]


def rows(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 6)), np.array(["yes", "no"])[rng.integers(2, size=n)]


def files(classifier: Any, folder: Path) -> dict[str, bytes]:
    classifier.save_pretrained(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(classifier: Any, x: Any) -> Any:
    """Return the probabilities of a fresh stream of the seed."""
    return classifier.with_measurement(shots=50).predict_proba(x).tolist()


class TestParametersSetAfterFit:
    @pytest.mark.parametrize("change", CHANGES, ids=str)
    def test_parameters_set_after_fit_do_not_change_a_head(self, change: dict[str, Any], tmp_path: Path) -> None:
        x, y = rows()
        weight = {"yes": 2.0, "no": 1.0}
        head = QuantumHeadClassifier(HEAD, SHORT, 3, 0.25, weight, calibrate=True).fit(x, y)
        saved, probabilities = files(head, tmp_path / "one"), drawn(head, x)
        head.set_params(**change)
        assert files(head, tmp_path / "two") == saved
        assert drawn(head, x) == probabilities

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (SVCHead, {"kernel": "linear"}),
            (SVCHead, {"kernel": "poly", "degree": 2, "coef0": 1.0}),
            (SVCHead, {"decision_function_shape": "ovo", "C": 30.0}),
            (LogisticRegressionHead, {"solver": "liblinear"}),
        ],
        ids=str,
    )
    def test_parameters_set_after_fit_do_not_change_a_head_of_scikit_learn(
        self, make: Any, change: dict[str, Any], tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 4)), np.array(["a", "b", "c"])[np.arange(60) % 3]
        head = make().fit(x, y, validation=(x[:30], y[:30]))
        saved = files(head, tmp_path / "one")
        before = [head.predict(x), head.predict_proba(x), head.decision_function(x)]
        head.set_params(**change)
        for one, other in zip(before, [head.predict(x), head.predict_proba(x), head.decision_function(x)], strict=True):
            np.testing.assert_array_equal(one, other)
        assert files(head, tmp_path / "two") == saved
        assert head.get_params()[next(iter(change))] == next(iter(change.values()))

    @pytest.mark.parametrize("change", CHANGES + TEXT_CHANGES, ids=str)
    def test_parameters_set_after_fit_do_not_change_a_text_classifier(
        self, change: dict[str, Any], tiny_body_folder: Path, tmp_path: Path
    ) -> None:
        text = TextClassifier(str(tiny_body_folder), HEAD, SHORT, 3, 0.25).fit(TEXTS, LABELS)
        saved, probabilities, name = files(text, tmp_path / "one"), drawn(text, TEXTS), model_fingerprint(text)
        text.set_params(**change)
        if not change.keys() - text.classifier_.get_params(deep=False).keys():
            text.classifier_.set_params(**change)
        assert files(text, tmp_path / "two") == saved
        assert drawn(text, TEXTS) == probabilities
        assert model_fingerprint(text) == name

    def test_class_weight_changed_in_place_does_not_change_the_head(self, tmp_path: Path) -> None:
        weight = {"yes": 2.0}
        head = QuantumHeadClassifier(HEAD, SHORT, class_weight=weight).fit(*rows())
        weight["yes"] = 5.0
        head.save_pretrained(tmp_path / "model")
        assert QuantumHeadClassifier.from_pretrained(tmp_path / "model").class_weight == {"yes": 2.0, "no": 1.0}

    def test_parameters_set_after_loading_do_not_change_a_head(self, tmp_path: Path) -> None:
        QuantumHeadClassifier(HEAD, SHORT, 3, 0.25, "balanced", calibrate=True).fit(*rows()).save_pretrained(
            tmp_path / "model"
        )
        head = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        saved = files(head, tmp_path / "one")
        head.set_params(seed=9, class_weight=None, calibrate=False, train=None, validation_fraction=0.1)
        assert files(head, tmp_path / "two") == saved

    def test_head_set_after_fit_does_not_decide_zero_slices(self) -> None:
        x, y = rows()
        head = QuantumHeadClassifier(HEAD, SHORT).fit(x, y)
        head.set_params(head=HEAD.updated(n_encoders=2, encoder_input="slices"))
        x[0, 3:] = 0
        assert head.predict(x).shape == (24,)


class TestFeatureNames:
    NAMES = ("a", "b", "c", "d", "e", "naïve 電影")

    def table(self) -> tuple[pd.DataFrame, np.ndarray]:
        x, y = rows()
        return pd.DataFrame(x, columns=self.NAMES, index=np.arange(24)[::-1]), y

    def test_loaded_head_refuses_the_column_names_that_the_fitted_one_refuses(self, tmp_path: Path) -> None:
        x, y = self.table()
        fitted = QuantumHeadClassifier(EXACT, SHORT).fit(x, y)
        fitted.save_pretrained(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert loaded.feature_names_in_.tolist() == list(self.NAMES)
        np.testing.assert_array_equal(loaded.predict_proba(x), fitted.predict_proba(x))
        other = [x[list(self.NAMES[::-1])], x.rename(columns={"a": "z"}), x.drop(columns="a")]
        for wrong in other:
            messages = []
            for head in (fitted, loaded):
                with pytest.raises(ValueError, match="feature names") as caught:
                    head.predict(wrong)
                messages.append(str(caught.value))
            assert messages[0] == messages[1]
        for head in (fitted, loaded):
            with pytest.warns(UserWarning, match="X does not have valid feature names"):
                head.predict(x.to_numpy())
        loaded.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / METADATA).read_bytes() == (tmp_path / "model" / METADATA).read_bytes()

    def test_metadata_without_feature_names_are_unchanged(self, tmp_path: Path) -> None:
        x, y = rows()
        QuantumHeadClassifier(HEAD, SHORT).fit(x, y).save_pretrained(tmp_path / "model")
        assert "feature_names" not in metadata_of(tmp_path / "model")
        loaded = QuantumHeadClassifier.from_pretrained(tmp_path / "model")
        assert not hasattr(loaded, "feature_names_in_")
        with pytest.warns(UserWarning, match="X has feature names, but QuantumHeadClassifier was fitted without"):
            loaded.predict(self.table()[0])

    @pytest.mark.parametrize("names", [["a"], [1] * 6, "abcdef"])
    def test_wrong_number_of_feature_names_is_refused(self, names: Any, tmp_path: Path) -> None:
        x, y = self.table()
        QuantumHeadClassifier(HEAD, SHORT).fit(x, y).save_pretrained(tmp_path / "model")
        write_metadata(tmp_path / "model", sealed({**metadata_of(tmp_path / "model"), "feature_names": names}))
        with pytest.raises(ModelFileError, match="feature_names"):
            QuantumHeadClassifier.from_pretrained(tmp_path / "model")

    def test_missing_feature_names_are_refused(self, tmp_path: Path) -> None:
        x, y = self.table()
        QuantumHeadClassifier(HEAD, SHORT).fit(x, y).save_pretrained(tmp_path / "model")
        record = metadata_of(tmp_path / "model")
        del record["feature_names"]
        write_metadata(tmp_path / "model", record)
        with pytest.raises(ModelFileError, match="was changed after saving"):
            QuantumHeadClassifier.from_pretrained(tmp_path / "model")


class TestCapacityWarning:
    """Heads with too few inputs of the last layer for the number of classes."""

    @pytest.mark.parametrize(
        ("settings", "classes", "needed"),
        [
            ({}, 3, None),
            ({}, 4, 2),
            ({}, 6, 3),
            ({}, 12, 4),
            ({}, 40, 6),
            ({"n_measured": 2}, 5, None),
            ({"n_measured": 2}, 6, 3),
            ({"n_measured": 3}, 9, None),
            ({"n_measured": 3}, 10, 4),
            ({"skip_connection": True}, 33, None),
            ({"skip_connection": True, "n_qubits": 3}, 18, 5),
        ],
    )
    def test_too_few_readouts_warn(self, settings: dict[str, Any], classes: int, needed: int | None) -> None:
        head = HeadConfig(**{"n_qubits": 6, "encoder_layers": 1, "main_layers": 1, **settings})
        y = np.arange(3 * classes) % classes
        x = np.random.default_rng(0).normal(size=(len(y), 7))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            QuantumHeadClassifier(head, TrainConfig(epochs=1)).fit(x, y)
        if needed is None:
            assert not caught
            return
        assert [warning.category for warning in caught] == [ConfigWarning]
        most = min(classes, head.n_qubits)
        messages = str(caught[0].message)
        assert f"tells {classes} classes apart by {head.n_readouts} number" in messages
        assert f"where {needed} or more are needed; set n_measured={most}" in messages
        assert f"HeadConfig.recommended(7, n_classes={classes})" in messages

    @pytest.mark.filterwarnings("ignore::ketfit.errors.ConfigWarning")
    @pytest.mark.parametrize(
        ("measured", "classes", "learns"), [(1, 3, True), (1, 6, False), (2, 5, True), (2, 12, False)]
    )
    def test_capacity_rule_predicts_which_heads_learn_separate_clouds(
        self, measured: int, classes: int, learns: bool
    ) -> None:
        rng = np.random.default_rng(5)
        y = np.arange(12 * classes) % classes
        x = rng.normal(size=(classes, 32))[y] + 0.4 * rng.normal(size=(len(y), 32))
        head = HeadConfig(n_qubits=6, n_measured=measured)
        fitted = QuantumHeadClassifier(head, TrainConfig(epochs=100, patience=None), validation_fraction=0).fit(x, y)
        assert (fitted.score(x, y) > 0.95) == learns == (classes <= 2**measured + 1)
        recommended = QuantumHeadClassifier(train=TrainConfig(epochs=30), validation_fraction=0).fit(x, y)
        assert recommended.score(x, y) > 0.95

    @pytest.mark.parametrize("classes", [2, 3, 6, 12, 40])
    @pytest.mark.parametrize("width", [16, 384])
    def test_recommended_head_has_enough_readouts(self, width: int, classes: int) -> None:
        head = HeadConfig.recommended(width, classes)
        assert classes <= 2**head.n_readouts + 1

    def test_too_few_hidden_units_warn(self) -> None:
        y = np.arange(24) % 6
        x = np.random.default_rng(0).normal(size=(24, 4))
        with pytest.warns(ConfigWarning, match="6 classes apart by 1 number, .* raise hidden, or take hidden=0"):
            MLPHead(hidden=1, train=SHORT).fit(x, y)
        MLPHead(hidden=3, train=SHORT).fit(x, y)
        MLPHead(hidden=0, train=SHORT).fit(x, y)

    @pytest.mark.parametrize("tune", [None, ContrastiveConfig(epochs=1, batch_size=4)])
    def test_text_classifier_with_too_few_readouts_warns_once(self, tune: Any, tiny_body_folder: Path) -> None:
        texts = [f"{word} {sign}" for word in ("good", "bad") for sign in "abcdefgh"]
        labels = [["one", "two", "three", "four", " one"][row % 5] for row in range(16)]
        head = EXACT
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            TextClassifier(str(tiny_body_folder), head, SHORT, tune=tune, validation_fraction=0).fit(texts, labels)
        assert [warning.category for warning in caught] == [DataWarning, ConfigWarning]
        assert "the labels ' one' and 'one' differ by surrounding space only and are two classes" in str(
            caught[0].message
        )
        assert "HeadConfig.recommended(16, n_classes=5)" in str(caught[1].message)

    def test_labels_that_differ_by_space_warn(self) -> None:
        x, y = rows()
        with pytest.warns(DataWarning, match=r"the labels 'yes' and 'yes\\t' differ by surrounding space only"):
            QuantumHeadClassifier(HEAD, SHORT).fit(x, [*y[:-1], "yes\t"])
        QuantumHeadClassifier(HEAD, SHORT).fit(x, [f" {label}" for label in y])
        QuantumHeadClassifier(HEAD, SHORT).fit(x, np.where(y == "yes", "Yes", "yes"))


def test_weighted_metrics_have_their_own_names() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.array([0] * 50 + [1] * 10)
    fitted = QuantumHeadClassifier(EXACT, TrainConfig(epochs=8), class_weight="balanced", validation_fraction=0.4).fit(
        x, y
    )
    best = fitted.history_[fitted.best_epoch_]
    assert best.validation_accuracy is not None
    assert best.validation_accuracy * fitted.validation_size_ == pytest.approx(
        round(best.validation_accuracy * fitted.validation_size_)
    )
    assert best.validation_accuracy != pytest.approx(best.validation_weighted_accuracy)
