"""Runs on IBM's API, through qiskit-ibm-runtime and over HTTP, under SIGKILL between any two steps of theirs.

The steps are those of `tests.faults.test_ionq_kills`: each request and each flush of the ledger, before and after.
A few of them here; ``make faults`` sets KETFIT_IBM_KILLS to more than there are, which takes all in turn.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qiskit_ibm_runtime")

from ketfit.errors import SubmissionStateUnknownError
from ketfit.hardware.backends.ibm import IBMBackend
from ketfit.hardware.runs.run import run_status, submit_run
from tests.faults.test_ionq_kills import (
    FAST_RETRY,
    STARTED,
    View,
    check_nothing_lost,
    finish,
    run_killed,
    write_example_plan,
)
from tests.hardware.ibm_server import BEARER, INSTANCE, KEY, serving_ibm
from tests.hardware.ionq_server import Fault, Store

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KETFIT_IBM_KILLS", "4"))


@pytest.fixture
def ibm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with serving_ibm(tmp_path / "ibm", polls=STARTED) as (url, store):
        monkeypatch.setenv("QISKIT_IBM_TOKEN", KEY)
        monkeypatch.setenv("QISKIT_IBM_INSTANCE", INSTANCE)
        monkeypatch.setenv("IBM_API_URL", f"{url}/api/v1")
        monkeypatch.setenv("IBM_IAM_URL", url)
        yield store


def machine() -> IBMBackend:
    """Return a machine that takes four circuits a job, with a job list without delay."""
    backend = IBMBackend("ibm_manila", max_circuits=4)
    backend._description = replace(backend.describe(), listing_delay_s=0.0)
    return backend


def test_run_killed_between_any_two_steps_continues(tmp_path: Path, ibm: Store) -> None:
    whole = tmp_path / "whole"
    write_example_plan(whole, machine)
    assert not run_killed(whole, -1, machine)
    total = int((whole / "steps").read_text())
    assert total > 40
    for step in np.unique(np.linspace(1, total, min(KILLS, total)).round()).astype(int).tolist():
        folder = tmp_path / f"killed-{step}"
        before = {job["id"] for job in ibm.jobs()}
        prepared = write_example_plan(folder, machine)
        # The number of looks at a job may differ by a few from run to run.
        assert run_killed(folder, step, machine) or step > total - 10
        finish(folder, machine)
        check_nothing_lost(folder, prepared, View(ibm, before))


def test_lost_answer_is_found_and_not_bought_again(tmp_path: Path, ibm: Store) -> None:
    folder = tmp_path / "run"
    prepared = write_example_plan(folder, machine)
    ibm.set_faults(Fault("late status", "POST", "/jobs$", status=504))
    with pytest.raises(SubmissionStateUnknownError, match="504"):
        submit_run(folder, machine(), retry=FAST_RETRY)
    assert run_status(folder).unresolved == 1
    finish(folder, machine)
    check_nothing_lost(folder, prepared, ibm)
    assert len([entry for entry in ibm.requests("POST") if entry["path"].endswith("/jobs")]) == 2


def test_run_files_contain_no_key_and_no_access_token(tmp_path: Path, ibm: Store) -> None:
    folder = tmp_path / "run"
    write_example_plan(folder, machine)
    finish(folder, machine)
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in content and BEARER.encode() not in content, path
