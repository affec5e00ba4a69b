from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from qiskit.quantum_info import SparsePauliOp

from ketfit.circuit import PauliSum
from ketfit.errors import CircuitError
from ketfit.interop.qiskit.observables import MAX_PROJECTORS, to_pauli_sum

PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
STATES = {
    "0": [1, 0],
    "1": [0, 1],
    "+": [0.5**0.5, 0.5**0.5],
    "-": [0.5**0.5, -(0.5**0.5)],
    "r": [0.5**0.5, 0.5**0.5 * 1j],
    "l": [0.5**0.5, -(0.5**0.5) * 1j],
}
MATRICES = PAULIS | {letter: np.outer(state, np.conj(state)) for letter, state in STATES.items()}


def dense(observable: dict[str, float]) -> np.ndarray:
    return sum(factor * reduce(np.kron, [MATRICES[letter] for letter in label]) for label, factor in observable.items())


def dense_sum(total: PauliSum, n_qubits: int) -> np.ndarray:
    terms = [(term.word, term.qubits, term.coefficient) for term in total.terms]
    return SparsePauliOp.from_sparse_list(terms, n_qubits).to_matrix()


@pytest.mark.parametrize("seed", range(10))
def test_sum_of_pauli_words_has_the_matrix_of_the_observable(seed):
    rng = np.random.default_rng(seed)
    labels = ["".join(rng.choice(list("IXYZ01+-rl"), 4)) for _ in range(3)]
    observable = dict(zip(labels, rng.normal(size=3), strict=True))
    np.testing.assert_allclose(dense_sum(to_pauli_sum(observable), 4), dense(observable), atol=1e-12)


def test_qubit_zero_is_the_last_letter():
    assert to_pauli_sum({"ZIX": 2.0}) == PauliSum(((2.0, "XZ", (0, 2)),))


def test_too_many_projectors_are_refused():
    with pytest.raises(CircuitError, match=f"has 17 projectors, and KetFit takes at most {MAX_PROJECTORS}"):
        to_pauli_sum({"0" * 17: 1.0})
