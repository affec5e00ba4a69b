"""The PennyLane device ``ketfit.qubit``, which ``pennylane.device("ketfit.qubit")`` finds once KetFit is installed."""

from ketfit.errors import optional_imports

with optional_imports("The device ketfit.qubit", "pennylane"):
    from ketfit.interop.pennylane.device import KetFitQubit

__all__ = ["KetFitQubit"]
