"""Random circuits and a plain numpy simulator that shares no code with the library."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from ketfit.circuit import Angle, Circuit, cx, ry


def random_circuit(n_qubits: int, n_gates: int, seed: int, n_inputs: int = 2) -> Circuit:
    """A circuit of exactly `n_gates` gates in random order that uses weights (some of them twice) and every input.

    One qubit gives rotations only. It needs more gates than inputs, since at least one rotation reads a weight.
    """
    if n_gates <= n_inputs:
        raise ValueError(f"{n_gates} gates cannot use {n_inputs} inputs and a weight")
    rng = random.Random(seed)
    spare = n_gates - n_inputs - 1
    n_cx = sum(rng.random() < 0.5 for _ in range(spare)) if n_qubits > 1 else 0
    angles = [Angle("input", k) for k in range(n_inputs)] + [Angle("weight", 0)]
    n_weights = 1
    for _ in range(spare - n_cx):
        if rng.random() < 0.6:
            angles.append(Angle("weight", n_weights))
            n_weights += 1
        else:
            angles.append(rng.choice(angles))
    gates = [ry(rng.randrange(n_qubits), angle) for angle in angles]
    gates += [cx(*rng.sample(range(n_qubits), 2)) for _ in range(n_cx)]
    rng.shuffle(gates)
    return Circuit.from_gates(n_qubits, gates)


def random_angles(circuit: Circuit, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of shape (n_weights,) and inputs of shape (n_inputs,), uniform in [-pi, pi]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, circuit.n_weights), rng.uniform(-np.pi, np.pi, circuit.n_inputs)


def reference_state(
    circuit: Circuit, weights: Sequence[float], inputs: Sequence[float], initial: np.ndarray | None = None
) -> np.ndarray:
    """The final amplitudes, shape (2**n_qubits,), of one sample: each gate applied as the textbook has it."""
    n = circuit.n_qubits
    state = np.eye(1, 2**n).reshape([2] * n) if initial is None else np.array(initial).reshape([2] * n)
    for gate in circuit.gates:
        if gate.angle is None:
            state = np.moveaxis(state, (gate.control, gate.target), (0, 1)).copy()
            state[1] = state[1, ::-1].copy()
            state = np.moveaxis(state, (0, 1), (gate.control, gate.target))
        else:
            half = (weights if gate.angle.source == "weight" else inputs)[gate.angle.index] / 2
            matrix = np.array([[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]])
            state = np.moveaxis(np.tensordot(matrix, state, axes=(1, gate.target)), 0, gate.target)
    return state.reshape(-1)


def reference_expectation(state: np.ndarray, qubits: Sequence[int]) -> np.ndarray:
    """<Z> of each of `qubits`, shape (len(qubits),), from the amplitudes of one sample."""
    n = state.size.bit_length() - 1
    probabilities = (np.abs(state) ** 2).reshape([2] * n)
    return np.array([np.subtract(*probabilities.sum(axis=tuple(a for a in range(n) if a != q))) for q in qubits])
