"""Expectations of sums of Pauli words of circuits of any gates, in the native kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ketfit.circuit.lowering import word_masks
from ketfit.circuit.observable import PauliSum
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.complex_statevector import ProgramBatch, WordMeans, expect_words_and_differentiate, plan_for
from ketfit.simulate.evolution import differentiate_operations, needs_recorded_operations
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import PauliWord

Compute = Callable[[CircuitBatch], Tensor]


def expect_sums(batch: CircuitBatch, sums: Sequence[PauliSum], compute_again: Compute) -> Tensor:
    """Return the expectation of each sum, shape (size, len(sums)), differentiable any number of times.

    Args:
        batch: Circuit of any gates with its tensors, on the CPU.
        sums: The observables.
        compute_again: Returns the same values from torch's operations, for derivatives of derivatives.

    Raises:
        InputError: A number is not finite.
    """
    words, coefficients = _words(batch, sums)
    program = _program_batch(batch)
    again = _Again(batch, compute_again, coefficients)
    values: Tensor = _Sums.apply(  # type: ignore[no-untyped-call]
        plan_for(program, words), program, again, *program.tensors
    )
    return values


def expect_sums_and_differentiate(
    batch: CircuitBatch, sums: Sequence[PauliSum], cotangent: Tensor, needs_grad: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    """Return the expectations, and the gradients of their sum times `cotangent` that `needs_grad` selects.

    Raises:
        InputError: A number is not finite.
    """
    words, coefficients = _words(batch, sums)
    with torch.no_grad():
        program = _program_batch(batch)
        results = expect_words_and_differentiate(program, words, cotangent @ coefficients.t(), needs_grad)
    values, weights, inputs, initial = results
    assert values is not None
    if initial is not None and batch.initial is not None and not batch.initial.is_complex():
        initial = initial.real.contiguous()
    return [values @ coefficients, weights, inputs, initial]


def z_sums(qubits: Sequence[int]) -> tuple[PauliSum, ...]:
    """Return Z of each qubit as an observable."""
    return tuple(PauliSum(((1.0, "Z", (qubit,)),)) for qubit in qubits)  # type: ignore[arg-type]


class _Again:
    """Values from torch's operations, for a backward pass that is itself differentiated."""

    def __init__(self, batch: CircuitBatch, compute: Compute, coefficients: Tensor) -> None:
        self.circuit, self.compute, self.coefficients = batch.circuit, compute, coefficients

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """Return the expectations of the sums from torch's operations."""
        return self.compute(CircuitBatch(self.circuit, *tensors))  # type: ignore[arg-type]


class _Sums(WordMeans):
    """The kernel's means of words, summed up, with a backward pass in torch where it is differentiated again."""

    @staticmethod
    def forward(ctx: Any, plan: Any, batch: ProgramBatch, again: _Again, *tensors: Tensor | None) -> Tensor:  # type: ignore[override]
        """Return the expectations of the sums."""
        ctx.again = again
        return WordMeans.forward(ctx, plan, batch, *tensors) @ again.coefficients

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if needs_recorded_operations(grad):
            return None, None, None, *differentiate_operations(ctx.again, ctx.saved_tensors[:3], grad)
        _, _, *grads = WordMeans.backward(ctx, grad @ ctx.again.coefficients.t())
        return None, None, None, *grads


def _program_batch(batch: CircuitBatch) -> ProgramBatch:
    initial = batch.initial
    if initial is not None and not initial.is_complex():
        initial = torch.complex(initial, torch.zeros_like(initial))
    return ProgramBatch(program_of(batch.circuit), batch.weights, batch.inputs, initial)


def _words(batch: CircuitBatch, sums: Sequence[PauliSum]) -> tuple[tuple[PauliWord, ...], Tensor]:
    """Return the distinct words of all sums, and the coefficient of each in each sum, shape (words, sums)."""
    n_qubits, numbers = batch.circuit.n_qubits, dict[PauliWord, int]()
    entries = []
    for column, each in enumerate(sums):
        for term in each.terms:
            word = PauliWord(*word_masks(term.word, term.qubits, n_qubits))
            row = numbers.setdefault(word, len(numbers))
            entries.append((row, column, term.coefficient))
    coefficients = batch.weights.detach().new_zeros(len(numbers), len(sums))
    for row, column, coefficient in entries:
        coefficients[row, column] += coefficient
    return tuple(numbers), coefficients
