"""Complex statevectors of circuits of any gates in the native kernel: values of Pauli words, and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.errors import InputError
from ketfit.simulate import _kernel
from ketfit.simulate.native import (
    ISA,
    NO_SECOND_DERIVATIVE,
    SAMPLE_ISA,
    SHARED_QUBITS,
    count_lane_bits,
    default_chunk_bits,
    empty_gradients,
    kernel_batch,
    kernel_gradients,
    kernel_threads,
)
from ketfit.simulate.pauli_program import PauliProgram, PauliWord
from ketfit.simulate.pauli_scheduling import (
    Group,
    group_rotations,
    light_cone,
    partition_stages,
    start_from_zero,
    to_kernel_arrays,
)

LOW_BITS = 2
"""Bits of a chunk above those of the lanes that are the lowest ones of the state, so that memory access is in runs."""


@dataclass(frozen=True)
class ProgramBatch:
    """A program with the tensors of a batch of samples.

    Attributes:
        program: Program to run.
        weights: Shape (n_weights,), float32 or float64.
        inputs: Shape (size, n_inputs), of the dtype of the weights; None if the program reads none.
        initial: Complex amplitudes before the first operation, shape (size, 2**n_qubits), qubit 0 the most significant
            bit of the index; None is |0...0>.
        size: Number of samples.
    """

    program: PauliProgram
    weights: Tensor
    inputs: Tensor | None = None
    initial: Tensor | None = None

    @property
    def size(self) -> int:
        """Return the number of samples, 1 if neither `inputs` nor `initial` is given."""
        given = self.inputs if self.inputs is not None else self.initial
        return 1 if given is None else len(given)

    @property
    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return contiguous tensors of weights, inputs and initial."""
        inputs, initial = self.inputs, self.initial
        return (
            self.weights.contiguous(),
            None if inputs is None else inputs.contiguous(),
            None if initial is None else initial.resolve_conj().contiguous(),
        )


def expect_words(batch: ProgramBatch, words: Sequence[PauliWord]) -> Tensor:
    """Return the mean of each word, shape (size, len(words)), differentiable once."""
    plan, signs = _plan(batch, tuple(words))
    values: Tensor = _Values.apply(plan, batch, *batch.tensors)  # type: ignore[no-untyped-call]
    return values * values.new_tensor(signs)


def expect_words_and_differentiate(
    batch: ProgramBatch,
    words: Sequence[PauliWord],
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool] = (True, True, True),
) -> list[Tensor | None]:
    """Return the mean of each word, and gradients of the sum of means times `cotangent`, (size, len(words)).

    `needs_grad` selects the gradients of the weights, the inputs and the initial amplitudes; the others are None.
    """
    plan, signs = _plan(batch, tuple(words))
    tensors = batch.tensors
    factors = cotangent.new_tensor(signs)
    signed = (cotangent * factors).contiguous()
    values = torch.empty_like(signed)
    grads = empty_gradients(tensors, needs_grad)
    plan.forward_and_backward(
        kernel_batch(batch.size, *tensors),
        values.data_ptr(),
        signed.data_ptr(),
        kernel_gradients(*grads),
        kernel_threads(),
    )
    return [values * factors, *grads]


def simulate(batch: ProgramBatch) -> Tensor:
    """Return the final states, complex, shape (size, 2**n_qubits), differentiable once."""
    plan, _ = _plan(batch, None)
    states: Tensor = _States.apply(plan, batch, *batch.tensors)  # type: ignore[no-untyped-call]
    places, phases = batch.program.lowered[1].permutation()
    order = torch.from_numpy(np.argsort(places))
    return (states * torch.from_numpy(phases).to(states.dtype))[:, order]


def choose_layout(n_qubits: int, size: int, itemsize: int) -> tuple[str, int]:
    """Return the instruction set, and the binary logarithm of the number of samples that share a unit."""
    lane_bits = count_lane_bits(SAMPLE_ISA, itemsize)
    if n_qubits + lane_bits > default_chunk_bits(2 * itemsize) + 1:
        return ISA, max(count_lane_bits(ISA, itemsize) - n_qubits, 0)
    sharing = size if n_qubits < SHARED_QUBITS else (size + 1) // 2
    return SAMPLE_ISA, max(min(lane_bits, (sharing - 1).bit_length()), lane_bits - n_qubits, 0)


def make_plan(
    program: PauliProgram,
    words: Sequence[PauliWord] | None,
    itemsize: int,
    *,
    from_zero: bool,
    isa: str,
    sample_bits: int,
    chunk_bits: int | None = None,
) -> Any:
    """Return the kernel's plan; without words it keeps all rotations. `chunk_bits` is for tests."""
    rotations = [replace(rotation, word=_shift(rotation.word, sample_bits)) for rotation in program.lowered[0]]
    observed = [_shift(word, sample_bits) for word in words or ()]
    if from_zero:
        rotations = start_from_zero(rotations)
    if words is not None:
        rotations = light_cone(rotations, observed)
    groups: list[Group] = group_rotations(rotations, from_zero=from_zero)
    bits = program.n_qubits + sample_bits
    if chunk_bits is None:
        chunk_bits = default_chunk_bits(2 * itemsize)
        if bits <= chunk_bits + 1:
            chunk_bits = bits
    low_bits = count_lane_bits(isa, itemsize) + LOW_BITS
    return _kernel.ComplexPlan(
        instruction_set=isa,
        itemsize=itemsize,
        bits=bits,
        sample_bits=sample_bits,
        n_weights=program.n_weights,
        n_inputs=program.n_inputs,
        **to_kernel_arrays(partition_stages(groups, bits, min(chunk_bits, bits), low_bits), sample_bits),
        words=np.array([(word.x, word.z) for word in observed], np.int64).reshape(-1, 2),
    )


def _shift(word: PauliWord, sample_bits: int) -> PauliWord:
    """Return the word on a unit, in which the lowest bits number samples."""
    return replace(word, x=word.x << sample_bits, z=word.z << sample_bits)


def _plan(batch: ProgramBatch, words: tuple[PauliWord, ...] | None) -> tuple[Any, list[float]]:
    """Return the plan for batches of this size, and the signs of the words' values."""
    program, itemsize = batch.program, batch.weights.element_size()
    isa, sample_bits = choose_layout(program.n_qubits, batch.size, itemsize)
    key = ("plan", words, itemsize, batch.initial is None, sample_bits, isa)
    found = program.cache.get(key)
    if found is None:
        images = None if words is None else [program.lowered[1].image(word) for word in words]
        plan = make_plan(program, images, itemsize, from_zero=batch.initial is None, isa=isa, sample_bits=sample_bits)
        found = program.cache[key] = (plan, [float(image.sign) for image in images or ()])
    return found  # type: ignore[return-value]


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Any, batch: ProgramBatch, *tensors: Tensor | None) -> Tensor:
        """Return the words' values, and save the final states if the adjoint pass needs them."""
        weights = batch.weights
        states = weights.new_empty(plan.n_units(batch.size), 2 * plan.unit_size) if any(ctx.needs_input_grad) else None
        values = weights.new_empty(batch.size, plan.n_words)
        plan.forward(
            kernel_batch(batch.size, *tensors),  # type: ignore[arg-type]
            values.data_ptr(),
            0 if states is None else states.data_ptr(),
            kernel_threads(),
        )
        ctx.plan, ctx.size = plan, batch.size
        ctx.save_for_backward(*tensors, states)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        return _differentiate(ctx, grad, 0)


class _States(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Any, batch: ProgramBatch, *tensors: Tensor | None) -> Tensor:
        """Return the states of the kernel, complex, shape (size, 2**n_qubits)."""
        weights = batch.weights
        states = weights.new_empty(plan.n_units(batch.size), 2 * plan.unit_size)
        addresses = kernel_batch(batch.size, *tensors)  # type: ignore[arg-type]
        plan.forward(addresses, 0, states.data_ptr(), kernel_threads())
        dtype = torch.complex64 if weights.dtype == torch.float32 else torch.complex128
        amplitudes = torch.empty(batch.size, 2**batch.program.n_qubits, dtype=dtype)
        plan.unpack(addresses, states.data_ptr(), amplitudes.data_ptr())
        ctx.plan, ctx.size = plan, batch.size
        ctx.save_for_backward(*tensors, states)
        return amplitudes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        return _differentiate(ctx, grad.resolve_conj(), 1)


def _differentiate(ctx: Any, grad: Tensor, of_states: int) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise InputError(NO_SECOND_DERIVATIVE)
    *tensors, states = ctx.saved_tensors
    grad = grad.contiguous()
    grads = empty_gradients(tensors, ctx.needs_input_grad[2:])
    work = states.clone()  # the adjoint pass overwrites it
    addresses = [0, grad.data_ptr()] if of_states else [grad.data_ptr(), 0]
    ctx.plan.backward(
        kernel_batch(ctx.size, *tensors),
        work.data_ptr(),
        *addresses,
        kernel_gradients(*grads),
        kernel_threads(),
    )
    return None, None, *grads
