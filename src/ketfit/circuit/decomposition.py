"""Decomposition of gates into those that devices run: on one qubit, and two-qubit gates of one entangler each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ketfit.circuit.circuit import Circuit, cached_on_circuit, cx, ry
from ketfit.circuit.gate import GATES, Gate, Matrix

ComplexArray = npt.NDArray[np.complex128]
FloatArray = npt.NDArray[np.float64]

_TOLERANCE = 1e-9
"""Angles below it are left out, and so are gates on one qubit that differ less from a phase."""

_IDENTITY = np.eye(2, dtype=np.complex128)
_PAULIS: dict[str, ComplexArray] = {name: np.array(GATES[name].matrix()) for name in "xyz"}
_WORDS = {f"r{name}{name}": np.kron(pauli, pauli) for name, pauli in _PAULIS.items()}
_BELL = np.array([[1, 1j, 0, 0], [0, 0, 1j, 1], [0, 0, 1j, -1], [1, -1j, 0, 0]]) * math.sqrt(0.5)
"""Magic basis, in columns: real orthogonal matrices in it are products of gates on one qubit."""


@lru_cache(maxsize=256)
def decompose_gate(gate: Gate) -> tuple[Gate, ...]:
    """Return gates on one qubit, and two-qubit gates that take one entangler each, whose product is the gate.

    SWAP, iSWAP, CH and Toffoli's gate are written as textbooks and Qiskit do, Toffoli's with six CNOTs. A constant
    unitary on two qubits takes one rotation each about XX, YY and ZZ at most (the Cartan decomposition), and one on
    three qubits takes at most 20 two-qubit gates (the Shannon decomposition of Shende, Bullock and Markov,
    quant-ph/0406176). A gate that is of this kind is returned alone.

    >>> " ".join(each.name for each in decompose_gate(Gate("swap", (0, 1))))
    'cx cx cx'
    """
    if gate.matrix is not None and len(gate.qubits) > 1:
        unitary = scipy.linalg.polar(np.array(gate.matrix))[0]  # a matrix in single precision is unitary to 1e-6
        return tuple((_from_two_qubits if len(gate.qubits) == 2 else _from_three_qubits)(unitary, gate.qubits))
    return tuple(_TEXTBOOK[gate.name](*gate.qubits)) if gate.name in _TEXTBOOK else (gate,)


@cached_on_circuit
def decompose_three_qubit_gates(circuit: Circuit) -> Circuit:
    """Return the circuit with every gate on three qubits decomposed by `decompose_gate`, and the others as they are.

    >>> decompose_three_qubit_gates(Circuit.from_gates(3, [Gate("ccx", (0, 1, 2))])).gate_counts()
    {'ry': 0, 'cx': 6, 'h': 2, 'tdg': 3, 't': 4}
    """
    gates = [part for gate in circuit.gates for part in (decompose_gate(gate) if len(gate.qubits) > 2 else (gate,))]
    return circuit.with_gates(gates)


def _ch(control: int, target: int) -> Iterator[Gate]:
    yield from (ry(target, -math.pi / 4), Gate("cz", (control, target)), ry(target, math.pi / 4))


def _swap(one: int, other: int) -> Iterator[Gate]:
    yield from (cx(one, other), cx(other, one), cx(one, other))


def _iswap(one: int, other: int) -> Iterator[Gate]:
    yield from (Gate(name, (one, other), (-math.pi / 2,)) for name in ("rxx", "ryy"))


def _ccx(one: int, other: int, target: int) -> Iterator[Gate]:
    yield Gate("h", (target,))
    for control, turned in ((other, "tdg"), (one, "t"), (other, "tdg"), (one, "t")):
        yield from (cx(control, target), Gate(turned, (target,)))
    yield from (Gate("h", (target,)), Gate("t", (other,)), cx(one, other))
    yield from (Gate("t", (one,)), Gate("tdg", (other,)), cx(one, other))


_TEXTBOOK: dict[str, Callable[..., Iterator[Gate]]] = {"ch": _ch, "swap": _swap, "iswap": _iswap, "ccx": _ccx}


def _rows(matrix: ComplexArray) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))


def _from_one_qubit(matrix: ComplexArray, qubit: int) -> Iterator[Gate]:
    """Yield a gate on one qubit, or the global phase that it is."""
    if np.abs(matrix - matrix[0, 0] * _IDENTITY).max() > _TOLERANCE:
        yield Gate("unitary", (qubit,), matrix=_rows(matrix))
    elif abs(phase := float(np.angle(matrix[0, 0]))) > _TOLERANCE:
        yield Gate("gphase", (), (phase,))


def _from_two_qubits(matrix: ComplexArray, qubits: tuple[int, ...]) -> Iterator[Gate]:
    """Yield the gates of a Cartan decomposition: on each qubit, rotations about XX, YY and ZZ, on each qubit."""
    before, angles, after = _cartan(matrix)
    rotations = [Gate(name, qubits, (angle,)) for name, angle in angles.items() if abs(angle) > _TOLERANCE]
    if rotations:
        for qubit, local in zip(qubits, _factors(before), strict=True):
            yield from _from_one_qubit(local, qubit)
    else:
        after = after @ before
    yield from rotations
    for qubit, local in zip(qubits, _factors(after), strict=True):
        yield from _from_one_qubit(local, qubit)


def _cartan(matrix: ComplexArray) -> tuple[ComplexArray, dict[str, float], ComplexArray]:
    """Return a product of gates on one qubit, angles of rotations from -pi/2 to pi/2, and another such product."""
    special = matrix / np.linalg.det(matrix) ** 0.25
    in_bell = _BELL.conj().T @ special @ _BELL
    basis = _real_eigenvectors(in_bell.T @ in_bell)
    phases = np.angle(np.diag(basis.T @ in_bell.T @ in_bell @ basis)) / 2
    left = in_bell @ basis * np.exp(-1j * phases)
    if np.linalg.det(left).real < 0:
        left[:, 0], phases[0] = -left[:, 0], phases[0] + np.pi
    before = (_BELL @ basis.T @ _BELL.conj().T).astype(np.complex128)
    phase = np.angle(np.linalg.det(matrix)) / 4 + phases.mean()
    after: ComplexArray = np.exp(1j * phase) * (_BELL @ left.real @ _BELL.conj().T)
    angles = {}
    for name, word in _WORDS.items():
        angle = float(phases @ np.diag(_BELL.conj().T @ word @ _BELL).real) / 4
        turns = round(angle / (np.pi / 2))  # quarter turns are products of Pauli matrices
        after = after @ np.linalg.matrix_power(1j * word, turns % 4)
        angles[name] = -2 * (angle - turns * np.pi / 2)
    return before, angles, after


def _real_eigenvectors(symmetric: ComplexArray) -> FloatArray:
    """Return a rotation whose columns are eigenvectors of a symmetric unitary matrix."""

    def eigenvectors(mixing: float) -> FloatArray:
        found: FloatArray = np.linalg.eigh(math.cos(mixing) * symmetric.real + math.sin(mixing) * symmetric.imag)[1]
        return found

    def error(basis: FloatArray) -> float:
        rotated = basis.T @ symmetric @ basis
        return float(np.abs(rotated - np.diag(np.diag(rotated))).max())

    # The real and the imaginary part commute. Where one sum of them has equal eigenvalues that they do not both have,
    # another has not.
    basis = min(map(eigenvectors, range(8)), key=error)
    basis[:, 0] *= np.sign(np.linalg.det(basis))
    return basis


def _factors(product: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
    """Return the two matrices of a Kronecker product of gates on one qubit."""
    left, values, right = np.linalg.svd(product.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4))
    scale = math.sqrt(values[0])
    first, second = (scale * vector.reshape(2, 2).astype(np.complex128) for vector in (left[:, 0], right[0]))
    return first, second


def _from_three_qubits(matrix: ComplexArray, qubits: tuple[int, ...]) -> Iterator[Gate]:
    """Yield the gates of a Shannon decomposition.

    A diagonal gate on the last two qubits, which commutes with the rotations that they control, leaves each of their
    gates but the last for the next one, so that two rotations are enough for it.
    """
    rest = qubits[1:]
    left, thetas, right = scipy.linalg.cossin(matrix, p=4, q=4, separate=True)
    middle = list(_multiplexed("ry", "cz", 2 * thetas, qubits))
    if middle:  # the last CZ is part of the gates behind it
        left = (left[0], left[1] @ np.kron(_PAULIS["z"], _IDENTITY))
        del middle[-1]
    first, first_phases, second = demultiplex(*right)
    third, third_phases, fourth = demultiplex(*left)
    pending = np.eye(4, dtype=np.complex128)
    for own, rotations in (
        (first, _multiplexed("rz", "cx", -2 * first_phases, qubits)),
        (second, middle),
        (third, _multiplexed("rz", "cx", -2 * third_phases, qubits)),
    ):
        angle = _diagonal_angle(own @ pending)
        diagonal = np.diag(np.exp(-0.5j * angle * np.array([1, -1, -1, 1])))
        yield from _from_two_qubits(diagonal @ own @ pending, rest)
        yield from rotations
        pending = diagonal.conj()
    yield from _from_two_qubits(fourth @ pending, rest)


def demultiplex(zero: ComplexArray, one: ComplexArray) -> tuple[ComplexArray, FloatArray, ComplexArray]:
    """Return W, phases and V with V exp(i phases) W and V exp(-i phases) W equal to two unitary matrices."""
    triangle, vectors = scipy.linalg.schur(zero @ one.conj().T, output="complex")
    phases = np.angle(np.diag(triangle)) / 2
    return np.exp(1j * phases)[:, None] * vectors.conj().T @ one, phases, vectors


def _multiplexed(name: str, entangler: str, angles: FloatArray, qubits: tuple[int, ...]) -> Iterator[Gate]:
    """Yield rotations of the first of three qubits that turn by one angle for each state of the others.

    The entangler is controlled by one of the others, and negates the rotations on one side of it.
    """
    if np.abs(angles).max() < _TOLERANCE:
        return
    target, one, other = qubits
    for subset, control in ((0b00, other), (0b01, one), (0b11, other), (0b10, one)):
        signs = [(-1) ** (subset & state).bit_count() for state in range(4)]
        yield from (Gate(name, (target,), (float(signs @ angles) / 4,)), Gate(entangler, (control, target)))


def _diagonal_angle(matrix: ComplexArray) -> float:
    """Return the angle of a rotation about ZZ behind which two rotations are enough for a matrix on two qubits.

    They are if the trace of U YY U^T YY is real for the matrix U of determinant 1.
    """
    special = matrix / np.linalg.det(matrix) ** 0.25
    twisted = special @ _WORDS["ryy"] @ special.T
    plain, turned = np.trace(twisted @ _WORDS["ryy"]), -1j * np.trace(twisted @ _WORDS["rzz"] @ _WORDS["ryy"])
    return math.atan2(-plain.imag, turned.imag)
