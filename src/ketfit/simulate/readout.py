"""Expectations and distributions that are read from states of shape (batch, 2**Q), in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.observable import Hermitian, PauliSum, Projector
from ketfit.simulate.evolution import WordOnStates, apply_matrix, is_transformed, split_shape
from ketfit.simulate.readout_error import MeasuredObservable, ShiftedPauliSum

BASIS_CHANGES: dict[str, tuple[str, ...]] = {"X": ("h",), "Y": ("sdg", "h"), "Z": ()}
"""Gates before a measurement of Z that measure another Pauli matrix."""


def basis_probabilities(state: Tensor) -> Tensor:
    """Return the probability of each basis state, shape (batch, 2**Q)."""
    return (state.conj() * state).real if state.is_complex() else state.square()


def z_expectations(state: Tensor, qubits: Sequence[int]) -> Tensor:
    """Return <Z> of each of `qubits`, shape (batch, len(qubits))."""
    probabilities, n_qubits = basis_probabilities(state), _n_qubits(state)
    halves = [probabilities.reshape(split_shape((qubit,), n_qubits)).sum(dim=(1, 3)) for qubit in qubits]
    return torch.stack([half[:, 0] - half[:, 1] for half in halves], dim=1)


def joint_distribution(state: Tensor, qubits: Sequence[int]) -> Tensor:
    """Return the probability of each outcome of `qubits`, the first the highest bit, shape (batch, 2**len(qubits))."""
    n_qubits, ascending = _n_qubits(state), sorted(qubits)
    split = basis_probabilities(state).reshape(split_shape(ascending, n_qubits))
    sums = split.sum(dim=[1 + 2 * place for place in range(len(ascending) + 1)])
    return sums.permute(0, *(1 + ascending.index(qubit) for qubit in qubits)).reshape(len(state), 2 ** len(qubits))


def observable_expectations(state: Tensor, observables: Sequence[MeasuredObservable]) -> Tensor:
    """Return the expectation of each observable, shape (batch, len(observables))."""
    if is_transformed():
        columns = [inner_product(state, apply_observable(state, observable)) for observable in observables]
        return torch.stack(columns, dim=1)
    result: Tensor = _Expectations.apply(tuple(observables), state)  # type: ignore[no-untyped-call]
    return result


def apply_observable(state: Tensor, observable: MeasuredObservable) -> Tensor:
    """Return the observable times the state, shape (batch, 2**Q): complex if one of them is."""
    n_qubits = _n_qubits(state)
    if isinstance(observable, PauliSum):
        words = (
            WordOnStates.on_qubits(term.word, term.qubits, n_qubits).apply(state, term.coefficient)
            for term in observable.terms
        )
        return reduce(torch.add, words)
    if isinstance(observable, ShiftedPauliSum):
        return apply_shifted_sum(state, observable)
    if isinstance(observable, Hermitian):
        matrix = np.array(observable.matrix)
        if matrix.imag.any() and not state.is_complex():
            state = torch.complex(state, torch.zeros_like(state))
        return apply_matrix(state, matrix, observable.qubits)
    return _project(state, observable)


def apply_shifted_sum(
    state: Tensor, observable: ShiftedPauliSum, signs: Mapping[tuple[str, int], Tensor] | None = None
) -> Tensor:
    """Return a sum of products of (offset + slope P) times states (batch, 2**Q), letter by letter.

    Args:
        state: The states.
        observable: The sum of products.
        signs: A sign of each Pauli matrix P on a qubit for each state, shape (batch,); None is +1.
    """
    n_qubits, total = _n_qubits(state), torch.zeros_like(state)
    for term in observable.words.terms:
        result = term.coefficient * state
        for letter, qubit in zip(term.word, term.qubits, strict=True):
            turned = WordOnStates.on_qubits(letter, (qubit,), n_qubits).apply(result, observable.slope)
            if signs is not None:
                turned = signs[letter, qubit][:, None] * turned
            result = observable.offset * result + turned
        total = total + result
    return total


def _project(state: Tensor, projector: Projector) -> Tensor:
    bits = dict(sorted(zip(projector.qubits, projector.bits, strict=True)))
    split = state.reshape(split_shape(tuple(bits), _n_qubits(state)))
    for place, bit in enumerate(bits.values()):
        axis = [1] * split.dim()
        axis[2 + 2 * place] = 2
        split = split * split.real.new_tensor([1.0 - int(bit), float(bit)]).reshape(axis)
    return split.reshape(state.shape)


def inner_product(state: Tensor, other: Tensor) -> Tensor:
    """Return the real part of the inner product of each pair of states, shape (batch,)."""
    return (state.conj() * other).real.sum(dim=1) if other.is_complex() else (state * other).sum(dim=1)


def _n_qubits(state: Tensor) -> int:
    return state.shape[-1].bit_length() - 1


class _Expectations(torch.autograd.Function):
    """Expectations of observables, whose backward pass stores one state, however many words they have."""

    @staticmethod
    def forward(ctx: Any, observables: tuple[MeasuredObservable, ...], state: Tensor) -> Tensor:
        """Return the expectations."""
        ctx.observables = observables
        ctx.save_for_backward(state)
        return torch.stack([inner_product(state, apply_observable(state, each)) for each in observables], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Return the gradient of the state, from operations that can be differentiated again."""
        (state,) = ctx.saved_tensors
        terms = [
            2 * column[:, None] * _fitting(state, each)
            for each, column in zip(ctx.observables, grad.unbind(1), strict=True)
        ]
        return None, reduce(torch.add, terms)


def _fitting(state: Tensor, observable: MeasuredObservable) -> Tensor:
    """Return the observable times the state, and its real part for a real state: the rest has no gradient there."""
    result = apply_observable(state, observable)
    return result if state.is_complex() else result.real
