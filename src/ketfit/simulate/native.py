"""The native engine: plans for the compiled kernel, and its expectations as differentiable torch functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import InputError
from ketfit.simulate import _kernel
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

MAX_JOINT = 12
"""Maximum number of qubits in a joint distribution."""


def expect(
    circuit: Circuit,
    qubits: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    signs: Tensor | None = None,
    joint: bool = False,
) -> Tensor:
    """Return <Z> of `qubits`, shape (batch, len(qubits)), or their joint distribution, (batch, 2**len(qubits)).

    The arguments are those of `ketfit.expectation`, already checked except that numbers are finite. Every gate is
    applied. `signs` multiply the angle of each rotation in each sample by +1 or -1: int8, shape (batch, rotations), in
    the order of the gates; None is +1. A Pauli error that is moved to the end of the circuit becomes such signs and
    flipped outcome bits. With `joint` the probability of each outcome is returned, the first of `qubits` the most
    significant bit.

    Raises:
        InputError: A number is not finite, `signs` do not fit, or the joint distribution has too many outcomes.
    """
    check_signs(circuit, batch, signs, weights.device)
    check_joint(qubits, joint)
    plan, buffer_pool = _plan(circuit, qubits, batch, weights.element_size(), joint)
    result: Tensor = _Native.apply(  # type: ignore[no-untyped-call]
        plan, weights, inputs, initial, batch, signs, buffer_pool
    )
    return result


def expect_and_differentiate(
    circuit: Circuit,
    qubits: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
) -> list[Tensor | None]:
    """Return <Z> of `qubits` and the gradients of the sum of <Z> times `cotangent`, in one call.

    The arguments are those of `ketfit.expectation`, already checked except that numbers are finite. Every gate is
    applied. `needs_grad` selects the gradients.

    Returns:
        The values, shape (batch, len(qubits)), and a gradient or None for weights, inputs and initial.

    Raises:
        InputError: A number is not finite.
    """
    plan, _ = _plan(circuit, qubits, batch, weights.element_size())
    weights, cotangent = weights.contiguous(), cotangent.contiguous()
    inputs = None if inputs is None else inputs.contiguous()
    initial = None if initial is None else initial.contiguous()
    result = weights.new_empty(batch, len(qubits))
    grads = [
        torch.empty_like(tensor) if needed and tensor is not None else None
        for tensor, needed in zip((weights, inputs, initial), needs_grad, strict=True)
    ]
    run = plan.forward_and_backward_f32 if weights.dtype == torch.float32 else plan.forward_and_backward_f64
    arrays = kernel_batch(batch, weights, inputs, initial)
    if not run(arrays, result.data_ptr(), cotangent.data_ptr(), kernel_gradients(*grads), kernel_threads()):
        check_finite(weights=weights, inputs=inputs, initial=initial, cotangent=cotangent)
    return [result, *grads]


def _plan(
    circuit: Circuit, qubits: tuple[int, ...], batch: int, itemsize: int, joint: bool = False
) -> tuple[Any, list[Tensor]]:
    """Return the plan for batches of this size, and the pool of its state buffers."""
    isa, sample_bits = choose_layout(circuit.n_qubits, batch, itemsize)
    key = ("plan", qubits, itemsize, sample_bits, joint, isa)
    if key not in circuit.cache:
        circuit.cache[key] = (make_plan(circuit, *key[1:]), [])
    plan_and_pool: tuple[Any, list[Tensor]] = circuit.cache[key]
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


def count_rotations(circuit: Circuit) -> int:
    """Return the number of rotations in the circuit, from its cache after the first call."""
    if "rotations" not in circuit.cache:
        circuit.cache["rotations"] = circuit.gate_counts()["ry"]
    number: int = circuit.cache["rotations"]
    return number


def check_signs(circuit: Circuit, batch: int, signs: Tensor | None, device: torch.device) -> None:
    """Raise InputError if the shape, dtype, device or a value of the signs of the rotations is wrong."""
    if signs is None:
        return
    shape = (batch, count_rotations(circuit))
    if not isinstance(signs, Tensor) or signs.shape != shape or signs.dtype != torch.int8 or signs.device != device:
        raise InputError(f"signs must be an int8 tensor of shape {shape} on {device}, one column for each rotation")
    # In NumPy, because torch's threads would spin after this operation on the cores that the kernel's threads need.
    if not (np.abs(signs.cpu().numpy()) == 1).all():
        raise InputError("signs has a value other than 1 and -1; pass 1, or -1 to negate the angle")


def check_joint(qubits: tuple[int, ...], joint: bool) -> None:
    """Raise InputError if a joint distribution has more than `MAX_JOINT` qubits."""
    if joint and len(qubits) > MAX_JOINT:
        raise InputError(
            f"the joint distribution of {len(qubits)} qubits has {2 ** len(qubits)} outcomes; "
            f"measure at most {MAX_JOINT} qubits"
        )


def check_finite(**tensors: Tensor | None) -> None:
    """Raise InputError with the name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds a number that is not finite (NaN or infinity)")


@lru_cache(maxsize=1024)
def choose_layout(n_qubits: int, batch: int, itemsize: int) -> tuple[str, int]:
    """Return the instruction set, and the binary logarithm of the number of samples that share a unit.

    Lanes that hold samples need no shuffles, but more samples need more cache, and a unit is computed by one thread.
    The layout must not depend on the number of threads, because the results depend on the layout.
    """
    lane_bits = _lane_bits(SAMPLE_ISA, itemsize)
    if n_qubits + lane_bits > _chunk_bits(itemsize) + 1:
        return ISA, 0
    sharing = batch if n_qubits < SHARED_QUBITS else (batch + 1) // 2
    return SAMPLE_ISA, max(min(lane_bits, (sharing - 1).bit_length()), lane_bits - n_qubits, 0)


def _lane_bits(isa: str, itemsize: int) -> int:
    return int(_kernel.lanes(isa, itemsize)).bit_length() - 1


def _chunk_bits(itemsize: int) -> int:
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
    lane_bits = _lane_bits(isa, itemsize)
    bits = circuit.n_qubits + sample_bits
    if chunk_bits is None:
        chunk_bits = _chunk_bits(itemsize)
        if bits <= chunk_bits + 1:  # a chunk of twice the size is faster than two stages
            chunk_bits = bits
    chunk_bits = min(chunk_bits, bits)
    stages = partition_stages(merge_gates(circuit), circuit.n_qubits, sample_bits, chunk_bits, low_bits=lane_bits + 2)
    in_lanes = frozenset(circuit.n_qubits - 1 - bit for bit in range(lane_bits - sample_bits))
    fused = [Stage(stage.positions, fuse_operations(stage.operations, in_lanes)) for stage in stages]
    operations, term_offsets, terms, ranges, positions = to_kernel_arrays(fused, circuit.n_qubits, sample_bits)
    return _kernel.Plan(
        instruction_set=isa,
        bits=bits,
        sample_bits=sample_bits,
        n_weights=circuit.n_weights,
        n_inputs=circuit.n_inputs,
        n_rotations=count_rotations(circuit),
        joint=joint,
        operations=operations,
        term_offsets=term_offsets,
        terms=terms,
        stages=ranges,
        positions=positions,
        measured=np.array([sample_bits + circuit.n_qubits - 1 - qubit for qubit in qubits], np.int32),
    )


def kernel_batch(
    size: int, weights: Tensor, inputs: Tensor | None, initial: Tensor | None, signs: Tensor | None = None
) -> _kernel.CircuitBatch:
    """Return the addresses of contiguous tensors for the kernel; the caller has to keep references to the tensors."""
    return _kernel.CircuitBatch(
        size=size,
        weights=weights.data_ptr(),
        inputs=0 if inputs is None else inputs.data_ptr(),
        initial=0 if initial is None else initial.data_ptr(),
        signs=0 if signs is None else signs.data_ptr(),
    )


def kernel_gradients(weights: Tensor | None, inputs: Tensor | None, initial: Tensor | None) -> _kernel.Gradients:
    """Return the addresses of the tensors that the kernel writes gradients into; None skips a gradient."""
    return _kernel.Gradients(
        weights=0 if weights is None else weights.data_ptr(),
        inputs=0 if inputs is None else inputs.data_ptr(),
        initial=0 if initial is None else initial.data_ptr(),
    )


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        plan: Any,
        weights: Tensor,
        inputs: Tensor | None,
        initial: Tensor | None,
        batch: int,
        signs: Tensor | None,
        buffer_pool: list[Tensor],
    ) -> Tensor:
        """Return the results, shape (batch, columns), and save the final states if the adjoint pass needs them."""
        weights = weights.contiguous()
        inputs = None if inputs is None else inputs.contiguous()
        initial = None if initial is None else initial.contiguous()
        signs = None if signs is None else signs.contiguous()
        state = None
        if any(ctx.needs_input_grad):
            state = _take_buffer(buffer_pool, weights, plan.n_units(batch), plan.unit_size)
            ctx.plan, ctx.batch, ctx.buffer_pool, ctx.states = plan, batch, buffer_pool, [state]
            ctx.save_for_backward(weights, inputs, initial, signs)
            ctx.set_materialize_grads(False)
        result = weights.new_empty(batch, plan.n_columns)
        ctx.scale, finite = _forward(plan, kernel_batch(batch, weights, inputs, initial, signs), result, state)
        if not finite:  # the kernel checks the weights, the inputs and the result
            check_finite(weights=weights, inputs=inputs, initial=initial)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        if grad is None:
            return (None,) * 7
        plan = ctx.plan
        weights, inputs, initial, signs = ctx.saved_tensors
        batch = kernel_batch(ctx.batch, weights, inputs, initial, signs)
        try:
            state = ctx.states.pop()  # the adjoint pass overwrites it
        except IndexError:  # used by an earlier backward pass, or by a concurrent one in another thread
            state = _take_buffer(ctx.buffer_pool, weights, plan.n_units(ctx.batch), plan.unit_size)
            _forward(plan, batch, torch.empty_like(grad), state)
        _, *needs_grad, _, _, _ = ctx.needs_input_grad
        grads = [
            torch.empty_like(tensor) if needed else None
            for tensor, needed in zip((weights, inputs, initial), needs_grad, strict=True)
        ]
        grad = grad.contiguous()  # the name keeps the tensor alive while the kernel reads its address
        run = plan.backward_f32 if weights.dtype == torch.float32 else plan.backward_f64
        run(batch, state.data_ptr(), ctx.scale, grad.data_ptr(), kernel_gradients(*grads), kernel_threads())
        if state.nbytes <= MAX_POOLED_BYTES and not ctx.buffer_pool:
            ctx.buffer_pool.append(state)
        return (None, *grads, None, None, None)


def _take_buffer(buffer_pool: list[Tensor], like: Tensor, units: int, size: int) -> Tensor:
    """Return a pooled buffer if its shape fits, and a new one otherwise."""
    try:
        buffer = buffer_pool.pop()
    except IndexError:
        return like.new_empty(units, size)
    return buffer if buffer.shape == (units, size) else like.new_empty(units, size)


def _forward(plan: Any, batch: _kernel.CircuitBatch, result: Tensor, state: Tensor | None) -> tuple[float, bool]:
    run = plan.forward_f32 if result.dtype == torch.float32 else plan.forward_f64
    saved = 0 if state is None else state.data_ptr()
    scale, finite = run(batch, result.data_ptr(), saved, kernel_threads())
    return scale, finite
