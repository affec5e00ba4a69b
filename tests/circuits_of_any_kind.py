"""Random circuits over all gates, and a plain numpy simulator of them that shares no code with the library."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import unitary_group

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.angle import affine_form
from ketfit.circuit.gate import GATES


def random_unitary(n_qubits: int, seed: int) -> np.ndarray:
    return unitary_group.rvs(2**n_qubits, random_state=seed) if n_qubits else np.ones((1, 1))


def random_general_circuit(
    n_qubits: int, n_gates: int, seed: int, names: Sequence[str] = (*GATES, "unitary"), n_inputs: int = 2
) -> Circuit:
    """A circuit of random gates that fit; angles are weights, inputs, numbers and sums of them."""
    rng = random.Random(seed)
    n_weights = max(3, n_gates // 3)

    def expression():
        first = Angle("weight", rng.randrange(n_weights))
        second = Angle("input", rng.randrange(n_inputs))
        forms = [first, first, second, rng.uniform(-3, 3), 2 * first + 0.5, first / 2 - 3 * second, 0.25 - second]
        return rng.choice(forms)

    gates = []
    while len(gates) < n_gates:
        name = rng.choice(names)
        width = rng.randint(1, min(3, n_qubits)) if name == "unitary" else GATES[name].n_qubits
        if width > n_qubits:
            continue
        qubits = rng.sample(range(n_qubits), width)
        if name == "unitary":
            gates.append(Gate(name, qubits, matrix=random_unitary(width, rng.randrange(2**31))))
        else:
            gates.append(Gate(name, qubits, [expression() for _ in range(GATES[name].n_parameters)]))
    return Circuit(n_qubits, gates, n_weights, n_inputs)


def angle_value(expression, weights: Sequence[float], inputs: Sequence[float]) -> float:
    arrays: Mapping[str, Sequence[float]] = {"weight": weights, "input": inputs}
    terms, offset = affine_form(expression)
    return offset + sum(factor * arrays[angle.source][angle.index] for angle, factor in terms)


def apply_matrix(state: np.ndarray, matrix: np.ndarray, qubits: Sequence[int], n_qubits: int) -> np.ndarray:
    """A matrix on some axes of a state of shape (2,) * n_qubits."""
    width = len(qubits)
    tensor = np.asarray(matrix).reshape([2] * (2 * width))
    moved = np.tensordot(tensor, state, axes=(range(width, 2 * width), qubits))
    return np.moveaxis(moved, range(width), qubits) if width else moved


def reference_statevector(
    circuit: Circuit, weights: Sequence[float], inputs: Sequence[float], initial: np.ndarray | None = None
) -> np.ndarray:
    """The final amplitudes, shape (2**n_qubits,), from the matrices of the gates."""
    n = circuit.n_qubits
    state = (np.eye(1, 2**n) if initial is None else np.asarray(initial)).reshape([2] * n).astype(complex)
    for gate in circuit.gates:
        angles = [angle_value(parameter, weights, inputs) for parameter in gate.parameters]
        state = apply_matrix(state, np.array(gate.matrix_at(*angles)), gate.qubits, n)
    return state.reshape(-1)


def without_wide_gates(circuit: Circuit) -> Circuit:
    """The circuit without gates on three qubits, which have no noise."""
    return circuit.with_gates(gate for gate in circuit.gates if len(gate.qubits) < 3)


def random_complex_states(count: int, n_qubits: int, seed: int) -> np.ndarray:
    """Random complex amplitudes of norm 1, shape (count, 2**n_qubits)."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(count, 2**n_qubits)) + 1j * rng.normal(size=(count, 2**n_qubits))
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def random_pauli_words(n_qubits: int, count: int, seed: int) -> list[tuple[str, tuple[int, ...]]]:
    """Letters X, Y and Z on random qubits, and the empty word."""
    rng = random.Random(seed)
    chosen = [tuple(rng.sample(range(n_qubits), rng.randint(1, n_qubits))) for _ in range(count)]
    return [("", ()), *(("".join(rng.choices("XYZ", k=len(qubits))), qubits) for qubits in chosen)]
