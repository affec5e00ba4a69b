"""Evolution of states under circuits of any gate in torch, differentiable by the adjoint method.

A state has the shape (batch, 2**Q). It is real if the circuit and the initial amplitudes are, and complex otherwise.
The circuit is a sequence of Pauli rotations R = exp(-i t/2 P) and constant unitaries (`ketfit.circuit.lowering`). With
J = -i P, R psi = cos(t/2) psi + sin(t/2) J psi, and d psi / dt = 1/2 J psi behind the rotation.

The adjoint pass applies the inverse operations in reverse order to the state and to the gradient with respect to it,
and stores no intermediate state. Function transforms (`torch.func`), forward-mode differentiation, batched gradients
and second derivatives differentiate the operations one by one instead: they store a state for each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ketfit.circuit.angle import AngleExpression, affine_form, angles_of
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.lowering import ConstantUnitary, lower
from ketfit.simulate.circuit_batch import CircuitBatch

# Looked up once, because every call of a small circuit asks for them.
_functorch: Any = torch._C._functorch
_peek_interpreter_stack = _functorch.peek_interpreter_stack
_forward_ad: Any = torch.autograd.forward_ad


def is_transformed() -> bool:
    """Return True within a function transform of `torch.func`, or with dual numbers of forward-mode differentiation."""
    return _peek_interpreter_stack() is not None or _forward_ad._current_level >= 0


def needs_recorded_operations(grad: Tensor) -> bool:
    """Return True in a backward pass that is itself differentiated, or has a batch of gradients."""
    return torch.is_grad_enabled() or _functorch.is_legacy_batchedtensor(grad) or _peek_interpreter_stack() is not None


def differentiate_operations(run: Callable[..., Tensor], tensors: Sequence[Tensor | None], grad: Tensor) -> list[Any]:
    """Return the gradients of `run(*tensors)` for each tensor that requires one, from torch's own operations.

    If gradients are enabled, as they are by ``create_graph=True``, the result can be differentiated again.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        given = [
            tensor if tensor is None or create_graph else tensor.detach().requires_grad_(tensor.requires_grad)
            for tensor in tensors
        ]
        leaves = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
        found = iter(torch.autograd.grad(run(*given), leaves, grad, create_graph=create_graph, allow_unused=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in given]


@dataclass(frozen=True)
class WordOnStates:
    """A Pauli word that acts on states of shape (batch, 2**n_qubits)."""

    shape: tuple[int, ...]  # with an axis of two for each qubit of the word, behind the axis of the batch
    flipped: tuple[int, ...]
    phase: complex
    signs: npt.NDArray[np.float64]

    @classmethod
    def on_qubits(cls, word: str, qubits: Sequence[int], n_qubits: int) -> WordOnStates:
        """Return the word with a letter X, Y or Z for each of some qubits."""
        letters = dict(sorted(zip(qubits, word, strict=True)))
        shape = split_shape(tuple(letters), n_qubits)
        signs = np.ones([1] * len(shape))
        for place, letter in enumerate(letters.values()):
            if letter != "X":  # Y is diag(-i, i) behind a flip
                axis = [1] * len(shape)
                axis[2 + 2 * place] = 2
                signs = signs * np.array([1.0, -1.0]).reshape(axis)
        flipped = tuple(2 + 2 * place for place, letter in enumerate(letters.values()) if letter != "Z")
        return cls(shape, flipped, (-1j) ** word.count("Y"), signs)

    def apply(self, state: Tensor, factor: complex = 1.0) -> Tensor:
        """Return `factor` times the word times the state; a real state stays real if the product of both is real."""
        split = state.reshape(-1, *self.shape[1:])
        if self.flipped:
            split = split.flip(self.flipped)
        scale = factor * self.phase
        real = self.signs * scale.real if isinstance(scale, complex) else self.signs * scale
        signs = torch.from_numpy(real).to(state.device, state.real.dtype)
        if isinstance(scale, complex) and scale.imag != 0:
            signs = torch.complex(signs, torch.from_numpy(self.signs * scale.imag).to(signs))
        return (split * signs).reshape(state.shape)


def split_shape(qubits: Sequence[int], n_qubits: int) -> tuple[int, ...]:
    """Return a shape of states with an axis of two for each of the ascending `qubits`: axes 2, 4, and so on."""
    shape, before = [-1], 0
    for qubit in qubits:
        shape += [2 ** (qubit - before), 2]
        before = qubit + 1
    return (*shape, 2 ** (n_qubits - before))


def apply_matrix(state: Tensor, matrix: npt.NDArray[np.complex128], qubits: Sequence[int]) -> Tensor:
    """Return a matrix on some qubits, the first of them its most significant bit, times states (batch, 2**Q)."""
    order = sorted(range(len(qubits)), key=qubits.__getitem__)
    width, n_qubits = len(qubits), state.shape[-1].bit_length() - 1
    tensor = matrix.reshape([2] * (2 * width)).transpose(*order, *(width + place for place in order))
    elements = torch.from_numpy(np.ascontiguousarray(tensor.reshape(2**width, 2**width)))
    elements = elements.to(state.device, state.dtype) if state.is_complex() else elements.real.to(state)
    split = state.reshape(split_shape(sorted(qubits), n_qubits))
    axes = [2 + 2 * place for place in range(width)]
    last = list(range(-width, 0))
    moved = split.movedim(axes, last)
    product = moved.reshape(-1, 2**width) @ elements.t()
    return product.reshape(moved.shape).movedim(last, axes).reshape(state.shape)


@dataclass(frozen=True)
class _Rotation:
    word: WordOnStates
    is_shared: bool
    slot: int  # of its angle, among those that all samples share or among the others

    def j(self, state: Tensor) -> Tensor:
        """Return J psi = -i P psi."""
        return self.word.apply(state, -1j)

    def apply(self, state: Tensor, angles: _Angles, inverse: bool = False) -> Tensor:
        """Return the rotation, or its inverse, times the state."""
        cos, sin = (part[..., self.slot, None] for part in (angles.shared if self.is_shared else angles.sample))
        return cos * state + (-sin if inverse else sin) * self.j(state)


@dataclass(frozen=True)
class _Constant:
    matrix: npt.NDArray[np.complex128]
    qubits: tuple[int, ...]

    def apply(self, state: Tensor, angles: _Angles, inverse: bool = False) -> Tensor:
        """Return the unitary, or its inverse, times the state."""
        return apply_matrix(state, self.matrix.conj().T if inverse else self.matrix, self.qubits)


@dataclass(frozen=True)
class _Angles:
    """Cosines and sines of half of each angle: those that the samples share, shape (n,), and the others, (batch, n)."""

    shared: tuple[Tensor, Tensor]
    sample: tuple[Tensor, Tensor]

    @classmethod
    def from_angles(cls, shared: Tensor, sample: Tensor) -> _Angles:
        """Return the cosines and sines of angles in radians."""
        return cls(((shared / 2).cos(), (shared / 2).sin()), ((sample / 2).cos(), (sample / 2).sin()))


@dataclass
class AffineAngles:
    """Angles as sums of factors times the columns of (weights, inputs), and offsets."""

    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)

    def add(self, expression: AngleExpression, n_weights: int) -> int:
        """Append an angle and return its number."""
        terms, offset = affine_form(expression)
        for angle, factor in terms:
            self.rows.append(len(self.offsets))
            self.columns.append(angle.index + (0 if angle.source == "weight" else n_weights))
            self.factors.append(factor)
        self.offsets.append(offset)
        return len(self.offsets) - 1

    def values(self, columns: Tensor) -> Tensor:
        """Return the angles, shape (..., n), from weights and inputs, shape (..., n_weights + n_inputs)."""
        rows, chosen = (
            torch.tensor(each, dtype=torch.long, device=columns.device) for each in (self.rows, self.columns)
        )
        factors, offsets = (columns.new_tensor(each) for each in (self.factors, self.offsets))
        terms = columns[..., chosen] * factors
        return offsets.expand(*columns.shape[:-1], -1).index_add(-1, rows, terms)


def angle_columns(weights: Tensor, inputs: Tensor | None, size: int) -> Tensor:
    """Return the weights and the inputs of each sample, shape (size, n_weights + n_inputs)."""
    columns = weights.expand(size, -1)
    return columns if inputs is None else torch.cat([columns, inputs], dim=1)


@dataclass(frozen=True)
class _Program:
    """A circuit as operations on states, and the angles that they read."""

    operations: tuple[_Rotation | _Constant, ...]
    shared: AffineAngles
    sample: AffineAngles
    is_real: bool

    def run(self, shared: Tensor, sample: Tensor, state: Tensor) -> Tensor:
        """Return the final states."""
        angles = _Angles.from_angles(shared, sample)
        for operation in self.operations:
            state = operation.apply(state, angles)
        return state


@cached_on_circuit
def _program(circuit: Circuit) -> _Program:
    operations: list[_Rotation | _Constant] = []
    shared, sample = AffineAngles(), AffineAngles()
    lowered = lower(circuit)
    for operation in lowered:
        if isinstance(operation, ConstantUnitary):
            operations.append(_Constant(np.array(operation.matrix), operation.qubits))
            continue
        is_shared = all(angle.source == "weight" for angle in angles_of(operation.angle))
        slot = (shared if is_shared else sample).add(operation.angle, circuit.n_weights)
        word = WordOnStates.on_qubits(operation.word, operation.qubits, circuit.n_qubits)
        operations.append(_Rotation(word, is_shared, slot))
    return _Program(tuple(operations), shared, sample, all(operation.is_real for operation in lowered))


def evolve(batch: CircuitBatch) -> Tensor:
    """Return the final amplitudes of each sample, shape (size, 2**n_qubits), differentiable in all three tensors.

    They are real if every gate and the initial amplitudes are. The result can be differentiated any number of times;
    second derivatives and function transforms store a state for each operation.
    """
    circuit, program, weights, inputs = batch.circuit, _program(batch.circuit), batch.weights, batch.inputs
    shared = program.shared.values(weights)
    sample = program.sample.values(angle_columns(weights, inputs, batch.size))
    if batch.initial is None:
        state = weights.new_zeros(batch.size, 2**circuit.n_qubits)
        state[:, 0] = 1
    else:
        state = batch.initial
    if not program.is_real and not state.is_complex():
        state = torch.complex(state, torch.zeros_like(state))
    if is_transformed():
        return program.run(shared, sample, state)
    result: Tensor = _Evolution.apply(program, shared, sample, state)  # type: ignore[no-untyped-call]
    return result


class _Evolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: _Program, shared: Tensor, sample: Tensor, state: Tensor) -> Tensor:
        """Return the final states."""
        final = program.run(shared, sample, state)
        ctx.program = program
        ctx.save_for_backward(shared, sample, state, final)
        return final

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the angles and the initial amplitudes."""
        shared, sample, initial, state = ctx.saved_tensors
        program: _Program = ctx.program
        if needs_recorded_operations(grad):
            return None, *differentiate_operations(program.run, (shared, sample, initial), grad)
        angles = _Angles.from_angles(shared, sample)
        grad_shared, grad_sample = torch.zeros_like(shared), torch.zeros_like(sample)
        for operation in reversed(program.operations):
            if isinstance(operation, _Rotation):
                slopes = (grad.conj() * operation.j(state)).real.sum(dim=1) / 2
                if operation.is_shared:
                    grad_shared[operation.slot] = slopes.sum()
                else:
                    grad_sample[:, operation.slot] = slopes
            state = operation.apply(state, angles, inverse=True)
            grad = operation.apply(grad, angles, inverse=True)
        grads = (grad_shared, grad_sample, grad)
        return None, *(each if needed else None for each, needed in zip(grads, ctx.needs_input_grad[1:], strict=True))
