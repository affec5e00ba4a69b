"""Tests of a run on the local simulator: nothing is bought twice, and labels give an accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.errors import JobFailedError, LedgerError, ResultsPendingError, SubmissionStateUnknownError
from ketfit.hardware.runs import run
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.run import PREDICTIONS, fetch_run, run_status, submit_run
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.faulty_backend import Fault, FaultInjectingBackend
from tests.hardware.example_runs import SENTENCES, classifier, embeddings, simulator, write_example_plan


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


def test_run_of_words_that_was_interrupted_buys_each_circuit_once(tmp_path: Path) -> None:
    settings = {"classifier": classifier(readout=("X0 Z1", "Z0")), "embeddings": embeddings(6)}
    prepared = write_example_plan(tmp_path, **settings)
    broken = FaultInjectingBackend(simulator(tmp_path), [Fault("submit", "connection_lost_after", skip=2)])
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(tmp_path, broken)
    with pytest.raises(ResultsPendingError, match="9 of 12 circuits have results"):
        fetch_run(tmp_path)
    assert len(read_ledger_state(tmp_path).submissions) == 3, "the job without an answer is found by its tag"
    progress = submit_run(tmp_path)
    assert (progress.planned, sum(progress.jobs.values())) == (12, prepared.plan.batches) == (12, 4)
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 4
    found = [row["expectations"] for row in fetch_run(tmp_path)["predictions"]]
    write_example_plan(tmp_path / "whole", **settings)
    submit_run(tmp_path / "whole")
    assert found == [row["expectations"] for row in fetch_run(tmp_path / "whole")["predictions"]]


def test_plan_that_was_replaced_before_the_lock_is_not_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_example_plan(tmp_path)
    open_session = run.open_session

    def replacing(*arguments: Any) -> Session:
        write_example_plan(tmp_path, shots=100)
        return open_session(*arguments)

    monkeypatch.setattr(run, "open_session", replacing)
    with pytest.raises(LedgerError, match="planned anew by another process"):
        submit_run(tmp_path)
    assert read_ledger_state(tmp_path).submissions == ()


def test_pending_results_of_a_failed_job_name_again(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = FaultInjectingBackend(simulator(tmp_path), [Fault("status", "failed")])
    submit_run(tmp_path, backend)
    with pytest.raises(JobFailedError):
        fetch_run(tmp_path, backend)
    with pytest.raises(ResultsPendingError, match="failed, was cancelled or was rejected is bought again if --again"):
        fetch_run(tmp_path, backend)
