"""Expectations from a state vector whose parts are on ranks, with adjoint gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.observable import PauliSum
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.memory import ALWAYS_AVAILABLE, memory_shortage
from ketfit.simulate import _kernel
from ketfit.simulate.circuit_batch import CircuitBatch, check_finite
from ketfit.simulate.complex_statevector import KernelLayout, ProgramBatch, as_complex, plan_of_groups, simulate
from ketfit.simulate.distributed.exchange import Exchange
from ketfit.simulate.distributed.ranks import Ranks
from ketfit.simulate.distributed.schedule import Schedule, make_schedule, on_rank, word_on_rank
from ketfit.simulate.distributed.unit_sums import Outcomes, overlaps
from ketfit.simulate.kernel_observables import observed_words
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.native import ISA, NO_SECOND_DERIVATIVE, kernel_gradients, kernel_threads
from ketfit.simulate.pauli_program import AmplitudeMap, PauliProgram, PauliWord
from ketfit.simulate.pauli_scheduling import Group, group_rotations, light_cone, start_from_zero

UNIT_BITS = 4
"""Binary logarithm of the smallest number of amplitudes in a unit, which fills the widest vector of any processor."""


def distributed_expectation(batch: CircuitBatch, sums: tuple[PauliSum, ...]) -> Tensor:
    """Return the expectation of each sum of Pauli words, shape (size, len(sums)), differentiable once.

    Every rank has to call this with the same batch, and has to run the backward pass.

    Raises:
        ConfigError: The process has no ranks beside it, or too many.
        CircuitError: The observables have X or Y on more qubits than a rank has.
        InputError: A number is not finite, or the tensors are not on the CPU.
        InsufficientMemoryError: A part of the state does not fit into the free memory of a rank.
        DistributedError: Another rank was lost.
    """
    observed = observed_words(batch.circuit, sums, batch.weights.dtype)
    return observed.to_sums(_run(batch, observed.words, joint=False))


def distributed_distribution(batch: CircuitBatch, measured: tuple[int, ...]) -> Tensor:
    """Return the joint distribution of the outcomes of some qubits, shape (size, 2**measured), differentiable once.

    Raises:
        ConfigError, CircuitError, InputError, InsufficientMemoryError, DistributedError: As in
            `distributed_expectation`.
    """
    n_qubits = batch.circuit.n_qubits
    words = tuple(PauliWord(0, 1 << (n_qubits - 1 - qubit)) for qubit in measured)
    return _run(batch, words, joint=True)


def circuit_schedule(
    circuit: Circuit, words: Sequence[PauliWord], n_global: int, *, from_zero: bool
) -> tuple[Schedule, PauliProgram]:
    """Return the schedule of a circuit whose final state is observed in some words, and its program."""
    program = program_of(circuit)
    rotations, frame = program.lowered
    observed = [frame.image(word) for word in words]
    kept = light_cone(start_from_zero(rotations) if from_zero else rotations, observed)
    groups = group_rotations(kept, from_zero=from_zero)
    return make_schedule(groups, observed, circuit.n_qubits, n_global, from_zero=from_zero), program


def _run(batch: CircuitBatch, words: tuple[PauliWord, ...], *, joint: bool) -> Tensor:
    """Return the mean of each word, or the distribution of their joint outcomes."""
    if batch.weights.device.type != "cpu":
        raise InputError(f"distributed states are on CPUs and weights are on {batch.weights.device}; move them")
    ranks = Ranks.connect()
    if ranks.n_global >= batch.circuit.n_qubits:
        raise ConfigError(
            f"{ranks.size} ranks share a state of {batch.circuit.n_qubits} qubits; start at most "
            f"{2 ** (batch.circuit.n_qubits - 1)}"
        )
    batch.check_finite()
    itemsize = batch.weights.element_size()
    is_real = batch.initial is None or not batch.initial.is_complex()
    run = make_run(batch.circuit, ranks, words, joint, batch.initial is None, is_real, itemsize)
    _check_memory(run, batch.size, batch.is_differentiated)
    values: Tensor = _Results.apply(run, batch.circuit, *batch.tensors)  # type: ignore[no-untyped-call]
    return values


def _check_memory(run: DistributedRun, size: int, differentiated: bool) -> None:
    """Raise an error on every rank if one of them has too little free memory."""
    required = run.memory_bytes(size, differentiated)
    free = memory_shortage(required)
    if required > ALWAYS_AVAILABLE and run.ranks.sum(torch.tensor([0 if free is None else 1])).item():
        here = "" if free is None else f", and {free / 2**30:,.1f} GiB are free here"
        raise InsufficientMemoryError(
            f"a rank needs {required / 2**30:,.1f} GiB, which one of the {run.ranks.size} does not have{here}; "
            "start more ranks on other machines, or use a smaller batch"
        )


@dataclass(frozen=True, eq=False)
class DistributedRun:
    """A schedule on one rank, with the kernel's plan of each segment.

    Attributes:
        schedule: The schedule, the same on every rank.
        program: Program of the whole circuit.
        ranks: This rank among the others.
        layout: How the kernel stores a part of the state.
        joint: The result is the distribution of the joint outcomes of the words, not the mean of each.
    """

    schedule: Schedule
    program: PauliProgram
    ranks: Ranks
    layout: KernelLayout
    joint: bool
    plans: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        last = len(self.schedule.segments) - 1
        words = () if self.joint else tuple(map(self._local_word, self.schedule.words))
        plans = tuple(
            self._plan([self._local_group(group) for group in segment.groups], words if number == last else ())
            for number, segment in enumerate(self.schedule.segments)
        )
        object.__setattr__(self, "plans", plans)

    def memory_bytes(self, size: int, differentiated: bool) -> int:
        """Return the bytes of the states, their adjoints, and the buffers of an exchange."""
        units = -(-size >> self.layout.sample_bits) * (2 if differentiated else 1)
        return (
            self.layout.parts * self.layout.itemsize * ((units << self.layout.bits) + self.schedule.buffered_amplitudes)
        )

    @cached_property
    def preparation(self) -> PauliProgram | None:
        """The program of the bits of the rank in the product state; None if there is no such state."""
        schedule, program = self.schedule, self.program
        if not schedule.from_zero or not schedule.n_global:
            return None
        rotations = tuple(rotation for group in schedule.before for rotation in group.rotations)
        return PauliProgram(schedule.n_global, program.n_weights, program.n_inputs, rotations)

    def batch(self, size: int, tensors: Sequence[Tensor | None]) -> _kernel.CircuitBatch:
        """Return the addresses of weights, inputs and the initial amplitudes of this rank for the kernel."""
        weights, inputs, initial = (0 if tensor is None else tensor.data_ptr() for tensor in tensors)
        return _kernel.CircuitBatch(self.layout.itemsize, size, weights, inputs, initial)

    def exchange(self, exchange: Exchange | None, states: Sequence[Tensor]) -> None:
        """Exchange amplitudes of some states, shape (units, numbers of a unit), with other ranks, in place."""
        if exchange is None:
            return
        layout = self.layout
        for partner, parities in exchange.partners(self.ranks.rank):
            block = _kernel.UnitBlock(
                instruction_set=layout.isa,
                itemsize=layout.itemsize,
                is_real=layout.is_real,
                bits=layout.bits,
                masks=[mask << layout.sample_bits for mask in exchange.masks],
                parities=parities,
            )
            for unit in (unit for each in states for unit in each):
                for piece in exchange.pieces(block.size):
                    sent = unit.new_empty(layout.parts * len(piece))
                    block.gather(unit.data_ptr(), piece.start, piece.stop, sent.data_ptr(), kernel_threads())
                    received = self.ranks.swap(sent, partner)
                    block.scatter(received.data_ptr(), piece.start, piece.stop, unit.data_ptr(), kernel_threads())

    @cached_property
    def outcomes(self) -> Outcomes:
        """The joint outcomes of the words on this rank."""
        words = [self._local_word(word) for word in self.schedule.words]
        bits = range(self.layout.sample_bits, self.layout.bits)
        changes = tuple(_as_number(word.z >> bit & 1 for word in words) for bit in bits)
        return Outcomes(self.layout, len(words), changes, _as_number(int(word.sign < 0) for word in words))

    def _local_word(self, word: PauliWord) -> PauliWord:
        return word_on_rank(word, self.ranks.rank, self.schedule.n_local, self.layout.sample_bits)

    def _local_group(self, group: Group) -> Group:
        return on_rank(group, self.ranks.rank, self.schedule.n_local, self.layout.sample_bits)

    def _plan(self, groups: Sequence[Group], words: Sequence[PauliWord]) -> Any:
        counts = (self.program.n_weights, self.program.n_inputs, 0)
        return plan_of_groups(groups, words, AmplitudeMap.empty(), self.layout, counts)


def _as_number(bits: Iterable[int]) -> int:
    """Return the number of some bits, the most significant first."""
    return reduce(lambda number, bit: number << 1 | bit, bits, 0)


@cached_on_circuit
def make_run(
    circuit: Circuit,
    ranks: Ranks,
    words: tuple[PauliWord, ...],
    joint: bool,
    from_zero: bool,
    starts_real: bool,
    itemsize: int,
) -> DistributedRun:
    """Return the run of a circuit on one rank; `starts_real` is False if the initial amplitudes are complex."""
    schedule, program = circuit_schedule(circuit, words, ranks.n_global, from_zero=from_zero)
    layout = kernel_layout(schedule.n_local, itemsize, starts_real and schedule.is_real)
    return DistributedRun(schedule, program, ranks, layout, joint)


def kernel_layout(n_local: int, itemsize: int, is_real: bool) -> KernelLayout:
    """Return how the kernel stores a part of the state; on other processors, vectors alone have another length."""
    sample_bits = max(UNIT_BITS - n_local, 0)
    return KernelLayout(ISA, itemsize, is_real, n_local + sample_bits, sample_bits)


class _Results(torch.autograd.Function):
    """Results read from the final state, differentiable once by the adjoint pass on every rank."""

    @staticmethod
    def forward(ctx: Any, run: DistributedRun, circuit: Circuit, *tensors: Tensor | None) -> Tensor:
        """Return the sum over the ranks of what each reads from its part."""
        batch = CircuitBatch(circuit, *tensors)  # type: ignore[arg-type]
        states, values = _advance(run, batch)
        if any(ctx.needs_input_grad):
            ctx.run, ctx.circuit, ctx.states = run, circuit, [states]
            ctx.save_for_backward(*tensors)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes, the same on every rank."""
        if torch.is_grad_enabled():
            raise InputError(NO_SECOND_DERIVATIVE)
        check_finite(gradient=grad)
        run: DistributedRun = ctx.run
        batch = CircuitBatch(ctx.circuit, *ctx.saved_tensors)
        # The adjoint pass overwrites the states; an earlier one may have done so.
        states = ctx.states.pop() if ctx.states else _advance(run, batch)[0]
        weights, inputs, part = _retreat(run, batch, states, grad.contiguous(), ctx.needs_input_grad[4])
        needed = ctx.needs_input_grad[2:]
        sums = [run.ranks.sum(each) if need else None for each, need in zip((weights, inputs), needed, strict=False)]
        if part is None or batch.initial is None:
            return None, None, *sums, None
        whole = run.ranks.gather(part)
        return None, None, *sums, whole if batch.initial.is_complex() else whole.real.contiguous()


def _advance(run: DistributedRun, batch: CircuitBatch) -> tuple[Tensor, Tensor]:
    """Return the final states of this rank, and the results of all of them."""
    weights, inputs = batch.weights.detach().contiguous(), _inputs(batch)
    part, factors = _initial_part(run, batch), _rank_factors(run, weights, inputs)
    given = run.batch(batch.size, (weights, inputs, part))
    states = weights.new_empty(run.plans[0].n_units(batch.size), run.plans[0].unit_numbers)
    run.plans[0].prepare(given, states.data_ptr(), 0 if factors is None else factors.data_ptr(), kernel_threads())
    values = weights.new_zeros(batch.size, run.plans[-1].n_words)
    for segment, plan in zip(run.schedule.segments, run.plans, strict=True):
        run.exchange(segment.exchange, [states])
        if segment.groups or plan.n_words:
            plan.advance(given, states.data_ptr(), values.data_ptr() if plan.n_words else 0, kernel_threads())
    if run.joint:
        values = run.outcomes.probabilities(states)[: batch.size].to(weights.dtype)
    return states, run.ranks.sum(values)


def _retreat(
    run: DistributedRun, batch: CircuitBatch, states: Tensor, grad: Tensor, needs_initial: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of the weights, the inputs and this rank's initial amplitudes; `states` are overwritten."""
    weights, inputs = batch.weights.contiguous(), _inputs(batch)
    given = run.batch(batch.size, (weights, inputs, None))
    adjoints = torch.empty_like(states)
    if run.joint:
        run.outcomes.write_adjoints(states, adjoints, grad)
    totals = [torch.zeros_like(weights), torch.zeros_like(inputs)]
    width = 2**run.schedule.n_local
    initial = as_complex(weights.new_empty(batch.size, width)) if needs_initial else None
    for number in reversed(range(len(run.plans))):
        segment, plan = run.schedule.segments[number], run.plans[number]
        own = [torch.zeros_like(weights), torch.zeros_like(inputs)]
        gradients = kernel_gradients(own[0], own[1], initial if number == 0 else None)
        word_grads = grad.data_ptr() if plan.n_words else 0
        if segment.groups or word_grads or (number == 0 and initial is not None):
            plan.retreat(given, states.data_ptr(), adjoints.data_ptr(), word_grads, gradients, kernel_threads())
        for total, each in zip(totals, own, strict=True):
            total += each
        run.exchange(segment.exchange, [states, adjoints])
    _add_gradients_of_factors(run, given, states, adjoints, (weights, inputs), totals)
    return totals[0], totals[1], initial


def _inputs(batch: CircuitBatch) -> Tensor:
    return batch.weights.new_zeros(batch.size, 0) if batch.inputs is None else batch.inputs.detach().contiguous()


def _initial_part(run: DistributedRun, batch: CircuitBatch) -> Tensor | None:
    """Return this rank's part of the initial amplitudes, complex, shape (size, 2**n_local)."""
    if batch.initial is None:
        return None
    width, rank = 2**run.schedule.n_local, run.ranks.rank
    return as_complex(batch.initial.detach()[:, rank * width : (rank + 1) * width]).contiguous()


def _rank_factors(run: DistributedRun, weights: Tensor, inputs: Tensor) -> Tensor | None:
    """Return the amplitude of each sample for the bits of this rank in the product state, or None with one rank."""
    if run.preparation is None:
        return None
    states = simulate(ProgramBatch(run.preparation, weights, inputs))
    return states[:, run.ranks.rank].expand(len(inputs)).contiguous()


def _add_gradients_of_factors(
    run: DistributedRun,
    given: _kernel.CircuitBatch,
    states: Tensor,
    adjoints: Tensor,
    tensors: tuple[Tensor, Tensor],
    totals: list[Tensor],
) -> None:
    """Add the gradients of the angles that prepare the bits of this rank; `states` are overwritten."""
    if not run.schedule.before:
        return
    run.plans[0].prepare(given, states.data_ptr(), 0, kernel_threads())  # without the factors
    grads = overlaps(states, adjoints, run.layout)[: len(tensors[1])]
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        factors = _rank_factors(run, *leaves)
        assert factors is not None
        derivatives = torch.autograd.grad(factors, leaves, grads.to(factors.dtype), allow_unused=True)
    for total, each in zip(totals, derivatives, strict=True):
        if each is not None:
            total += each
