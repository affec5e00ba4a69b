"""Any Qiskit `BackendV2` behind the seam: circuits out, counts back in this library's bit order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.export import to_qiskit
from ketfit.errors import ConfigError, InputError, MissingExtraError, RefusedError, WrongCountsError
from ketfit.hardware.backend import (
    BoundCircuit,
    Description,
    GateCounts,
    Limits,
    Scalar,
    check_submission,
)
from ketfit.hardware.jobs import KeptJobs
from ketfit.seeds import numpy_stream

REMOTE = ("qiskit_ionq", "qiskit_ibm_runtime", "qiskit_braket_provider", "azure.quantum")
"""Packages whose backends send jobs away."""


class Compiler:
    """Circuits in a backend's own gates. Each shape is compiled once, with its angles free, and then filled in.

    So what is compiled does not depend on the angles, and the gates that a plan counts are those of every job that
    follows. It forgoes what merging rotations of known angles could save.

    Args:
        backend: A Qiskit `BackendV2`.
        optimization_level: Qiskit's, 0 to 3.
    """

    def __init__(self, backend: Any, optimization_level: int) -> None:
        self.backend = backend
        self.optimization_level = optimization_level
        self._templates: dict[tuple[Circuit, tuple[int, ...]], Any] = {}
        self._counts: dict[tuple[Circuit, tuple[int, ...]], GateCounts] = {}

    def template(self, circuit: Circuit, measured: tuple[int, ...]) -> Any:
        """The circuit in the backend's gates with free angles; the j-th measured qubit goes to bit j.

        Raises:
            InputError: the backend has too few qubits, or no gates for it.
            MissingExtraError: Qiskit is not installed.
        """
        key = (circuit, measured)
        if key not in self._templates:
            try:
                from qiskit import QiskitError, transpile
            except ImportError as error:
                raise MissingExtraError("Running on a Qiskit backend", "'ketfit[hardware]'") from error
            limit = self.backend.num_qubits
            if limit is not None and circuit.n_qubits > limit:
                raise InputError(f"a circuit has {circuit.n_qubits} qubits; {self.backend.name} has {limit}")
            level = self.optimization_level
            free = to_qiskit(circuit, measured=measured)
            try:
                found = transpile(free, self.backend, optimization_level=level, seed_transpiler=0)
            except QiskitError as error:
                raise InputError(
                    f"Qiskit cannot write the circuit in the gates of {self.backend.name}: {error}"
                ) from error
            self._templates[key] = found
        return self._templates[key]

    def fill(self, bound: BoundCircuit) -> Any:
        """The compiled circuit with its angles."""
        template = self.template(bound.circuit, bound.measured)
        angles = {"w": bound.weights, "x": bound.inputs}
        return template.assign_parameters(
            {parameter: float(angles[parameter.vector.name][parameter.index]) for parameter in template.parameters}
        )

    def count_gates(self, bound: BoundCircuit) -> GateCounts:
        """Gates on one qubit and on two after compiling; measurements and resets are no gates.

        Raises:
            InputError: the backend would run a gate on more than two qubits.
        """
        key = (bound.circuit, bound.measured)
        if key not in self._counts:
            self._counts[key] = self._count(bound)
        return self._counts[key]

    def _count(self, bound: BoundCircuit) -> GateCounts:
        counts = [0, 0]
        for instruction in self.template(bound.circuit, bound.measured).data:
            operation = instruction.operation
            if operation.name in ("measure", "barrier", "delay", "id", "reset"):
                continue
            if operation.num_qubits > 2:
                raise InputError(f"{self.backend.name} would run {operation.name!r} on {operation.num_qubits} qubits")
            counts[operation.num_qubits - 1] += 1
        return GateCounts(*counts)


class QiskitBackend(KeptJobs):
    """A Qiskit `BackendV2` that computes in this process, such as Aer's or a fake device. A job is done when submitted.

    Args:
        folder: Where jobs are kept; made if it is missing.
        backend: The `BackendV2`; its `run` must take `shots`.
        name: What it is called; its own name if None.
        options: All that affects its results and that it cannot tell by itself, such as its noise; no secrets.
        seed: Source of the shots, for a backend that has the option `seed_simulator`; the n-th job of a folder has a
            stream of its own. None leaves them to the backend.
        optimization_level: Of Qiskit's compiler; 0 keeps every gate where the backend has it.
        device: The file of prices and times it is taken to have; None costs nothing.
        max_circuits: Of one job.
        prepared: Begin with a reset of every qubit, which is where a noise model keeps errors of preparation.

    Raises:
        ConfigError: the backend's jobs run elsewhere, where they have to be found again.
    """

    def __init__(
        self,
        folder: Path,
        backend: Any,
        *,
        name: str | None = None,
        options: Mapping[str, Scalar] | None = None,
        seed: int | None = 0,
        optimization_level: int = 0,
        device: str | None = None,
        max_circuits: int = 500,
        prepared: bool = False,
    ) -> None:
        module = type(backend).__module__
        if module.startswith(REMOTE) and not module.startswith("qiskit_ibm_runtime.fake_provider"):
            raise ConfigError(
                f"{backend.name} of {module} runs its jobs elsewhere, and its client repeats submissions; use "
                "ketfit.hardware.ionq.IonQBackend or ketfit.hardware.ibm.IBMBackend; for others see "
                "docs/hardware-backends.md"
            )
        super().__init__(folder)
        self.backend, self.prepared = backend, prepared
        self.seed = seed if hasattr(backend.options, "seed_simulator") else None
        self.compiler = Compiler(backend, optimization_level)
        known: dict[str, Scalar] = {"seed": self.seed, "optimization_level": optimization_level}
        self._description = Description(
            name=name or f"qiskit:{backend.name}",
            options={**known, **(options or {})},
            limits=Limits(qubits=backend.num_qubits, circuits=max_circuits),
            device=device,
            settles_after_s=0.0,
            keeps_gates=optimization_level == 0,
        )

    def describe(self) -> Description:
        """What it is."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """The gates of each circuit as the backend runs them."""
        return [self.compiler.count_gates(bound) for bound in circuits]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Run a job and keep its counts.

        Raises:
            RefusedError: the backend cannot run it.
        """
        shots = check_submission(self._description, circuits, shots, tag)
        from qiskit import QiskitError

        number = self.next_number()
        options = {}
        if self.seed is not None:
            options["seed_simulator"] = int(numpy_stream(self.seed, "shots", number).integers(2**31))
        filled = [self._prepare(self.compiler.fill(bound)) for bound in circuits]
        try:
            result = self.backend.run(filled, shots=shots, **options).result()
            read = [result.get_counts(place) for place in range(len(filled))]
        except QiskitError as error:
            raise RefusedError(f"{self._description.name} could not run the job: {error}") from error
        counts = [our_counts(row, len(bound.measured)) for row, bound in zip(read, circuits, strict=True)]
        return self.keep(number, tag, shots, counts)

    def _prepare(self, filled: Any) -> Any:
        if not self.prepared:
            return filled
        begun = filled.copy_empty_like()
        begun.reset(range(filled.num_qubits))
        return begun.compose(filled)


def our_counts(counts: Mapping[str, int], n_measured: int) -> dict[str, int]:
    """Qiskit's counts with the first measured qubit leftmost, as everywhere in this library.

    Raises:
        WrongCountsError: a reading is not a string of that many bits.
    """
    turned: dict[str, int] = {}
    for reading, count in counts.items():
        bits = reading.replace(" ", "")
        if len(bits) != n_measured or set(bits) - {"0", "1"}:
            raise WrongCountsError(f"a result reads {reading!r}; {n_measured} qubits were measured, a bit for each")
        turned[bits[::-1]] = int(count)
    return turned


def share_out(probabilities: Mapping[str, float], shots: int) -> dict[str, int]:
    """Counts that add up to `shots`, each within one of its probability times the shots (largest remainders).

    Services that mitigate errors return probabilities that are no multiples of 1 / shots; rounding each by itself would
    lose or add shots.

    Raises:
        WrongCountsError: a probability is negative, or they do not add up to 1 within half a shot and a hundredth.
    """
    total = sum(probabilities.values())
    if not probabilities or min(probabilities.values()) < 0 or not abs(total - 1) <= min(0.01, 0.5 / shots):
        raise WrongCountsError(f"the probabilities of a result add up to {total:.6g}, not to 1")
    exact = {reading: probability * shots for reading, probability in probabilities.items()}
    counts = {reading: int(value + 1e-6) for reading, value in exact.items()}
    missing = shots - sum(counts.values())
    for reading in sorted(exact, key=lambda reading: (counts[reading] - exact[reading], reading))[: max(missing, 0)]:
        counts[reading] += 1
    return {reading: count for reading, count in counts.items() if count}
