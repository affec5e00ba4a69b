"""Noise models: the channels after each gate, readout errors, and the noise of named devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ketfit.base_config import Config, Finite
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.decomposition import decompose_three_qubit_gates
from ketfit.errors import CircuitError, ConfigError
from ketfit.integers import as_integers


def _as_tuples(value: Any) -> Any:
    """Return the nested lists of TOML and JSON as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


Probability = Annotated[Finite, Field(ge=0, le=1)]
Time = Annotated[Finite, Field(gt=0)]
Confusion = Annotated[
    tuple[tuple[Probability, Probability], tuple[Probability, Probability]],
    BeforeValidator(_as_tuples),
]


@dataclass(frozen=True, slots=True)
class Channel:
    """Noise on one qubit: factors of the Pauli coefficients of X, Z and Y, and a shift of Z proportional to I.

    All channels of `NoiseConfig` and their compositions have this form.
    """

    x: float = 1.0
    z: float = 1.0
    y: float = 1.0
    shift: float = 0.0

    def compose(self, other: Channel) -> Channel:
        """Return the channel that applies this one and then the other.

        >>> Channel(x=0.5).compose(Channel(x=0.5)).x
        0.25
        """
        return Channel(self.x * other.x, self.z * other.z, self.y * other.y, other.z * self.shift + other.shift)

    def pauli_probabilities(self) -> tuple[float, float, float, float]:
        """Return the probabilities of I, X, Z and Y.

        Raises:
            ConfigError: The channel is not a mixture of Paulis.
        """
        if self.shift:
            raise ConfigError(
                "amplitude damping (t1_us) is not a mixture of Pauli errors, which trajectories sample; "
                "leave trajectories out for the exact density matrix, or approximate with pauli_twirl=True"
            )
        signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
        i, x, z, y = (max(0.0, (1 + sx * self.x + sz * self.z + sy * self.y) / 4) for sx, sz, sy in signs)
        return i, x, z, y


class NoiseConfig(Config):
    """Noise of a device: depolarizing, bit flip, phase flip and relaxation on the qubits of every gate, after the gate.

    Gates on one and on two qubits, such as RY and CNOT, have noise of their own each. Gates on three are decomposed
    into such gates first, by `ketfit.circuit.decomposition.decompose_gate`. Global phases and idle qubits have no
    noise. Every field is zero or absent by default; `load_noise` has named devices.
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
        bool,
        Field(description="Replace amplitude damping by its Pauli twirl, an approximation trajectories can sample"),
    ] = False

    @model_validator(mode="after")
    def _fits_together(self) -> NoiseConfig:
        relaxes = self.t1_us is not None or self.t2_us is not None
        timed = self.time_1q_us is not None or self.time_2q_us is not None
        if self.t1_us is not None and self.t2_us is not None and self.t2_us > 2 * self.t1_us:
            raise ValueError(f"t2_us={self.t2_us} is more than its physical limit 2 t1_us={2 * self.t1_us}; lower it")
        if relaxes != timed:
            missing = "time_1q_us or time_2q_us, or both," if relaxes else "t1_us or t2_us, or both,"
            raise ValueError(f"T1 and T2 need durations of gates; give {missing} too, or none of the four")
        if self.readout is not None:
            for true, column in enumerate(zip(*self.readout, strict=True)):
                if abs(sum(column) - 1) > 1e-6:
                    raise ValueError(
                        f"readout: column {true} of the confusion matrix sums to {sum(column):g}, not to 1; "
                        "columns are true states, rows are outcomes"
                    )
        return self

    @property
    def after_rotation(self) -> Channel:
        """Return the channel after a one-qubit gate."""
        depolarizing = Channel(*[1 - self.depolarizing_1q] * 3)
        return depolarizing.compose(self._flips()).compose(self._relaxation(self.time_1q_us))

    @property
    def after_cnot(self) -> Channel:
        """Return the channel on each qubit of a two-qubit gate, after the depolarizing of both."""
        return self._flips().compose(self._relaxation(self.time_2q_us))

    @property
    def is_gate_noiseless(self) -> bool:
        """Return True if gates and preparation have no noise; readout is not considered."""
        return not self._has_channels and not self.preparation

    @property
    def _has_channels(self) -> bool:
        return not self.after_rotation == self.after_cnot == Channel() or self.depolarizing_2q > 0

    def decomposed(self, circuit: Circuit) -> Circuit:
        """Return the circuit as a device runs it: with noise, gates on three qubits are decomposed.

        >>> from ketfit.circuit import Gate
        >>> toffoli = Circuit.from_gates(3, [Gate("ccx", (0, 1, 2))])
        >>> NoiseConfig(depolarizing_2q=0.01).decomposed(toffoli).gate_counts()["cx"]
        6
        """
        return decompose_three_qubit_gates(circuit) if self._has_channels else circuit

    def scaled(self, factor: float) -> NoiseConfig:
        """Return the noise with every error rate multiplied by a factor.

        Error rates are the probabilities of all channels, of wrong readout and of wrong preparation, and 1 / T1 and
        1 / T2; durations stay.

        Args:
            factor: Above zero; 0.1 is a device with a tenth of the errors.

        Raises:
            ConfigError: The factor is not a positive number, or a probability would be above 1.

        >>> NoiseConfig(depolarizing_2q=0.01).scaled(3).depolarizing_2q
        0.03
        """
        if not 0 < factor < math.inf:
            raise ConfigError(f"factor={factor} of error rates must be a number above zero")
        names = ("depolarizing_1q", "depolarizing_2q", "bit_flip", "phase_flip", "preparation")
        rates: dict[str, Any] = {name: factor * getattr(self, name) for name in names}
        times = {name: time / factor for name in ("t1_us", "t2_us") if (time := getattr(self, name)) is not None}
        if self.readout is not None:
            (_, zero_as_one), (one_as_zero, _) = ([factor * p for p in row] for row in self.readout)
            rates["readout"] = ((1 - one_as_zero, zero_as_one), (one_as_zero, 1 - zero_as_one))
        return self.updated(**rates, **times)

    def check_pauli_channel(self) -> None:
        """Raise ConfigError if the noise is not a mixture of Paulis, which trajectories sample."""
        for channel in (self.after_rotation, self.after_cnot):
            channel.pauli_probabilities()

    def check_engine(self, engine: str) -> None:
        """Raise ConfigError if the engine is the distributed one, which has no noise of gates and preparation."""
        if engine == "distributed" and not self.is_gate_noiseless:
            raise ConfigError(
                "engine='distributed' simulates no noise of gates or preparation; use engine='auto' in one process, or "
                "leave the noise out"
            )

    def _flips(self) -> Channel:
        bit, phase = 1 - 2 * self.bit_flip, 1 - 2 * self.phase_flip
        return Channel(x=phase, z=bit, y=bit * phase)

    def _relaxation(self, time: float | None) -> Channel:
        if time is None or (self.t1_us is None and self.t2_us is None):
            return Channel()
        t1 = math.inf if self.t1_us is None else self.t1_us
        survival = math.exp(-time / t1)
        coherence = math.exp(-time / (2 * t1 if self.t2_us is None else self.t2_us))
        return Channel(coherence, survival, coherence, 0.0 if self.pauli_twirl else 1 - survival)


def noisy_light_cone(circuit: Circuit, measured: Iterable[int]) -> Circuit:
    """Return the circuit without the gates whose action and noise cannot affect the `measured` qubits.

    `Circuit.light_cone` drops a CNOT if the observable is diagonal on its control; this function keeps the CNOT,
    because its noise affects the observable. Global phases are left out.

    Raises:
        CircuitError: A qubit is out of range, or not an integer.
    """
    support = frozenset(as_integers(measured, "measured", error=CircuitError))
    if support:
        circuit.check_qubits(tuple(support))
    return _noisy_light_cone(circuit, support)


@cached_on_circuit
def _noisy_light_cone(circuit: Circuit, measured: frozenset[int]) -> Circuit:
    support, gates = set(measured), []
    for gate in reversed(circuit.gates):
        if not support.isdisjoint(gate.qubits):
            support.update(gate.qubits)
            gates.append(gate)
    return circuit.with_gates(reversed(gates))


def load_noise(source: str | Path) -> NoiseConfig:
    """Return the noise of a device, ``ionq-forte`` or ``ionq-aria``, or from a TOML file with fields of `NoiseConfig`.

    Raises:
        ConfigError: The device is unknown, or the file is invalid.

    >>> load_noise("ionq-forte").time_2q_us
    970.0
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
    """Return the noise of a device from its published average gate fidelities, SPAM fidelity and times (in us).

    A published gate fidelity is an average over states, F = (d tr(R) / d**2 + 1) / (d + 1) with R the channel's Pauli
    transfer matrix, and includes relaxation during the gate. So depolarizing is the part of the error that T1 and T2
    do not explain, and zero if they explain it all. The SPAM error (of state preparation and measurement) becomes a
    symmetric readout error, because one figure cannot separate the two.

    Raises:
        ConfigError: A fidelity is lower than full depolarizing gives, or a number is out of range.
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
            f"{1 / dimension} (full depolarizing) and at most 1"
        )
    trace = (1 + relaxation.x + relaxation.z + relaxation.y) ** (dimension // 2)
    target_trace = dimension * ((dimension + 1) * fidelity - 1)
    return max(0.0, (trace - target_trace) / (trace - 1)) if trace > 1 else 0.0


def _ionq_forte() -> NoiseConfig:
    # Fidelities, gate times, T1 (published as 10 to 100 s) and T2: IonQ's public figures for Forte, as listed by Azure
    # Quantum's page on the provider (learn.microsoft.com/azure/quantum/provider-ionq); SPAM as in the example of
    # IonQ's characterization API (docs.ionq.com/api-reference/v0.4/backends/get-a-characterization).
    return noise_from_fidelities(0.9998, 0.9941, 0.9962, t1_us=1e8, t2_us=1e6, time_1q_us=130.0, time_2q_us=970.0)


def _ionq_aria() -> NoiseConfig:
    # All figures: the same page of Azure Quantum, "IonQ Aria quantum computer"; T1 is published as 10 to 100 s.
    return noise_from_fidelities(0.9995, 0.996, 0.9961, t1_us=1e8, t2_us=1e6, time_1q_us=135.0, time_2q_us=600.0)


DEVICES: dict[str, Callable[[], NoiseConfig]] = {"ionq-forte": _ionq_forte, "ionq-aria": _ionq_aria}
