"""Tests of sessions under faults: each ends in its own error or a correct result, and nothing is sent twice."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import (
    BackendTimeoutError,
    CanaryError,
    CostLimitError,
    HardwareError,
    JobFailedError,
    LedgerError,
    OpenDuplicatesError,
    PartialResultError,
    RateLimitError,
    RequestRejectedError,
    ResultsPendingError,
    SubmissionStateUnknownError,
    UnknownStatusError,
    WrongCountsError,
)
from ketfit.hardware.backends.base import JobStatus
from ketfit.hardware.pricing import load_device
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.run import cancel_run, fetch_run, run_status, submit_run
from ketfit.hardware.testing.faulty_backend import Call, Fault, FaultInjectingBackend
from tests.hardware.example_runs import FAST_RETRY, SENTENCES, simulator, write_example_plan

PASSING = ("rate_limit", "timeout", "server_error", "connection_lost")


def faulty_backend(folder: Path, *faults: Fault, **settings: Any) -> FaultInjectingBackend:
    return FaultInjectingBackend(simulator(folder), faults, **settings)


@pytest.fixture
def correct(tmp_path: Path) -> dict[str, Any]:
    """What an undisturbed run reads."""
    write_example_plan(tmp_path / "undisturbed")
    backend = simulator(tmp_path / "undisturbed")
    submit_run(tmp_path / "undisturbed", backend)
    return fetch_run(tmp_path / "undisturbed", backend)


def count_jobs(folder: Path) -> int:
    return len(list((folder / "jobs").glob("job-*.json")))


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("call", ["status", "result"])
def test_reads_are_retried_after_passing_errors(tmp_path: Path, correct: dict[str, Any], call: Call, kind: str) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault(call, kind, times=3))
    submit_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, retry=FAST_RETRY) == correct


@pytest.mark.parametrize("kind", PASSING)
def test_submit_counts_gates_again_after_passing_errors(tmp_path: Path, kind: str) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("count_gates", kind, times=3))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert count_jobs(tmp_path) == backend.calls.count("submit") == 4


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("call", ["status", "result"])
def test_reads_without_an_answer_fail_at_the_deadline(tmp_path: Path, call: Call, kind: str) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault(call, kind, times=10**6))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    begun = time.monotonic()
    with pytest.raises(BackendTimeoutError, match=r"no answer within 0\.2 s; last error: scripted"):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(("kind", "error"), [("rate_limit", RateLimitError), ("refused", RequestRejectedError)])
def test_declined_submission_can_be_sent_again(
    tmp_path: Path, correct: dict[str, Any], kind: str, error: type[HardwareError]
) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("submit", kind, skip=1))
    with pytest.raises(error):
        submit_run(run, backend, retry=FAST_RETRY)
    assert run_status(run).jobs == {"under way": 1, "declined": 1}
    with pytest.raises(ResultsPendingError, match="of 12 circuits have results"):
        fetch_run(run, backend, retry=FAST_RETRY)
    submit_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, retry=FAST_RETRY) == correct
    assert count_jobs(run) == 4


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("kind", ["timeout", "server_error", "connection_lost"])
def test_unresolved_submission_is_not_sent_again_before_reconciling(
    tmp_path: Path, correct: dict[str, Any], kind: str, accepted: bool
) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("submit", f"{kind}_after" if accepted else kind, skip=2))
    with pytest.raises(SubmissionStateUnknownError, match="it is not sent again"):
        submit_run(run, backend, retry=FAST_RETRY)
    assert backend.calls.count("submit") == 3, "a submission was repeated"
    assert run_status(run).unresolved == 1
    submit_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, retry=FAST_RETRY) == correct
    assert count_jobs(run) == 4
    assert len(read_ledger_state(run).submissions) == (4 if accepted else 5)


def test_empty_job_list_is_ignored_during_listing_delay(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path, Fault("submit", "timeout_after"), Fault("jobs", "unlisted", times=2), listing_delay_s=1000.0
    )
    for match in ("was accepted is not known", "may be 1000 s behind", "may be 1000 s behind"):
        with pytest.raises(SubmissionStateUnknownError, match=match):
            submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert backend.calls.count("submit") == 1
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert count_jobs(tmp_path) == 4


def submit_with_two_jobs_of_one_tag(folder: Path, backend: FaultInjectingBackend) -> None:
    """Submit once, and let the provider list two jobs for it; no answer tells which."""
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(folder, backend, retry=FAST_RETRY)
    (job,) = (folder / "jobs").glob("job-*.json")
    (folder / "jobs" / "job-000001.json").write_bytes(job.read_bytes())


@pytest.mark.parametrize(
    ("statuses", "advice"),
    [
        (["queued", "running"], r"Cancel all but one of those that have not ended \(job-000000, job-000001\)"),
        (["running"], r"Cancel those that have not ended \(job-000000\)"),
    ],
)
def test_jobs_of_one_tag_that_have_not_ended_raise_an_error(tmp_path: Path, statuses: list[str], advice: str) -> None:
    write_example_plan(tmp_path)
    faults = [Fault("status", status) for status in statuses]
    backend = faulty_backend(tmp_path, Fault("submit", "timeout_after"), *faults)
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    with pytest.raises(SubmissionStateUnknownError, match=f"has 2 jobs with the tag.*{advice}"):
        submit_run(tmp_path, backend, retry=FAST_RETRY)
    submit_run(tmp_path, backend, retry=FAST_RETRY)  # now both are done
    assert count_jobs(tmp_path) == 5


@pytest.mark.parametrize("newest_first", [False, True])
def test_second_done_job_of_one_tag_is_paid_and_not_used(
    tmp_path: Path, correct: dict[str, Any], caplog: pytest.LogCaptureFixture, newest_first: bool
) -> None:
    run = tmp_path / "run"
    device = load_device("ionq-aria")
    plan = write_example_plan(run, device=device).plan
    backend = faulty_backend(run, Fault("submit", "timeout_after"))
    submit_with_two_jobs_of_one_tag(run, backend)
    if newest_first:
        listed = backend.jobs
        backend.jobs = lambda tag: listed(tag)[::-1]  # type: ignore[method-assign]
    progress = submit_run(run, backend, retry=FAST_RETRY)
    first = read_ledger_state(run).submissions[0]
    assert (first.job, first.duplicates) == ("job-000000", ("job-000001",))
    assert plan.cost.price and first.price
    assert progress.price == pytest.approx(plan.cost.price + first.price)
    (notice,) = progress.duplicates
    assert f"job-000000 is used, and job-000001 paid for and not used, at {first.price:,.2f} USD each" in notice
    assert notice in caplog.messages
    report = fetch_run(run, backend, retry=FAST_RETRY)
    assert report["duplicates"] == [notice] and run_status(run) == replace(progress, circuits=12, jobs={"done": 4})
    expectations = [[row["z"] for row in run["predictions"][:3]] for run in (report, correct)]
    assert expectations[0] == expectations[1]
    assert count_jobs(run) == 5


def test_second_job_of_one_tag_counts_towards_the_limit_on_money(tmp_path: Path) -> None:
    device = load_device("ionq-aria")
    cost = write_example_plan(tmp_path / "plan", device=device).plan.cost
    run = tmp_path / "run"
    write_example_plan(run, device=device, max_cost=cost.price)
    backend = faulty_backend(run, Fault("submit", "timeout_after"))
    submit_with_two_jobs_of_one_tag(run, backend)
    with pytest.raises(CostLimitError, match="nothing was sent"):
        submit_run(run, backend, retry=FAST_RETRY)
    assert count_jobs(run) == 2


def test_cancel_cancels_all_jobs_of_one_tag(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("submit", "timeout_after"), Fault("status", "cancelled", times=10))
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    assert cancel_run(tmp_path, backend, retry=FAST_RETRY) == {
        "job-000000": JobStatus.CANCELLED,
        "job-000001": JobStatus.CANCELLED,
    }
    (first,) = read_ledger_state(tmp_path).submissions
    assert (first.ended, first.job, first.duplicates) == ("cancelled", "job-000000", ("job-000001",))
    assert backend.calls.count("cancel") == 2


def test_cancel_cancels_the_other_job_of_one_tag_if_the_first_is_refused(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path, Fault("submit", "timeout_after"), Fault("cancel", "refused"), Fault("status", "queued", times=10)
    )
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    with pytest.raises(RequestRejectedError, match="scripted: 401"):
        cancel_run(tmp_path, backend, retry=FAST_RETRY)
    assert backend.calls.count("cancel") == 2


@pytest.mark.parametrize("final", ["cancelled", "running"])
def test_cancel_raises_nothing_once_one_job_of_the_tag_is_left(tmp_path: Path, final: str) -> None:
    write_example_plan(tmp_path)
    # The first job is running after its cancellation, and the second one cancelled; then the provider is asked again.
    faults = [Fault("status", kind) for kind in ("running", "cancelled", "running", "cancelled", final)]
    backend = faulty_backend(tmp_path, Fault("submit", "timeout_after"), *faults)
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    statuses = cancel_run(tmp_path, backend, retry=FAST_RETRY)
    assert statuses == {"job-000000": JobStatus(final), "job-000001": JobStatus.CANCELLED}
    assert backend.calls.count("cancel") == 2
    (first,) = read_ledger_state(tmp_path).submissions
    assert first.ended == ("cancelled" if final == "cancelled" else None)


def test_cancel_tells_every_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("cancel", "refused", times=2))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(RequestRejectedError):
        cancel_run(tmp_path, backend, retry=FAST_RETRY)
    assert len(caplog.messages) == 1


def test_cancel_says_that_jobs_of_one_tag_have_not_ended_yet(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path, Fault("submit", "timeout_after"), Fault("status", "running", times=4), Fault("status", "cancelled", 9)
    )
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    with pytest.raises(OpenDuplicatesError, match=r"of job-000000, job-000001 was requested.*run the command again"):
        cancel_run(tmp_path, backend, retry=FAST_RETRY)
    assert set(cancel_run(tmp_path, backend, retry=FAST_RETRY).values()) == {JobStatus.CANCELLED}


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_second_job_of_one_tag_is_used_once_the_first_has_ended(
    tmp_path: Path, correct: dict[str, Any], kind: str
) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("submit", "timeout_after"), Fault("status", kind))
    submit_with_two_jobs_of_one_tag(run, backend)
    submit_run(run, backend, retry=FAST_RETRY)
    first = read_ledger_state(run).submissions[0]
    assert (first.job, first.duplicates) == ("job-000001", ("job-000000",))
    assert count_jobs(run) == 5
    assert len(fetch_run(run, backend)["predictions"]) == len(correct["predictions"])


def test_jobs_of_one_tag_that_were_all_cancelled_are_not_sent_again_by_themselves(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("submit", "timeout_after"), Fault("status", "cancelled", times=3))
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert count_jobs(tmp_path) == 5
    with pytest.raises(JobFailedError, match="job-000000.*was cancelled"):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert (count_jobs(tmp_path), run_status(tmp_path).jobs) == (5, {"cancelled": 1, "done": 3})


@pytest.mark.parametrize("kind", ["queued", "running"])
def test_fetch_waits_for_queued_jobs(tmp_path: Path, correct: dict[str, Any], kind: str) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("status", kind, times=6))
    submit_run(run, backend)
    with pytest.raises(ResultsPendingError, match="0 of 12 circuits"):
        fetch_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, wait_s=5, retry=FAST_RETRY) == correct


def test_fetch_waits_for_the_other_jobs_after_one_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("status", "failed"), Fault("status", "queued", times=6))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(JobFailedError, match="job-000000.*failed"):
        fetch_run(tmp_path, backend, wait_s=5, retry=FAST_RETRY)
    assert run_status(tmp_path).jobs == {"failed": 1, "done": 3}
    assert sum("job-000000" in message for message in caplog.messages) == 1


def test_fetch_reports_failed_jobs_behind_an_unknown_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("status", "unknown"), Fault("status", "failed", times=2))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(JobFailedError, match="job-000001"):
        fetch_run(tmp_path, backend, wait_s=5, retry=FAST_RETRY)
    assert run_status(tmp_path).jobs == {"failed": 2, "done": 2}
    for text in ("job-000001", "job-000002", "pondering"):
        assert sum(text in message for message in caplog.messages) == 1


def test_fetch_does_not_wait_if_two_jobs_of_one_tag_are_open(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path,
        Fault("submit", "timeout_after"),
        Fault("jobs", "unlisted"),
        Fault("status", "queued", times=10**6),
        listing_delay_s=100.0,
    )
    submit_with_two_jobs_of_one_tag(tmp_path, backend)
    begun = time.monotonic()
    with pytest.raises(OpenDuplicatesError, match="Cancel all but one"):
        fetch_run(tmp_path, backend, wait_s=60, retry=FAST_RETRY)
    assert time.monotonic() - begun < 30


def test_fetch_sleeps_for_as_long_as_the_provider_wants(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path)
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    status, errors = backend.status, iter([RateLimitError("busy", retry_after_s=300.0)])

    def busy_once(job: str) -> JobStatus:
        for error in errors:
            raise error
        return status(job)

    backend.status = busy_once  # type: ignore[method-assign]
    slept: list[float] = []
    fetch_run(tmp_path, backend, wait_s=1000, retry=replace(FAST_RETRY, sleep=slept.append))
    assert slept == [300.0]
    assert backend.calls.count("status") == 4, "no request before the provider wants one"


def test_fetch_ends_if_the_provider_wants_a_longer_pause_than_is_left(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path)
    submit_run(tmp_path, backend, retry=FAST_RETRY)

    def busy(job: str) -> JobStatus:
        raise RateLimitError("busy", retry_after_s=300.0)

    backend.status = busy  # type: ignore[method-assign]
    slept: list[float] = []
    with pytest.raises(BackendTimeoutError, match="run the command again in 300 s"):
        fetch_run(tmp_path, backend, wait_s=100, retry=replace(FAST_RETRY, sleep=slept.append))
    assert slept == []


def test_fetch_without_a_wait_tells_each_error_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("status", "failed", times=2))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(JobFailedError, match="job-000000"):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    (message,) = caplog.messages
    assert "job-000001" in message


@pytest.mark.parametrize(
    ("call", "kind", "times"), [("status", "unknown", 9), ("jobs", "unlisted", 9), ("result", "server_error", 100)]
)
def test_fetch_waits_until_the_provider_answers_again(
    tmp_path: Path, correct: dict[str, Any], caplog: pytest.LogCaptureFixture, call: Call, kind: str, times: int
) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(
        run, Fault("submit", "timeout_after", skip=3), Fault(call, kind, times), listing_delay_s=100.0
    )
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, wait_s=20, retry=FAST_RETRY) == correct
    assert 1 <= len(caplog.messages) <= 2


def test_fetch_does_not_wait_if_a_request_is_refused(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("status", "refused", times=10**6))
    submit_run(tmp_path, backend, retry=FAST_RETRY)
    begun = time.monotonic()
    with pytest.raises(RequestRejectedError):
        fetch_run(tmp_path, backend, wait_s=60, retry=FAST_RETRY)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_failed_job_is_bought_again_only_with_again(tmp_path: Path, correct: dict[str, Any], kind: str) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("status", kind))
    submit_run(run, backend)
    with pytest.raises(JobFailedError, match="--again"):
        fetch_run(run, backend, retry=FAST_RETRY)
    assert run_status(run).jobs == {kind: 1, "done": 3}
    submit_run(run, backend)
    assert count_jobs(run) == 4
    submit_run(run, backend, again=True)
    assert count_jobs(run) == 5
    assert len(fetch_run(run, backend)["predictions"]) == SENTENCES == len(correct["predictions"])


def test_unknown_status_raises_an_error(tmp_path: Path, correct: dict[str, Any]) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("status", "unknown"))
    submit_run(run, backend)
    with pytest.raises(UnknownStatusError, match="pondering"):
        fetch_run(run, backend, retry=FAST_RETRY)
    assert run_status(run).jobs == {"under way": 1, "done": 3}
    assert fetch_run(run, backend, retry=FAST_RETRY) == correct


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        ("partial", PartialResultError, "results of 3 of 4 circuits"),
        ("missing", PartialResultError, "3 results for 4 circuits"),
        ("wrong_shots", WrongCountsError, "201 shots in all; 200 were requested"),
        ("reversed", CanaryError, "the canary reads 011 and must read 110: bits come reversed"),
        ("shuffled", WrongCountsError, "it measures 3 qubits"),
    ],
)
def test_wrong_result_is_stored_and_not_used(tmp_path: Path, kind: str, error: type[HardwareError], match: str) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(tmp_path, Fault("result", kind))
    submit_run(tmp_path, backend)
    with pytest.raises(error, match=match):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    assert run_status(tmp_path).jobs == {"rejected": 1, "done": 3}
    state = read_ledger_state(tmp_path)
    assert len(state.results) == SENTENCES - 3
    submit_run(tmp_path, backend)
    assert count_jobs(tmp_path) == 4, "a rejected batch was bought again without a word"
    submit_run(tmp_path, backend, again=True)
    assert count_jobs(tmp_path) == 5
    assert len(fetch_run(tmp_path, backend)["predictions"]) == SENTENCES


def test_fetch_stops_if_the_provider_does_not_answer_for_two_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_example_plan(tmp_path / "run")
    backend = simulator(tmp_path / "jobs")
    submit_run(tmp_path / "run", backend, retry=FAST_RETRY)
    assert run_status(tmp_path / "run").jobs["under way"] > 2
    asked: list[str] = []

    def status(job: str) -> JobStatus:
        asked.append(job)
        raise BackendTimeoutError("no answer")

    monkeypatch.setattr(backend, "status", status)
    with pytest.raises(BackendTimeoutError):
        fetch_run(tmp_path / "run", backend, retry=FAST_RETRY)
    assert len(set(asked)) == 2


@pytest.mark.parametrize("error", [RequestRejectedError, BackendTimeoutError])
def test_other_jobs_are_fetched_if_one_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[HardwareError]
) -> None:
    write_example_plan(tmp_path)
    backend = simulator(tmp_path)
    submit_run(tmp_path, backend)
    status = backend.status

    def unreadable(job: str) -> JobStatus:
        if job == "job-000000":
            raise error("scripted")
        return status(job)

    monkeypatch.setattr(backend, "status", unreadable)
    with pytest.raises(error, match="scripted"):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    assert run_status(tmp_path).jobs == {"under way": 1, "done": 3}


@pytest.mark.parametrize("kind", ["refused", "server_error"])
def test_known_jobs_are_fetched_if_jobs_cannot_be_listed(tmp_path: Path, correct: dict[str, Any], kind: str) -> None:
    run = tmp_path / "run"
    write_example_plan(run)
    backend = faulty_backend(run, Fault("submit", "timeout_after", skip=2), Fault("jobs", kind, times=10**6))
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(run, backend, retry=FAST_RETRY)
    with pytest.raises(RequestRejectedError if kind == "refused" else BackendTimeoutError, match="scripted"):
        fetch_run(run, backend, retry=FAST_RETRY)
    assert run_status(run).jobs == {"done": 2, "unresolved": 1}
    backend.faults.clear()
    with pytest.raises(ResultsPendingError, match="9 of 12 circuits"):
        fetch_run(run, backend, retry=FAST_RETRY)
    submit_run(run, backend, retry=FAST_RETRY)
    assert fetch_run(run, backend, retry=FAST_RETRY) == correct


def test_jobs_are_not_listed_if_the_provider_does_not_answer(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path, Fault("submit", "timeout_after", skip=2), Fault("status", "server_error", times=10**6)
    )
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(BackendTimeoutError, match="the status of job job-000000"):
        fetch_run(tmp_path, backend, retry=FAST_RETRY)
    assert "jobs" not in backend.calls


def test_cancel_continues_after_errors_and_raises_the_first(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = faulty_backend(
        tmp_path,
        Fault("submit", "timeout_after", skip=2),
        Fault("cancel", "refused"),
        Fault("status", "cancelled", times=2),
        Fault("jobs", "refused", times=2),
    )
    with pytest.raises(SubmissionStateUnknownError):
        submit_run(tmp_path, backend, retry=FAST_RETRY)
    with pytest.raises(RequestRejectedError, match="scripted: 401"):
        cancel_run(tmp_path, backend, retry=FAST_RETRY)
    assert run_status(tmp_path).jobs == {"under way": 1, "cancelled": 1, "unresolved": 1}
    assert cancel_run(tmp_path, backend, retry=FAST_RETRY) == {
        "job-000000": JobStatus.CANCELLED,
        "job-000002": JobStatus.DONE,
    }
    assert backend.calls.count("cancel") == 4


def test_cost_is_compared_with_the_plan_if_everything_was_declined(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    inner = simulator(tmp_path)
    backend = FaultInjectingBackend(inner, [Fault("submit", "refused")])
    with pytest.raises(RequestRejectedError):
        submit_run(tmp_path, backend, retry=FAST_RETRY)
    count = inner.count_gates
    inner.count_gates = lambda circuits: [  # type: ignore[method-assign]
        replace(each, one_qubit=each.one_qubit + 1) for each in count(circuits)
    ]
    with pytest.raises(LedgerError, match="plan anew"):
        submit_run(tmp_path, backend, retry=FAST_RETRY)
    assert count_jobs(tmp_path) == 0
