"""Expectations from a state vector whose highest qubits are spread over ranks, with adjoint gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, cached_on_circuit, observable_light_cone
from ketfit.circuit.lowering import LoweredOperation, PauliRotation, word_masks
from ketfit.circuit.observable import PauliSum, PauliTerm
from ketfit.errors import ConfigError, InputError
from ketfit.simulate.circuit_batch import CircuitBatch, check_finite
from ketfit.simulate.complex_statevector import ProgramBatch, as_complex, differentiate_states, simulate
from ketfit.simulate.distributed.ranks import Ranks
from ketfit.simulate.distributed.schedule import Schedule, make_schedule
from ketfit.simulate.lowered_program import angle_terms
from ketfit.simulate.native import NO_SECOND_DERIVATIVE
from ketfit.simulate.pauli_program import AngleTerms, PauliProgram, PauliWord, Rotation, Unitary
from ketfit.simulate.readout import joint_distribution, observable_expectations


def distributed_expectation(batch: CircuitBatch, sums: tuple[PauliSum, ...]) -> Tensor:
    """Return the expectation of each sum of Pauli words, shape (size, len(sums)), differentiable once.

    Every rank has to call this with the same batch, and has to run the backward pass.

    Raises:
        ConfigError: The process has no ranks beside it, or too many.
        CircuitError: An operation or an observable needs more local qubits than a rank has.
        InputError: A number is not finite, or the tensors are not on the CPU.
        DistributedError: Another rank was lost.
    """
    support = frozenset(qubit for each in sums for qubit in each.qubits)
    mixed = frozenset(qubit for each in sums for qubit in each.not_diagonal)
    cone = observable_light_cone(batch.circuit, support, mixed)

    def read(part: Tensor, layout: Sequence[int], ranks: Ranks) -> Tensor:
        return observable_expectations(part, [_local_sum(each, layout, ranks) for each in sums])

    return _run(batch.with_circuit(cone), mixed, read)


def distributed_distribution(batch: CircuitBatch, measured: tuple[int, ...]) -> Tensor:
    """Return the joint distribution of the outcomes of some qubits, shape (size, 2**measured), differentiable once.

    Raises:
        ConfigError, CircuitError, InputError, DistributedError: As in `distributed_expectation`.
    """

    def read(part: Tensor, layout: Sequence[int], ranks: Ranks) -> Tensor:
        place = {qubit: position for position, qubit in enumerate(layout)}
        local = [qubit for qubit in measured if place[qubit] >= ranks.n_global]
        own = joint_distribution(part, [place[qubit] - ranks.n_global for qubit in local]) if local else _norms(part)
        index = [slice(None) if place[qubit] >= ranks.n_global else ranks.bit(place[qubit]) for qubit in measured]
        whole = own.new_zeros(len(own), *[2] * len(measured))
        whole[(slice(None), *index)] = own.reshape(len(own), *[2] * len(local))
        return whole.reshape(len(own), -1)

    return _run(batch.with_circuit(batch.circuit.light_cone(measured)), frozenset(), read)


Read = Callable[[Tensor, Sequence[int], Ranks], Tensor]


def _run(batch: CircuitBatch, last_local: frozenset[int], read: Read) -> Tensor:
    if batch.weights.device.type != "cpu":
        raise InputError(f"distributed states are on CPUs and weights are on {batch.weights.device}; move them")
    ranks = Ranks.connect()
    if ranks.n_global >= batch.circuit.n_qubits:
        raise ConfigError(
            f"{ranks.size} ranks share a state of {batch.circuit.n_qubits} qubits; start at most "
            f"{2 ** (batch.circuit.n_qubits - 1)}"
        )
    batch.check_finite()
    schedule = make_schedule(batch.circuit, ranks.n_global, last_local, batch.initial is None)
    values: Tensor = _Expectations.apply((schedule, ranks, read), batch, *batch.tensors)  # type: ignore[no-untyped-call]
    return values


def _norms(part: Tensor) -> Tensor:
    """Return the squared norm of the part of each sample, shape (size, 1)."""
    return (part.real.square() + part.imag.square()).sum(dim=1, keepdim=True)


def _local_sum(each: PauliSum, layout: Sequence[int], ranks: Ranks) -> PauliSum:
    """Return the sum on the local qubits, where a Z of a global qubit is a sign of this rank."""
    terms = []
    for term in each.terms:
        word, qubits, sign = _localize(term.word, term.qubits, layout, ranks)
        terms.append(PauliTerm(sign * term.coefficient, word, qubits))
    return PauliSum(tuple(terms))


def _localize(
    word: str, qubits: Sequence[int], layout: Sequence[int], ranks: Ranks
) -> tuple[str, tuple[int, ...], int]:
    """Return the letters on local qubits, the numbers of these, and the sign of the letters Z on global ones."""
    letters, sign = "", 1
    places: list[int] = []
    for letter, qubit in zip(word, qubits, strict=True):
        position = layout.index(qubit)
        if position >= ranks.n_global:
            letters, places = letters + letter, [*places, position - ranks.n_global]
        elif ranks.bit(position):
            sign = -sign
    return letters, tuple(places), sign


@dataclass(frozen=True)
class _Steps:
    """The programs of a rank for each segment, and their inverses."""

    forward: tuple[PauliProgram, ...]
    inverse: tuple[PauliProgram, ...]


@cached_on_circuit
def _steps(circuit: Circuit, schedule: Schedule, ranks: Ranks) -> _Steps:
    forward: list[PauliProgram] = []
    inverse: list[PauliProgram] = []
    for segment in schedule.segments:
        operations = [_local_operation(each, segment.layout, ranks) for each in segment.operations]
        for programs, ordered in (
            (forward, operations),
            (inverse, [_inverse(operation) for operation in reversed(operations)]),
        ):
            n_local = circuit.n_qubits - ranks.n_global
            programs.append(PauliProgram(n_local, circuit.n_weights, circuit.n_inputs, tuple(ordered)))
    return _Steps(tuple(forward), tuple(inverse))


def _local_operation(operation: LoweredOperation, layout: Sequence[int], ranks: Ranks) -> Rotation | Unitary:
    """Return what an operation, diagonal on global qubits, does to the part of a rank."""
    n_local = len(layout) - ranks.n_global
    if isinstance(operation, PauliRotation):
        word, qubits, sign = _localize(operation.word, operation.qubits, layout, ranks)
        return Rotation(PauliWord(*word_masks(word, qubits, n_local), sign), angle_terms(operation.angle))
    matrix = np.array(operation.matrix, dtype=np.complex128)
    width, local, known = len(operation.qubits), [], 0
    for place, qubit in enumerate(operation.qubits):
        if (position := layout.index(qubit)) >= ranks.n_global:
            local.append((place, position - ranks.n_global))
        else:
            known |= ranks.bit(position) << (width - 1 - place)
    rows = [
        known | sum((index >> (len(local) - 1 - k) & 1) << (width - 1 - place) for k, (place, _) in enumerate(local))
        for index in range(2 ** len(local))
    ]
    block = matrix[np.ix_(rows, rows)]
    if local:
        return Unitary(tuple(qubit for _, qubit in local), block)
    return Rotation(PauliWord(0, 0), AngleTerms(offset=-2 * float(np.angle(block[0, 0]))))


def _inverse(operation: Rotation | Unitary) -> Rotation | Unitary:
    if isinstance(operation, Unitary):
        return Unitary(operation.qubits, operation.matrix.conj().T)
    return replace(operation, word=replace(operation.word, sign=-operation.word.sign))


class _Expectations(torch.autograd.Function):
    """Results read from the final state, differentiable once by the adjoint pass on every rank."""

    @staticmethod
    def forward(ctx: Any, run: tuple[Schedule, Ranks, Read], batch: CircuitBatch, *tensors: Tensor | None) -> Tensor:
        """Return the sum over the ranks of what each reads from its part."""
        schedule, ranks, read = run
        part = _first_part(batch, ranks)
        for segment, program in zip(schedule.segments, _steps(batch.circuit, schedule, ranks).forward, strict=True):
            ranks.exchange(part, segment.swapped)
            if program.operations:
                part = simulate(ProgramBatch(program, batch.weights.detach(), _detached(batch.inputs), part))
        if any(ctx.needs_input_grad):
            ctx.run, ctx.circuit = run, batch.circuit
            ctx.save_for_backward(part, *tensors)
        return ranks.sum(read(part, schedule.segments[-1].layout, ranks))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes, the same on every rank."""
        if torch.is_grad_enabled():
            raise InputError(NO_SECOND_DERIVATIVE)
        check_finite(gradient=grad)
        schedule, ranks, read = ctx.run
        part, *tensors = ctx.saved_tensors
        batch = CircuitBatch(ctx.circuit, *tensors)
        with torch.enable_grad():
            leaf = part.clone().requires_grad_()
            (adjoint,) = torch.autograd.grad(read(leaf, schedule.segments[-1].layout, ranks), leaf, grad)
        part = leaf.detach()
        inputs = batch.weights.new_zeros(batch.size, 0) if batch.inputs is None else batch.inputs
        gradients = [torch.zeros_like(batch.weights), torch.zeros_like(inputs)]
        steps = _steps(batch.circuit, schedule, ranks)
        for segment, forward, inverse in reversed(
            list(zip(schedule.segments, steps.forward, steps.inverse, strict=True))
        ):
            if forward.operations:
                behind = ProgramBatch(forward, batch.weights, inputs, part)
                *own, adjoint = differentiate_states(behind, part, adjoint)
                gradients = [total + each for total, each in zip(gradients, own, strict=True)]
                part = simulate(ProgramBatch(inverse, batch.weights, inputs, part))
            ranks.exchange(part, segment.swapped)
            ranks.exchange(adjoint, segment.swapped)
        needed, initial = ctx.needs_input_grad[2:], batch.initial
        sums = [ranks.sum(each) if need else None for each, need in zip(gradients, needed[:2], strict=True)]
        if not needed[2] or initial is None:
            return None, None, *sums, None
        whole = ranks.gather(adjoint)
        return None, None, *sums, whole if initial.is_complex() else whole.real.contiguous()


def _first_part(batch: CircuitBatch, ranks: Ranks) -> Tensor:
    """Return the part of the initial amplitudes of a rank, complex, shape (size, 2**local), to be overwritten."""
    width = 2**batch.circuit.n_qubits // ranks.size
    if batch.initial is not None:
        return as_complex(batch.initial.detach()[:, ranks.rank * width : (ranks.rank + 1) * width]).clone()
    part = as_complex(batch.weights.new_zeros(batch.size, width))
    if ranks.rank == 0:
        part[:, 0] = 1
    return part


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
