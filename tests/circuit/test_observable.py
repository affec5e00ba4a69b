from __future__ import annotations

import pytest

from ketfit.circuit.observable import PauliSum, PauliTerm
from ketfit.errors import CircuitError


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            [(1.0, "Z")],
            r"^term 0 of a sum of Pauli words is \(1.0, 'Z'\); pass a coefficient, a word and its qu",
        ),
        ([(1.0, "Z", (0,)), (1.0, "Z", (0,), 5)], "^term 1 of a sum of Pauli words is"),
        ([0.5], "^term 0 of a sum of Pauli words is 0.5; pass"),
        ("ZZ", "^term 0 of a sum of Pauli words is 'Z'; pass"),
        ((1.0, "Z", (0,)), "^term 0 of a sum of Pauli words is 1.0; pass"),
        (
            PauliTerm(1.0, "Z", (0,)),
            r"^terms=PauliTerm\(.*\): pass a sequence of terms, such as \[\(1.0, 'Z', \(0",
        ),
        (0.5, "^terms=0.5: pass a sequence of terms"),
        ([("a", "Z", (0,))], "the coefficient of a Pauli word"),
        ([], "at least one term"),
    ],
)
def test_malformed_sum_is_refused_with_the_expected_form(terms, message):
    with pytest.raises(CircuitError, match=message):
        PauliSum(terms)
