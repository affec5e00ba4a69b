"""The native engine: plans for the compiled kernel, and its expectations as differentiable torch functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.errors import InputError
from ketfit.simulate import _kernel
from ketfit.simulate.circuit_batch import CircuitBatch, check_finite
from ketfit.simulate.evolution import differentiate_operations, needs_recorded_operations
from ketfit.simulate.scheduling import Stage, fuse_operations, merge_gates, partition_stages, to_kernel_arrays

ISAS: tuple[str, ...] = tuple(_kernel.instruction_sets())
"""The instruction sets that the kernel has code for and this processor supports, from the widest to the narrowest."""

ISA = ISAS[0]

# If samples share a unit, lanes of twice the width give units of twice the size, and half as many for the threads.
# On Zen 4, which processes 512 bits in two halves, they are slower from 8 qubits on and no faster below.
SAMPLE_ISA = next(isa for isa in ISAS if isa != "avx512")

# A quarter of the second-level cache, with 256 KB as the default if its size is unknown. Sizes above 2 MB were not
# measured (cores may share such a cache).
CHUNK_BYTES: int = min(_kernel.cache_bytes() or 2**18, 2**21) // 4
"""Bytes of a chunk of a state: a chunk and its adjoint fill half of a core's second-level cache."""

# From this number of qubits on, two threads are faster for a batch of a few samples.
SHARED_QUBITS = 8

# States up to this size are pooled with their plan: new pages from the system cost more time than a small step.
MAX_POOLED_BYTES = 2**24

NO_SECOND_DERIVATIVE = (
    "expectation is differentiable once; leave create_graph=True out, and differentiate one value at a time (no "
    "vectorize=True)"
)

MAX_JOINT = 12
"""Maximum number of qubits in a joint distribution."""


def expect(
    batch: CircuitBatch,
    qubits: tuple[int, ...],
    signs: Tensor | None = None,
    joint: bool = False,
    compute_again: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Return <Z> of `qubits`, shape (size, len(qubits)), or their joint distribution, (size, 2**len(qubits)).

    `signs` multiply the angle of each rotation in each sample by +1 or -1: int8, shape (size, rotations), in the order
    of the gates; None is +1. A Pauli error that is moved to the end of the circuit becomes such signs and flipped
    outcome bits. With `joint` the probability of each outcome is returned, the first of `qubits` the most significant
    bit. Qubits and signs have to be valid.

    The result is differentiable once, or any number of times if there are no signs and `compute_again` returns it from
    the tensors of the batch by torch's operations.

    Raises:
        InputError: A number is not finite.
    """
    if signs is not None:
        signs = signs_in_light_cone(batch.circuit, qubits, signs)
    result: Tensor = NativeExpectation.apply(  # type: ignore[no-untyped-call]
        plan_for(batch, qubits, joint), batch, signs, compute_again, *batch.recorded_tensors
    )
    return result


def expect_and_differentiate(
    batch: CircuitBatch, qubits: tuple[int, ...], cotangent: Tensor, needs_grad: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    """Return <Z> of `qubits` and the gradients of the sum of <Z> times `cotangent`, in one call.

    `needs_grad` selects the gradients of the weights, the inputs and the initial amplitudes; the others are None.

    Raises:
        InputError: A number is not finite.
    """
    plan, _ = plan_for(batch, qubits)
    tensors, cotangent = batch.tensors, cotangent.contiguous()
    result = cotangent.new_empty(batch.size, len(qubits))
    grads = empty_gradients(tensors, needs_grad)
    addresses = kernel_batch(batch.size, *tensors)
    if not plan.forward_and_backward(
        addresses, result.data_ptr(), cotangent.data_ptr(), kernel_gradients(*grads), kernel_threads()
    ):
        batch.check_finite()
        check_finite(cotangent=cotangent)
    return [result, *grads]


def plan_for(batch: CircuitBatch, qubits: tuple[int, ...], joint: bool = False) -> tuple[Any, list[Tensor]]:
    """Return the plan of the light cone for batches of this size, and the pool of its state buffers."""
    circuit, itemsize = batch.circuit, batch.weights.element_size()  # not cached_on_circuit: each microsecond counts
    isa, sample_bits = choose_layout(circuit.n_qubits, batch.size, itemsize)
    key = ("plan", qubits, itemsize, sample_bits, joint, isa)
    plan_and_pool: tuple[Any, list[Tensor]] | None = circuit.cache.get(key)
    if plan_and_pool is None:
        plan_and_pool = circuit.cache[key] = (make_plan(circuit.light_cone(qubits), *key[1:]), [])
    return plan_and_pool


_threads: ContextVar[int | None] = ContextVar("kernel's threads", default=None)


def kernel_threads() -> int:
    """Return the number of threads of the kernel: that of torch, or of torch before `limit_torch_threads`."""
    return _threads.get() or torch.get_num_threads()


@contextmanager
def limit_torch_threads() -> Iterator[None]:
    """Run torch's operations on one thread within the context, and the kernel on as many as torch had before.

    This is faster for loops of small operations around the kernel, where torch's threads, which spin after each
    operation, and the kernel's threads compete for the cores. The kernel's number holds for the calling thread;
    threads that start within the context find torch with one thread.
    """
    threads = kernel_threads()
    token = _threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.reset(token)


@cached_on_circuit
def count_rotations(circuit: Circuit) -> int:
    """Return the number of rotations in the circuit."""
    return circuit.gate_counts()["ry"]


def check_signs(batch: CircuitBatch, signs: Tensor | None) -> None:
    """Raise InputError if the shape, dtype, device or a value of the signs of the rotations is wrong."""
    if signs is None:
        return
    shape, device = (batch.size, count_rotations(batch.circuit)), batch.weights.device
    if not isinstance(signs, Tensor) or signs.shape != shape or signs.dtype != torch.int8 or signs.device != device:
        raise InputError(f"signs must be an int8 tensor of shape {shape} on {device}, one column for each rotation")
    # In NumPy, because torch's threads would spin after this operation on the cores that the kernel's threads need.
    if not (np.abs(signs.cpu().numpy()) == 1).all():
        raise InputError("signs has a value other than 1 and -1; pass 1, or -1 to negate the angle")


def signs_in_light_cone(circuit: Circuit, measured: tuple[int, ...], signs: Tensor) -> Tensor:
    """Return the columns of the rotations in the light cone of `measured`."""
    columns = _rotations_in_light_cone(circuit, measured)
    return signs if len(columns) == signs.shape[1] else signs[:, columns]


@cached_on_circuit
def _rotations_in_light_cone(circuit: Circuit, measured: tuple[int, ...]) -> Tensor:
    """Return the indices of the rotations in the light cone: the first ones on each qubit."""
    remaining = Counter(gate.target for gate in circuit.light_cone(measured).gates if gate.angle is not None)
    indices = []
    for rotation, qubit in enumerate(gate.target for gate in circuit.gates if gate.angle is not None):
        if remaining[qubit]:
            remaining[qubit] -= 1
            indices.append(rotation)
    return torch.tensor(indices, dtype=torch.long)


def check_joint(qubits: tuple[int, ...], joint: bool) -> None:
    """Raise InputError if a joint distribution has more than `MAX_JOINT` qubits."""
    if joint and len(qubits) > MAX_JOINT:
        raise InputError(
            f"the joint distribution of {len(qubits)} qubits has {2 ** len(qubits)} outcomes; "
            f"measure at most {MAX_JOINT} qubits"
        )


@lru_cache(maxsize=1024)
def choose_layout(n_qubits: int, batch: int, itemsize: int) -> tuple[str, int]:
    """Return the instruction set, and the binary logarithm of the number of samples that share a unit.

    Lanes that hold samples need no shuffles, but more samples need more cache, and a unit is computed by one thread.
    The layout must not depend on the number of threads, because the results depend on the layout.
    """
    lane_bits = count_lane_bits(SAMPLE_ISA, itemsize)
    if n_qubits + lane_bits > default_chunk_bits(itemsize) + 1:
        return ISA, 0
    sharing = batch if n_qubits < SHARED_QUBITS else (batch + 1) // 2
    return SAMPLE_ISA, max(min(lane_bits, (sharing - 1).bit_length()), lane_bits - n_qubits, 0)


def count_lane_bits(isa: str, itemsize: int) -> int:
    """Return the binary logarithm of the number of lanes of an instruction set."""
    return int(_kernel.lanes(isa, itemsize)).bit_length() - 1


def default_chunk_bits(itemsize: int) -> int:
    """Return the binary logarithm of the number of amplitudes of `itemsize` bytes in a chunk."""
    return (CHUNK_BYTES // itemsize).bit_length() - 1


def make_plan(
    circuit: Circuit,
    qubits: tuple[int, ...],
    itemsize: int,
    sample_bits: int,
    joint: bool = False,
    isa: str = ISA,
    chunk_bits: int | None = None,
) -> Any:
    """Return the kernel's plan; `chunk_bits` is for tests and by default follows from the size of the cache."""
    lane_bits = count_lane_bits(isa, itemsize)
    bits = circuit.n_qubits + sample_bits
    if chunk_bits is None:
        chunk_bits = default_chunk_bits(itemsize)
        if bits <= chunk_bits + 1:  # a chunk of twice the size is faster than two stages
            chunk_bits = bits
    chunk_bits = min(chunk_bits, bits)
    stages = partition_stages(merge_gates(circuit), circuit.n_qubits, sample_bits, chunk_bits, low_bits=lane_bits + 2)
    in_lanes = frozenset(circuit.n_qubits - 1 - bit for bit in range(lane_bits - sample_bits))
    fused = [Stage(stage.positions, fuse_operations(stage.operations, in_lanes)) for stage in stages]
    return _kernel.Plan(
        instruction_set=isa,
        bits=bits,
        sample_bits=sample_bits,
        n_weights=circuit.n_weights,
        n_inputs=circuit.n_inputs,
        n_rotations=count_rotations(circuit),
        joint=joint,
        **to_kernel_arrays(fused, circuit.n_qubits, sample_bits),
        measured=np.array([sample_bits + circuit.n_qubits - 1 - qubit for qubit in qubits], np.int32),
    )


def empty_gradients(tensors: Sequence[Tensor | None], needs_grad: Sequence[bool]) -> list[Tensor | None]:
    """Return a tensor for each gradient that is needed, and None for the others."""
    pairs = zip(tensors, needs_grad, strict=True)
    return [torch.empty_like(tensor) if needed and tensor is not None else None for tensor, needed in pairs]


def kernel_batch(
    size: int, weights: Tensor, inputs: Tensor | None, initial: Tensor | None, signs: Tensor | None = None
) -> _kernel.CircuitBatch:
    """Return the addresses of contiguous tensors for the kernel; the caller has to keep references to the tensors."""
    return _kernel.CircuitBatch(
        weights.element_size(),
        size,
        weights.data_ptr(),
        0 if inputs is None else inputs.data_ptr(),
        0 if initial is None else initial.data_ptr(),
        0 if signs is None else signs.data_ptr(),
    )


def kernel_gradients(weights: Tensor | None, inputs: Tensor | None, initial: Tensor | None) -> _kernel.Gradients:
    """Return the addresses of the tensors that the kernel writes gradients into; None skips a gradient."""
    return _kernel.Gradients(
        0 if weights is None else weights.data_ptr(),
        0 if inputs is None else inputs.data_ptr(),
        0 if initial is None else initial.data_ptr(),
    )


class NativeExpectation(torch.autograd.Function):
    """The kernel's expectations, differentiable by the adjoint pass, or in torch where that is differentiated again."""

    @staticmethod
    def forward(
        ctx: Any,
        plan_and_pool: tuple[Any, list[Tensor]],
        batch: CircuitBatch,
        signs: Tensor | None,
        compute_again: Callable[..., Tensor] | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        """Return the results, shape (size, columns), and save the final states if the adjoint pass needs them."""
        plan, buffer_pool = plan_and_pool
        saved: tuple[Any, ...] = (*tensors, None if signs is None else signs.contiguous())
        weights, state = batch.weights, None
        if any(ctx.needs_input_grad):
            state = _take_buffer(buffer_pool, weights, plan.n_units(batch.size), plan.unit_size)
            ctx.plan, ctx.size, ctx.buffer_pool, ctx.states = plan, batch.size, buffer_pool, [state]
            ctx.compute_again = compute_again
            ctx.save_for_backward(*saved)
            ctx.set_materialize_grads(False)
        result: Tensor = weights.new_empty(batch.size, plan.n_columns)
        addresses = kernel_batch(batch.size, *saved)
        ctx.scale, finite = plan.forward(
            addresses, result.data_ptr(), 0 if state is None else state.data_ptr(), kernel_threads()
        )
        if not finite:  # the kernel checks the weights, the inputs and the result
            batch.check_finite()
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if grad is None:
            return (None,) * 7
        plan, saved = ctx.plan, ctx.saved_tensors
        if needs_recorded_operations(grad):
            if ctx.compute_again is None or saved[3] is not None:
                raise InputError(NO_SECOND_DERIVATIVE)
            return None, None, None, None, *differentiate_operations(ctx.compute_again, saved[:3], grad)
        grad = grad.contiguous()
        addresses = kernel_batch(ctx.size, *saved)
        try:
            state = ctx.states.pop()  # the adjoint pass overwrites it
        except IndexError:  # used by an earlier backward pass, or by a concurrent one in another thread
            state = _take_buffer(ctx.buffer_pool, grad, plan.n_units(ctx.size), plan.unit_size)
            result = torch.empty_like(grad)
            plan.forward(addresses, result.data_ptr(), state.data_ptr(), kernel_threads())
        grads = empty_gradients(saved[:3], ctx.needs_input_grad[4:])
        plan.backward(
            addresses, state.data_ptr(), ctx.scale, grad.data_ptr(), kernel_gradients(*grads), kernel_threads()
        )
        if state.nbytes <= MAX_POOLED_BYTES and not ctx.buffer_pool:
            ctx.buffer_pool.append(state)
        return None, None, None, None, *grads


def _take_buffer(buffer_pool: list[Tensor], like: Tensor, units: int, size: int) -> Tensor:
    """Return a pooled buffer if its shape fits, and a new one otherwise."""
    try:
        buffer = buffer_pool.pop()
    except IndexError:
        return like.new_empty(units, size)
    return buffer if buffer.shape == (units, size) else like.new_empty(units, size)
