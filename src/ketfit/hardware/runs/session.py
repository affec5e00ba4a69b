"""Submission and retrieval of circuits through a ledger: no job is bought twice, and no paid result is lost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import Self

from ketfit.errors import (
    BackendTimeoutError,
    ConfigError,
    HardwareError,
    JobFailedError,
    LedgerError,
    OpenDuplicatesError,
    RateLimitError,
    RequestRejectedError,
    ResultError,
    ResultsPendingError,
    SubmissionStateUnknownError,
    TransientError,
    UnknownStatusError,
)
from ketfit.hardware.backends.base import (
    Backend,
    BoundCircuit,
    Counts,
    GateCounts,
    JobStatus,
    backend_identity,
    check_submission,
)
from ketfit.hardware.backends.boot_clock import BootTime, boot_time
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost, DeviceCost, estimate, load_device
from ketfit.hardware.runs.canary import check_canary, check_counts, n_canary_qubits
from ketfit.hardware.runs.jobs import (
    Budget,
    check_budget,
    count_gates,
    n_measured_of_key,
    result_key,
    split_into_jobs,
)
from ketfit.hardware.runs.ledger import Ledger, Submission, describe_duplicates
from ketfit.integers import as_integer

_log = logging.getLogger(__name__)


@dataclass
class Session:
    """A run on one backend. Use it as a context manager: it holds the lock of the ledger.

    Args:
        folder: Folder of the run.
        backend: Backend that runs the circuits.
        run_id: Letters and digits, unique to the run; every tag begins with it.
        retry: Retry policy for calls that buy nothing.
        device: Prices and times; None loads the device that the backend names.
        budget: Limits of the run, checked before each submission against the whole ledger.
        now: Returns the seconds since 1970 that the ledger shows to its reader.
        clock: Returns the boot time that measures how long a submission has been over.

    Raises:
        LedgerError, StorageError: As in `Ledger`.
    """

    folder: Path
    backend: Backend
    run_id: str
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    device: DeviceCost | None = None
    budget: Budget = field(default_factory=Budget)
    now: Callable[[], float] = time.time
    clock: Callable[[], BootTime] = boot_time

    def __post_init__(self) -> None:
        self.description = self.backend.describe()
        self.prices = self.device or load_device(self.description.device)
        self.ledger = Ledger(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.__exit__()

    def key(self, circuit: BoundCircuit, shots: int) -> str:
        """Return the `result_key` of a circuit on this session's backend."""
        return result_key(circuit, shots, backend_identity(self.description))

    def submit(
        self, circuits: Sequence[BoundCircuit], shots: int, *, again: bool = False, planned: Cost | None = None
    ) -> list[Submission]:
        """Submit the circuits that have neither a result nor an open submission, each once.

        Args:
            circuits: Circuits of one width; equal ones are sent once.
            shots: Shots per circuit.
            again: Buy again what failed, was cancelled or was rejected.
            planned: Planned cost, which must be the cost now unless something was sent that may have been accepted;
                None checks nothing.

        Returns:
            The new submissions.

        Raises:
            SubmissionStateUnknownError: It is unknown whether an earlier submission, or a new one, was accepted.
            CostLimitError: The budget does not allow it; nothing was sent.
            RateLimitError, RequestRejectedError: A submission was not accepted; those before it were.
            LedgerError: The compiler places circuits of a mitigated run on other physical qubits than before, or no
                longer makes the planned gates, or their price has changed.
            ConfigError: `shots` is not a whole number of at least 1.
        """
        shots = as_integer(shots, "shots", minimum=1)
        self.reconcile()
        by_key = {self.key(circuit, shots): circuit for circuit in circuits}
        missing = self.ledger.state.missing(list(by_key), again)
        jobs = split_into_jobs([by_key[key] for key in missing], self.description.limits.circuits)
        gates = count_gates(self.backend, jobs, self.retry)
        added = self._estimate([each for counted in gates for each in counted], shots)
        if planned is not None and added != planned and not self.ledger.state.paid:
            raise LedgerError(
                f"{self.folder} was planned as {planned}, and would now be {added}: the compiler has changed; plan anew"
            )
        if any(circuit.follows is not None for circuit in circuits):
            self._check_qubits({each.physical_qubits for counted in gates for each in counted[1:]})
        check_budget(self.budget, self.spent(), added)
        return [self._send(job, shots, counted) for job, counted in zip(jobs, gates, strict=True)]

    def _send(self, circuits: Sequence[BoundCircuit], shots: int, gates: Sequence[GateCounts]) -> Submission:
        number = len(self.ledger.state.submissions)
        submission = Submission(
            number=number,
            tag=f"ketfit-{self.run_id}-{number}",
            keys=tuple(self.key(circuit, shots) for circuit in circuits[1:]),  # the canary has none
            shots=shots,
            n_qubits=circuits[0].circuit.n_qubits,
            time=self.now(),
            price=self._estimate(gates, shots).price,
            physical_qubits=tuple(sorted({each.physical_qubits for each in gates[1:] if each.physical_qubits})),
        )
        check_submission(self.description, circuits, shots, submission.tag)
        self.ledger.record_intent(submission)
        try:
            job = self.backend.submit(circuits, shots, tag=submission.tag)
        except (RateLimitError, RequestRejectedError) as error:
            self.ledger.record_end(submission, "declined", f"{type(error).__name__}: {error}")
            raise
        except TransientError as error:
            self._begin_listing_delay(submission)
            raise SubmissionStateUnknownError(
                f"submission {number} was sent, and whether it was accepted is not known ({error}); it is not sent "
                "again: run submit or fetch, which look for it in the provider's list of jobs"
            ) from error
        self.ledger.record_accepted(submission, job)
        return self.ledger.state.submissions[number]

    def _estimate(self, gates: Sequence[GateCounts], shots: int) -> Cost:
        return estimate(gates, shots, self.prices, mitigated=self.description.is_mitigated)

    def reconcile(self) -> None:
        """Find out by their tags whether unresolved submissions were accepted.

        Raises:
            SubmissionStateUnknownError: The provider's list may not show the job yet.
            OpenDuplicatesError: The list shows more than one job, of which some have not ended and could be cancelled.
            UnknownStatusError, BackendTimeoutError: See `Backend.status`; the provider does not answer.
        """
        for submission in self.ledger.state.unresolved:
            tag = submission.tag
            listed_at, jobs = self._list_jobs(tag)
            delay = self.description.listing_delay_s
            if not jobs and delay and listed_at.boot is None:
                # No later process can measure how long this one has waited, so this one waits itself.
                self.retry.wait_until(lambda tag=tag: bool(self._list_jobs(tag)[1]), delay)  # type: ignore[misc]
                _, jobs = self._list_jobs(tag)
            elif not jobs and delay:
                self._check_listing_delay(submission, listed_at)
            if jobs:
                self._accept(submission, jobs)
            else:
                self.ledger.record_end(submission, "declined", "the provider's list of jobs does not have it")

    def _accept(self, submission: Submission, jobs: Sequence[str]) -> None:
        """Record the job of a submission, and any others with its tag as duplicates, which were paid for too."""
        job, *duplicates = self._order_duplicates(submission.tag, jobs) if len(jobs) > 1 else jobs
        self.ledger.record_accepted(submission, job, duplicates)
        if duplicates:
            _log.warning(describe_duplicates(self.ledger.state.submissions[submission.number], self._currency))

    def _order_duplicates(self, tag: str, jobs: Sequence[str]) -> list[str]:
        """Return the jobs with one tag, the one to use first: a job that is done, else an open one, else any.

        Of equal ones it is the first by its id, so that the choice depends neither on the results nor on the order of
        the provider's list.

        Raises:
            OpenDuplicatesError: A job has not ended, and another one is open or done.
        """
        statuses = {job: self._status(job) for job in sorted(set(jobs))}
        unended = [job for job, status in statuses.items() if not status.is_final]
        done = [job for job, status in statuses.items() if status is JobStatus.DONE]
        if unended and len(unended) + len(done) > 1:
            raise OpenDuplicatesError(
                f"the provider has {len(statuses)} jobs with the tag {tag} ({', '.join(statuses)}), and one was sent: "
                "something on the way to the provider sends twice. "
                f"{'Cancel' if done else 'Cancel all but one of'} those that have not ended ({', '.join(unended)}), "
                "since each costs money, or wait until they end; then run the command again"
            )
        usable = [*done, *unended]
        return [*usable, *(job for job in statuses if job not in usable)]

    def _list_jobs(self, tag: str) -> tuple[BootTime, Sequence[str]]:
        """Return the jobs with a tag, and the time of the request: the list is as old as the request."""

        def request() -> tuple[BootTime, Sequence[str]]:
            return self.clock(), self.backend.jobs(tag)

        return self.retry.call(request, f"jobs with the tag {tag}")

    def _status(self, job: str) -> JobStatus:
        return self.retry.call(lambda: self.backend.status(job), f"the status of job {job}")

    def _begin_listing_delay(self, submission: Submission) -> None:
        now = self.clock()
        if self.description.listing_delay_s and now.boot is not None:
            self.ledger.record_unlisted(submission, now)

    def _check_listing_delay(self, submission: Submission, listed_at: BootTime) -> None:
        """Raise an error if a list without the job was requested before the listing delay had passed.

        The delay counts from the moment at which the submission was certainly over: from its error, or, if its process
        was killed, from the first list that another process got. It does not count from the intent, since compiling
        and waiting for an answer may take longer than the delay. After a restart of the machine it begins anew.
        """
        delay = self.description.listing_delay_s
        age = None if submission.unlisted is None else listed_at.since(submission.unlisted)
        if age is None:
            self._begin_listing_delay(submission)
            age = 0.0
        if age < delay:
            raise SubmissionStateUnknownError(
                f"submission {submission.number} was sent and is not in the provider's list of jobs, which may be "
                f"{delay:g} s behind; nothing else is sent until then: try again in {math.ceil(delay - age)} s"
            )

    def fetch(self) -> None:
        """Store the available results, and the ends of jobs without a result.

        Raises:
            ResultError: A result fails its checks; its counts are in the ledger, and the other jobs were fetched.
            JobFailedError: A job failed or was cancelled; the other jobs were fetched.
            UnknownStatusError, RequestRejectedError: The status or the result of a job cannot be read; the other jobs
                were fetched.
            BackendTimeoutError: The provider does not answer. If it does for other jobs, they were fetched.
            SubmissionStateUnknownError: See `reconcile`; the known jobs were fetched.
        """
        _raise_first(self._fetch_available())

    def _fetch_available(self) -> list[HardwareError]:
        """Store the available results, and return the errors. That of a job without a result comes once, as it ends."""
        attempts = _Attempts()
        known = self.ledger.state.waiting
        # Known jobs first: a provider may return results and yet fail to list its jobs.
        self._fetch_each(known, attempts)
        if not _is_silent(attempts.all_errors()):
            attempts.run("reconcile", self.reconcile)
        self._fetch_each(self._waiting_besides(known), attempts)
        return attempts.all_errors()

    def _fetch_each(self, submissions: Sequence[Submission], attempts: _Attempts) -> None:
        """Fetch submissions; stop if the provider does not answer."""
        for submission in submissions:
            if _is_silent(attempts.all_errors()):
                return
            attempts.run(submission.tag, partial(self._fetch, submission))

    def _waiting_besides(self, known: Sequence[Submission]) -> list[Submission]:
        """Return the accepted submissions without a result that are not among `known`."""
        numbers = {submission.number for submission in known}
        return [submission for submission in self.ledger.state.waiting if submission.number not in numbers]

    def _fetch(self, submission: Submission) -> None:
        job = submission.job
        assert job is not None
        status = self._status(job)
        if not status.is_final:
            return
        if status is not JobStatus.DONE:
            self.ledger.record_end(submission, status.value, f"the provider says {status.value}")
            raise JobFailedError(
                f"job {job} (submission {submission.number}) "
                f"{status.value if status is JobStatus.FAILED else 'was cancelled'}; look at the provider's page for "
                "the reason, and submit again with again=True (--again)"
            )
        try:
            results = self.retry.call(lambda: self.backend.result(job), f"the result of job {job}")
        except ResultError as error:
            self.ledger.record_result(submission, [], f"{type(error).__name__}: {error}")
            raise
        except JobFailedError as error:
            self.ledger.record_end(submission, "failed", str(error))
            raise
        counts = [{bitstring: _json_count(count) for bitstring, count in row.items()} for row in results]
        widths = [n_canary_qubits(submission.n_qubits), *map(n_measured_of_key, submission.keys)]
        try:
            check_counts(counts, widths, submission.shots)
            check_canary(counts[0], submission.n_qubits)
        except ResultError as error:
            self.ledger.record_result(submission, counts, f"{type(error).__name__}: {error}")
            raise type(error)(f"submission {submission.number}, job {job}: {error}") from None
        self.ledger.record_result(submission, counts, None)

    def cancel(self) -> dict[str, JobStatus]:
        """Cancel all jobs without a result, and return the status of each.

        If the provider has several jobs with the tag of one unresolved submission, all of them are cancelled.

        Raises:
            BackendError: A job cannot be cancelled, or its status not be read; the others were cancelled.
            BackendTimeoutError: The provider does not answer.
            SubmissionStateUnknownError: As in `reconcile`; the known jobs were cancelled.
            OpenDuplicatesError: The cancellation of several jobs with one tag was requested, and some have not ended.
        """
        statuses: dict[str, JobStatus] = {}
        attempts = _Attempts()
        known, unresolved = self.ledger.state.waiting, self.ledger.state.unresolved
        for submission in known:
            attempts.run(submission.tag, partial(self._cancel, submission, statuses))
        requested: list[str] = []
        for submission in unresolved:
            attempts.run(submission.tag, partial(self._list_duplicates, submission, requested))
        for job in requested:
            attempts.run(job, partial(self._cancel_job, job, statuses))
        attempts.run("reconcile", partial(self._reconcile_cancelled, requested))
        for submission in self._waiting_besides(known):
            attempts.run(submission.tag, partial(self._cancel, submission, statuses))
            attempts.errors.pop(str(submission.job), None)  # of an attempt before it was accepted
        _raise_first(attempts.all_errors())
        return statuses

    def _cancel(self, submission: Submission, statuses: dict[str, JobStatus]) -> None:
        """Cancel the job of a submission, unless that was requested before, and record its end."""
        assert submission.job is not None
        if submission.job in statuses:
            statuses[submission.job] = self._status(submission.job)
        else:
            self._cancel_job(submission.job, statuses)
        status = statuses[submission.job]
        if status in (JobStatus.FAILED, JobStatus.CANCELLED):
            self.ledger.record_end(submission, status.value, "cancelled from here")

    def _list_duplicates(self, submission: Submission, found: list[str]) -> None:
        """Add the jobs with the tag of a submission if there are several, of which `reconcile` cannot choose one."""
        jobs = sorted(set(self._list_jobs(submission.tag)[1]))
        found.extend(jobs if len(jobs) > 1 else ())

    def _reconcile_cancelled(self, requested: Sequence[str]) -> None:
        """Reconcile, and say that the cancellation of jobs that have not ended was requested."""
        try:
            self.reconcile()
        except OpenDuplicatesError as error:
            if not requested:
                raise
            raise OpenDuplicatesError(
                f"the cancellation of {', '.join(requested)} was requested, and some have not ended: run the command "
                "again"
            ) from error

    def _cancel_job(self, job: str, statuses: dict[str, JobStatus]) -> None:
        self.retry.call(lambda: self.backend.cancel(job), f"cancelling job {job}")
        statuses[job] = self._status(job)

    def fetch_until(self, wait_s: float) -> None:
        """Call `fetch` until every submission has ended, for at most `wait_s` seconds.

        Neither a job that failed nor a provider that does not answer for a while ends the wait for the other jobs.
        Meanwhile each failed job and the first of the other errors of each kind are logged.

        Raises:
            JobFailedError, ResultError: A job has no usable result; the other jobs were waited for.
            UnknownStatusError, BackendTimeoutError, SubmissionStateUnknownError: Still there when the time is over.
            RequestRejectedError, OpenDuplicatesError: As in `fetch`, at once.
        """
        end = self.retry.clock() + wait_s
        failed: list[HardwareError] = []
        temporary: list[HardwareError] = []
        logged: list[HardwareError] = []

        def is_done() -> bool:
            errors = self._fetch_available()
            ended = [error for error in errors if isinstance(error, (JobFailedError, ResultError))]
            failed.extend(ended)
            temporary[:] = [error for error in errors if _may_pass(error)]
            if lasting := [error for error in errors if error not in (*ended, *temporary)]:
                _raise_first([*lasting, *ended])
            if not (self.ledger.state.waiting or self.ledger.state.unresolved):
                return True
            if self.retry.clock() < end:
                for error in (*ended, *temporary):
                    if error in ended or type(error) not in map(type, logged):
                        logged.append(error)
                        _log.warning("%s", error)
            return False

        self.retry.wait_until(is_done, wait_s, lambda: _retry_after(temporary))
        if errors := [*failed, *temporary]:
            _raise_first([errors[0], *(error for error in errors[1:] if error not in logged)])

    def counts(self, circuits: Sequence[BoundCircuit], shots: int) -> list[Counts]:
        """Return the counts of each circuit from the ledger.

        Raises:
            ResultsPendingError: Some circuits have no result yet.
        """
        shots = as_integer(shots, "shots", minimum=1)
        keys = [self.key(circuit, shots) for circuit in circuits]
        results = self.ledger.state.results
        pending = sum(key not in results for key in keys)
        if pending:
            raise ResultsPendingError(
                f"{pending} of {len(keys)} circuits have no result yet; fetch again later, and submit again with "
                "again=True (--again) what failed, was cancelled or was rejected"
            )
        return [results[key] for key in keys]

    def run(self, circuits: Sequence[BoundCircuit], shots: int, *, wait_s: float, again: bool = False) -> list[Counts]:
        """Submit what is missing, wait for it and return the counts of each circuit.

        Args:
            circuits: As in `submit`.
            shots: Shots per circuit.
            wait_s: Seconds to wait for the results.
            again: As in `submit`.

        Raises:
            ResultsPendingError: Not all results came within `wait_s` seconds; the same call goes on waiting.
            CostLimitError, BackendError, ResultError, SubmissionStateUnknownError: As in `submit` and `fetch`.
        """
        self.submit(circuits, shots, again=again)
        self.fetch_until(wait_s)
        return self.counts(circuits, shots)

    def spent(self) -> Cost:
        """Return what the ledger's submissions cost as far as is known; gates are not in it and count as 0."""
        paid = self.ledger.state.paid
        return Cost(
            circuits=sum(submission.n_circuits for submission in paid),
            shots=sum(submission.shots * submission.n_circuits for submission in paid),
            price=self.ledger.state.price,
            currency=self._currency,
        )

    @property
    def _currency(self) -> str | None:
        return self.prices.price.currency if self.prices.price else None

    def _check_qubits(self, physical_qubits: set[tuple[int, ...]]) -> None:
        """Raise an error if circuits would be calibrated or folded on other physical qubits than earlier jobs."""
        used = [submission for submission in self.ledger.state.submissions if submission.ended in (None, "done")]
        before = {qubits for submission in used for qubits in submission.physical_qubits}
        if before and (other := physical_qubits - before - {()}):
            raise LedgerError(
                f"the compiler now measures circuits at the physical qubits {min(other)}, and earlier jobs of this run "
                f"were measured at {min(before)}, so that one's calibration does not hold for the other; nothing was "
                "sent: plan the run anew in another folder"
            )


@dataclass
class _Attempts:
    """The errors of attempts by their names, which are raised after the last attempt.

    A later attempt of the same name replaces an error or removes it.
    """

    errors: dict[str, HardwareError] = field(default_factory=dict)

    def run(self, name: str, call: Callable[[], object]) -> None:
        """Call a function, and keep its `HardwareError` if it raises one."""
        self.errors.pop(name, None)
        try:
            call()
        except HardwareError as error:
            self.errors[name] = error

    def all_errors(self) -> list[HardwareError]:
        """Return the errors in the order of their attempts."""
        return list(self.errors.values())


def _raise_first(errors: Sequence[HardwareError]) -> None:
    """Raise the first of the errors, if there is one, and log the others."""
    if errors:
        for error in errors[1:]:
            _log.warning("%s", error)
        raise errors[0]


def _is_silent(errors: Sequence[HardwareError]) -> bool:
    """Return True if the provider wants no further request, or does not answer: each would wait for its deadline."""
    return _retry_after(errors) > 0 or sum(isinstance(error, BackendTimeoutError) for error in errors) > 1


def _may_pass(error: HardwareError) -> bool:
    """Return True for an error that a later request may not have."""
    kinds = (UnknownStatusError, TransientError, SubmissionStateUnknownError)
    return isinstance(error, kinds) and not isinstance(error, OpenDuplicatesError)


def _retry_after(errors: Sequence[HardwareError]) -> float:
    """Return the seconds for which the provider wants no further request."""
    return max((error.retry_after_s or 0.0 for error in errors if isinstance(error, TransientError)), default=0.0)


def _json_count(count: object) -> Any:
    """Return a count as JSON can hold it; text for what is no whole number, which `check_counts` rejects."""
    try:
        return as_integer(count, "count")
    except ConfigError:
        return repr(count)
