"""Observables as immutable values: weighted sums of Pauli words, projectors and Hermitian matrices."""

from __future__ import annotations

import cmath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from ketfit.circuit.angle import Angle, AngleSum, as_angle
from ketfit.circuit.circuit import Circuit
from ketfit.circuit.gate import MAX_UNITARY_QUBITS, Matrix, block_diagonal, square_matrix
from ketfit.errors import CircuitError
from ketfit.integers import as_integers

MAX_PROJECTOR_QUBITS = 62
"""Maximum number of qubits of a projector, whose bits are the index of a basis state."""

_FACTOR = re.compile(r"(?P<letter>[XYZ])(?P<qubit>0|[1-9][0-9]{0,3})", re.ASCII)
_PRODUCTS = {("X", "Y"): (1j, "Z"), ("Y", "Z"): (1j, "X"), ("Z", "X"): (1j, "Y")}
_PRODUCTS |= {(b, a): (-phase, c) for (a, b), (phase, c) in _PRODUCTS.items()}
_PRODUCTS |= {(letter, letter): (1, "I") for letter in "XYZ"}
_PAULIS: dict[str, Matrix] = {
    "I": ((1, 0), (0, 1)),
    "X": ((0, 1), (1, 0)),
    "Y": ((0, -1j), (1j, 0)),
    "Z": ((1, 0), (0, -1)),
}


@dataclass(frozen=True, slots=True, init=False)
class PauliTerm:
    """A real coefficient times a Pauli word, such as 0.5 X_0 Z_2. Letters I are dropped, and qubits ascend.

    Raises:
        CircuitError: a letter is unknown, the word does not fit the qubits, a qubit is not an integer or named twice,
            or the coefficient is not a finite real number.

    >>> PauliTerm(0.5, "ZIX", (2, 1, 0))
    PauliTerm(coefficient=0.5, word='XZ', qubits=(0, 2))
    """

    coefficient: float
    word: str
    qubits: tuple[int, ...]

    def __init__(self, coefficient: float, word: str, qubits: Iterable[int]) -> None:
        checked = _distinct(qubits, "a Pauli word")
        if not isinstance(word, str) or set(word) - set("IXYZ"):
            raise CircuitError(f"a Pauli word consists of the letters I, X, Y and Z, got {word!r}")
        if len(word) != len(checked):
            raise CircuitError(f"the Pauli word {word!r} has {len(word)} letters for {len(checked)} qubits")
        letters = sorted((qubit, letter) for qubit, letter in zip(checked, word, strict=True) if letter != "I")
        number = as_angle(coefficient, "the coefficient of a Pauli word")
        if isinstance(number, (Angle, AngleSum)):
            raise CircuitError("the coefficient of a Pauli word is a number, not a weight or an input")
        object.__setattr__(self, "coefficient", number)
        object.__setattr__(self, "word", "".join(letter for _, letter in letters))
        object.__setattr__(self, "qubits", tuple(qubit for qubit, _ in letters))


@dataclass(frozen=True, slots=True, init=False)
class PauliSum:
    """A sum of real coefficients times Pauli words.

    Attributes:
        terms: The terms; triples (coefficient, word, qubits) are taken too. Equal words are added up.

    Raises:
        CircuitError: a term is invalid, as in `PauliTerm`, or there is none.

    >>> PauliSum([(0.5, "ZZ", (0, 1)), (-1, "X", (1,))]).qubits
    (0, 1)
    """

    terms: tuple[PauliTerm, ...]

    def __init__(self, terms: Iterable[PauliTerm | tuple[float, str, Iterable[int]]]) -> None:
        total: dict[tuple[str, tuple[int, ...]], float] = {}
        if not isinstance(terms, Iterable):
            raise CircuitError(f"terms={terms!r}: pass a sequence of terms, such as [(1.0, 'Z', (0,))]")
        for index, each in enumerate(terms):
            term = _as_term(index, each)
            key = (term.word, term.qubits)
            total[key] = total.get(key, 0.0) + term.coefficient
        if not total:
            raise CircuitError("a sum of Pauli words needs at least one term, such as (1.0, 'Z', (0,))")
        object.__setattr__(self, "terms", tuple(PauliTerm(c, word, qubits) for (word, qubits), c in total.items()))

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubits that the observable acts on, ascending."""
        return tuple(sorted({qubit for term in self.terms for qubit in term.qubits}))

    @property
    def not_diagonal(self) -> tuple[int, ...]:
        """The qubits on which some word has X or Y."""
        pairs = (pair for term in self.terms for pair in zip(term.word, term.qubits, strict=True))
        return tuple(sorted({qubit for letter, qubit in pairs if letter != "Z"}))

    def pauli_sum(self) -> PauliSum:
        """Return the observable itself, which is a sum of Pauli words."""
        return self

    def squared(self) -> PauliSum:
        """Return the product of the observable with itself, as a sum of Pauli words."""
        total: dict[tuple[str, tuple[int, ...]], complex] = {}
        for one, other in product(self.terms, repeat=2):
            phase, letters = 1 + 0j, dict(zip(one.qubits, one.word, strict=True))
            for qubit, letter in zip(other.qubits, other.word, strict=True):
                factor, result = _PRODUCTS[letters[qubit], letter] if letters.get(qubit, "I") != "I" else (1, letter)
                phase *= factor
                letters[qubit] = result
            kept = sorted((qubit, letter) for qubit, letter in letters.items() if letter != "I")
            key = ("".join(letter for _, letter in kept), tuple(qubit for qubit, _ in kept))
            total[key] = total.get(key, 0) + phase * one.coefficient * other.coefficient
        # Products of words that anticommute cancel, and with them every imaginary coefficient.
        return PauliSum(tuple(PauliTerm(c.real, word, qubits) for (word, qubits), c in total.items()))


def read_pauli_word(text: str) -> PauliSum:
    """Return the Pauli word of a text, letters with the number of their qubit, as an observable.

    Raises:
        CircuitError: It has another form, names no qubit, or a qubit twice.

    >>> read_pauli_word("X0 Z2").qubits
    (0, 2)
    """
    letters = [_FACTOR.fullmatch(part) for part in text.split()] if isinstance(text, str) else []
    if not letters or None in letters:
        raise CircuitError(f"{text!r} is not a Pauli word; write letters X, Y and Z with their qubits, such as 'X0 Z2'")
    pairs = [(letter["letter"], int(letter["qubit"])) for letter in letters if letter is not None]
    return PauliSum((PauliTerm(1.0, "".join(each for each, _ in pairs), tuple(qubit for _, qubit in pairs)),))


@dataclass(frozen=True, slots=True, init=False)
class Projector:
    """The projector on a basis state of some qubits: its expectation is the probability of these outcomes.

    Attributes:
        bits: A character 0 or 1 for each qubit.
        qubits: The qubits; others may have any value.

    Raises:
        CircuitError: the bits are invalid or do not fit the qubits, or a qubit is not an integer or named twice.

    >>> Projector("01", (0, 1)).not_diagonal
    ()
    """

    bits: str
    qubits: tuple[int, ...]

    def __init__(self, bits: str, qubits: Iterable[int]) -> None:
        checked = _distinct(qubits, "a projector")
        if not isinstance(bits, str) or set(bits) - set("01"):
            raise CircuitError(f"the bits of a projector are characters 0 and 1, got {bits!r}")
        if len(bits) != len(checked):
            raise CircuitError(f"the projector has bits {bits!r} for {len(checked)} qubits; pass one for each")
        if not 1 <= len(bits) <= MAX_PROJECTOR_QUBITS:
            raise CircuitError(f"a projector acts on 1 to {MAX_PROJECTOR_QUBITS} qubits, got {len(bits)}")
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "qubits", checked)

    @property
    def not_diagonal(self) -> tuple[int, ...]:
        """No qubit: a projector on a basis state is diagonal."""
        return ()

    def pauli_sum(self) -> PauliSum:
        """Return the projector as a sum of 2**len(qubits) words of Z."""
        scale = 0.5 ** len(self.qubits)
        terms = []
        for chosen in product((False, True), repeat=len(self.qubits)):
            ones = sum(bit == "1" for bit, use in zip(self.bits, chosen, strict=True) if use)
            qubits = tuple(qubit for qubit, use in zip(self.qubits, chosen, strict=True) if use)
            terms.append(PauliTerm(scale * (-1) ** ones, "Z" * len(qubits), qubits))
        return PauliSum(tuple(terms))

    def squared(self) -> Projector:
        """Return the projector itself, which is its own square."""
        return self


@dataclass(frozen=True, slots=True, init=False)
class Hermitian:
    """A Hermitian matrix on one to three qubits, the first of them the most significant bit of its index.

    Raises:
        CircuitError: the matrix is not Hermitian or of another size, or a qubit is not an integer or named twice.

    >>> Hermitian([[0, 1], [1, 0]], (3,)).not_diagonal
    (3,)
    """

    matrix: Matrix
    qubits: tuple[int, ...]

    def __init__(self, matrix: Iterable[Iterable[complex]], qubits: Iterable[int]) -> None:
        checked = _distinct(qubits, "a Hermitian matrix")
        if not 1 <= len(checked) <= MAX_UNITARY_QUBITS:
            raise CircuitError(f"a Hermitian matrix acts on one to {MAX_UNITARY_QUBITS} qubits, got {len(checked)}")
        rows = square_matrix(matrix, len(checked), "a Hermitian matrix")
        largest = max(abs(entry) for row in rows for entry in row)
        for row, column in product(range(len(rows)), repeat=2):
            if not cmath.isclose(rows[row][column], rows[column][row].conjugate(), abs_tol=1e-6 * largest):
                raise CircuitError(
                    f"the matrix is not Hermitian: element ({row}, {column}) is {rows[row][column]} and "
                    f"({column}, {row}) is {rows[column][row]}"
                )
        # The mean with the adjoint removes rounding errors, so that every expectation is real.
        size = range(len(rows))
        exact = tuple(tuple((rows[a][b] + rows[b][a].conjugate()) / 2 for b in size) for a in size)
        object.__setattr__(self, "matrix", exact)
        object.__setattr__(self, "qubits", checked)

    @property
    def not_diagonal(self) -> tuple[int, ...]:
        """The qubits on which the matrix is not diagonal."""
        kept = block_diagonal(self.matrix)
        return tuple(qubit for qubit, diagonal in zip(self.qubits, kept, strict=True) if not diagonal)

    def pauli_sum(self) -> PauliSum:
        """Return the matrix as a sum of Pauli words; coefficients of 0 are left out."""
        size, terms = len(self.matrix), []
        for word in product("IXYZ", repeat=len(self.qubits)):
            total = 0j
            for row in range(size):
                column, phase = row, 1 + 0j
                for place, letter in enumerate(word):
                    bit = len(word) - 1 - place
                    value = row >> bit & 1
                    column ^= (letter in "XY") << bit
                    phase *= _PAULIS[letter][value][value ^ (letter in "XY")]
                total += phase * self.matrix[column][row]
            if total.real != 0:
                terms.append(PauliTerm(total.real / size, "".join(word), self.qubits))
        return PauliSum(tuple(terms) or (PauliTerm(0.0, "", ()),))

    def squared(self) -> Hermitian:
        """Return the product of the matrix with itself."""
        columns = list(zip(*self.matrix, strict=True))
        square = tuple(
            tuple(sum((a * b for a, b in zip(row, column, strict=True)), 0j) for column in columns)
            for row in self.matrix
        )
        return Hermitian(square, self.qubits)


Observable = PauliSum | Projector | Hermitian
"""What an expectation is taken of."""


def check_observables(circuit: Circuit, observables: Any) -> tuple[Observable, ...]:
    """Return observables that fit a circuit as a tuple.

    Raises:
        CircuitError: they are not a sequence of observables, there is none, or a qubit is out of range.
    """
    if isinstance(observables, (PauliSum, Projector, Hermitian)) or not isinstance(observables, Iterable):
        raise CircuitError(f"observables={observables!r}: pass a sequence of observables, such as (PauliSum(...),)")
    checked = tuple(observables)
    if not checked:
        raise CircuitError("name at least one observable")
    for index, observable in enumerate(checked):
        if not isinstance(observable, (PauliSum, Projector, Hermitian)):
            raise CircuitError(
                f"observable {index} is of type {type(observable).__name__}; pass a PauliSum, Projector or Hermitian"
            )
        for qubit in observable.qubits:
            if not 0 <= qubit < circuit.n_qubits:
                raise CircuitError(
                    f"observable {index} acts on qubit {qubit}; the circuit has qubits 0 to {circuit.n_qubits - 1}"
                )
    return checked


def _as_term(index: int, given: Any) -> PauliTerm:
    """Return a term of a sum, given as a triple or as it is."""
    if isinstance(given, PauliTerm):
        return given
    try:
        coefficient, word, qubits = given
    except (TypeError, ValueError):
        raise CircuitError(
            f"term {index} of a sum of Pauli words is {given!r}; pass a coefficient, a word and its qubits, such as "
            "(1.0, 'Z', (0,))"
        ) from None
    return PauliTerm(coefficient, word, qubits)


def _distinct(qubits: Any, what: str) -> tuple[int, ...]:
    checked = as_integers(qubits, "qubits", error=CircuitError)
    if len(set(checked)) < len(checked):
        raise CircuitError(f"a qubit of {what} is named twice in {checked}; name each once")
    return checked
