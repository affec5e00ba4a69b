"""The number of qubits from which on a QPU takes less energy than a simulation, with its range and sensitivities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import add
from typing import Any, Literal

from ketfit.circuit.circuit import Circuit, cx
from ketfit.energy.meters import Meter, read_while
from ketfit.energy.profiles import DeviceProfile, ProcessorProfile, QpuProfile, SourcedValue, StatevectorProfile
from ketfit.energy.qpu import Assumption, NativeGates, QpuCost, native_gates, qpu_cost
from ketfit.energy.quantities import Kind
from ketfit.energy.simulation import SimulationCost, contraction_cost, statevector_cost
from ketfit.errors import InputError
from ketfit.integers import as_integer, as_integers
from ketfit.model.config import HeadConfig
from ketfit.simulate.measurement import group_circuits, group_words, in_basis

MAX_QUBITS = 80
"""Largest number of qubits at which a crossover is searched."""

PAPER, FOLLOW_UP = 46, 34
"""The crossover estimated by arXiv 2504.08732 (Figure 5), and the one measured by arXiv 2605.02798."""

SHOTS = (1000, 100, 10_000)
"""Value, lowest and highest number of shots; neither paper states its own."""


@dataclass(frozen=True, slots=True)
class CrossoverPoint:
    """The energy of one inference on a device."""

    device: str
    qubits: int
    devices: int
    seconds: float
    joules: float
    low: float
    high: float
    kind: Kind

    @classmethod
    def from_cost(cls, device: str, qubits: int, cost: QpuCost | SimulationCost, devices: int = 1) -> CrossoverPoint:
        """Return the point of a computed cost."""
        joules = cost.energy.joules
        ends = (joules.value, joules.low, joules.high)
        return cls(device, qubits, devices, cost.seconds.value, *ends, cost.energy.kind)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The crossover with one number at its lowest and at its highest, and the others at their values."""

    name: str
    at_low: int | None
    at_high: int | None
    assumption: Assumption

    @property
    def width(self) -> float:
        """Distance in qubits between both crossovers; infinite if one does not exist."""
        if self.at_low is None or self.at_high is None:
            return float("inf")
        return abs(self.at_high - self.at_low)


@dataclass(frozen=True, slots=True)
class Crossover:
    """The fewest qubits from which on the QPU takes less energy, up to `MAX_QUBITS`; None if there is no such number.

    Attributes:
        device: Name of the simulating device.
        qubits: Crossover with every number at its value.
        earliest: Crossover with every number at the end that favours the QPU.
        latest: Crossover with every number at the end that favours the simulation.
        shifts: Sensitivities, the largest first.
    """

    device: str
    qubits: int | None
    earliest: int | None
    latest: int | None
    shifts: tuple[Sensitivity, ...]


@dataclass(frozen=True)
class CrossoverModel:
    """A comparison of a QPU and a simulator on one kind of circuit at every width.

    On the QPU, a head that reads Pauli words has one circuit for each group of words that commute qubit by qubit, each
    with all shots and its change of basis. The simulator computes one state, from which it reads all words.

    Args:
        head: Head whose QPU circuit is compared; its number of qubits is ignored.
        qpu: The QPU; it is treated as if it had enough qubits.
        program: The simulator.
        shots: Value, lowest and highest number of shots.

    Raises:
        InputError: The shots are not in order.
    """

    head: HeadConfig
    qpu: QpuProfile
    program: StatevectorProfile
    shots: tuple[int, int, int] = SHOTS

    def __post_init__(self) -> None:
        value, low, high = (as_integer(shots, "shots", minimum=1, error=InputError) for shots in self.shots)
        if not 1 <= low <= value <= high:
            raise InputError(f"shots={self.shots}: give the value, the lowest and the highest")

    @property
    def min_qubits(self) -> int:
        """Fewest qubits that the head's connectivity and readout allow."""
        return max(2, self.head.connectivity + 1, *(qubit + 1 for qubit in self.head.read_qubits))

    def points(self, processors: Sequence[ProcessorProfile], widths: Sequence[int]) -> Iterator[CrossoverPoint]:
        """Yield the energy of each device at each width; skip states that do not fit on devices without a link.

        Args:
            processors: Simulating devices.
            widths: Numbers of qubits.

        Raises:
            InputError: A width is not an integer.
        """
        for qubits in as_integers(widths, "widths", error=InputError):
            circuit = self._circuit(qubits)
            cost, lowest, highest = (self._qpu_cost(qubits, shots) for shots in self.shots)
            point = CrossoverPoint.from_cost(self.qpu.name, qubits, cost)
            yield replace(point, low=lowest.energy.joules.low, high=highest.energy.joules.high)
            for processor in processors:
                if self._fits(processor, qubits):
                    run = statevector_cost(circuit, processor, self.program)
                    yield CrossoverPoint.from_cost(processor.name, qubits, run, run.devices)

    def network_points(self, processor: ProcessorProfile, widths: Sequence[int]) -> Iterator[CrossoverPoint]:
        """Yield the energy of contracting the circuit's tensor network on `processor`, from a planned contraction.

        Widths whose contraction does not fit into the processor's memory are skipped.

        Raises:
            InputError: A width is not an integer.
            MissingExtraError: cotengra is not installed.
        """
        from ketfit.simulate.tensor_network import plan_contraction

        for qubits in as_integers(widths, "widths", error=InputError):
            plans = [plan_contraction(circuit, qubit) for circuit, qubit in _z_circuits(self.head, qubits)]
            if max(plan.bytes_needed for plan in plans) > 1e9 * processor.memory_gb.value:
                continue
            work = (sum(plan.multiplications for plan in plans), sum(plan.elements_moved for plan in plans))
            run = contraction_cost(*work, processor)
            yield CrossoverPoint.from_cost(f"tensor network on {processor.name}", qubits, run)

    def measure(self, meter: Meter, qubits: int, seconds: float = 2.0) -> CrossoverPoint:
        """Measure the energy of one inference by KetFit's own engine on this machine.

        The counter includes everything else that runs on the machine: run nothing else.

        Args:
            meter: Energy counter.
            qubits: Number of qubits.
            seconds: Shortest time to run the inference repeatedly.

        Raises:
            InputError: `qubits` is not an integer.
            EnergyMeterError: The counter cannot be read.
        """
        import torch

        from ketfit.simulate.expectation import expectation

        qubits = as_integer(qubits, "qubits", error=InputError)
        circuit = self._circuit(qubits)
        generator = torch.Generator().manual_seed(0)
        read: dict[str, Any] = {"qubits": self.head.read_qubits}
        if self.head.observables is not None:
            read = {"observables": self.head.observables}
        weights, inputs = (
            torch.rand(shape, generator=generator).to(meter.device)
            for shape in (circuit.n_weights, (1, circuit.n_inputs))
        )
        reading = read_while(meter, lambda: expectation(circuit, weights, inputs, **read).cpu(), seconds)
        joules = reading.energy.per(reading.runs)
        return CrossoverPoint(
            meter.name, qubits, 1, reading.seconds / reading.runs, joules.value, joules.low, joules.high, "measured"
        )

    def crossover(self, processor: ProcessorProfile) -> Crossover:
        """Return the crossover of the QPU and the program on `processor`, with its sensitivities."""
        value, low, high = self.shots
        earliest = self._find(processor, shots=low, end="low")
        latest = self._find(processor, shots=high, end="high")
        shifts = sorted(self._sensitivities(processor), key=lambda shift: -shift.width)
        return Crossover(processor.name, self._find(processor, shots=value), earliest, latest, tuple(shifts))

    def _sensitivities(self, processor: ProcessorProfile) -> Iterator[Sensitivity]:
        shots = self.shots
        at_low, at_high = (self._find(processor, shots=count) for count in shots[1:])
        yield Sensitivity("shots", at_low, at_high, _shots_assumption(shots))
        profiles = self._profiles(processor)
        for owner, profile in profiles.items():
            for name, sourced in profile:
                if not isinstance(sourced, SourcedValue) or sourced.range.low == sourced.range.high:
                    continue
                crossovers, label = [], f"{owner}: {name}"
                for end in (sourced.range.low, sourced.range.high):
                    changed = {**profiles, owner: profile.updated(**{name: sourced.updated(value=end)})}
                    other = CrossoverModel(self.head, changed["QPU"], changed["simulator"], shots)  # type: ignore[arg-type]
                    crossovers.append(other._find(changed["simulating device"], shots=shots[0]))  # type: ignore[arg-type]
                yield Sensitivity(label, crossovers[0], crossovers[1], Assumption.from_sourced(label, sourced))

    def _profiles(self, device: DeviceProfile) -> dict[str, DeviceProfile | StatevectorProfile]:
        return {"QPU": self.qpu, "simulating device": device, "simulator": self.program}

    def _find(
        self, processor: ProcessorProfile, shots: int, end: Literal["value", "low", "high"] = "value"
    ) -> int | None:
        """Return the crossover with the QPU's energy at this end and the simulation's at the other."""
        other = {"low": "high", "high": "low", "value": "value"}[end]
        first = None
        for qubits in range(MAX_QUBITS, self.min_qubits - 1, -1):
            if not self._fits(processor, qubits):
                continue
            quantum = getattr(self._qpu_cost(qubits, shots).energy.joules, end)
            simulated = statevector_cost(self._circuit(qubits), processor, self.program).energy.joules
            if quantum > getattr(simulated, other):
                break
            first = qubits
        return first

    def _circuit(self, qubits: int) -> Circuit:
        return _light_cone(self.head, qubits)

    def _qpu_cost(self, qubits: int, shots: int) -> QpuCost:
        parts = [
            qpu_cost(gates, 1, shots, self.qpu) for gates in inference_gates(self.head, qubits, self.qpu.entangler)
        ]
        return reduce(add, parts)

    def _fits(self, processor: ProcessorProfile, qubits: int) -> bool:
        bytes_needed = 2.0**qubits * self.program.amplitude_bytes.value
        return processor.link_gb_s is not None or bytes_needed <= 1e9 * processor.memory_gb.value


def assumptions_of(model: CrossoverModel, device: DeviceProfile) -> tuple[Assumption, ...]:
    """Return every number that a crossover rests on."""
    sourced_values = (
        Assumption.from_sourced(f"{owner}: {name}", sourced)
        for owner, profile in model._profiles(device).items()
        for name, sourced in profile
        if isinstance(sourced, SourcedValue)
    )
    return (_shots_assumption(model.shots), *sourced_values)


def _shots_assumption(shots: tuple[int, int, int]) -> Assumption:
    return Assumption("shots", *shots, "chosen", "neither paper's number is known")


@lru_cache(maxsize=512)
def _light_cone(head: HeadConfig, qubits: int) -> Circuit:
    return head.light_cone(qubits)


@lru_cache(maxsize=512)
def inference_gates(head: HeadConfig, qubits: int, entangler: Literal["zz", "ms"]) -> tuple[NativeGates, ...]:
    """Return the native gates of each circuit of one inference.

    A head that reads Pauli words has one circuit for each group of words that commute qubit by qubit.

    Args:
        head: The head; its number of qubits is ignored.
        qubits: Number of qubits of the QPU circuit.
        entangler: As in `native_gates`.

    Raises:
        InputError: A Pauli word acts on more than 12 qubits.

    >>> len(inference_gates(HeadConfig(readout=("Z0", "Z1", "X0")), 4, "zz"))
    2
    """
    circuit = _light_cone(head, qubits)
    if head.observables is None:
        return (native_gates(circuit, entangler),)
    circuits = group_circuits(circuit, group_words(head.observables))
    return tuple(native_gates(each, entangler) for each, _ in circuits)


def _z_circuits(head: HeadConfig, qubits: int) -> Iterator[tuple[Circuit, int]]:
    """Yield circuits, and the qubit whose <Z> each is for: a word is Z of its last qubit behind CNOTs from the rest."""
    circuit = _light_cone(head, qubits)
    if head.observables is None:
        yield from ((circuit, qubit) for qubit in head.read_qubits)
        return
    for observable in head.observables:
        (term,) = observable.terms
        *others, last = term.qubits
        turned = in_basis(circuit, term.qubits, term.word)
        yield turned.with_gates([*turned.gates, *(cx(other, last) for other in others)]), last
