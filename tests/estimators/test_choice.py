"""The choice of a kind of head by validation losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from ketfit.data.splits import holdout_split
from ketfit.errors import ConfigError, ConfigWarning
from ketfit.estimators.choice import N_SPLITS, EmbeddedLabels, choose_head, simplest_kinds
from ketfit.estimators.classical import LogisticRegressionHead
from ketfit.model.config import TrainConfig
from ketfit.rng import numpy_stream
from tests.estimators.test_heads import SETTINGS as DEFAULTS

SETTINGS = {**DEFAULTS, "validation_fraction": 0.25, "train": TrainConfig(epochs=20)}


def circles(n: int = 120) -> EmbeddedLabels:
    """Return two classes that no line divides: the points inside and outside of a circle."""
    x = np.random.default_rng(0).uniform(-2, 2, (n, 2))
    return EmbeddedLabels(x, np.where((x**2).sum(axis=1) < 2, "in", "out"), None, None)


def lines(n: int = 80) -> EmbeddedLabels:
    y = np.arange(n) % 2
    return EmbeddedLabels(np.random.default_rng(0).standard_normal((n, 3)) + 2 * y[:, None], y, None, None)


def test_choose_head_takes_a_curved_head_where_no_line_fits() -> None:
    choice = choose_head(circles(), SETTINGS, ["logistic-regression", "svc"])
    assert choice.kind == "svc"
    assert [loss.kind for loss in choice.losses] == ["logistic-regression", "svc"]


def test_choose_head_takes_the_line_where_it_fits() -> None:
    assert choose_head(lines(), SETTINGS, ["logistic-regression", "svc", "mlp"]).kind == "logistic-regression"


def test_choose_head_losses_are_those_of_stratified_splits() -> None:
    data = lines()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(data.y))
    weighted = EmbeddedLabels(data.X, data.y, weight, None)
    class_weight = {0: 1.0, 1: 3.0}
    (loss,) = choose_head(weighted, {**SETTINGS, "class_weight": class_weight}, ["logistic-regression"]).losses
    losses = []
    for number in range(N_SPLITS):
        seed = int(numpy_stream(0, "choice", number).integers(2**31))
        train, held = holdout_split(data.y, 0.25, seed)
        assert abs(data.y[held].mean() - 0.5) < 0.03
        head = LogisticRegressionHead(class_weight=class_weight).fit(data.X[train], data.y[train], weight[train])
        both = weight[held] * np.where(data.y[held] == 1, 3.0, 1.0)
        losses.append(log_loss(data.y[held], head.predict_proba(data.X[held]), sample_weight=both))
    assert loss.mean == pytest.approx(np.mean(losses), rel=1e-9)
    assert loss.standard_error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(N_SPLITS), rel=1e-9)


def test_choose_head_weighs_a_label_that_a_share_lacks() -> None:
    data = lines()
    labels = np.array(["a", "c"])[data.y].astype(object)
    labels[:3] = "rare"
    named = EmbeddedLabels(data.X, labels, None, None)
    settings = {**SETTINGS, "class_weight": {"a": 2.0, "rare": 3.0}, "validation_fraction": 0.05}
    (loss,) = choose_head(named, settings, ["logistic-regression"]).losses
    assert 0 < loss.mean < 1


def test_choose_head_keeps_groups_on_one_side() -> None:
    # Every group is one point many times with a label of its own: only a divided group could be learnt.
    groups = np.repeat(np.arange(30), 8)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4))[groups], rng.permutation(np.arange(30) % 2)[groups]
    whole, divided = EmbeddedLabels(x, y, None, groups), EmbeddedLabels(x, y, None, None)
    losses = [choose_head(data, SETTINGS, ["svc"]).losses[0].mean for data in (whole, divided)]
    assert losses[0] > 0.6 > losses[1] + 0.2


def test_choose_head_of_one_seed_is_repeatable() -> None:
    kinds: list[Any] = ["logistic-regression", "mlp"]
    first, again = (choose_head(lines(), SETTINGS, kinds) for _ in range(2))
    assert first == again
    assert choose_head(lines(), {**SETTINGS, "seed": 1}, kinds) != first


def test_choose_head_without_validation_samples_raises() -> None:
    for fraction, n in ((0.0, 80), (0.25, 2)):
        with pytest.raises(ConfigError, match=r"head='auto' compares heads on validation shares, .* is none; raise it"):
            choose_head(lines(n), {**SETTINGS, "validation_fraction": fraction}, ["logistic-regression"])


def test_choose_head_invalid_fraction_raises() -> None:
    with pytest.raises(ConfigError, match="validation_fraction=-0.5: it must be a number of at least 0"):
        choose_head(lines(), {**SETTINGS, "validation_fraction": -0.5}, ["logistic-regression"])


def test_choose_head_leaves_out_svc_that_cannot_be_calibrated() -> None:
    with pytest.warns(ConfigWarning, match="head='auto' leaves out 'svc': a validation share has fewer than two"):
        choice = choose_head(lines(12), SETTINGS, ["logistic-regression", "svc"])
    assert [loss.kind for loss in choice.losses] == ["logistic-regression"]


def test_choose_head_beside_cross_validation_holds_out_a_share() -> None:
    settings = {**SETTINGS, "validation_fraction": 0.15, "train": TrainConfig(epochs=2)}
    data = EmbeddedLabels(np.eye(20), np.array([0] * 15 + [1] * 5), None, None)
    crossed = choose_head(data, {**settings, "validation": "cross", "n_folds": 5}, ["mlp"])
    assert crossed == choose_head(data, settings, ["mlp"])


def test_simplest_kinds_end_to_end_are_those_with_gradients() -> None:
    assert simplest_kinds(end_to_end=False) == ["logistic-regression", "svc", "mlp", "quantum"]
    assert simplest_kinds(end_to_end=True) == ["logistic-regression", "mlp", "quantum"]
