"""The write-ahead ledger of a run: every submission, the provider's job id and the result.

``ledger.jsonl`` is append-only: one JSON object per line, synced to disk before the next step is taken. The events of a
submission are *intent* (before a byte is sent), then *accepted* (with the provider's job id) or *declined* (it is
certain that nothing was accepted), then *result* (with the counts) or *failed* or *cancelled*. A result that fails the
checks is stored too, with the reason in `rejected`. *unlisted* stores the time from which the delay of the provider's
job list counts, for an intent that the list did not show. If the provider has several jobs with the tag of one intent,
*accepted* has the one that is used in `job` and the others in `duplicates`; each of them costs the price of the intent.

A line that a kill cut off has no line break. It is ignored, and the next writer removes it. This is safe: the step was
either not yet taken (an intent), or the provider can be asked for it again (a job by its tag, a result by its job).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from typing_extensions import Self

from ketfit.errors import LedgerError
from ketfit.hardware.backends.base import Counts
from ketfit.hardware.backends.boot_clock import BootTime
from ketfit.storage.append_log import AppendLog, complete_lines
from ketfit.storage.strict_json import dump_json, parse_json

LEDGER, LOCK = "ledger.jsonl", ".ledger.lock"
_INTENT = ("number", "tag", "keys", "shots", "n_qubits", "time", "price")


@dataclass(frozen=True)
class Submission:
    """The state of one submission.

    Attributes:
        number: Position among the intents, from 0.
        tag: Label that identifies the job in the provider's job list.
        keys: `result_key` of each circuit; the canary has none.
        shots: Shots per circuit.
        n_qubits: Width of the circuits and the canary.
        time: Seconds since 1970 at the intent, for the reader of the file; no decision depends on it.
        price: Expected price when it was sent; None if unknown.
        job: The provider's job id; None while it is unknown.
        ended: "done", "declined", "failed", "cancelled" or "rejected"; None while it is open.
        reason: Why it ended without a usable result.
        physical_qubits: The distinct tuples of physical qubits at which its circuits are measured, where known.
        unlisted: Start of the delay of the provider's job list, for a submission that the list does not show.
        duplicates: Ids of further jobs that the provider has with this tag. They are paid for and not used.
    """

    number: int
    tag: str
    keys: tuple[str, ...]
    shots: int
    n_qubits: int
    time: float
    price: float | None
    job: str | None = None
    ended: str | None = None
    reason: str | None = None
    physical_qubits: tuple[tuple[int, ...], ...] = ()
    unlisted: BootTime | None = None
    duplicates: tuple[str, ...] = ()

    @property
    def n_jobs(self) -> int:
        """Number of jobs that the provider has for it, as far as is known."""
        return 1 + len(self.duplicates)

    @property
    def n_circuits(self) -> int:
        """Number of circuits of all its jobs, canaries included."""
        return self.n_jobs * (len(self.keys) + 1)

    @property
    def total_price(self) -> float | None:
        """Price of all its jobs; None if it is unknown."""
        return None if self.price is None else self.n_jobs * self.price

    @property
    def is_unresolved(self) -> bool:
        """True if it is unknown whether the provider accepted it."""
        return self.job is None and self.ended is None

    @property
    def is_paid(self) -> bool:
        """True if it costs money as far as is known: it was accepted, or may have been."""
        return self.ended != "declined"


def describe_duplicates(submission: Submission, currency: str | None) -> str:
    """Return a sentence about the duplicates of a submission and what they cost."""
    price = "an unknown price" if submission.price is None else f"{submission.price:,.2f} {currency}"
    return (
        f"submission {submission.number}: the provider has {submission.n_jobs} jobs with the tag {submission.tag}; "
        f"{submission.job} is used, and {', '.join(submission.duplicates)} paid for and not used, at {price} each"
    )


@dataclass(frozen=True)
class LedgerState:
    """All submissions of a ledger, and the counts of every circuit whose result passed the checks."""

    submissions: tuple[Submission, ...]
    results: Mapping[str, Counts]

    @property
    def unresolved(self) -> tuple[Submission, ...]:
        """The submissions of which it is unknown whether they were accepted."""
        return tuple(submission for submission in self.submissions if submission.is_unresolved)

    @property
    def paid(self) -> tuple[Submission, ...]:
        """The submissions that cost money as far as is known."""
        return tuple(submission for submission in self.submissions if submission.is_paid)

    @property
    def price(self) -> float | None:
        """Sum of the prices of all jobs of `paid`, or None if one is unknown."""
        prices = [submission.total_price for submission in self.paid]
        return None if None in prices else math.fsum(price or 0.0 for price in prices)

    @property
    def waiting(self) -> tuple[Submission, ...]:
        """The accepted submissions without a result so far."""
        return tuple(each for each in self.submissions if each.ended is None and each.job is not None)

    def missing(self, keys: Sequence[str], again: bool = False) -> list[str]:
        """Return the keys that have neither a result nor a submission, each once, in order.

        Args:
            keys: Result keys of circuits.
            again: Include the circuits of failed, cancelled and rejected submissions.
        """
        over = ("declined", "failed", "cancelled", "rejected") if again else ("declined",)
        taken = {key for submission in self.submissions if submission.ended not in over for key in submission.keys}
        return [key for key in dict.fromkeys(keys) if key not in self.results and key not in taken]


def read_ledger_state(folder: Path) -> LedgerState:
    """Read the ledger of a run's folder; another process may be writing it.

    Raises:
        LedgerError: A complete line is damaged or contradicts the lines before it.
    """
    path = folder / LEDGER
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror or error}") from error
    submissions: list[Submission] = []
    results: dict[str, Counts] = {}
    for number, line in enumerate(complete_lines(content), start=1):
        try:
            _apply(parse_json(line.decode("utf-8")), submissions, results)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:  # noqa: PERF203
            raise LedgerError(
                f"{path}, line {number} is damaged ({error!r}). The ledger records what was bought, so the run stops "
                "here: restore the file from a copy, or ask the provider for the jobs with the tags above"
            ) from error
    return LedgerState(tuple(submissions), results)


def _apply(line: dict[str, Any], submissions: list[Submission], results: dict[str, Counts]) -> None:
    event, number = line["event"], line["number"]
    if event == "intent":
        if number != len(submissions):
            raise ValueError(f"intent {number} is not the next after {len(submissions) - 1}")
        fields = {name: line[name] for name in _INTENT} | {"keys": tuple(line["keys"])}
        submissions.append(Submission(**fields, physical_qubits=tuple(map(tuple, line.get("read_at", ())))))
        return
    submission = submissions[number]
    if submission.ended is not None:
        raise ValueError(f"submission {number} had ended")
    if event == "accepted":
        duplicates = tuple(map(str, line.get("duplicates", ())))
        submissions[number] = replace(submission, job=str(line["job"]), duplicates=duplicates)
    elif event == "result":
        rejected = line["rejected"]
        submissions[number] = replace(submission, ended="rejected" if rejected else "done", reason=rejected)
        if not rejected:
            _, *counts = line["counts"]  # the first one is the canary
            results |= dict(zip(submission.keys, counts, strict=True))
    elif event == "unlisted":
        submissions[number] = replace(submission, unlisted=BootTime(line["boot"], line["seconds"]))
    elif event in ("declined", "failed", "cancelled"):
        submissions[number] = replace(submission, ended=event, reason=line["reason"])
    else:
        raise ValueError(f"unknown event {event!r}")


class Ledger:
    """The ledger of a run's folder, open for writing by one process at a time. Use it as a context manager.

    Raises:
        LedgerError: Another process has it open, or a line is damaged.
        StorageError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        locked = LedgerError(f"another process works on {folder}; wait for it")
        self._log = AppendLog(folder / LEDGER, LOCK, locked)
        state = self._log.open(lambda: read_ledger_state(folder))
        self._submissions, self._results = list(state.submissions), dict(state.results)

    @property
    def state(self) -> LedgerState:
        """The current state."""
        return LedgerState(tuple(self._submissions), MappingProxyType(self._results))

    def record_intent(self, submission: Submission) -> None:
        """Write a submission that is about to be sent; send it only after this returns."""
        line = {name: getattr(submission, name) for name in _INTENT}
        self._append({"event": "intent", **line, "read_at": submission.physical_qubits})

    def record_unlisted(self, submission: Submission, now: BootTime) -> None:
        """Write that the call that submitted is over and the provider's list does not show the job."""
        self._append({"event": "unlisted", "number": submission.number, "boot": now.boot, "seconds": now.seconds})

    def record_accepted(self, submission: Submission, job: str, duplicates: Sequence[str] = ()) -> None:
        """Write the provider's job id, and the ids of further jobs with the same tag."""
        line = {"event": "accepted", "number": submission.number, "job": job}
        self._append(line | ({"duplicates": list(duplicates)} if duplicates else {}))

    def record_result(self, submission: Submission, counts: Sequence[Counts], rejected: str | None) -> None:
        """Write the counts, the canary's first; `rejected` is the reason why they must not be used, or None."""
        self._append({"event": "result", "number": submission.number, "counts": list(counts), "rejected": rejected})

    def record_end(self, submission: Submission, event: str, reason: str) -> None:
        """Write an end without a result; the event is "declined", "failed" or "cancelled"."""
        self._append({"event": event, "number": submission.number, "reason": reason})

    def _append(self, line: dict[str, Any]) -> None:
        self._log.append(dump_json(line, "the ledger's line", separators=(",", ":")).encode())
        _apply(line, self._submissions, self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._log.__exit__(*error)
