"""Exact expectations of circuits whose statevector is too large, by contraction of a tensor network.

<Z_k> = <0|U^dagger Z_k U|0> is a network with two tensors for each gate of the light cone, and one for Z_k. A gate has
one index for each qubit on which it is diagonal, such as a control, and shares it with its neighbours (a hyperedge);
other qubits have one before and one behind the gate. A CNOT is one tensor of three indices. The plan is the cheaper of
two contraction trees of cotengra: a sweep along the qubits, whose width in the ring circuits of the paper grows with
the number of layers but not of qubits, and a greedy search. Both are deterministic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from ketfit.circuit.angle import Angle, substitute
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.export import angle_values
from ketfit.circuit.gate import Gate
from ketfit.errors import CircuitError, InputError, InsufficientMemoryError, MissingExtraError
from ketfit.integers import as_integer
from ketfit.memory import available_memory


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
        itemsize: Bytes of an element: 8 if every gate is real, and 16 otherwise.
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
    itemsize: int = 8

    @property
    def bytes_needed(self) -> int:
        """Return the memory of the contraction at its peak, in double precision."""
        return self.peak * self.itemsize


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
        8 if cone.is_real else 16,
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
    # The tensors of the bra are the conjugates of those of the ket, and come behind them.
    arrays = [
        _fixed(len(indices)) if source is None else _elements(gates[source], values)
        for indices, source in zip(plan.inputs, plan.sources, strict=True)
    ]
    half = len(arrays) // 2
    arrays[half:] = [array.conj() for array in arrays[half:]]
    dtype = np.float64 if plan.itemsize == 8 else np.complex128
    parts = [
        (torch.from_numpy(np.ascontiguousarray(array if dtype == np.complex128 else array.real, dtype)), indices)
        for array, indices in zip(arrays, plan.inputs, strict=True)
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
    return float(torch.stack([array for array, _ in parts]).prod().real)


def _fixed(rank: int) -> npt.NDArray[np.complex128]:
    """Return the elements of |0>, or of Z."""
    return np.array([1, 0], np.complex128) if rank == 1 else np.diag([1, -1]).astype(np.complex128)


def _elements(gate: Gate, values: Mapping[Angle, float]) -> npt.NDArray[np.complex128]:
    """Return the elements of a gate, with the indices of `_axes`."""
    angles = [cast(float, substitute(parameter, values)) for parameter in gate.parameters]
    width = len(gate.qubits)
    matrix = np.array(gate.matrix_at(*angles), np.complex128).reshape([2] * (2 * width))
    shared, others = _axes(gate)
    rows, columns = "abc"[:width], "xyz"[:width]
    before = "".join(rows[place] if place in shared else columns[place] for place in range(width))
    places = [*shared, *others]
    after = "".join(rows[place] for place in places) + "".join(columns[place] for place in others)
    elements: npt.NDArray[np.complex128] = np.einsum(f"{rows}{before}->{after}", matrix)
    return elements


def _axes(gate: Gate) -> tuple[list[int], list[int]]:
    """Return the places of the qubits on which a gate is diagonal, and the others.

    A tensor has an index for each of the first, then those behind the gate of the others, and then those before it.
    """
    diagonal = gate.diagonal_qubits
    places = range(len(gate.qubits))
    return (
        [place for place in places if gate.qubits[place] in diagonal],
        [place for place in places if gate.qubits[place] not in diagonal],
    )


def _network(
    cone: Circuit, qubit: int
) -> tuple[tuple[tuple[str, ...], ...], tuple[int | None, ...], tuple[tuple[int, ...], ...]]:
    """Return for each tensor its indices, its gate (None for |0> and Z), and its qubits."""
    fresh = (f"i{number}" for number in count())
    tensors: list[tuple[tuple[str, ...], int | None, tuple[int, ...]]] = []
    last: list[dict[int, str]] = []
    touched = sorted({wire for gate in cone.gates for wire in gate.qubits} | {qubit})
    for _ in range(2):  # U|0> for the ket, and again for the bra
        wires = {wire: next(fresh) for wire in touched}
        tensors += [((wires[wire],), None, (wire,)) for wire in touched]
        for position, gate in enumerate(cone.gates):
            shared, others = ([gate.qubits[place] for place in places] for places in _axes(gate))
            after = {wire: next(fresh) for wire in others}
            indices = [*(wires[wire] for wire in shared), *after.values(), *(wires[wire] for wire in others)]
            tensors.append((tuple(indices), position, gate.qubits))
            wires |= after
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
