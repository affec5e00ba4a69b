"""Checks of a job's results: number of circuits, totals, bitstrings, and a canary circuit with a known answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ketfit.circuit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.errors import CanaryError, PartialResultError, WrongCountsError
from ketfit.hardware.backends.base import BoundCircuit, Counts
from ketfit.integers import as_integer

MAX_CANARY_QUBITS = 8
"""The canary measures at most this many qubits, from qubit 0 on."""


def n_canary_qubits(n_qubits: int) -> int:
    """Return the number of qubits that the canary measures on a circuit of `n_qubits`."""
    return min(n_qubits, MAX_CANARY_QUBITS)


def canary_circuit(n_qubits: int) -> BoundCircuit:
    """Return a circuit with one outcome, 1 1 0 1 0 0 ..., that differs from its reversal, shifts and inversion.

    Qubits 0 and 3 are rotated by pi, and a CNOT from qubit 0 to qubit 1 distinguishes control from target. Three qubits
    give 1 1 0, two give 1 0.
    """
    flipped = {1: (0,), 2: (0, 1), 3: (0,)}.get(n_qubits, (0, 3))
    gates = [ry(qubit, Angle("weight", 0)) for qubit in flipped] + ([cx(0, 1)] if n_qubits > 1 else [])
    measured = tuple(range(n_canary_qubits(n_qubits)))
    return BoundCircuit(Circuit(n_qubits, tuple(gates), 1, 0), (math.pi,), (), measured)


def canary_bitstring(n_qubits: int) -> str:
    """Return the outcome of the canary on a machine without errors.

    >>> canary_bitstring(5)
    '11010'
    """
    return _bitstring_after(canary_circuit(n_qubits).circuit.gates, n_canary_qubits(n_qubits))


def _bitstring_after(gates: Iterable[Gate], width: int) -> str:
    """Return the bits after gates of which every rotation is by pi."""
    bits = [0] * width
    for gate in gates:
        bits[gate.target] ^= 1 if gate.control is None else bits[gate.control]
    return "".join(map(str, bits))


def check_counts(results: Sequence[Counts], widths: Sequence[int], shots: int) -> None:
    """Raise an error if results cannot come from circuits that measure `widths` qubits.

    Raises:
        PartialResultError: There are fewer or more results than circuits.
        WrongCountsError: A bitstring has another length, a count is no whole number, or counts do not sum to the shots.
    """
    if len(results) != len(widths):
        raise PartialResultError(
            f"{len(results)} results for {len(widths)} circuits; they cannot be assigned, so none is used"
        )
    for index, (counts, width) in enumerate(zip(results, widths, strict=True)):
        for bitstring, count in counts.items():
            if len(bitstring) != width or set(bitstring) - {"0", "1"}:
                raise WrongCountsError(f"circuit {index} gives {bitstring!r}; it measures {width} qubits, a bit each")
            as_integer(count, f"circuit {index}, the count of {bitstring!r}", minimum=0, error=WrongCountsError)
        if (total := sum(counts.values())) != shots:
            raise WrongCountsError(f"circuit {index} has {total:,} shots in all; {shots:,} were requested")


def check_canary(counts: Counts, n_qubits: int) -> None:
    """Raise an error if the canary's majority bitstring is wrong, with the mistakes that would explain it.

    Each bit is decided by the majority of the shots, so moderate device errors do not matter.

    Raises:
        CanaryError: The bitstring is not `canary_bitstring`.
    """
    expected, measured = canary_bitstring(n_qubits), majority_bitstring(counts, n_canary_qubits(n_qubits))
    if measured == expected:
        return
    explanations = [cause for cause, bits in _explained_bitstrings(expected, n_qubits).items() if bits == measured]
    reason = ", or ".join(explanations) or "the bits or the qubits are mixed up, or the device is too noisy"
    raise CanaryError(
        f"the canary reads {measured} and must read {expected}: {reason}; the results are stored and not used. Correct "
        "the backend's bit order, mapping or calibration, and submit the circuits again"
    )


def majority_bitstring(counts: Mapping[str, int], width: int) -> str:
    """Return the majority of each of the `width` bits over all shots.

    >>> majority_bitstring({"01": 5, "11": 3, "00": 1}, 2)
    '01'
    """
    total = sum(counts.values())
    ones = [sum(count for bitstring, count in counts.items() if bitstring[bit] == "1") for bit in range(width)]
    return "".join("1" if 2 * number > total else "0" for number in ones)


def _explained_bitstrings(expected: str, n_qubits: int) -> dict[str, str]:
    """Return the canary's bitstring under each of the usual mistakes."""
    width = len(expected)
    gates = canary_circuit(n_qubits).circuit.gates
    swapped = [gate if gate.control is None else cx(gate.target, gate.control) for gate in gates]
    mistakes = {
        "bits come reversed": expected[::-1],
        "no gate was run": "0" * width,
        "zeros and ones are exchanged": expected.translate(str.maketrans("01", "10")),
        "control and target of the CNOT are exchanged": _bitstring_after(swapped, width),
        "the CNOT was not run": _bitstring_after((gate for gate in gates if gate.control is None), width),
    }
    for shift in range(1, width):
        mistakes[f"bits are shifted by {shift}"] = expected[shift:] + expected[:shift]
    return {cause: bitstring for cause, bitstring in mistakes.items() if bitstring != expected}
