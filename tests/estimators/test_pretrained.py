"""Classical heads on disk: rebuilt from arrays, with scikit-learn as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from ketfit.errors import ConfigError, DataError, ModelFileError
from ketfit.estimators.base import FitSettings
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import TrainConfig
from ketfit.model.tuning import EndToEndConfig

SHORT = TrainConfig(epochs=3)
WORDS = np.array(["so so", "good", "bad", "dull"])
NUMBERS = np.array([7, -1, 3, 2**40])

HEADS: dict[str, Callable[[Any], Any]] = {
    "regression": lambda labels: LogisticRegressionHead(),
    "regression, balanced": lambda labels: LogisticRegressionHead(C=3.0, class_weight="balanced"),
    "regression, weights": lambda labels: LogisticRegressionHead(class_weight={labels[0].item(): 4.0}),
    "regression, no intercept": lambda labels: LogisticRegressionHead(fit_intercept=False, solver="newton-cholesky"),
    "svc": lambda labels: SVCHead(),
    "svc, weights": lambda labels: SVCHead(C=2.0, gamma=0.3, class_weight={labels[1].item(): 4.0}),
    "svc, linear": lambda labels: SVCHead(kernel="linear", class_weight="balanced"),
    "svc, poly": lambda labels: SVCHead(kernel="poly", degree=2, coef0=1.0, gamma="auto"),
    "mlp": lambda labels: MLPHead(hidden=5, train=SHORT, class_weight="balanced"),
    "mlp, linear": lambda labels: MLPHead(hidden=0, train=SHORT, class_weight={labels[0].item(): 2.0}),
    "mlp, matched": lambda labels: MLPHead(match_parameters=60, activation="none", train=SHORT, seed=3),
}


def clouds(n: int, classes: int, seed: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(n) % classes
    x = np.random.default_rng(seed).standard_normal((n, 6))
    x[np.arange(n), y] += 1
    return x.astype(dtype), y


def fitted(name: str, classes: int = 3, labels: np.ndarray = WORDS, dtype: str = "float64") -> Any:
    (x, y), (x_held, y_held) = clouds(90, classes, 0, dtype), clouds(40, classes, 1, dtype)
    return HEADS[name](labels).fit(x, labels[y], validation=(x_held, labels[y_held]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("labels", [WORDS, NUMBERS], ids=["strings", "integers"])
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("name", HEADS)
def test_loaded_head_predicts_bit_for_bit(
    name: str, classes: int, labels: np.ndarray, dtype: str, tmp_path: Path
) -> None:
    head, (x, _) = fitted(name, classes, labels, dtype), clouds(50, classes, 2, dtype)
    head.save_pretrained(tmp_path / "model", data="clouds")
    loaded = type(head).from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(x), head.predict_proba(x))
    np.testing.assert_array_equal(loaded.predict(x), head.predict(x))
    np.testing.assert_array_equal(loaded.classes_, head.classes_)
    assert loaded.classes_.dtype.kind == head.classes_.dtype.kind
    assert (loaded.n_parameters_, loaded.n_features_in_) == (head.n_parameters_, 6)
    assert loaded.commit_ is None
    loaded.save_pretrained(tmp_path / "again", data="clouds")
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "model" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize("name", HEADS)
def test_loaded_head_can_be_fitted_again(name: str, tmp_path: Path) -> None:
    head, (x, y) = fitted(name), clouds(90, 3, 0)
    head.save_pretrained(tmp_path / "model")
    loaded = type(head).from_pretrained(tmp_path / "model")
    x_held, y_held = clouds(40, 3, 1)
    again = clone(loaded).fit(x, WORDS[y], validation=(x_held, WORDS[y_held]))
    np.testing.assert_array_equal(again.predict_proba(x), head.predict_proba(x))


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_svc_head_probabilities_equal_those_of_scikit_learn(classes: int) -> None:
    (x, y), (x_held, y_held), (x_test, _) = clouds(90, classes, 0), clouds(40, classes, 1), clouds(50, classes, 2)
    head = SVCHead().fit(x, y, validation=(x_held, y_held))
    oracle = CalibratedClassifierCV(FrozenEstimator(SVC().fit(x, y)), cv=2, ensemble=False).fit(x_held, y_held)
    np.testing.assert_array_equal(head.predict_proba(x_test), oracle.predict_proba(x_test))


@pytest.mark.parametrize("classes", [2, 3])
def test_loaded_heads_equal_the_estimators_of_scikit_learn(classes: int, tmp_path: Path) -> None:
    (x, y), (x_test, _) = clouds(90, classes, 0), clouds(50, classes, 2)
    LogisticRegressionHead(C=0.5).fit(x, y).save_pretrained(tmp_path / "regression")
    regression = LogisticRegressionHead.from_pretrained(tmp_path / "regression")
    np.testing.assert_array_equal(
        regression.predict_proba(x_test), LogisticRegression(C=0.5).fit(x, y).predict_proba(x_test)
    )
    SVCHead(C=0.5).fit(x, y).save_pretrained(tmp_path / "svc")
    svc, oracle = SVCHead.from_pretrained(tmp_path / "svc"), SVC(C=0.5).fit(x, y)
    np.testing.assert_array_equal(svc.decision_function(x_test), oracle.decision_function(x_test))
    np.testing.assert_array_equal(svc.predict(x_test), oracle.predict(x_test))
    np.testing.assert_array_equal(svc.n_support_, oracle.n_support_)
    np.testing.assert_array_equal(svc.support_, oracle.support_)


def test_uncalibrated_svc_head_is_loaded_uncalibrated(tmp_path: Path) -> None:
    x, y = clouds(90, 2, 0)
    SVCHead().fit(x, y).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="a support vector machine has no probabilities of its own"):
        SVCHead.from_pretrained(tmp_path / "model").predict_proba(x)
    assert "| probabilities | none |" in (tmp_path / "model" / "README.md").read_text()


def test_platt_scaling_of_vanishing_probabilities_is_uniform() -> None:
    head, far = fitted("svc"), np.full((1, 3), -1e6)
    assert head.platt_.probabilities(far).tolist() == [[1 / 3] * 3]


def test_loaded_head_rejects_other_columns(tmp_path: Path) -> None:
    x, y = clouds(90, 2, 0)
    table = pd.DataFrame(x, columns=list("abcdef"))
    head = LogisticRegressionHead().fit(table, y)
    head.save_pretrained(tmp_path / "model")
    loaded = LogisticRegressionHead.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(table), head.predict_proba(table))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict_proba(table[list("bacdef")])


def test_parameters_set_after_fit_are_not_saved(tmp_path: Path) -> None:
    regression, mlp = fitted("regression").set_params(C=9.0), fitted("mlp").set_params(hidden=2, activation="none")
    for head in (regression, mlp):
        head.save_pretrained(tmp_path / head.kind)
    assert LogisticRegressionHead.from_pretrained(tmp_path / regression.kind).C == 1.0
    loaded = MLPHead.from_pretrained(tmp_path / mlp.kind)
    assert (loaded.hidden, loaded.activation) == (5, "gelu")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LogisticRegressionHead(warm_start=True), r"LogisticRegressionHead\(warm_start=True\): a model file holds C, "),
        (SVCHead(decision_function_shape="ovo"), "leave decision_function_shape at 'ovr'"),
        (SVCHead(shrinking=False), "leave shrinking at True"),
    ],
)
def test_save_pretrained_parameter_that_no_file_holds_raises(head: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        head.fit(*clouds(20, 2, 0)).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("head", [LogisticRegressionHead(), SVCHead(), MLPHead()])
def test_save_pretrained_unfitted_head_raises(head: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        head.save_pretrained(tmp_path / "model")


def test_save_pretrained_float_labels_raise(tmp_path: Path) -> None:
    x, y = clouds(20, 2, 0)
    with pytest.raises(DataError, match="classes_"):
        LogisticRegressionHead().fit(x, y.astype(float)).save_pretrained(tmp_path / "model")


def test_from_pretrained_another_kind_raises(tmp_path: Path) -> None:
    fitted("svc").save_pretrained(tmp_path / "model")
    for kind in (QuantumHeadClassifier, LogisticRegressionHead, MLPHead):
        with pytest.raises(ModelFileError, match="has a head of kind 'svc'; load it with SVCHead"):
            kind.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("classes", [2, 3])
def test_mlp_from_regression_has_its_probabilities(classes: int) -> None:
    (x, y), (x_test, _) = clouds(90, classes, 0), clouds(50, classes, 2)
    regression = LogisticRegressionHead(C=2.0).fit(x, y)
    settings = FitSettings(0, 0.15, None, False)
    mlp = MLPHead.from_regression(regression, settings, np.ones(classes), EndToEndConfig(), "cpu")
    np.testing.assert_allclose(mlp.predict_proba(x_test), regression.predict_proba(x_test), rtol=1e-12)


def test_from_pretrained_keeps_number_of_folds(tmp_path: Path) -> None:
    x, y = clouds(20, 2, 0)
    head = MLPHead(hidden=0, train=TrainConfig(epochs=2), validation="cross", n_folds=3).fit(x, y)
    head.save_pretrained(tmp_path / "model")
    loaded = MLPHead.from_pretrained(tmp_path / "model")
    assert (loaded.validation, loaded.n_folds) == ("cross", 3)
    assert "each of them in one of 3 folds" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
