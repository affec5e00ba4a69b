"""Tests of a run on the local simulator: nothing is bought twice, and labels give an accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ketfit.hardware.runs.run import PREDICTIONS, fetch_run, run_status, submit_run
from tests.hardware.example_runs import SENTENCES, write_example_plan


def test_repeated_submit_buys_nothing_again(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    for _ in range(3):
        submit_run(tmp_path)
    first = fetch_run(tmp_path)
    submit_run(tmp_path, again=True)
    assert fetch_run(tmp_path) == first == json.loads((tmp_path / PREDICTIONS).read_text())
    assert run_status(tmp_path).jobs == {"done": 4}


def test_fetch_with_labels_returns_accuracy_with_interval(tmp_path: Path) -> None:
    write_example_plan(tmp_path, labels=["good"] * SENTENCES)
    submit_run(tmp_path)
    report = fetch_run(tmp_path)
    share = np.mean([row["label"] == "good" for row in report["predictions"]])
    assert report["accuracy"] == pytest.approx(share)
    assert report["interval"][0] <= share <= report["interval"][1]
