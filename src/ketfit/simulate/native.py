"""The native engine: which plan the kernel follows, and its expectation as a function that torch differentiates."""

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
from ketfit.simulate.scheduling import Stage, cut_stages, fuse_operations, merge_gates, tables

ISAS: tuple[str, ...] = tuple(_kernel.instruction_sets())
"""The instruction sets of this processor that the kernel was built for, from the widest to the narrowest."""

ISA = ISAS[0]

# Where samples share a unit, lanes of twice the width make units of twice the size and half as many for the threads:
# on Zen 4, which takes 512 bits in two halves, they are slower from 8 qubits on and no faster below.
SAMPLE_ISA = next(isa for isa in ISAS if isa != "avx512")

# A quarter of the second-level cache, which is taken for 256 KB where the system does not say; beyond 2 MB (it may be
# shared by cores) nothing was measured.
CHUNK_BYTES: int = min(_kernel.cache_bytes() or 2**18, 2**21) // 4
"""Bytes of a chunk of a state: with its adjoint it takes half of a core's second-level cache."""

# From so many qubits on a batch of a few samples is worth two threads.
SHARED_QUBITS = 8

# States up to this size wait for the next step with their plan: fresh pages from the system cost more than small steps.
SPARE_BYTES = 2**24

MAX_JOINT = 12
"""The most qubits whose joint distribution is given."""


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
    """<Z> of `qubits`, shape (batch, len(qubits)), or their joint distribution, shape (batch, 2**len(qubits)).

    The arguments are those of `ketfit.expectation`, checked there but for being finite; every gate is applied.

    Args:
        signs: Of the angle of each rotation in each sample, +1 or -1, shape (batch, number of rotations), int8, the
            rotations in the order of the gates; None if every sign is +1. A Pauli error anywhere in the circuit turns
            into such signs, and perhaps a bit that is read the other way round, as it moves to the end.
        joint: Return the probability of each outcome, the first of `qubits` its most significant bit.

    Raises:
        InputError: a number is not finite, `signs` do not fit the batch and the circuit, or the outcomes are too many.
    """
    check_signs(circuit, batch, signs, weights.device)
    check_joint(qubits, joint)
    plan, spares = _plan(circuit, qubits, batch, weights.element_size(), joint)
    result: Tensor = _Native.apply(  # type: ignore[no-untyped-call]
        plan, weights, inputs, initial, batch, signs, spares
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
    wanted: tuple[bool, bool, bool],
) -> list[Tensor | None]:
    """<Z> of `qubits` and, of `wanted` tensors, the gradients of the sum of <Z> times `cotangent`: in one call.

    The arguments are those of `ketfit.expectation`, checked there but for being finite; every gate is applied.

    Returns:
        The values, shape (batch, len(qubits)), and a gradient or None for weights, inputs and initial.

    Raises:
        InputError: a number is not finite.
    """
    plan, _ = _plan(circuit, qubits, batch, weights.element_size())
    weights, cotangent = weights.contiguous(), cotangent.contiguous()
    inputs = None if inputs is None else inputs.contiguous()
    initial = None if initial is None else initial.contiguous()
    result = weights.new_empty(batch, len(qubits))
    grads = [
        torch.empty_like(tensor) if want and tensor is not None else None
        for tensor, want in zip((weights, inputs, initial), wanted, strict=True)
    ]
    run = plan.forward_and_backward_f32 if weights.dtype == torch.float32 else plan.forward_and_backward_f64
    arrays = kernel_batch(batch, weights, inputs, initial)
    if not run(arrays, result.data_ptr(), cotangent.data_ptr(), kernel_gradients(*grads), kernel_threads()):
        check_finite(weights=weights, inputs=inputs, initial=initial, cotangent=cotangent)
    return [result, *grads]


def _plan(
    circuit: Circuit, qubits: tuple[int, ...], batch: int, itemsize: int, joint: bool = False
) -> tuple[Any, list[Tensor]]:
    """The plan for batches of that size, and the spare states that wait with it."""
    isa, sample_bits = choose_layout(circuit.n_qubits, batch, itemsize)
    key = ("plan", qubits, itemsize, sample_bits, joint, isa)
    if key not in circuit.cache:
        circuit.cache[key] = (make_plan(circuit, *key[1:]), [])
    found: tuple[Any, list[Tensor]] = circuit.cache[key]
    return found


_threads: ContextVar[int | None] = ContextVar("kernel's threads", default=None)


def kernel_threads() -> int:
    """How many threads the kernel uses: as many as torch, unless `kernel_first` says otherwise."""
    return _threads.get() or torch.get_num_threads()


@contextmanager
def kernel_first() -> Iterator[None]:
    """Inside, torch's operations have one thread and the kernel as many as torch had before.

    For loops of small operations around the kernel: a team of torch's that wakes for each of them and then spins, and
    the kernel's own, would keep one another off the cores. It holds for the calling thread, and a thread that starts
    meanwhile finds torch with one thread.
    """
    threads = kernel_threads()
    mark = _threads.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _threads.reset(mark)


def count_rotations(circuit: Circuit) -> int:
    """How many rotations the circuit has, counted once."""
    if "rotations" not in circuit.cache:
        circuit.cache["rotations"] = circuit.gate_counts()["ry"]
    number: int = circuit.cache["rotations"]
    return number


def check_signs(circuit: Circuit, batch: int, signs: Tensor | None, device: torch.device) -> None:
    """Refuse what are not signs of the circuit's rotations.

    Raises:
        InputError: the shape, dtype, device or a number is wrong.
    """
    if signs is None:
        return
    shape = (batch, count_rotations(circuit))
    if not isinstance(signs, Tensor) or signs.shape != shape or signs.dtype != torch.int8 or signs.device != device:
        raise InputError(f"signs must be an int8 tensor of shape {shape} on {device}, one column for each rotation")
    # By NumPy: torch would share this among threads that go on to wait for work where the kernel's want to run.
    if not (np.abs(signs.cpu().numpy()) == 1).all():
        raise InputError("signs are 1, or -1 where the angle is the other way round")


def check_joint(qubits: tuple[int, ...], joint: bool) -> None:
    """Refuse a joint distribution of more outcomes than anyone could look at.

    Raises:
        InputError: more than 12 qubits.
    """
    if joint and len(qubits) > MAX_JOINT:
        raise InputError(
            f"the joint distribution of {len(qubits)} qubits has {2 ** len(qubits)} outcomes; "
            f"measure at most {MAX_JOINT} qubits"
        )


def check_finite(**tensors: Tensor | None) -> None:
    """Refuse NaN and infinity by the tensor's name.

    Raises:
        InputError: with the name.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds a number that is not finite (NaN or infinity)")


@lru_cache(maxsize=1024)
def choose_layout(n_qubits: int, batch: int, itemsize: int) -> tuple[str, int]:
    """The instruction set, and how many samples share a unit, as a power of two: a lane for each, or one across them.

    Lanes that hold samples make no shuffles, but more samples need more of the cache, and a unit has one thread. It
    must not depend on the number of threads, or results would.
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
    """The kernel's plan; `chunk_bits` is for tests and otherwise follows from the size of the cache."""
    lane_bits = _lane_bits(isa, itemsize)
    bits = circuit.n_qubits + sample_bits
    if chunk_bits is None:
        chunk_bits = _chunk_bits(itemsize)
        if bits <= chunk_bits + 1:  # twice the size still is faster than two stages
            chunk_bits = bits
    chunk_bits = min(chunk_bits, bits)
    stages = cut_stages(merge_gates(circuit), circuit.n_qubits, sample_bits, chunk_bits, low_bits=lane_bits + 2)
    in_lanes = frozenset(circuit.n_qubits - 1 - place for place in range(lane_bits - sample_bits))
    fused = [Stage(stage.positions, fuse_operations(stage.operations, in_lanes)) for stage in stages]
    operations, term_offsets, terms, ranges, positions = tables(fused, circuit.n_qubits, sample_bits)
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
    """Return the addresses of contiguous tensors for the kernel; the caller keeps the tensors during its call."""
    return _kernel.CircuitBatch(
        size=size,
        weights=weights.data_ptr(),
        inputs=0 if inputs is None else inputs.data_ptr(),
        initial=0 if initial is None else initial.data_ptr(),
        signs=0 if signs is None else signs.data_ptr(),
    )


def kernel_gradients(weights: Tensor | None, inputs: Tensor | None, initial: Tensor | None) -> _kernel.Gradients:
    """Return the addresses of tensors that the kernel writes gradients into, None for those that are not wanted."""
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
        spares: list[Tensor],
    ) -> Tensor:
        """What the plan measures, shape (batch, columns); a state to walk back from is kept if a gradient is wanted."""
        weights = weights.contiguous()
        inputs = None if inputs is None else inputs.contiguous()
        initial = None if initial is None else initial.contiguous()
        signs = None if signs is None else signs.contiguous()
        state = None
        if any(ctx.needs_input_grad):
            state = _take(spares, weights, plan.n_units(batch), plan.unit_size)
            ctx.plan, ctx.batch, ctx.spares, ctx.states = plan, batch, spares, [state]
            ctx.save_for_backward(weights, inputs, initial, signs)
            ctx.set_materialize_grads(False)
        result = weights.new_empty(batch, plan.n_columns)
        ctx.scale, finite = _forward(plan, kernel_batch(batch, weights, inputs, initial, signs), result, state)
        if not finite:  # the kernel has looked at the weights, the inputs and the result
            check_finite(weights=weights, inputs=inputs, initial=initial)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, the inputs and the initial amplitudes."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        if grad is None:
            return (None,) * 7
        plan = ctx.plan
        weights, inputs, initial, signs = ctx.saved_tensors
        batch = kernel_batch(ctx.batch, weights, inputs, initial, signs)
        try:
            state = ctx.states.pop()  # whoever has it undoes the gates on it
        except IndexError:  # an earlier backward pass, or one at this moment in another thread
            state = _take(ctx.spares, weights, plan.n_units(ctx.batch), plan.unit_size)
            _forward(plan, batch, torch.empty_like(grad), state)
        _, *wanted, _, _, _ = ctx.needs_input_grad
        grads = [
            torch.empty_like(tensor) if want else None
            for tensor, want in zip((weights, inputs, initial), wanted, strict=True)
        ]
        grad = grad.contiguous()  # held by a name for as long as the kernel reads its address
        run = plan.backward_f32 if weights.dtype == torch.float32 else plan.backward_f64
        run(batch, state.data_ptr(), ctx.scale, grad.data_ptr(), kernel_gradients(*grads), kernel_threads())
        if state.nbytes <= SPARE_BYTES and not ctx.spares:
            ctx.spares.append(state)
        return (None, *grads, None, None, None)


def _take(spares: list[Tensor], like: Tensor, units: int, size: int) -> Tensor:
    """A spare array of this shape, or a new one."""
    try:
        spare = spares.pop()
    except IndexError:
        return like.new_empty(units, size)
    return spare if spare.shape == (units, size) else like.new_empty(units, size)


def _forward(plan: Any, batch: _kernel.CircuitBatch, result: Tensor, state: Tensor | None) -> tuple[float, bool]:
    run = plan.forward_f32 if result.dtype == torch.float32 else plan.forward_f64
    saved = 0 if state is None else state.data_ptr()
    scale, finite = run(batch, result.data_ptr(), saved, kernel_threads())
    return scale, finite
