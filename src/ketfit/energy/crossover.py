"""Where a QPU takes less energy than a simulation: by qubits, with the range, and by what it moves most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Circuit
from ketfit.energy.meters import Meter, read_while
from ketfit.energy.profiles import DeviceProfile, ProcessorProfile, QpuProfile, SourcedValue, StatevectorProfile
from ketfit.energy.qpu import Assumption, NativeGates, native_gates, qpu_cost
from ketfit.energy.quantities import Kind
from ketfit.energy.simulation import contraction_cost, statevector_cost
from ketfit.errors import InputError
from ketfit.integers import as_integer, as_integers
from ketfit.model.config import HeadConfig

MAX_QUBITS = 80
"""How far a crossover is looked for."""

PAPER, FOLLOW_UP = 46, 34
"""The crossover that arXiv 2504.08732 estimates (Figure 5), and the one that arXiv 2605.02798 measured."""

SHOTS = (1000, 100, 10_000)
"""Taken, lowest and highest; neither paper's own number is known to us."""


@dataclass(frozen=True, slots=True)
class CrossoverPoint:
    """The energy of one inference, one circuit, on a device."""

    device: str
    qubits: int
    devices: int
    seconds: float
    joules: float
    low: float
    high: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The crossover with one number at its lowest and at its highest, and the others as they are."""

    name: str
    at_low: int | None
    at_high: int | None
    assumption: Assumption

    @property
    def width(self) -> float:
        """How many qubits it moves the crossover by; infinite if there is none at one end."""
        if self.at_low is None or self.at_high is None:
            return float("inf")
        return abs(self.at_high - self.at_low)


@dataclass(frozen=True, slots=True)
class Crossover:
    """Fewest qubits from which on the QPU takes less energy, up to `MAX_QUBITS`; None where there are none.

    `earliest` has every number as it favours the QPU most, `latest` as it favours it least, all at once.
    """

    device: str
    qubits: int | None
    earliest: int | None
    latest: int | None
    shifts: tuple[Sensitivity, ...]


@dataclass(frozen=True)
class CrossoverModel:
    """A QPU and a program on several processors, on one kind of circuit at every width.

    Args:
        head: The kind of circuit: its QPU circuit's shape, whatever its width.
        qpu: The QPU; a circuit wider than it has is counted as if it had the qubits.
        program: The simulator.
        shots: Taken, lowest, highest.
    """

    head: HeadConfig
    qpu: QpuProfile
    program: StatevectorProfile
    shots: tuple[int, int, int] = SHOTS

    def __post_init__(self) -> None:
        value, low, high = (as_integer(shots, "shots", minimum=1, error=InputError) for shots in self.shots)
        if not 1 <= low <= value <= high:
            raise InputError(f"shots={self.shots}: give them as taken, lowest, highest")

    @property
    def narrowest(self) -> int:
        """Fewest qubits on which the head's connectivity and readout are possible."""
        return max(2, self.head.connectivity + 1, self.head.n_measured)

    def rows(self, processors: Sequence[ProcessorProfile], widths: Sequence[int]) -> Iterator[CrossoverPoint]:
        """Energies of each device at each width; none where a state does not fit and devices cannot be joined.

        Raises:
            InputError: a width is not an integer.
        """
        for qubits in as_integers(widths, "widths", error=InputError):
            circuit, gates = _circuit(self.head, qubits), _gates(self.head, qubits, self.qpu.entangler)
            low, high = (qpu_cost(gates, 1, shots, self.qpu).energy.joules for shots in self.shots[1:])
            cost = qpu_cost(gates, 1, self.shots[0], self.qpu)
            value = cost.energy.joules.value
            yield CrossoverPoint(
                self.qpu.name, qubits, 1, cost.seconds.value, value, low.low, high.high, cost.energy.kind
            )
            for processor in processors:
                if self._fits(processor, qubits):
                    run = statevector_cost(circuit, processor, self.program)
                    ends = run.energy.joules
                    seconds = run.seconds.value
                    figures = (run.devices, seconds, ends.value, ends.low, ends.high, run.energy.kind)
                    yield CrossoverPoint(processor.name, qubits, *figures)

    def network_rows(self, processor: ProcessorProfile, widths: Sequence[int]) -> Iterator[CrossoverPoint]:
        """Energies of contracting the circuit's tensor network on `processor`, from the cost of the very contraction.

        None where the contraction does not fit into the processor's memory.

        Raises:
            InputError: a width is not an integer.
            MissingExtraError: cotengra is not installed.
        """
        from ketfit.simulate.tensor_network import plan_contraction

        for qubits in as_integers(widths, "widths", error=InputError):
            circuit = _circuit(self.head, qubits)
            plans = [plan_contraction(circuit, qubit) for qubit in range(self.head.n_measured)]
            if max(plan.bytes_needed for plan in plans) > 1e9 * processor.memory_gb.value:
                continue
            work = (sum(plan.multiplications for plan in plans), sum(plan.elements_moved for plan in plans))
            run = contraction_cost(*work, processor)
            ends, name = run.energy.joules, f"tensor network on {processor.name}"
            yield CrossoverPoint(name, qubits, 1, run.seconds.value, ends.value, ends.low, ends.high, run.energy.kind)

    def measure(self, meter: Meter, qubits: int, seconds: float = 2.0) -> CrossoverPoint:
        """The energy of one inference by KetFit's own engine on this machine, read from a counter.

        The counter counts all that the machine does meanwhile: let it do nothing else.

        Raises:
            InputError: `qubits` is not an integer.
            EnergyMeterError: the counter cannot be read.
        """
        import torch

        from ketfit.simulate.expectation import expectation

        qubits = as_integer(qubits, "qubits", error=InputError)
        circuit = _circuit(self.head, qubits)
        generator = torch.Generator().manual_seed(0)
        weights, inputs = (
            torch.rand(shape, generator=generator) for shape in (circuit.n_weights, (1, circuit.n_inputs))
        )
        measured = range(self.head.n_measured)
        device = "cuda" if meter.of == "gpu" else "cpu"
        weights, inputs = weights.to(device), inputs.to(device)
        reading = read_while(meter, lambda: expectation(circuit, weights, inputs, qubits=measured).cpu(), seconds)
        joules = reading.energy.per(reading.runs)
        return CrossoverPoint(
            meter.name, qubits, 1, reading.seconds / reading.runs, joules.value, joules.low, joules.high, "measured"
        )

    def crossover(self, processor: ProcessorProfile) -> Crossover:
        """Where the QPU begins to take less energy than the program on `processor`, and what moves it, most first."""
        shots, fewest, most = self.shots
        earliest = self._first(processor, shots=fewest, end="low")
        latest = self._first(processor, shots=most, end="high")
        found = self._first(processor, shots=shots)
        shifts = sorted(self._shifts(processor), key=lambda shift: -shift.width)
        return Crossover(processor.name, found, earliest, latest, tuple(shifts))

    def _shifts(self, processor: ProcessorProfile) -> Iterator[Sensitivity]:
        shots = self.shots
        chosen = Assumption("shots", *shots, "chosen", "neither paper's number is known")
        ends = [self._first(processor, shots=count) for count in shots[1:]]
        yield Sensitivity("shots", ends[0], ends[1], chosen)
        for owner, profile in (("QPU", self.qpu), ("simulating device", processor), ("simulator", self.program)):
            for name, figure in profile:
                if not isinstance(figure, SourcedValue) or figure.range.low == figure.range.high:
                    continue
                found = []
                for end in (figure.range.low, figure.range.high):
                    moved = profile.updated(**{name: figure.updated(value=end)})
                    changed = {"QPU": self.qpu, "simulating device": processor, "simulator": self.program}
                    changed[owner] = moved
                    other = CrossoverModel(self.head, changed["QPU"], changed["simulator"], shots)  # type: ignore[arg-type]
                    found.append(other._first(changed["simulating device"], shots=shots[0]))  # type: ignore[arg-type]
                yield Sensitivity(f"{owner}: {name}", found[0], found[1], Assumption.of(f"{owner}: {name}", figure))

    def _first(
        self, processor: ProcessorProfile, shots: int, end: Literal["value", "low", "high"] = "value"
    ) -> int | None:
        """The crossover; with the QPU's energy at this end and the simulation's at the other."""
        other = {"low": "high", "high": "low", "value": "value"}[end]
        first = None
        for qubits in range(MAX_QUBITS, self.narrowest - 1, -1):
            if not self._fits(processor, qubits):
                continue
            gates = _gates(self.head, qubits, self.qpu.entangler)
            quantum = getattr(qpu_cost(gates, 1, shots, self.qpu).energy.joules, end)
            simulated = statevector_cost(_circuit(self.head, qubits), processor, self.program).energy.joules
            if quantum > getattr(simulated, other):
                break
            first = qubits
        return first

    def _fits(self, processor: ProcessorProfile, qubits: int) -> bool:
        bytes_needed = 2.0**qubits * self.program.amplitude_bytes.value
        return processor.link_gb_s is not None or bytes_needed <= 1e9 * processor.memory_gb.value


def assumptions_of(comparison: CrossoverModel, device: DeviceProfile) -> tuple[Assumption, ...]:
    """Every number that a crossover rests on."""
    parts = (("QPU", comparison.qpu), ("simulating device", device), ("simulator", comparison.program))
    chosen = Assumption("shots", *comparison.shots, "chosen", "neither paper's number is known")
    figures = (
        Assumption.of(f"{owner}: {name}", figure)
        for owner, profile in parts
        for name, figure in profile
        if isinstance(figure, SourcedValue)
    )
    return (chosen, *figures)


@lru_cache(maxsize=512)
def _circuit(head: HeadConfig, qubits: int) -> Circuit:
    shape = (head.n_reuploads, head.reupload_layers, head.main_layers, head.connectivity)
    circuit = reuploading_circuit(qubits, *shape, head.tie_reuploads, head.rotation_wall)
    return circuit.light_cone(range(head.n_measured))


@lru_cache(maxsize=512)
def _gates(head: HeadConfig, qubits: int, entangler: Literal["zz", "ms"]) -> NativeGates:
    return native_gates(_circuit(head, qubits), entangler)
