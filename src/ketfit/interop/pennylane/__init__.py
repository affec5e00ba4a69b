"""The PennyLane device ``ketfit.qubit``, which ``pennylane.device("ketfit.qubit")`` finds once KetFit is installed."""

from ketfit.errors import MissingExtraError, optional_imports

with optional_imports("The device ketfit.qubit", "pennylane"):
    import pennylane

if not hasattr(pennylane, "CompilePipeline"):
    purpose = f"The device ketfit.qubit, for which PennyLane {pennylane.__version__} is too old,"
    raise MissingExtraError(purpose, "'pennylane>=0.44'")

from ketfit.interop.pennylane.device import KetFitQubit

__all__ = ["KetFitQubit"]
