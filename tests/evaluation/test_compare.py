"""Comparison of heads on one split, and intervals of accuracies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ketfit.data.splits import Split
from ketfit.estimators.classical import LogisticRegressionHead, MLPHead, SVCHead, matching_hidden_units
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.evaluation.compare import HeadResult, accuracy_interval, compare_heads, count_parameters, standard_heads
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead

TRAIN = TrainConfig(epochs=15, learning_rate=0.1)
TINY = HeadConfig(n_qubits=3, encoder_layers=2, connectivity=2, main_layers=1, reference_amplitude=1)


def toy(n: int = 120) -> tuple[np.ndarray, np.ndarray, Split]:
    y = np.arange(n) % 2
    x = np.random.default_rng(0).standard_normal((n, 4))
    x[np.arange(n), y] += 4
    order = np.random.default_rng(1).permutation(n)
    parts = (order[:40], order[40:52], order[52:110], order[110:])
    return x, np.array(["bad", "good"])[y], Split(*(np.sort(part) for part in parts))


class Spy:
    """A head that predicts a constant and records its arguments."""

    n_parameters_ = 7

    def __init__(self, seen: list[tuple[str, Any]]) -> None:
        self.seen = seen

    def fit(self, X: np.ndarray, y: np.ndarray, *, validation: tuple[np.ndarray, np.ndarray], progress: bool) -> Spy:
        self.seen.append(("fit", (X, y, *validation)))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.seen.append(("predict", X))
        return np.array(["good"] * len(X))


def test_compare_heads_passes_the_parts_of_the_split() -> None:
    x, y, split = toy()
    seen: list[tuple[str, Any]] = []
    rows = list(compare_heads({"one": Spy(seen), "two": Spy(seen)}, x, y, split))  # type: ignore[dict-item]
    assert [name for name, _ in seen] == ["fit", "predict"] * 2
    for what, given in seen:
        if what == "fit":
            expected = (x[split.train], y[split.train], x[split.validation], y[split.validation])
            for array, part in zip(given, expected, strict=True):
                np.testing.assert_array_equal(array, part)
        else:
            np.testing.assert_array_equal(given, x[split.test])
    share = (y[split.test] == "good").mean()
    assert [(row.name, row.parameters, row.test_accuracy) for row in rows] == [("one", 7, share), ("two", 7, share)]


def test_compare_heads_yields_complete_results() -> None:
    x, y, split = toy()
    heads = {
        "quantum head": QuantumHeadClassifier(TINY, TRAIN),
        "logistic regression": LogisticRegressionHead(),
        "SVC": SVCHead(),
        "MLP": MLPHead(hidden=3, train=TRAIN),
    }
    rows = list(compare_heads(heads, x, y, split))
    assert [row.name for row in rows] == list(heads)
    for row, head in zip(rows, heads.values(), strict=True):
        assert isinstance(row, HeadResult)
        assert row.parameters == head.n_parameters_ > 0
        assert row.test_accuracy == (head.predict(x[split.test]) == y[split.test]).mean() >= 0.85
        assert 0 <= row.interval[0] <= row.test_accuracy <= row.interval[1] <= 1
        assert row.interval == accuracy_interval(round(row.test_accuracy * 58), 58)[1]
        assert 0 < row.fit_seconds < 60
    assert heads["quantum head"].train_size_ == 40  # type: ignore[union-attr]
    assert heads["quantum head"].validation_size_ == 12  # type: ignore[union-attr]


def test_compare_heads_fits_one_head_per_step() -> None:
    x, y, split = toy()
    seen: list[tuple[str, Any]] = []
    steps = compare_heads({"one": Spy(seen), "two": Spy(seen)}, x, y, split)  # type: ignore[dict-item]
    assert not seen
    assert next(steps).name == "one"
    assert len(seen) == 2


def test_compare_heads_ignores_excluded_rows() -> None:
    x, y, split = toy()
    changed = x.copy()
    changed[split.excluded] = np.nan
    heads = {"logistic regression": LogisticRegressionHead(), "quantum head": QuantumHeadClassifier(TINY, TRAIN)}
    one, other = ([row.test_accuracy for row in compare_heads(heads, data, y, split)] for data in (x, changed))
    assert one == other


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (1, 3), (77, 100), (8061, 9101), (9101, 9101)]
)
def test_accuracy_interval_equals_wilsons(correct: int, total: int) -> None:
    z = 1.959963984540054
    share = correct / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    accuracy, interval = accuracy_interval(correct, total)
    assert accuracy == share
    assert interval == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)
    assert all(type(bound) is float for bound in interval)


def test_accuracy_interval_matches_the_papers_standard_error() -> None:
    _, (low, high) = accuracy_interval(round(0.9270 * 9101), 9101)
    assert (high - low) / 2 / 1.96 == pytest.approx(0.0027, abs=0.0001)


@pytest.mark.parametrize(("dim", "classes"), [(16, 2), (16, 3), (768, 2)])
def test_standard_heads_are_four_untrained_heads(dim: int, classes: int) -> None:
    heads = standard_heads(dim, classes, train=TRAIN, seed=4)
    quantum, logistic, svc, mlp = heads.values()
    assert isinstance(quantum, QuantumHeadClassifier)
    assert isinstance(logistic, LogisticRegressionHead)
    assert isinstance(svc, SVCHead)
    assert isinstance(mlp, MLPHead)
    assert quantum.head == HeadConfig.recommended(dim, classes)
    assert (quantum.train, quantum.seed, mlp.train, mlp.seed) == (TRAIN, 4, TRAIN, 4)
    assert mlp.match_parameters == count_parameters(HeadConfig.recommended(dim, classes), dim, classes)


def test_matched_perceptron_comes_closest_in_parameters() -> None:
    x, y, split = toy()
    heads = standard_heads(4, 2, train=TrainConfig(epochs=1))
    rows = {row.name: row.parameters for row in compare_heads(heads, x, y, split)}
    hidden = matching_hidden_units(rows["quantum head"], 4, 2)
    assert rows["MLP, matched"] == 5 * hidden + 2 * (hidden + 1)
    assert abs(rows["MLP, matched"] - rows["quantum head"]) <= 4


@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2, "skip_connection": True}, {"train_angle_scale": True}])
def test_count_parameters_equals_the_fitted_head(settings: dict[str, Any]) -> None:
    config = TINY.updated(**settings)
    trained = [parameter for parameter in QuantumHead(config, 5, 3).parameters() if parameter.requires_grad]
    assert count_parameters(config, 5, 3) == sum(parameter.numel() for parameter in trained)
