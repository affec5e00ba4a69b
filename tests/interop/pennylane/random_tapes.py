"""Random tapes over the operations that the device runs, and over others that PennyLane decomposes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pennylane as qml

from tests.circuits_of_any_kind import random_unitary

NATIVE: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("PauliX", "PauliY", "PauliZ", "Hadamard", "S", "T", "SX"), (1, 0)),
    **dict.fromkeys(("CNOT", "CY", "CZ", "CH", "SWAP", "ISWAP"), (2, 0)),
    **dict.fromkeys(("RX", "RY", "RZ", "PhaseShift", "GlobalPhase"), (1, 1)),
    **dict.fromkeys(("CRX", "CRY", "CRZ", "ControlledPhaseShift", "IsingXX", "IsingYY", "IsingZZ"), (2, 1)),
    **dict.fromkeys(("U3", "Rot"), (1, 3)),
    "Toffoli": (3, 0),
}
"""Wires and angles of each."""

OTHERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("IsingXY", "PSWAP", "SingleExcitation", "CPhaseShift01", "FermionicSWAP"), (2, 1)),
    **dict.fromkeys(("ECR", "SISWAP"), (2, 0)),
    **dict.fromkeys(("DoubleExcitation", "DoubleExcitationPlus", "DoubleExcitationMinus"), (4, 1)),
    "CRot": (2, 3),
    "CSWAP": (3, 0),
    "MultiRZ": (3, 1),
    "U2": (1, 2),
}


def random_node(
    device: Any, n_wires: int, n_gates: int, seed: int, measure: Callable[[], Any], labels: Sequence[Any] | None = None
) -> Any:
    """A node of parameters, shape (n,) with a weight for each angle, or for half of them an axis of samples."""
    rng = random.Random(seed)
    labels = labels or range(n_wires)
    kinds = {name: shape for name, shape in (NATIVE | OTHERS).items() if shape[0] <= n_wires}
    chosen = [rng.choice(sorted(kinds)) for _ in range(n_gates)]
    wires = [[labels[wire] for wire in rng.sample(range(n_wires), kinds[name][0])] for name in chosen]
    wrappers = [rng.choice((None, None, "adjoint", "unitary")) for _ in chosen]
    matrices = [random_unitary(1, rng.randrange(2**31)) for _ in chosen]

    def circuit(weights: Any, inputs: Any) -> Any:
        values = iter([*weights, *inputs])
        for name, on, wrapper, matrix in zip(chosen, wires, wrappers, matrices, strict=True):
            kind, angles = getattr(qml, name), [next(values) for _ in range(kinds[name][1])]
            if wrapper == "adjoint":
                qml.adjoint(kind(*angles, wires=on))
            else:
                kind(*angles, wires=on)
            if wrapper == "unitary":
                qml.QubitUnitary(matrix, wires=on[0])
        return measure()

    n_angles = sum(kinds[name][1] for name in chosen)
    node = qml.QNode(circuit, device)
    node.n_weights, node.n_inputs = n_angles - n_angles // 2, n_angles // 2
    return node


def random_numbers(node: Any, seed: int, batch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and inputs with a column for each sample of a batch."""
    rng = np.random.default_rng(seed)
    inputs = (node.n_inputs,) if batch is None else (node.n_inputs, batch)
    return rng.uniform(-3, 3, node.n_weights), rng.uniform(-3, 3, inputs)
