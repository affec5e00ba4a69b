"""IonQ's QPUs and simulators as backends: jobs written and read by qiskit-ionq, sent by `IonQClient`.

The key is read from the environment variable ``IONQ_API_KEY`` or ``QISKIT_IONQ_API_TOKEN`` only, and the address from
``IONQ_API_URL`` if that is set.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from ketfit.errors import (
    ConfigError,
    JobFailedError,
    RequestRejectedError,
    ServerError,
    UnknownStatusError,
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
from ketfit.hardware.backends.ionq_client import IonQClient
from ketfit.hardware.backends.qiskit import Compiler, round_to_counts, to_big_endian_counts
from ketfit.hardware.pricing import DeviceCost, Price, load_device

URL = "https://api.ionq.co/v0.4"
KEYS = ("IONQ_API_KEY", "QISKIT_IONQ_API_TOKEN")
MITIGATIONS = ("none", "debiasing", "sharpening")
TAG_FIELD = "ketfit_tag"
MAX_CIRCUITS = 500
"""Circuits per job. IonQ takes 5,000, but qiskit-ionq's metadata of all of them must fit into 40,000 characters."""
MAX_GATES = 150_000
MAX_SHOTS = 1_000_000
MIN_DEBIASED_SHOTS = 500
"""Fewest shots for debiasing."""
DEVICES = {"aria": "ionq-aria", "forte": "ionq-forte"}

_STATUS = {
    "submitted": JobStatus.QUEUED,
    "ready": JobStatus.QUEUED,
    "started": JobStatus.RUNNING,
    "completed": JobStatus.DONE,
    "failed": JobStatus.FAILED,
    "canceled": JobStatus.CANCELLED,
}

_UNREADABLE = (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, OSError, EOFError, zlib.error)
"""What qiskit-ionq raises for a response of another form; some of its metadata is compressed by gzip."""


def client_from_environment() -> IonQClient:
    """Return a client of IonQ's API with the key and address from the environment.

    Raises:
        ConfigError: The environment has no key.
    """
    token = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
    if token is None:
        raise ConfigError(f"there is no IonQ API key: set {KEYS[0]} in the environment; it is read from nowhere else")
    return IonQClient(os.environ.get("IONQ_API_URL") or URL, token, timeout=30.0)


class IonQBackend:
    """One of IonQ's machines.

    Args:
        machine: IonQ's name of the machine: ``simulator``, ``qpu.forte-1``, ``qpu.aria-1``.
        noise_model: Noise model of the simulator: ``ideal``, ``aria-1``, ``forte-1``; None for a QPU.
        mitigation: ``debiasing``, or ``sharpening``, which is debiasing with a plurality vote. QPUs only.
        gateset: ``qis`` leaves the translation to IonQ's compiler; ``native`` sends the machine's own gates.
        optimization_level: Level of Qiskit's compiler, 0 or 1. With 0, ``native`` runs every gate as it is written,
            which the extrapolation to zero noise needs; with 1, inverse gates cancel, and rotations merge.
        max_circuits: Circuits per job.
        client: Client of IonQ's API; None takes the key and address from the environment.

    Raises:
        ConfigError: The environment has no key, or the options are invalid together.
        MissingExtraError: qiskit-ionq is not installed.
    """

    def __init__(
        self,
        machine: str,
        *,
        noise_model: str | None = None,
        mitigation: str = "none",
        gateset: str = "qis",
        optimization_level: int = 1,
        max_circuits: int = MAX_CIRCUITS,
        client: IonQClient | None = None,
    ) -> None:
        _check_options(machine, noise_model, mitigation, gateset)
        optimization_level = check_range(optimization_level, "optimization_level", 0, 1, "IonQ's compiler")
        max_circuits = check_range(
            max_circuits, "max_circuits", 2, MAX_CIRCUITS, "a job of IonQ's, which has a canary besides,"
        )
        self.optimization_level = optimization_level
        self.machine, self.mitigation, self.gateset = machine, mitigation, gateset
        self.noise_model = (noise_model or "ideal") if machine == "simulator" else None
        self.client = client or client_from_environment()
        options: dict[str, Scalar] = {
            "gateset": gateset,
            "mitigation": mitigation,
            "noise_model": self.noise_model,
            "optimization_level": optimization_level,
        }
        # IonQ's simulators cost nothing.
        family = next((family for family in DEVICES if f"qpu.{family}" in machine), None)
        self._description = Description(
            name=f"ionq:{machine}",
            options=options,
            limits=Limits(
                circuits=max_circuits, shots=MAX_SHOTS, min_shots=MIN_DEBIASED_SHOTS if mitigation != "none" else 1
            ),
            device=DEVICES[family] if family else None,
            keeps_gates=gateset == "native" and optimization_level == 0,
            # IonQ's compiler, which only native gates bypass, chooses the ions of each circuit and does not report
            # them, and debiasing runs a circuit on several choices. The simulators misread all qubits alike.
            keeps_qubits=machine == "simulator" or (gateset == "native" and mitigation == "none"),
        )

    def describe(self) -> Description:
        """Return the name, options and limits; the number of qubits is requested with the first compilation."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """Return the gates of each circuit of one job in the machine's gate set, as they are sent.

        Raises:
            ConfigError: The job would have more gates than IonQ takes.
        """
        counts = [self._compiler.count_gates(bound) for bound in circuits]
        if not self._description.keeps_qubits:
            counts = [replace(each, physical_qubits=()) for each in counts]
        largest = max((each.one_qubit + each.two_qubit for each in counts), default=0)
        if largest * len(counts) > MAX_GATES:
            raise ConfigError(
                f"{len(counts)} circuits of up to {largest:,} gates in one job are more than the {MAX_GATES:,} gates "
                f"that IonQ takes: use --option max_circuits={MAX_GATES // largest} or less"
            )
        return counts

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one job, once, and return its id; several circuits go as one multi-circuit job."""
        shots = check_submission(self._description, circuits, shots, tag)
        self.count_gates(circuits)
        compiled = [self._compiler.bind(bound) for bound in circuits]
        with _ignored_transpile_warnings():
            from qiskit_ionq.exceptions import IonQError

            try:
                # qiskit-ionq samples the shots of the ideal simulator locally: a seed that is stored with the job makes
                # every fetch return the same counts.
                job = self._compiler.backend.run(
                    compiled,
                    shots=shots,
                    name=tag,
                    extra_metadata={TAG_FIELD: tag},
                    sampler_seed=zlib.crc32(tag.encode()),
                )
            except IonQError as error:
                raise RequestRejectedError(f"qiskit-ionq cannot write the job: {error}") from error
        return str(job.job_id())

    def status(self, job: str) -> JobStatus:
        """Return the status of a job."""
        status = self.client.retrieve_job(job).get("status")
        if not isinstance(status, str) or status not in _STATUS:
            raise UnknownStatusError(f"IonQ says that job {job} is {status!r}; known are {', '.join(_STATUS)}")
        return _STATUS[status]

    def result(self, job: str) -> Sequence[Counts]:
        """Return the counts of each circuit, in the order of submission."""
        status = self.status(job)
        if status is not JobStatus.DONE:
            raise JobFailedError(f"job {job} is {status.value}: it has no result")
        with _ignored_transpile_warnings():
            from qiskit_ionq.exceptions import IonQError

            try:
                ionq_job = self._compiler.backend.retrieve_job(job)
                result = ionq_job.result(sharpen=self.mitigation == "sharpening" if self.mitigation != "none" else None)
                return [self._counts(each) for each in result.results]
            except (IonQError, *_UNREADABLE) as error:
                raise UnknownStatusError(
                    f"qiskit-ionq cannot read the result of job {job}, which stays with IonQ: {error!r}"
                ) from error

    def cancel(self, job: str) -> None:
        """Request the cancellation of a job."""
        try:
            self.client.cancel_job(job)
        except (RequestRejectedError, ServerError):  # such as 409: the job has ended
            if not self.status(job).is_final:
                raise

    def jobs(self, tag: str) -> list[str]:
        """Return the ids of all jobs for this machine with this tag."""
        listed = self.client.jobs(self.machine)
        return list(
            dict.fromkeys(str(job["id"]) for job in listed if (job.get("metadata") or {}).get(TAG_FIELD) == tag)
        )

    def estimated_price(self, gates: GateCounts, n_qubits: int, shots: int) -> float:
        """Return IonQ's own estimate of the price of a job of one circuit, for this account.

        Raises:
            UnknownStatusError: The response has no finite price.
        """
        answer = self.client.estimate(self.machine, gates, n_qubits, shots, self.mitigation != "none")
        try:
            price = float(answer["estimated_cost"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownStatusError(f"IonQ's estimate has no {error}: {answer}") from None
        if not math.isfinite(price):
            raise UnknownStatusError(f"IonQ's estimate is not finite: {price}")
        return price

    def device_cost(self) -> DeviceCost:
        """Return IonQ's rates for this account, with times and power of the bundled device.

        A job costs the minimum, or rates times gates times shots if that is more. This rule is checked against one of
        IonQ's own estimates.

        Raises:
            UnknownStatusError: The response has no rates, or they do not explain IonQ's own estimate.
        """
        mitigated, gates, shots = self.mitigation != "none", GateCounts(1000, 1000), 10_000
        answer = self.client.estimate(self.machine, GateCounts(0, 0), 1, 1, mitigated)
        try:
            rates = answer["rate_information"]
            price = Price(
                currency=str(answer["cost_unit"]).upper(),
                per_one_qubit_gate_shot=float(rates["cost_1q_gate"]),
                per_two_qubit_gate_shot=float(rates["cost_2q_gate"]),
                minimum=float(answer["estimated_cost"]),
                source="IonQ's estimate API, for this account",
                year=int(answer["estimated_at"][:4]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownStatusError(f"IonQ's estimate has no readable rates ({error!r}): {answer}") from None
        ours, theirs = price.circuit_price(gates, shots, mitigated), self.estimated_price(gates, 2, shots)
        if abs(ours - theirs) > 0.01 * max(ours, theirs):
            raise UnknownStatusError(
                f"IonQ's rates give {ours:,.2f} for {gates} and {shots:,} shots, and its own estimate is {theirs}: "
                "the rule has changed; give prices with --device FILE"
            )
        return DeviceCost(
            name=f"{self.machine} by IonQ", price=price, profile=load_device(self._description.device).profile
        )

    def _counts(self, result: Any) -> dict[str, int]:
        width = int(result.header["memory_slots"])
        if self.noise_model == "ideal":
            return to_big_endian_counts(result.data.counts, width)
        return to_big_endian_counts(round_to_counts(result.data.probabilities, result.shots), width)

    @cached_property
    def _compiler(self) -> Compiler:
        return Compiler(_qiskit_backend(self), self.optimization_level)


def _check_options(machine: str, noise_model: str | None, mitigation: str, gateset: str) -> None:
    simulated = machine == "simulator"
    if not simulated and not machine.startswith("qpu."):
        raise ConfigError(f"IonQ has no machine {machine!r}; name simulator, or a QPU such as qpu.forte-1")
    if mitigation not in MITIGATIONS:
        raise ConfigError(f"mitigation={mitigation!r}: IonQ has {', '.join(MITIGATIONS)}")
    if simulated and mitigation != "none":
        raise ConfigError("IonQ mitigates errors of QPUs only; give its simulator no mitigation")
    if not simulated and noise_model is not None:
        raise ConfigError(f"{machine} has its own noise; noise_model is for the simulator")
    if noise_model is not None and not (isinstance(noise_model, str) and noise_model):
        raise ConfigError(f"noise_model={noise_model!r}: name one of IonQ's, such as ideal, aria-1 or forte-1")
    if gateset not in ("qis", "native"):
        raise ConfigError(f"unknown gate set {gateset!r}; IonQ has qis and native (gateset)")


def _qiskit_backend(backend: IonQBackend) -> Any:
    """Return qiskit-ionq's backend with `IonQClient` as its client.

    qiskit-ionq's provider is not used: it requests the number of qubits without a key, falls back to 4 without an
    answer, and prefers a key from a file over one from the environment.
    """
    with optional_imports("IonQ", "hardware"):
        from qiskit_ionq import ionq_backend
        from qiskit_ionq.constants import ErrorMitigation
    client, machine = backend.client, backend.machine
    n_qubits = client.backend(machine).get("qubits")
    if not isinstance(n_qubits, int):
        raise UnknownStatusError(f"IonQ does not say how many qubits {machine} has")
    simulated = machine == "simulator"
    library: Any = ionq_backend.IonQBackend
    with _ignored_transpile_warnings():
        qiskit_backend = library(
            provider=SimpleNamespace(credentials={}, custom_headers=None),
            name=f"ionq_{machine}",
            description=f"IonQ {machine}",
            gateset=backend.gateset,
            num_qubits=n_qubits,
            simulator=simulated,
        )
    qiskit_backend._client = client
    # qiskit-ionq interprets results by the noise model of the backend that fetches them, not by that of the job.
    qiskit_backend.set_options(noise_model=backend.noise_model if simulated else None)
    if backend.mitigation != "none":
        qiskit_backend.set_options(error_mitigation=ErrorMitigation.DEBIASING)
    return qiskit_backend


@contextmanager
def _ignored_transpile_warnings() -> Iterator[None]:
    """Ignore qiskit-ionq's warning about optimization levels, which KetFit sets itself."""
    with optional_imports("IonQ", "hardware"):
        from qiskit_ionq.exceptions import IonQTranspileLevelWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IonQTranspileLevelWarning)
        yield
