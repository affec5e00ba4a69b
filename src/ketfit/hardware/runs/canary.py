"""Whether a batch can be believed: its totals, its readings, and a circuit whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ketfit.circuit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.errors import CanaryError, PartialResultError, WrongCountsError
from ketfit.hardware.backends.base import BoundCircuit, Counts
from ketfit.integers import as_integer

_TURN = math.pi


MAX_READ = 8
"""Qubits that the canary measures, the first ones."""


def canary_width(n_qubits: int) -> int:
    """How many qubits the canary on so many measures."""
    return min(n_qubits, MAX_READ)


def canary(n_qubits: int) -> BoundCircuit:
    """A circuit with one reading, 1 1 0 1 0 0 ..., which is another one backwards, shifted or inverted.

    Qubits 0 and 3 are turned by pi, and a CNOT of qubit 0 on qubit 1 tells control from target. Three qubits read
    1 1 0, two read 1 0.
    """
    turned = {1: (0,), 2: (0, 1), 3: (0,)}.get(n_qubits, (0, 3))
    gates = [ry(qubit, Angle("weight", 0)) for qubit in turned] + ([cx(0, 1)] if n_qubits > 1 else [])
    return BoundCircuit(Circuit(n_qubits, tuple(gates), 1, 0), (_TURN,), (), tuple(range(canary_width(n_qubits))))


def canary_reading(n_qubits: int) -> str:
    """What `canary` reads on a machine without errors."""
    return _reading(canary(n_qubits).circuit.gates, canary_width(n_qubits))


def _reading(gates: Iterable[Gate], width: int) -> str:
    """The bits after gates of which every rotation is by pi."""
    bits = [0] * width
    for gate in gates:
        bits[gate.target] ^= 1 if gate.control is None else bits[gate.control]
    return "".join(map(str, bits))


def check_counts(results: Sequence[Counts], widths: Sequence[int], shots: int) -> None:
    """Refuse results that cannot be those of circuits that measure so many qubits each.

    Raises:
        PartialResultError: there are fewer or more results than circuits.
        WrongCountsError: a reading is not one bit for each measured qubit, a count is no number, or they do not sum to
            the shots.
    """
    if len(results) != len(widths):
        raise PartialResultError(
            f"{len(results)} results for {len(widths)} circuits; which is whose cannot be told, so none is used"
        )
    for place, (counts, width) in enumerate(zip(results, widths, strict=True)):
        for reading, count in counts.items():
            if len(reading) != width or set(reading) - {"0", "1"}:
                raise WrongCountsError(f"circuit {place} reads {reading!r}; it measures {width} qubits, a bit for each")
            as_integer(count, f"circuit {place}, the count of {reading!r}", minimum=0, error=WrongCountsError)
        if (total := sum(counts.values())) != shots:
            raise WrongCountsError(f"circuit {place} has {total:,} shots in all, and {shots:,} were asked for")


def check_canary(counts: Counts, n_qubits: int) -> None:
    """Refuse a batch whose canary reads otherwise than it must, and say how.

    Each bit goes by the majority of the shots, so errors of the device do not matter as long as bits tell anything.

    Raises:
        CanaryError: with what would explain the reading.
    """
    expected, read = canary_reading(n_qubits), majority(counts, canary_width(n_qubits))
    if read == expected:
        return
    explanations = [why for why, reading in _misreadings(expected, n_qubits).items() if reading == read]
    reason = (
        ", or ".join(explanations)
        if explanations
        else "the bits or the qubits are mixed up, or the device is too noisy"
    )
    raise CanaryError(
        f"the canary reads {read} and must read {expected}: {reason}; this batch's results are kept and not used. "
        "Correct the backend's bit order, mapping or calibration, and submit the batch again"
    )


def majority(counts: Mapping[str, int], width: int) -> str:
    """Each bit as most shots have it."""
    total = sum(counts.values())
    ones = [sum(count for reading, count in counts.items() if reading[bit] == "1") for bit in range(width)]
    return "".join("1" if 2 * number > total else "0" for number in ones)


def _misreadings(expected: str, n_qubits: int) -> dict[str, str]:
    """What the canary reads under the usual mistakes."""
    width = len(expected)
    gates = canary(n_qubits).circuit.gates
    flipped = expected.translate(str.maketrans("01", "10"))
    backwards = [gate if gate.control is None else cx(gate.target, gate.control) for gate in gates]
    misread = {
        "bits come reversed": expected[::-1],
        "no gate was run": "0" * width,
        "zeros and ones are exchanged": flipped,
        "control and target of the CNOT are exchanged": _reading(backwards, width),
        "the CNOT was not run": _reading((gate for gate in gates if gate.control is None), width),
    }
    for shift in range(1, width):
        misread[f"bits are shifted by {shift}"] = expected[shift:] + expected[:shift]
    return {why: reading for why, reading in misread.items() if reading != expected}
