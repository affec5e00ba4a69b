"""Any Qiskit `BackendV2` as a backend: compiled circuits, and counts in KetFit's bit order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.export import to_qiskit
from ketfit.errors import ConfigError, InputError, RequestRejectedError, WrongCountsError, optional_imports
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
"""Packages whose backends send jobs to a provider."""

LOCAL = ("qiskit_aer.", "qiskit.providers.", "qiskit_ibm_runtime.fake_provider.")
"""Packages whose backends compute on this machine. Others may be paid for, also if they are not known as `REMOTE`."""

MAX_CIRCUITS = 500
"""Default number of circuits per job."""
MAX_SHOTS = 10_000_000
"""Shots per circuit: Qiskit Aer keeps every shot in memory until all are counted."""
_NO_GATES = ("measure", "barrier", "delay", "id", "reset")


class Compiler:
    """A compiler to a backend's own gates. Each shape is compiled once, with free angles, which are then assigned.

    The compiled form therefore does not depend on the angles, and the gates that a plan counts are those of every later
    job. The price is that rotations of known angles are not merged.

    A circuit that follows another one (`BoundCircuit.follows`) is made from that one's compiled form: a calibration is
    placed on the physical qubits at which that one is measured, and a fold repeats the gates of that one.

    Args:
        backend: A Qiskit `BackendV2`.
        optimization_level: Qiskit's optimization level, 0 to 3.

    Raises:
        ConfigError: The level is out of range.
    """

    def __init__(self, backend: Any, optimization_level: int) -> None:
        self.backend = backend
        self.optimization_level = check_range(optimization_level, "optimization_level", 0, 3, "Qiskit's compiler")
        self._templates: dict[tuple[Circuit, tuple[int, ...]], Any] = {}
        self._following: dict[tuple[Circuit, tuple[int, ...], Circuit, int], Any] = {}
        self._counts: dict[int, GateCounts] = {}

    def template(self, circuit: Circuit, measured: tuple[int, ...]) -> Any:
        """Return the circuit in the backend's gates with free angles; the j-th measured qubit goes to bit j.

        Raises:
            InputError: The backend has too few qubits, or no gates for the circuit.
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
        """Return the circuit in the backend's gates with free angles, derived from the circuit that it follows, if any.

        Raises:
            InputError: As in `template`; or the backend's two-qubit gate has no inverse among the backend's gates.
        """
        if bound.follows is None or (bound.fold > 1 and self._keeps_every_gate):
            return self.template(bound.circuit, bound.measured)
        key = (bound.circuit, bound.measured, bound.follows.circuit, bound.fold)
        if key not in self._following:
            followed = self.template(bound.follows.circuit, bound.measured)
            self._following[key] = (
                self._fold(followed, bound.fold) if bound.fold > 1 else self._place_calibration(bound, followed)
            )
        return self._following[key]

    @cached_property
    def _keeps_every_gate(self) -> bool:
        """True if a folded circuit compiles to folded gates: no swaps are added, and no gates are cancelled."""
        couplings, size = self.backend.coupling_map, self.backend.num_qubits
        every_pair = couplings is None or len(set(couplings.get_edges())) == size * (size - 1)
        return self.optimization_level == 0 and every_pair

    def _place_calibration(self, bound: BoundCircuit, followed: Any) -> Any:
        """Return the calibration on the physical qubits at which the followed circuit is measured."""
        physical = physical_qubits(followed)
        others = iter(sorted(set(range(followed.num_qubits)) - set(physical)))
        layout_of = dict(zip(bound.measured, physical, strict=True))
        layout = [layout_of[qubit] if qubit in layout_of else next(others) for qubit in range(bound.circuit.n_qubits)]
        # Level 0 keeps the layout that it is given; the higher levels may look for another one.
        compiled = self._transpile(to_qiskit(bound.circuit, measured=bound.measured), 0, layout)
        if physical_qubits(compiled) != physical:
            raise InputError(
                f"a calibration would be measured at the qubits {physical_qubits(compiled)} of {self.backend.name} and "
                f"the circuit at {physical}: calibrate with rotations alone"
            )
        return compiled

    def _fold(self, followed: Any, fold: int) -> Any:
        """Return the circuit with every gate G as G (G^-1 G)^k, with barriers against the compilers behind this one."""
        folded = followed.copy_empty_like()
        for instruction in followed.data:
            folded.append(instruction)
            for _ in range(0 if instruction.operation.name in _NO_GATES else fold // 2):
                folded.barrier(instruction.qubits)
                folded.append(instruction.operation.inverse(), instruction.qubits)
                folded.barrier(instruction.qubits)
                folded.append(instruction)
        # Level 0 writes inverses in the backend's gates, such as that of SX, and leaves all else as it is.
        compiled = self._transpile(folded, 0, list(range(folded.num_qubits)))
        before, after = self._count(followed).two_qubit, self._count(compiled).two_qubit
        if after != fold * before:
            raise InputError(
                f"{before} two-qubit gates folded {fold} times would be {after} on {self.backend.name}, whose "
                "two-qubit gate has no inverse of its own: leave zero_noise out"
            )
        return compiled

    def _transpile(self, circuit: Any, level: int, layout: list[int] | None = None) -> Any:
        with optional_imports("Running on a Qiskit backend", "hardware"):
            from qiskit import QiskitError, transpile
        try:
            return transpile(circuit, self.backend, optimization_level=level, initial_layout=layout, seed_transpiler=0)
        except QiskitError as error:
            raise InputError(f"Qiskit cannot write the circuit in the gates of {self.backend.name}: {error}") from error

    def bind(self, bound: BoundCircuit) -> Any:
        """Return the compiled circuit with its angles."""
        compiled = self.compiled(bound)
        source = bound
        if bound.follows is not None and bound.fold > 1 and not self._keeps_every_gate:
            source = bound.follows
        angles = {"w": source.weights, "x": source.inputs}
        return compiled.assign_parameters(
            {parameter: float(angles[parameter.vector.name][parameter.index]) for parameter in compiled.parameters}
        )

    def count_gates(self, bound: BoundCircuit) -> GateCounts:
        """Return the number of gates on one qubit and on two after compiling, without measurements and resets.

        Raises:
            InputError: The backend would run a gate on more than two qubits.
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
        return GateCounts(counts[0], counts[1], physical_qubits(compiled))


def physical_qubits(compiled: Any) -> tuple[int, ...]:
    """Return the physical qubit that is measured into each classical bit of a compiled circuit."""
    qubits = {
        compiled.find_bit(instruction.clbits[0]).index: compiled.find_bit(instruction.qubits[0]).index
        for instruction in compiled.data
        if instruction.operation.name == "measure"
    }
    return tuple(qubits[bit] for bit in sorted(qubits))


class QiskitBackend(LocalJobStore):
    """A Qiskit `BackendV2` that computes in this process, such as Aer's or a fake device. A job is done when submitted.

    Args:
        folder: Folder of the job files; created if it is missing.
        backend: The `BackendV2`; its `run` must take `shots`.
        name: Name of the backend; None takes the name of the `BackendV2`.
        options: Everything that affects its results and that it does not report, such as its noise; no secrets.
        seed: Seed of the shots, for a backend that has the option `seed_simulator`; the n-th job of a folder has a
            stream of its own. None leaves the seed to the backend.
        optimization_level: Optimization level of Qiskit's compiler, 0 to 3; 0 keeps every gate that the backend has.
        device: Device whose prices and times are assumed; None costs nothing.
        max_circuits: Circuits per job, at least 2: one of them is the canary.
        reset_first: Begin with a reset of every qubit, to which a noise model attaches preparation errors.
        is_local: As in `Description`; None is True for the packages of `LOCAL`.

    Raises:
        ConfigError: An option is out of range, or the backend sends its jobs to a provider.
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
        reset_first: bool = False,
        is_local: bool | None = None,
    ) -> None:
        module = type(backend).__module__
        computes_here = f"{module}.".startswith(LOCAL)
        if module.startswith(REMOTE) and not computes_here:
            raise ConfigError(
                f"{backend.name} of {module} sends its jobs to a provider, and its client repeats submissions; use "
                "ketfit.hardware.backends.ionq.IonQBackend or ketfit.hardware.backends.ibm.IBMBackend; for others see "
                "docs/how-to/own-backend.md"
            )
        super().__init__(folder)
        self.backend, self.reset_first = backend, reset_first
        seed = None if seed is None else as_integer(seed, "seed", minimum=0)
        self.seed = seed if hasattr(backend.options, "seed_simulator") else None
        self.compiler = Compiler(backend, optimization_level)
        max_circuits = check_range(max_circuits, "max_circuits", 2, None, "a job, which has a canary besides,")
        own: dict[str, Scalar] = {"seed": self.seed, "optimization_level": self.compiler.optimization_level}
        self._description = Description(
            name=name or f"qiskit:{backend.name}",
            options={**own, **(options or {})},
            limits=Limits(qubits=backend.num_qubits, circuits=max_circuits, shots=MAX_SHOTS),
            device=device,
            listing_delay_s=0.0,
            # `run` of a BackendV2 does not compile, so the gates and qubits of `Compiler` are final.
            keeps_gates=True,
            keeps_qubits=True,
            is_local=computes_here if is_local is None else is_local,
        )

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """Return the gates of each circuit as the backend runs them."""
        return [self.compiler.count_gates(bound) for bound in circuits]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Run a job, store its counts and return its id.

        Raises:
            RequestRejectedError: The backend cannot run it.
        """
        shots, number = check_submission(self._description, circuits, shots, tag), self.next_number()
        from qiskit import QiskitError

        options = {}
        if self.seed is not None:
            options["seed_simulator"] = int(numpy_stream(self.seed, "shots", number).integers(2**31))
        compiled = [self._with_reset(self.compiler.bind(bound)) for bound in circuits]
        try:
            result = self.backend.run(compiled, shots=shots, **options).result()
            rows = [result.get_counts(index) for index in range(len(compiled))]
        except QiskitError as error:
            raise RequestRejectedError(f"{self._description.name} could not run the job: {error}") from error
        counts = [to_big_endian_counts(row, len(bound.measured)) for row, bound in zip(rows, circuits, strict=True)]
        return self.save(number, tag, shots, counts)

    def _with_reset(self, circuit: Any) -> Any:
        if not self.reset_first:
            return circuit
        reset = circuit.copy_empty_like()
        reset.reset(range(circuit.num_qubits))
        return reset.compose(circuit)


def to_big_endian_counts(counts: Mapping[str, int], n_measured: int) -> dict[str, int]:
    """Return Qiskit's counts with the first measured qubit leftmost, as everywhere in KetFit.

    Raises:
        WrongCountsError: A bitstring does not have `n_measured` bits, or a count is no whole number.

    >>> to_big_endian_counts({"011": 5, "000": 2}, 3)
    {'110': 5, '000': 2}
    """
    reversed_counts: dict[str, int] = {}
    for bitstring, count in counts.items():
        bits = bitstring.replace(" ", "")
        if len(bits) != n_measured or set(bits) - {"0", "1"}:
            raise WrongCountsError(f"a result has {bitstring!r}; {n_measured} qubits were measured, a bit for each")
        reversed_counts[bits[::-1]] = as_integer(count, f"the count of {bitstring}", minimum=0, error=WrongCountsError)
    return reversed_counts


def round_to_counts(probabilities: Mapping[str, float], shots: int) -> dict[str, int]:
    """Return counts that add up to `shots`, each within 1 of its probability times the shots (largest remainders).

    Services that mitigate errors return probabilities that are no multiples of 1 / shots; rounding each by itself would
    lose or add shots.

    Raises:
        WrongCountsError: A probability is negative, or they do not add up to 1 within half a shot and a hundredth.

    >>> round_to_counts({"0": 0.55, "1": 0.45}, 10)
    {'0': 6, '1': 4}
    """
    total = sum(probabilities.values())
    if not probabilities or min(probabilities.values()) < 0 or not abs(total - 1) <= min(0.01, 0.5 / shots):
        raise WrongCountsError(f"the probabilities of a result add up to {total:.6g}, not to 1")
    exact = {bitstring: probability * shots for bitstring, probability in probabilities.items()}
    counts = {bitstring: int(value + 1e-6) for bitstring, value in exact.items()}
    missing = shots - sum(counts.values())
    for bitstring in sorted(exact, key=lambda bits: (counts[bits] - exact[bits], bits))[: max(missing, 0)]:
        counts[bitstring] += 1
    return {bitstring: count for bitstring, count in counts.items() if count}
