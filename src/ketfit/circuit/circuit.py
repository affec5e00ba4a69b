"""Describe circuits for the simulators, drawings, exports and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from ketfit.errors import CircuitError
from ketfit.integers import as_integer, as_integers


@dataclass(frozen=True, slots=True)
class Angle:
    """The angle of a rotation in radians: entry `index` of the weights or of the inputs.

    Weights are trained and shared by a batch; inputs differ from sample to sample.

    Raises:
        CircuitError: another source, or an index that is negative or not an integer.
    """

    source: Literal["weight", "input"]
    index: int

    def __post_init__(self) -> None:
        if self.source not in ("weight", "input"):
            raise CircuitError(f"an angle comes from 'weight' or 'input', not from {self.source!r}")
        if type(self.index) is not int:
            object.__setattr__(self, "index", as_integer(self.index, "index", error=CircuitError))
        if self.index < 0:
            raise CircuitError(f"the index of an angle starts at 0, got {self.index}")


@dataclass(frozen=True, slots=True)
class Gate:
    """RY(angle) on `target`, or CNOT from `control` to `target`. Build one with `ry` or `cx`.

    RY(t) = [[cos t/2, -sin t/2], [sin t/2, cos t/2]].

    Raises:
        CircuitError: an unknown name, a missing or superfluous control or angle, or a qubit that is not an integer.
    """

    name: Literal["ry", "cx"]
    target: int
    control: int | None = None
    angle: Angle | None = None

    def __post_init__(self) -> None:
        if type(self.target) is not int:
            object.__setattr__(self, "target", as_integer(self.target, "target", error=CircuitError))
        if self.name == "ry":
            if not isinstance(self.angle, Angle) or self.control is not None:
                raise CircuitError(
                    "an 'ry' gate has an angle and no control; build it with ry(qubit, Angle('weight', index))"
                )
        elif self.name == "cx":
            if self.control is None or self.angle is not None:
                raise CircuitError("a 'cx' gate has a control and no angle; build it with cx(control, target)")
            if type(self.control) is not int:
                object.__setattr__(self, "control", as_integer(self.control, "control", error=CircuitError))
            if self.control == self.target:
                raise CircuitError(f"a 'cx' gate needs two different qubits, got {self.target} twice")
        else:
            raise CircuitError(f"unknown gate {self.name!r}; known are 'ry' and 'cx'")

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubits of the gate, the control first."""
        return (self.target,) if self.control is None else (self.control, self.target)


def ry(qubit: int, angle: Angle) -> Gate:
    """Return a rotation about Y by `angle` on `qubit`."""
    return Gate("ry", qubit, angle=angle)


def cx(control: int, target: int) -> Gate:
    """Return a CNOT."""
    return Gate("cx", target, control=control)


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
            if gate.angle is not None and gate.angle.index >= sizes[gate.angle.source]:
                raise CircuitError(
                    f"gate {index} ({gate.name}) reads {gate.angle.source} {gate.angle.index}; "
                    f"the circuit has n_{gate.angle.source}s={sizes[gate.angle.source]}"
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
            if gate.angle is not None:
                used[gate.angle.source].add(gate.angle.index)
        for source, indices in used.items():
            unused = sorted(set(range(max(indices, default=-1) + 1)) - indices)
            if unused:
                raise CircuitError(f"no gate uses {source} {unused[0]}; number the {source}s from 0 without gaps")
        return cls(n_qubits, gates, len(used["weight"]), len(used["input"]))

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
        """Return the number of gates by name: ``{"ry": ..., "cx": ...}``."""
        counts = Counter(gate.name for gate in self.gates)
        return {"ry": counts["ry"], "cx": counts["cx"]}

    def depth(self) -> int:
        """Return the length of the longest chain of gates that must follow one another."""
        layers = [0] * self.n_qubits
        for gate in self.gates:
            layer = 1 + max(layers[qubit] for qubit in gate.qubits)
            for qubit in gate.qubits:
                layers[qubit] = layer
        return max(layers)

    def light_cone(self, qubits: Iterable[int]) -> Circuit:
        """Return this circuit without the gates that cannot change <Z> of `qubits` for any initial state.

        Walks back from the measurement with the observable's support (Heisenberg picture). A rotation outside the
        support drops out, and so does a CNOT whose target is outside it as long as the observable is diagonal on
        the control. Weights and inputs keep their numbers, so the same arrays fit both circuits.

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


@cached_on_circuit
def _light_cone(circuit: Circuit, measured: tuple[int, ...]) -> Circuit:
    support = set(measured)
    not_diagonal: set[int] = set()
    remaining: list[Gate] = []
    for gate in reversed(circuit.gates):
        if gate.control is None:
            reaches = gate.target in support
            if reaches:
                not_diagonal.add(gate.target)
        else:
            reaches = gate.target in support or gate.control in not_diagonal
            if gate.control in not_diagonal:
                not_diagonal.add(gate.target)
        if reaches:
            support.update(gate.qubits)
            remaining.append(gate)
    return circuit.with_gates(reversed(remaining))
