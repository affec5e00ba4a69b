"""IBM's QPUs behind the seam: jobs written and read by qiskit-ibm-runtime, sent by `IBMClient`.

The key comes from ``QISKIT_IBM_TOKEN`` of the environment and the instance that pays from ``QISKIT_IBM_INSTANCE``, and
from nowhere else: no saved account is read or written. ``IBM_API_URL`` and ``IBM_IAM_URL`` give other addresses.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ketfit.errors import (
    ConfigError,
    JobFailedError,
    MissingExtraError,
    RequestRejectedError,
    ServerError,
    TransientError,
    UnknownStatusError,
    WrongCountsError,
)
from ketfit.hardware.backends.base import (
    BoundCircuit,
    Counts,
    Description,
    GateCounts,
    JobStatus,
    Limits,
    Scalar,
    check_range,
    check_submission,
)
from ketfit.hardware.backends.ibm_client import INSTANCE, KEY, IBMClient
from ketfit.hardware.backends.qiskit import Compiler, to_big_endian_counts

IAM_URL = "https://iam.cloud.ibm.com"
REGISTER = "c"
"""The classical register of every circuit that is sent; results are read by its name."""
DECOUPLINGS = ("none", "XX", "XpXm", "XY4")
MAX_EXECUTIONS = 10_000_000
"""Circuits times shots of one job (IBM's page on job limits)."""
MAX_CIRCUITS = 200
"""Of one job, if no other number is given. IBM has no limit of its own beside the one on executions."""
MAX_SECONDS = 10_800
"""The longest that IBM lets a job have its QPU."""
_OVERRUN = 1305

_STATUS = {
    "QUEUED": JobStatus.QUEUED,
    "RUNNING": JobStatus.RUNNING,
    "COMPLETED": JobStatus.DONE,
    "FAILED": JobStatus.FAILED,
    "CANCELLED": JobStatus.CANCELLED,
    "CANCELLED - RAN TOO LONG": JobStatus.FAILED,
}


def client_from_environment(timeout_s: float = 60.0) -> IBMClient:
    """The way to IBM that the environment describes.

    Raises:
        ConfigError: there is no key, or no instance.
    """
    token, instance = os.environ.get(KEY), os.environ.get(INSTANCE)
    if not token:
        raise ConfigError(f"there is no IBM API key: set {KEY} in the environment; it is read from nowhere else")
    if not instance:
        raise ConfigError(
            f"set {INSTANCE} in the environment to the CRN of the instance that pays (crn:v1:...); none is chosen here"
        )
    url = os.environ.get("IBM_API_URL") or _url(instance)
    return IBMClient(url, os.environ.get("IBM_IAM_URL") or IAM_URL, token, instance, timeout_s)


class IBMBackend:
    """One of IBM's machines, through the sampler primitive.

    Args:
        machine: As IBM names it, such as ``ibm_torino``.
        optimization_level: Of Qiskit's compiler, 0 to 3; from 1 on it chooses qubits by the latest calibration.
        decoupling: Dynamical decoupling by IBM: ``none``, ``XX``, ``XpXm`` or ``XY4``.
        max_seconds: Seconds of QPU after which IBM ends a job, 1 to 10,800; None leaves it to IBM.
        max_circuits: Of one job. A job may have 10 million circuits times shots, so more of one are fewer of the other.
        transport: The way to IBM; None is what the environment describes.

    Raises:
        ConfigError: no key or instance in the environment, or an option that is out of range.
    """

    def __init__(
        self,
        machine: str,
        *,
        optimization_level: int = 2,
        decoupling: str = "none",
        max_seconds: int | None = None,
        max_circuits: int = MAX_CIRCUITS,
        transport: IBMClient | None = None,
    ) -> None:
        if not machine.isidentifier():
            raise ConfigError(f"IBM has no machine {machine!r}; name one such as ibm_torino")
        optimization_level = check_range(optimization_level, "optimization_level", 0, 3, "Qiskit's compiler")
        if decoupling not in DECOUPLINGS:
            raise ConfigError(f"unknown decoupling {decoupling!r}; IBM has {', '.join(DECOUPLINGS)}")
        if max_seconds is not None:
            max_seconds = check_range(max_seconds, "max_seconds", 1, MAX_SECONDS, "IBM")
        max_circuits = check_range(
            max_circuits, "max_circuits", 2, MAX_EXECUTIONS, "a job of IBM's, which has a canary besides,"
        )
        self.machine, self.optimization_level = machine, optimization_level
        self.decoupling, self.max_seconds = decoupling, max_seconds
        self.transport = transport or client_from_environment()
        self._compiler: Compiler | None = None
        options: dict[str, Scalar] = {"optimization_level": optimization_level, "decoupling": decoupling}
        self._description = Description(
            name=f"ibm:{machine}",
            options=options,
            limits=Limits(circuits=max_circuits, shots=MAX_EXECUTIONS // max_circuits),
            device="ibm",
            # The sampler runs circuits in a machine's own gates as they are sent, on the qubits that they name: what
            # `Compiler` folded and placed stays folded and placed.
            keeps_gates=True,
            keeps_qubits=True,
        )

    def describe(self) -> Description:
        """What it is. Its qubits and gates are asked for when the first circuit is compiled."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """The gates of each circuit in the machine's own, as they are sent, swaps for its couplings included."""
        return [self._compiled().count_gates(bound) for bound in circuits]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one job, once: a sampler's, with a pub for each circuit.

        Raises:
            RateLimitError, RequestRejectedError: it was not accepted.
            BackendTimeoutError, ServerError, ConnectionLostError: it may have been.
        """
        shots = check_submission(self._description, circuits, shots, tag)
        inputs = self._written(circuits, shots)
        try:
            self.transport.authorize()
        except TransientError as error:
            raise RequestRejectedError(f"nothing was sent, for want of an access token: {error}") from error
        return self.transport.submit(self.machine, "sampler", inputs, tag, self.max_seconds)

    def status(self, job: str) -> JobStatus:
        """Where a job is.

        Raises:
            UnknownStatusError: IBM says something new.
        """
        return self._state(job)[0]

    def result(self, job: str) -> Sequence[Counts]:
        """The counts of each circuit, in the order of submission.

        Raises:
            JobFailedError: it is not done.
            WrongCountsError: a circuit was read into other registers than it has.
        """
        status, reason = self._state(job)
        if status is not JobStatus.DONE:
            raise JobFailedError(f"job {job} is {status.value}: it has no result{reason and f' ({reason})'}")
        read = self.transport.results(job)
        try:
            return [_counts(pub.data) for pub in read]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UnknownStatusError(
                f"this qiskit-ibm-runtime reads the result of job {job} as {type(read).__name__}, without counts "
                f"({error!r}); it stays with IBM"
            ) from error

    def cancel(self, job: str) -> None:
        """Ask for a job's end."""
        try:
            self.transport.cancel(job)
        except (RequestRejectedError, ServerError):  # 409 says that it has ended
            if not self.status(job).is_final:
                raise

    def jobs(self, tag: str) -> list[str]:
        """The ids of all jobs of the instance with this tag."""
        return [str(job["id"]) for job in self.transport.jobs(tag) if tag in (job.get("tags") or [])]

    def _state(self, job: str) -> tuple[JobStatus, str]:
        state = self.transport.job(job).get("state")
        state = state if isinstance(state, dict) else {}
        said, reason = state.get("status"), str(state.get("reason") or "")
        status = _STATUS.get(str(said).upper())
        if status is None:
            raise UnknownStatusError(f"IBM says that job {job} is {said!r}; known are {', '.join(_STATUS)}")
        code = state.get("reason_code") or state.get("reasonCode")
        if status is JobStatus.CANCELLED and code == _OVERRUN:
            return JobStatus.FAILED, reason
        return status, reason

    def _written(self, circuits: Sequence[BoundCircuit], shots: int) -> dict[str, Any]:
        """The sampler's inputs, as the client's own SamplerV2 writes and checks them; nothing is sent."""
        compiler = self._compiled()
        filled = [compiler.fill(bound) for bound in circuits]
        from qiskit import QiskitError
        from qiskit_ibm_runtime import SamplerV2

        options: dict[str, Any] = {}
        if self.decoupling != "none":
            options = {"dynamical_decoupling": {"enable": True, "sequence_type": self.decoupling}}
        with warnings.catch_warnings():
            # It recommends a successor that post-processes here and speaks to another program.
            warnings.filterwarnings("ignore", message="The SamplerV2 class is deprecated", category=DeprecationWarning)
            try:
                inputs: dict[str, Any] = SamplerV2(mode=compiler.backend, options=options).run(filled, shots=shots)
            except (QiskitError, ValueError) as error:
                raise RequestRejectedError(
                    f"nothing was sent: qiskit-ibm-runtime cannot write the job: {error}"
                ) from error
        return inputs

    def _compiled(self) -> Compiler:
        if self._compiler is None:
            self._compiler = Compiler(_qiskit_backend(self.machine, self.transport), self.optimization_level)
        return self._compiler


def _qiskit_backend(machine: str, transport: IBMClient) -> Any:
    """The client's backend, with `IBMClient` behind it, and a service that hands a job's inputs back.

    The client's service is left out: it looks through all instances of an account, makes a session that repeats
    submissions for each, and picks the instance by itself where none is named.
    """
    try:
        from qiskit_ibm_runtime import IBMBackend as Library
        from qiskit_ibm_runtime.utils.backend_decoder import configuration_from_server_data
    except ImportError as error:
        raise MissingExtraError("IBM", "'ketfit[ibm]'") from error
    configuration = configuration_from_server_data(raw_config=transport.configuration(machine))
    if configuration is None:
        raise UnknownStatusError(f"this qiskit-ibm-runtime cannot read IBM's configuration of {machine}")
    client = SimpleNamespace(backend_properties=lambda name, **_: transport.properties(name))
    service = SimpleNamespace(_run=lambda *, inputs, **_: inputs)
    return Library(configuration=configuration, service=service, api_client=client)


def _counts(data: Any) -> dict[str, int]:
    registers = list(data)
    if registers != [REGISTER]:
        raise WrongCountsError(
            f"a result has the registers {', '.join(map(str, registers)) or 'none'}; {REGISTER} was sent, and no other"
        )
    bits = data[REGISTER]
    return to_big_endian_counts(bits.get_counts(), bits.num_bits)


def _url(instance: str) -> str:
    """The address of the region that a CRN names."""
    parts = instance.split(":")
    if len(parts) < 8 or parts[0] != "crn" or not parts[5].replace("-", "").isalnum():
        raise ConfigError(f"{INSTANCE} is no CRN, crn:v1:bluemix:public:quantum-computing:REGION:a/...:...::")
    region = "" if parts[5] == "us-east" else f"{parts[5]}."
    return f"https://{region}quantum.cloud.ibm.com/api/v1"
