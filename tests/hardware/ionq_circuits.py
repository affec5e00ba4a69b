"""Circuits for the tests of backends, and their distributions by KetFit's simulator."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chi2

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import MeasurementContext


def random_circuits(
    count: int, n_qubits: int = 3, measured: tuple[int, ...] = (0, 1), seed: int = 0
) -> list[BoundCircuit]:
    """Return circuits of one shape and with the same weights, as a head has them."""
    circuit = reuploading_circuit(n_qubits, 1, 1, 1, 1)
    rng = np.random.default_rng(seed)
    weights = tuple(rng.uniform(-3, 3, circuit.n_weights))
    return [BoundCircuit(circuit, weights, tuple(rng.uniform(-3, 3, circuit.n_inputs)), measured) for _ in range(count)]


def assert_counts_match_simulator(circuits: list[BoundCircuit], counts: list[dict[str, int]], shots: int) -> None:
    """Check the counts of all circuits against KetFit's simulator in one chi-square test."""
    statistic, degrees = 0.0, 0
    for bound, row in zip(circuits, counts, strict=True):
        expected = exact_distribution(bound) * shots
        drawn = np.array([row.get(f"{k:0{len(bound.measured)}b}", 0) for k in range(expected.size)])
        often = expected >= 5
        # Rare outcomes are counted together.
        pairs = [*zip(drawn[often], expected[often], strict=True), (drawn[~often].sum(), expected[~often].sum())]
        kept = [(d, e) for d, e in pairs if e >= 1]
        statistic += sum((d - e) ** 2 / e for d, e in kept)
        degrees += len(kept) - 1
    assert chi2.sf(statistic, degrees) > 1e-6


def exact_distribution(bound: BoundCircuit) -> np.ndarray:
    """Return the probability of each outcome, from KetFit's engine."""
    weights, inputs = (torch.tensor(row, dtype=torch.float64) for row in (bound.weights, bound.inputs))
    found = MeasurementContext(bound.measured).distribution(CircuitBatch(bound.circuit, weights, inputs[None]))
    return found[0].numpy()
