"""Test the draws, the rows and the tables of the benchmark of tuning; nothing is tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tuning
import typer
from numpy.typing import NDArray

from ketfit.data.dataset import Dataset
from ketfit.study.analysis.hypothesis_tests import crossed_test
from ketfit.study.task import pack_bits, unpack_bits

RESULTS = Path(tuning.__file__).parent / "results"
LABELS = tuple("good" if number % 2 else "bad" for number in range(100))
REVIEWS = Dataset("reviews.tsv", tuple(f"review {number}" for number in range(100)), LABELS)
OF_RUN = {"body": "body", "data": "reviews", "fingerprint": "abc", "per_label": 20}


@pytest.fixture
def tests() -> dict[int, NDArray[np.int64]]:
    return {seed: tuning.draw(REVIEWS, 20, seed, limit=40)[1] for seed in range(3)}


@pytest.fixture
def rows(tests: dict[int, NDArray[np.int64]]) -> tuning.Rows:
    found: tuning.Rows = {}
    rng = np.random.default_rng(0)
    for number, (way, share) in enumerate({"frozen": 0.6, "ketfit": 0.8, "setfit": 0.7}.items()):
        for seed, test in tests.items():
            correct = rng.random(len(test)) < share
            cost = {"seconds": 2.0 * 3**number + seed, "sentence_passes": 1000 * number}
            line = {"way": way, "seed": seed, "accuracy": float(correct.mean()), "test_size": len(test), **cost}
            found[way, seed] = OF_RUN | line | {"correct": pack_bits(correct)}
    return found


def write(path: Path, rows: tuning.Rows) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows.values()), encoding="utf-8")
    return path


def test_draw_test_sentences_are_others_than_those_trained_on() -> None:
    train, test = tuning.draw(REVIEWS, 20, 1, limit=40)
    assert len(train.texts) == 34 and len(test) == 40 and train.seed == 1
    assert not set(train.texts) & {REVIEWS.texts[position] for position in test}
    assert len(tuning.draw(REVIEWS, 20, 1, limit=1000)[1]) == 60


def test_read_rows_returns_those_of_the_draws(
    tmp_path: Path, rows: tuning.Rows, tests: dict[int, NDArray[np.int64]]
) -> None:
    path = write(tmp_path / "rows.jsonl", rows)
    assert tuning.read_rows(path, OF_RUN, tests) == rows
    assert set(tuning.read_rows(path, OF_RUN, {1: tests[1]})) == {("frozen", 1), ("ketfit", 1), ("setfit", 1)}
    earlier = {key: {name: row[name] for name in row if name != "fingerprint"} for key, row in rows.items()}
    assert tuning.read_rows(write(path, earlier), OF_RUN, tests) == earlier
    assert tuning.read_rows(tmp_path / "none.jsonl", OF_RUN, tests) == {}


@pytest.mark.parametrize(
    ("changed", "limit", "message"),
    [
        ({"body": "other"}, 40, "has rows of --body body, this run has --body other"),
        ({"data": "other"}, 40, "has rows of --data reviews, this run has --data other"),
        ({"fingerprint": "def"}, 40, "has rows of --data with the fingerprint abc, this run has"),
        ({"per_label": 21}, 40, "has rows of --per-label 20, this run has --per-label 21"),
        ({}, 30, "has rows of --test-sentences 40, this run has --test-sentences 30; give another file"),
    ],
)
def test_read_rows_of_another_run_are_refused(
    tmp_path: Path, rows: tuning.Rows, changed: dict[str, Any], limit: int, message: str
) -> None:
    tests = {0: tuning.draw(REVIEWS, 20, 0, limit)[1]}
    with pytest.raises(typer.BadParameter, match=message):
        tuning.read_rows(write(tmp_path / "rows.jsonl", rows), OF_RUN | changed, tests)


@pytest.mark.parametrize(
    ("name", "body", "per_label", "test_sentences", "count"),
    [
        ("tuning-minilm", "all-MiniLM-L6-v2", 64, 1500, 24),
        ("tuning-minilm-128", "all-MiniLM-L6-v2", 128, 1500, 12),
        ("tuning-mpnet", "all-mpnet-base-v2", 32, 1000, 15),
    ],
)
def test_read_rows_finds_committed_rows(name: str, body: str, per_label: int, test_sentences: int, count: int) -> None:
    of_run = {"body": body, "data": "sst2", "fingerprint": "not in these rows", "per_label": per_label}
    tests = {seed: np.arange(test_sentences) for seed in range(3)}
    found = tuning.read_rows(RESULTS / f"{name}.jsonl", of_run, tests)
    assert len(found) == count and {way for way, _ in found} <= tuning.WAYS.keys()


def test_difference_is_that_of_crossed_test(rows: tuning.Rows, tests: dict[int, NDArray[np.int64]]) -> None:
    ours, other = ([unpack_bits(rows[way, seed]["correct"], 40) for seed in tests] for way in ("ketfit", "setfit"))
    expected = crossed_test(ours, other, list(tests.values()))
    assert expected.low is not None and expected.high is not None
    low, high = 100 * expected.low, 100 * expected.high
    found = tuning.difference(rows, tests, "setfit")
    assert found == f"{100 * expected.difference:+.2f} ({low:+.2f} to {high:+.2f})"
    assert tuning.difference(rows, tests, "ketfit") == ""
    assert tuning.difference(rows, {0: tests[0]}, "setfit") == "", "one draw has no interval"


def test_table_has_means_and_ratios(rows: tuning.Rows, tests: dict[int, NDArray[np.int64]]) -> None:
    lines = tuning.table(rows, tests, ["frozen", "ketfit", "setfit"]).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    accuracy = np.mean([rows["ketfit", seed]["accuracy"] for seed in tests])
    assert cells["ketfit"] == ["ketfit", f"{accuracy:.2%}", "", "7", "1.0", "1,000"]
    assert cells["setfit"][2:] == [tuning.difference(rows, tests, "setfit"), "19", "2.7", "2,000"]
    assert "| frozen | " in tuning.table(rows, tests, ["frozen"]).splitlines()[2]
