"""A backend that injects scripted faults, for tests of KetFit and of code built on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from ketfit.errors import (
    BackendTimeoutError,
    ConfigError,
    ConnectionLostError,
    PartialResultError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
    UnknownStatusError,
)
from ketfit.hardware.backends.base import Backend, BoundCircuit, Counts, Description, GateCounts, JobStatus
from ketfit.integers import as_integer

T = TypeVar("T")
Call = Literal["count_gates", "submit", "status", "result", "cancel", "jobs"]

_RAISED: dict[str, Callable[[], Exception]] = {
    "rate_limit": lambda: RateLimitError("scripted: too many requests", retry_after_s=0.01),
    "timeout": lambda: BackendTimeoutError("scripted: no answer in time"),
    "server_error": lambda: ServerError("scripted: 503"),
    "connection_lost": lambda: ConnectionLostError("scripted: the connection broke"),
    "refused": lambda: RequestRejectedError("scripted: 401"),
}
_STATUS = ("queued", "running", "failed", "cancelled")
_RESULT = ("partial", "missing", "wrong_shots", "reversed", "shuffled")
KINDS = (*_RAISED, *(f"{kind}_after" for kind in _RAISED), *_STATUS, "unknown", *_RESULT, "unlisted")


@dataclass
class Fault:
    """A fault of one method, with its number of occurrences.

    Attributes:
        call: Name of the method.
        kind: An error to raise (``rate_limit``, ``timeout``, ``server_error``, ``connection_lost``, ``refused``); with
            the suffix ``_after``, it is raised after the call had its effect. A status (``queued``, ``running``,
            ``failed``, ``cancelled``, ``unknown``). A wrong result (``partial`` and ``missing`` circuits,
            ``wrong_shots``, ``reversed`` bits, ``shuffled`` circuits). ``unlisted``: the list of jobs is empty.
        times: Number of calls that fail.
        skip: Number of calls before the first one that fails.
    """

    call: Call
    kind: str
    times: int = 1
    skip: int = 0

    def __post_init__(self) -> None:
        self.times = as_integer(self.times, "times", minimum=0)
        self.skip = as_integer(self.skip, "skip", minimum=0)
        if self.kind not in KINDS:
            raise ConfigError(f"unknown fault {self.kind!r}; known are {', '.join(KINDS)}")


class FaultInjectingBackend:
    """Another backend with injected faults.

    Args:
        backend: Backend for the calls without a fault, such as a `Simulator`.
        faults: Scripted faults; the first one that matches a call applies.
        listing_delay_s: As in `Description`.
    """

    def __init__(self, backend: Backend, faults: Sequence[Fault] = (), listing_delay_s: float = 0.0) -> None:
        self.backend, self.faults, self.listing_delay_s = backend, list(faults), listing_delay_s
        self.calls: list[Call] = []
        """The names of all calls so far."""

    def describe(self) -> Description:
        """Return the description of the backend behind it, with this listing delay."""
        return replace(self.backend.describe(), listing_delay_s=self.listing_delay_s)

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> Sequence[GateCounts]:
        """Return the gate counts of the backend behind it, or raise a scripted error."""
        return self._call("count_gates", lambda: self.backend.count_gates(circuits))

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Submit, or raise a scripted error before or after submitting."""
        return self._call("submit", lambda: self.backend.submit(circuits, shots, tag=tag))

    def status(self, job: str) -> JobStatus:
        """Return the status, or a scripted one."""
        return self._call("status", lambda: self.backend.status(job))

    def result(self, job: str) -> Sequence[Counts]:
        """Return the result, or a scripted wrong one."""
        return self._call("result", lambda: self.backend.result(job))

    def cancel(self, job: str) -> None:
        """Cancel, or raise a scripted error."""
        self._call("cancel", lambda: self.backend.cancel(job))

    def jobs(self, tag: str) -> Sequence[str]:
        """Return the jobs, or an empty list if that is scripted."""
        return self._call("jobs", lambda: self.backend.jobs(tag))

    def _call(self, call: Call, real: Callable[[], T]) -> T:
        self.calls.append(call)
        fault = self._next(call)
        if fault is None:
            return real()
        if fault in _RAISED:
            raise _RAISED[fault]()
        if fault.removesuffix("_after") in _RAISED:
            real()
            raise _RAISED[fault.removesuffix("_after")]()
        if fault == "unknown":
            raise UnknownStatusError("scripted: the job is 'pondering'")
        result: Any = [] if fault == "unlisted" else JobStatus(fault) if fault in _STATUS else None
        changed: T = _corrupt_counts(fault, real()) if result is None else result
        return changed

    def _next(self, call: Call) -> str | None:
        for fault in self.faults:
            if fault.call != call or fault.times <= 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            return fault.kind
        return None


def _corrupt_counts(fault: str, counts: Any) -> Any:
    """Return counts with the fault in them."""
    if fault == "partial":
        raise PartialResultError(f"scripted: results of {len(counts) - 1} of {len(counts)} circuits")
    if fault == "missing":
        return counts[:-1]
    if fault == "reversed":
        return [{bits[::-1]: count for bits, count in each.items()} for each in counts]
    if fault == "shuffled":
        return [*counts[1:], counts[0]]
    wrong = [dict(each) for each in counts]
    wrong[-1][next(iter(wrong[-1]))] += 1
    return wrong
