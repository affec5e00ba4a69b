"""A backend that misbehaves as told: for the tests of this library, and of what others build on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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

Call = Literal["submit", "status", "result", "cancel", "jobs"]

_RAISED: dict[str, Callable[[], Exception]] = {
    "rate_limit": lambda: RateLimitError("scripted: too many requests", retry_after_s=0.01),
    "timeout": lambda: BackendTimeoutError("scripted: no answer in time"),
    "server_error": lambda: ServerError("scripted: 503"),
    "connection_lost": lambda: ConnectionLostError("scripted: the connection broke"),
    "refused": lambda: RequestRejectedError("scripted: 401"),
}
_STATUS = {"queued": JobStatus.QUEUED, "running": JobStatus.RUNNING, "failed": JobStatus.FAILED}
_RESULT = ("partial", "missing", "wrong_shots", "reversed", "shuffled")
KINDS = (*_RAISED, *(f"{kind}_after" for kind in _RAISED), *_STATUS, "cancelled", "unknown", *_RESULT, "unlisted")


@dataclass
class Fault:
    """What goes wrong, where, and how often.

    Attributes:
        call: The method.
        kind: An error to raise (``rate_limit``, ``timeout``, ``server_error``, ``connection_lost``, ``refused``); with
            ``_after`` behind it, raised once the call has had its effect. A status (``queued``, ``running``,
            ``failed``, ``cancelled``, ``unknown``). A result that is wrong (``partial`` and ``missing`` circuits,
            ``wrong_shots``, ``reversed`` bits, ``shuffled`` circuits). ``unlisted``: the list of jobs is empty.
        times: For so many calls.
        skip: After so many calls.
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
    """Another backend with faults in front of it.

    Args:
        backend: What answers where no fault is scripted, such as a `Simulator`.
        faults: In the order in which they are looked through.
        listing_delay_s: As in `Description`.
    """

    def __init__(self, backend: Backend, faults: Sequence[Fault] = (), listing_delay_s: float = 0.0) -> None:
        self.backend, self.faults, self.listing_delay_s = backend, list(faults), listing_delay_s
        self.calls: list[Call] = []
        """Every call so far."""

    def describe(self) -> Description:
        """What the backend behind it is, under the same name."""
        return replace(self.backend.describe(), listing_delay_s=self.listing_delay_s)

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> Sequence[GateCounts]:
        """As the backend behind it."""
        return self.backend.count_gates(circuits)

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Submit, or not, or so that nobody hears of it."""
        return str(self._call("submit", lambda: self.backend.submit(circuits, shots, tag=tag)))

    def status(self, job: str) -> JobStatus:
        """The status, or a scripted one."""
        status: JobStatus = self._call("status", lambda: self.backend.status(job))
        return status

    def result(self, job: str) -> Sequence[Counts]:
        """The result, or what is scripted to come of it."""
        result: Sequence[Counts] = self._call("result", lambda: self.backend.result(job))
        return result

    def cancel(self, job: str) -> None:
        """Cancel, or not."""
        self._call("cancel", lambda: self.backend.cancel(job))

    def jobs(self, tag: str) -> Sequence[str]:
        """The jobs, or none of them."""
        found: Sequence[str] = self._call("jobs", lambda: self.backend.jobs(tag))
        return found

    def _call(self, call: Call, answer: Callable[[], Any]) -> Any:
        self.calls.append(call)
        fault = self._next(call)
        if fault is None:
            return answer()
        if fault in _RAISED:
            raise _RAISED[fault]()
        if fault.removesuffix("_after") in _RAISED:
            answer()
            raise _RAISED[fault.removesuffix("_after")]()
        if fault == "unknown":
            raise UnknownStatusError("scripted: the job is 'pondering'")
        if fault == "unlisted":
            return []
        if fault in _STATUS or fault == "cancelled":
            return JobStatus(fault)
        return _corrupt_counts(fault, answer())

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


def _corrupt_counts(fault: str, counts: Sequence[Counts]) -> Sequence[Counts]:
    """Counts with the fault in them."""
    if fault == "partial":
        raise PartialResultError(f"scripted: results of {len(counts) - 1} of {len(counts)} circuits")
    if fault == "missing":
        return counts[:-1]
    if fault == "reversed":
        return [{reading[::-1]: count for reading, count in each.items()} for each in counts]
    if fault == "shuffled":
        return [*counts[1:], counts[0]]
    spoiled = [dict(each) for each in counts]
    reading = next(iter(spoiled[-1]))
    spoiled[-1][reading] += 1
    return spoiled
