from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.interop.pennylane.tape_circuit import MAX_CIRCUITS, TapeReader


def read(*operations, measurements=(), reader=None):
    tape = qml.tape.QuantumScript(operations, measurements or [qml.expval(qml.Z(operations[0].wires[0]))])
    return (reader or TapeReader(torch.float64)).read(tape)


def test_numbers_become_weights_and_batches_become_inputs():
    batch = read(qml.RX(0.5, 0), qml.RY([0.1, 0.2], 1), qml.IsingZZ(0.7, [1, 0]), qml.Barrier(wires=[0]))
    angles = Angle("weight", 0), Angle("input", 0), Angle("weight", 1)
    gates = (Gate("rx", 0, angles[:1]), Gate("ry", 1, angles[1:2]), Gate("rzz", (1, 0), angles[2:]))
    assert batch.circuit == Circuit(2, gates, 2, 1)
    assert batch.weights.tolist() == [0.5, 0.7]
    assert batch.inputs.tolist() == [[0.1], [0.2]]
    assert batch.is_batched and batch.initial is None


def test_templates_are_read_with_symbols():
    features, layers = torch.rand(4, 2, dtype=torch.float64), torch.rand(1, 2, 3, dtype=torch.float64)
    batch = read(qml.AngleEmbedding(features, [0, 1]), qml.StronglyEntanglingLayers(layers, [0, 1]))
    torch.testing.assert_close(batch.inputs, features)
    torch.testing.assert_close(batch.weights, layers.reshape(-1))
    assert batch.circuit.gates[0] == Gate("rx", 0, [Angle("input", 0)])
    assert batch.circuit.gate_counts() == {"ry": 2, "cx": 2, "rx": 2, "rz": 4}


def test_circuit_is_built_once_for_tapes_of_one_structure():
    reader = TapeReader(torch.float64)
    first, second = (read(qml.RX(angle, "a"), qml.Rot(0.1, angle, 0.3, "b"), reader=reader) for angle in (0.1, 0.2))
    assert first.circuit is second.circuit
    assert second.weights.tolist() == [0.2, 0.1, 0.2, 0.3]
    others = [
        read(qml.RX(np.zeros(2), "a"), qml.Rot(0.1, 0.2, 0.3, "b"), reader=reader),
        read(qml.RX(0.1, "b"), qml.Rot(0.1, 0.2, 0.3, "a"), reader=reader),
        read(qml.RY(0.1, "a"), qml.Rot(0.1, 0.2, 0.3, "b"), reader=reader),
    ]
    assert len({first.circuit, *(each.circuit for each in others)}) == 3
    assert [list(each.wires) for each in others] == [["a", "b"], ["b", "a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (qml.QubitUnitary(np.eye(2), 0), qml.QubitUnitary(np.diag([1, -1]), 0)),
        (
            qml.StronglyEntanglingLayers(np.zeros((1, 2, 3)), [0, 1]),
            qml.StronglyEntanglingLayers(np.zeros((1, 2, 3)), [0, 1], imprimitive=qml.CZ),
        ),
        (
            qml.BasicEntanglerLayers(np.zeros((1, 2)), [0, 1]),
            qml.BasicEntanglerLayers(np.zeros((1, 2)), [0, 1], rotation=qml.RZ),
        ),
        (
            qml.StronglyEntanglingLayers(np.zeros((1, 3, 3)), [0, 1, 2], ranges=[1]),
            qml.StronglyEntanglingLayers(np.zeros((1, 3, 3)), [0, 1, 2], ranges=[2]),
        ),
    ],
)
def test_circuits_of_other_matrices_and_choices_differ(one, other):
    reader = TapeReader(torch.float64)
    assert read(one, reader=reader).circuit != read(other, reader=reader).circuit


def test_wires_are_in_the_order_of_pennylane():
    operations = [qml.X(1), qml.CNOT([1, 0])]
    assert list(read(*operations).wires) == [0, 1]
    assert list(read(qml.X("b"), qml.CNOT(["b", "a"])).wires) == ["b", "a"]
    assert list(read(qml.X(0), measurements=[qml.probs(wires=[2, 1])]).wires) == [0, 1, 2]
    assert list(read(qml.X(0), measurements=[qml.probs(wires=["z", 1])]).wires) == [0, "z", 1]


def test_prepared_amplitudes_fit_the_batch():
    amplitudes = torch.tensor([0.6, 0.8], dtype=torch.float64, requires_grad=True)
    batch = read(qml.StatePrep(amplitudes, 1), qml.RX(np.zeros(3), 0))
    assert list(batch.wires) == [0, 1]
    torch.testing.assert_close(batch.initial.real, torch.tensor([[0.6, 0.8, 0, 0]] * 3, dtype=torch.float64))
    assert batch.initial.requires_grad
    assert read(qml.BasisState([1], 0), qml.X(1)).initial.tolist() == [[0, 0, 1, 0]]
    assert not read(qml.BasisState([1], 0), qml.X(1)).is_batched


def test_the_oldest_circuits_are_forgotten():
    reader = TapeReader(torch.float32)
    first = read(qml.X(0), reader=reader).circuit
    for label in range(1, MAX_CIRCUITS + 1):
        read(qml.X(label), reader=reader)
    assert read(qml.X(0), reader=reader).circuit is not first
