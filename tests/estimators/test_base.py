"""TorchHeadClassifier as a scikit-learn estimator: checks, tools, weights, validation and refused arguments."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from ketfit.data.splits import holdout_split
from ketfit.errors import ConfigError, DataError, InputError, TrainingError
from ketfit.estimators.base import TorchHeadClassifier
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead

HEAD = HeadConfig(n_qubits=3, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)
SHORT = TrainConfig(epochs=5, learning_rate=0.1)
LONG = TrainConfig(epochs=40, learning_rate=0.1)


def quantum(**settings: Any) -> QuantumHeadClassifier:
    return QuantumHeadClassifier(**{"head": HEAD, "train": SHORT, **settings})


def mlp(**settings: Any) -> MLPHead:
    return MLPHead(**{"hidden": 3, "train": SHORT, **settings})


HEADS = pytest.mark.parametrize("make", [quantum, mlp])


def clouds(n: int = 30, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` points in five dimensions, one cloud per class, with alternating classes."""
    y = np.arange(n) % classes
    x = 0.5 * np.random.default_rng(seed).standard_normal((n, 5))
    x[np.arange(n), y] += 3
    return x, y


def proba_of(fitted: TorchHeadClassifier) -> np.ndarray:
    return fitted.predict_proba(clouds(20, seed=9)[0])


# --- scikit-learn's own checks ---------------------------------------------------------------------------------

CHECKED = {
    "default": QuantumHeadClassifier(train=TrainConfig(epochs=10, learning_rate=0.2)),
    "no validation": QuantumHeadClassifier(train=TrainConfig(epochs=10, learning_rate=0.2), validation_fraction=0),
    "perceptron": MLPHead(hidden=8, train=TrainConfig(epochs=10, learning_rate=0.2), validation_fraction=0),
}
ZERO_ROW = "one row of its integers is all zeros, which has no amplitude encoding"
EXPECTED_FAILURES: dict[str, dict[str, tuple[str, type[Exception], str]]] = {
    "default": {
        "check_estimators_dtypes": (ZERO_ROW, InputError, "is all zeros"),
        "check_sample_weight_equivalence_on_dense_data": (
            "a share is held out for validation, and that of weighted samples is not that of repeated ones",
            AssertionError,
            "is not equivalent to fitting with removed or repeated data points",
        ),
    },
    "no validation": {"check_estimators_dtypes": (ZERO_ROW, InputError, "is all zeros")},
    "perceptron": {},
}
# They skip themselves unless SCIPY_ARRAY_API is set before scipy is imported; see the test in a process of its own.
ELSEWHERE = ("check_array_api_input",)


def sklearn_checks() -> Iterator[Any]:
    for name, estimator in CHECKED.items():
        for _, check in estimator_checks_generator(estimator):
            settings = ",".join(f"{key}={value}" for key, value in check.keywords.items())
            if check.func.__name__ not in ELSEWHERE:
                yield pytest.param(name, check, id=f"{name}-{check.func.__name__}({settings})")


@pytest.mark.parametrize(("name", "check"), list(sklearn_checks()))
def test_scikit_learn_check_passes(name: str, check: Callable[[Any], None]) -> None:
    estimator = clone(CHECKED[name])
    expected = EXPECTED_FAILURES[name].get(check.func.__name__)  # type: ignore[attr-defined]
    if expected is None:
        check(estimator)
    else:
        _, error, message = expected
        with pytest.raises(error, match=message):
            check(estimator)


def test_expected_failures_are_existing_checks() -> None:
    for name, expected in EXPECTED_FAILURES.items():
        known = {check.func.__name__ for _, check in estimator_checks_generator(CHECKED[name])}
        assert expected.keys() <= known
        assert known.issuperset(ELSEWHERE)


ARRAY_API = """
from sklearn.utils.estimator_checks import check_array_api_input
from ketfit.estimators.classical import MLPHead
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import TrainConfig
for kind in (QuantumHeadClassifier, MLPHead):
    head = kind(train=TrainConfig(epochs=5))
    check_array_api_input(kind.__name__, head, array_namespace="numpy", expect_only_array_outputs=False)
print("checked")
"""


@pytest.mark.slow
def test_scikit_learn_check_with_array_dispatch_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ARRAY_API],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "checked\n"), done.stderr


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, bool, object])
def test_fit_accepts_every_dtype(dtype: Any) -> None:
    x = np.abs(np.rint(clouds()[0])).astype(dtype)
    x[:, 4] = 1
    fitted = quantum().fit(x, clouds()[1])
    assert np.isfinite(fitted.predict_proba(x)).all()
    assert set(fitted.predict(x)) <= {0, 1}


# --- its tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", [StandardScaler, Normalizer])
def test_pipeline_with_a_scaler_predicts(scaler: Any) -> None:
    head = HEAD.updated(encoder_layers=3, connectivity=2, angle_scale=1.5)  # centred clouds ask for more than HEAD
    pipeline = make_pipeline(scaler(), quantum(head=head, train=LONG)).fit(*clouds(40))
    assert pipeline.score(*clouds(40, seed=5)) >= 0.9


def test_pipeline_parameters_set_the_settings() -> None:
    pipeline = make_pipeline(Normalizer(), quantum())
    pipeline.set_params(quantumheadclassifier__head__n_qubits=4, quantumheadclassifier__train__epochs=2)
    assert pipeline.fit(*clouds())[-1].module_.config.n_qubits == 4
    assert len(pipeline[-1].history_) == 2


@pytest.mark.slow
def test_grid_search_in_two_processes_equals_one() -> None:
    grid = {"head__n_qubits": [3, 4], "train__learning_rate": list(np.array([1e-4, 0.1]))}
    searches = [
        GridSearchCV(quantum(train=LONG), grid, cv=StratifiedKFold(2), n_jobs=jobs).fit(*clouds(40)) for jobs in (1, 2)
    ]
    for search in searches:
        assert search.best_params_["train__learning_rate"] == 0.1
        assert search.best_estimator_.module_.config.n_qubits == search.best_params_["head__n_qubits"]
        assert search.best_estimator_.train_config_.learning_rate == 0.1
        assert search.best_score_ >= 0.9
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_array_equal(one, two)
    assert one.min() < one.max()


def test_grid_search_leaves_the_original_unchanged() -> None:
    original = quantum()
    GridSearchCV(original, {"head__n_qubits": [3], "train__epochs": [1]}, cv=2).fit(*clouds(12))
    assert original.head == HEAD
    assert original.train == SHORT
    assert not hasattr(original, "module_")


def test_grid_with_an_unknown_setting_is_refused() -> None:
    search = GridSearchCV(quantum(), {"head__qubits": [3]}, cv=2)
    with pytest.raises(ConfigError, match="HeadConfig has no setting 'qubits'; did you mean 'n_qubits'"):
        search.fit(*clouds(12))


def test_cross_validation_learns() -> None:
    assert cross_val_score(quantum(train=LONG), *clouds(40), cv=2).min() >= 0.9


@HEADS
def test_bagging_members_have_different_initial_parameters(make: Callable[..., TorchHeadClassifier]) -> None:
    x, y = clouds()
    still = TrainConfig(epochs=1, learning_rate=1e-12)  # the weights stay the initial ones
    bags = [
        BaggingClassifier(make(train=still), n_estimators=3, bootstrap=False, random_state=state).fit(x, y)
        for state in (7, 7, 8)
    ]
    one, same, other = (
        [torch.cat([weights.flatten() for weights in member.module_.parameters()]) for member in bag.estimators_]
        for bag in bags
    )
    assert all(torch.equal(*pair) for pair in zip(one, same, strict=True))
    differing = [*one, *other]
    assert not any(torch.allclose(*pair, atol=1e-3) for pair in itertools.combinations(differing, 2))
    assert [member.seed_ for member in bags[0]] == [member.random_state for member in bags[0]]


@HEADS
def test_random_state_is_the_seed_of_a_fit(make: Callable[..., TorchHeadClassifier]) -> None:
    x, y = clouds()
    by_seed = make(seed=5).fit(x, y)
    for state in (5, np.int64(5)):
        by_state = make(random_state=state).fit(x, y)
        assert by_state.seed_ == by_seed.seed_ == 5
        np.testing.assert_array_equal(proba_of(by_state), proba_of(by_seed))
    drawing = make(random_state=np.random.RandomState(0))
    first, second = (drawing.fit(x, y).seed_ for _ in range(2))
    assert first != second
    assert make(random_state=np.random.RandomState(0)).fit(x, y).seed_ == first


@pytest.mark.parametrize("state", ["x", -1, 1.5, True, np.random.default_rng(0)])
def test_random_state_of_the_wrong_type_is_refused(state: Any) -> None:
    with pytest.raises(ConfigError, match="random_state=.*: it must be a whole number of at least 0; a numpy"):
        quantum(random_state=state).fit(*clouds())


class TestParams:
    def test_get_params_has_nested_settings(self) -> None:
        params = quantum().get_params()
        assert params["head"] == HEAD
        assert {key: params[f"head__{key}"] for key in HeadConfig.model_fields} == dict(HEAD)
        assert params["train__epochs"] == 5
        assert params["seed"] == 0

    def test_get_params_shallow_has_no_nested_settings(self) -> None:
        assert set(quantum().get_params(deep=False)) == {
            "head",
            "train",
            "seed",
            "validation_fraction",
            "class_weight",
            "device",
            "calibrate",
            "random_state",
            "validation",
            "n_folds",
        }

    def test_get_params_without_a_config_has_no_settings(self) -> None:
        params = QuantumHeadClassifier().get_params()
        assert params["head"] is None
        assert not any("__" in key for key in params)

    def test_set_params_of_one_setting_keeps_the_others(self) -> None:
        head = quantum().set_params(head__n_qubits=5, head__encoder_layers=3, train__epochs=7, seed=4)
        assert head.head == HEAD.updated(n_qubits=5, encoder_layers=3)
        assert head.train == SHORT.updated(epochs=7)
        assert head.seed == 4
        assert (HEAD.n_qubits, SHORT.epochs) == (3, 5)

    def test_set_params_of_a_config_and_its_setting_sets_both(self) -> None:
        head = QuantumHeadClassifier().set_params(head__n_qubits=5, head=HEAD)
        assert head.head == HEAD.updated(n_qubits=5)

    def test_set_params_returns_the_estimator(self) -> None:
        head = quantum()
        assert head.set_params() is head

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"head__n_qubit": 4}, "HeadConfig has no setting 'n_qubit'; did you mean 'n_qubits'"),
            ({"train__epochs": 0}, "epochs=0: input should be greater than or equal to 1"),
            ({"head__n_qubits": "4"}, "n_qubits='4': input should be a valid integer"),
            ({"head__connectivity": 3}, "connectivity=3 needs more than 3 qubits"),
            ({"seed__x": 4}, "seed__x has no configuration to change; pass seed="),
            ({"nonsense__x": 4}, "nonsense__x has no configuration to change"),
        ],
    )
    def test_set_params_of_unfit_settings_is_refused(self, params: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            quantum().set_params(**params)

    def test_set_params_without_a_config_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="head__n_qubits has no configuration to change; pass head="):
            QuantumHeadClassifier().set_params(head__n_qubits=4)

    def test_set_params_of_an_unknown_parameter_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
            quantum().set_params(nonsense=4)

    @HEADS
    def test_clone_is_unfitted_with_equal_settings(self, make: Callable[..., TorchHeadClassifier]) -> None:
        original = make(seed=7, class_weight={0: 2.0, 1: 1.0}, validation_fraction=0.3).fit(*clouds())
        copy = clone(original)
        assert copy.get_params() == original.get_params()
        assert not hasattr(copy, "module_")
        np.testing.assert_array_equal(proba_of(copy.fit(*clouds())), proba_of(original))

    def test_repr_shows_the_settings(self) -> None:
        assert "QuantumHeadClassifier(" in repr(quantum())
        assert "n_qubits" in quantum()._repr_html_()


# --- what it learns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("labels", ["int", "str", "object", "sparse int"])
def test_labels_of_every_type_are_predicted(classes: int, labels: str) -> None:
    x, codes = clouds(50, classes)
    names: Any = {
        "int": np.arange(classes),
        "str": np.array([f"class {i}" for i in range(classes)]),
        "object": np.array([f"class {i}" for i in range(classes)], dtype=object),
        "sparse int": np.array([-7, 3, 4, 1000, 2**40])[:classes],
    }[labels]
    head = HEAD.updated(n_measured=1 if classes == 2 else 3)
    fitted = quantum(head=head, train=TrainConfig(epochs=60, learning_rate=0.15)).fit(x, names[codes])
    proba, predicted = fitted.predict_proba(x), fitted.predict(x)
    np.testing.assert_array_equal(fitted.classes_, names)
    assert proba.shape == (50, classes)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(predicted, names[proba.argmax(axis=1)])
    assert predicted.dtype == names.dtype
    assert fitted.score(x, names[codes]) == (predicted == names[codes]).mean() >= 0.8


def test_lists_fit_like_arrays() -> None:
    x, y = clouds()
    one = quantum().fit(x, y)
    other = quantum().fit(x.tolist(), y.tolist())
    np.testing.assert_array_equal(proba_of(one), proba_of(other))


@HEADS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_head_computes_in_the_dtype_of_the_embeddings(make: Callable[..., TorchHeadClassifier], dtype: str) -> None:
    x, y = clouds()
    fitted = make().fit(x.astype(dtype), y)
    assert {parameter.dtype for parameter in fitted.module_.parameters()} == {getattr(torch, dtype)}
    assert fitted.predict_proba(x.astype(dtype)).dtype == np.float64
    np.testing.assert_allclose(
        fitted.predict_proba(x.astype("float32")), fitted.predict_proba(x.astype("float64")), atol=1e-6
    )


@HEADS
def test_equal_seeds_give_equal_heads_and_others_differ(make: Callable[..., TorchHeadClassifier]) -> None:
    one, same, other = (make(seed=seed).fit(*clouds()) for seed in (3, 3, 4))
    np.testing.assert_array_equal(proba_of(one), proba_of(same))
    assert one.history_ == same.history_
    assert not np.array_equal(proba_of(one), proba_of(other))


@HEADS
def test_fit_leaves_global_random_state_unchanged(make: Callable[..., TorchHeadClassifier]) -> None:
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002 - the global state is what this test is about
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        results.append(proba_of(make().fit(*clouds())))
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[0]), "fit drew from torch's global generator"
    np.testing.assert_array_equal(*results)


def test_fit_leaves_its_arguments_unchanged() -> None:
    x, y = clouds()
    weight = np.ones(30)
    before = x.copy(), y.copy(), weight.copy()
    quantum(class_weight={0: 3.0}).fit(x, y, weight)
    for array, copy in zip((x, y, weight), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_default_head_is_recommended() -> None:
    fitted = QuantumHeadClassifier(train=TrainConfig(epochs=1)).fit(*clouds(classes=3))
    assert fitted.head_config_ == HeadConfig.recommended(5, 3)
    assert fitted.head is None
    assert isinstance(fitted.module_, QuantumHead)
    assert fitted.n_parameters_ == fitted.module_.parameter_counts()["total"]


def test_default_training_settings_are_used() -> None:
    fitted = QuantumHeadClassifier(head=HEAD).fit(*clouds(8))
    assert fitted.train is None
    assert fitted.train_config_ == TrainConfig()
    assert fitted.history_[0].learning_rate == TrainConfig().learning_rate


def test_n_parameters_counts_trained_parameters_only() -> None:
    counts = [quantum(head=HEAD.updated(train_angle_scale=free)).fit(*clouds()).n_parameters_ for free in (False, True)]
    assert counts[1] == counts[0] + 1


class TestWeights:
    EXACT = TrainConfig(epochs=10, learning_rate=0.1)

    def fitted(self, *data: Any, **settings: Any) -> np.ndarray:
        return proba_of(quantum(train=self.EXACT, validation_fraction=0, **settings).fit(*data))

    def test_sample_of_weight_zero_is_left_out(self) -> None:
        x, y = clouds()
        weight = np.ones(30)
        weight[[3, 8, 11]] = 0
        fitted = quantum(validation_fraction=0).fit(x, y, weight)
        assert fitted.train_size_ == 27
        np.testing.assert_array_equal(
            self.fitted(x, y, weight), self.fitted(np.delete(x, [3, 8, 11], 0), np.delete(y, [3, 8, 11]))
        )

    def test_class_of_weight_zero_is_dropped(self) -> None:
        x, y = clouds(classes=3)
        assert quantum().fit(x, y, (y != 1).astype(float)).classes_.tolist() == [0, 2]

    def test_zero_vector_of_weight_zero_is_ignored(self) -> None:
        x, y = clouds()
        x[4] = 0
        assert quantum().fit(x, y, np.arange(30) != 4).train_size_ + 0 <= 29

    def test_class_weights_equal_sample_weights(self) -> None:
        x, y = clouds()
        names = np.array(["bad", "good"])
        np.testing.assert_array_equal(
            self.fitted(x, names[y], class_weight={"bad": 3.0, "good": 0.5}),
            self.fitted(x, names[y], np.where(y == 0, 3.0, 0.5)),
        )
        np.testing.assert_array_equal(
            self.fitted(x, y, class_weight={0: 3.0}), self.fitted(x, y, np.where(y == 0, 3.0, 1.0))
        )

    def test_class_weights_of_labels_that_are_digits_equal_those_of_words(self) -> None:
        x, y = clouds()
        digits, words = np.array(["0", "007"])[y], np.array(["0", "good"])[y]
        np.testing.assert_array_equal(
            self.fitted(x, digits, class_weight={"007": 3.0}), self.fitted(x, words, class_weight={"good": 3.0})
        )

    def test_class_weights_multiply_sample_weights(self) -> None:
        x, y = clouds()
        weight = np.random.default_rng(0).uniform(0.5, 2, 30)
        np.testing.assert_array_equal(
            self.fitted(x, y, weight, class_weight={0: 2.0, 1: 1.0}),
            self.fitted(x, y, weight * np.where(y == 0, 2.0, 1.0)),
        )

    def test_balanced_class_weight_is_the_inverse_frequency(self) -> None:
        x, y = clouds()
        y[:9] = 0
        share = np.bincount(y) / 30
        np.testing.assert_allclose(
            self.fitted(x, y, class_weight="balanced"), self.fitted(x, y, 0.5 / share[y]), atol=1e-9
        )
        assert not np.allclose(self.fitted(x, y, class_weight="balanced"), self.fitted(x, y), atol=1e-3)

    def test_weighted_class_is_predicted_more_often(self) -> None:
        x = np.random.default_rng(0).standard_normal((40, 5))
        y = np.arange(40) % 2
        means = [
            quantum(class_weight={0: weight, 1: 1.0}, train=LONG).fit(x, y).predict_proba(x)[:, 0].mean()
            for weight in (0.1, 10.0)
        ]
        assert means[0] < 0.4
        assert means[1] > 0.6

    def test_weights_that_are_all_zero_are_refused(self) -> None:
        # From scikit-learn 1.9 on, the words are its own.
        with pytest.raises(ValueError, match=r"is zero for every sample|at least one non-zero number"):
            quantum().fit(*clouds(), np.zeros(30))

    def test_negative_weight_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"[Nn]egative values in data passed to `sample_weight`"):
            quantum().fit(*clouds(), np.full(30, -1.0))

    @pytest.mark.parametrize("number", [np.nan, np.inf])
    def test_weight_that_is_not_finite_is_refused(self, number: float) -> None:
        weight = np.ones(30)
        weight[2] = number
        with pytest.raises(ValueError, match="Input sample_weight contains"):
            quantum().fit(*clouds(), weight)

    def test_too_few_weights_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"sample_weight\.shape == "):
            quantum().fit(*clouds(), np.ones(29))

    @pytest.mark.parametrize("weight", [-1.0, np.nan])
    def test_class_weight_that_is_not_positive_is_refused(self, weight: float) -> None:
        # Else the samples of that class would be left out without a word.
        with pytest.raises(ValueError, match="class_weight"):
            quantum(class_weight={1: weight}).fit(*clouds(classes=3))

    @pytest.mark.parametrize(("weight", "fault"), [(1e38, "large"), (1e20, "large"), (1e-30, "small")])
    def test_sample_weights_beyond_the_precision_are_refused(self, weight: float, fault: str) -> None:
        x, y = clouds()
        with pytest.raises(DataError, match=f"which is too {fault} for float32; divide all weights by it"):
            quantum().fit(x.astype(np.float32), y, np.full(len(y), weight))

    def test_class_weight_of_an_unknown_label_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="class_weight has a weight of 'good', which is not a label; known: 0, 1"):
            quantum(class_weight={"good": 2.0}).fit(*clouds())

    def test_unknown_class_weight_word_is_refused(self) -> None:
        with pytest.raises(ValueError, match="balanced"):
            quantum(class_weight="equal").fit(*clouds())


class TestValidation:
    @pytest.mark.parametrize(("fraction", "held"), [(0, 0), (0.15, 4), (0.5, 15), (0.9, 27), (0.99, 28)])
    def test_validation_fraction_is_held_out(self, fraction: float, held: int) -> None:
        fitted = quantum(validation_fraction=fraction).fit(*clouds())
        assert (fitted.train_size_, fitted.validation_size_) == (30 - held, held)
        assert (fitted.history_[0].validation_loss is None) == (held == 0)

    def test_too_few_samples_hold_out_none(self) -> None:
        fitted = quantum().fit(*clouds(2))
        assert (fitted.train_size_, fitted.validation_size_) == (2, 0)
        assert fitted.best_epoch_ == 4

    def test_validation_samples_replace_the_share(self) -> None:
        fitted = quantum().fit(*clouds(), validation=clouds(12, seed=3))
        assert (fitted.train_size_, fitted.validation_size_) == (30, 12)
        assert fitted.history_[0].validation_loss is not None

    def test_validation_metrics_are_those_of_the_validation_samples(self) -> None:
        x, y = clouds(12, seed=3)
        fitted = quantum().fit(*clouds(), validation=(x, y))
        best = fitted.history_[fitted.best_epoch_]
        proba = fitted.predict_proba(x)
        assert best.validation_loss == pytest.approx(-np.log(proba[np.arange(12), y]).mean(), rel=1e-12)
        assert best.validation_accuracy == pytest.approx(fitted.score(x, y))

    def test_share_equals_the_same_samples_passed(self) -> None:
        x, y = clouds()
        kept, held = holdout_split(y, 0.15, 0)
        one = quantum().fit(x, y)
        other = quantum().fit(x[kept], y[kept], validation=(x[held], y[held]))
        assert one.history_ == other.history_
        np.testing.assert_array_equal(proba_of(one), proba_of(other))

    def test_validation_with_some_of_the_classes_is_accepted(self) -> None:
        fitted = quantum().fit(*clouds(classes=3), validation=(clouds()[0][:4], [2, 2, 0, 2]))
        assert fitted.validation_size_ == 4
        assert fitted.classes_.tolist() == [0, 1, 2]

    def test_validation_with_string_labels_is_accepted(self) -> None:
        x, y = clouds()
        names = np.array(["no", "yes"])
        one = quantum().fit(x, names[y], validation=(x[:6], names[y[:6]].tolist()))
        other = quantum().fit(x, y, validation=(x[:6], y[:6]))
        assert one.history_ == other.history_

    def test_validation_metrics_use_class_weights(self) -> None:
        x, y = clouds(12, seed=3)
        fitted = quantum(class_weight={0: 3.0, 1: 1.0}).fit(*clouds(), validation=(x, y))
        losses = -np.log(fitted.predict_proba(x)[np.arange(12), y])
        expected = np.average(losses, weights=np.where(y == 0, 3.0, 1.0))
        assert fitted.history_[fitted.best_epoch_].validation_loss == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("seed", range(5))
    def test_groups_stay_on_one_side(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        x, y = clouds(30)
        x[1::2] = x[::2] + 1e-3
        y = np.repeat(np.arange(15) % 2, 2)
        seen: list[Any] = []
        from ketfit.estimators import base as estimator

        plain = estimator.train
        monkeypatch.setattr(
            estimator, "train", lambda *args, **named: (seen.extend(args[1:3]), plain(*args, **named))[1]
        )
        fitted = quantum(seed=seed).fit(x, y, groups=np.repeat(np.arange(15), 2))
        kept, held = ({tuple(row) for row in part.x.numpy()} for part in seen)
        assert (len(kept), len(held)) == (fitted.train_size_, fitted.validation_size_)
        assert held
        for left, right in zip(x[::2], x[1::2], strict=True):
            assert (tuple(left) in held) == (tuple(right) in held)
            assert (tuple(left) in kept) == (tuple(right) in kept)

    def test_groups_of_samples_of_weight_zero_are_dropped(self) -> None:
        x, y = clouds(30)
        weight = np.ones(30)
        weight[::3] = 0
        groups = np.arange(30) // 2
        kept = weight > 0
        one = quantum(validation_fraction=0.3).fit(x, y, weight, groups=groups)
        other = quantum(validation_fraction=0.3).fit(x[kept], y[kept], groups=groups[kept])
        np.testing.assert_array_equal(proba_of(one), proba_of(other))

    @pytest.mark.parametrize(
        ("validation", "error", "message"),
        [
            ((clouds(4)[0], [0, 1, 2, 0]), DataError, "the validation labels hold 2, which the training labels do not"),
            ((clouds(4)[0], list("abab")), DataError, "the validation labels hold 'a'"),
            (
                (clouds(4)[0][:, :3], [0, 1, 0, 1]),
                ValueError,
                "X has 3 features, but QuantumHeadClassifier is expecting 5",
            ),
            ((clouds(4)[0], [0, 1, 0]), ValueError, "inconsistent numbers of samples"),
            ((np.zeros((0, 5)), []), ValueError, r"0 sample\(s\)"),
            ((np.full((2, 5), np.nan), [0, 1]), ValueError, "contains NaN"),
            ((np.array([[1.0] * 5, [0.0] * 5]), [0, 1]), InputError, "embedding 1 is all zeros"),
        ],
    )
    def test_unusable_validation_samples_are_refused(
        self, validation: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            quantum().fit(*clouds(), validation=validation)

    @pytest.mark.parametrize("device", ["abacus", "cpu:x"])
    def test_unknown_device_is_refused(self, device: str) -> None:
        with pytest.raises(ConfigError, match=f"device='{device}' cannot be used here"):
            quantum(device=device).fit(*clouds())

    @pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan"), None, "0.2"])
    def test_validation_fraction_out_of_range_is_refused(self, fraction: Any) -> None:
        with pytest.raises(ConfigError, match=r"validation_fraction=.*: it must be a number of at least 0 and below 1"):
            quantum(validation_fraction=fraction).fit(*clouds())

    def test_groups_of_another_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="groups"):
            quantum().fit(*clouds(), groups=np.arange(29))


# --- what it refuses -------------------------------------------------------------------------------------------


class TestRefused:
    @pytest.mark.parametrize(
        ("x", "y", "error", "message"),
        [
            (
                clouds()[0],
                np.zeros(30, int),
                DataError,
                "these labels hold 1 class: .*; a classifier needs two classes or more",
            ),
            (clouds()[0], ["same"] * 30, DataError, "these labels hold 1 class: .*'same'"),
            (np.zeros((0, 5)), [], ValueError, r"Found array with 0 sample\(s\)"),
            (np.zeros((4, 0)), [0, 1, 0, 1], ValueError, r"0 feature\(s\)"),
            (np.full((4, 5), np.nan), [0, 1, 0, 1], ValueError, "Input X contains NaN"),
            (np.full((4, 5), np.inf), [0, 1, 0, 1], ValueError, "Input X contains infinity"),
            (clouds()[0][:, 0], clouds()[1], ValueError, "Expected 2D array, got 1D array"),
            (clouds()[0], clouds()[1][:9], ValueError, "inconsistent numbers of samples"),
            (clouds()[0], None, ValueError, "requires y to be passed"),
            (clouds()[0], np.linspace(0, 1, 30), ValueError, "Unknown label type: continuous"),
            (clouds()[0], [[0, 1]] * 30, ValueError, "y should be a 1d array"),
            ([["a", "b"]] * 4, [0, 1, 0, 1], ValueError, "could not convert string to float"),
            (clouds()[0] + 1j, clouds()[1], ValueError, "Complex data not supported"),
        ],
    )
    def test_unusable_arrays_are_refused(self, x: Any, y: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            quantum().fit(x, y)

    @pytest.mark.parametrize("batch_size", [512, 4])
    @pytest.mark.parametrize("fraction", [0, 0.5])
    def test_fit_of_a_zero_vector_names_its_row(self, fraction: float, batch_size: int) -> None:
        x, y = clouds()
        x[17] = 0
        head = quantum(validation_fraction=fraction, train=SHORT.updated(batch_size=batch_size))
        with pytest.raises(InputError, match="embedding 17 is all zeros"):
            head.fit(x, y)

    @pytest.mark.parametrize("batch_size", [512, 4])
    def test_predict_of_a_zero_vector_names_its_row(self, batch_size: int) -> None:
        x, y = clouds()
        fitted = quantum(train=SHORT.updated(batch_size=batch_size)).fit(x, y)
        x[17] = 0
        with pytest.raises(InputError, match="embedding 17 is all zeros"):
            fitted.predict(x)

    @pytest.mark.parametrize(("width", "reference", "needed"), [(9, 0.0, 4), (8, 1.0, 4), (16, 1.0, 5), (17, 0.0, 5)])
    def test_embedding_wider_than_the_amplitudes_is_refused(self, width: int, reference: float, needed: int) -> None:
        x = np.random.default_rng(0).standard_normal((10, width))
        head = quantum(head=HEAD.updated(reference_amplitude=reference))
        with pytest.raises(
            ConfigError, match=rf"width {width}.* needs n_qubits={needed}; n_qubits=3 holds 8 amplitudes"
        ):
            head.fit(x, np.arange(10) % 2)

    @pytest.mark.parametrize("width", [7, 8])
    def test_embedding_as_wide_as_the_amplitudes_is_accepted(self, width: int) -> None:
        x = np.random.default_rng(0).standard_normal((10, width))
        head = quantum(head=HEAD.updated(reference_amplitude=float(width == 7)))
        assert head.fit(x, np.arange(10) % 2).n_features_in_ == width

    @HEADS
    @pytest.mark.parametrize("width", [4, 6])
    def test_predict_of_another_width_is_refused(self, make: Callable[..., TorchHeadClassifier], width: int) -> None:
        fitted = make().fit(*clouds())
        with pytest.raises(ValueError, match=rf"X has {width} features, but .* is expecting 5 features"):
            fitted.predict(np.ones((3, width)))

    def test_predict_of_no_sample_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            quantum().fit(*clouds()).predict(np.zeros((0, 5)))

    @HEADS
    @pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
    def test_predict_before_fit_is_refused(self, make: Callable[..., TorchHeadClassifier], method: str) -> None:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            getattr(make(), method)(*clouds()[: 2 if method == "score" else 1])

    def test_fitted_attributes_before_fit_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            quantum().save_pretrained(tmp_path / "model")
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            _ = quantum().n_parameters_
        assert not any(tmp_path.iterdir())

    def test_negative_seed_is_refused(self) -> None:
        with pytest.raises(ValueError, match="seed=-1: it must be a whole number of at least 0"):
            quantum(seed=-1).fit(*clouds())

    def test_negative_hidden_units_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="hidden=-1: it cannot be negative"):
            mlp(hidden=-1).fit(*clouds())


# --- fitting again, pickle, checkpoint, progress ---------------------------------------------------------------


@HEADS
def test_second_fit_replaces_the_first(make: Callable[..., TorchHeadClassifier]) -> None:
    x, y = clouds(24, classes=3, seed=4)
    again = make().fit(*clouds()).fit(x[:, :4], y)
    fresh = make().fit(x[:, :4], y)
    assert again.classes_.tolist() == [0, 1, 2]
    assert again.n_features_in_ == 4
    assert again.history_ == fresh.history_
    np.testing.assert_array_equal(again.predict_proba(x[:, :4]), fresh.predict_proba(x[:, :4]))


@pytest.mark.parametrize(
    "failing",
    [
        lambda head: head.fit(clouds()[0], ["one"] * 30),
        lambda head: head.fit(np.ones((4, 9)), ["x", "y", "x", "y"]),
        lambda head: head.fit(np.zeros((4, 5)), ["x", "y", "x", "y"]),
        lambda head: head.fit(np.ones((4, 3)), ["x", "y", "x", "y"], validation=(np.ones((1, 3)), ["z"])),
        lambda head: head.set_params(head=HEAD.updated(n_qubits=2)).fit(np.ones((4, 5)), list("xyxy")),
    ],
    ids=["one class", "too wide", "zero vectors", "unknown validation label", "too few qubits"],
)
def test_failed_fit_leaves_the_head_unchanged(failing: Callable[[QuantumHeadClassifier], Any]) -> None:
    head = quantum().fit(*clouds(classes=3))
    module, proba = head.module_, proba_of(head)
    before = (head.classes_.tolist(), head.n_features_in_, head.head_config_, head.history_)
    with pytest.raises(ValueError, match=r"class|qubits|zeros|hold"):
        failing(head)
    assert head.module_ is module
    assert (head.classes_.tolist(), head.n_features_in_, head.head_config_, head.history_) == before
    np.testing.assert_array_equal(proba_of(head), proba)
    assert set(head.predict(clouds()[0])) <= {0, 1, 2}


@HEADS
def test_pickled_head_predicts_equally(make: Callable[..., TorchHeadClassifier]) -> None:
    x, y = clouds()
    fitted = make(class_weight={"no": 2.0}).fit(x, np.array(["no", "yes"])[y])
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(proba_of(copy), proba_of(fitted))
    np.testing.assert_array_equal(copy.predict(x), fitted.predict(x))
    assert copy.get_params() == fitted.get_params()


@pytest.mark.parametrize("kind", [str, Path])
def test_fit_resumes_from_a_checkpoint(kind: Callable[[str], str | Path], tmp_path: Path) -> None:
    file = kind(str(tmp_path / "run.safetensors"))
    one = quantum().fit(*clouds(), checkpoint=file)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]
    other = quantum().fit(*clouds(), checkpoint=file)
    assert one.history_ == other.history_
    np.testing.assert_array_equal(proba_of(one), proba_of(other))
    np.testing.assert_array_equal(proba_of(one), proba_of(quantum().fit(*clouds())))


@pytest.mark.parametrize(
    ("settings", "data", "named"),
    [
        ({"seed": 1}, clouds(), "seed and head and data"),
        ({"train": LONG}, clouds(), "training settings"),
        ({"head": HEAD.updated(main_layers=2)}, clouds(), "head"),
        ({"class_weight": {0: 2.0}}, clouds(), "data"),
        ({"validation_fraction": 0.3}, clouds(), "data"),
        ({}, clouds(seed=1), "data"),
    ],
)
def test_checkpoint_of_another_fit_is_refused(settings: dict[str, Any], data: Any, named: str, tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    quantum().fit(*clouds(), checkpoint=file)
    with pytest.raises(TrainingError, match=rf"belongs to another run \(its {named} differ\)"):
        quantum(**settings).fit(*data, checkpoint=file)


def test_progress_prints_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    quantum().fit(*clouds())
    assert capsys.readouterr() == ("", "")
    quantum().fit(*clouds(), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "5/5" in shown.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": {"n_qubits": 3}}, "head=.* is of the wrong type; pass a HeadConfig"),
        ({"train": 3}, "train=3 is of the wrong type; pass a TrainConfig"),
        ({"seed": None}, "seed=None: it must be a whole number of at least 0"),
        ({"seed": True}, "seed=True: it must be a whole number of at least 0"),
        ({"seed": -1}, "seed=-1: it must be a whole number of at least 0"),
    ],
)
def test_settings_of_the_wrong_type_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantumHeadClassifier(**settings).fit(*clouds())


def test_class_weights_depend_on_training_labels_only() -> None:
    x, y = clouds(classes=3)
    few = (x[y != 2], y[y != 2])  # no sample of the third class, which has a weight all the same
    head = quantum(class_weight={0: 1.0, 1: 2.0, 2: 3.0}).fit(x, y, validation=few)
    assert head.validation_size_ == len(few[1])


def test_groups_of_another_length_with_validation_are_refused() -> None:
    x, y = clouds()
    with pytest.raises(ValueError, match="groups has shape"):
        quantum().fit(x, y, groups=np.arange(3), validation=(x, y))


def test_zero_slice_is_named_by_its_row() -> None:
    config = HeadConfig(n_qubits=2, n_encoders=2, connectivity=1, encoder_input="slices")
    x = np.ones((12, 6))
    x[7, 3:] = 0
    with pytest.raises(ValueError, match="slice 1 of embedding 7 is all zeros"):
        QuantumHeadClassifier(config).fit(x, [0, 1] * 6)


def test_float64_head_has_the_exact_angle_scale() -> None:
    x, y = clouds()
    head = quantum(head=HEAD.updated(angle_scale=0.1)).fit(x.astype(np.float64), y)
    assert head.module_.angle_scale.item() == 0.1


def test_five_classes_of_digits_are_learned() -> None:
    X, y = load_digits(n_class=5, return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=200, stratify=y, random_state=0)
    head = QuantumHeadClassifier(train=TrainConfig(epochs=30)).fit(X_train, y_train)
    assert head.head_config_.n_measured == 5
    assert head.predict_proba(X_test).shape == (len(y_test), 5)
    assert head.score(X_test, y_test) > 0.9
