"""Lowering of circuits to Pauli rotations and constant unitaries, exact including the global phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ketfit.circuit.angle import AngleExpression, linear_combination
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import GATES, Gate, Matrix


def word_masks(word: str, qubits: Sequence[int], n_qubits: int) -> tuple[int, int]:
    """Return the bits of the basis index that X and Y of a Pauli word P flip, and those that Z and Y negate.

    Qubit 0 is the most significant of `n_qubits` bits. With the masks x and z and the number y of bits in both,
    P|b> = i**y (-1)**popcount(b & z) |b ^ x>.

    >>> word_masks("XY", (0, 2), 3)
    (5, 1)
    """
    x = z = 0
    for letter, qubit in zip(word, qubits, strict=True):
        bit = 1 << (n_qubits - 1 - qubit)
        x |= bit * (letter != "Z")
        z |= bit * (letter != "X")
    return x, z


@dataclass(frozen=True, slots=True)
class PauliRotation:
    """The rotation exp(-i angle/2 P) of a Pauli word P.

    Attributes:
        word: A letter X, Y or Z for each of `qubits`; empty for the identity, a global phase of -angle/2.
        qubits: The qubits, in the order of the letters.
        angle: A weight, an input, a number of radians, or a sum of those.
    """

    word: str
    qubits: tuple[int, ...]
    angle: AngleExpression

    @property
    def is_real(self) -> bool:
        """True if the rotation is a real matrix, which it is with an odd number of Y."""
        return self.word.count("Y") % 2 == 1

    def masks(self, n_qubits: int) -> tuple[int, int]:
        """Return the bits of the basis index that X and Y flip, and those that Z and Y negate.

        >>> PauliRotation("XY", (0, 2), 0.5).masks(3)
        (5, 1)
        """
        return word_masks(self.word, self.qubits, n_qubits)


@dataclass(frozen=True, slots=True)
class ConstantUnitary:
    """A matrix on one to three qubits, the first of them the most significant bit of its index."""

    matrix: Matrix
    qubits: tuple[int, ...]

    @property
    def is_real(self) -> bool:
        """True if every element is real."""
        return all(entry.imag == 0 for row in self.matrix for entry in row)


LoweredOperation = PauliRotation | ConstantUnitary


def lower_gate(gate: Gate) -> tuple[LoweredOperation, ...]:
    """Return the operations, in the order they are applied, whose product is the matrix of the gate.

    >>> lower_gate(Gate("crz", (1, 0), [0.5]))
    (PauliRotation(word='Z', qubits=(0,), angle=0.25), PauliRotation(word='ZZ', qubits=(1, 0), angle=-0.25))
    """
    if not gate.parameters:
        return (ConstantUnitary(gate.matrix_at(), gate.qubits),)
    operations = []
    for word, factors in GATES[gate.name].rotations:
        letters = [(letter, qubit) for letter, qubit in zip(word, gate.qubits, strict=True) if letter != "I"]
        angle = linear_combination(factors, gate.parameters)
        operations.append(
            PauliRotation("".join(letter for letter, _ in letters), tuple(qubit for _, qubit in letters), angle)
        )
    return tuple(operations)


@cached_on_circuit
def lower(circuit: Circuit) -> tuple[LoweredOperation, ...]:
    """Return the operations of all gates of the circuit, in the order they are applied.

    >>> lower(Circuit.from_gates(1, [Gate("h", 0), Gate("rz", 0, [1.0])]))[1]
    PauliRotation(word='Z', qubits=(0,), angle=1.0)
    """
    return tuple(operation for gate in circuit.gates for operation in lower_gate(gate))
