"""The seam: what KetFit asks of a machine that runs circuits, and what goes over it.

A backend hands circuits on and answers; it never decides. In particular it sends a submission **once**: a client
library that repeats a POST by itself has to be told not to. What may be repeated, and when, is decided above the seam
(`ketfit.hardware.session`), where the ledger stands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.export import angle_values, to_qasm3, to_qiskit
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Counts = Mapping[str, int]
"""How often each reading came. Character j is the bit of the j-th measured qubit, so the first one is that of qubit 0
where all are measured in order; Qiskit's keys read the other way round. The values sum to the number of shots."""

Scalar = str | int | float | bool | None

TAG = re.compile(r"[A-Za-z0-9-]{1,64}")
"""What a tag looks like, so that every provider takes it in some field of a job."""


@dataclass(frozen=True)
class BoundCircuit:
    """A circuit with a number for every angle, and the qubits that are measured at its end.

    Attributes:
        circuit: The gates.
        weights: Numbers of shape (n_weights,) in radians.
        inputs: Numbers of shape (n_inputs,) in radians.
        measured: The qubits to measure; the j-th is character j of the readings.

    Raises:
        InputError: a number is missing or not finite.
        CircuitError: a measured qubit is out of range, not an integer, or named twice, or there is none.
    """

    circuit: Circuit
    weights: tuple[float, ...]
    inputs: tuple[float, ...] = ()
    measured: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        angle_values(self.circuit, self.weights, self.inputs)
        object.__setattr__(self, "measured", self.circuit.check_qubits(self.measured, "measured"))

    @cached_property
    def qasm(self) -> str:
        """The OpenQASM 3 program. Reading its numbers gives the same float64."""
        return to_qasm3(self.circuit, self.weights, self.inputs, self.measured)

    @cached_property
    def key(self) -> str:
        """A hash of what is run: the same gates by the same angles, whether they were weights or inputs."""
        return hashlib.sha256(self.qasm.encode()).hexdigest()

    def to_qiskit(self) -> QuantumCircuit:
        """The Qiskit circuit; measured qubit j goes to classical bit j, which is the j-th character **from the end**.

        Raises:
            MissingExtraError: Qiskit is not installed.
        """
        return to_qiskit(self.circuit, self.weights, self.inputs, self.measured)


class JobStatus(Enum):
    """Where a job is. What a provider says beyond these is an `UnknownStatusError`, never a guess."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True)
class GateCounts:
    """Gates of one circuit as the machine runs it, after transpilation: what it takes time and money for."""

    one_qubit: int
    two_qubit: int


@dataclass(frozen=True)
class Limits:
    """What one job may hold; None is no limit that is known."""

    qubits: int | None = None
    circuits: int | None = None
    shots: int | None = None


@dataclass(frozen=True)
class Description:
    """What a backend says of itself, without a question to anybody.

    Attributes:
        name: Which machine it is, such as ``ionq:qpu.forte-1``. Part of the key of every result.
        options: All else that affects a result, such as a debiasing or a noise model: part of the key, too. No secrets.
        limits: What one job may hold.
        device: The file of prices and gate times that fits it, see `ketfit.hardware.cost`; None if it costs nothing.
        settles_after_s: Seconds after a submission for which the list of jobs may not show it yet.
        keeps_gates: Whether every gate is run as it is written. A compiler that cancels a gate with its opposite makes
            folding, and so the extrapolation to zero noise, meaningless.
    """

    name: str
    options: Mapping[str, Scalar] = field(default_factory=dict)
    limits: Limits = Limits()
    device: str | None = None
    settles_after_s: float = 60.0
    keeps_gates: bool = False


class Backend(Protocol):
    """A machine that runs circuits. Every call ends within a finite time of the backend's own choice.

    All methods but `describe` may raise a `BackendError`: `RateLimitError`, `BackendTimeoutError`, `ServerError` and
    `ConnectionLostError` for what may pass, `RefusedError` for what will not.
    """

    def describe(self) -> Description:
        """What it is; asks nobody."""
        ...

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> Sequence[GateCounts]:
        """The gates of each circuit after transpilation, as `submit` would send it; sends nothing."""
        ...

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one job, once, and give its id.

        Args:
            circuits: At least one, as many as the limits allow.
            shots: Of each circuit.
            tag: See `TAG`. Unlike any other job's; `jobs` finds the job by it.

        Raises:
            RateLimitError, RefusedError: the provider did **not** accept the job.
            BackendTimeoutError, ServerError, ConnectionLostError: it may or may not have.
        """
        ...

    def status(self, job: str) -> JobStatus:
        """Where a job is.

        Raises:
            UnknownStatusError: the provider says something that has no place in `JobStatus`.
        """
        ...

    def result(self, job: str) -> Sequence[Counts]:
        """The counts of each circuit of a job that is done, in the order of submission.

        Raises:
            JobFailedError: it is not done, and will not be.
            PartialResultError: there are counts for some of the circuits only.
        """
        ...

    def cancel(self, job: str) -> None:
        """Ask for a job's end; `status` tells whether it came. No error if the job has ended already."""
        ...

    def jobs(self, tag: str) -> Sequence[str]:
        """The ids of all jobs with exactly this tag, as the provider lists them, whatever their status."""
        ...


def check_submission(description: Description, circuits: Sequence[BoundCircuit], shots: int, tag: str) -> int:
    """Refuse a job that a backend's limits do not allow; call it first in `Backend.submit`.

    Returns:
        The shots as a Python integer.

    Raises:
        ConfigError: too many shots, or a tag that no provider would take.
        InputError: no circuits, too many, or one that is too wide.
    """
    limits = description.limits
    shots = as_integer(shots, "shots", minimum=1)
    if limits.shots is not None and shots > limits.shots:
        raise ConfigError(f"shots={shots:,}: {description.name} takes at most {limits.shots:,}")
    if not TAG.fullmatch(tag):
        raise ConfigError(f"the tag {tag!r} must be 1 to 64 letters, digits and hyphens")
    if not circuits:
        raise InputError("a job needs at least one circuit")
    if limits.circuits is not None and len(circuits) > limits.circuits:
        raise InputError(f"{len(circuits)} circuits in one job; {description.name} takes at most {limits.circuits}")
    widest = max(circuit.circuit.n_qubits for circuit in circuits)
    if limits.qubits is not None and widest > limits.qubits:
        raise InputError(f"a circuit has {widest} qubits; {description.name} has {limits.qubits}")
    return shots


def options_key(description: Description) -> dict[str, Any]:
    """A backend's name and options as JSON has them: what a result belongs to, beside its circuit and shots."""
    return {"backend": description.name, "options": dict(sorted(description.options.items()))}
