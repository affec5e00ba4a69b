"""Names of the weights and inputs of circuits that are read from other formats."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ketfit.circuit.angle import Angle
from ketfit.circuit.circuit import Circuit, gate_angles
from ketfit.circuit.gate import Gate
from ketfit.errors import CircuitError

MAX_INDEX = 10**6
"""Upper limit of the index of a weight or an input in a name, such as ``w_3``."""

_DEFAULT_NAME = re.compile(r"([wx])(?:_(\d{1,7})|\[(\d{1,7})\])")


@dataclass(frozen=True)
class ParameterNames:
    """The names of the weights and the inputs, in order; None stands for ``w_0``, ``w[1]``, and ``x_0``, ``x[1]``."""

    weights: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None

    @classmethod
    def from_arguments(cls, weights: Iterable[str] | None, inputs: Iterable[str] | None) -> ParameterNames:
        """Return the names that a user gave.

        Raises:
            CircuitError: they are no sequences of different names.
        """
        checked: list[tuple[str, ...] | None] = []
        for kind, names in (("weights", weights), ("inputs", inputs)):
            if names is not None:
                names = (names,) if isinstance(names, str) else tuple(names)
                if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                    raise CircuitError(f"{kind}={names!r}: name each parameter once, in the order of the {kind}")
            checked.append(names)
        both = set(checked[0] or ()) & set(checked[1] or ())
        if both:
            raise CircuitError(f"parameter {min(both)!r} is named as a weight and as an input; name it once")
        return cls(*checked)

    def angle(self, name: str) -> Angle:
        """Return the weight or input of a name.

        Raises:
            CircuitError: the name is unknown, or its index too large.
        """
        for source, names in (("weight", self.weights), ("input", self.inputs)):
            if names is not None and name in names:
                return Angle(source, names.index(name))  # type: ignore[arg-type]
        match = _DEFAULT_NAME.fullmatch(name)
        if match:
            index = int(match[2] or match[3])
            if index > MAX_INDEX:
                raise CircuitError(f"parameter {name!r}: indices go up to {MAX_INDEX}")
            if match[1] == "w" and self.weights is None:
                return Angle("weight", index)
            if match[1] == "x" and self.inputs is None:
                return Angle("input", index)
        raise CircuitError(
            f"parameter {name!r} is neither a weight nor an input: name all of them, in order, in weights= and "
            "inputs=, or call them w_0, w_1 and x_0, x_1"
        )

    def circuit(self, n_qubits: int, gates: Iterable[Gate]) -> Circuit:
        """Return a circuit with a weight or input for each name, or else as many as the gates use."""
        gates = tuple(gates)
        used = {"weight": 0, "input": 0}
        for gate in gates:
            for angle in gate_angles(gate):
                used[angle.source] = max(used[angle.source], angle.index + 1)
        n_weights = used["weight"] if self.weights is None else len(self.weights)
        n_inputs = used["input"] if self.inputs is None else len(self.inputs)
        return Circuit(n_qubits, gates, n_weights, n_inputs)
