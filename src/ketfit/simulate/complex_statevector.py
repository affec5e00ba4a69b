"""Complex statevectors of circuits of any gates in the native kernel: means of Pauli words, and states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.errors import InputError
from ketfit.simulate import _kernel
from ketfit.simulate.circuit_batch import (
    CircuitBatch,
    Tensors,
    as_stored,
    check_finite,
    check_tensor,
    check_tensors,
    detached,
)
from ketfit.simulate.evolution import differentiate_operations, needs_recorded_operations
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
from ketfit.simulate.pauli_program import AmplitudeMap, PauliProgram, PauliWord
from ketfit.simulate.pauli_scheduling import (
    Group,
    group_rotations,
    light_cone,
    partition_stages,
    shift_word,
    start_from_zero,
    to_kernel_arrays,
)

LOW_BITS = 2
"""Bits above those of the lanes that are the lowest of a chunk and of the state: memory is read and written in runs."""

RUN_BYTES = 256
"""Smallest number of bytes of a run, unless a chunk is shorter."""

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


@dataclass(frozen=True, eq=False)
class ProgramBatch:
    """A program with the tensors of a batch of samples, checked when the batch is built except that numbers are finite.

    The tensors are contiguous, so they are copies of those given where those are not.

    Attributes:
        program: Program to run.
        weights: Shape (n_weights,), float32 or float64.
        inputs: Shape (size, n_inputs), of the dtype of the weights; None only if the program reads none.
        initial: Amplitudes before the first operation, shape (size, 2**n_qubits), qubit 0 the most significant bit of
            the index; None is |0...0>. They become complex.
        signs: Signs +1 or -1 of the angle of each of the program's lowered rotations in each sample, int8, shape (size,
            rotations); None is +1. A Pauli error that is moved to the end of the circuit becomes such signs.
        size: Number of samples, 1 if neither `inputs` nor `initial` is given.

    Raises:
        InputError: A tensor has the wrong shape, dtype or device.

    >>> ProgramBatch(PauliProgram(1, 0, 0, ()), torch.zeros(0), initial=torch.eye(2, dtype=torch.complex64)).size
    2
    """

    program: PauliProgram
    weights: Tensor
    inputs: Tensor | None = None
    initial: Tensor | None = None
    signs: Tensor | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        check_tensors(self.program, self)
        if self.signs is not None:
            shape = (self.size, len(self.program.lowered[0]))
            if self.signs.shape != shape or self.signs.dtype != torch.int8 or not (self.signs.abs() == 1).all():
                raise InputError(
                    f"signs must be 1 and -1 in an int8 tensor of shape {shape}, a column for each rotation"
                )
            object.__setattr__(self, "signs", self.signs.contiguous())
        if self.initial is not None:
            object.__setattr__(self, "initial", as_complex(self.initial))

    @classmethod
    def from_circuit_batch(cls, program: PauliProgram, batch: CircuitBatch) -> ProgramBatch:
        """Return the batch with the program of its circuit; its tensors are not checked again."""
        made = object.__new__(cls)
        initial = None if batch.initial is None else as_complex(batch.initial)
        made.__dict__.update(batch.__dict__, program=program, initial=initial, signs=None)
        return made

    @property
    def addresses(self) -> _kernel.CircuitBatch:
        """The addresses of the tensors for the kernel."""
        return kernel_batch(self.size, *self.tensors, self.signs)

    @property
    def tensors(self) -> Tensors:
        """The weights, the inputs and the initial amplitudes."""
        return self.weights, self.inputs, self.initial

    @property
    def recorded_tensors(self) -> Tensors:
        """The tensors for an autograd function, detached where autograd is off: `needs_input_grad` ignores that."""
        return self.tensors if torch.is_grad_enabled() else detached(self.tensors)

    def check_finite(self) -> None:
        """Raise InputError with the name of the first tensor that holds NaN or infinity."""
        check_finite(weights=self.weights, inputs=self.inputs, initial=self.initial)


def as_complex(tensor: Tensor) -> Tensor:
    """Return a real tensor with imaginary parts of 0, or a complex one as it is."""
    return tensor if tensor.is_complex() else torch.complex(tensor, torch.zeros_like(tensor))


def expect_words(batch: ProgramBatch, words: Sequence[PauliWord]) -> Tensor:
    """Return the mean of each word, shape (size, len(words)), differentiable once.

    Raises:
        InputError: A number is not finite.

    >>> from ketfit.simulate.pauli_program import AngleTerms, Rotation
    >>> program = PauliProgram(1, 1, 0, (Rotation(PauliWord(1, 0), AngleTerms(weights=((0, 1.0),))),))
    >>> expect_words(ProgramBatch(program, torch.tensor([torch.pi / 3])), [PauliWord(0, 1)])
    tensor([[0.5000]])
    """
    plan = plan_for(batch, tuple(words))
    values: Tensor = WordMeans.apply(plan, batch, *batch.recorded_tensors)  # type: ignore[no-untyped-call]
    return values


def expect_words_and_differentiate(
    batch: ProgramBatch,
    words: Sequence[PauliWord],
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
) -> list[Tensor | None]:
    """Return the mean of each word, and gradients of the sum of means times `cotangent`, in one call.

    `cotangent` has a row for each sample and a column for each word. `needs_grad` selects the gradients of the weights,
    the inputs and the initial amplitudes; the others are None. The gradient of an amplitude is that by its real part
    plus i times that by its imaginary part, as in torch.

    Raises:
        InputError: A number is not finite, or `cotangent` has the wrong shape or dtype.
    """
    check_tensor("cotangent", cotangent, batch.weights, len(words), 2)
    if len(cotangent) != batch.size:
        raise InputError(f"cotangent has {len(cotangent)} rows for a batch of {batch.size}; pass one for each sample")
    return forward_and_backward(plan_for(batch, tuple(words)), batch, cotangent, needs_grad)


def forward_and_backward(
    plan: Any, batch: ProgramBatch, cotangent: Tensor, needs_grad: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    """Return `expect_words_and_differentiate` of the words of a plan; the cotangent has to fit.

    Raises:
        InputError: A number is not finite.
    """
    cotangent = cotangent.contiguous()
    values = torch.empty_like(cotangent)
    grads = empty_gradients(batch.tensors, needs_grad)
    if not plan.forward_and_backward(
        batch.addresses,
        values.data_ptr(),
        cotangent.data_ptr(),
        kernel_gradients(*grads),
        kernel_threads(),
    ):
        batch.check_finite()
        check_finite(cotangent=cotangent)
    return [values, *grads]


def simulate(batch: ProgramBatch, compute_again: Callable[..., Tensor] | None = None) -> Tensor:
    """Return the final states, complex, shape (size, 2**n_qubits).

    Any observable can be computed from them: their gradient is where the adjoint pass starts. They are differentiable
    once, or any number of times if `compute_again` returns them from the tensors of the batch by torch's operations.

    Raises:
        InputError: A number is not finite.
    """
    plan = plan_for(batch, None)
    states: Tensor = _States.apply(  # type: ignore[no-untyped-call]
        plan, batch, compute_again, *batch.recorded_tensors
    )
    return states


@lru_cache(maxsize=1024)
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
    """Return the kernel's plan for the means of words, or without words for states.

    `from_zero` is True if there are no initial amplitudes. `chunk_bits` is for tests and by default follows from the
    size of the cache.
    """
    lowered, frame = program.lowered
    observed = [shift_word(frame.image(word), sample_bits) for word in words or ()]
    rotations = [replace(rotation, word=shift_word(rotation.word, sample_bits)) for rotation in lowered]
    if from_zero:
        rotations = start_from_zero(rotations)
    if words is not None:
        rotations = light_cone(rotations, observed)
    is_real = from_zero and words is not None and all(rotation.is_real for rotation in rotations)
    return plan_of_groups(
        group_rotations(rotations, from_zero=from_zero),
        observed,
        frame.amplitude_map() if words is None else AmplitudeMap.empty(),
        KernelLayout(isa, itemsize, is_real, program.n_qubits + sample_bits, sample_bits, chunk_bits),
        (program.n_weights, program.n_inputs, len(lowered)),
    )


@dataclass(frozen=True, slots=True)
class KernelLayout:
    """How the kernel stores states.

    Attributes:
        isa: Instruction set.
        itemsize: Bytes of a real number.
        is_real: States have no imaginary parts.
        bits: Binary logarithm of the number of amplitudes in a unit.
        sample_bits: Binary logarithm of the number of samples that share a unit.
        chunk_bits: Binary logarithm of the number of amplitudes in a chunk; by default it follows from the cache.
    """

    isa: str
    itemsize: int
    is_real: bool
    bits: int
    sample_bits: int
    chunk_bits: int | None = None

    @property
    def parts(self) -> int:
        """Real numbers of an amplitude."""
        return 1 if self.is_real else 2


def plan_of_groups(
    groups: Sequence[Group],
    words: Sequence[PauliWord],
    frame: AmplitudeMap,
    layout: KernelLayout,
    counts: tuple[int, int, int],
) -> Any:
    """Return the kernel's plan of groups and words over the bits of a unit; `counts`: weights, inputs and signs."""
    bits, chunk_bits = layout.bits, layout.chunk_bits
    if chunk_bits is None:
        chunk_bits = default_chunk_bits(layout.itemsize * layout.parts)
        if bits <= chunk_bits + 1:  # a chunk of twice the size is faster than two stages
            chunk_bits = bits
    run_bits = (RUN_BYTES // (layout.itemsize * layout.parts)).bit_length() - 1
    low_bits = max(count_lane_bits(layout.isa, layout.itemsize) + LOW_BITS, min(run_bits, chunk_bits - 1))
    n_weights, n_inputs, n_signs = counts
    return _kernel.ComplexPlan(
        instruction_set=layout.isa,
        itemsize=layout.itemsize,
        is_real=layout.is_real,
        bits=bits,
        sample_bits=layout.sample_bits,
        n_weights=n_weights,
        n_inputs=n_inputs,
        n_signs=n_signs,
        **to_kernel_arrays(partition_stages(groups, bits, min(chunk_bits, bits), low_bits)),
        words=np.array([(word.x, word.z, word.sign) for word in words], np.int64).reshape(-1, 3),
        frame_offset=frame.offset,
        frame_phase=frame.phase,
        frame=frame.bits,
    )


def plan_for(batch: ProgramBatch, words: tuple[PauliWord, ...] | None) -> Any:
    """Return the plan for batches of this size."""
    program, itemsize, from_zero = batch.program, batch.weights.element_size(), batch.initial is None
    isa, sample_bits = choose_layout(program.n_qubits, batch.size, itemsize)
    key = ("plan", words, itemsize, from_zero, sample_bits, isa)
    plan = program.cache.get(key)
    if plan is None:
        plan = make_plan(program, words, itemsize, from_zero=from_zero, isa=isa, sample_bits=sample_bits)
        program.cache[key] = plan
    return plan


class WordMeans(torch.autograd.Function):
    """Means of words in the kernel, differentiable once by the adjoint pass."""

    @staticmethod
    def forward(ctx: Any, plan: Any, batch: ProgramBatch, *tensors: Tensor | None) -> Tensor:
        """Return the means of the words, and save the final states if the adjoint pass needs them."""
        values, states = batch.weights.new_empty(batch.size, plan.n_words), None
        if any(ctx.needs_input_grad):
            states = batch.weights.new_empty(plan.n_units(batch.size), plan.unit_numbers)
            ctx.plan, ctx.size, ctx.states = plan, batch.size, [states]
            ctx.save_for_backward(*batch.tensors, batch.signs)
        address = 0 if states is None else states.data_ptr()
        if not plan.forward(batch.addresses, values.data_ptr(), address, kernel_threads()):
            batch.check_finite()
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if needs_recorded_operations(grad):
            raise InputError(NO_SECOND_DERIVATIVE)
        plan, tensors, grad = ctx.plan, ctx.saved_tensors[:3], grad.contiguous()
        addresses = kernel_batch(ctx.size, *ctx.saved_tensors)
        try:
            states = ctx.states.pop()  # the adjoint pass overwrites it
        except IndexError:  # used by an earlier backward pass
            states = tensors[0].new_empty(plan.n_units(ctx.size), plan.unit_numbers)
            values = torch.empty_like(grad)
            plan.forward(addresses, values.data_ptr(), states.data_ptr(), kernel_threads())
        grads = empty_gradients(tensors, ctx.needs_input_grad[-3:])
        plan.backward(addresses, states.data_ptr(), grad.data_ptr(), kernel_gradients(*grads), kernel_threads())
        return None, None, *grads


class _States(torch.autograd.Function):
    """Final states in the kernel, whose adjoint pass starts from them and their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Any,
        batch: ProgramBatch,
        compute_again: Callable[..., Tensor] | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        """Return the final states, shape (size, 2**n_qubits)."""
        dtype = _COMPLEX[batch.weights.dtype]
        amplitudes = batch.weights.new_empty(batch.size, 2**batch.program.n_qubits, dtype=dtype)
        if not plan.simulate(batch.addresses, amplitudes.data_ptr(), kernel_threads()):
            batch.check_finite()
        if any(ctx.needs_input_grad):
            ctx.plan, ctx.size, ctx.compute_again = plan, batch.size, compute_again
            ctx.save_for_backward(*batch.tensors, batch.signs, amplitudes)
        return amplitudes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        *saved, amplitudes = ctx.saved_tensors
        tensors = saved[:3]
        if needs_recorded_operations(grad):
            if ctx.compute_again is None:
                raise InputError(NO_SECOND_DERIVATIVE)
            return None, None, None, *differentiate_operations(ctx.compute_again, tensors, grad)
        grads = empty_gradients(tensors, ctx.needs_input_grad[3:])
        _backward_from_states(ctx.plan, kernel_batch(ctx.size, *saved), amplitudes, grad, grads)
        return None, None, None, *grads


def differentiate_states(batch: ProgramBatch, states: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the gradients of the weights, the inputs and the initial amplitudes from that of the final states.

    Args:
        batch: Batch with inputs and with initial amplitudes, whose numbers do not matter: the final states are known.
        states: Final states, complex, shape (size, 2**n_qubits).
        grad: Their gradient.
    """
    grads = [torch.empty_like(tensor) for tensor in batch.tensors if tensor is not None]
    _backward_from_states(plan_for(batch, None), batch.addresses, states, grad, grads)
    return grads


def _backward_from_states(
    plan: Any, addresses: _kernel.CircuitBatch, states: Tensor, grad: Tensor, grads: Sequence[Tensor | None]
) -> None:
    """Write the gradients that are not None."""
    grad = as_stored(grad)
    plan.backward_from_states(addresses, states.data_ptr(), grad.data_ptr(), kernel_gradients(*grads), kernel_threads())
