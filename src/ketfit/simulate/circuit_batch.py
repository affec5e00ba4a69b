"""A circuit with the tensors of a batch of samples: what every simulator takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import InputError

_DTYPES = (torch.float32, torch.float64)
_COMPLEX_OF = {torch.float32: torch.complex64, torch.float64: torch.complex128}

Tensors = tuple[Tensor, Tensor | None, Tensor | None]
"""Weights, inputs and initial amplitudes."""


@dataclass(frozen=True, eq=False)
class CircuitBatch:
    """A circuit and the tensors that it runs on, checked when the batch is built except that numbers are finite.

    The tensors are contiguous, so they are copies of those given where those are not.

    Attributes:
        circuit: Circuit to run.
        weights: Angles in radians, shape (n_weights,), shared by the samples.
        inputs: Angles in radians, shape (size, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (size, 2**n_qubits), qubit 0 the most significant bit of the
            index; real, or complex of the same precision; None is |0...0>.
        size: Number of samples, 1 if neither `inputs` nor `initial` is given.

    Raises:
        InputError: A tensor has the wrong shape, dtype or device.

    >>> from ketfit.circuit import ring_layers
    >>> CircuitBatch(ring_layers(2, 1, 1), torch.zeros(4), initial=torch.eye(4)).size
    4
    """

    circuit: Circuit
    weights: Tensor
    inputs: Tensor | None = None
    initial: Tensor | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        check_tensors(self.circuit, self)

    @property
    def tensors(self) -> Tensors:
        """The weights, the inputs and the initial amplitudes."""
        return self.weights, self.inputs, self.initial

    @property
    def recorded_tensors(self) -> Tensors:
        """The tensors for an autograd function, detached where autograd is off: `needs_input_grad` ignores that."""
        return self.tensors if torch.is_grad_enabled() else detached(self.tensors)

    @property
    def is_differentiated(self) -> bool:
        """True if autograd records operations on one of the tensors."""
        return torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in self.tensors)

    @property
    def is_ry_cx(self) -> bool:
        """True if the circuit consists of RY by a weight or input, and CNOT, and the initial amplitudes are real."""
        initial = self.initial
        return self.circuit.is_ry_cx and (initial is None or not initial.is_complex())

    def with_circuit(self, circuit: Circuit) -> CircuitBatch:
        """Return the batch on a circuit with as many qubits, weights and inputs, such as a light cone."""
        batch = object.__new__(CircuitBatch)
        batch.__dict__.update(self.__dict__, circuit=circuit)  # nothing to check again
        return batch

    def repeat_samples(self, times: int) -> CircuitBatch:
        """Return a batch that has every sample `times` times in a row."""
        inputs = self.weights.new_empty(self.size, 0) if self.inputs is None else self.inputs
        initial = None if self.initial is None else self.initial.repeat_interleave(times, 0)
        return CircuitBatch(self.circuit, self.weights, inputs.repeat_interleave(times, 0), initial)

    def check_finite(self) -> None:
        """Raise InputError with the name of the first tensor that holds NaN or infinity."""
        check_finite(weights=self.weights, inputs=self.inputs, initial=self.initial)


class ReadsTensors(Protocol):
    """A circuit or a program: what runs on tensors of these sizes."""

    @property
    def n_qubits(self) -> int:
        """Number of qubits."""

    @property
    def n_weights(self) -> int:
        """Number of weights."""

    @property
    def n_inputs(self) -> int:
        """Number of inputs of a sample."""


def check_tensors(circuit: ReadsTensors, batch: Any) -> None:
    """Check the tensors of a batch, replace those that are not stored in a row, and set the size.

    Raises:
        InputError: A tensor has the wrong shape, dtype or device.
    """
    weights, inputs, initial = batch.weights, batch.inputs, batch.initial
    check_tensor("weights", weights, weights, circuit.n_weights, 1)
    size = 1
    if inputs is not None:
        check_tensor("inputs", inputs, weights, circuit.n_inputs, 2)
        size = len(inputs)
    elif circuit.n_inputs:
        raise InputError(
            f"this circuit reads {circuit.n_inputs} inputs; pass inputs of shape (batch, {circuit.n_inputs})"
        )
    if initial is not None:
        check_tensor("initial", initial, weights, 2**circuit.n_qubits, 2, allows_complex=True)
        if inputs is not None and len(initial) != size:
            raise InputError(f"inputs have a batch of {size} and initial of {len(initial)}; they must be equal")
        size = len(initial)
    object.__setattr__(batch, "size", size)
    if not weights.is_contiguous() or weights.is_neg():
        object.__setattr__(batch, "weights", as_stored(weights))
    if inputs is not None and (not inputs.is_contiguous() or inputs.is_neg()):
        object.__setattr__(batch, "inputs", as_stored(inputs))
    if initial is not None:
        object.__setattr__(batch, "initial", as_stored(initial))


def detached(tensors: Tensors) -> Tensors:
    """Return the tensors without their graphs."""
    weights, inputs, initial = tensors
    return (
        weights.detach(),
        None if inputs is None else inputs.detach(),
        None if initial is None else initial.detach(),
    )


def as_stored(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory holds its elements in a row, not those of its conjugate or negative."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def check_tensor(
    name: str, tensor: Tensor, weights: Tensor, width: int, dimensions: int, allows_complex: bool = False
) -> None:
    """Raise InputError if the shape, dtype or device of a tensor does not fit the circuit or the weights."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} is of type {type(tensor).__name__}; pass a torch.Tensor")
    shape, dtype = tensor.shape, tensor.dtype
    if len(shape) != dimensions or shape[-1] != width:
        needed = f"({width},)" if dimensions == 1 else f"(batch, {width})"
        raise InputError(f"{name} has shape {tuple(shape)}; this circuit needs {needed}")
    if allows_complex and dtype == _COMPLEX_OF.get(weights.dtype):
        dtype = weights.dtype
    if dtype not in _DTYPES:
        raise InputError(f"{name} is {dtype}; convert it with .float() or .double()")
    if tensor is weights:
        return
    if dtype != weights.dtype:
        raise InputError(f"{name} is {tensor.dtype} and weights are {weights.dtype}; make them the same")
    if tensor.device != weights.device:
        raise InputError(f"{name} is on {tensor.device} and weights are on {weights.device}; move them together")


def check_finite(**tensors: Tensor | None) -> None:
    """Raise InputError with the name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor is not None and not torch.isfinite(_without_transforms(tensor)).all():
            raise InputError(f"{name} holds a number that is not finite (NaN or infinity)")


def _without_transforms(tensor: Tensor) -> Tensor:
    """Return the numbers behind a tensor of `torch.func`, all samples of a vmap together."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor
