"""The interface of a machine that runs circuits (`Backend`), and the values that it takes and returns.

A backend sends a submission **once**: a client library that repeats a POST by itself must be told not to. Which calls
may be repeated, and when, is decided above this interface (`ketfit.hardware.runs.session`), where the ledger is kept.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Protocol, get_args

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.export import angle_values, to_qasm3
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer

Counts = Mapping[str, int]
"""Number of shots per bitstring. Character j is the bit of the j-th measured qubit, so the first one is that of qubit 0
if all are measured in order; Qiskit's keys have the opposite order. The values sum to the number of shots."""

Scalar = str | int | float | bool | None

TAG = re.compile(r"[A-Za-z0-9-]{1,64}")
"""The form of a tag, which every provider accepts in some field of a job."""


@dataclass(frozen=True)
class BoundCircuit:
    """A circuit with a number for every angle, and the qubits that are measured at its end.

    Attributes:
        circuit: The gates.
        weights: Numbers of shape (n_weights,) in radians.
        inputs: Numbers of shape (n_inputs,) in radians.
        measured: The qubits to measure; the j-th is character j of the bitstrings.
        follows: The circuit whose compiled form this one depends on. With `fold` 1 this is a calibration of its
            readout, and must be measured at the physical qubits of `follows`. With a larger `fold` it is
            `follows` with every gate G as G (G^-1 G)^k; a compiler folds the gates that it made of `follows`, since it
            would merge or route the folded ones of `circuit` otherwise. A machine that runs gates as they are written
            needs neither: it runs `circuit`.
        fold: How many gates each gate of `follows` has become, 2k + 1.

    Raises:
        InputError: A number is missing or not finite, or the circuit cannot follow the other one.
        CircuitError: A measured qubit is out of range, not an integer, or named twice, or there is none.
    """

    circuit: Circuit
    weights: tuple[float, ...]
    inputs: tuple[float, ...] = ()
    measured: tuple[int, ...] = (0,)
    follows: BoundCircuit | None = None
    fold: int = 1

    def __post_init__(self) -> None:
        angle_values(self.circuit, self.weights, self.inputs)
        object.__setattr__(self, "measured", self.circuit.check_qubits(self.measured, "measured"))
        fold, other = as_integer(self.fold, "fold", minimum=1, error=InputError), self.follows
        object.__setattr__(self, "fold", fold)
        if fold % 2 == 0 or (fold > 1 and other is None):
            raise InputError(f"fold={fold}: it must be odd, and follows must be given if it is more than 1")
        if other is not None and (
            other.follows is not None
            or (other.circuit.n_qubits, other.measured) != (self.circuit.n_qubits, self.measured)
        ):
            raise InputError(
                f"a circuit that measures {self.measured} of {self.circuit.n_qubits} qubits cannot follow one that "
                f"measures {other.measured} of {other.circuit.n_qubits}, or that follows another one itself"
            )

    @cached_property
    def qasm(self) -> str:
        """The OpenQASM 3 program; its numbers parse to the same float64 values."""
        return to_qasm3(self.circuit, self.weights, self.inputs, self.measured)

    @cached_property
    def key(self) -> str:
        """A hash of the gates and angles, independent of which angles are weights and which inputs.

        If the circuit follows another one, that one's gates are hashed too: they determine the physical qubits.
        """
        identity = self.qasm
        if self.follows is not None:
            identity += f"fold {self.fold} of\n{to_qasm3(self.follows.circuit, measured=self.measured)}"
        return hashlib.sha256(identity.encode()).hexdigest()


class JobStatus(Enum):
    """The status of a job. Every other status of a provider raises an `UnknownStatusError`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if the status can no longer change."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True)
class GateCounts:
    """Number of gates of one circuit as the machine runs it, after transpilation.

    Attributes:
        one_qubit, two_qubit: Number of gates on one qubit and on two.
        physical_qubits: Physical qubit of each character of the bitstrings; empty if only the provider knows it.
    """

    one_qubit: int
    two_qubit: int
    physical_qubits: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Limits of one job; None is no known limit.

    Attributes:
        qubits: Largest number of qubits of a circuit.
        circuits: Largest number of circuits.
        shots: Largest number of shots per circuit.
        min_shots: Smallest number of shots per circuit.
        measured: Largest number of measured qubits of a circuit.

    Raises:
        ConfigError: A limit is not a whole number of at least 1.
    """

    qubits: int | None = None
    circuits: int | None = None
    shots: int | None = None
    min_shots: int = 1
    measured: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                object.__setattr__(self, name, as_integer(value, name, minimum=1))


@dataclass(frozen=True)
class Description:
    """A backend's name, options, limits and guarantees.

    Attributes:
        name: Name of the machine, such as ``ionq:qpu.forte-1``; part of the key of every result.
        options: Everything else that affects a result, such as debiasing or a noise model; also part of the key. No
            secrets. With a `mitigation` other than "none", the price with mitigation applies.
        limits: Limits of one job.
        device: Name of its prices and gate times, see `ketfit.hardware.pricing`; None if it costs nothing.
        listing_delay_s: Seconds after a submission for which the list of jobs may not show it yet.
        keeps_gates: True if a circuit with a `fold` is run with that many times the gates of the one that it follows.
            A compiler that cancels a gate with its inverse makes the extrapolation to zero noise meaningless, so
            "zero_noise" is rejected if this is False.
        keeps_qubits: True if a calibration is measured at the physical qubits of the circuit that it follows. "readout"
            is rejected if this is False.
        is_local: True if the circuits run on this machine, so that nobody is paid; `device` then has the
            prices of the simulated machine.

    Raises:
        ConfigError: An option is no finite scalar, or `listing_delay_s` is negative or not finite.
    """

    name: str
    options: Mapping[str, Scalar] = field(default_factory=dict)
    limits: Limits = Limits()
    device: str | None = None
    listing_delay_s: float = 60.0
    keeps_gates: bool = False
    keeps_qubits: bool = False
    is_local: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", checked_options(self.options))
        if not 0 <= self.listing_delay_s < math.inf:
            raise ConfigError(f"listing_delay_s={self.listing_delay_s!r}: it must be a finite number of at least 0")

    @property
    def is_mitigated(self) -> bool:
        """True if the options ask the provider to mitigate errors, which may cost more."""
        return self.options.get("mitigation") not in (None, "none")


class Backend(Protocol):
    """A machine that runs circuits. Every call ends within a finite time of the backend's own choice.

    All methods but `describe` may raise a `BackendError`: `RateLimitError`, `BackendTimeoutError`, `ServerError` and
    `ConnectionLostError` for temporary failures, `RequestRejectedError` for permanent ones.
    """

    def describe(self) -> Description:
        """Return the backend's description without contacting anyone."""
        ...

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> Sequence[GateCounts]:
        """Return the gates of each circuit after transpilation, as `submit` would send it; send nothing."""
        ...

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one job, once, and return its id.

        After an error, the backend must not send the job later. The caller may look for its tag in vain and submit the
        circuits again.

        Args:
            circuits: At least one circuit and at most as many as the limits allow.
            shots: Shots per circuit.
            tag: Unique label of the job, see `TAG`; `jobs` finds the job by it.

        Raises:
            RateLimitError, RequestRejectedError: The provider did **not** accept the job.
            BackendTimeoutError, ServerError, ConnectionLostError: The provider may or may not have accepted it.
        """
        ...

    def status(self, job: str) -> JobStatus:
        """Return the status of a job.

        Raises:
            UnknownStatusError: The provider's status corresponds to no `JobStatus`.
            RequestRejectedError: The provider has no such job.
        """
        ...

    def result(self, job: str) -> Sequence[Counts]:
        """Return the counts of each circuit of a job that is done, in the order of submission.

        Raises:
            JobFailedError: The job is not done and will not be.
            PartialResultError: Only some of the circuits have counts.
        """
        ...

    def cancel(self, job: str) -> None:
        """Request the cancellation of a job; `status` shows the outcome. No error if the job has ended already."""
        ...

    def jobs(self, tag: str) -> Sequence[str]:
        """Return the ids of all jobs with exactly this tag, in the provider's order, whatever their status."""
        ...


def check_submission(description: Description, circuits: Sequence[BoundCircuit], shots: int, tag: str) -> int:
    """Check a job against a backend's limits; call it first in `Backend.submit`.

    Returns:
        The shots as a Python integer.

    Raises:
        ConfigError: The shots are no whole number, too many or too few, or the tag does not match `TAG`.
        InputError: There are no circuits or too many, or one is too wide or measures too many qubits.
    """
    limits = description.limits
    shots = check_range(shots, "shots", limits.min_shots, limits.shots, description.name)
    if not TAG.fullmatch(tag):
        raise ConfigError(f"the tag {tag!r} must be 1 to 64 letters, digits and hyphens")
    if not circuits:
        raise InputError("a job needs at least one circuit")
    if limits.circuits is not None and len(circuits) > limits.circuits:
        raise InputError(f"{len(circuits)} circuits in one job; {description.name} takes at most {limits.circuits}")
    widest = max(circuit.circuit.n_qubits for circuit in circuits)
    if limits.qubits is not None and widest > limits.qubits:
        raise InputError(f"a circuit has {widest} qubits; {description.name} has {limits.qubits}")
    n_measured = max(len(circuit.measured) for circuit in circuits)
    if limits.measured is not None and n_measured > limits.measured:
        raise InputError(f"a circuit measures {n_measured} qubits; {description.name} reads at most {limits.measured}")
    return shots


def check_range(value: Any, name: str, minimum: int, maximum: int | None, owner: str) -> int:
    """Return `value` as a Python integer if it is in the range that `owner` takes.

    Raises:
        ConfigError: The value is no integer, or out of range.

    >>> check_range(7, "shots", 1, 100, "the machine")
    7
    """
    allowed = f"at least {minimum:,}" if maximum is None else f"{minimum:,} to {maximum:,}"
    number = as_integer(value, name, hint=f"{owner} takes {allowed}")
    if number < minimum or (maximum is not None and number > maximum):
        raise ConfigError(f"{name}={number}: {owner} takes {allowed}")
    return number


def checked_options(options: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return options as JSON holds them; integers of any kind become Python integers.

    Raises:
        ConfigError: An option is neither a string, a finite number, a boolean nor None.
    """
    plain: dict[str, Scalar] = {}
    for name, value in options.items():
        message = f"option {name}={value!r}: it must be a string, a finite number, true or false"
        if isinstance(value, get_args(Scalar)):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(message)
            plain[name] = value
            continue
        try:
            plain[name] = as_integer(value, name)
        except ConfigError:
            raise ConfigError(message) from None
    return plain


def backend_identity(description: Description) -> dict[str, Any]:
    """Return a backend's name and options as JSON holds them, which are part of the key of every result."""
    return {"backend": description.name, "options": dict(sorted(description.options.items()))}
