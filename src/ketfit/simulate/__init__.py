"""Simulation of circuits: expectations from arrays of angles, exact, noisy or from shots."""

from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.expectation import expectation, expectation_and_gradients
from ketfit.simulate.noise import NoiseConfig, load_noise

__all__ = ["CircuitBatch", "NoiseConfig", "expectation", "expectation_and_gradients", "load_noise"]
