"""Runs on IonQ's API, through qiskit-ionq and over HTTP, under SIGKILL between any two steps of theirs.

The steps: each request, before it leaves and when its answer is there, and each flush of the ledger, before and after.
A few of them here; ``make faults`` sets KETFIT_IONQ_KILLS to more than there are, which takes all in turn.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.errors import SubmissionStateUnknownError
from ketfit.estimators.quantum import QuantumHeadClassifier
from ketfit.hardware.backends.base import Backend
from ketfit.hardware.backends.ionq import IonQBackend
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.canary import canary_circuit
from ketfit.hardware.runs.jobs import result_key
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.plan import PreparedRun, plan_run, read_plan, write_plan
from ketfit.hardware.runs.run import fetch_run, run_status, submit_run
from ketfit.model.config import HeadConfig, TrainConfig
from tests.hardware.ionq_server import KEY, Fault, Store, serving

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KETFIT_IONQ_KILLS", "4"))
FAST_RETRY = RetryPolicy(deadline_s=20, initial_pause_s=0.02, max_pause_s=0.1)
STARTED = 1  # looks at a job until it is done, beyond the first


@pytest.fixture
def ionq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with serving(tmp_path / "ionq", polls=STARTED) as (url, store):
        monkeypatch.setenv("IONQ_API_KEY", KEY)
        monkeypatch.setenv("IONQ_API_URL", url)
        yield store


@cache
def classifier() -> QuantumHeadClassifier:
    x = np.random.default_rng(1).normal(size=(40, 6))
    head = HeadConfig(n_qubits=3, encoder_layers=1, main_layers=1, reference_amplitude=1.0)
    return QuantumHeadClassifier(head, TrainConfig(epochs=5)).fit(x, np.where(x[:, 0] > 0, "good", "bad"))


def machine(listing_delay_s: float = 0.0) -> IonQBackend:
    """Return a QPU that takes four circuits a job, with this delay of its job list."""
    backend = IonQBackend("qpu.forte-1")
    description = backend.describe()
    limits = replace(description.limits, circuits=4)
    backend._description = replace(description, limits=limits, listing_delay_s=listing_delay_s)
    return backend


def write_example_plan(folder: Path, make: Callable[[], Backend] = machine) -> PreparedRun:
    """Write a plan of six sentences in two jobs."""
    sentences = np.random.default_rng(0).normal(size=(6, 6))
    prepared = plan_run(classifier(), sentences, make(), name=make().describe().name, shots=200)
    write_plan(folder, prepared)
    return prepared


def run_killed(folder: Path, step: int, make: Callable[[], Backend] = machine) -> bool:
    """Submit and fetch in a process that kills itself at that step; return True if it reached the step."""
    backend, circuits = make(), planned_circuits(folder)
    backend.count_gates([canary_circuit(3), *circuits])  # the compiler's threads do not outlive a fork
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the server's is idle
        child = os.fork()
    if not child:
        code = 1
        try:
            steps = count_steps(lambda reached: reached == step and os.kill(os.getpid(), signal.SIGKILL))
            submit_run(folder, backend, retry=FAST_RETRY)
            fetch_run(folder, backend, wait_s=30, retry=FAST_RETRY)
            (folder / "steps").write_text(str(steps["all"]))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def planned_circuits(folder: Path) -> Any:
    return read_plan(folder).circuits


def count_steps(at: Callable[[int], Any]) -> Counter[str]:
    import requests

    steps = Counter[str]()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **named: Any) -> Any:
            for moment in ("before", "after"):
                steps["all"] += 1
                at(steps["all"])
                if moment == "before":
                    answer = call(*args, **named)
            return answer

        return around

    requests.Session.request = counted(requests.Session.request)  # type: ignore[method-assign]
    os.fsync = counted(os.fsync)
    return steps


def check_nothing_lost(folder: Path, prepared: PreparedRun, store: Store) -> None:
    """Check that each circuit has one paid job, which is in the ledger with its counts."""
    accepted = [entry for entry in store.requests("POST") if entry["accepted"]]
    assert max(Counter(entry["name"] for entry in accepted).values()) == 1, "a job was submitted twice"
    state = read_ledger_state(folder)
    jobs = {submission.job: submission for submission in state.submissions if submission.job is not None}
    assert set(jobs) == {job["id"] for job in store.jobs()}, "IonQ has jobs that are unknown here"
    bought = Counter(key for submission in jobs.values() for key in submission.keys)
    plan = prepared.plan
    wanted = {result_key(each, plan.shots, plan.described) for each in prepared.circuits}
    assert bought == Counter(wanted) and state.results.keys() == wanted
    circuits = sum(entry["circuits"] for entry in accepted)
    assert (circuits, circuits * plan.shots) == (plan.cost.circuits, plan.cost.shots), "not what was planned"


def finish(folder: Path, make: Callable[[], Backend] = machine) -> None:
    """Submit and fetch, as a user does after a reboot."""
    submit_run(folder, make(), retry=FAST_RETRY)
    assert len(fetch_run(folder, make(), wait_s=30, retry=FAST_RETRY)["predictions"]) == 6


def test_run_killed_between_any_two_steps_continues(tmp_path: Path, ionq: Store) -> None:
    whole = tmp_path / "whole"
    write_example_plan(whole)
    assert not run_killed(whole, -1)
    total = int((whole / "steps").read_text())
    assert total > 40
    for step in np.unique(np.linspace(1, total, min(KILLS, total)).round()).astype(int).tolist():
        folder = tmp_path / f"killed-{step}"
        before = {job["id"] for job in ionq.jobs()}
        prepared = write_example_plan(folder)
        # The number of looks at a job may differ by a few from run to run.
        assert run_killed(folder, step) or step > total - 10
        finish(folder)
        check_nothing_lost(folder, prepared, View(ionq, before))


class View(Store):
    """The jobs and submissions of one run, of a server that has seen others."""

    def __init__(self, store: Store, before: set[str]) -> None:
        super().__init__(store.folder)
        self.before = before

    def jobs(self) -> list[dict[str, Any]]:
        return [job for job in super().jobs() if job["id"] not in self.before]

    def requests(self, method: str | None = None) -> list[dict[str, Any]]:
        mine = {job["id"] for job in self.jobs()}
        return [entry for entry in super().requests(method) if entry["accepted"] in mine]


def test_lost_answer_is_found_and_not_bought_again(tmp_path: Path, ionq: Store) -> None:
    folder = tmp_path / "run"
    prepared = write_example_plan(folder)
    ionq.set_faults(Fault("late status", "POST", status=504))
    with pytest.raises(SubmissionStateUnknownError, match="504"):
        submit_run(folder, machine(), retry=FAST_RETRY)
    assert run_status(folder).unresolved == 1
    finish(folder)
    check_nothing_lost(folder, prepared, ionq)
    assert len(ionq.requests("POST")) == 2


def test_submission_that_hangs_is_not_sent_after_its_circuits_were_sent_again(
    tmp_path: Path, ionq: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, released, resolve = tmp_path / "run", threading.Event(), socket.getaddrinfo
    prepared, backend = write_example_plan(folder), machine()
    backend.count_gates([canary_circuit(3), *planned_circuits(folder)])
    backend.client._ionq = replace(backend.client._ionq, timeout_s=0.2)

    def getaddrinfo(*arguments: Any, **named: Any) -> Any:
        released.wait(60)
        return resolve(*arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(SubmissionStateUnknownError, match="no complete answer"):
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        submit_run(folder, backend, retry=FAST_RETRY)
    (hanging,) = [thread for thread in threading.enumerate() if thread.name == "ketfit-request"]
    finish(folder)
    released.set()
    hanging.join()
    assert len(ionq.requests("POST")) == 2
    check_nothing_lost(folder, prepared, ionq)


def test_submit_sends_nothing_during_listing_delay(tmp_path: Path, ionq: Store) -> None:
    folder = tmp_path / "run"
    prepared = write_example_plan(folder)
    ionq.set_faults(Fault("drop", "POST"))
    for _ in range(3):  # the second and third ask for the list, and send nothing
        with pytest.raises(SubmissionStateUnknownError):
            submit_run(folder, machine(listing_delay_s=60), retry=FAST_RETRY)
    assert len(ionq.requests("POST")) == 1
    finish(folder)
    check_nothing_lost(folder, prepared, ionq)


def test_run_survives_restart_of_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IONQ_API_KEY", KEY)
    folder = tmp_path / "run"
    with serving(tmp_path / "ionq", polls=3) as (url, _):
        monkeypatch.setenv("IONQ_API_URL", url)
        prepared = write_example_plan(folder)
        submit_run(folder, machine(), retry=FAST_RETRY)
    with serving(tmp_path / "ionq") as (url, store):
        monkeypatch.setenv("IONQ_API_URL", url)
        finish(folder)
        check_nothing_lost(folder, prepared, store)
        posts = len(store.requests("POST"))
        finish(folder)  # and once more: all is there
        assert len(store.requests("POST")) == posts == 2


def test_reads_are_retried_within_deadline(tmp_path: Path, ionq: Store) -> None:
    folder = tmp_path / "run"
    prepared = write_example_plan(folder)
    submit_run(folder, machine(), retry=FAST_RETRY)
    ionq.set_faults(
        Fault("status", path="/jobs/", status=503, times=2),
        Fault("garbage", path="/jobs/"),
        Fault("drop", path="results"),
    )
    finish(folder)
    check_nothing_lost(folder, prepared, ionq)


def test_run_files_contain_no_key(tmp_path: Path, ionq: Store) -> None:
    folder = tmp_path / "run"
    write_example_plan(folder)
    finish(folder)
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
