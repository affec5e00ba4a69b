"""Simulation of circuits: expectations from arrays of angles, exact, noisy or from shots."""

from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.expectation import expectation, expectation_and_gradients
from ketfit.simulate.noise import NoiseConfig, load_noise
from ketfit.simulate.state import probabilities, sample_counts, statevector, variance

__all__ = [
    "CircuitBatch",
    "NoiseConfig",
    "expectation",
    "expectation_and_gradients",
    "load_noise",
    "probabilities",
    "sample_counts",
    "statevector",
    "variance",
]
