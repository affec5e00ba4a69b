"""Circuits to counts through a ledger: nothing is sent twice, nothing that was paid for is lost."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import Self

from ketfit.errors import (
    ConfigError,
    CostLimitError,
    HardwareError,
    JobFailedError,
    LedgerError,
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
from ketfit.hardware.runs.canary import canary, canary_width, check_canary, check_counts
from ketfit.hardware.runs.ledger import Ledger, Submission
from ketfit.integers import as_integer

MAX_TOGETHER = 1000
"""Circuits of one job, where the backend has no limit."""


@dataclass(frozen=True)
class Budget:
    """Limits of a whole run, canaries included; None is no limit. Money is in the price's own currency.

    Raises:
        ConfigError: a limit is negative or not finite.
    """

    money: float | None = None
    circuits: int | None = None
    shots: int | None = None

    def __post_init__(self) -> None:
        if self.money is not None and (isinstance(self.money, bool) or not 0 <= self.money < math.inf):
            raise ConfigError(f"max_cost={self.money!r}: it must be a finite number of at least 0; None is no limit")
        for name in ("circuits", "shots"):
            if (limit := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_integer(limit, f"max_{name}", minimum=0))


@dataclass
class Session:
    """One run on one backend. Use it as a context manager: it holds the ledger's lock.

    Args:
        folder: The run's folder.
        backend: Where circuits run.
        run_id: Letters and digits that no other run has; every tag begins with it.
        patience: How questions are asked again.
        device: Prices and times; None is the file that the backend names.
        budget: What the run may take; checked before each submission against all that the ledger has.
        mitigated: Whether the provider mitigates errors, which it may charge for.
        now: Seconds since 1970, for who reads the ledger.
        clock: Measures how long a submission has been over.

    Raises:
        LedgerError, StorageError: as in `Ledger`.
    """

    folder: Path
    backend: Backend
    run_id: str
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    device: DeviceCost | None = None
    budget: Budget = Budget()
    mitigated: bool = False
    now: Callable[[], float] = time.time
    clock: Callable[[], BootTime] = boot_time

    def __post_init__(self) -> None:
        self.description = self.backend.describe()
        self.device = self.device or load_device(self.description.device)
        self.ledger = Ledger(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.__exit__()

    def key(self, circuit: BoundCircuit, shots: int) -> str:
        """What a result is known by: circuit, shots, backend and options."""
        return result_key(circuit, shots, backend_identity(self.description))

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, again: bool = False) -> list[Submission]:
        """Send what has neither a result nor a batch under way, once each; the batches that were sent.

        Args:
            circuits: Any, of one width; equal ones are sent once.
            shots: Of each.
            again: Buy again what failed, was cancelled or rejected.

        Raises:
            SubmissionStateUnknownError: the state of an earlier submission, or now of this one, is unknown.
            CostLimitError: the budget does not allow it; nothing was sent.
            RateLimitError, RequestRejectedError: a batch was not accepted; those before it were.
            LedgerError: the compiler now reads circuits of a mitigated run at other physical qubits than before.
            ConfigError: `shots` is not a whole number of at least 1.
        """
        shots = as_integer(shots, "shots", minimum=1)
        self.reconcile()
        by_key = {self.key(circuit, shots): circuit for circuit in circuits}
        wanted = self.ledger.account.missing(list(by_key), again)
        batches = plan_submissions([by_key[key] for key in wanted], self.description.limits.circuits)
        gates = [self.backend.count_gates(batch) for batch in batches]
        if any(circuit.follows is not None for circuit in circuits):
            self._check_qubits({each.read_at for part in gates for each in part[1:]})
        self._check_budget([each for part in gates for each in part], shots)
        sent, start = [], 0
        for batch, counted in zip(batches, gates, strict=True):
            keys = wanted[start : start + len(batch) - 1]
            start += len(keys)
            sent.append(self._send(batch, keys, shots, counted))
        return sent

    def _send(
        self, circuits: Sequence[BoundCircuit], keys: Sequence[str], shots: int, gates: Sequence[GateCounts]
    ) -> Submission:
        assert self.device is not None
        tag = f"ketfit-{self.run_id}-{len(self.ledger.account.batches)}"
        check_submission(self.description, circuits, shots, tag)
        price = estimate(gates, shots, self.device, mitigated=self.mitigated).price
        n_qubits = circuits[0].circuit.n_qubits
        read_at = sorted({each.read_at for each in gates[1:] if each.read_at})
        batch = self.ledger.intent(
            tag=tag, keys=keys, shots=shots, n_qubits=n_qubits, time=self.now(), price=price, read_at=read_at
        )
        try:
            job = self.backend.submit(circuits, shots, tag=tag)
        except (RateLimitError, RequestRejectedError) as error:
            self.ledger.ended(batch, "declined", f"{type(error).__name__}: {error}")
            raise
        except TransientError as error:
            self._begin_settling(batch)
            raise SubmissionStateUnknownError(
                f"batch {batch.number} was sent, and whether it was accepted is not known ({error}); it is not sent "
                "again: ask for it with submit or fetch, which look for it in the provider's list of jobs"
            ) from error
        self.ledger.accepted(batch, job)
        return self.ledger.account.batches[batch.number]

    def reconcile(self) -> None:
        """Find out by their tags what became of the intents that nobody knows about.

        Raises:
            SubmissionStateUnknownError: the provider's list may not show it yet, or shows more than one job.
            BackendTimeoutError: the provider does not answer.
        """
        for batch in self.ledger.account.unresolved:
            tag = batch.tag
            asked, jobs = self._list(tag)
            delay = self.description.listing_delay_s
            if not jobs and delay and asked.boot is None:
                # No later process can tell how long this one has looked, so it has to wait itself.
                self.patience.wait_until(lambda tag=tag: bool(self._list(tag)[1]), delay)  # type: ignore[misc]
                asked, jobs = self._list(tag)
            elif not jobs and delay:
                self._check_settled(batch, asked)
            if len(jobs) > 1:
                raise SubmissionStateUnknownError(
                    f"the provider has {len(jobs)} jobs with the tag {tag} ({', '.join(jobs)}), and one was sent from "
                    "here; something between here and there sends twice. Cancel all but one, and ask again"
                )
            if jobs:
                self.ledger.accepted(batch, jobs[0])
            else:
                self.ledger.ended(batch, "declined", "the provider's list of jobs does not have it")

    def _list(self, tag: str) -> tuple[BootTime, Sequence[str]]:
        """The jobs with a tag, and when they were asked for: the list is as old as the question."""

        def question() -> tuple[BootTime, Sequence[str]]:
            return self.clock(), self.backend.jobs(tag)

        return self.patience.ask(question, f"jobs with the tag {tag}")

    def _begin_settling(self, batch: Submission) -> None:
        now = self.clock()
        if self.description.listing_delay_s and now.boot is not None:
            self.ledger.unlisted(batch, now)

    def _check_settled(self, batch: Submission, asked: BootTime) -> None:
        """Refuse to believe a list without the job that was asked for too early.

        The delay counts from the moment at which the submission was certainly over: from its error, or, if its process
        was killed, from the first list that another process got. It does not count from the intent, since compiling
        and waiting for an answer may take longer than the delay. After a restart of the machine it begins anew.
        """
        delay = self.description.listing_delay_s
        age = None if batch.unlisted is None else asked.since(batch.unlisted)
        if age is None:
            self._begin_settling(batch)
            age = 0.0
        if age < delay:
            raise SubmissionStateUnknownError(
                f"batch {batch.number} was sent and is not in the provider's list of jobs, which may be {delay:g} s "
                f"behind; nothing else is sent until then: ask again in {math.ceil(delay - age)} s"
            )

    def fetch(self) -> None:
        """Write down the results that are there, and the ends of jobs that have none.

        Raises:
            ResultError: a batch reads wrong; its counts are in the ledger, and other batches were fetched.
            JobFailedError: a job failed or was cancelled; other batches were fetched.
            UnknownStatusError, SubmissionStateUnknownError, BackendTimeoutError: see `reconcile`, `Backend.status`.
        """
        self.reconcile()
        errors: list[HardwareError] = []
        for batch in self.ledger.account.waiting:
            try:
                self._fetch(batch)
            except (ResultError, JobFailedError, UnknownStatusError) as error:  # noqa: PERF203
                errors.append(error)  # the other batches come first
        if errors:
            raise errors[0]

    def _fetch(self, batch: Submission) -> None:
        job = batch.job
        assert job is not None
        status = self.patience.ask(lambda: self.backend.status(job), f"the status of job {job}")
        if not status.is_final:
            return
        if status is not JobStatus.DONE:
            self.ledger.ended(batch, status.value, f"the provider says {status.value}")
            raise JobFailedError(
                f"job {job} (batch {batch.number}) {status.value if status is JobStatus.FAILED else 'was cancelled'}; "
                "look at the provider's page for the reason, and submit again with again=True (--again)"
            )
        try:
            results = self.patience.ask(lambda: self.backend.result(job), f"the result of job {job}")
        except ResultError as error:
            self.ledger.result(batch, [], f"{type(error).__name__}: {error}")
            raise
        except JobFailedError as error:
            self.ledger.ended(batch, "failed", str(error))
            raise
        found = [{reading: _as_written(count) for reading, count in counts.items()} for counts in results]
        try:
            check_counts(found, [canary_width(batch.n_qubits), *map(key_width, batch.keys)], batch.shots)
            check_canary(found[0], batch.n_qubits)
        except ResultError as error:
            self.ledger.result(batch, found, f"{type(error).__name__}: {error}")
            raise type(error)(f"batch {batch.number}, job {job}: {error}") from None
        self.ledger.result(batch, found, None)

    def cancel(self) -> dict[str, JobStatus]:
        """Ask for the end of all that is under way; where each job is then.

        Raises:
            SubmissionStateUnknownError, BackendTimeoutError: as in `reconcile`.
        """
        self.reconcile()
        where = {}
        for batch in self.ledger.account.waiting:
            job = batch.job
            assert job is not None
            self.patience.ask(lambda job=job: self.backend.cancel(job), f"cancelling job {job}")  # type: ignore[misc]
            status = self.patience.ask(lambda job=job: self.backend.status(job), f"the status of job {job}")  # type: ignore[misc]
            where[job] = status
            if status in (JobStatus.CANCELLED, JobStatus.FAILED):
                self.ledger.ended(batch, status.value, "cancelled from here")
        return where

    def counts(self, circuits: Sequence[BoundCircuit], shots: int) -> list[Counts]:
        """The counts of each circuit, from the ledger.

        Raises:
            ResultsPendingError: some are not there yet.
        """
        shots = as_integer(shots, "shots", minimum=1)
        keys = [self.key(circuit, shots) for circuit in circuits]
        results = self.ledger.account.results
        lacking = sum(key not in results for key in keys)
        if lacking:
            raise ResultsPendingError(f"{lacking} of {len(keys)} circuits have no result yet; fetch again later")
        return [results[key] for key in keys]

    def run(self, circuits: Sequence[BoundCircuit], shots: int, *, wait_s: float) -> list[Counts]:
        """Submit what is missing, wait, fetch: the counts of each circuit.

        Raises:
            ResultsPendingError: not all came within `wait_s` seconds; the same call goes on waiting.
            CostLimitError, BackendError, ResultError, SubmissionStateUnknownError: as in `submit` and `fetch`.
        """
        self.submit(circuits, shots)

        def done() -> bool:
            self.fetch()
            return not self.ledger.account.waiting

        self.patience.wait_until(done, wait_s)
        return self.counts(circuits, shots)

    def spent(self) -> Cost:
        """What was bought as far as is known, from the ledger: gates are not in it, and count as none."""
        assert self.device is not None
        paid = [batch for batch in self.ledger.account.batches if batch.is_paid]
        prices = [batch.price for batch in paid]
        circuits = sum(len(batch.keys) + 1 for batch in paid)
        return Cost(
            circuits=circuits,
            shots=sum(batch.shots * (len(batch.keys) + 1) for batch in paid),
            one_qubit_gates=0,
            two_qubit_gates=0,
            price=None if any(price is None for price in prices) else sum(price or 0.0 for price in prices),
            currency=self.device.price.currency if self.device.price else None,
            machine_s=None,
            assumptions=(),
        )

    def _check_qubits(self, read_at: set[tuple[int, ...]]) -> None:
        """Refuse to calibrate, or to fold, at other physical qubits than those of the batches that count."""
        counting = [batch for batch in self.ledger.account.batches if batch.ended in (None, "done")]
        before = {qubits for batch in counting for qubits in batch.read_at}
        if before and (other := read_at - before - {()}):
            raise LedgerError(
                f"the compiler now reads circuits at the physical qubits {min(other)}, and earlier jobs of this run "
                f"were read at {min(before)}, so that one's calibration does not hold for the other; nothing was sent: "
                "plan the run anew in another folder"
            )

    def _check_budget(self, gates: Sequence[GateCounts], shots: int) -> None:
        assert self.device is not None
        spent, more = self.spent(), estimate(gates, shots, self.device, mitigated=self.mitigated)
        check_budget(self.budget, spent, more)


def check_budget(budget: Budget, spent: Cost, more: Cost) -> None:
    """Refuse what would go beyond a budget.

    Raises:
        CostLimitError: naming what is too much.
        ConfigError: there is a limit on money, and no price is known.
    """
    for name, limit in (("circuits", budget.circuits), ("shots", budget.shots)):
        total = getattr(spent, name) + getattr(more, name)
        if limit is not None and total > limit:
            raise CostLimitError(
                f"{total:,} {name} in all, of which {getattr(more, name):,} new: the limit is {limit:,}"
            )
    if budget.money is None or not more.circuits:
        return
    if more.price is None or spent.price is None:
        raise ConfigError("there is a limit on money, and no price is known for this backend; give --device FILE")
    total = spent.price + more.price
    if total > budget.money:
        raise CostLimitError(
            f"it would cost {total:,.2f} {more.currency} in all, of which {more.price:,.2f} new; the limit is "
            f"{budget.money:,.2f}: nothing was sent"
        )


def result_key(circuit: BoundCircuit, shots: int, backend: Mapping[str, object]) -> str:
    """What a result is known by: the width of its readings, then a hash of circuit, shots, backend and options."""
    identity = json.dumps({"circuit": circuit.key, "shots": shots, **backend}, sort_keys=True)
    return f"{len(circuit.measured)}-{hashlib.sha256(identity.encode()).hexdigest()}"


def _as_written(count: object) -> Any:
    """A count as the ledger holds it: what is no whole number is kept as text, and refused by `check_counts`."""
    try:
        return as_integer(count, "count")
    except ConfigError:
        return repr(count)


def key_width(key: str) -> int:
    """How many qubits a circuit measures, by its key."""
    return int(key.partition("-")[0])


def plan_submissions(circuits: Sequence[BoundCircuit], most: int | None) -> list[list[BoundCircuit]]:
    """Circuits in batches of at most `most`, a canary at the head of each.

    Raises:
        ConfigError: a job holds one circuit only, so that no canary could come with it.
    """
    if most is not None and most < 2:
        raise ConfigError("this backend takes one circuit a job, and a canary has to come with each")
    size = (most or MAX_TOGETHER) - 1
    return [
        [canary(part[0].circuit.n_qubits), *part]
        for part in (list(circuits[first : first + size]) for first in range(0, len(circuits), size))
    ]
