"""Decompositions of gates, against their matrices and the counts of Qiskit's transpiler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from scipy.linalg import expm

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.decomposition import decompose_gate, decompose_three_qubit_gates, demultiplex
from ketfit.circuit.gate import GATES
from tests.circuits_of_any_kind import apply_matrix, random_unitary

WIDE = [name for name, kind in GATES.items() if kind.n_qubits > 1]
ONE_ENTANGLER = {"cx", "cy", "cz", "crx", "cry", "crz", "cp", "rxx", "ryy", "rzz"}


def product_of(gates: Sequence[Gate], n_qubits: int) -> np.ndarray:
    columns = []
    for basis_state in np.eye(2**n_qubits, dtype=complex):
        state = basis_state.reshape([2] * n_qubits)
        for gate in gates:
            state = apply_matrix(state, np.array(gate.matrix_at(*gate.parameters)), gate.qubits, n_qubits)
        columns.append(state.ravel())
    return np.array(columns).T


def n_entanglers(gates: Sequence[Gate]) -> int:
    return sum(len(gate.qubits) == 2 for gate in gates)


def assert_decomposed(matrix: np.ndarray, tolerance: float = 1e-12) -> int:
    """Check the product and the kinds of the gates, and return the number of those on two qubits."""
    n_qubits = len(matrix).bit_length() - 1
    gates = decompose_gate(Gate("unitary", range(n_qubits), matrix=matrix))
    np.testing.assert_allclose(product_of(gates, n_qubits), matrix, rtol=0, atol=tolerance)
    assert {gate.name for gate in gates if len(gate.qubits) > 1} <= ONE_ENTANGLER
    return n_entanglers(gates)


@pytest.mark.parametrize(("n_qubits", "most"), [(2, 3), (3, 20)])
def test_unitary_decomposition_equals_its_matrix_with_few_entanglers(n_qubits, most):
    assert {assert_decomposed(random_unitary(n_qubits, seed)) for seed in range(20)} == {most}


@pytest.mark.parametrize("n_qubits", [2, 3])
def test_unitary_entanglers_are_at_most_one_more_than_those_of_qiskit(n_qubits):
    matrix = random_unitary(n_qubits, 3)
    circuit = QuantumCircuit(n_qubits)
    circuit.unitary(matrix, range(n_qubits))
    theirs = transpile(circuit, basis_gates=["u", "cx"], optimization_level=1).count_ops()["cx"]
    assert theirs <= assert_decomposed(matrix) <= theirs + (n_qubits == 3)


@pytest.mark.parametrize("name", WIDE)
def test_named_gate_and_its_matrix_are_decomposed_into_gates_of_one_entangler(name):
    kind = GATES[name]
    angles = [0.7] * kind.n_parameters
    matrix = np.array(kind.matrix(*angles))
    named = decompose_gate(Gate(name, range(kind.n_qubits), angles))
    np.testing.assert_allclose(product_of(named, kind.n_qubits), matrix, rtol=0, atol=1e-15)
    assert {gate.name for gate in named if len(gate.qubits) > 1} <= ONE_ENTANGLER
    assert assert_decomposed(matrix) <= {"ccx": 7}.get(name, n_entanglers(named))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_qubits", [2, 3])
def test_special_unitaries_are_decomposed(n_qubits, seed):
    rng = np.random.default_rng(seed)
    size = 2**n_qubits
    assert_decomposed(np.eye(size)[rng.permutation(size)] * 1j ** rng.integers(0, 4, size))
    assert_decomposed(np.diag(np.exp(1j * rng.uniform(-3, 3, size))))
    local = random_unitary(1, seed)
    for _ in range(n_qubits - 1):
        local = np.kron(local, random_unitary(1, seed + 10))
    assert (n_qubits == 3) >= (assert_decomposed(local) > 0)  # three qubits: the general form
    generator = random_unitary(n_qubits, seed)
    for angle in (1e-4, 1e-7, 1e-8):  # close eigenvalues
        assert_decomposed(expm(angle * (generator - generator.conj().T)) @ local, 1e-8)
    assert_decomposed(random_unitary(n_qubits, seed).astype(np.complex64), 1e-6)


@pytest.mark.parametrize("phase", [1, 1j])
def test_identity_and_phase_take_no_gate_on_a_qubit(phase):
    matrix = phase * np.eye(4)
    assert {gate.name for gate in decompose_gate(Gate("unitary", (0, 1), matrix=matrix))} <= {"gphase"}
    assert_decomposed(matrix)
    assert_decomposed(np.kron(matrix, np.eye(2)))


def test_decompose_three_qubit_gates_keeps_other_gates_weights_and_inputs():
    angle = Angle("weight", 1) - Angle("input", 0)
    gates = [Gate("rx", 2, [angle]), Gate("ccx", (2, 0, 1)), Gate("unitary", (0, 1), matrix=random_unitary(2, 0))]
    circuit = Circuit(3, gates, 3, 1)
    result = decompose_three_qubit_gates(circuit)
    assert (result.gates[0], result.gates[-1]) == (circuit.gates[0], circuit.gates[-1])
    assert (result.n_weights, result.n_inputs) == (3, 1)
    assert result.gates[1:-1] == decompose_gate(circuit.gates[1])
    assert decompose_three_qubit_gates(result) == result


def test_demultiplex_returns_factors_of_both_matrices():
    zero, one = random_unitary(2, 0), random_unitary(2, 1)
    first, phases, last = demultiplex(zero, one)
    for sign, matrix in ((1, zero), (-1, one)):
        np.testing.assert_allclose(last * np.exp(1j * sign * phases) @ first, matrix, rtol=0, atol=1e-12)
