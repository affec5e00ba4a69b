"""Describe circuits for the simulators, drawings, exports and counts."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from ketfit.circuit.angle import Angle as Angle
from ketfit.circuit.angle import angles_of
from ketfit.circuit.gate import Gate as Gate
from ketfit.circuit.gate import cx as cx
from ketfit.circuit.gate import ry as ry
from ketfit.errors import CircuitError
from ketfit.integers import as_integer, as_integers


@dataclass(frozen=True)
class Circuit:
    """A sequence of gates on `n_qubits` qubits that reads `n_weights` weights and `n_inputs` inputs.

    Qubit 0 is the most significant bit of the basis index: on two qubits, amplitude 1 is |01>, qubit 1 excited.
    A circuit is a value: frozen, hashable, equal to any other with the same content. `from_gates` counts the
    weights and inputs for you and refuses gaps; the plain constructor admits weights that no gate uses, as
    `light_cone` leaves them.

    Raises:
        CircuitError: a qubit or an angle is out of range.
    """

    n_qubits: int
    gates: tuple[Gate, ...]
    n_weights: int
    n_inputs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "gates", tuple(self.gates))
        for name in ("n_qubits", "n_weights", "n_inputs"):
            object.__setattr__(self, name, as_integer(getattr(self, name), name, error=CircuitError))
        if self.n_qubits < 1:
            raise CircuitError(f"a circuit needs at least one qubit, got n_qubits={self.n_qubits}")
        sizes = {"weight": self.n_weights, "input": self.n_inputs}
        for source, size in sizes.items():
            if size < 0:
                raise CircuitError(f"n_{source}s={size}: it cannot be negative")
        for index, gate in enumerate(self.gates):
            for qubit in gate.qubits:
                if not 0 <= qubit < self.n_qubits:
                    raise CircuitError(
                        f"gate {index} ({gate.name}) acts on qubit {qubit}; the qubits are 0 to {self.n_qubits - 1}"
                    )
            for angle in gate_angles(gate):
                if angle.index >= sizes[angle.source]:
                    raise CircuitError(
                        f"gate {index} ({gate.name}) reads {angle.source} {angle.index}; "
                        f"the circuit has n_{angle.source}s={sizes[angle.source]}"
                    )

    @classmethod
    def from_gates(cls, n_qubits: int, gates: Iterable[Gate]) -> Circuit:
        """Return a circuit with as many weights and inputs as its gates use.

        Raises:
            CircuitError: a weight or input below the highest one is used by no gate.
        """
        gates = tuple(gates)
        used: dict[str, set[int]] = {"weight": set(), "input": set()}
        for gate in gates:
            for angle in gate_angles(gate):
                used[angle.source].add(angle.index)
        for source, indices in used.items():
            unused = sorted(set(range(max(indices, default=-1) + 1)) - indices)
            if unused:
                raise CircuitError(f"no gate uses {source} {unused[0]}; number the {source}s from 0 without gaps")
        return cls(n_qubits, gates, len(used["weight"]), len(used["input"]))

    @staticmethod
    def from_qasm3(text: str, weights: Iterable[str] | None = None, inputs: Iterable[str] | None = None) -> Circuit:
        """Return the circuit of an OpenQASM 3 program: `ketfit.circuit.importers.from_qasm3`.

        Args:
            text: The program, which need not be trusted.
            weights: Names of the declared inputs that become weights, in order; None takes ``w_0``, ``w_1`` and so on.
            inputs: Names of those that become inputs, in order; None takes ``x_0``, ``x_1`` and so on.

        Raises:
            CircuitError: the program is invalid, too large, or has a part that a circuit cannot hold.
        """
        read: Circuit = _importers().from_qasm3(text, weights, inputs)
        return read

    @staticmethod
    def from_qiskit(circuit: Any, weights: Iterable[str] | None = None, inputs: Iterable[str] | None = None) -> Circuit:
        """Return the circuit of a `qiskit.QuantumCircuit`: `ketfit.circuit.importers.from_qiskit`.

        Args:
            circuit: What to convert; Qiskit's qubit k is qubit k.
            weights: Names of the parameters that become weights, in order; None takes ``w[0]``, ``w_1`` and so on.
            inputs: Names of the parameters that become inputs, in order; None takes ``x[0]``, ``x_1`` and so on.

        Raises:
            CircuitError: an instruction cannot be held, or an angle is not a sum of parameters times factors.
            MissingExtraError: Qiskit is not installed.
        """
        read: Circuit = _importers().from_qiskit(circuit, weights, inputs)
        return read

    @staticmethod
    def from_pennylane(
        source: Any,
        weights: Mapping[str, Sequence[int] | int] | None = None,
        inputs: Mapping[str, Sequence[int] | int] | None = None,
    ) -> Circuit:
        """Return the circuit of a PennyLane QNode, function or tape: `ketfit.circuit.importers.from_pennylane`.

        Args:
            source: What to convert.
            weights: Shape of each argument of the function that holds weights, by name.
            inputs: Shape of each argument that holds the inputs of one sample, by name.

        Raises:
            CircuitError: an operation cannot be held, or an angle is not a sum of arguments times factors.
            MissingExtraError: PennyLane is not installed.
        """
        read: Circuit = _importers().from_pennylane(source, weights, inputs)
        return read

    def __hash__(self) -> int:
        return self._hash

    # Walking hundreds of gates at every look-up in a cache would cost more than the cache saves.
    @cached_property
    def _hash(self) -> int:
        return hash((self.n_qubits, self.gates, self.n_weights, self.n_inputs))

    @cached_property
    def cache(self) -> dict[Hashable, Any]:
        """Values derived from this object, such as the plan of a simulator.

        A cache that looks circuits up by value would compare hundreds of gates at every call.
        """
        return {}

    def __reduce__(self) -> tuple[type[Circuit], tuple[int, tuple[Gate, ...], int, int]]:
        # The cached hash depends on this process's string hashing, and plans on its processor: neither may travel.
        return Circuit, (self.n_qubits, self.gates, self.n_weights, self.n_inputs)

    def with_gates(self, gates: Iterable[Gate]) -> Circuit:
        """Return a circuit of other gates that has as many qubits, weights and inputs."""
        return Circuit(self.n_qubits, tuple(gates), self.n_weights, self.n_inputs)

    def gate_counts(self) -> dict[str, int]:
        """Return the number of gates by name: ``{"ry": ..., "cx": ...}``, and then the other gates that occur."""
        counts = Counter(gate.name for gate in self.gates)
        return {"ry": counts["ry"], "cx": counts["cx"]} | counts

    def depth(self) -> int:
        """Return the length of the longest chain of gates that must follow one another."""
        layers = [0] * self.n_qubits
        for gate in self.gates:
            layer = 1 + max((layers[qubit] for qubit in gate.qubits), default=0)
            for qubit in gate.qubits:
                layers[qubit] = layer
        return max(layers)

    @cached_property
    def is_ry_cx(self) -> bool:
        """True if every gate is RY by one weight or input, or a CNOT, as in the paper's circuits."""
        return all(gate.is_ry_or_cx for gate in self.gates)

    @cached_property
    def is_real(self) -> bool:
        """True if the matrix of every gate is real for all angles, so that real amplitudes stay real."""
        return all(gate.is_real for gate in self.gates)

    def light_cone(self, qubits: Iterable[int]) -> Circuit:
        """Return this circuit without the gates that cannot change <Z> of `qubits` for any initial state.

        Walks back from the measurement with the observable's support (Heisenberg picture). A gate outside the support
        drops out, and so does a gate that is diagonal on all of its qubits in the support, such as a CNOT on its
        control, as long as the observable is diagonal on them too. Weights and inputs keep their numbers, so the same
        arrays fit both circuits.

        Raises:
            CircuitError: a qubit is out of range, not an integer, or named twice.
        """
        return _light_cone(self, self.check_qubits(qubits))

    def check_qubits(self, qubits: Iterable[int], name: str = "qubits") -> tuple[int, ...]:
        """Return distinct qubits of this circuit as a tuple of Python integers.

        Args:
            qubits: Integers of any kind, by position: a sequence, or an array, tensor or Series with one axis.
            name: What they are called in the error.

        Raises:
            CircuitError: otherwise.
        """
        # Python's own integers before anything is looked up: True and 1.0 hash as 1 does, and tensors by identity.
        measured = as_integers(qubits, name, error=CircuitError)
        if ("checked", measured) in self.cache:
            return measured
        if not measured:
            raise CircuitError("name at least one qubit to measure")
        for qubit in measured:
            if not 0 <= qubit < self.n_qubits:
                raise CircuitError(f"qubit {qubit} cannot be measured; the circuit has qubits 0 to {self.n_qubits - 1}")
        if len(set(measured)) < len(measured):
            raise CircuitError(f"a qubit is measured twice in {measured}; name each once")
        self.cache["checked", measured] = True
        return measured


def _importers() -> Any:
    return importlib.import_module("ketfit.circuit.importers")  # which imports this module


P = ParamSpec("P")
T = TypeVar("T")


def cached_on_circuit(function: Callable[Concatenate[Circuit, P], T]) -> Callable[Concatenate[Circuit, P], T]:
    """Return a version of `function`, whose arguments are hashable, that keeps its results in the circuit's cache."""

    @wraps(function)
    def cached(circuit: Circuit, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (function, *args, *kwargs.items())
        if key not in circuit.cache:
            circuit.cache[key] = function(circuit, *args, **kwargs)
        result: T = circuit.cache[key]
        return result

    return cached


def gate_angles(gate: Gate) -> tuple[Angle, ...]:
    """Return the weights and inputs that a gate reads.

    >>> gate_angles(cx(0, 1))
    ()
    """
    parameters = gate.parameters
    if len(parameters) == 1 and isinstance(parameters[0], Angle):  # the most common case, for large circuits
        return parameters  # type: ignore[return-value]
    return tuple(angle for parameter in parameters for angle in angles_of(parameter))


@cached_on_circuit
def _light_cone(circuit: Circuit, measured: tuple[int, ...]) -> Circuit:
    return observable_light_cone(circuit, frozenset(measured), frozenset())


@cached_on_circuit
def observable_light_cone(circuit: Circuit, support: frozenset[int], not_diagonal: frozenset[int]) -> Circuit:
    """Return the circuit without the gates that cannot change an observable's expectation for any initial state.

    Args:
        circuit: Circuit before the measurement.
        support: Qubits that the observable acts on.
        not_diagonal: Those of them on which it is not diagonal.
    """
    reached, turned = set(support), set(not_diagonal)
    remaining: list[Gate] = []
    for gate in reversed(circuit.gates):
        inside = reached.intersection(gate.qubits)
        diagonal = gate.diagonal_qubits
        if inside <= set(diagonal) - turned:
            continue
        # A permutation of the basis states takes a diagonal observable to a diagonal one.
        if not (gate.permutes_basis and turned.isdisjoint(gate.qubits)):
            turned.update(set(gate.qubits) - set(diagonal))
        reached.update(gate.qubits)
        remaining.append(gate)
    return circuit.with_gates(reversed(remaining))
