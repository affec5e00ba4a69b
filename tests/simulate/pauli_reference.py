"""Random programs of Pauli rotations and unitaries, and a dense reference simulation that torch differentiates."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import unitary_group
from torch import Tensor

from ketfit.simulate.pauli_program import AngleTerms, ComplexArray, PauliProgram, PauliWord, Rotation, Unitary

_H: ComplexArray = np.array([[1, 1], [1, -1]], complex) / math.sqrt(2)
_Y: ComplexArray = np.array([[0, -1j], [1j, 0]])
_SX: ComplexArray = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2


def _controlled(matrix: ComplexArray) -> ComplexArray:
    result = np.eye(2 * len(matrix), dtype=complex)
    result[len(matrix) :, len(matrix) :] = matrix
    return result


_X = np.array([[0, 1], [1, 0]], complex)
CONSTANT_GATES: dict[str, ComplexArray] = {
    "x": _X,
    "y": _Y,
    "z": np.diag([1, -1]).astype(complex),
    "h": _H,
    "s": np.diag([1, 1j]),
    "sdg": np.diag([1, -1j]),
    "t": np.diag([1, np.exp(0.25j * np.pi)]),
    "sx": _SX,
    "cx": _controlled(_X),
    "cy": _controlled(_Y),
    "cz": np.diag([1, 1, 1, -1]).astype(complex),
    "ch": _controlled(_H),
    "swap": np.eye(4, dtype=complex)[[0, 2, 1, 3]],
    "iswap": np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
    "ccx": _controlled(_controlled(_X)),
}
N_WEIGHTS, N_INPUTS = 4, 3


def word_matrix(word: PauliWord, n_qubits: int) -> ComplexArray:
    """Return the matrix of a word as a Kronecker product."""
    matrix = np.full((1, 1), word.sign, dtype=complex)
    letters = (np.eye(2), _X, np.diag([1, -1]), _Y)
    for bit in reversed(range(n_qubits)):
        matrix = np.kron(matrix, letters[(word.x >> bit & 1) + 2 * (word.z >> bit & 1)])
    return matrix


def rotation_matrix(word: PauliWord, angle: float, n_qubits: int) -> ComplexArray:
    """Return exp(-i angle / 2 P)."""
    matrix: ComplexArray = np.cos(angle / 2) * np.eye(2**n_qubits) - 1j * np.sin(angle / 2) * word_matrix(
        word, n_qubits
    )
    return matrix


def embed(matrix: ComplexArray, qubits: tuple[int, ...], n_qubits: int) -> ComplexArray:
    """Return a matrix on some qubits as one on all."""
    k = len(qubits)
    whole = np.eye(2**n_qubits, dtype=complex).reshape((2,) * n_qubits + (-1,))
    whole = np.tensordot(matrix.reshape((2,) * (2 * k)), whole, (list(range(k, 2 * k)), list(qubits)))
    return np.moveaxis(whole, list(range(k)), list(qubits)).reshape(2**n_qubits, 2**n_qubits)


def random_word(rng: np.random.Generator, n_qubits: int) -> PauliWord:
    """Return any word."""
    x, z = rng.integers(2**n_qubits, size=2).tolist()
    return PauliWord(x, z, int(rng.choice([1, -1])))


def random_program(rng: np.random.Generator, n_qubits: int, n_operations: int) -> PauliProgram:
    """Return rotations of words on one qubit or all, with sums of angles, and constant gates on up to three qubits."""
    operations: list[Rotation | Unitary] = []
    for _ in range(n_operations):
        if rng.random() < 0.5:
            word = random_word(rng, n_qubits)
            if rng.random() < 0.7:
                bit = 1 << int(rng.integers(n_qubits))
                x, z = [(bit, 0), (0, bit), (bit, bit)][rng.integers(3)]
                word = PauliWord(x, z, word.sign)
            weights = {int(rng.integers(N_WEIGHTS)): float(rng.normal()) for _ in range(rng.integers(3))}
            inputs = {int(rng.integers(N_INPUTS)): float(rng.normal()) for _ in range(rng.integers(2))}
            angle = AngleTerms(tuple(weights.items()), tuple(inputs.items()), float(rng.normal()))
            operations.append(Rotation(word, angle))
            continue
        k = int(rng.integers(1, min(3, n_qubits) + 1))
        named = [matrix for matrix in CONSTANT_GATES.values() if len(matrix) == 2**k]
        choice = int(rng.integers(len(named) + 1))
        matrix = named[choice] if choice < len(named) else unitary_group.rvs(2**k, random_state=rng)
        operations.append(Unitary(tuple(rng.permutation(n_qubits)[:k].tolist()), matrix))
    return PauliProgram(n_qubits, N_WEIGHTS, N_INPUTS, tuple(operations))


def reference_states(program: PauliProgram, weights: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    """Return the final states, (size, 2**n_qubits), by products of matrices in complex128."""
    n_qubits = program.n_qubits
    zero = torch.zeros(len(inputs), 2**n_qubits, dtype=torch.complex128)
    zero[:, 0] = 1
    states = zero if initial is None else initial
    states = states + 0 * (weights.sum() + inputs.sum())  # so that there is a gradient of each
    for operation in program.operations:
        if isinstance(operation, Unitary):
            states = states @ torch.from_numpy(embed(operation.matrix, operation.qubits, n_qubits)).T
            continue
        angle = operation.angle.offset + torch.zeros(len(inputs), dtype=torch.float64)
        for index, factor in operation.angle.weights:
            angle = angle + factor * weights[index]
        for index, factor in operation.angle.inputs:
            angle = angle + factor * inputs[:, index]
        image = states @ torch.from_numpy(word_matrix(operation.word, n_qubits)).T
        states = torch.cos(angle / 2)[:, None] * states - 1j * torch.sin(angle / 2)[:, None] * image
    return states


def reference_values(states: Tensor, words: list[PauliWord], n_qubits: int) -> Tensor:
    """Return the mean of each word, (size, len(words))."""
    images = [states @ torch.from_numpy(word_matrix(word, n_qubits)).T for word in words]
    return torch.stack([(states.conj() * image).sum(dim=1).real for image in images], dim=1)
