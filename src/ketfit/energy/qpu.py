"""Native gates, time and energy of a circuit on a QPU.

A shot takes n1 t1 + n2 t2 + readout + reset + overhead, one gate after another, and the machine draws constant power:
E = P * circuits * shots * time of a shot.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ketfit.circuit.angle import substitute
from ketfit.circuit.circuit import Circuit, gate_angles
from ketfit.circuit.decomposition import decompose_gate
from ketfit.energy.profiles import MAX_VALUE, QpuProfile, SourcedValue
from ketfit.energy.quantities import Assumed, Modelled, UncertainValue
from ketfit.errors import InputError
from ketfit.integers import as_integer

Entangler = Literal["zz", "ms"]


@dataclass(frozen=True, slots=True)
class NativeGates:
    """The gates that take time on the device: pulses on one qubit, and two-qubit gates. Rotations about Z take none.

    Raises:
        InputError: A count is negative, or no whole number.
    """

    one_qubit: int
    two_qubit: int

    def __post_init__(self) -> None:
        for name in ("one_qubit", "two_qubit"):
            object.__setattr__(self, name, as_integer(getattr(self, name), name, minimum=0, error=InputError))


def native_gates(circuit: Circuit, entangler: Entangler) -> NativeGates:
    """Count the gates of `circuit` on a device with quarter-turn pulses, free rotations about Z, and one entangler.

    Each CNOT is one two-qubit gate, and basis changes around it: for ``zz`` a Hadamard on the target before and after;
    for ``ms`` a quarter turn on the control before and after, and one on the target after. All that happens on a qubit
    between two of its two-qubit gates is one rotation. With an RY in it, whose angle may be any, it takes two pulses
    (one where, for ``ms``, the quarter turn on the target precedes the RY); without, at most one, and none where the
    basis changes cancel. The angles are taken as generic, and every qubit is taken to be read out: pass the light cone
    of those that are.

    In circuits with other gates, a rotation of one word and a controlled gate is one two-qubit gate, and every other
    gate on several qubits as many as `ketfit.circuit.decomposition.decompose_gate` writes it in: iSWAP two, SWAP three,
    Toffoli six, a constant unitary up to three on two qubits, and up to 20 on three. What happens on a qubit between
    them, with the basis changes of both, takes no pulse where it is a rotation about Z, one where a quarter or half
    turn and rotations about Z are enough, and else two. For ``ms`` this is an upper bound.

    Args:
        circuit: Circuit.
        entangler: ``zz``, a rotation about ZZ as on IonQ Forte; or ``ms``, about XX as on IonQ Aria.

    >>> from ketfit.circuit.ansatz import reuploading_circuit
    >>> native_gates(reuploading_circuit(2, 1, 1, 1, 1), "zz").two_qubit
    4
    """
    if not circuit.is_ry_cx:
        return _general_native_gates(circuit, entangler)
    pulses = two_qubit = 0
    roles: dict[int, str] = defaultdict(lambda: "start")  # in its last CNOT
    rotated: dict[int, bool] = defaultdict(bool)
    touched = {qubit for gate in circuit.gates for qubit in gate.qubits}
    for gate in circuit.gates:
        if gate.control is None:
            rotated[gate.target] = True
            continue
        two_qubit += 1
        for qubit, role in ((gate.control, "control"), (gate.target, "target")):
            pulses += _pulses(entangler, roles[qubit], role, rotated[qubit])
            roles[qubit], rotated[qubit] = role, False
    pulses += sum(_pulses(entangler, roles[qubit], "end", rotated[qubit]) for qubit in touched)
    return NativeGates(pulses, two_qubit)


def _pulses(entangler: Entangler, before: str, after: str, rotated: bool) -> int:
    """Return the number of pulses between two CNOTs of a qubit, from its roles in them."""
    if entangler == "zz":  # a Hadamard for each side on which it is a target; two of them cancel
        return 2 if rotated else ((before == "target") + (after == "target")) % 2
    if rotated:  # RY(t) Rx(-pi/2) = Rx(-pi/2) Rz(t), so that behind a target the RY comes free with the quarter turn
        return 1 if before == "target" else 2
    return 0 if after == "target" and before != "control" else int((before, after) != ("start", "end"))


def _general_native_gates(circuit: Circuit, entangler: Entangler) -> NativeGates:
    rng = random.Random(0)  # noqa: S311 - generic angles
    angles = {angle: rng.uniform(0.3, 1.2) for gate in circuit.gates for angle in gate_angles(gate)}
    native = "Z" if entangler == "zz" else "X"
    pulses = two_qubit = 0
    since: dict[int, NDArray[np.complex128]] = {}  # what happened to a qubit since its last entangler, with its basis
    for gate in (part for each in circuit.gates for part in decompose_gate(each)):
        if len(gate.qubits) == 1:
            numbers: list[Any] = [substitute(angle, angles) for angle in gate.parameters]
            matrix = np.array(gate.matrix_at(*numbers), dtype=np.complex128)
            since[gate.qubits[0]] = matrix @ since.get(gate.qubits[0], _IDENTITY)
        elif gate.qubits:
            two_qubit += 1
            for qubit, letter in zip(gate.qubits, _LETTERS[gate.name], strict=True):
                pulses += _pulses_of(_CHANGES[letter, native] @ since.get(qubit, _IDENTITY))
                since[qubit] = _CHANGES[native, letter]
    return NativeGates(pulses + sum(map(_pulses_of, since.values())), two_qubit)


def _pulses_of(matrix: NDArray[np.complex128]) -> int:
    """Return the number of pulses of a gate on one qubit, from the modulus of its diagonal."""
    diagonal = abs(matrix[0, 0])
    if abs(diagonal - 1) < 1e-9:
        return 0
    return 1 if diagonal < 1e-9 or abs(diagonal - math.sqrt(0.5)) < 1e-9 else 2


_IDENTITY = np.eye(2, dtype=np.complex128)
_LETTERS = {"cx": "ZX", "cy": "ZY", "cz": "ZZ", "crx": "ZX", "cry": "ZY", "crz": "ZZ", "cp": "ZZ"}
_LETTERS |= {"rxx": "XX", "ryy": "YY", "rzz": "ZZ"}
"""Pauli matrix on each qubit that the entangler of a gate rotates about; other factors commute with it."""

_FRAMES: dict[str, NDArray[np.complex128]] = {
    "Z": _IDENTITY,
    "X": np.array([[1, 1], [1, -1]], np.complex128) * math.sqrt(0.5),
    "Y": np.array([[1, -1j], [1, 1j]], np.complex128) * math.sqrt(0.5),
}
_CHANGES = {(a, b): _FRAMES[b].conj().T @ _FRAMES[a] for a in _FRAMES for b in _FRAMES}
"""Gate on one qubit that takes the first Pauli matrix to the second."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number that a result rests on, with its source."""

    name: str
    value: float
    low: float
    high: float
    basis: Literal["published", "assumed", "chosen"]
    source: str

    @classmethod
    def from_sourced(cls, name: str, sourced: SourcedValue) -> Assumption:
        """Return a number of a device under a name of its own."""
        ends = sourced.range
        return cls(name, ends.value, ends.low, ends.high, sourced.basis, f"{sourced.source} ({sourced.year})")


@dataclass(frozen=True, slots=True)
class QpuCost:
    """Time and energy of circuits on a device, without queue and compilation, and the assumptions behind them."""

    seconds: UncertainValue
    energy: Modelled | Assumed
    assumptions: tuple[Assumption, ...]

    def __add__(self, other: QpuCost) -> QpuCost:
        is_assumed = isinstance(self.energy, Assumed) or isinstance(other.energy, Assumed)
        energy = (Assumed if is_assumed else Modelled)(self.energy.joules + other.energy.joules)
        return QpuCost(self.seconds + other.seconds, energy, tuple(dict.fromkeys(self.assumptions + other.assumptions)))


def energy_from(
    joules: UncertainValue, used: Mapping[str, SourcedValue]
) -> tuple[Modelled | Assumed, tuple[Assumption, ...]]:
    """Return the energy that was computed from the `used` numbers, and these as its assumptions.

    It is `Modelled` if all of them are published and `Assumed` if one is not.
    """
    published = all(sourced.basis == "published" for sourced in used.values())
    assumptions = tuple(Assumption.from_sourced(name, sourced) for name, sourced in used.items())
    return (Modelled if published else Assumed)(joules), assumptions


def qpu_cost(gates: NativeGates, circuits: int, shots: int, profile: QpuProfile) -> QpuCost:
    """Return the time and energy of circuits with the same native gates.

    The ends of the ranges have every number of the profile at its lowest or its highest at once.

    Args:
        gates: Gates of one circuit after transpilation, from `native_gates` or a compiler.
        circuits: Number of circuits.
        shots: Shots per circuit.
        profile: Device, from `ketfit.energy.profiles.load_profile`.

    Raises:
        InputError: A count is negative, or no whole number, or too large.
    """
    circuits = as_integer(circuits, "circuits", minimum=0, error=InputError)
    shots = as_integer(shots, "shots", minimum=0, error=InputError)
    if circuits * shots > MAX_VALUE:
        raise InputError(f"{circuits} circuits of {shots} shots: give at most {MAX_VALUE:g} in all")
    sourced_values = {
        "one-qubit gate (us)": (profile.time_1q_us, gates.one_qubit),
        "two-qubit gate (us)": (profile.time_2q_us, gates.two_qubit),
        "readout (us)": (profile.readout_us, 1),
        "reset (us)": (profile.reset_us, 1),
        "overhead of a shot (us)": (profile.overhead_us, 1),
    }
    runs = circuits * shots
    ends = [
        1e-6 * runs * sum(getattr(sourced.range, end) * count for sourced, count in sourced_values.values())
        for end in ("value", "low", "high")
    ]
    seconds, power = UncertainValue(*ends), profile.power_watts.range
    joules = UncertainValue(power.value * seconds.value, power.low * seconds.low, power.high * seconds.high)
    used = {"QPU power (W)": profile.power_watts} | {
        name: sourced for name, (sourced, count) in sourced_values.items() if count
    }
    return QpuCost(seconds, *energy_from(joules, used))
