"""Circuits as immutable values, without torch and without input or output."""

from ketfit.circuit.ansatz import encoder_circuit, reuploading_circuit, ring_layers
from ketfit.circuit.circuit import Angle, Circuit, Gate, cx, ry

__all__ = ["Angle", "Circuit", "Gate", "cx", "encoder_circuit", "reuploading_circuit", "ring_layers", "ry"]
