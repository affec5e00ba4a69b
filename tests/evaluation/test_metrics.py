"""Metrics of predictions against scikit-learn, and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, classification_report, log_loss

from ketfit.evaluation.metrics import calibration, evaluate_predictions

CLASSES = np.array(["bad", "fine", "good"])


def predictions(n: int = 300, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits of three classes, codes sampled from them at temperature 1, and the probabilities."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 3))
    codes = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)])
    return logits, codes, softmax(logits, axis=1)


def test_class_metrics_equal_scikit_learn() -> None:
    _, codes, rows = predictions()
    made = evaluate_predictions([rows], CLASSES[codes], CLASSES)
    expected = classification_report(CLASSES[codes], CLASSES[rows.argmax(axis=1)], output_dict=True)
    for scores in made.classes:
        theirs = expected[str(scores.label)]
        assert scores.precision == pytest.approx(theirs["precision"])
        assert scores.recall == pytest.approx(theirs["recall"])
        assert scores.f1 == pytest.approx(theirs["f1-score"])
        assert scores.support == theirs["support"]
    for i, row in enumerate(made.confusion):
        assert sum(row) == made.classes[i].support
        for j, count in enumerate(row):
            assert count == ((codes == i) & (rows.argmax(axis=1) == j)).sum()


def test_several_draws_are_averaged() -> None:
    _, codes, rows = predictions()
    flipped = rows[:, ::-1]
    both = evaluate_predictions([rows, flipped], CLASSES[codes], CLASSES)
    single = [evaluate_predictions([draw], CLASSES[codes], CLASSES) for draw in (rows, flipped)]
    np.testing.assert_allclose(both.confusion, np.mean([one.confusion for one in single], axis=0))
    assert [scores.support for scores in both.classes] == [scores.support for scores in single[0].classes]
    assert both.calibration.brier == pytest.approx(np.mean([one.calibration.brier for one in single]))


def test_undefined_metrics_are_none() -> None:
    rows = np.array([[0.8, 0.2, 0.0], [0.7, 0.3, 0.0]])
    bad, fine, good = evaluate_predictions([rows], np.array(["bad", "fine"]), CLASSES).classes
    assert (bad.precision, bad.recall, bad.support) == (0.5, 1.0, 1)
    assert (fine.precision, fine.recall, fine.f1, fine.support) == (None, 0.0, 0.0, 1)
    assert (good.precision, good.recall, good.f1, good.support) == (None, None, None, 0)


def test_brier_and_nll_equal_scikit_learn() -> None:
    _, codes, rows = predictions()
    made = calibration(rows, codes)
    assert made.nll == pytest.approx(log_loss(codes, rows))
    two = rows[:, :2] / rows[:, :2].sum(axis=1, keepdims=True)
    assert calibration(two, codes % 2).brier == pytest.approx(2 * brier_score_loss(codes % 2, two[:, 1]))


@pytest.mark.parametrize("confidence", [0.6, 0.75, 1.0])
def test_ece_of_one_bin_is_its_gap(confidence: float) -> None:
    rows = np.tile([confidence, 1 - confidence], (10, 1))
    codes = np.array([0] * 7 + [1] * 3)
    assert calibration(rows, codes).ece == pytest.approx(abs(confidence - 0.7))


def test_ece_gaps_of_several_bins_do_not_cancel() -> None:
    rows = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    codes = np.array([0] * 7 + [1] * 3 + [0] * 8 + [1] * 2)  # over-confident by 0.2, under-confident by 0.2
    assert calibration(rows, codes).ece == pytest.approx(0.2)
    assert calibration(rows, codes, bins=1).ece == pytest.approx(0)


def test_ece_is_low_for_true_and_high_for_overconfident_probabilities() -> None:
    logits, codes, rows = predictions(20_000)
    assert calibration(rows, codes).ece < 0.015
    assert calibration(softmax(3 * logits, axis=1), codes).ece > 0.1
