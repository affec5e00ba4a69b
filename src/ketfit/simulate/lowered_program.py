"""Programs of the complex engine from circuits."""

from __future__ import annotations

import numpy as np

from ketfit.circuit.angle import AngleExpression, affine_form
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.lowering import ConstantUnitary, lower
from ketfit.simulate.pauli_program import AngleTerms, PauliProgram, PauliWord, Rotation, Unitary


@cached_on_circuit
def program_of(circuit: Circuit) -> PauliProgram:
    """Return the circuit as Pauli rotations and constant unitaries."""
    operations: list[Rotation | Unitary] = []
    for operation in lower(circuit):
        if isinstance(operation, ConstantUnitary):
            operations.append(Unitary(operation.qubits, np.array(operation.matrix, dtype=np.complex128)))
        else:
            operations.append(Rotation(PauliWord(*operation.masks(circuit.n_qubits)), angle_terms(operation.angle)))
    return PauliProgram(circuit.n_qubits, circuit.n_weights, circuit.n_inputs, tuple(operations))


def angle_terms(angle: AngleExpression) -> AngleTerms:
    """Return an angle as pairs of the index of a weight or an input and its factor, and an offset."""
    terms, offset = affine_form(angle)
    weights, inputs = (
        tuple((each.index, factor) for each, factor in terms if each.source == source) for source in ("weight", "input")
    )
    return AngleTerms(weights, inputs, offset)
