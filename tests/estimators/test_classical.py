"""The classical heads: one interface, the paper's numbers of parameters, and calibrated probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from ketfit.errors import ConfigError, DataError
from ketfit.estimators.classical import (
    LogisticRegressionHead,
    MLPHead,
    ProjectedLogisticRegressionHead,
    SVCHead,
    matching_hidden_units,
)
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig

SHORT = TrainConfig(epochs=40, learning_rate=0.1)
TINY = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1, n_measured=3, reference_amplitude=1)
HEADS: dict[str, Callable[[], Any]] = {
    "logistic regression": LogisticRegressionHead,
    "projected logistic regression": lambda: ProjectedLogisticRegressionHead(3),
    "SVC": SVCHead,
    "MLP": lambda: MLPHead(hidden=6, train=SHORT),
    "quantum": lambda: QuantumHeadClassifier(TINY, SHORT),
}


def clouds(n: int, classes: int, seed: int, width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(n) % classes
    x = 0.5 * np.random.default_rng(seed).standard_normal((n, width))
    x[np.arange(n), y] += 3
    return x, y


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("named", [False, True])
def test_every_head_has_the_shared_interface(name: str, classes: int, named: bool) -> None:
    labels = np.array(["bad", "good", "so-so"]) if named else np.array([-1, 5, 7])
    (x, y), (x_held, y_held), (x_test, y_test) = clouds(48, classes, 0), clouds(24, classes, 1), clouds(30, classes, 2)
    head = HEADS[name]()
    assert head.fit(x, labels[y], validation=(x_held, labels[y_held])) is head
    proba = head.predict_proba(x_test)
    assert proba.shape == (30, classes)
    assert ((proba >= 0) & (proba <= 1)).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(head.classes_, labels[:classes])
    assert head.score(x_test, labels[y_test]) == (head.predict(x_test) == labels[y_test]).mean() >= 0.9
    assert isinstance(head.n_parameters_, int)
    assert head.n_parameters_ > 0


@pytest.mark.parametrize("name", HEADS)
def test_sample_weights_change_the_predictions(name: str) -> None:
    # Every point stands there twice with either label: the weights say which of the two counts.
    x, y = clouds(40, 2, 0)
    twice, labels = np.concatenate([x, x]), np.concatenate([y, 1 - y])
    weight = np.concatenate([np.full(40, 5.0), np.full(40, 0.05)])
    assert HEADS[name]().fit(twice, labels, weight).score(x, y) >= 0.9
    assert HEADS[name]().fit(twice, labels, weight[::-1].copy()).score(x, y) <= 0.1


@pytest.mark.parametrize("head", [LogisticRegressionHead, SVCHead])
def test_class_weights_of_labels_that_are_digits_equal_sample_weights(head: Any) -> None:
    x, y = clouds(40, 2, 0)
    x[:, :2] /= 3  # overlapping
    labels = np.array(["0", "007"])[y]
    weighted = head(class_weight={"007": 5.0}).fit(x, labels)
    np.testing.assert_array_equal(
        weighted.decision_function(x), head().fit(x, labels, np.where(y, 5.0, 1.0)).decision_function(x)
    )
    assert not np.allclose(weighted.decision_function(x), head().fit(x, labels).decision_function(x))
    assert weighted.class_weight == {"007": 5.0}


@pytest.mark.parametrize("head", [LogisticRegressionHead, SVCHead])
def test_class_weights_equal_those_of_scikit_learn(head: Any) -> None:
    x, y = clouds(60, 3, 0)
    labels, weight, own = np.array(["a", "b", "c"])[y], {"a": 2.0, "c": 0.3}, np.linspace(0.5, 2, 60)
    expected = head.__mro__[head.__mro__.index(LogisticRegression if head is LogisticRegressionHead else SVC)]
    np.testing.assert_allclose(
        head(class_weight=weight).fit(x, labels, own).decision_function(x),
        expected(class_weight=weight).fit(x, labels, own).decision_function(x),
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize("head", [LogisticRegressionHead, SVCHead])
def test_class_weight_of_an_unknown_label_is_refused(head: Any) -> None:
    with pytest.raises(ConfigError, match="class_weight has a weight of 'c', which is not a label; known: 'a', 'b'"):
        head(class_weight={"a": 1.0, "c": 2.0}).fit(np.eye(4), ["a", "b"] * 2)


@pytest.mark.parametrize("labels", [["a", "b", "z"], [0, 1, 2]])
def test_svc_refuses_validation_labels_that_training_lacks(labels: list[Any]) -> None:
    x, y = clouds(24, 2, 0)
    x_held, y_held = clouds(12, 3, 1)
    with pytest.raises(DataError, match="the validation labels hold .*, which the training labels do not"):
        SVCHead().fit(x, np.array(labels)[y], validation=(x_held, np.array(labels)[y_held]))


@pytest.mark.parametrize("name", ["logistic regression", "projected logistic regression", "SVC"])
def test_rows_of_weight_zero_may_lack_a_label(name: str) -> None:
    x, y = clouds(24, 2, 0)
    weight = np.array([0.0, *[1.0] * 23])
    kept = HEADS[name]().fit(x[1:], y[1:], weight[1:])
    np.testing.assert_array_equal(HEADS[name]().fit(x, [None, *y[1:].tolist()], weight).predict(x), kept.predict(x))


@pytest.mark.parametrize("name", ["logistic regression", "projected logistic regression", "SVC"])
def test_labels_that_are_no_column_beside_weights_are_refused(name: str) -> None:
    x, y = clouds(24, 2, 0)
    with pytest.raises(ValueError, match="y to be passed|should be a 1d array|y cannot be None|y should be"):
        HEADS[name]().fit(x, None, np.ones(24))
    with pytest.raises(ValueError, match="1d array|bad input shape"):
        HEADS[name]().fit(x, np.stack([y, y], axis=1), np.ones(24))


@pytest.mark.parametrize("name", HEADS)
def test_unfitted_head_raises_not_fitted_error(name: str) -> None:
    head = HEADS[name]()
    for ask in (lambda: head.predict(np.ones((1, 4))), lambda: head.predict_proba(np.ones((1, 4)))):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            ask()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        _ = head.n_parameters_


@pytest.mark.parametrize("name", HEADS)
def test_clone_of_a_head_has_equal_parameters(name: str) -> None:
    head = HEADS[name]()
    assert clone(head).get_params() == head.get_params()


class TestLogisticRegression:
    def test_papers_embeddings_give_the_papers_number_of_parameters(self) -> None:
        assert LogisticRegressionHead().fit(*clouds(20, 2, 0, width=768)).n_parameters_ == 769

    def test_more_than_two_classes_have_one_row_of_coefficients_each(self) -> None:
        assert LogisticRegressionHead().fit(*clouds(30, 3, 0)).n_parameters_ == 3 * 5

    def test_fit_equals_scikit_learn_and_ignores_validation(self) -> None:
        x, y = clouds(30, 2, 0)
        plain = LogisticRegression(C=0.3).fit(x, y)
        ours = LogisticRegressionHead(C=0.3).fit(x, y, validation=(-x, y))
        np.testing.assert_array_equal(plain.coef_, ours.coef_)
        np.testing.assert_array_equal(plain.predict_proba(x), ours.predict_proba(x))


class TestProjectedLogisticRegression:
    @pytest.mark.parametrize(("classes", "size"), [(2, 101), (3, 303)])
    def test_n_parameters_is_the_directions_and_an_intercept(self, classes: int, size: int) -> None:
        assert ProjectedLogisticRegressionHead(100).fit(*clouds(30, classes, 0, width=768)).n_parameters_ == size

    def test_fit_equals_scikit_learn_on_the_projections(self) -> None:
        x, y = clouds(30, 2, 0, width=50)
        head = ProjectedLogisticRegressionHead(7, C=0.3, seed=5).fit(x, y, validation=(-x, y))
        directions = head.pipeline_[0].components_
        assert directions.shape == (7, 50)
        plain = LogisticRegression(C=0.3).fit(x @ directions.T, y)
        np.testing.assert_allclose(head.predict_proba(x), plain.predict_proba(x @ directions.T), rtol=1e-6)

    def test_random_directions_depend_on_the_seed(self) -> None:
        x, y = clouds(30, 2, 0, width=50)
        one, same, other = (ProjectedLogisticRegressionHead(7, seed=seed).fit(x, y) for seed in (2, 2, 3))
        np.testing.assert_array_equal(one.predict_proba(x), same.predict_proba(x))
        assert not np.array_equal(one.predict_proba(x), other.predict_proba(x))

    def test_principal_directions_are_singular_vectors_of_the_training_set(self) -> None:
        x, y = clouds(30, 2, 0, width=50)
        head = ProjectedLogisticRegressionHead(7, C=0.3, directions="principal").fit(x, y, validation=(-x, y))
        centre = x.mean(axis=0)
        directions = np.linalg.svd(x - centre, full_matrices=False)[2][:7]
        projected = (x - centre) @ directions.T
        plain = LogisticRegression(C=0.3).fit(projected, y)
        np.testing.assert_allclose(head.predict_proba(x), plain.predict_proba(projected), atol=1e-4)
        assert head.n_parameters_ == 8

    def test_unknown_directions_are_refused(self) -> None:
        x, y = clouds(3, 2, 0, width=50)
        with pytest.raises(ConfigError, match="directions='best': they are random or principal"):
            ProjectedLogisticRegressionHead(7, directions="best").fit(x, y)  # type: ignore[arg-type]
        with pytest.raises(
            ConfigError, match=f"n_components=7: {len(x)} embeddings of width 50 have {len(x)} principal"
        ):
            ProjectedLogisticRegressionHead(7, directions="principal").fit(x, y)


class TestSVC:
    @pytest.mark.parametrize("classes", [2, 3])
    def test_n_parameters_counts_support_vectors_and_coefficients(self, classes: int) -> None:
        head = SVCHead().fit(*clouds(30, classes, 0))
        vectors = int(head.n_support_.sum())
        assert vectors > 0
        assert head.n_parameters_ == 4 * vectors + (classes - 1) * vectors + classes * (classes - 1) // 2

    def test_predictions_equal_scikit_learn(self) -> None:
        x, y = clouds(30, 2, 0)
        ours = SVCHead(C=0.5).fit(x, y, validation=clouds(10, 2, 1))
        np.testing.assert_array_equal(SVC(C=0.5).fit(x, y).decision_function(x), ours.decision_function(x))

    @pytest.mark.parametrize(
        "validation",
        [None, clouds(3, 2, 1), (clouds(8, 2, 1)[0], [0] * 8), (clouds(3, 3, 1)[0], [0, 0, 1])],
        ids=["none", "one of a class", "one class", "one of the last class"],
    )
    def test_predict_proba_without_calibration_samples_is_refused(self, validation: Any) -> None:
        head = SVCHead().fit(*clouds(30, 2, 0), validation=validation)
        assert head.score(*clouds(30, 2, 3)) >= 0.9
        with pytest.raises(ConfigError, match="no probabilities of its own; give fit validation"):
            head.predict_proba(np.ones((1, 4)))

    def test_predict_proba_is_calibrated_on_the_validation_samples(self) -> None:
        x, y = clouds(40, 2, 0)
        held = np.random.default_rng(1).standard_normal((60, 4)), np.arange(60) % 2  # labels that cannot be told
        sure = SVCHead().fit(x, y, validation=clouds(60, 2, 1)).predict_proba(x)
        unsure = SVCHead().fit(x, y, validation=held).predict_proba(x)
        assert sure.max(axis=1).mean() > 0.9
        assert unsure.max(axis=1).mean() < 0.7

    def test_second_fit_discards_the_calibration(self) -> None:
        head = SVCHead().fit(*clouds(30, 2, 0), validation=clouds(10, 2, 1)).fit(*clouds(30, 2, 0))
        with pytest.raises(ConfigError, match="no probabilities"):
            head.predict_proba(np.ones((1, 4)))


def hidden_units(head: MLPHead) -> int:
    layers = [layer for layer in head.module_.modules() if isinstance(layer, torch.nn.Linear)]
    return layers[0].out_features if len(layers) == 2 else 0


class TestMLP:
    @pytest.mark.parametrize(
        ("hidden", "size"), [(0, 1_538), (48, 37_010), (96, 74_018), (144, 111_026), (192, 148_034)]
    )
    def test_n_parameters_of_the_papers_heads_match_the_paper(self, hidden: int, size: int) -> None:
        head = MLPHead(hidden=hidden, train=TrainConfig(epochs=1)).fit(*clouds(8, 2, 0, width=768))
        assert head.n_parameters_ == size
        assert hidden_units(head) == hidden

    @pytest.mark.parametrize(("dim", "classes"), [(768, 2), (384, 2), (768, 5), (16, 3), (1, 2)])
    def test_matching_hidden_units_come_closest(self, dim: int, classes: int) -> None:
        def size(hidden: int) -> int:
            return hidden * (dim + 1) + (hidden + 1) * classes

        for wanted in [1, 2, dim, 769, 886, 934, 2_000, 10_007, *range(5, 4_000, 97)]:
            hidden = matching_hidden_units(wanted, dim, classes)
            closest = min(abs(size(other) - wanted) for other in range(1, 10_007 // (dim + 1) + 3))
            assert hidden >= 1
            assert abs(size(hidden) - wanted) == closest, (wanted, hidden)

    def test_match_parameters_replaces_hidden(self) -> None:
        head = MLPHead(hidden=500, match_parameters=100, train=SHORT).fit(*clouds(20, 2, 0))
        assert hidden_units(head) == 14
        assert head.n_parameters_ == 14 * 5 + 15 * 2 == 100

    @pytest.mark.parametrize("hidden", [0, 5])
    def test_equal_seeds_give_equal_perceptrons(self, hidden: int) -> None:
        x, y = clouds(30, 2, 0)
        one, same, other = (MLPHead(hidden=hidden, train=SHORT, seed=seed).fit(x, y) for seed in (2, 2, 3))
        np.testing.assert_array_equal(one.predict_proba(x), same.predict_proba(x))
        assert one.history_ == same.history_
        assert not np.array_equal(one.predict_proba(x), other.predict_proba(x))

    def test_predict_proba_equals_the_formula(self) -> None:
        x, y = clouds(20, 2, 0)
        head = MLPHead(hidden=3, train=SHORT).fit(x, y)
        first, second = (layer for layer in head.module_ if isinstance(layer, torch.nn.Linear))
        inner = torch.from_numpy(x) @ first.weight.T + first.bias
        active = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        expected = (active @ second.weight.T + second.bias).softmax(dim=1).detach().numpy()
        np.testing.assert_allclose(head.predict_proba(x), expected, rtol=1e-10)

    def test_activation_none_is_linear(self) -> None:
        x, y = clouds(20, 2, 0)
        head = MLPHead(hidden=1, train=SHORT, activation="none").fit(x, y)
        assert head.n_parameters_ == 5 + 4
        assert hidden_units(head) == 1
        logits = head.module_(torch.from_numpy(np.stack([x[0], x[1], (x[0] + x[1]) / 2])))
        torch.testing.assert_close(logits[2], (logits[0] + logits[1]) / 2)

    def test_unknown_activation_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="activation='relu': it is gelu or none"):
            MLPHead(hidden=1, train=SHORT, activation="relu").fit(*clouds(20, 2, 0))  # type: ignore[arg-type]

    def test_zero_hidden_units_are_a_linear_layer(self) -> None:
        head = MLPHead(hidden=0, train=SHORT).fit(*clouds(20, 2, 0))
        assert isinstance(head.module_, torch.nn.Linear)

    @pytest.mark.parametrize("hidden", [-1, -48])
    def test_negative_hidden_units_are_refused(self, hidden: int) -> None:
        with pytest.raises(ConfigError, match=f"hidden={hidden}: it cannot be negative"):
            MLPHead(hidden=hidden, train=SHORT).fit(*clouds(20, 2, 0))

    @pytest.mark.parametrize("wanted", [-5, 0])
    def test_zero_parameters_to_match_are_refused(self, wanted: int) -> None:
        assert matching_hidden_units(wanted, 768, 2) == 1

    def test_perceptron_accepts_a_zero_vector(self) -> None:
        x, y = clouds(20, 2, 0)
        x[3] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isfinite(MLPHead(hidden=2, train=SHORT).fit(x, y).predict_proba(x)).all()


def test_projections_in_a_bagging_ensemble_differ() -> None:
    x, y = clouds(48, 2, 0)
    bag = BaggingClassifier(ProjectedLogisticRegressionHead(2), n_estimators=2, bootstrap=False, random_state=0)
    one, other = (member.pipeline_[0].components_ for member in bag.fit(x, y).estimators_)
    assert abs(one - other).max() > 0.1
    by_seed, by_state = (ProjectedLogisticRegressionHead(2, **{name: 4}).fit(x, y) for name in ("seed", "random_state"))
    np.testing.assert_array_equal(by_seed.predict_proba(x), by_state.predict_proba(x))


def test_liblinear_without_intercept_has_the_array_of_the_other_solvers() -> None:
    x, y = clouds(40, 2, 0)
    head = LogisticRegressionHead(solver="liblinear", fit_intercept=False).fit(x, y)
    assert (head.intercept_.tolist(), head.n_parameters_) == ([0.0], head.coef_.size + 1)
