"""Circuits of tapes, read once for all tapes that differ in the numbers of their parameters alone."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import torch
from pennylane.exceptions import DeviceError
from pennylane.operation import Operator, StatePrepBase
from pennylane.tape import QuantumScript
from torch import Tensor

from ketfit.circuit.angle import Angle
from ketfit.circuit.circuit import Circuit
from ketfit.circuit.gate import Gate
from ketfit.circuit.importers import gates_of_pennylane
from ketfit.errors import CircuitError
from ketfit.interop.pennylane.operations import NO_OPERATION, TEMPLATES, is_gate, is_template, matrix_of

MAX_CIRCUITS = 128
"""Number of circuits that a cache keeps."""

Kind = Literal["weight", "input"]
Place = tuple[Kind, tuple[int, ...]]
Label = Hashable


@dataclass(frozen=True, eq=False)
class TapeBatch:
    """A circuit with the numbers of a tape.

    Attributes:
        circuit: Circuit to run, with an angle for each number of the tape.
        wires: The qubit of each wire.
        weights: Numbers that the samples share, shape (n_weights,).
        inputs: Numbers that have a row for each sample, shape (batch, n_inputs); None if there are none.
        initial: Amplitudes that the tape prepares, shape (batch, 2**n_qubits); None for |0...0>.
        is_batched: True if the tape is broadcast over samples.
    """

    circuit: Circuit
    wires: Mapping[Label, int]
    weights: Tensor
    inputs: Tensor | None
    initial: Tensor | None
    is_batched: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The weights, the inputs and the initial amplitudes."""
        return self.weights, self.inputs, self.initial


class TapeReader:
    """Converts tapes of the operations that the device runs, and keeps the circuits that it has built.

    Args:
        dtype: Precision of the numbers, torch.float64 or torch.float32.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._circuits: OrderedDict[Hashable, tuple[Circuit, dict[Label, int]]] = OrderedDict()

    def read(self, tape: QuantumScript) -> TapeBatch:
        """Return the circuit and the numbers of a tape.

        Raises:
            DeviceError: a number is complex or not on the CPU, sizes of batches differ, or a matrix is not unitary.
        """
        parts = _TapeParts(tape)
        if parts.key in self._circuits:
            self._circuits.move_to_end(parts.key)
        else:
            self._circuits[parts.key] = parts.build()
            if len(self._circuits) > MAX_CIRCUITS:
                self._circuits.popitem(last=False)
        circuit, wires = self._circuits[parts.key]
        weights, inputs = self._weights(parts.weights), self._inputs(parts.inputs)
        initial, is_batched = None, inputs is not None
        if parts.preparation is not None:
            initial = self._initial(parts.preparation, wires)
            is_batched = is_batched or parts.preparation.batch_size is not None
            if inputs is not None and len(initial) == 1:
                initial = initial.expand(len(inputs), -1)
            if inputs is not None and len(initial) != len(inputs):
                raise DeviceError(f"the tape prepares {len(initial)} states for a batch of {len(inputs)} samples")
        return TapeBatch(circuit, wires, weights, inputs, initial, is_batched)

    def _weights(self, values: Sequence[Any]) -> Tensor:
        if not values:
            return torch.zeros(0, dtype=self.dtype)
        if any(isinstance(value, Tensor) for value in values):
            return torch.cat([self._real(value).reshape(-1) for value in values])
        return self._real(np.concatenate([np.ravel(value) for value in values]))

    def _inputs(self, values: Sequence[Any]) -> Tensor | None:
        if not values:
            return None
        sizes = {len(value) for value in values}
        if len(sizes) > 1:
            raise DeviceError(f"parameters of the tape are broadcast over {sorted(sizes)} samples; make them equal")
        # The number of columns is not left to torch, which cannot infer it for no samples.
        columns = [self._real(value).reshape(len(value), math.prod(np.shape(value)[1:])) for value in values]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _real(self, value: Any) -> Tensor:
        tensor = _on_cpu(value)
        if tensor.is_complex():
            raise DeviceError("an angle of the circuit is complex; pass its real part")
        return tensor.to(self.dtype)

    def _initial(self, preparation: StatePrepBase, wires: Mapping[Label, int]) -> Tensor:
        state = _on_cpu(preparation.state_vector(wire_order=list(wires)))
        dtype = self.dtype.to_complex() if state.is_complex() else self.dtype
        return state.reshape(-1, 2 ** len(wires)).to(dtype)


def _on_cpu(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.device.type != "cpu":
        raise DeviceError(f"ketfit.qubit computes on the CPU and a parameter is on {tensor.device}; pass it .cpu()")
    return tensor


class _TapeParts:
    """The operations of a tape, and their numbers in the order in which the circuit numbers them."""

    def __init__(self, tape: QuantumScript) -> None:
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self.preparation: StatePrepBase | None = None
        self.operations: list[tuple[Operator, tuple[Place, ...]]] = []
        self.labels = dict.fromkeys(label for operation in tape.operations for label in operation.wires.labels)
        self.measured = dict.fromkeys(label for each in tape.measurements for label in each.wires.labels)
        key: list[Hashable] = []
        for position, operation in enumerate(tape.operations):
            name = operation.name
            if name in NO_OPERATION:
                continue
            if position == 0 and isinstance(operation, StatePrepBase):
                self.preparation = operation
                continue
            detail: Hashable = ()
            if is_gate(operation):
                places = tuple(self._place(value, 0) for value in operation.data)
            elif is_template(operation):
                places = tuple(self._place(value, TEMPLATES[name]) for value in operation.data)
                detail = tuple(tuple(v) if isinstance(v, list) else v for v in operation.hyperparameters.values())
            else:
                places, detail = (), matrix_of(operation).tobytes()
            key.append((name, operation.wires.labels, places, detail))
            self.operations.append((operation, places))
        self.key: Hashable = (tuple(key), tuple(self.labels), tuple(self.measured))

    def _place(self, value: Any, dimensions: int) -> Place:
        shape = tuple(value.shape if hasattr(value, "shape") else np.shape(value))
        if len(shape) > dimensions:
            self.inputs.append(value)
            return "input", shape[1:]
        self.weights.append(value)
        return "weight", shape

    def build(self) -> tuple[Circuit, dict[Label, int]]:
        """Return the circuit and the qubit of each wire."""
        wires = self._wires()
        numbers: dict[Kind, Iterator[int]] = {"weight": count(), "input": count()}
        try:
            gates = tuple(gate for each in self.operations for gate in _gates(*each, wires, numbers))
            sizes = {kind: next(number) for kind, number in numbers.items()}
            return Circuit(max(len(wires), 1), gates, sizes["weight"], sizes["input"]), wires
        except CircuitError as error:
            raise DeviceError(f"ketfit.qubit: {error}") from error

    def _wires(self) -> dict[Label, int]:
        # PennyLane's order: the wires of the operations, ascending if they are 0, 1, ..., and then those that are only
        # measured.
        used: list[Any] = list(self.labels)
        if set(used) == set(range(len(used))):
            used.sort()
        measured: list[Any] = [label for label in self.measured if label not in self.labels]
        if set(measured) == set(range(len(used), len(used) + len(measured))):
            measured.sort()
        return {label: qubit for qubit, label in enumerate([*used, *measured])}


def _gates(
    operation: Operator, places: Sequence[Place], wires: Mapping[Label, int], numbers: Mapping[Kind, Iterator[int]]
) -> Iterator[Gate]:
    """Yield the gates of an operation, with new weights and inputs for its parameters."""
    qubits = tuple(wires[label] for label in operation.wires.labels)
    if not (is_gate(operation) or is_template(operation)):
        yield Gate("unitary", qubits, matrix=matrix_of(operation).tolist())
        return
    symbols = [_symbols(kind, shape, numbers[kind]) for kind, shape in places]
    if is_gate(operation):
        yield from gates_of_pennylane(operation.name, qubits, symbols, "the tape")
        return
    for inner in operation.compute_decomposition(*symbols, wires=operation.wires, **operation.hyperparameters):
        inner_qubits = tuple(wires[label] for label in inner.wires.labels)
        yield from gates_of_pennylane(inner.name, inner_qubits, inner.data, operation.name)


def _symbols(kind: Kind, shape: tuple[int, ...], numbers: Iterator[int]) -> Any:
    """Return an angle, or an array of angles."""
    angles = [Angle(kind, next(numbers)) for _ in range(math.prod(shape))]
    if not shape:
        return angles[0]
    array = np.empty(len(angles), object)
    array[:] = angles
    return array.reshape(shape)
