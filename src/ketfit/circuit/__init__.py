"""Circuits as immutable values, without torch and without input or output."""

from ketfit.circuit.angle import Angle, AngleSum
from ketfit.circuit.ansatz import ansatz_layers, data_reuploading, encoder_circuit, reuploading_circuit, ring_layers
from ketfit.circuit.circuit import Circuit
from ketfit.circuit.gate import Gate, cx, ry
from ketfit.circuit.observable import Hermitian, PauliSum, PauliTerm, Projector

__all__ = [
    "Angle",
    "AngleSum",
    "Circuit",
    "Gate",
    "Hermitian",
    "PauliSum",
    "PauliTerm",
    "Projector",
    "ansatz_layers",
    "cx",
    "data_reuploading",
    "encoder_circuit",
    "reuploading_circuit",
    "ring_layers",
    "ry",
]
