"""Any Qiskit `BackendV2` behind the seam: circuits out, counts back in this library's bit order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.export import to_qiskit
from ketfit.errors import ConfigError, InputError, MissingExtraError, RequestRejectedError, WrongCountsError
from ketfit.hardware.backends.base import (
    BoundCircuit,
    Description,
    GateCounts,
    Limits,
    Scalar,
    check_range,
    check_submission,
)
from ketfit.hardware.backends.job_store import LocalJobStore
from ketfit.integers import as_integer
from ketfit.rng import numpy_stream

REMOTE = ("qiskit_ionq", "qiskit_ibm_runtime", "qiskit_braket_provider", "azure.quantum")
"""Packages whose backends send jobs away."""

MAX_CIRCUITS = 500
"""Circuits of one job, if no other number is given."""
MAX_SHOTS = 10_000_000
"""Per circuit: Qiskit Aer keeps every shot in memory until all are counted."""
_NO_GATES = ("measure", "barrier", "delay", "id", "reset")


class Compiler:
    """Circuits in a backend's own gates. Each shape is compiled once, with its angles free, and then filled in.

    So what is compiled does not depend on the angles, and the gates that a plan counts are those of every job that
    follows. It forgoes what merging rotations of known angles could save.

    A circuit that follows another one (`BoundCircuit.follows`) is made from that one's compiled form: a calibration is
    placed on the physical qubits at which that one is read, and a fold repeats the gates of that one.

    Args:
        backend: A Qiskit `BackendV2`.
        optimization_level: Qiskit's, 0 to 3.

    Raises:
        ConfigError: there is no such level.
    """

    def __init__(self, backend: Any, optimization_level: int) -> None:
        self.backend = backend
        self.optimization_level = check_range(optimization_level, "optimization_level", 0, 3, "Qiskit's compiler")
        self._templates: dict[tuple[Circuit, tuple[int, ...]], Any] = {}
        self._following: dict[tuple[Circuit, tuple[int, ...], Circuit, int], Any] = {}
        self._counts: dict[int, GateCounts] = {}

    def template(self, circuit: Circuit, measured: tuple[int, ...]) -> Any:
        """The circuit in the backend's gates with free angles; the j-th measured qubit goes to bit j.

        Raises:
            InputError: the backend has too few qubits, or no gates for it.
            MissingExtraError: Qiskit is not installed.
        """
        key = (circuit, measured)
        if key not in self._templates:
            limit = self.backend.num_qubits
            if limit is not None and circuit.n_qubits > limit:
                raise InputError(f"a circuit has {circuit.n_qubits} qubits; {self.backend.name} has {limit}")
            self._templates[key] = self._transpile(to_qiskit(circuit, measured=measured), self.optimization_level)
        return self._templates[key]

    def compiled(self, bound: BoundCircuit) -> Any:
        """Return the circuit in the backend's gates with free angles, where it follows another one by that one's form.

        Raises:
            InputError: as in `template`; or the backend's two-qubit gate has no inverse among the backend's gates.
        """
        if bound.follows is None or (bound.fold > 1 and self._keeps_every_gate):
            return self.template(bound.circuit, bound.measured)
        key = (bound.circuit, bound.measured, bound.follows.circuit, bound.fold)
        if key not in self._following:
            followed = self.template(bound.follows.circuit, bound.measured)
            made = self._folded(followed, bound.fold) if bound.fold > 1 else self._placed(bound, followed)
            self._following[key] = made
        return self._following[key]

    @cached_property
    def _keeps_every_gate(self) -> bool:
        """True if a folded circuit compiles to folded gates: no swaps are added, and nothing is optimised away."""
        couplings, size = self.backend.coupling_map, self.backend.num_qubits
        every_pair = couplings is None or len(set(couplings.get_edges())) == size * (size - 1)
        return self.optimization_level == 0 and every_pair

    def _placed(self, bound: BoundCircuit, followed: Any) -> Any:
        """The calibration on the physical qubits at which the followed circuit is read."""
        places = read_at(followed)
        others = iter(sorted(set(range(followed.num_qubits)) - set(places)))
        where = dict(zip(bound.measured, places, strict=True))
        layout = [where[qubit] if qubit in where else next(others) for qubit in range(bound.circuit.n_qubits)]
        # Level 0 keeps the layout that it is given; the higher levels may look for another one.
        made = self._transpile(to_qiskit(bound.circuit, measured=bound.measured), 0, layout)
        if read_at(made) != places:
            raise InputError(
                f"a calibration would be read at the qubits {read_at(made)} of {self.backend.name} and the circuit at "
                f"{places}: calibrate with rotations alone"
            )
        return made

    def _folded(self, followed: Any, fold: int) -> Any:
        """Every compiled gate G as G (G^-1 G)^k, with barriers between them for compilers behind this one."""
        folded = followed.copy_empty_like()
        for instruction in followed.data:
            folded.append(instruction)
            for _ in range(0 if instruction.operation.name in _NO_GATES else fold // 2):
                folded.barrier(instruction.qubits)
                folded.append(instruction.operation.inverse(), instruction.qubits)
                folded.barrier(instruction.qubits)
                folded.append(instruction)
        # Level 0 writes inverses in the backend's gates, such as that of SX, and leaves all else as it is.
        made = self._transpile(folded, 0, list(range(folded.num_qubits)))
        once, now = self._count(followed).two_qubit, self._count(made).two_qubit
        if now != fold * once:
            raise InputError(
                f"{once} two-qubit gates folded {fold} times would be {now} on {self.backend.name}, whose two-qubit "
                "gate has no inverse of its own: leave zero_noise out"
            )
        return made

    def _transpile(self, circuit: Any, level: int, layout: list[int] | None = None) -> Any:
        try:
            from qiskit import QiskitError, transpile
        except ImportError as error:
            raise MissingExtraError("Running on a Qiskit backend", "'ketfit[hardware]'") from error
        try:
            return transpile(circuit, self.backend, optimization_level=level, initial_layout=layout, seed_transpiler=0)
        except QiskitError as error:
            raise InputError(f"Qiskit cannot write the circuit in the gates of {self.backend.name}: {error}") from error

    def fill(self, bound: BoundCircuit) -> Any:
        """The compiled circuit with its angles."""
        compiled = self.compiled(bound)
        own = bound
        if bound.follows is not None and bound.fold > 1 and not self._keeps_every_gate:
            own = bound.follows
        angles = {"w": own.weights, "x": own.inputs}
        return compiled.assign_parameters(
            {parameter: float(angles[parameter.vector.name][parameter.index]) for parameter in compiled.parameters}
        )

    def count_gates(self, bound: BoundCircuit) -> GateCounts:
        """Gates on one qubit and on two after compiling; measurements and resets are no gates.

        Raises:
            InputError: the backend would run a gate on more than two qubits.
        """
        compiled = self.compiled(bound)
        if id(compiled) not in self._counts:
            self._counts[id(compiled)] = self._count(compiled)
        return self._counts[id(compiled)]

    def _count(self, compiled: Any) -> GateCounts:
        counts = [0, 0]
        for instruction in compiled.data:
            operation = instruction.operation
            if operation.name in _NO_GATES:
                continue
            if operation.num_qubits > 2:
                raise InputError(f"{self.backend.name} would run {operation.name!r} on {operation.num_qubits} qubits")
            counts[operation.num_qubits - 1] += 1
        return GateCounts(counts[0], counts[1], read_at(compiled))


def read_at(compiled: Any) -> tuple[int, ...]:
    """Return the physical qubit that is measured into each classical bit of a compiled circuit."""
    places = {
        compiled.find_bit(instruction.clbits[0]).index: compiled.find_bit(instruction.qubits[0]).index
        for instruction in compiled.data
        if instruction.operation.name == "measure"
    }
    return tuple(places[bit] for bit in sorted(places))


class QiskitBackend(LocalJobStore):
    """A Qiskit `BackendV2` that computes in this process, such as Aer's or a fake device. A job is done when submitted.

    Args:
        folder: Where jobs are kept; made if it is missing.
        backend: The `BackendV2`; its `run` must take `shots`.
        name: What it is called; its own name if None.
        options: All that affects its results and that it cannot tell by itself, such as its noise; no secrets.
        seed: Source of the shots, for a backend that has the option `seed_simulator`; the n-th job of a folder has a
            stream of its own. None leaves them to the backend.
        optimization_level: Of Qiskit's compiler, 0 to 3; 0 keeps every gate where the backend has it.
        device: The file of prices and times it is taken to have; None costs nothing.
        max_circuits: Of one job, at least 2: one of them is the canary.
        prepared: Begin with a reset of every qubit, which is where a noise model keeps errors of preparation.

    Raises:
        ConfigError: an option is out of range, or the backend's jobs run elsewhere, where they have to be found again.
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
        max_circuits: int = MAX_CIRCUITS,
        prepared: bool = False,
    ) -> None:
        module = type(backend).__module__
        if module.startswith(REMOTE) and not module.startswith("qiskit_ibm_runtime.fake_provider"):
            raise ConfigError(
                f"{backend.name} of {module} runs its jobs elsewhere, and its client repeats submissions; use "
                "ketfit.hardware.backends.ionq.IonQBackend or ketfit.hardware.backends.ibm.IBMBackend; for others see "
                "docs/how-to/own-backend.md"
            )
        super().__init__(folder)
        self.backend, self.prepared = backend, prepared
        seed = None if seed is None else as_integer(seed, "seed", minimum=0)
        self.seed = seed if hasattr(backend.options, "seed_simulator") else None
        self.compiler = Compiler(backend, optimization_level)
        max_circuits = check_range(max_circuits, "max_circuits", 2, None, "a job, which has a canary besides,")
        known: dict[str, Scalar] = {"seed": self.seed, "optimization_level": self.compiler.optimization_level}
        self._description = Description(
            name=name or f"qiskit:{backend.name}",
            options={**known, **(options or {})},
            limits=Limits(qubits=backend.num_qubits, circuits=max_circuits, shots=MAX_SHOTS),
            device=device,
            listing_delay_s=0.0,
            # `run` of a BackendV2 does not compile: `Compiler` has the last word on gates and qubits.
            keeps_gates=True,
            keeps_qubits=True,
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
            RequestRejectedError: the backend cannot run it.
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
            raise RequestRejectedError(f"{self._description.name} could not run the job: {error}") from error
        counts = [to_big_endian_counts(row, len(bound.measured)) for row, bound in zip(read, circuits, strict=True)]
        return self.keep(number, tag, shots, counts)

    def _prepare(self, filled: Any) -> Any:
        if not self.prepared:
            return filled
        begun = filled.copy_empty_like()
        begun.reset(range(filled.num_qubits))
        return begun.compose(filled)


def to_big_endian_counts(counts: Mapping[str, int], n_measured: int) -> dict[str, int]:
    """Qiskit's counts with the first measured qubit leftmost, as everywhere in this library.

    Raises:
        WrongCountsError: a reading is not a string of that many bits, or a count is no whole number.
    """
    turned: dict[str, int] = {}
    for reading, count in counts.items():
        bits = reading.replace(" ", "")
        if len(bits) != n_measured or set(bits) - {"0", "1"}:
            raise WrongCountsError(f"a result reads {reading!r}; {n_measured} qubits were measured, a bit for each")
        turned[bits[::-1]] = as_integer(count, f"the count of {reading}", minimum=0, error=WrongCountsError)
    return turned


def round_to_counts(probabilities: Mapping[str, float], shots: int) -> dict[str, int]:
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
