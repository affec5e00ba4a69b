"""Expectations of circuits too wide to hold, as the contraction of a tensor network; exact.

<Z_k> = <0|U^T Z_k U|0> is a network of a tensor for each gate of the light cone, twice, and one for Z_k. A CNOT shares
the index of its control (a hyperedge), and is one tensor of three indices, so that no gate has more. cotengra
holds its contraction tree. Two trees are tried: one made by going along the qubits, which keeps the ring
circuits of the paper as narrow as their layers are many, whatever the number of qubits; and one by cotengra's greedy
search, which draws nothing at random. The cheaper one is taken, so that a plan is the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ketfit.circuit.circuit import Angle, Circuit, Gate
from ketfit.circuit.export import angle_values
from ketfit.errors import CircuitError, InputError, InsufficientMemoryError, MissingExtraError
from ketfit.integers import as_integer
from ketfit.memory import available_memory

_XOR = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])  # control, out, in
_ITEM = 8  # bytes of a float64


@dataclass(frozen=True, slots=True)
class ContractionPlan:
    """How one expectation would be contracted, and what that takes; made before anything is computed.

    Args:
        qubit: Whose <Z> it is.
        tensors: How many tensors the network has.
        multiplications: Each with an addition, in the whole contraction.
        elements_moved: Elements of all tensors that are read or written.
        largest: Elements of the largest tensor.
        peak: Elements held at the same time, at most.
        bytes_needed: Of the peak, in double precision.
    """

    qubit: int
    tensors: int
    multiplications: float
    elements_moved: float
    largest: int
    peak: int
    inputs: tuple[tuple[str, ...], ...]
    sources: tuple[int | None, ...]
    path: tuple[tuple[int, ...], ...]

    @property
    def bytes_needed(self) -> int:
        """Memory of the contraction at its peak."""
        return self.peak * _ITEM


def plan_contraction(circuit: Circuit, qubit: int = 0) -> ContractionPlan:
    """The contraction of <Z> of `qubit` after `circuit` from |0...0>, and its cost. Nothing is contracted.

    Raises:
        CircuitError: the qubit is out of range, or not an integer.
        MissingExtraError: cotengra is not installed.
    """
    try:
        import cotengra
    except ImportError as error:
        raise MissingExtraError("A tensor network", "'ketfit[network]'") from error

    (qubit,) = circuit.check_qubits((as_integer(qubit, "qubit", error=CircuitError),))
    key = ("contraction", qubit)
    if key not in circuit.cache:
        cone = circuit.light_cone((qubit,))
        inputs, sources, columns = _network(cone, qubit)
        sizes = dict.fromkeys((index for tensor in inputs for index in tensor), 2)
        paths = [_along_the_qubits(columns, cone.n_qubits)]
        greedy = cotengra.pathfinders.path_basic.optimize_greedy(inputs, (), sizes, use_ssa=True)
        trees = [
            cotengra.ContractionTree.from_path(inputs, (), sizes, ssa_path=path, autocomplete=True)
            for path in (*paths, greedy)
        ]
        tree = min(trees, key=lambda tree: tree.contraction_cost())
        circuit.cache[key] = ContractionPlan(
            qubit,
            len(inputs),
            float(tree.contraction_cost()),
            2.0 * float(tree.total_write()) + sum(2.0 ** len(tensor) for tensor in inputs),  # written, and read once
            int(tree.max_size()),
            int(tree.peak_size()),
            inputs,
            sources,
            tuple(tree.get_path()),
        )
    plan: ContractionPlan = circuit.cache[key]
    return plan


def network_expectation(
    circuit: Circuit,
    weights: Iterable[float],
    inputs: Iterable[float] | None = None,
    qubits: Iterable[int] = (0,),
    *,
    memory: int | None = None,
) -> npt.NDArray[np.float64]:
    """<Z> of each of `qubits` after `circuit` from |0...0>, one sample, in double precision and without gradients.

    For circuits whose statevector does not fit; `ketfit.expectation` is faster on all others.

    Args:
        circuit: What to run. Gates that cannot reach a qubit are left out of its network.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (n_inputs,); None only if the circuit reads none.
        qubits: Which qubits to measure; each is a contraction of its own.
        memory: Bytes that a contraction may take; None is what is free now.

    Returns:
        Shape (len(qubits),).

    Raises:
        CircuitError: a qubit is out of range, not an integer, or named twice.
        ConfigError: `memory` is not an integer, or negative.
        InputError: the angles are of another shape or not finite.
        InsufficientMemoryError: a contraction would take more memory; nothing was contracted.
        MissingExtraError: cotengra is not installed.
    """
    if inputs is None and circuit.n_inputs:
        raise InputError(f"this circuit reads {circuit.n_inputs} inputs; pass inputs of shape ({circuit.n_inputs},)")
    if memory is not None:
        memory = as_integer(memory, "memory", minimum=0, hint="None is what is free now")
    values = angle_values(circuit, weights, inputs)
    plans = [plan_contraction(circuit, qubit) for qubit in circuit.check_qubits(qubits)]
    have = available_memory() if memory is None else memory
    for plan in plans:
        if plan.bytes_needed > have:
            raise InsufficientMemoryError(
                f"<Z> of qubit {plan.qubit} of {circuit.n_qubits} needs {_size(plan.bytes_needed)} at the peak "
                f"and {_size(have)} are there; use fewer layers, less connectivity or fewer qubits"
            )
    return np.array([_contract(circuit, plan, values) for plan in plans])


def _size(count: float) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**20 else f"{count:,.0f} bytes"


def _contract(circuit: Circuit, plan: ContractionPlan, values: Mapping[Angle, float]) -> float:
    gates = circuit.light_cone((plan.qubit,)).gates
    parts = [
        (torch.from_numpy(_data(None if source is None else gates[source], len(indices), values)), indices)
        for indices, source in zip(plan.inputs, plan.sources, strict=True)
    ]
    uses = Counter(index for indices in plan.inputs for index in indices)
    for step in plan.path:
        # torch's einsum makes matrix products of contractions along shared indices, where numpy's walks over elements.
        taken = [parts.pop(place) for place in sorted(step, reverse=True)]
        own = list(dict.fromkeys(index for _, indices in taken for index in indices))
        uses.subtract(index for _, indices in taken for index in indices)
        left = tuple(index for index in own if uses[index])
        uses.update(left)
        number = {index: place for place, index in enumerate(own)}
        operands = [part for array, indices in taken for part in (array, [number[index] for index in indices])]
        parts.append((torch.einsum(*operands, [number[index] for index in left]), left))
    return float(torch.stack([array for array, _ in parts]).prod())


def _data(gate: Gate | None, rank: int, values: Mapping[Angle, float]) -> npt.NDArray[np.float64]:
    """The numbers of a tensor: |0>, Z, a rotation or a CNOT."""
    if gate is None:
        return np.array([1.0, 0.0]) if rank == 1 else np.diag([1.0, -1.0])
    if gate.angle is None:
        return _XOR
    cos, sin = np.cos(values[gate.angle] / 2), np.sin(values[gate.angle] / 2)
    return np.array([[cos, -sin], [sin, cos]])


def _network(
    cone: Circuit, qubit: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[int | None, ...], tuple[tuple[int, ...], ...]]:
    """Of each tensor its indices, the gate that it is (None for |0> and Z), and the qubits that it touches."""
    fresh = iter(f"i{number}" for number in range(4 * (len(cone.gates) + cone.n_qubits) + 2))
    inputs: list[tuple[str, ...]] = []
    sources: list[int | None] = []
    columns: list[tuple[int, ...]] = []
    last: list[dict[int, str]] = []
    touched = sorted({wire for gate in cone.gates for wire in gate.qubits} | {qubit})
    for _ in range(2):  # U on |0>, and again for the bra: every gate is real
        wires = {wire: next(fresh) for wire in touched}
        for wire in touched:
            inputs.append((wires[wire],))
            sources.append(None)
            columns.append((wire,))
        for place, gate in enumerate(cone.gates):
            before, after = wires[gate.target], next(fresh)
            inputs.append((after, before) if gate.control is None else (wires[gate.control], after, before))
            sources.append(place)
            columns.append(gate.qubits)
            wires[gate.target] = after
        last.append(wires)
    joined = {last[1][wire]: last[0][wire] for wire in touched if wire != qubit}
    inputs = [tuple(joined.get(index, index) for index in tensor) for tensor in inputs]
    inputs.append((last[0][qubit], last[1][qubit]))
    sources.append(None)
    columns.append((qubit,))
    return tuple(inputs), tuple(sources), tuple(columns)


def _along_the_qubits(columns: tuple[tuple[int, ...], ...], n_qubits: int) -> tuple[tuple[int, int], ...]:
    """One tensor after another into one, by the later of their qubits: a sweep along the ring, as an SSA path.

    What wraps around comes where the sweep meets its first qubit, so that the ring stays open at one place.
    """

    def place(number: int) -> tuple[int, int]:
        wires = columns[number]
        far = max(wires) - min(wires) > n_qubits // 2
        return (min(wires) if far else max(wires), number)

    order = sorted(range(len(columns)), key=place)
    path, current = [], order[0]
    for step, number in enumerate(order[1:]):
        path.append((current, number))
        current = len(columns) + step
    return tuple(path)
