"""Gate noise: which channels follow which gates, and how strong they are on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ketfit.base_config import Config, Finite
from ketfit.circuit.circuit import Circuit, Gate
from ketfit.errors import CircuitError, ConfigError
from ketfit.integers import as_integers


def _as_tuples(value: Any) -> Any:
    """The lists that TOML and JSON have, as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


Probability = Annotated[Finite, Field(ge=0, le=1)]
Time = Annotated[Finite, Field(gt=0)]
Confusion = Annotated[
    tuple[tuple[Probability, Probability], tuple[Probability, Probability]],
    BeforeValidator(_as_tuples),
]


@dataclass(frozen=True, slots=True)
class Channel:
    """Noise on one qubit: factors of the Pauli coefficients of X, Z and Y, and what Z gains from I.

    Every channel of `NoiseConfig` is of this kind, and so is one after another.
    """

    x: float = 1.0
    z: float = 1.0
    y: float = 1.0
    shift: float = 0.0

    def compose(self, other: Channel) -> Channel:
        """This channel and then the other."""
        return Channel(self.x * other.x, self.z * other.z, self.y * other.y, other.z * self.shift + other.shift)

    def pauli_probabilities(self) -> tuple[float, float, float, float]:
        """How often it applies I, X, Z and Y.

        Raises:
            ConfigError: it is no mixture of Paulis.
        """
        if self.shift:
            raise ConfigError(
                "amplitude damping (t1_us) is no mixture of Pauli errors, which trajectories draw from; "
                "leave trajectories out for the exact density matrix, or approximate with pauli_twirl=True"
            )
        signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
        i, x, z, y = (max(0.0, (1 + sx * self.x + sz * self.z + sy * self.y) / 4) for sx, sz, sy in signs)
        return i, x, z, y


class NoiseConfig(Config):
    """Noise of a device. After every gate, on the qubits it acts on: depolarizing, bit flip, phase flip, relaxation.

    The circuit's two-qubit gate is the CNOT and its one-qubit gate RY, each followed by its own noise. Nothing happens
    to idle qubits. Every field is zero or absent by default; `device_noise` has named devices.
    """

    depolarizing_1q: Annotated[
        Probability, Field(description="p of (1-p) rho + p I/2 after each one-qubit gate, as in Qiskit")
    ] = 0.0
    depolarizing_2q: Annotated[
        Probability, Field(description="p of (1-p) rho + p I/4 on both qubits after each two-qubit gate")
    ] = 0.0
    bit_flip: Annotated[Probability, Field(description="Probability of X on each qubit of a gate")] = 0.0
    phase_flip: Annotated[Probability, Field(description="Probability of Z on each qubit of a gate")] = 0.0
    t1_us: Annotated[Time | None, Field(description="Amplitude damping time; None is no damping")] = None
    t2_us: Annotated[Time | None, Field(description="Dephasing time, at most 2 T1; None is 2 T1")] = None
    time_1q_us: Annotated[Time | None, Field(description="Duration of a one-qubit gate, for T1 and T2")] = None
    time_2q_us: Annotated[Time | None, Field(description="Duration of a two-qubit gate, for T1 and T2")] = None
    readout: Annotated[
        Confusion | None,
        Field(description="Confusion matrix ((P(0|0), P(0|1)), (P(1|0), P(1|1))) of each measured qubit, P(read|true)"),
    ] = None
    preparation: Annotated[Probability, Field(description="Probability that a qubit starts flipped")] = 0.0
    pauli_twirl: Annotated[
        bool, Field(description="Replace amplitude damping by its Pauli twirl, an approximation trajectories can draw")
    ] = False

    @model_validator(mode="after")
    def _fits_together(self) -> NoiseConfig:
        relaxes = self.t1_us is not None or self.t2_us is not None
        timed = self.time_1q_us is not None or self.time_2q_us is not None
        if self.t1_us is not None and self.t2_us is not None and self.t2_us > 2 * self.t1_us:
            raise ValueError(f"t2_us={self.t2_us} is more than 2 t1_us={2 * self.t1_us}, which no qubit can have")
        if relaxes != timed:
            missing = "time_1q_us or time_2q_us, or both," if relaxes else "t1_us or t2_us, or both,"
            raise ValueError(f"T1 and T2 act for as long as a gate takes; give {missing} too, or none of the four")
        if self.readout is not None:
            for true, column in enumerate(zip(*self.readout, strict=True)):
                if abs(sum(column) - 1) > 1e-6:
                    raise ValueError(
                        f"readout: column {true} of the confusion matrix sums to {sum(column):g}, not to 1; "
                        "columns are what was true, rows what is read"
                    )
        return self

    @property
    def after_rotation(self) -> Channel:
        """What follows a one-qubit gate."""
        depolarizing = Channel(*[1 - self.depolarizing_1q] * 3)
        return depolarizing.compose(self._flips()).compose(self._relaxation(self.time_1q_us))

    @property
    def after_cnot(self) -> Channel:
        """What follows a two-qubit gate on each of its qubits, behind the depolarizing of both."""
        return self._flips().compose(self._relaxation(self.time_2q_us))

    @property
    def is_gate_noiseless(self) -> bool:
        """Whether gates and preparation have no noise; readout may."""
        quiet = self.after_rotation == self.after_cnot == Channel()
        return quiet and not self.depolarizing_2q and not self.preparation

    def check_pauli_channel(self) -> None:
        """Refuse noise that Pauli trajectories cannot draw.

        Raises:
            ConfigError: it is no mixture of Paulis.
        """
        for channel in (self.after_rotation, self.after_cnot):
            channel.pauli_probabilities()

    def _flips(self) -> Channel:
        bit, phase = 1 - 2 * self.bit_flip, 1 - 2 * self.phase_flip
        return Channel(x=phase, z=bit, y=bit * phase)

    def _relaxation(self, time: float | None) -> Channel:
        if time is None or (self.t1_us is None and self.t2_us is None):
            return Channel()
        t1 = math.inf if self.t1_us is None else self.t1_us
        kept = math.exp(-time / t1)
        coherence = math.exp(-time / (2 * t1 if self.t2_us is None else self.t2_us))
        return Channel(coherence, kept, coherence, 0.0 if self.pauli_twirl else 1 - kept)


def noisy_light_cone(circuit: Circuit, measured: Iterable[int]) -> Circuit:
    """The circuit without the gates whose action and noise cannot reach the `measured` qubits.

    It keeps a CNOT that `Circuit.light_cone` drops because the observable is diagonal on its control: its noise still
    acts there.

    Raises:
        CircuitError: a qubit is out of range, or not an integer.
    """
    support = set(as_integers(measured, "measured", error=CircuitError))
    if support:
        circuit.check_qubits(tuple(support))
    key = ("noisy_light_cone", frozenset(support))
    if key not in circuit.cache:
        kept: list[Gate] = []
        for gate in reversed(circuit.gates):
            if not support.isdisjoint(gate.qubits):
                support.update(gate.qubits)
                kept.append(gate)
        circuit.cache[key] = Circuit(circuit.n_qubits, tuple(reversed(kept)), circuit.n_weights, circuit.n_inputs)
    cone: Circuit = circuit.cache[key]
    return cone


def load_noise(source: str | Path) -> NoiseConfig:
    """The noise of a named device, ``ionq-forte`` or ``ionq-aria``, or of a TOML file with the fields of `NoiseConfig`.

    Raises:
        ConfigError: there is no such device, or the file does not fit.
    """
    if isinstance(source, str) and source in DEVICES:
        return DEVICES[source]()
    if Path(source).suffix != ".toml":
        raise ConfigError(f"unknown device {str(source)!r}; known are {', '.join(DEVICES)}, or name a .toml file")
    return NoiseConfig.from_toml(source)


def noise_from_fidelities(
    fidelity_1q: float,
    fidelity_2q: float,
    fidelity_spam: float,
    *,
    t1_us: float,
    t2_us: float,
    time_1q_us: float,
    time_2q_us: float,
) -> NoiseConfig:
    """Noise of a device of which the usual figures are published.

    A published gate fidelity is an average over states, F = (d tr(R) / d**2 + 1) / (d + 1) with R the channel's Pauli
    transfer matrix, and holds all that happens during the gate. So depolarizing is what T1 and T2 leave of it, and
    none if they leave nothing. The error of preparation and measurement counts as a symmetric readout error, since
    one figure cannot say which of both it was.

    Args:
        fidelity_1q, fidelity_2q: Average gate fidelities.
        fidelity_spam: Of preparation and measurement together.
        t1_us, t2_us, time_1q_us, time_2q_us: Microseconds, as in `NoiseConfig`.

    Raises:
        ConfigError: a fidelity that no depolarizing comes down to, or a number out of range.
    """
    relaxing = NoiseConfig(t1_us=t1_us, t2_us=t2_us, time_1q_us=time_1q_us, time_2q_us=time_2q_us)
    error = 1 - fidelity_spam
    return relaxing.updated(
        depolarizing_1q=_depolarizing(fidelity_1q, 2, relaxing.after_rotation),
        depolarizing_2q=_depolarizing(fidelity_2q, 4, relaxing.after_cnot),
        readout=((1 - error, error), (error, 1 - error)),
    )


def _depolarizing(fidelity: float, dimension: int, relaxation: Channel) -> float:
    if not 1 / dimension <= fidelity <= 1:
        raise ConfigError(
            f"a gate fidelity of {fidelity} is out of range; on dimension {dimension} it is at least "
            f"{1 / dimension}, where nothing is left of the state, and at most 1"
        )
    trace = (1 + relaxation.x + relaxation.z + relaxation.y) ** (dimension // 2)
    wanted = dimension * ((dimension + 1) * fidelity - 1)  # the trace that this average fidelity stands for
    return max(0.0, (trace - wanted) / (trace - 1)) if trace > 1 else 0.0


def _ionq_forte() -> NoiseConfig:
    # Fidelities, gate times, T1 (10 to 100 s are given) and T2: IonQ's public figures for Forte, as listed by Azure
    # Quantum's page on the provider (learn.microsoft.com/azure/quantum/provider-ionq); SPAM as in the example of
    # IonQ's characterization API (docs.ionq.com/api-reference/v0.4/backends/get-a-characterization).
    return noise_from_fidelities(0.9998, 0.9941, 0.9962, t1_us=1e8, t2_us=1e6, time_1q_us=130.0, time_2q_us=970.0)


def _ionq_aria() -> NoiseConfig:
    # All figures: the same page of Azure Quantum, "IonQ Aria quantum computer"; T1 is given as 10 to 100 s.
    return noise_from_fidelities(0.9995, 0.996, 0.9961, t1_us=1e8, t2_us=1e6, time_1q_us=135.0, time_2q_us=600.0)


DEVICES: dict[str, Callable[[], NoiseConfig]] = {"ionq-forte": _ionq_forte, "ionq-aria": _ionq_aria}
