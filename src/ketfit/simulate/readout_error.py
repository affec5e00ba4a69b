"""Readout errors: their effect on the expectations of qubits and of observables, and its inverse.

Every qubit has an error of its own, which turns the measured <Z> into offset + slope <Z>. A Pauli word is measured as a
product of Z in its basis, so it becomes the product of (offset + slope P) over its letters P: a sum of 2**letters words
unless the offset is 0. Long words are therefore kept as products, which are applied to a state letter by letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from torch import Tensor

from ketfit.circuit.observable import Observable, PauliSum, PauliTerm, Projector
from ketfit.errors import ConfigError, InputError
from ketfit.simulate.noise import Confusion

PRODUCT_LETTERS = 9
"""Minimum number of letters of a word that is kept as a product, which takes less time from about 5 letters on."""

MAX_MULTIPLIED_LETTERS = 15
"""Maximum number of letters of a word that is multiplied out; density matrices have as many qubits."""


@dataclass(frozen=True)
class ShiftedPauliSum:
    """A sum of Pauli words in which every Pauli matrix P is replaced by offset + slope P.

    Attributes:
        words: The sum of the words themselves.
        offset: Number that is added to every Pauli matrix.
        slope: Factor of every Pauli matrix.
    """

    words: PauliSum
    offset: float
    slope: float

    @classmethod
    def from_observable(cls, observable: MeasuredObservable) -> ShiftedPauliSum:
        """Return an observable as a sum of this form."""
        return observable if isinstance(observable, ShiftedPauliSum) else cls(observable.pauli_sum(), 0.0, 1.0)

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubits that the observable acts on, ascending."""
        return self.words.qubits

    @property
    def not_diagonal(self) -> tuple[int, ...]:
        """The qubits on which some word has X or Y."""
        return self.words.not_diagonal

    @property
    def letters(self) -> Iterator[tuple[str, int]]:
        """Every letter X, Y or Z of a word with its qubit."""
        return (pair for term in self.words.terms for pair in zip(term.word, term.qubits, strict=True))

    def pauli_sum(self) -> PauliSum:
        """Return the observable multiplied out.

        Raises:
            InputError: A word has more than `MAX_MULTIPLIED_LETTERS` letters.
        """
        longest = max(len(term.word) for term in self.words.terms)
        if longest > MAX_MULTIPLIED_LETTERS:
            raise InputError(
                f"a readout error that differs for the outcomes 0 and 1 turns a Pauli word on {longest} qubits into "
                f"2**{longest} words, and density matrices and shots need each of them; use words on at most "
                f"{MAX_MULTIPLIED_LETTERS} qubits, trajectories, or the same readout error for both outcomes"
            )
        return _multiplied_out(self.words, self.offset, self.slope)


MeasuredObservable = Observable | ShiftedPauliSum
"""An observable, with or without a readout error."""


def apply_readout_error(values: Tensor, readout: Confusion | None) -> Tensor:
    """Return <Z> after a readout error on each qubit."""
    if readout is None:
        return values
    offset, slope = _readout_line(readout)
    return offset + slope * values


def check_invertible(readout: Confusion) -> None:
    """Raise ConfigError if a confusion matrix has no inverse."""
    (zero_zero, zero_one), (one_zero, one_one) = readout
    if zero_zero - one_zero == zero_one - one_one:
        raise ConfigError(f"readout={readout} has no inverse: it is the same for both states; omit 'readout'")


def observable_after_readout_error(observable: MeasuredObservable, readout: Confusion) -> PauliSum | ShiftedPauliSum:
    """Return the observable whose exact expectation is the mean that a measurement with readout errors has.

    Every Pauli matrix P on a qubit is measured as Z in its basis, which the readout error turns into a + b P.

    >>> observable_after_readout_error(PauliSum([(1, "X", (0,))]), ((0.9, 0.1), (0.1, 0.9))).terms[-1].coefficient
    0.8
    """
    return _with_lines(observable, *_readout_line(readout))


def observable_before_readout_error(observable: Observable, readout: Confusion) -> PauliSum | ShiftedPauliSum:
    """Return the observable whose measurement with readout errors has the mean that `observable` has without.

    Raises:
        ConfigError: The confusion matrix has no inverse.

    >>> observable_before_readout_error(PauliSum([(1, "X", (0,))]), ((0.9, 0.1), (0.1, 0.9))).terms[-1].coefficient
    1.25
    """
    check_invertible(readout)
    offset, slope = _readout_line(readout)
    return _with_lines(observable, -offset / slope, 1 / slope)


def _readout_line(readout: Confusion) -> tuple[float, float]:
    """Return the offset and the factor of <Z> after a readout error."""
    (zero_zero, zero_one), (one_zero, one_one) = readout
    z_of_zero, z_of_one = zero_zero - one_zero, zero_one - one_one  # measured <Z> of |0> and of |1>
    return (z_of_zero + z_of_one) / 2, (z_of_zero - z_of_one) / 2


def _with_lines(observable: MeasuredObservable, offset: float, slope: float) -> PauliSum | ShiftedPauliSum:
    """Return the observable with every Pauli matrix P replaced by offset + slope P."""
    if isinstance(observable, ShiftedPauliSum):
        return ShiftedPauliSum(
            observable.words, observable.offset + observable.slope * offset, observable.slope * slope
        )
    if isinstance(observable, Projector):
        ascending = sorted(zip(observable.qubits, observable.bits, strict=True))  # as the letters of a term
        signs = [1 - 2 * int(bit) for _, bit in ascending]
        factors = [((1 + sign * offset) / 2, sign * slope / 2) for sign in signs]
        return _sum(_expanded(PauliTerm(1.0, "Z" * len(signs), observable.qubits), factors))
    words = observable.pauli_sum()
    if offset and slope and max(len(term.word) for term in words.terms) >= PRODUCT_LETTERS:
        return ShiftedPauliSum(words, offset, slope)
    return _multiplied_out(words, offset, slope)


def _multiplied_out(words: PauliSum, offset: float, slope: float) -> PauliSum:
    factors = (offset, slope)
    return _sum(each for term in words.terms for each in _expanded(term, [factors] * len(term.word)))


def _expanded(term: PauliTerm, factors: Sequence[tuple[float, float]]) -> Iterator[PauliTerm]:
    """Yield the terms of a coefficient times the product of (a + b P) over the letters P of a word, without zeros."""
    choices = [[keep for keep in (False, True) if pair[keep]] for pair in factors]
    for subset in product(*choices):
        scale = prod(pair[keep] for pair, keep in zip(factors, subset, strict=True))
        word = "".join(letter if keep else "I" for letter, keep in zip(term.word, subset, strict=True))
        yield PauliTerm(term.coefficient * scale, word, term.qubits)


def _sum(terms: Iterator[PauliTerm]) -> PauliSum:
    return PauliSum(tuple(terms) or (PauliTerm(0.0, "", ()),))
