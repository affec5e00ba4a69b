"""IonQ's QPUs and simulators behind the seam: jobs written and read by qiskit-ionq, sent by `IonQClient`.

The key comes from ``IONQ_API_KEY`` of the environment, or ``QISKIT_IONQ_API_TOKEN``, and from nowhere else; the address
from ``IONQ_API_URL`` if that is set.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ketfit.errors import ConfigError, JobFailedError, MissingExtraError, RequestRejectedError, UnknownStatusError
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
from ketfit.hardware.pricing import Cost, DeviceCost, Price, load_device

URL = "https://api.ionq.co/v0.4"
KEYS = ("IONQ_API_KEY", "QISKIT_IONQ_API_TOKEN")
MITIGATIONS = ("none", "debiasing", "sharpening")
TAG_FIELD = "ketfit_tag"
MAX_CIRCUITS = 500
"""Of one job. IonQ takes 5,000, but what qiskit-ionq notes about each must fit into 40,000 characters in all."""
MAX_GATES = 150_000
MAX_SHOTS = 1_000_000
DEBIASED_SHOTS = 500
"""The least for debiasing."""
DEVICES = {"aria": "ionq-aria", "forte": "ionq-forte"}

_STATUS = {
    "submitted": JobStatus.QUEUED,
    "ready": JobStatus.QUEUED,
    "started": JobStatus.RUNNING,
    "completed": JobStatus.DONE,
    "failed": JobStatus.FAILED,
    "canceled": JobStatus.CANCELLED,
}


def client_from_environment(timeout_s: float = 30.0) -> IonQClient:
    """The way to IonQ that the environment describes.

    Raises:
        ConfigError: there is no key.
    """
    token = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
    if token is None:
        raise ConfigError(f"there is no IonQ API key: set {KEYS[0]} in the environment; it is read from nowhere else")
    return IonQClient(os.environ.get("IONQ_API_URL") or URL, token, timeout_s)


class IonQBackend:
    """One of IonQ's machines.

    Args:
        machine: As IonQ names it: ``simulator``, ``qpu.forte-1``, ``qpu.aria-1``.
        noise_model: Of the simulator: ``ideal``, ``aria-1``, ``forte-1``; None for a QPU.
        mitigation: ``debiasing``, or ``sharpening``, which is debiasing read by plurality. Of QPUs only.
        gateset: ``qis`` leaves the translation to IonQ's compiler; ``native`` sends the machine's own gates.
        optimization_level: Of Qiskit's compiler, 0 or 1. With 0, ``native`` runs every gate as it is written, which the
            extrapolation to zero noise needs; with 1, gates that undo each other cancel, and rotations merge.
        max_circuits: Of one job.
        transport: The way to IonQ; None is what the environment describes.

    Raises:
        ConfigError: no key in the environment, or options that do not go together.
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
        transport: IonQClient | None = None,
    ) -> None:
        _check_options(machine, noise_model, mitigation, gateset)
        optimization_level = check_range(optimization_level, "optimization_level", 0, 1, "IonQ's compiler")
        max_circuits = check_range(
            max_circuits, "max_circuits", 2, MAX_CIRCUITS, "a job of IonQ's, which has a canary besides,"
        )
        self.optimization_level = optimization_level
        self.machine, self.mitigation, self.gateset = machine, mitigation, gateset
        self.noise_model = (noise_model or "ideal") if machine == "simulator" else None
        self.transport = transport or client_from_environment()
        self._compiler: Compiler | None = None
        options: dict[str, Scalar] = {
            "gateset": gateset,
            "mitigation": mitigation,
            "noise_model": self.noise_model,
            "optimization_level": optimization_level,
        }
        # A simulator of IonQ's costs nothing.
        family = next((family for family in DEVICES if f"qpu.{family}" in machine), None)
        self._description = Description(
            name=f"ionq:{machine}",
            options=options,
            limits=Limits(
                circuits=max_circuits, shots=MAX_SHOTS, min_shots=DEBIASED_SHOTS if mitigation != "none" else 1
            ),
            device=DEVICES[family] if family else None,
            keeps_gates=gateset == "native" and optimization_level == 0,
            # IonQ's compiler, which only native gates bypass, chooses ions for each circuit by itself and tells nobody,
            # and debiasing runs a circuit on several choices. The simulators misread all qubits alike.
            keeps_qubits=machine == "simulator" or (gateset == "native" and mitigation == "none"),
        )

    def describe(self) -> Description:
        """What it is. How many qubits it has is asked when the first circuit is compiled."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """The gates of each circuit of one job in the machine's gate set, as they are sent.

        Raises:
            ConfigError: the job would have more gates than IonQ takes.
        """
        counts = [self._compiled().count_gates(bound) for bound in circuits]
        if not self._description.keeps_qubits:
            counts = [replace(counted, read_at=()) for counted in counts]
        each = max((counted.one_qubit + counted.two_qubit for counted in counts), default=0)
        if each * len(counts) > MAX_GATES:
            raise ConfigError(
                f"{len(counts)} circuits of up to {each:,} gates in one job are more than the {MAX_GATES:,} gates "
                f"that IonQ takes: use --option max_circuits={MAX_GATES // each} or less"
            )
        return counts

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Send one job, once; several circuits go as one job of IonQ's kind for several.

        Raises:
            RateLimitError, RequestRejectedError: it was not accepted.
            BackendTimeoutError, ServerError, ConnectionLostError: it may have been.
        """
        shots = check_submission(self._description, circuits, shots, tag)
        compiler = self._compiled()
        self.count_gates(circuits)
        filled = [compiler.fill(bound) for bound in circuits]
        with _expected_warnings():
            from qiskit_ionq.exceptions import IonQError

            try:
                # Shots of the ideal simulator are drawn on this side: a seed that travels with the job makes every
                # fetch read the same.
                job = compiler.backend.run(
                    filled,
                    shots=shots,
                    name=tag,
                    extra_metadata={TAG_FIELD: tag},
                    sampler_seed=zlib.crc32(tag.encode()),
                )
            except IonQError as error:
                raise RequestRejectedError(f"qiskit-ionq cannot write the job: {error}") from error
        return str(job.job_id())

    def status(self, job: str) -> JobStatus:
        """Where a job is.

        Raises:
            UnknownStatusError: IonQ says something new.
        """
        said = self.transport.retrieve_job(job).get("status")
        if said not in _STATUS:
            raise UnknownStatusError(f"IonQ says that job {job} is {said!r}; known are {', '.join(_STATUS)}")
        return _STATUS[said]

    def result(self, job: str) -> Sequence[Counts]:
        """The counts of each circuit, in the order of submission.

        Raises:
            JobFailedError: it is not done.
            PartialResultError: some circuits have none.
            WrongCountsError: probabilities that do not add up to 1.
        """
        status = self.status(job)
        if status is not JobStatus.DONE:
            raise JobFailedError(f"job {job} is {status.value}: it has no result")
        with _expected_warnings():
            from qiskit_ionq.exceptions import IonQError

            try:
                read = self._compiled().backend.retrieve_job(job)
                result = read.result(sharpen=self.mitigation == "sharpening" if self.mitigation != "none" else None)
                return [self._counts(each) for each in result.results]
            except (IonQError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise UnknownStatusError(
                    f"qiskit-ionq cannot read the result of job {job}, which stays with IonQ: {error!r}"
                ) from error

    def cancel(self, job: str) -> None:
        """Ask for a job's end."""
        try:
            self.transport.cancel_job(job)
        except RequestRejectedError:
            if not self.status(job).is_final:
                raise

    def jobs(self, tag: str) -> list[str]:
        """The ids of all jobs for this machine with this tag."""
        found = self.transport.jobs(self.machine)
        marked = {job["id"]: job for job in found if (job.get("metadata") or {}).get(TAG_FIELD) == tag}
        return [str(identifier) for identifier in marked]

    def quote(self, gates: Sequence[GateCounts], n_qubits: int, shots: int) -> Cost:
        """What IonQ itself says that circuits with these gates cost this account; it is asked, once for each kind.

        Each circuit is taken as a job of its own, with IonQ's minimum, which is the most that a batch can cost.

        Raises:
            UnknownStatusError: the answer has no finite price.
        """
        price, seconds, currency = 0.0, 0.0, ""
        for kind, count in Counter(gates).items():
            said = self.transport.estimate(self.machine, kind, n_qubits, shots, self.mitigation != "none")
            try:
                price += count * float(said["estimated_cost"])
                seconds += count * float(said["estimated_execution_time"])
                currency = str(said["cost_unit"]).upper()
            except (KeyError, TypeError, ValueError) as error:
                raise UnknownStatusError(f"IonQ's estimate has no {error}; it reads {said}") from None
        if not math.isfinite(price + seconds):
            raise UnknownStatusError(f"IonQ's estimate is not finite: {price} {currency}, {seconds} s")
        return Cost(
            circuits=len(gates),
            shots=shots * len(gates),
            one_qubit_gates=sum(each.one_qubit for each in gates),
            two_qubit_gates=sum(each.two_qubit for each in gates),
            price=price,
            currency=currency,
            machine_s=seconds,
            assumptions=("price and time: IonQ's own estimate for this account, a job for each circuit",),
        )

    def device_cost(self) -> DeviceCost:
        """Prices by IonQ's own rule for this account, which is asked for; times and power as in the bundled file.

        The rule is the minimum, or rates times gates times shots where that is more. It is compared with an estimate of
        IonQ's before it is believed.

        Raises:
            UnknownStatusError: the answer has no rates, or they do not explain IonQ's own estimate.
        """
        mitigated, gates, shots = self.mitigation != "none", GateCounts(1000, 1000), 10_000
        said = self.transport.estimate(self.machine, GateCounts(0, 0), 1, 1, mitigated)
        try:
            rates = said["rate_information"]
            price = Price(
                currency=str(said["cost_unit"]).upper(),
                per_one_qubit_gate_shot=float(rates["cost_1q_gate"]),
                per_two_qubit_gate_shot=float(rates["cost_2q_gate"]),
                minimum=float(said["estimated_cost"]),
                source="IonQ's estimate API, for this account",
                year=int(said["estimated_at"][:4]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownStatusError(f"IonQ's estimate has no rates that can be read ({error!r}): {said}") from None
        ours, theirs = price.of(gates, shots, mitigated), self.quote([gates], 2, shots).price
        if theirs is None or abs(ours - theirs) > 0.01 * max(ours, theirs):
            raise UnknownStatusError(
                f"IonQ's rates make {ours:,.2f} of {gates} and {shots:,} shots, and its own estimate is {theirs}: "
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

    def _compiled(self) -> Compiler:
        if self._compiler is None:
            self._compiler = Compiler(_qiskit_backend(self), self.optimization_level)
        return self._compiler


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


def _qiskit_backend(described: IonQBackend) -> Any:
    """qiskit-ionq's backend, with `IonQClient` in the place of its client.

    Its provider is left out: that one asks for the number of qubits without a key and goes on with 4 if it gets no
    answer, and it prefers a key from a file over one from the environment.
    """
    try:
        from qiskit_ionq import ionq_backend
        from qiskit_ionq.constants import ErrorMitigation
    except ImportError as error:
        raise MissingExtraError("IonQ", "'ketfit[hardware]'") from error
    transport, machine = described.transport, described.machine
    n_qubits = transport.backend(machine).get("qubits")
    if not isinstance(n_qubits, int):
        raise UnknownStatusError(f"IonQ does not say how many qubits {machine} has")
    simulated = machine == "simulator"
    library: Any = ionq_backend.IonQBackend
    with _expected_warnings():
        backend = library(
            provider=SimpleNamespace(credentials={}, custom_headers=None),
            name=f"ionq_{machine}",
            description=f"IonQ {machine}",
            gateset=described.gateset,
            num_qubits=n_qubits,
            simulator=simulated,
        )
    backend._client = transport
    # A job's results are read by the noise model of the backend that reads them, not by the job's.
    backend.set_options(noise_model=described.noise_model if simulated else None)
    if described.mitigation != "none":
        backend.set_options(error_mitigation=ErrorMitigation.DEBIASING)
    return backend


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Without qiskit-ionq's advice on levels of compiling, which are set here and not by the user's defaults."""
    try:
        from qiskit_ionq.exceptions import IonQTranspileLevelWarning
    except ImportError as error:
        raise MissingExtraError("IonQ", "'ketfit[hardware]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IonQTranspileLevelWarning)
        yield
