"""Exact expectations of circuits whose statevector is too large, by contraction of a tensor network.

<Z_k> = <0|U^T Z_k U|0> is a network with two tensors for each gate of the light cone, and one for Z_k. A CNOT shares
the index of its control (a hyperedge) and is one tensor of three indices, the maximum of all gates. The plan is the
cheaper of two contraction trees of cotengra: a sweep along the qubits, whose width in the ring circuits of the paper
grows with the number of layers but not of qubits, and a greedy search. Both are deterministic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ketfit.circuit.circuit import Angle, Circuit, Gate, cached_on_circuit
from ketfit.circuit.export import angle_values
from ketfit.errors import CircuitError, InputError, InsufficientMemoryError, MissingExtraError
from ketfit.integers import as_integer
from ketfit.memory import available_memory

_XOR = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])  # control, out, in
_ITEM = 8  # bytes of a float64


@dataclass(frozen=True, slots=True)
class ContractionPlan:
    """The contraction of one expectation and its cost.

    Attributes:
        qubit: Qubit whose <Z> is computed.
        tensors: Number of tensors in the network.
        multiplications: Number of multiply-add operations.
        elements_moved: Number of elements of all tensors that are read or written.
        largest: Number of elements of the largest tensor.
        peak: Maximum number of elements in memory at the same time.
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
        """Return the memory of the contraction at its peak, in double precision."""
        return self.peak * _ITEM


def plan_contraction(circuit: Circuit, qubit: int = 0) -> ContractionPlan:
    """Return the contraction of <Z> of `qubit` after `circuit` from |0...0>, and its cost, without computing it.

    Raises:
        CircuitError: The qubit is out of range, or not an integer.
        MissingExtraError: The package cotengra is not installed.
    """
    try:
        import cotengra  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("A tensor network", "'ketfit[network]'") from error

    circuit.check_ry_cx("the tensor network")
    (qubit,) = circuit.check_qubits((as_integer(qubit, "qubit", error=CircuitError),))
    return _plan_contraction(circuit, qubit)


@cached_on_circuit
def _plan_contraction(circuit: Circuit, qubit: int) -> ContractionPlan:
    import cotengra

    cone = circuit.light_cone((qubit,))
    inputs, sources, columns = _network(cone, qubit)
    sizes = dict.fromkeys((index for tensor in inputs for index in tensor), 2)
    sweep = _sweep_path(columns, cone.n_qubits)
    greedy = cotengra.pathfinders.path_basic.optimize_greedy(inputs, (), sizes, use_ssa=True)
    trees = [
        cotengra.ContractionTree.from_path(inputs, (), sizes, ssa_path=path, autocomplete=True)
        for path in (sweep, greedy)
    ]
    tree = min(trees, key=lambda tree: tree.contraction_cost())
    return ContractionPlan(
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


def network_expectation(
    circuit: Circuit,
    weights: Iterable[float],
    inputs: Iterable[float] | None = None,
    qubits: Iterable[int] = (0,),
    *,
    memory: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return <Z> of each of `qubits` after `circuit` from |0...0>, shape (len(qubits),), in double precision.

    It takes one sample and has no gradients. Use it for circuits whose statevector does not fit into memory;
    `ketfit.expectation` is faster on all others.

    Args:
        circuit: Circuit to run, for each qubit without the gates that cannot affect it.
        weights: Angles in radians, shape (n_weights,).
        inputs: Angles in radians, shape (n_inputs,); None only if the circuit reads none.
        qubits: Qubits to measure, with one contraction for each.
        memory: Bytes that a contraction may use; None is the free memory.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        ConfigError: The memory is not an integer, or negative.
        InputError: The angles have the wrong shape or are not finite.
        InsufficientMemoryError: A contraction needs more memory; nothing was computed.
        MissingExtraError: The package cotengra is not installed.
    """
    if inputs is None and circuit.n_inputs:
        raise InputError(f"this circuit reads {circuit.n_inputs} inputs; pass inputs of shape ({circuit.n_inputs},)")
    if memory is not None:
        memory = as_integer(memory, "memory", minimum=0, hint="None is what is free now")
    values = angle_values(circuit, weights, inputs)
    plans = [plan_contraction(circuit, qubit) for qubit in circuit.check_qubits(qubits)]
    limit = available_memory() if memory is None else memory
    for plan in plans:
        if plan.bytes_needed > limit:
            raise InsufficientMemoryError(
                f"<Z> of qubit {plan.qubit} of {circuit.n_qubits} needs {_size(plan.bytes_needed)} at the peak "
                f"and {_size(limit)} are available; use fewer layers, less connectivity or fewer qubits"
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
        # torch's einsum turns contractions along shared indices into matrix products; numpy's loops over elements.
        factors = [parts.pop(position) for position in sorted(step, reverse=True)]
        step_indices = list(dict.fromkeys(index for _, indices in factors for index in indices))
        uses.subtract(index for _, indices in factors for index in indices)
        open_indices = tuple(index for index in step_indices if uses[index])
        uses.update(open_indices)
        number = {index: position for position, index in enumerate(step_indices)}
        operands = [part for array, indices in factors for part in (array, [number[index] for index in indices])]
        parts.append((torch.einsum(*operands, [number[index] for index in open_indices]), open_indices))
    return float(torch.stack([array for array, _ in parts]).prod())


def _data(gate: Gate | None, rank: int, values: Mapping[Angle, float]) -> npt.NDArray[np.float64]:
    """Return the elements of a tensor: |0>, Z, a rotation or a CNOT."""
    if gate is None:
        return np.array([1.0, 0.0]) if rank == 1 else np.diag([1.0, -1.0])
    if gate.angle is None:
        return _XOR
    cos, sin = np.cos(values[gate.angle] / 2), np.sin(values[gate.angle] / 2)
    return np.array([[cos, -sin], [sin, cos]])


def _network(
    cone: Circuit, qubit: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[int | None, ...], tuple[tuple[int, ...], ...]]:
    """Return for each tensor its indices, its gate (None for |0> and Z), and its qubits."""
    fresh = iter(f"i{number}" for number in range(4 * (len(cone.gates) + cone.n_qubits) + 2))
    tensors: list[tuple[tuple[str, ...], int | None, tuple[int, ...]]] = []
    last: list[dict[int, str]] = []
    touched = sorted({wire for gate in cone.gates for wire in gate.qubits} | {qubit})
    for _ in range(2):  # U|0> for the ket, and again for the bra, because every gate is real
        wires = {wire: next(fresh) for wire in touched}
        tensors += [((wires[wire],), None, (wire,)) for wire in touched]
        for position, gate in enumerate(cone.gates):
            before, after = wires[gate.target], next(fresh)
            indices = (after, before) if gate.control is None else (wires[gate.control], after, before)
            tensors.append((indices, position, gate.qubits))
            wires[gate.target] = after
        last.append(wires)
    joined = {last[1][wire]: last[0][wire] for wire in touched if wire != qubit}
    inputs, sources, columns = zip(*tensors, ((last[0][qubit], last[1][qubit]), None, (qubit,)), strict=True)
    return tuple(tuple(joined.get(index, index) for index in tensor) for tensor in inputs), sources, columns


def _sweep_path(columns: tuple[tuple[int, ...], ...], n_qubits: int) -> tuple[tuple[int, int], ...]:
    """Return the SSA path of a sweep along the ring, which contracts tensors in the order of their higher qubits.

    A tensor across the end of the ring comes with its lower qubit, so that only one end of the ring stays open.
    """

    def sort_key(number: int) -> tuple[int, int]:
        wires = columns[number]
        wraps = max(wires) - min(wires) > n_qubits // 2
        return (min(wires) if wraps else max(wires), number)

    order = sorted(range(len(columns)), key=sort_key)
    path, current = [], order[0]
    for step, number in enumerate(order[1:]):
        path.append((current, number))
        current = len(columns) + step
    return tuple(path)
