"""Qiskit circuits as circuits of inputs, and the bits that their measurements at the end write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.angle import Angle
from ketfit.circuit.circuit import Circuit
from ketfit.circuit.importers import qiskit_gates
from ketfit.circuit.observable import PauliSum
from ketfit.errors import CircuitError, optional_imports
from ketfit.interop.qiskit.expressions import Function, differentiable_function
from ketfit.interop.qiskit.observables import restrict, to_pauli_sum

with optional_imports("KetFit's primitives for Qiskit", "qiskit"):
    from qiskit import QuantumCircuit
    from qiskit.circuit import Barrier, CircuitInstruction, Delay, Measure, ParameterExpression, Reset
    from qiskit.circuit.library import Initialize
    from qiskit.exceptions import QiskitError
    from qiskit.primitives.containers.bindings_array import BindingsArray

MAX_CACHED = 32
"""Number of converted circuits that are kept."""


class QiskitCircuitError(CircuitError, QiskitError):
    """A circuit that KetFit's primitives cannot run."""

    def __init__(self, message: str) -> None:
        QiskitError.__init__(self, message)

    def __str__(self) -> str:
        return str(self.message)  # without the quotes of QiskitError


@dataclass(frozen=True)
class ConvertedCircuit:
    """A Qiskit circuit whose parameters are inputs, so that every set of values is a sample of one batch.

    Qubits without a gate stay in |0> and are left out: a circuit that was transpiled for a large machine has many. The
    first one is kept if none has a gate.

    Attributes:
        circuit: Circuit without weights. Its first inputs are the parameters, the others are `expressions`.
        active: The qubit of the Qiskit circuit that each qubit of `circuit` is, ascending.
        parameters: Names of the parameters, in Qiskit's order.
        expressions: Angles that are no sums of parameters times factors, as functions of the parameters.
        measured: The qubit of `circuit` whose outcome each classical bit holds, by the bit's index; others hold 0.
    """

    circuit: Circuit
    active: tuple[int, ...]
    parameters: tuple[str, ...]
    expressions: tuple[Function, ...]
    measured: Mapping[int, int]

    def observable(self, observable: Mapping[str, float]) -> PauliSum:
        """Return an element of an `ObservablesArray` of the Qiskit circuit, as an observable of `circuit`.

        Raises:
            CircuitError: as in `to_pauli_sum`.
        """
        return to_pauli_sum(restrict(observable, self.active))

    def values(self, bindings: BindingsArray) -> Tensor:
        """Return the parameter values, shape (sets, parameters)."""
        array = bindings.as_array(self.parameters).reshape(bindings.size, len(self.parameters))
        return torch.from_numpy(array)

    def inputs(self, values: Tensor) -> Tensor:
        """Return the inputs, shape (sets, n_inputs), of parameter values (sets, parameters); differentiable."""
        if not self.expressions:
            return values
        columns = dict(zip(self.parameters, values.unbind(1), strict=True))
        return torch.cat([values, torch.stack([each(columns) for each in self.expressions], dim=1)], dim=1)


@dataclass
class _Columns:
    """The inputs of a circuit while it is read: its parameters, and one for each distinct expression."""

    parameters: tuple[str, ...]
    expressions: dict[Any, Angle]

    def parameter(self, name: str) -> Angle:
        return Angle("input", self.parameters.index(name))

    def expression(self, value: Any) -> Angle:
        return self.expressions.setdefault(value, Angle("input", len(self.parameters) + len(self.expressions)))


_cache: dict[tuple[int, str], tuple[QuantumCircuit, ConvertedCircuit]] = {}
_lock = Lock()  # primitives may be called from several threads


def convert(circuit: QuantumCircuit, primitive: str, *, measures: bool) -> ConvertedCircuit:
    """Return a circuit in KetFit's gates. Recent results are kept, and used while the circuit has the same content.

    Args:
        circuit: What to convert.
        primitive: The class that runs it, for errors.
        measures: True if the circuit may be measured at the end.

    Raises:
        QiskitCircuitError: the circuit has a part that a circuit of gates cannot hold, such as a measurement before the
            end, a reset or control flow. The error names it.
    """
    key = id(circuit), primitive
    copy, converted = _cache.get(key, (None, None))
    if copy is not None and _equal(copy, circuit):
        assert converted is not None
        return converted
    try:
        converted = _convert(circuit, primitive, measures)
    except QiskitCircuitError:
        raise
    except CircuitError as error:
        raise QiskitCircuitError(f"{primitive} cannot run the circuit {circuit.name!r}: {error}") from error
    kept = circuit.copy()
    with _lock:
        _cache.pop(key, None)
        _cache[key] = kept, converted
        while len(_cache) > MAX_CACHED:
            del _cache[next(iter(_cache))]
    return converted


def _equal(one: QuantumCircuit, other: QuantumCircuit) -> bool:
    return bool(
        one.qubits == other.qubits
        and one.clbits == other.clbits
        and one.global_phase == other.global_phase
        and one.data == other.data
        and _numbers(one) == _numbers(other)
    )


def _numbers(circuit: QuantumCircuit) -> list[Any]:
    # Qiskit takes gates for equal whose numbers differ a little.
    numbers: list[Any] = []
    for instruction in circuit.data:
        # The object of a standard gate would have to be built.
        operation = instruction if instruction.is_standard_gate() else instruction.operation
        parameters = [each for each in getattr(operation, "params", ()) if not isinstance(each, ParameterExpression)]
        numbers += [each.tolist() if isinstance(each, np.ndarray) else each for each in parameters]
    return numbers


def _convert(circuit: QuantumCircuit, primitive: str, measures: bool) -> ConvertedCircuit:
    preparation = _Preparation(circuit, primitive, measures)
    parameters = tuple(parameter.name for parameter in circuit.parameters)
    columns = _Columns(parameters, {})
    gates = qiskit_gates(preparation.gates(), columns.parameter, columns.expression)
    active = tuple(sorted({qubit for gate in gates for qubit in gate.qubits})) or (0,) * min(1, circuit.num_qubits)
    position = {qubit: index for index, qubit in enumerate(active)}
    if len(active) < circuit.num_qubits:
        gates = [replace(gate, qubits=tuple(position[qubit] for qubit in gate.qubits)) for gate in gates]
    return ConvertedCircuit(
        Circuit(len(active), tuple(gates), 0, len(parameters) + len(columns.expressions)),
        active,
        parameters,
        tuple(differentiable_function(each) for each in columns.expressions),
        {bit: position[qubit] for bit, qubit in preparation.measured.items() if qubit in position},
    )


class _Preparation:
    """The circuit without what is no gate: measurements at the end, delays, and resets of qubits in |0>."""

    def __init__(self, circuit: QuantumCircuit, primitive: str, measures: bool) -> None:
        self.circuit, self.primitive, self.measures = circuit, primitive, measures
        self.measured: dict[int, int] = {}

    def gates(self) -> QuantumCircuit:
        """Return the circuit of gates.

        Raises:
            QiskitCircuitError: something else occurs.
        """
        prepared = self.circuit.copy_empty_like()
        for instruction in self._instructions():
            prepared.append(instruction)
        return prepared

    def _instructions(self) -> Iterator[CircuitInstruction]:
        used: set[int] = set()
        measurements: dict[int, int] = {}  # the last instruction that measured a qubit
        for index, instruction in enumerate(self.circuit.data):
            operation, name, qubits = instruction.operation, instruction.name, self._indices(instruction.qubits)
            if isinstance(operation, (Barrier, Delay)):
                continue
            if isinstance(operation, Measure):
                if not self.measures:
                    self._refuse(index, name, "a measurement", "call remove_final_measurements() first")
                measurements[qubits[0]] = index
                self.measured[self.circuit.find_bit(instruction.clbits[0]).index] = qubits[0]
                continue
            if instruction.is_control_flow():
                self._refuse(index, name, "control flow", "write the circuit without it")
            for qubit in qubits:
                if qubit in measurements:
                    self._refuse(
                        measurements[qubit],
                        "measure",
                        f"a mid-circuit measurement (instruction {index}, {name}, acts on qubit {qubit} after it)",
                        "measure at the end alone",
                    )
            if isinstance(operation, (Reset, Initialize)) and used & set(qubits):
                self._refuse(index, name, "a reset of a qubit that gates acted on", "use a qubit of its own")
            if isinstance(operation, Initialize):
                preparation = operation.definition.data[-1].operation  # the first is the reset
                instruction = instruction.replace(operation=preparation)
            if not isinstance(operation, Reset):
                used.update(qubits)
                yield instruction

    def _indices(self, qubits: tuple[Any, ...]) -> list[int]:
        return [self.circuit.find_bit(qubit).index for qubit in qubits]

    def _refuse(self, index: int, name: str, what: str, fix: str) -> NoReturn:
        raise QiskitCircuitError(
            f"{self.primitive} cannot run the circuit {self.circuit.name!r}: instruction {index} ({name}) is {what}; "
            f"{fix}"
        )
