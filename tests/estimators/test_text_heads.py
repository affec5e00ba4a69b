"""TextClassifier with every kind of head: fit, save, load, predict, tune and refuse, on a tiny body."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from ketfit.bodies.body import Body
from ketfit.data.splits import holdout_split, split_groups
from ketfit.errors import ConfigError, DataError, ModelFileError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.estimators.text import TextClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.tuning import ContrastiveConfig, EndToEndConfig
from ketfit.persistence.schema import CARD
from tests.persistence.saved_models import metadata_of

WORDS = ("good", "fine", "bad", "dull", "film", "the", "not")
TEXTS = [f"{one} {other} {third}" for one in WORDS[:4] for other in WORDS[4:] for third in WORDS]
LABELS = ["positive" if text.split()[0] in ("good", "fine") else "negative" for text in TEXTS]
SHORT = TrainConfig(epochs=4)
QUANTUM = HeadConfig(n_qubits=5, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)
HEADS: dict[str, Any] = {
    "logistic-regression": "logistic-regression",
    "svc": "svc",
    "mlp": MLPHead(hidden=3, train=SHORT),
    "quantum": QuantumHeadClassifier(QUANTUM, SHORT),
}
CONTRASTIVE = ContrastiveConfig(loss="cosine", pairs_per_sentence=1, batch_size=16)
FULL = EndToEndConfig(epochs=1, batch_size=16)


def text(body: Path, head: Any, **settings: Any) -> TextClassifier:
    return TextClassifier(str(body), head, **settings)


@pytest.mark.parametrize("name", HEADS)
def test_text_model_of_any_head_round_trip_predicts_the_same(name: str, tiny_body_folder: Path, tmp_path: Path) -> None:
    fitted = text(tiny_body_folder, HEADS[name]).fit(TEXTS, LABELS)
    assert fitted.classifier_.kind == name
    fitted.save_pretrained(tmp_path / "model", data="words", metrics={"accuracy": 0.5})
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    np.testing.assert_array_equal(loaded.predict(TEXTS), fitted.predict(TEXTS))
    assert type(loaded.classifier_) is type(fitted.classifier_)
    assert loaded.commit_ is None
    loaded.save_pretrained(tmp_path / "again", data="words", metrics={"accuracy": 0.5})
    for file in ("model.safetensors", "config.json", CARD):
        assert (tmp_path / "model" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    again = clone(loaded).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    head = type(fitted.classifier_).from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(
        head.predict_proba(loaded.body_.encode(TEXTS)), fitted.predict_proba(TEXTS), err_msg="the head alone"
    )
    for twin in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(twin.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_logistic_regression_takes_all_sentences(tiny_body: Body, tiny_body_folder: Path) -> None:
    fitted = text(tiny_body_folder, LogisticRegressionHead(C=2.0), class_weight="balanced").fit(TEXTS, LABELS)
    oracle = LogisticRegression(C=2.0, class_weight="balanced").fit(tiny_body.encode(TEXTS), LABELS)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), oracle.predict_proba(tiny_body.encode(TEXTS)))
    assert (fitted.classifier_.train_size_, fitted.classifier_.validation_size_) == (len(TEXTS), 0)


def test_svc_is_calibrated_on_the_validation_share(tiny_body: Body, tiny_body_folder: Path) -> None:
    fitted = text(tiny_body_folder, "svc", seed=3, validation_fraction=0.25).fit(TEXTS, LABELS)
    x, codes = tiny_body.encode(TEXTS), np.unique(LABELS, return_inverse=True)[1]
    train, held = holdout_split(codes, 0.25, 3, split_groups(TEXTS))
    y = np.array(LABELS)
    oracle = CalibratedClassifierCV(FrozenEstimator(SVC().fit(x[train], y[train])), cv=2, ensemble=False)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), oracle.fit(x[held], y[held]).predict_proba(x))
    assert (fitted.classifier_.train_size_, fitted.classifier_.validation_size_) == (len(train), len(held))


@pytest.mark.parametrize("weights", [None, "some"])
def test_classical_heads_take_weights_and_own_validation(weights: Any, tiny_body_folder: Path) -> None:
    weight = None if weights is None else [1.0 + number % 3 for number in range(60)]
    for head in ("svc", "logistic-regression"):
        fitted = text(tiny_body_folder, head).fit(TEXTS[:60], LABELS[:60], weight, validation=(TEXTS[24:], LABELS[24:]))
        assert fitted.classifier_.train_size_ == 60
        assert fitted.classifier_.validation_size_ == (len(TEXTS[24:]) if head == "svc" else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tune"),
    [(name, tune) for name in HEADS for tune in (CONTRASTIVE, FULL) if (name, tune) != ("svc", FULL)],
    ids=lambda value: getattr(value, "method", value),
)
def test_tuned_text_model_of_any_head_round_trip(name: str, tune: Any, tiny_body_folder: Path, tmp_path: Path) -> None:
    fitted = text(tiny_body_folder, HEADS[name], tune=tune).fit(TEXTS, LABELS)
    fitted.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    kind = "mlp" if (name, tune) == ("logistic-regression", FULL) else name
    assert metadata_of(tmp_path / "model")["head_kind"] == kind
    assert f"{tune.method} tuning" in (tmp_path / "model" / CARD).read_text()


def test_end_to_end_starts_from_the_fitted_regression(tiny_body_folder: Path) -> None:
    still = FULL.updated(learning_rate=1e-30, linear_learning_rate=1e-30, weight_decay=0.0)
    fitted = text(tiny_body_folder, "logistic-regression", tune=still, validation_fraction=0.2).fit(TEXTS, LABELS)
    head = fitted.classifier_
    assert isinstance(head, MLPHead)
    assert head.hidden == 0
    held = holdout_split(np.unique(LABELS, return_inverse=True)[1], 0.2, 0, split_groups(TEXTS))[0]
    plain = text(tiny_body_folder, "logistic-regression").fit(
        [TEXTS[row] for row in held], [LABELS[row] for row in held]
    )
    np.testing.assert_allclose(fitted.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-5)
    assert head.train_config_.learning_rate == 1e-30


def test_auto_records_the_choice_and_fits_it(tiny_body_folder: Path, tmp_path: Path) -> None:
    auto = text(tiny_body_folder, "auto", train=SHORT, validation_fraction=0.2).fit(TEXTS, LABELS)
    choice = auto.head_choice_
    assert choice is not None
    assert [loss.kind for loss in choice.losses] == ["logistic-regression", "svc", "mlp", "quantum"]
    assert auto.classifier_.kind == choice.kind
    named = clone(auto).set_params(head=choice.kind, train=None).fit(TEXTS, LABELS)
    if choice.kind in ("logistic-regression", "svc"):
        np.testing.assert_array_equal(auto.predict_proba(TEXTS), named.predict_proba(TEXTS))
    assert named.head_choice_ is None
    auto.save_pretrained(tmp_path / "model")
    assert TextClassifier.from_pretrained(tmp_path / "model").head_choice_ == choice
    card = (tmp_path / "model" / CARD).read_text()
    assert "## How the head was chosen" in card
    for loss in choice.losses:
        assert f"| {loss.mean:.4f} | {loss.standard_error:.4f} |" in card
    assert card.count("| chosen |") == 1


@pytest.mark.slow
def test_auto_end_to_end_leaves_out_svc(tiny_body_folder: Path) -> None:
    fitted = text(tiny_body_folder, "auto", train=SHORT, tune=FULL).fit(TEXTS, LABELS)
    assert fitted.head_choice_ is not None
    assert [loss.kind for loss in fitted.head_choice_.losses] == ["logistic-regression", "mlp", "quantum"]


@pytest.mark.parametrize(
    ("head", "settings", "message"),
    [
        (
            "svc",
            {"tune": FULL},
            "end-to-end tuning takes gradients through the head, and a head of kind 'svc' has none",
        ),
        ("forest", {}, "head='forest' is unknown"),
        (ProjectedLogisticRegressionHead(), {}, "is of the wrong type"),
        ("logistic-regression", {"calibrate": True}, "has no temperature"),
        ("auto", {"validation_fraction": 0.0}, "head='auto' compares heads on validation shares"),
        (
            "svc",
            {"validation_fraction": 0.0},
            "head='svc' is calibrated on two or more .*, and 'negative' has 0; raise",
        ),
        ("mlp", {"class_weight": {"positive": -1.0}}, "class_weight"),
        ("svc", {"class_weight": {"positive": -1.0}}, "class_weight"),
    ],
)
def test_text_classifier_unfit_head_raises(
    head: Any, settings: dict[str, Any], message: str, tiny_body_folder: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        text(tiny_body_folder, head, **settings).fit(TEXTS, LABELS)


def test_text_classifier_checks_head_before_loading_the_body() -> None:
    for head, settings in (("svc", {"tune": FULL}), ("svc", {"train": SHORT}), ("forest", {})):
        with pytest.raises(ConfigError):
            TextClassifier("no such body", head, **settings).fit(TEXTS, LABELS)  # type: ignore[arg-type]


def test_text_classifier_checkpoint_of_a_head_without_epochs_raises(tiny_body_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint=.* is for training in epochs, and a head of kind 'svc'"):
        text(tiny_body_folder, "svc").fit(TEXTS, LABELS, checkpoint=tmp_path / "checkpoint")


@pytest.mark.parametrize("head", ["logistic-regression", "svc"])
def test_text_classifier_labels_of_classical_heads_are_checked(head: str, tiny_body_folder: Path) -> None:
    with pytest.raises(DataError, match="these labels hold 1 class"):
        text(tiny_body_folder, head).fit(TEXTS, ["same"] * len(TEXTS))
    with pytest.raises(DataError, match="validation labels hold 'other'"):
        text(tiny_body_folder, head).fit(TEXTS, LABELS, validation=(["a film"], ["other"]))


@pytest.mark.parametrize("head", ["logistic-regression", "svc"])
def test_classical_head_with_shots_or_noise_raises(head: str, tiny_body_folder: Path) -> None:
    fitted = text(tiny_body_folder, head).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="is a classical head and has no circuit to run with shots or noise"):
        fitted.with_measurement(shots=100)


def test_from_parts_other_estimator_raises(tiny_body: Body) -> None:
    other = LogisticRegression().fit(tiny_body.encode(TEXTS), LABELS)
    with pytest.raises(ConfigError, match=r"classifier=.* is not the head of a text classifier; pass one of Quantum"):
        TextClassifier.from_parts(tiny_body, other)


def test_from_parts_takes_classical_heads(tiny_body: Body, tmp_path: Path) -> None:
    fitted = TextClassifier.from_parts(tiny_body, LogisticRegressionHead(C=3.0).fit(tiny_body.encode(TEXTS), LABELS))
    fitted.save_pretrained(tmp_path / "model")
    loaded = TextClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert metadata_of(tmp_path / "model")["seed"] is None
    assert clone(loaded).fit(TEXTS, LABELS).classifier_.C == 3.0


def test_text_classifier_from_classical_head_without_body_raises(tiny_body: Body, tmp_path: Path) -> None:
    LogisticRegressionHead().fit(tiny_body.encode(TEXTS), LABELS).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelFileError, match="takes embeddings, not sentences; load it with LogisticRegressionHead"):
        TextClassifier.from_pretrained(tmp_path / "model")


def test_head_settings_are_nested_parameters(tiny_body_folder: Path) -> None:
    classifier = text(tiny_body_folder, SVCHead())
    assert classifier.get_params()["head__C"] == 1.0
    assert clone(classifier).set_params(head__C=5.0).head.C == 5.0
    scores = cross_val_score(classifier.set_params(validation_fraction=0.3), np.array(TEXTS), np.array(LABELS), cv=2)
    assert scores.shape == (2,)


def test_stochastic_solver_depends_on_the_seed_alone(tiny_body_folder: Path, tmp_path: Path) -> None:
    fits = []
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            fits.append(text(tiny_body_folder, LogisticRegressionHead(solver="saga", max_iter=2)).fit(TEXTS, LABELS))
    np.testing.assert_array_equal(fits[0].classifier_.coef_, fits[1].classifier_.coef_)
    fits[0].save_pretrained(tmp_path / "model")
