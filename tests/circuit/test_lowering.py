from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from ketfit.circuit import Angle, Gate
from ketfit.circuit.gate import GATES
from ketfit.circuit.lowering import ConstantUnitary, PauliRotation, lower, lower_gate
from tests.circuits_of_any_kind import (
    angle_value,
    apply_matrix,
    random_general_circuit,
    random_unitary,
    reference_statevector,
)

PAULIS = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


def apply_lowered(state: np.ndarray, operation, weights, inputs, n_qubits: int) -> np.ndarray:
    if isinstance(operation, ConstantUnitary):
        return apply_matrix(state, np.array(operation.matrix), operation.qubits, n_qubits)
    word = np.ones((1, 1))
    for letter in operation.word:
        word = np.kron(word, PAULIS[letter])
    angle = angle_value(operation.angle, weights, inputs)
    return apply_matrix(state, expm(-0.5j * angle * word), operation.qubits, n_qubits)


@pytest.mark.parametrize("name", [*GATES, "unitary"])
def test_lower_gate_equals_matrix_with_its_phase(name):
    width = 3 if name == "unitary" else GATES[name].n_qubits
    qubits = [2, 0, 1][:width]
    if name == "unitary":
        gate = Gate(name, qubits, matrix=random_unitary(width, 1))
    else:
        angles = [2 * Angle("weight", 0) + 0.3, Angle("input", 0), Angle("weight", 1) - Angle("input", 0)]
        gate = Gate(name, qubits, angles[: GATES[name].n_parameters])
    weights, inputs = [0.9, -1.7], [2.3]
    columns = []
    for basis in np.eye(8):
        state = basis.reshape(2, 2, 2)
        for operation in lower_gate(gate):
            state = apply_lowered(state, operation, weights, inputs, 3)
        columns.append(state.reshape(-1))
    matrix = np.array(gate.matrix_at(*(angle_value(angle, weights, inputs) for angle in gate.parameters)))
    wanted = [apply_matrix(basis.reshape(2, 2, 2), matrix, gate.qubits, 3).reshape(-1) for basis in np.eye(8)]
    np.testing.assert_allclose(columns, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_lower_random_circuit_equals_statevector(seed):
    circuit = random_general_circuit(1 + seed % 4, 25, seed)
    rng = np.random.default_rng(seed)
    weights, inputs = rng.uniform(-3, 3, circuit.n_weights), rng.uniform(-3, 3, circuit.n_inputs)
    state = np.eye(1, 2**circuit.n_qubits).reshape([2] * circuit.n_qubits)
    for operation in lower(circuit):
        state = apply_lowered(state, operation, weights, inputs, circuit.n_qubits)
    np.testing.assert_allclose(state.reshape(-1), reference_statevector(circuit, weights, inputs), rtol=0, atol=1e-13)
    assert lower(circuit) is lower(circuit)


@pytest.mark.parametrize("word", ["X", "Y", "Z", "XY", "YZ", "ZYX", "YYY", ""])
def test_masks_of_pauli_word_give_its_action(word):
    n_qubits, qubits = 3, (2, 0, 1)[: len(word)]
    rotation = PauliRotation(word, qubits, 0.0)
    x, z = rotation.masks(n_qubits)
    state = np.arange(8) + 1j
    moved = state.reshape(2, 2, 2)
    for letter, qubit in zip(word, qubits, strict=True):
        moved = apply_matrix(moved, PAULIS[letter], (qubit,), n_qubits)
    mine = np.empty(8, complex)
    for basis in range(8):
        mine[basis ^ x] = 1j ** (x & z).bit_count() * (-1) ** (basis & z).bit_count() * state[basis]
    np.testing.assert_allclose(mine, moved.reshape(-1), rtol=0, atol=1e-14)
    assert rotation.is_real == (not np.iscomplex(expm(-0.35j * _dense(word))).any())


def _dense(word: str) -> np.ndarray:
    result = np.ones((1, 1))
    for letter in word:
        result = np.kron(result, PAULIS[letter])
    return result
