"""Circuits for the tests of IonQ, and what our own simulator makes of them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chi2

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.simulate.expectation import MeasurementContext


def some_circuits(
    count: int, n_qubits: int = 3, measured: tuple[int, ...] = (0, 1), seed: int = 0
) -> list[BoundCircuit]:
    """Of one shape and with the same weights, as a head has them."""
    circuit = reuploading_circuit(n_qubits, 1, 1, 1, 1)
    rng = np.random.default_rng(seed)
    weights = tuple(rng.uniform(-3, 3, circuit.n_weights))
    return [BoundCircuit(circuit, weights, tuple(rng.uniform(-3, 3, circuit.n_inputs)), measured) for _ in range(count)]


def assert_as_simulated(circuits: list[BoundCircuit], counts: list[dict[str, int]], shots: int) -> None:
    """Each reading as often as our own simulator says, all circuits in one chi-square test."""
    statistic, degrees = 0.0, 0
    for bound, row in zip(circuits, counts, strict=True):
        expected = joint(bound) * shots
        drawn = np.array([row.get(f"{k:0{len(bound.measured)}b}", 0) for k in range(expected.size)])
        often = expected >= 5
        # What is rare counts together, if it comes to something.
        pairs = [*zip(drawn[often], expected[often], strict=True), (drawn[~often].sum(), expected[~often].sum())]
        kept = [(d, e) for d, e in pairs if e >= 1]
        statistic += sum((d - e) ** 2 / e for d, e in kept)
        degrees += len(kept) - 1
    assert chi2.sf(statistic, degrees) > 1e-6


def joint(bound: BoundCircuit) -> np.ndarray:
    """The probability of each reading, from our own engine."""
    weights, inputs = (torch.tensor(row, dtype=torch.float64) for row in (bound.weights, bound.inputs))
    found = MeasurementContext(bound.measured, None, None, None).distribution(
        bound.circuit, weights, inputs[None], None, 1
    )
    return found[0].numpy()
