"""How it is computed: arrays in, expectations out."""

from ketfit.simulate.measurement import expectation
from ketfit.simulate.noise import NoiseConfig, load_noise

__all__ = ["NoiseConfig", "expectation", "load_noise"]
