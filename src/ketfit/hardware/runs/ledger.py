"""The write-ahead ledger of a run: what is about to be sent, what the provider called it, what came back.

``ledger.jsonl`` is only ever appended to, a line at a time, and a line is on the disk before the next step is taken.
For each batch: an *intent* before a byte is sent; *accepted* with the provider's job id the moment it is known, or
*declined* once it is certain that nothing was accepted; then *result* with the counts, or *ended* without any. A result
that is not to be trusted is written down as well, with the reason in `rejected`. *unlisted* says from when on the
provider's list of jobs, which did not show an intent, has to be waited for.

The line that a kill cuts off has no line break; it does not count, and the next writer takes it off. That is safe: what
a line tells was either not yet done (an intent), or can be asked again (a job by its tag, a result by its job).
"""

from __future__ import annotations

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

Ending = str | None


@dataclass(frozen=True)
class Submission:
    """All that the ledger knows of one submission.

    Attributes:
        number: From 0, in the order of the intents.
        tag: What the provider's list of jobs finds it by.
        keys: Of its circuits with their shots, backend and options; the canary has none.
        shots: Of each circuit.
        n_qubits: Width of the canary.
        time: Seconds since 1970 at the intent, for who reads the ledger; no decision depends on it.
        price: What it was expected to cost when it was sent; None if that is not known.
        job: The provider's id; None as long as it is not known.
        ended: "done", "declined", "failed", "cancelled" or "rejected"; None as long as it is under way.
        reason: Of an end without a result that can be used.
        read_at: The different tuples of physical qubits that its circuits are read at, as far as they are known.
        unlisted: When its submission was certainly over, though the provider's list of jobs does not show it.
    """

    number: int
    tag: str
    keys: tuple[str, ...]
    shots: int
    n_qubits: int
    time: float
    price: float | None
    job: str | None = None
    ended: Ending = None
    reason: str | None = None
    read_at: tuple[tuple[int, ...], ...] = ()
    unlisted: BootTime | None = None

    @property
    def is_unresolved(self) -> bool:
        """Whether nobody knows if it was accepted."""
        return self.job is None and self.ended is None

    @property
    def is_open(self) -> bool:
        """Whether a result is still to come, or may be."""
        return self.ended is None

    @property
    def is_paid(self) -> bool:
        """Whether it costs money as far as is known: it was accepted, or may have been."""
        return self.ended != "declined"


@dataclass(frozen=True)
class LedgerState:
    """What a ledger says: its batches, and the counts of every circuit that has a result to be trusted."""

    batches: tuple[Submission, ...]
    results: Mapping[str, Counts]

    @property
    def unresolved(self) -> tuple[Submission, ...]:
        """The intents of which nobody knows whether they were accepted."""
        return tuple(batch for batch in self.batches if batch.is_unresolved)

    @property
    def waiting(self) -> tuple[Submission, ...]:
        """The accepted batches whose results are still to come."""
        return tuple(batch for batch in self.batches if batch.is_open and batch.job is not None)

    def missing(self, keys: Sequence[str], again: bool = False) -> list[str]:
        """The keys without a result that no batch stands for, each once, in order.

        Args:
            keys: Of circuits.
            again: Whether a batch that failed, was cancelled or rejected no longer stands for its circuits.
        """
        over = ("declined", "failed", "cancelled", "rejected") if again else ("declined",)
        taken = {key for batch in self.batches if batch.ended not in over for key in batch.keys}
        return [key for key in dict.fromkeys(keys) if key not in self.results and key not in taken]


def read_ledger_state(folder: Path) -> LedgerState:
    """What the ledger in a run's folder says; it may be asked while another process writes.

    Raises:
        LedgerError: a whole line is not one of a ledger, or does not follow from those before it.
    """
    path = folder / LEDGER
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror or error}") from error
    batches: list[Submission] = []
    results: dict[str, Counts] = {}
    for number, line in enumerate(complete_lines(content), start=1):
        try:
            _apply(parse_json(line.decode("utf-8")), batches, results)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:  # noqa: PERF203
            raise LedgerError(
                f"{path}, line {number} is damaged ({error!r}). The ledger says what was bought, so nothing goes on "
                "without that line: restore the file from a copy, or ask the provider for the jobs with the tags above"
            ) from error
    return LedgerState(tuple(batches), results)


def _apply(line: dict[str, Any], batches: list[Submission], results: dict[str, Counts]) -> None:
    event, number = line["event"], line["number"]
    if event == "intent":
        if number != len(batches):
            raise ValueError(f"intent {number} is not the next after {len(batches) - 1}")
        facts = {name: line[name] for name in ("number", "tag", "shots", "n_qubits", "time", "price")}
        read_at = tuple(map(tuple, line.get("read_at", ())))
        batches.append(Submission(keys=tuple(line["keys"]), read_at=read_at, **facts))
        return
    batch = batches[number]
    if batch.ended is not None:
        raise ValueError(f"batch {number} had ended")
    if event == "accepted":
        batches[number] = replace(batch, job=str(line["job"]))
    elif event == "result":
        rejected = line["rejected"]
        batches[number] = replace(batch, ended="rejected" if rejected else "done", reason=rejected)
        if not rejected:
            _, *counts = line["counts"]  # the first one is the canary
            results |= dict(zip(batch.keys, counts, strict=True))
    elif event == "unlisted":
        batches[number] = replace(batch, unlisted=BootTime(line["boot"], line["seconds"]))
    elif event in ("declined", "failed", "cancelled"):
        batches[number] = replace(batch, ended=event, reason=line["reason"])
    else:
        raise ValueError(f"unknown event {event!r}")


class Ledger:
    """The ledger of a run's folder, open for writing, by one process at a time. Use it as a context manager.

    Raises:
        LedgerError: another process has it, or a line is damaged.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        taken = LedgerError(f"another process works on {folder}; wait for it")
        self._lines = AppendLog(folder / LEDGER, LOCK, taken)
        account = self._lines.open(lambda: read_ledger_state(folder))
        self._batches, self._results = list(account.batches), dict(account.results)

    @property
    def account(self) -> LedgerState:
        """What it says now."""
        return LedgerState(tuple(self._batches), MappingProxyType(self._results))

    def intent(
        self,
        *,
        tag: str,
        keys: Sequence[str],
        shots: int,
        n_qubits: int,
        time: float,
        price: float | None,
        read_at: Sequence[tuple[int, ...]] = (),
    ) -> Submission:
        """Write down what is about to be sent; only then send it."""
        number = len(self.account.batches)
        facts = {"tag": tag, "keys": list(keys), "shots": shots, "n_qubits": n_qubits, "time": time, "price": price}
        self._append({"event": "intent", "number": number, **facts, "read_at": list(map(list, read_at))})
        return self.account.batches[number]

    def unlisted(self, batch: Submission, now: BootTime) -> None:
        """Write down that a submission is over whose job the provider's list does not show."""
        self._append({"event": "unlisted", "number": batch.number, "boot": now.boot, "seconds": now.seconds})

    def accepted(self, batch: Submission, job: str) -> None:
        """Write down the provider's id."""
        self._append({"event": "accepted", "number": batch.number, "job": job})

    def result(self, batch: Submission, counts: Sequence[Counts], rejected: str | None) -> None:
        """Write down what came back, the canary's counts first, and why it is not to be used, if so."""
        self._append({"event": "result", "number": batch.number, "counts": list(counts), "rejected": rejected})

    def ended(self, batch: Submission, how: str, reason: str) -> None:
        """Write down an end without a result: "declined", "failed" or "cancelled"."""
        self._append({"event": how, "number": batch.number, "reason": reason})

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(dump_json(line, "the ledger's line", separators=(",", ":")).encode())
        _apply(line, self._batches, self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.__exit__(*error)
