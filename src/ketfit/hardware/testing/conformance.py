"""Checks of the contract of `Backend`, to run against any backend (`ketfit hardware check`)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import KetFitError, RequestRejectedError, ResultsPendingError
from ketfit.hardware.backends.base import Backend, BoundCircuit, Counts, GateCounts, check_range
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.pricing import Cost, estimate, load_device
from ketfit.hardware.runs import canary

WIDTH = 4


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check."""

    check: str
    passed: bool
    message: str


def check_backend(
    backend: Backend, *, shots: int = 1000, wait_s: float = 600.0, retry: RetryPolicy | None = None
) -> list[CheckResult]:
    """Run the conformance suite: a few small circuits in one job or more, and queries about them.

    Args:
        backend: Backend to check.
        shots: Shots per circuit.
        wait_s: Seconds to wait for each job.
        retry: Retry policy for calls that buy nothing.

    Returns:
        The outcome of each check, in order. If the job fails, the suite ends with that failed check.

    Raises:
        ConfigError: The backend does not take that number of shots.
    """
    description = backend.describe()
    shots = check_range(shots, "shots", description.limits.min_shots, description.limits.shots, description.name)
    suite = _Suite(backend, shots, wait_s, retry or RetryPolicy())
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("description", suite.check_description),
        ("gate counts", suite.check_gates),
        ("job", suite.run_job),
        ("bits, qubits and totals", suite.check_bits),
        ("subsets of qubits, in any order", suite.check_subsets),
        ("angles and CNOTs", suite.check_distributions),
        ("jobs by tag", suite.check_tags),
        ("repeated results", suite.check_repeat),
        ("cancellation of a finished job", suite.check_cancel),
        ("unknown job is refused", suite.check_unknown_job),
    )
    results = []
    for name, check in checks:
        try:
            results.append(CheckResult(name, True, check()))
            continue
        except (KetFitError, AssertionError) as error:
            message = f"{type(error).__name__}: {error}"
        except Exception as error:
            message = f"raised {type(error).__name__} ({error}), which is no error of ketfit.errors"
        results.append(CheckResult(name, False, message))
        if name == "job":
            break
    return results


def estimate_check(backend: Backend, *, shots: int = 1000, retry: RetryPolicy | None = None) -> Cost:
    """Return what `check_backend` costs at the bundled prices of the backend's device. Nothing is sent.

    Args:
        backend: Backend to check.
        shots: Shots per circuit.
        retry: Retry policy for requests about the machine; None uses the default one.

    Raises:
        ConfigError: The backend does not take that number of shots.
        BackendError: The provider does not describe the machine.
    """
    description, circuits = backend.describe(), _circuits()
    shots = check_range(shots, "shots", description.limits.min_shots, description.limits.shots, description.name)
    gates = (retry or RetryPolicy()).call(lambda: backend.count_gates(circuits), "the gates of a job")
    return estimate(gates, shots, load_device(description.device), mitigated=description.is_mitigated)


def _circuits() -> list[BoundCircuit]:
    """Return the circuits of the job.

    The canary measures all qubits in order, the next two qubit 1 of 0 1 0 0 alone and three qubits out of order.
    """
    single = Circuit(WIDTH, (ry(1, Angle("weight", 0)),), 1, 0)
    tilted = Circuit(WIDTH, (ry(0, Angle("weight", 0)), cx(0, 2), ry(2, Angle("weight", 1))), 2, 0)
    ring = reuploading_circuit(WIDTH, 1, 1, 1, 1)
    angles = tuple(0.3 + 0.17 * index for index in range(ring.n_weights))
    return [
        canary.canary_circuit(WIDTH),
        BoundCircuit(single, (math.pi,), (), (1,)),
        BoundCircuit(single, (math.pi,), (), (3, 1, 0)),
        BoundCircuit(tilted, (2 * math.pi / 3, math.pi / 3), (), (0, 2)),
        BoundCircuit(ring, angles, (0.4, -1.1, 2.0, 0.9), (0, 1)),
    ]


class _Suite:
    def __init__(self, backend: Backend, shots: int, wait_s: float, retry: RetryPolicy) -> None:
        self.backend, self.shots, self.wait_s, self.retry = backend, shots, wait_s, retry
        self.tag = f"ketfit-check-{secrets.token_hex(6)}"
        self.job, self.results = "", list[Counts]()
        self.circuits = _circuits()

    def check_description(self) -> str:
        """Check the name, the options and the limits."""
        description = self.backend.describe()
        assert description.name, "its name is empty"
        secret = [
            name for name in description.options if any(word in name.lower() for word in ("key", "token", "secret"))
        ]
        assert not secret, f"the option {secret} looks like a secret, and options are written down"
        max_circuits = description.limits.circuits
        assert max_circuits is None or max_circuits >= 2, (
            f"a job takes {max_circuits} circuit, and a canary has to come with each"
        )
        assert math.isfinite(description.listing_delay_s), "listing_delay_s is not finite"
        return f"{description.name}, options {dict(description.options)}"

    def check_gates(self) -> str:
        """Check that there are as many gate counts as circuits, none negative."""
        counts = self.retry.call(lambda: self.backend.count_gates(self.circuits), "the gates of a job")
        assert len(counts) == len(self.circuits), f"{len(counts)} counts for {len(self.circuits)} circuits"
        assert all(isinstance(each, GateCounts) and min(each.one_qubit, each.two_qubit) >= 0 for each in counts)
        assert counts[-1].two_qubit > 0, "a ring of CNOTs has no two-qubit gates"
        return f"{sum(c.one_qubit for c in counts)} one-qubit and {sum(c.two_qubit for c in counts)} two-qubit gates"

    def run_job(self) -> str:
        """Submit, wait and fetch."""
        max_circuits = self.backend.describe().limits.circuits or len(self.circuits)
        for first in range(0, len(self.circuits), max_circuits):
            part = self.circuits[first : first + max_circuits]
            tag = self.tag if not first else f"{self.tag}-{first}"
            job = self.backend.submit(part, self.shots, tag=tag)
            self.job = self.job or job
            self.results += self._wait(job)
        return f"job {self.job} gave {len(self.results)} results"

    def _wait(self, job: str) -> Sequence[Counts]:
        assert job and isinstance(job, str), f"submit gave {job!r} and not the id of a job"
        call = self.retry.call
        if not self.retry.wait_until(
            lambda: call(lambda: self.backend.status(job), f"the status of {job}").is_final, self.wait_s
        ):
            raise ResultsPendingError(f"job {job} has not ended within {self.wait_s:g} s")
        return call(lambda: self.backend.result(job), f"the result of {job}")

    def check_bits(self) -> str:
        """Check totals, widths and the canary."""
        canary.check_counts(self.results, [len(circuit.measured) for circuit in self.circuits], self.shots)
        canary.check_canary(self.results[0], WIDTH)
        return f"the canary reads {canary.canary_bitstring(WIDTH)}"

    def check_subsets(self) -> str:
        """Check that the j-th character is the j-th measured qubit."""
        one, three = canary.majority_bitstring(self.results[1], 1), canary.majority_bitstring(self.results[2], 3)
        assert one == "1", "qubit 1 was flipped and measured alone, and reads 0: another qubit was measured"
        assert three == "010", f"qubit 1 was flipped, and qubits 3, 1, 0 read {three}, not 010: their order is lost"
        return "qubit 1 alone, and qubits 3, 1, 0"

    def check_distributions(self) -> str:
        """Compare distributions with KetFit's engine; allow the shots' error, and a quarter for the device's errors."""
        from ketfit.hardware.backends.local import exact_distributions

        worst = 0.0
        for counts, exact in zip(self.results[3:], exact_distributions(self.circuits[3:]), strict=True):
            shares = [counts.get(f"{outcome:02b}", 0) / self.shots for outcome in range(4)]
            worst = max(worst, sum(abs(p - q) for p, q in zip(shares, exact, strict=True)) / 2)
        allowed = 0.25 + 2 / math.sqrt(self.shots)
        assert worst <= allowed, f"a distribution is {worst:.2f} off in total variation; {allowed:.2f} is allowed"
        return f"within {worst:.3f} of the exact distributions, in total variation"

    def check_tags(self) -> str:
        """Check that the job is found by its tag, and no job by another tag."""
        found = list(self.retry.call(lambda: self.backend.jobs(self.tag), "jobs by tag"))
        assert found == [self.job], f"jobs with the tag {self.tag}: {found}; there is one, {self.job}"
        other = list(self.retry.call(lambda: self.backend.jobs(f"{self.tag}-no"), "jobs by tag"))
        assert not other, f"jobs with a tag that was never used: {other}"
        return self.tag

    def check_repeat(self) -> str:
        """Check that a second fetch returns the same counts."""
        again = self.retry.call(lambda: self.backend.result(self.job), "the result again")
        same = [dict(counts) for counts in again] == [dict(counts) for counts in self.results[: len(again)]]
        assert same, "the same job gave other counts the second time"
        return "equal counts"

    def check_cancel(self) -> str:
        """Check that cancelling an ended job raises no error and leaves it ended."""
        self.retry.call(lambda: self.backend.cancel(self.job), "cancelling an ended job")
        assert self.retry.call(lambda: self.backend.status(self.job), "the status of an ended job").is_final
        return "no error"

    def check_unknown_job(self) -> str:
        """Check that an unknown job raises a `RequestRejectedError`."""
        try:
            status = self.retry.call(lambda: self.backend.status("no-such-job-0000"), "the status of an unknown job")
        except RequestRejectedError as error:
            return type(error).__name__
        raise AssertionError(f"the status of a job that does not exist is {status}")
