from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch
from pennylane.devices import ExecutionConfig
from pennylane.exceptions import DeviceError

from ketfit.interop.pennylane.operations import is_supported
from ketfit.interop.pennylane.preprocessing import decompose_excitations, device_transforms, is_exact_measurement

CONFIG = ExecutionConfig(gradient_method="adjoint")


def preprocessed(*operations, measurements=None, config=CONFIG, wires=None):
    measurements = measurements or [qml.expval(qml.Z(0))]
    tapes, _ = device_transforms(wires, config)([qml.tape.QuantumScript(operations, measurements)])
    return tapes


def test_supported_operations_are_left_alone():
    operations = [
        qml.AngleEmbedding(np.zeros((2, 2)), [0, 1]),
        qml.StronglyEntanglingLayers(np.zeros((1, 2, 3)), [0, 1]),
        qml.Rot(0.1, 0.2, 0.3, 0),
        qml.QubitUnitary(np.eye(8), [0, 1, 2]),
        qml.BlockEncode([[0.1, 0.2], [0.3, 0.4]], wires=[0, 1]),
        qml.Snapshot(),
        qml.Barrier([0]),
    ]
    assert all(is_supported(each) for each in operations)
    (tape,) = preprocessed(*operations)
    assert tape.operations == operations


def test_templates_with_other_gates_inside_are_decomposed():
    layers = qml.StronglyEntanglingLayers(np.zeros((1, 2, 3)), [0, 1], imprimitive=qml.ECR)
    assert not is_supported(layers)
    (tape,) = preprocessed(layers)
    assert all(is_supported(each) for each in tape.operations)


def test_trainable_matrix_is_no_constant():
    matrix = torch.eye(2, dtype=torch.complex128, requires_grad=True)
    assert is_supported(qml.QubitUnitary(matrix, 0))
    assert not is_supported(qml.QubitUnitary(matrix, 0), differentiated=True)
    (tape,) = preprocessed(qml.QubitUnitary(matrix, 0))
    assert {each.name for each in tape.operations} <= {"RX", "RY", "RZ", "GlobalPhase"}
    with pytest.raises(DeviceError, match="gradient of the matrix of QubitUnitary on 2 wires"):
        preprocessed(qml.QubitUnitary(torch.eye(4, dtype=torch.complex128, requires_grad=True), [0, 1]))


@pytest.mark.parametrize("kind", [qml.DoubleExcitationPlus, qml.DoubleExcitationMinus])
def test_excitations_with_a_phase_keep_their_matrix(kind):
    operation = kind(0.7, wires=[0, 1, 2, 3])
    (tape,), _ = decompose_excitations(qml.tape.QuantumScript([operation]))
    np.testing.assert_allclose(qml.matrix(tape, wire_order=range(4)), operation.matrix(), atol=1e-12)


def test_batches_of_matrices_and_with_shadows_are_split():
    assert len(preprocessed(qml.QubitUnitary(np.stack([np.eye(2)] * 2), 0))) == 2
    tape = qml.tape.QuantumScript([qml.RX(np.zeros(3), 0)], [qml.classical_shadow(wires=[0])], shots=5)
    tapes, _ = device_transforms(None, ExecutionConfig())([tape])
    assert len(tapes) == 3


def test_counts_are_refused_with_jax_jit():
    with pytest.raises(NotImplementedError, match="does not support counts"):
        preprocessed(measurements=[qml.counts(wires=[0])], config=ExecutionConfig(interface="jax-jit"))


def test_measurements_that_need_shots_are_not_exact():
    assert is_exact_measurement(qml.expval(qml.Hermitian(np.eye(2), 0) @ qml.Z(1)))
    assert not is_exact_measurement(qml.sample(wires=0))
    assert not is_exact_measurement(qml.var(qml.SparseHamiltonian(qml.Z(0).sparse_matrix(), 0)))
