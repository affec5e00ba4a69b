"""Programs of Pauli rotations: decompositions of unitaries, and frames of Clifford gates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import unitary_group

from ketfit.errors import CircuitError
from ketfit.simulate.pauli_program import (
    AngleTerms,
    ComplexArray,
    Frame,
    PauliProgram,
    PauliWord,
    Rotation,
    Unitary,
    decompose_unitary,
)
from tests.simulate.pauli_reference import CONSTANT_GATES, embed, rotation_matrix, word_matrix

FRAME_GATES = {name for name in CONSTANT_GATES if name not in ("h", "sx", "t", "ch", "ccx")}


def product_of(rotations: list[Rotation], n_qubits: int) -> ComplexArray:
    """Return the matrix of constant rotations."""
    matrix = np.eye(2**n_qubits, dtype=complex)
    for rotation in rotations:
        matrix = rotation_matrix(rotation.word, rotation.angle.offset, n_qubits) @ matrix
    return matrix


@pytest.mark.parametrize("n_qubits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_decompose_unitary_random_matrix_is_the_product_of_the_rotations(n_qubits: int, seed: int) -> None:
    matrix = unitary_group.rvs(2**n_qubits, random_state=seed)
    rotations = decompose_unitary(Unitary(tuple(range(n_qubits)), matrix), n_qubits)
    np.testing.assert_allclose(product_of(rotations, n_qubits), matrix, atol=1e-10)


@pytest.mark.parametrize("name", CONSTANT_GATES)
def test_decompose_unitary_named_gate_is_the_product_of_the_rotations(name: str) -> None:
    matrix = CONSTANT_GATES[name]
    n_qubits = len(matrix).bit_length() - 1
    qubits = tuple(range(n_qubits))[::-1]
    rotations = decompose_unitary(Unitary(qubits, matrix), n_qubits + 1)
    np.testing.assert_allclose(product_of(rotations, n_qubits + 1), embed(matrix, qubits, n_qubits + 1), atol=1e-10)


def test_decompose_unitary_toffoli_has_rotations_that_commute() -> None:
    rotations = decompose_unitary(Unitary((0, 1, 2), CONSTANT_GATES["ccx"]), 3)
    assert len(rotations) == 8
    assert all(a.word.commutes(b.word) for a in rotations for b in rotations)


@pytest.mark.parametrize("name", CONSTANT_GATES)
def test_frame_absorbs_clifford_gates_that_permute_amplitudes(name: str) -> None:
    matrix = CONSTANT_GATES[name]
    qubits = tuple(range(len(matrix).bit_length() - 1))
    assert Frame(3).absorb(Unitary(qubits, matrix)) == (name in FRAME_GATES)


def test_frame_random_gates_gives_images_and_permutation() -> None:
    rng = np.random.default_rng(0)
    n_qubits = 4
    frame, total = Frame(n_qubits), np.eye(2**n_qubits, dtype=complex)
    for _ in range(30):
        matrix = CONSTANT_GATES[str(rng.choice(sorted(FRAME_GATES)))]
        qubits = tuple(rng.permutation(n_qubits)[: len(matrix).bit_length() - 1].tolist())
        assert frame.absorb(Unitary(qubits, matrix))
        total = embed(matrix, qubits, n_qubits) @ total
    for x, z, sign in ((1, 0, 1), (5, 3, -1), (15, 9, 1), (0, 6, 1)):
        word = PauliWord(x, z, sign)
        expected = total.conj().T @ word_matrix(word, n_qubits) @ total
        np.testing.assert_allclose(word_matrix(frame.image(word), n_qubits), expected, atol=1e-12)
    moved = frame.amplitude_map()
    permuted = np.zeros_like(total)
    for index in range(2**n_qubits):
        place, power = moved.offset, 0
        for bit, (column, pairs, quarter_turns) in enumerate(moved.bits.tolist()):
            if index >> bit & 1:
                place ^= column
                power += quarter_turns + 2 * (index & pairs).bit_count()
        permuted[place, index] = moved.phase * 1j**power
    np.testing.assert_allclose(permuted, total, atol=1e-12)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (Unitary((0,), np.ones((2, 2), complex)), "not unitary"),
        (Unitary((0,), np.eye(4, dtype=complex)), "pass one of shape"),
        (Unitary((2,), np.eye(2, dtype=complex)), "name different ones from 0 to 1"),
        (Unitary((0, 0), np.eye(4, dtype=complex)), "name different ones"),
        (Rotation(PauliWord(4, 0), AngleTerms()), "more than the 2 qubits"),
        (Rotation(PauliWord(1, 0), AngleTerms(weights=((1, 1.0),))), "reads weight 1 of a program that has 1"),
        (Rotation(PauliWord(1, 0), AngleTerms(inputs=((-1, 1.0),))), "reads input -1 of a program that has 1"),
    ],
)
def test_program_wrong_operation_is_refused(operation: Rotation | Unitary, message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        PauliProgram(2, 1, 1, (operation,))
