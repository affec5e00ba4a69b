"""Tests of the checks of a result: counts and canary."""

from __future__ import annotations

from typing import Any

import pytest

from ketfit.errors import CanaryError, PartialResultError, WrongCountsError
from ketfit.hardware.backends.local import exact_distributions
from ketfit.hardware.runs.canary import canary_bitstring, canary_circuit, check_canary, check_counts


@pytest.mark.parametrize("count", [True, -1, 2.5, "3"])
def test_check_counts_rejects_invalid_count(count: Any) -> None:
    with pytest.raises(WrongCountsError):
        check_counts([{"0": count}], [1], 3)


@pytest.mark.parametrize("n_qubits", range(1, 11))
def test_canary_bitstring_matches_exact_distribution(n_qubits: int) -> None:
    (distribution,) = exact_distributions([canary_circuit(n_qubits)])
    assert distribution[int(canary_bitstring(n_qubits), 2)] == pytest.approx(1)


@pytest.mark.parametrize("n_qubits", range(3, 11))
def test_check_canary_names_reversed_and_shifted_bits(n_qubits: int) -> None:
    expected = canary_bitstring(n_qubits)
    check_canary({expected: 60, "0" * len(expected): 40}, n_qubits)
    with pytest.raises(CanaryError, match="bits come reversed"):
        check_canary({expected[::-1]: 100}, n_qubits)
    with pytest.raises(CanaryError, match="bits are shifted by 1"):
        check_canary({expected[1:] + expected[:1]: 100}, n_qubits)


def test_check_counts_rejects_other_number_of_results_and_shots() -> None:
    check_counts([{"01": 2, "11": 1}], [2], 3)
    with pytest.raises(PartialResultError, match="1 results for 2 circuits"):
        check_counts([{"01": 3}], [2, 2], 3)
    with pytest.raises(WrongCountsError, match="circuit 0 has 2 shots in all; 3 were requested"):
        check_counts([{"01": 2}], [2], 3)
    with pytest.raises(WrongCountsError, match="circuit 0 gives '0a'; it measures 2 qubits"):
        check_counts([{"0a": 3}], [2], 3)
