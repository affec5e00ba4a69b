"""IBM's QPUs as backends: jobs written and read by qiskit-ibm-runtime, sent by `IBMClient`.

The key is read from the environment variable ``QISKIT_IBM_TOKEN`` and the instance that pays from
``QISKIT_IBM_INSTANCE`` only: no saved account is read or written. ``IBM_API_URL`` and ``IBM_IAM_URL`` set other
addresses.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from ketfit.errors import (
    ConfigError,
    JobFailedError,
    RequestRejectedError,
    ServerError,
    TransientError,
    UnknownStatusError,
    WrongCountsError,
    optional_imports,
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
"""Name of the classical register of every circuit that is sent."""
DECOUPLINGS = ("none", "XX", "XpXm", "XY4")
MAX_EXECUTIONS = 10_000_000
"""Circuits times shots per job (IBM's page on job limits)."""
MAX_CIRCUITS = 200
"""Default number of circuits per job. IBM limits only the executions."""
MAX_SECONDS = 10_800
"""IBM's limit on the QPU time of a job."""
_RAN_TOO_LONG = 1305

_STATUS = {
    "QUEUED": JobStatus.QUEUED,
    "RUNNING": JobStatus.RUNNING,
    "COMPLETED": JobStatus.DONE,
    "FAILED": JobStatus.FAILED,
    "CANCELLED": JobStatus.CANCELLED,
    "CANCELLED - RAN TOO LONG": JobStatus.FAILED,
}


def client_from_environment() -> IBMClient:
    """Return a client of IBM's API with the key, instance and addresses from the environment.

    Raises:
        ConfigError: The environment has no key, or no instance.
    """
    token, instance = os.environ.get(KEY), os.environ.get(INSTANCE)
    if not token:
        raise ConfigError(f"there is no IBM API key: set {KEY} in the environment; it is read from nowhere else")
    if not instance:
        raise ConfigError(
            f"set {INSTANCE} in the environment to the CRN of the instance that pays (crn:v1:...); none is chosen here"
        )
    url = os.environ.get("IBM_API_URL") or _api_url(instance)
    return IBMClient(url, os.environ.get("IBM_IAM_URL") or IAM_URL, token, instance, timeout=60.0)


class IBMBackend:
    """One of IBM's machines, through the sampler primitive.

    Args:
        machine: IBM's name of the machine, such as ``ibm_torino``.
        optimization_level: Level of Qiskit's compiler, 0 to 3; from 1 on it chooses qubits by the latest calibration.
        decoupling: Dynamical decoupling by IBM: ``none``, ``XX``, ``XpXm`` or ``XY4``.
        max_seconds: QPU seconds after which IBM ends a job, 1 to 10,800; None leaves it to IBM.
        max_circuits: Circuits per job. Circuits times shots are at most 10 million, so more circuits allow fewer shots.
        client: Client of IBM's API; None takes the key, instance and addresses from the environment.

    Raises:
        ConfigError: The environment has no key or instance, or an option is out of range.
    """

    def __init__(
        self,
        machine: str,
        *,
        optimization_level: int = 2,
        decoupling: str = "none",
        max_seconds: int | None = None,
        max_circuits: int = MAX_CIRCUITS,
        client: IBMClient | None = None,
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
        self.client = client or client_from_environment()
        options: dict[str, Scalar] = {"optimization_level": optimization_level, "decoupling": decoupling}
        self._description = Description(
            name=f"ibm:{machine}",
            options=options,
            limits=Limits(circuits=max_circuits, shots=MAX_EXECUTIONS // max_circuits),
            device="ibm",
            # The sampler runs circuits in a machine's own gates as they are sent, on the qubits that they name, so the
            # folds and placements of `Compiler` are kept.
            keeps_gates=True,
            keeps_qubits=True,
        )

    def describe(self) -> Description:
        """Return the name, options and limits; qubits and gates are requested with the first compilation."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """Return the gates of each circuit in the machine's gate set, as they are sent, swaps included."""
        return [self._compiler.count_gates(bound) for bound in circuits]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one sampler job, once, with a pub for each circuit, and return its id."""
        shots = check_submission(self._description, circuits, shots, tag)
        inputs = self._sampler_inputs(circuits, shots)
        try:
            self.client.authorize()
        except TransientError as error:
            raise RequestRejectedError(f"nothing was sent, since there is no access token: {error}") from error
        return self.client.submit(self.machine, "sampler", inputs, tag, self.max_seconds)

    def status(self, job: str) -> JobStatus:
        """Return the status of a job."""
        return self._state(job)[0]

    def result(self, job: str) -> Sequence[Counts]:
        """Return the counts of each circuit, in the order of submission."""
        status, reason = self._state(job)
        if status is not JobStatus.DONE:
            raise JobFailedError(f"job {job} is {status.value}: it has no result{reason and f' ({reason})'}")
        results = self.client.results(job)
        try:
            return [_counts(pub.data) for pub in results]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UnknownStatusError(
                f"this qiskit-ibm-runtime reads the result of job {job} as {type(results).__name__}, without counts "
                f"({error!r}); it stays with IBM"
            ) from error

    def cancel(self, job: str) -> None:
        """Request the cancellation of a job."""
        try:
            self.client.cancel(job)
        except (RequestRejectedError, ServerError):  # 409: the job has ended
            if not self.status(job).is_final:
                raise

    def jobs(self, tag: str) -> list[str]:
        """Return the ids of all jobs of the instance with this tag."""
        return [str(job["id"]) for job in self.client.jobs(tag) if tag in (job.get("tags") or [])]

    def _state(self, job: str) -> tuple[JobStatus, str]:
        state = self.client.job(job).get("state")
        state = state if isinstance(state, dict) else {}
        name, reason = state.get("status"), str(state.get("reason") or "")
        status = _STATUS.get(str(name).upper())
        if status is None:
            raise UnknownStatusError(f"IBM says that job {job} is {name!r}; known are {', '.join(_STATUS)}")
        code = state.get("reason_code") or state.get("reasonCode")
        if status is JobStatus.CANCELLED and code == _RAN_TOO_LONG:
            return JobStatus.FAILED, reason
        return status, reason

    def _sampler_inputs(self, circuits: Sequence[BoundCircuit], shots: int) -> dict[str, Any]:
        """Return the sampler's inputs, written and checked by qiskit-ibm-runtime's SamplerV2; send nothing."""
        compiled = [self._compiler.bind(bound) for bound in circuits]
        from qiskit import QiskitError
        from qiskit_ibm_runtime import SamplerV2

        options: dict[str, Any] = {}
        if self.decoupling != "none":
            options = {"dynamical_decoupling": {"enable": True, "sequence_type": self.decoupling}}
        with warnings.catch_warnings():
            # The recommended successor postprocesses locally and calls another program.
            warnings.filterwarnings("ignore", message="The SamplerV2 class is deprecated", category=DeprecationWarning)
            try:
                inputs: dict[str, Any] = SamplerV2(mode=self._compiler.backend, options=options).run(
                    compiled, shots=shots
                )
            except (QiskitError, ValueError) as error:
                raise RequestRejectedError(
                    f"nothing was sent: qiskit-ibm-runtime cannot write the job: {error}"
                ) from error
        return inputs

    @cached_property
    def _compiler(self) -> Compiler:
        return Compiler(_qiskit_backend(self.machine, self.client), self.optimization_level)


def _qiskit_backend(machine: str, client: IBMClient) -> Any:
    """Return qiskit-ibm-runtime's backend with `IBMClient` as its client and a service that returns a job's inputs.

    Its own service is not used: it searches all instances of an account, makes for each a session that repeats
    submissions, and chooses the instance itself if none is named.
    """
    with optional_imports("IBM", "ibm"):
        from qiskit_ibm_runtime import IBMBackend as Library
        from qiskit_ibm_runtime.utils.backend_decoder import configuration_from_server_data
    configuration = configuration_from_server_data(raw_config=client.configuration(machine))
    if configuration is None:
        raise UnknownStatusError(f"this qiskit-ibm-runtime cannot read IBM's configuration of {machine}")
    api_client = SimpleNamespace(backend_properties=lambda name, **_: client.properties(name))
    service = SimpleNamespace(_run=lambda *, inputs, **_: inputs)
    return Library(configuration=configuration, service=service, api_client=api_client)


def _counts(data: Any) -> dict[str, int]:
    registers = list(data)
    if registers != [REGISTER]:
        raise WrongCountsError(
            f"a result has the registers {', '.join(map(str, registers)) or 'none'}; only {REGISTER} was sent"
        )
    bits = data[REGISTER]
    return to_big_endian_counts(bits.get_counts(), bits.num_bits)


def _api_url(instance: str) -> str:
    """Return the address of the region that a CRN names."""
    parts = instance.split(":")
    if len(parts) < 8 or parts[0] != "crn" or not parts[5].replace("-", "").isalnum():
        raise ConfigError(f"{INSTANCE} is no CRN, crn:v1:bluemix:public:quantum-computing:REGION:a/...:...::")
    region = "" if parts[5] == "us-east" else f"{parts[5]}."
    return f"https://{region}quantum.cloud.ibm.com/api/v1"
