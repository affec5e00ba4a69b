"""Expectations of sums of Pauli words of circuits of any gates, in the native kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.lowering import word_masks
from ketfit.circuit.observable import PauliSum
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.complex_statevector import ProgramBatch, WordMeans, forward_and_backward, plan_for
from ketfit.simulate.evolution import differentiate_operations, needs_recorded_operations
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import PauliWord

Compute = Callable[[CircuitBatch], Tensor]


def expect_sums(batch: CircuitBatch, sums: tuple[PauliSum, ...], compute_again: Compute) -> Tensor:
    """Return the expectation of each sum, shape (size, len(sums)), differentiable any number of times.

    Args:
        batch: Circuit of any gates with its tensors, on the CPU.
        sums: The observables.
        compute_again: Returns the same values from torch's operations, for derivatives of derivatives.

    Raises:
        InputError: A number is not finite.
    """
    observed = observed_words(batch.circuit, sums, batch.weights.dtype)
    program = ProgramBatch.from_circuit_batch(program_of(batch.circuit), batch)
    again = _Again(batch.circuit, compute_again)
    means: Tensor = _Means.apply(  # type: ignore[no-untyped-call]
        plan_for(program, observed.words), program, again, observed, *program.recorded_tensors
    )
    return means


def expect_sums_and_differentiate(
    batch: CircuitBatch, sums: tuple[PauliSum, ...], cotangent: Tensor, needs_grad: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    """Return the expectations, and the gradients of their sum times `cotangent` that `needs_grad` selects.

    Raises:
        InputError: A number is not finite.
    """
    observed = observed_words(batch.circuit, sums, batch.weights.dtype)
    program = ProgramBatch.from_circuit_batch(program_of(batch.circuit), batch)
    plan, cotangent = plan_for(program, observed.words), observed.to_words(cotangent.detach())
    means, weights, inputs, initial = forward_and_backward(plan, program, cotangent, needs_grad)
    assert means is not None
    if initial is not None and batch.initial is not None and not batch.initial.is_complex():
        initial = initial.real.contiguous()
    return [observed.to_sums(means), weights, inputs, initial]


@lru_cache(maxsize=1024)
def z_sums(qubits: tuple[int, ...]) -> tuple[PauliSum, ...]:
    """Return Z of each qubit as an observable."""
    return tuple(PauliSum(((1.0, "Z", (qubit,)),)) for qubit in qubits)


@dataclass(frozen=True, eq=False)
class ObservedWords:
    """The distinct words of some sums, and the coefficient of each in each sum, shape (words, sums).

    The coefficients are None if they are those of the identity matrix.
    """

    words: tuple[PauliWord, ...]
    coefficients: Tensor | None

    def to_sums(self, means: Tensor) -> Tensor:
        """Return the expectations of the sums from the means of the words."""
        return means if self.coefficients is None else means @ self.coefficients

    def to_words(self, cotangent: Tensor) -> Tensor:
        """Return the derivatives by the means of the words from those by the expectations of the sums."""
        return cotangent if self.coefficients is None else cotangent @ self.coefficients.t()


@cached_on_circuit
def observed_words(circuit: Circuit, sums: tuple[PauliSum, ...], dtype: torch.dtype) -> ObservedWords:
    """Return the distinct words of some sums and their coefficients."""
    numbers = dict[PauliWord, int]()
    entries = []
    for column, each in enumerate(sums):
        for term in each.terms:
            word = PauliWord(*word_masks(term.word, term.qubits, circuit.n_qubits))
            row = numbers.setdefault(word, len(numbers))
            entries.append((row, column, term.coefficient))
    coefficients = torch.zeros(len(numbers), len(sums), dtype=dtype, device="cpu")  # the kernel's, not torch's default
    for row, column, coefficient in entries:
        coefficients[row, column] += coefficient
    is_identity = coefficients.shape[0] == len(sums) and torch.equal(
        coefficients, torch.eye(len(sums)).to(coefficients)
    )
    return ObservedWords(tuple(numbers), None if is_identity else coefficients)


class _Again:
    """Values from torch's operations, for a backward pass that is itself differentiated."""

    def __init__(self, circuit: Circuit, compute: Compute) -> None:
        self.circuit, self.compute = circuit, compute

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """Return the expectations of the sums from torch's operations."""
        return self.compute(CircuitBatch(self.circuit, *tensors))  # type: ignore[arg-type]


class _Means(WordMeans):
    """The kernel's means of words, summed up, with a backward pass in torch where it is differentiated again."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, plan: Any, batch: ProgramBatch, again: _Again, observed: ObservedWords, *tensors: Tensor | None
    ) -> Tensor:
        """Return the expectations of the sums."""
        ctx.again, ctx.observed = again, observed
        return observed.to_sums(WordMeans.forward(ctx, plan, batch, *tensors))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if needs_recorded_operations(grad):
            return (None,) * 4 + tuple(differentiate_operations(ctx.again, ctx.saved_tensors[:3], grad))
        _, _, *grads = WordMeans.backward(ctx, ctx.observed.to_words(grad))
        return None, None, None, None, *grads
