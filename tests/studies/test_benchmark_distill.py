"""Test the sentences, the scores and the clock of the benchmark of distillation; nothing is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import distill
import numpy as np
import pytest
import typer

from ketfit.data.dataset import Dataset
from ketfit.evaluation.compare import accuracy_interval

LABELS = tuple("good" if number % 2 else "bad" for number in range(100))
REVIEWS = Dataset("reviews.tsv", tuple(f"review {number}" for number in range(100)), LABELS)


def test_draw_parts_share_no_sentence() -> None:
    parts = distill.draw(REVIEWS, per_label=10, unlabelled=30, test_sentences=20, seed=0)
    assert [len(part) for part in parts] == [20, 30, 20]
    assert len({text for part in parts for text in part.texts}) == 70
    again = distill.draw(REVIEWS, per_label=10, unlabelled=30, test_sentences=20, seed=0)
    assert [part.texts for part in again] == [part.texts for part in parts]
    assert len(distill.draw(REVIEWS, per_label=10, unlabelled=30, test_sentences=1000, seed=0)[2]) == 50


def test_draw_without_test_sentences_raises() -> None:
    with pytest.raises(typer.BadParameter, match="--unlabelled 80 leaves none of 80 sentences to test on"):
        distill.draw(REVIEWS, per_label=10, unlabelled=80, test_sentences=20, seed=0)


def test_scores_differences_are_paired() -> None:
    before = np.arange(200) < 140
    correct = {"student before": before, "student after": before | (np.arange(200) >= 190), "teacher": ~before}
    found = distill.scores(correct)
    value, interval = accuracy_interval(150, 200)
    assert found["accuracy"]["student after"] == {"accuracy": value, "interval": interval}
    differences = {each["head"]: each for each in found["differences_to_student_before"]}
    assert differences.keys() == {"student after", "teacher"}
    after = differences["student after"]
    low, high = after["interval"]
    assert after["difference"] == pytest.approx(0.05) and 0 < low < 0.05 < high
    assert high - low < interval[1] - interval[0], "an interval of unpaired accuracies is wider"
    assert differences["teacher"]["difference"] == pytest.approx(-0.4)


def test_speed_is_that_of_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 4.0, 10.0, 12.0, 20.0, 25.0])
    calls: list[Any] = []
    monkeypatch.setattr(distill, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    body = SimpleNamespace(encode=lambda texts, cache: calls.append((len(texts), cache)))
    assert distill.speed(cast(Any, body), ["a"] * 10, rounds=3) == 5.0
    assert calls == [(10, False)] * 3
