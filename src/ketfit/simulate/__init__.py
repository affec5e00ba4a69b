"""How it is computed: arrays in, expectations out."""

from ketfit.simulate.statevector import expectation

__all__ = ["expectation"]
