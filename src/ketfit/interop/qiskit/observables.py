"""Qiskit's observables as sums of Pauli words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from ketfit.circuit.observable import PauliSum, PauliTerm
from ketfit.errors import CircuitError

MAX_PROJECTORS = 16
"""Maximum number of projectors in a term, which has 2**projectors Pauli words."""

_PROJECTORS = {"0": ("Z", 1), "1": ("Z", -1), "+": ("X", 1), "-": ("X", -1), "r": ("Y", 1), "l": ("Y", -1)}
_IN_ZERO_STATE = {"I": 1.0, "X": 0.0, "Y": 0.0, "Z": 1.0, "0": 1.0, "1": 0.0, "+": 0.5, "-": 0.5, "r": 0.5, "l": 0.5}


def to_pauli_sum(observable: Mapping[str, float]) -> PauliSum:
    """Return an element of an `ObservablesArray`, whose strings have qubit 0 at the end, as a sum of Pauli words.

    Letters are the Pauli matrices and the projectors on their eigenstates: 0 and 1 of Z, + and - of X, r and l of Y.

    Raises:
        CircuitError: a term has more than `MAX_PROJECTORS` projectors.

    >>> to_pauli_sum({"Z0": 2.0}).terms
    (PauliTerm(coefficient=1.0, word='Z', qubits=(1,)), PauliTerm(coefficient=1.0, word='ZZ', qubits=(0, 1)))
    """
    return PauliSum(tuple(term for label, factor in observable.items() for term in _expand(label, float(factor))))


def restrict(observable: Mapping[str, float], qubits: Sequence[int]) -> dict[str, float]:
    """Return an element of an `ObservablesArray` on some qubits, where all others are in the state |0>.

    Args:
        observable: Factors of strings, which have qubit 0 at the end.
        qubits: The qubits of the result, in the order of its qubits.

    >>> restrict({"ZIX": 2.0, "+IX": 1.0, "YII": 1.0}, (0,))
    {'X': 2.5}
    """
    restricted: dict[str, float] = {}
    kept = frozenset(qubits)
    for label, factor in observable.items():
        letters = label[::-1]
        scale = math.prod(_IN_ZERO_STATE[letter] for qubit, letter in enumerate(letters) if qubit not in kept)
        if scale:
            short = "".join(letters[qubit] for qubit in qubits)[::-1]
            restricted[short] = restricted.get(short, 0.0) + scale * float(factor)
    return restricted or {"I" * len(qubits): 0.0}


def _expand(label: str, coefficient: float) -> Iterator[PauliTerm]:
    letters = {qubit: letter for qubit, letter in enumerate(reversed(label)) if letter != "I"}
    projectors = {qubit: _PROJECTORS[letter] for qubit, letter in letters.items() if letter in _PROJECTORS}
    if len(projectors) > MAX_PROJECTORS:
        raise CircuitError(
            f"a term of the observable has {len(projectors)} projectors, and KetFit takes at most {MAX_PROJECTORS}; "
            "estimate the probability of the outcome with a sampler"
        )
    paulis = {qubit: letter for qubit, letter in letters.items() if qubit not in projectors}
    scale = coefficient / 2 ** len(projectors)
    for chosen in product((False, True), repeat=len(projectors)):  # each projector is (1 + sign * Pauli) / 2
        word, sign = dict(paulis), 1
        for (qubit, (pauli, eigenvalue)), use in zip(projectors.items(), chosen, strict=True):
            if use:
                word[qubit] = pauli
                sign *= eigenvalue
        yield PauliTerm(sign * scale, "".join(word.values()), tuple(word))
