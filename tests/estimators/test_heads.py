"""The untrained heads that the settings of a text classifier describe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ketfit.errors import ConfigError
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, ProjectedLogisticRegressionHead, SVCHead
from ketfit.estimators.heads import HEADS, new_head, settings_for
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.model.config import HeadConfig, TrainConfig

SETTINGS: dict[str, Any] = {
    "train": None,
    "seed": 0,
    "validation_fraction": 0.15,
    "class_weight": None,
    "device": "cpu",
    "calibrate": False,
    "random_state": None,
    "validation": "holdout",
    "n_folds": 5,
}
SHORT = TrainConfig(epochs=3)


@pytest.mark.parametrize("kind", HEADS)
def test_new_head_of_a_kind_has_its_defaults_and_the_settings(kind: Any) -> None:
    head = new_head(kind, {**SETTINGS, "seed": 4, "class_weight": "balanced"})
    expected = HEADS[kind](class_weight="balanced", **({"seed": 4} if kind in ("mlp", "quantum") else {}))
    assert type(head.estimator) is HEADS[kind]
    assert head.estimator.kind == kind
    assert head.estimator.get_params() == expected.get_params()
    assert (head.seed, head.validation_fraction, head.class_weight) == (4, 0.15, "balanced")


def test_new_head_from_config_or_none_is_quantum() -> None:
    assert new_head(None, SETTINGS).estimator.get_params()["head"] is None
    assert new_head(HeadConfig(n_qubits=4), SETTINGS).estimator.get_params()["head"].n_qubits == 4


def test_new_head_from_estimator_is_a_clone_with_its_own_settings() -> None:
    given = MLPHead(hidden=3, train=SHORT, seed=7, validation_fraction=0.3, class_weight="balanced", calibrate=True)
    head = new_head(given, {**SETTINGS, "device": "cpu"})
    assert head.estimator is not given
    assert head.estimator.get_params() == given.get_params()
    assert (head.seed, head.validation_fraction, head.class_weight, head.calibrate) == (7, 0.3, "balanced", True)


def test_new_head_from_estimator_takes_the_settings_that_it_leaves_open() -> None:
    head = new_head(SVCHead(C=2.0), {**SETTINGS, "class_weight": {"a": 2.0}, "seed": 5})
    assert (head.estimator.C, head.estimator.class_weight, head.seed) == (2.0, {"a": 2.0}, 5)
    mlp = new_head(MLPHead(hidden=3), {**SETTINGS, "train": SHORT, "random_state": 9}).estimator
    assert (mlp.train, mlp.seed, mlp.random_state) == (SHORT, 9, None)


def test_new_head_takes_one_seed_of_a_random_state() -> None:
    state = np.random.RandomState(0)
    first, second = (new_head("mlp", {**SETTINGS, "random_state": state}) for _ in range(2))
    assert first.seed != second.seed
    assert first.estimator.seed == first.seed


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("forest", {}, "head='forest' is unknown; pass a HeadConfig, one of 'logistic-regression', 'svc', "),
        (3, {}, "head=3 is of the wrong type"),
        (LogisticRegression(), {}, "is of the wrong type"),
        (ProjectedLogisticRegressionHead(), {}, "is of the wrong type"),
        (LogisticRegressionHead, {}, "is of the wrong type"),
        (MLPHead(seed=3), {"seed": 4}, "seed=4 differs from the seed=3 of the head; set it in one of them"),
        (SVCHead(class_weight="balanced"), {"class_weight": {0: 2.0}}, "class_weight=.* differs"),
        (MLPHead(train=SHORT), {"train": TrainConfig(epochs=4)}, "train=.* differs"),
        ("svc", {"train": SHORT}, "train=.* is about epochs, and a head of kind 'svc' has none"),
        (
            "logistic-regression",
            {"calibrate": True},
            "calibrate=True: a head of kind 'logistic-regression' has no temp",
        ),
        (LogisticRegressionHead(warm_start=True), {}, "a model file holds C"),
        (MLPHead(train=3), {}, "train=3 is of the wrong type"),
        (MLPHead(device="meta"), {}, "device='meta' of the head differs from device='cpu' of the text classifier"),
        ("mlp", {"seed": -1}, "seed"),
        ("svc", {"validation_fraction": 1.5}, "validation_fraction=1.5: it must be a number of at least 0 and below 1"),
    ],
)
def test_new_head_invalid_arguments_raise(spec: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_head(spec, {**SETTINGS, **changes})


def test_settings_for_leaves_out_what_a_kind_does_not_have() -> None:
    settings = {**SETTINGS, "train": SHORT, "calibrate": True}
    assert settings_for("mlp", settings) == settings
    new_head("logistic-regression", settings_for("logistic-regression", settings))


def test_quantum_estimator_is_accepted() -> None:
    given = QuantumHeadClassifier(HeadConfig(n_qubits=3), SHORT)
    assert new_head(given, SETTINGS).estimator.get_params()["head"] == HeadConfig(n_qubits=3)
