"""Operations of PennyLane that the device runs as they are; PennyLane decomposes the others into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pennylane as qml
from pennylane.operation import Operation, Operator

from ketfit.circuit.gate import MAX_UNITARY_QUBITS
from ketfit.circuit.importers import PENNYLANE_GATE_SET

NO_OPERATION = frozenset({"Barrier", "Identity", "Snapshot", "WireCut"})
"""Names of operations that leave the state as it is."""

TEMPLATES = {"AngleEmbedding": 1, "BasicEntanglerLayers": 2, "StronglyEntanglingLayers": 3}
"""Templates whose angles are their parameters, and the number of axes of the parameter of one sample.

They are read once, with symbols in the place of the parameters. To decompose them at every call, and to differentiate
the elements that the decomposition picks, takes longer than to simulate ten qubits.
"""


def is_gate(operation: Operator) -> bool:
    """Return True for a gate that depends on its name and angles alone."""
    return operation.name != "QubitUnitary" and operation.name in PENNYLANE_GATE_SET


def is_template(operation: Operator) -> bool:
    """Return True for a template that is read with symbols."""
    if operation.name not in TEMPLATES:
        return False
    choices = operation.hyperparameters
    inner = choices.get("imprimitive") or choices.get("rotation")
    return getattr(inner, "__name__", None) in PENNYLANE_GATE_SET


def is_matrix(operation: Operator) -> bool:
    """Return True for an operation that is run as a constant matrix."""
    is_small = isinstance(operation, Operation) and len(operation.wires) <= MAX_UNITARY_QUBITS and operation.has_matrix
    return is_small and (operation.name == "QubitUnitary" or not operation.has_decomposition)


def is_supported(operation: Operator, differentiated: bool = False) -> bool:
    """Return True if the device runs an operation as it is.

    Args:
        operation: The operation.
        differentiated: True if gradients are computed; a trainable matrix is then no constant.
    """
    if operation.name in NO_OPERATION or is_gate(operation) or is_template(operation):
        return True
    is_trainable = differentiated and any(qml.math.requires_grad(value) for value in operation.data)
    return is_matrix(operation) and not is_trainable


def matrix_of(operation: Operator) -> npt.NDArray[Any]:
    """Return the matrix of an operation or an observable, its first wire the most significant bit of the index."""
    matrix = operation.matrix(wire_order=operation.wires)
    return np.asarray(qml.math.to_numpy(matrix) if qml.math.get_interface(matrix) != "numpy" else matrix)
