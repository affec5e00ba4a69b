"""What every backend must do, as checks that anybody can run against their own (`ketfit hardware check`)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import HardwareError, KetFitError, ResultsPendingError
from ketfit.hardware.backends.base import Backend, BoundCircuit, Counts, GateCounts, check_range
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.canary import canary, canary_reading, canary_width, check_canary, check_counts, majority

WIDTH = 4


@dataclass(frozen=True)
class CheckResult:
    """What came of one check."""

    check: str
    passed: bool
    message: str


def check_backend(
    backend: Backend, *, shots: int = 1000, wait_s: float = 600.0, patience: RetryPolicy | None = None
) -> list[CheckResult]:
    """Run the conformance suite: two jobs of a few small circuits, and the questions around them.

    Args:
        backend: What to check.
        shots: Of each circuit.
        wait_s: Seconds to wait for each job.
        patience: How questions are asked again.

    Returns:
        A finding for each check, in order. A job that cannot be had ends the suite with a finding that failed.

    Raises:
        ConfigError: `shots` is not a number of shots that the backend takes.
    """
    description = backend.describe()
    shots = check_range(shots, "shots", description.limits.min_shots, description.limits.shots, description.name)
    suite = _Suite(backend, shots, wait_s, patience or RetryPolicy())
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("describes itself", suite.describes),
        ("counts gates", suite.counts_gates),
        ("runs a job", suite.runs),
        ("bits, qubits and totals", suite.reads),
        ("measures some qubits, in any order", suite.reads_subsets),
        ("angles and CNOTs", suite.computes),
        ("finds jobs by their tag", suite.finds),
        ("answers the same twice", suite.repeats),
        ("takes a cancellation of an ended job", suite.cancels),
        ("refuses unknown jobs", suite.refuses),
    )
    findings = []
    for name, check in checks:
        try:
            findings.append(CheckResult(name, True, check()))
        except (KetFitError, AssertionError) as error:  # noqa: PERF203
            findings.append(CheckResult(name, False, f"{type(error).__name__}: {error}"))
            if name == "runs a job":
                break
        except Exception as error:
            told = f"raised {type(error).__name__} ({error}), which is no error of ketfit.errors"
            findings.append(CheckResult(name, False, told))
            if name == "runs a job":
                break
    return findings


class _Suite:
    def __init__(self, backend: Backend, shots: int, wait_s: float, patience: RetryPolicy) -> None:
        self.backend, self.shots, self.wait_s, self.patience = backend, shots, wait_s, patience
        self.tag = f"ketfit-check-{secrets.token_hex(6)}"
        self.job, self.results = "", list[Counts]()
        # The canary measures all in order; then qubit 1 of 0 1 0 0 by itself, and three qubits out of order.
        single = Circuit(WIDTH, (ry(1, Angle("weight", 0)),), 1, 0)
        tilted = Circuit(WIDTH, (ry(0, Angle("weight", 0)), cx(0, 2), ry(2, Angle("weight", 1))), 2, 0)
        ring = reuploading_circuit(WIDTH, 1, 1, 1, 1)
        angles = tuple(0.3 + 0.17 * index for index in range(ring.n_weights))
        self.circuits = [
            canary(WIDTH),
            BoundCircuit(single, (math.pi,), (), (1,)),
            BoundCircuit(single, (math.pi,), (), (3, 1, 0)),
            BoundCircuit(tilted, (2 * math.pi / 3, math.pi / 3), (), (0, 2)),
            BoundCircuit(ring, angles, (0.4, -1.1, 2.0, 0.9), (0, 1)),
        ]

    def describes(self) -> str:
        """A name, options that JSON can hold, limits that leave room."""
        description = self.backend.describe()
        assert description.name, "its name is empty"
        secret = [
            name for name in description.options if any(word in name.lower() for word in ("key", "token", "secret"))
        ]
        assert not secret, f"the option {secret} looks like a secret, and options are written down"
        most = description.limits.circuits
        assert most is None or most >= 2, f"a job takes {most} circuit, and a canary has to come with each"
        assert math.isfinite(description.listing_delay_s), "listing_delay_s is not finite"
        return f"{description.name}, options {dict(description.options)}"

    def counts_gates(self) -> str:
        """As many counts as circuits, none negative."""
        counts = self.backend.count_gates(self.circuits)
        assert len(counts) == len(self.circuits), f"{len(counts)} counts for {len(self.circuits)} circuits"
        assert all(isinstance(each, GateCounts) and min(each.one_qubit, each.two_qubit) >= 0 for each in counts)
        assert counts[-1].two_qubit > 0, "a ring of CNOTs has no two-qubit gates"
        return f"{sum(c.one_qubit for c in counts)} one-qubit and {sum(c.two_qubit for c in counts)} two-qubit gates"

    def runs(self) -> str:
        """Submit, wait, fetch."""
        most = self.backend.describe().limits.circuits or len(self.circuits)
        for first in range(0, len(self.circuits), most):
            part = self.circuits[first : first + most]
            tag = self.tag if not first else f"{self.tag}-{first}"
            job = self.backend.submit(part, self.shots, tag=tag)
            self.job = self.job or job
            self.results += self._wait(job)
        return f"job {self.job} gave {len(self.results)} results"

    def _wait(self, job: str) -> Sequence[Counts]:
        assert job and isinstance(job, str), f"submit gave {job!r} and not the id of a job"
        ask = self.patience.ask
        if not self.patience.wait_until(
            lambda: ask(lambda: self.backend.status(job), f"the status of {job}").is_final, self.wait_s
        ):
            raise ResultsPendingError(f"job {job} has not ended within {self.wait_s:g} s")
        return ask(lambda: self.backend.result(job), f"the result of {job}")

    def reads(self) -> str:
        """Totals, widths, the canary."""
        check_counts(self.results, [canary_width(WIDTH), *(len(c.measured) for c in self.circuits[1:])], self.shots)
        check_canary(self.results[0], WIDTH)
        return f"the canary reads {canary_reading(WIDTH)}"

    def reads_subsets(self) -> str:
        """The j-th character is the j-th measured qubit, whichever that is."""
        one, three = majority(self.results[1], 1), majority(self.results[2], 3)
        assert one == "1", "qubit 1 was turned and measured alone, and reads 0: the measured qubit is another one"
        assert three == "010", f"qubit 1 was turned, and qubits 3, 1, 0 read {three}, not 010: their order is lost"
        return "qubit 1 alone, and qubits 3, 1, 0"

    def computes(self) -> str:
        """Distributions are near our own engine's: within shots, and a quarter for the device's errors."""
        from ketfit.hardware.backends.local import exact_distributions

        worst = 0.0
        for place, exact in zip((3, 4), exact_distributions(self.circuits[3:]), strict=True):
            counts = self.results[place]
            read = [counts.get(f"{reading:02b}", 0) / self.shots for reading in range(4)]
            worst = max(worst, sum(abs(p - q) for p, q in zip(read, exact, strict=True)) / 2)
        allowed = 0.25 + 2 / math.sqrt(self.shots)
        assert worst <= allowed, f"a distribution is {worst:.2f} off in total variation; {allowed:.2f} is allowed"
        return f"within {worst:.3f} of the exact distributions, in total variation"

    def finds(self) -> str:
        """The job by its tag, and no job by another tag."""
        found = list(self.patience.ask(lambda: self.backend.jobs(self.tag), "jobs by tag"))
        assert found == [self.job], f"jobs with the tag {self.tag}: {found}; there is one, {self.job}"
        other = list(self.patience.ask(lambda: self.backend.jobs(f"{self.tag}-no"), "jobs by tag"))
        assert not other, f"jobs with a tag that was never used: {other}"
        return self.tag

    def repeats(self) -> str:
        """Results do not change between two questions."""
        again = self.patience.ask(lambda: self.backend.result(self.job), "the result again")
        same = [dict(counts) for counts in again] == [dict(counts) for counts in self.results[: len(again)]]
        assert same, "the same job gave other counts the second time"
        return "equal counts"

    def cancels(self) -> str:
        """No error, and the result stays."""
        self.backend.cancel(self.job)
        assert self.backend.status(self.job).is_final
        return "no error"

    def refuses(self) -> str:
        """An unknown job is an error of the tree, not an empty answer."""
        try:
            said = self.backend.status("no-such-job-0000")
        except HardwareError as error:
            return type(error).__name__
        raise AssertionError(f"the status of a job that does not exist is {said}")
