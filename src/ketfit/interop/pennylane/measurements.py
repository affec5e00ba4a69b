"""Results of PennyLane's measurements of a simulated tape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pennylane as qml
import torch
from pennylane.devices.qubit import measure
from pennylane.measurements import ExpectationMP, MeasurementProcess, ProbabilityMP, VarianceMP
from pennylane.ops import LinearCombination, SProd, Sum
from pennylane.ops.qubit.observables import BasisStateProjector
from torch import Tensor

from ketfit.circuit.gate import MAX_UNITARY_QUBITS
from ketfit.circuit.observable import Hermitian, Observable, PauliSum, PauliTerm, Projector
from ketfit.interop.pennylane.operations import matrix_of
from ketfit.interop.pennylane.tape_circuit import TapeBatch
from ketfit.simulate.expectation import expectation
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.state import probabilities, statevector, variance

MAX_VARIANCE_TERMS = 64
"""Maximum number of Pauli words of an observable whose square is multiplied out for the variance."""

_LETTERS = {"PauliX": "X", "PauliY": "Y", "PauliZ": "Z"}

Term = tuple[Any, Observable]
"""A coefficient, which may be a tensor with a gradient, and an observable."""


def exact_results(batch: TapeBatch, measurements: Sequence[MeasurementProcess]) -> list[Tensor]:
    """Return the result of each measurement, differentiable in the numbers of the tape.

    Expectations, variances and probabilities are read by the simulator without the state where it can; the rest is
    PennyLane's own computation from the state.

    Args:
        batch: What to simulate.
        measurements: Measurements without shots.

    Returns:
        A tensor for each measurement, of PennyLane's shape.
    """
    results = _means(batch, measurements) | _variances(batch, measurements)
    rest = [number for number in range(len(measurements)) if number not in results]
    measured = {number: _measured_qubits(measurements[number], batch) for number in rest}
    if None in measured.values():
        state = final_state(batch)
        results |= {number: _from_state(measurements[number], state, batch) for number in rest}
    else:
        for number, qubits in measured.items():
            assert qubits is not None
            rows = probabilities(batch.circuit, *batch.tensors, qubits=qubits)
            results[number] = rows if batch.is_batched else rows[0]
    return [results[number] for number in range(len(measurements))]


def final_state(batch: TapeBatch) -> Tensor:
    """Return the final state as PennyLane has it: an axis for each qubit, and one for the samples if there are many."""
    state = statevector(batch.circuit, *batch.tensors)
    shape = (2,) * batch.circuit.n_qubits
    return state.reshape(-1, *shape) if batch.is_batched else state.reshape(shape)


def _from_state(measurement: MeasurementProcess, state: Tensor, batch: TapeBatch) -> Tensor:
    """Return PennyLane's result for a state; without gradients in NumPy, for observables that know no tensors."""
    mapped = measurement.map_wires(batch.wires)
    given = state if state.requires_grad else state.numpy()
    result = measure(mapped, given, is_state_batched=batch.is_batched)
    return result if isinstance(result, Tensor) else torch.as_tensor(np.asarray(result))


def _means(batch: TapeBatch, measurements: Sequence[MeasurementProcess]) -> dict[int, Tensor]:
    """Return the expectations that the simulator computes, by the number of the measurement."""
    sums = {
        number: terms
        for number, each in enumerate(measurements)
        if isinstance(each, ExpectationMP) and each.obs is not None and (terms := _terms(each.obs, batch))
    }
    columns: dict[Observable, int] = {}
    for terms in sums.values():
        for _, observable in terms:
            columns.setdefault(observable, len(columns))
    if not columns:
        return {}
    values = expectation(batch.circuit, *batch.tensors, observables=tuple(columns))
    results = {}
    for number, terms in sums.items():
        coefficients = [coefficient for coefficient, _ in terms]
        chosen = [columns[observable] for _, observable in terms]
        if len(coefficients) == 1 and _is_one(coefficients[0]):
            column = values[:, chosen[0]]
        else:
            column = values[:, chosen] @ torch.stack([torch.as_tensor(each).to(values) for each in coefficients])
        results[number] = column if batch.is_batched else column[0]
    return results


def _variances(batch: TapeBatch, measurements: Sequence[MeasurementProcess]) -> dict[int, Tensor]:
    """Return the variances that the simulator computes, by the number of the measurement."""
    observables = {
        number: observable
        for number, each in enumerate(measurements)
        if isinstance(each, VarianceMP)
        and each.obs is not None
        and (terms := _terms(each.obs, batch))
        and (observable := _single(terms)) is not None
    }
    if not observables:
        return {}
    values = variance(batch.circuit, *batch.tensors, observables=tuple(observables.values()))
    columns = zip(observables, values.unbind(dim=1), strict=True)
    return {number: column if batch.is_batched else column[0] for number, column in columns}


def _terms(observable: Any, batch: TapeBatch) -> list[Term] | None:
    """Return the sum that an observable is; None if the simulator does not know it."""
    qubits = tuple(batch.wires[label] for label in observable.wires.labels)
    if observable.name in _LETTERS:
        return [(1.0, _word(_LETTERS[observable.name], qubits))]
    if (sentence := observable.pauli_rep) is not None:
        terms: list[Term] = []
        for word, coefficient in sentence.items():
            real = _real(coefficient)
            if real is None:
                return None
            terms.append((real, _word("".join(word.values()), tuple(batch.wires[label] for label in word))))
        return terms or [(0.0, _word("", ()))]
    if isinstance(observable, (LinearCombination, SProd, Sum)):
        return _linear_terms(observable, batch)
    if isinstance(observable, BasisStateProjector):
        return [(1.0, Projector("".join(str(int(bit)) for bit in observable.data[0]), qubits))]
    is_constant = not any(qml.math.requires_grad(value) for value in observable.data)
    if is_constant and len(qubits) <= MAX_UNITARY_QUBITS and observable.name in ("Hermitian", "Hadamard", "Projector"):
        matrix = matrix_of(observable).astype(complex)
        return [(1.0, _hermitian(matrix.tobytes(), qubits))]
    return None


def _linear_terms(observable: Any, batch: TapeBatch) -> list[Term] | None:
    """Return the terms of a sum with coefficients."""
    if isinstance(observable, LinearCombination):
        parts = list(zip(*observable.terms(), strict=True))
    elif isinstance(observable, SProd):
        parts = [(observable.scalar, observable.base)]
    else:
        parts = [(1.0, each) for each in observable.operands]  # the terms() of a Sum lose gradients of coefficients
    terms: list[Term] = []
    for coefficient, inner in parts:
        real, inner_terms = _real(coefficient), _terms(inner, batch)
        if real is None or inner_terms is None:
            return None
        terms += [(real * factor, each) for factor, each in inner_terms]
    return terms


def _single(terms: Sequence[Term]) -> Observable | None:
    """Return the sum as one observable, or None."""
    if len(terms) == 1 and _is_one(terms[0][0]):
        return terms[0][1]
    if len(terms) > MAX_VARIANCE_TERMS or any(getattr(factor, "requires_grad", False) for factor, _ in terms):
        return None
    words = []
    for coefficient, each in terms:
        if not isinstance(each, PauliSum):
            return None
        words += [PauliTerm(float(coefficient) * term.coefficient, term.word, term.qubits) for term in each.terms]
    return PauliSum(tuple(words))


def _is_one(coefficient: Any) -> bool:
    """Return True for a constant 1; a trainable coefficient has a gradient at 1, too."""
    return not getattr(coefficient, "requires_grad", False) and bool(coefficient == 1.0)


def _measured_qubits(measurement: MeasurementProcess, batch: TapeBatch) -> tuple[int, ...] | None:
    """Return the qubits of probabilities of computational basis states; None for other measurements."""
    is_basis = isinstance(measurement, ProbabilityMP) and measurement.obs is None and measurement.mv is None
    if not is_basis or measurement._eigvals is not None:
        return None
    labels = measurement.wires.labels or tuple(batch.wires)
    return tuple(batch.wires[label] for label in labels) if len(labels) <= MAX_JOINT else None


def _real(coefficient: Any) -> Any:
    """Return a coefficient as a real number or tensor; None if it is complex, or an array."""
    is_tensor = isinstance(coefficient, Tensor)
    if np.ndim(coefficient):
        return None
    if not (coefficient.is_complex() if is_tensor else np.iscomplexobj(coefficient)):
        return coefficient if is_tensor else float(coefficient)
    return _real(coefficient.real) if complex(coefficient).imag == 0 else None


@lru_cache(maxsize=4096)
def _word(letters: str, qubits: tuple[int, ...]) -> PauliSum:
    return PauliSum((PauliTerm(1.0, letters, qubits),))


@lru_cache(maxsize=256)
def _hermitian(matrix: bytes, qubits: tuple[int, ...]) -> Hermitian:
    size = 2 ** len(qubits)
    return Hermitian(np.frombuffer(matrix, complex).reshape(size, size), qubits)
