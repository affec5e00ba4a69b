"""The native engine: which plan the kernel follows, and its expectation as a function that torch differentiates."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import InputError
from ketfit.simulate import _kernel
from ketfit.simulate.plan import Stage, cut_stages, fuse_steps, merge_gates, tables

ISA: str = _kernel.instruction_sets()[0]
"""The widest instruction set of this processor that the kernel was built for."""

# Bytes of a state. Samples share a unit as long as it fits into a first-level cache of 32 KB; a chunk of a wide state
# and its adjoint leave room in a second-level cache of 256 KB.
UNIT_BYTES = 2**15
CHUNK_BYTES = 2**16

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
    sample_bits = choose_sample_bits(circuit.n_qubits, batch, weights.element_size())
    key = ("plan", qubits, weights.element_size(), sample_bits, joint)
    if key not in circuit.memo:
        circuit.memo[key] = (make_plan(circuit, *key[1:]), [])
    plan, spares = circuit.memo[key]
    result: Tensor = _Native.apply(  # type: ignore[no-untyped-call]
        plan, weights, inputs, initial, batch, signs, spares
    )
    return result


def count_rotations(circuit: Circuit) -> int:
    """How many rotations the circuit has, counted once."""
    if "rotations" not in circuit.memo:
        circuit.memo["rotations"] = circuit.gate_counts()["ry"]
    number: int = circuit.memo["rotations"]
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
def choose_sample_bits(n_qubits: int, batch: int, itemsize: int) -> int:
    """How many samples share a unit, as a power of two: a lane for each, or one sample across the lanes.

    Lanes that hold samples make no shuffles, but more samples need more of the cache. It must not depend on the
    number of threads, or results would.
    """
    lane_bits = int(_kernel.lanes(ISA, itemsize)).bit_length() - 1
    unit_bits = (UNIT_BYTES // itemsize).bit_length() - 1
    wanted = min(lane_bits, unit_bits - n_qubits, (batch - 1).bit_length())
    return max(wanted, lane_bits - n_qubits, 0)


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
    lane_bits = int(_kernel.lanes(isa, itemsize)).bit_length() - 1
    bits = circuit.n_qubits + sample_bits
    if chunk_bits is None:
        chunk_bits = (CHUNK_BYTES // itemsize).bit_length() - 1
        if bits <= chunk_bits + 1:  # twice the size still is faster than two stages
            chunk_bits = bits
    chunk_bits = min(chunk_bits, bits)
    stages = cut_stages(merge_gates(circuit), circuit.n_qubits, sample_bits, chunk_bits, low_bits=lane_bits + 2)
    in_lanes = frozenset(circuit.n_qubits - 1 - place for place in range(lane_bits - sample_bits))
    fused = [Stage(stage.positions, fuse_steps(stage.steps, in_lanes)) for stage in stages]
    ops, term_offsets, terms, ranges, positions = tables(fused, circuit.n_qubits, sample_bits)
    measured = np.array([sample_bits + circuit.n_qubits - 1 - qubit for qubit in qubits], np.int32)
    sizes = (circuit.n_weights, circuit.n_inputs, count_rotations(circuit))
    return _kernel.Plan(isa, bits, sample_bits, *sizes, joint, ops, term_offsets, terms, ranges, positions, measured)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


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
            state = _take(spares, weights, plan.units(batch), plan.size)
            ctx.plan, ctx.batch, ctx.spares, ctx.states = plan, batch, spares, [state]
            ctx.save_for_backward(weights, inputs, initial, signs)
            ctx.set_materialize_grads(False)
        result = weights.new_empty(batch, plan.n_columns)
        ctx.scale, finite = _forward(plan, batch, weights, inputs, initial, signs, result, state)
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
        plan, batch = ctx.plan, ctx.batch
        weights, inputs, initial, signs = ctx.saved_tensors
        try:
            state = ctx.states.pop()  # whoever has it undoes the gates on it
        except IndexError:  # an earlier backward pass, or one at this moment in another thread
            state = _take(ctx.spares, weights, plan.units(batch), plan.size)
            _forward(plan, batch, weights, inputs, initial, signs, torch.empty_like(grad), state)
        _, *wanted, _, _, _ = ctx.needs_input_grad
        grads = [
            torch.empty_like(tensor) if want else None
            for tensor, want in zip((weights, inputs, initial), wanted, strict=True)
        ]
        grad = grad.contiguous()  # held by a name for as long as the kernel reads its address
        run = plan.backward_f32 if weights.dtype == torch.float32 else plan.backward_f64
        run(
            batch,
            *map(_address, (weights, inputs, signs)),
            initial is None,
            ctx.scale,
            *map(_address, (state, grad, *grads)),
            torch.get_num_threads(),
        )
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


def _forward(plan: Any, batch: int, weights: Tensor, *tensors: Tensor | None) -> tuple[float, bool]:
    run = plan.forward_f32 if weights.dtype == torch.float32 else plan.forward_f64
    scale, finite = run(batch, *map(_address, (weights, *tensors)), torch.get_num_threads())
    return scale, finite
