"""The seam: what KetFit asks of a machine that runs circuits, and what goes over it.

A backend hands circuits on and answers; it never decides. In particular it sends a submission **once**: a client
library that repeats a POST by itself has to be told not to. What may be repeated, and when, is decided above the seam
(`ketfit.hardware.runs.session`), where the ledger stands.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, get_args

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
        follows: The circuit whose compiled form this one depends on. With `fold` 1 this is a calibration of its
            readout, and has to be read at the physical qubits at which `follows` is read. With a larger `fold` it is
            `follows` with every gate G as G (G^-1 G)^k; a compiler folds the gates that it made of `follows`, since it
            would merge or route the folded ones of `circuit` otherwise. A machine that runs gates as they are written
            needs neither: it runs `circuit`.
        fold: How many gates each gate of `follows` has become, 2k + 1.

    Raises:
        InputError: a number is missing or not finite, or the circuit cannot follow the other one.
        CircuitError: a measured qubit is out of range, not an integer, or named twice, or there is none.
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
        """The OpenQASM 3 program. Reading its numbers gives the same float64."""
        return to_qasm3(self.circuit, self.weights, self.inputs, self.measured)

    @cached_property
    def key(self) -> str:
        """A hash of what is run: the same gates by the same angles, whether they were weights or inputs.

        Where it follows another circuit, that one's gates are part of it: they decide on the physical qubits.
        """
        identity = self.qasm
        if self.follows is not None:
            identity += f"fold {self.fold} of\n{to_qasm3(self.follows.circuit, measured=self.measured)}"
        return hashlib.sha256(identity.encode()).hexdigest()

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
    """Gates of one circuit as the machine runs it, after transpilation: what it takes time and money for.

    Attributes:
        one_qubit, two_qubit: How many.
        read_at: The physical qubit that each character of the readings comes from; empty if only the provider knows.
    """

    one_qubit: int
    two_qubit: int
    read_at: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Limits of one job; None is no limit that is known.

    Attributes:
        qubits: Of each circuit.
        circuits: How many.
        shots: Per circuit.
        min_shots: The least, per circuit.
        measured: Qubits that a circuit may measure.

    Raises:
        ConfigError: a limit is not a whole number of at least 1.
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
    """What a backend says of itself, without a question to anybody.

    Attributes:
        name: Which machine it is, such as ``ionq:qpu.forte-1``. Part of the key of every result.
        options: All else that affects a result, such as a debiasing or a noise model: part of the key, too. No secrets.
        limits: What one job may hold.
        device: The file of prices and gate times that fits it, see `ketfit.hardware.pricing`; None if it costs nothing.
        listing_delay_s: Seconds after a submission for which the list of jobs may not show it yet.
        keeps_gates: Whether a circuit with a `fold` is run with that many times the gates of the one that it follows.
            A compiler that cancels a gate with its opposite makes the extrapolation to zero noise meaningless, and
            "zero_noise" is refused where this is False.
        keeps_qubits: Whether a calibration is read at the physical qubits of the circuit that it follows. "readout" is
            refused where this is False.

    Raises:
        ConfigError: an option is no finite scalar, or `listing_delay_s` is negative or not finite.
    """

    name: str
    options: Mapping[str, Scalar] = field(default_factory=dict)
    limits: Limits = Limits()
    device: str | None = None
    listing_delay_s: float = 60.0
    keeps_gates: bool = False
    keeps_qubits: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", plain_options(self.options))
        if not 0 <= self.listing_delay_s < math.inf:
            raise ConfigError(f"listing_delay_s={self.listing_delay_s!r}: it must be a finite number of at least 0")


class Backend(Protocol):
    """A machine that runs circuits. Every call ends within a finite time of the backend's own choice.

    All methods but `describe` may raise a `BackendError`: `RateLimitError`, `BackendTimeoutError`, `ServerError` and
    `ConnectionLostError` for what may pass, `RequestRejectedError` for what will not.
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
            RateLimitError, RequestRejectedError: the provider did **not** accept the job.
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
        ConfigError: shots that are no whole number, or too many or too few; or a tag that no provider would take.
        InputError: no circuits, too many, or one that is too wide or measures too many qubits.
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
    most = max(len(circuit.measured) for circuit in circuits)
    if limits.measured is not None and most > limits.measured:
        raise InputError(f"a circuit measures {most} qubits; {description.name} reads at most {limits.measured}")
    return shots


def check_range(value: Any, name: str, least: int, most: int | None, owner: str) -> int:
    """Return `value` as a Python integer if it is one in the range that `owner` takes.

    Raises:
        ConfigError: it is no integer, or out of range.
    """
    allowed = f"at least {least:,}" if most is None else f"{least:,} to {most:,}"
    number = as_integer(value, name, hint=f"{owner} takes {allowed}")
    if number < least or (most is not None and number > most):
        raise ConfigError(f"{name}={number}: {owner} takes {allowed}")
    return number


def plain_options(options: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return options as JSON holds them, integers of any kind as Python's own.

    Raises:
        ConfigError: an option is neither a string, a finite number, a boolean nor None.
    """
    plain: dict[str, Scalar] = {}
    for name, value in options.items():
        refusal = f"option {name}={value!r}: it must be a string, a finite number, true or false"
        if isinstance(value, get_args(Scalar)):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(refusal)
            plain[name] = value
            continue
        try:
            plain[name] = as_integer(value, name)
        except ConfigError:
            raise ConfigError(refusal) from None
    return plain


def backend_identity(description: Description) -> dict[str, Any]:
    """A backend's name and options as JSON has them: what a result belongs to, beside its circuit and shots."""
    return {"backend": description.name, "options": dict(sorted(description.options.items()))}
