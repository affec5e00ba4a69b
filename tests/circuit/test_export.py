from __future__ import annotations

import math
import re
import sys

import numpy as np
import pennylane as qml
import pytest
import qiskit.qasm3
import torch
from qiskit.quantum_info import Operator, Pauli, Statevector, random_unitary
from qiskit.quantum_info.operators.predicates import is_unitary_matrix
from qiskit_aer import AerSimulator

from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit, ring_layers, ry
from ketfit.circuit.export import angle_values, to_pennylane, to_qasm3, to_qiskit
from ketfit.errors import CircuitError, InputError, MissingExtraError
from tests.circuits import random_angles, random_circuit, reference_expectation, reference_state

SMALL = Circuit.from_gates(
    2, [ry(0, Angle("input", 0)), cx(0, 1), ry(1, Angle("weight", 1)), ry(0, Angle("weight", 0))]
)

SMALL_QASM = """\
OPENQASM 3.0;
include "stdgates.inc";
input float[64] w_0;
input float[64] w_1;
input float[64] x_0;
qubit[2] q;
bit[2] c;
ry(x_0) q[0];
cx q[0], q[1];
ry(w_1) q[1];
ry(w_0) q[0];
c[0] = measure q[1];
c[1] = measure q[0];
"""


def test_to_qasm3_of_small_circuit_equals_text():
    assert to_qasm3(SMALL, measured=(1, 0)) == SMALL_QASM


def test_to_qasm3_declares_only_used_free_angles():
    assert "input" not in to_qasm3(SMALL, weights=[1, 2], inputs=[3])
    assert re.findall(r"input float\[64\] (\w+);", to_qasm3(SMALL, weights=[1, 2])) == ["x_0"]
    cone = SMALL.light_cone([0])
    assert re.findall(r"input float\[64\] (\w+);", to_qasm3(cone)) == ["w_0", "x_0"]
    assert re.findall(r"input float\[64\] (\w+);", to_qasm3(SMALL.light_cone([1]))) == ["w_1", "x_0"]
    assert "bit" not in to_qasm3(SMALL).replace("qubit", "")


def test_to_qasm3_numbers_keep_every_bit():
    numbers = [math.pi, 1 / 3, -1e-17, 5e-324, 1.7976931348623157e308, -0.1, 1e22]
    circuit = Circuit.from_gates(1, [ry(0, Angle("weight", k)) for k in range(len(numbers))])
    text = to_qasm3(circuit, weights=numbers)
    assert [float(number) for number in re.findall(r"ry\((.*)\)", text)] == numbers
    read = [instruction.operation.params[0] for instruction in qiskit.qasm3.loads(text).data]
    assert [float(number) for number in read] == numbers


@pytest.mark.parametrize("seed", range(8))
def test_to_qasm3_read_by_qiskit_equals_to_qiskit(seed):
    circuit = random_circuit(n_qubits=1 + seed % 4, n_gates=8 + 3 * seed, seed=seed)
    weights, inputs = random_angles(circuit, seed)
    bound = to_qiskit(circuit, weights, inputs)
    assert Operator(qiskit.qasm3.loads(to_qasm3(circuit, weights, inputs))) == Operator(bound)

    symbolic = qiskit.qasm3.loads(to_qasm3(circuit))
    values = {f"w_{k}": value for k, value in enumerate(weights)} | {f"x_{k}": value for k, value in enumerate(inputs)}
    assert {parameter.name for parameter in symbolic.parameters} == set(values)
    assert Operator(symbolic.assign_parameters(values)) == Operator(bound)

    partly = qiskit.qasm3.loads(to_qasm3(circuit, weights=weights))
    assert {parameter.name for parameter in partly.parameters} == {f"x_{k}" for k in range(circuit.n_inputs)}
    assert Operator(partly.assign_parameters({p: values[p.name] for p in partly.parameters})) == Operator(bound)


def test_to_qasm3_measurements_read_by_qiskit_equal_to_qiskit():
    read = qiskit.qasm3.loads(to_qasm3(SMALL, [1.0, 2.0], [3.0], measured=(1, 0)))
    assert read == to_qiskit(SMALL, [1.0, 2.0], [3.0], measured=(1, 0))


@pytest.mark.parametrize("seed", range(8))
def test_to_qiskit_amplitudes_equal_in_reversed_bit_order(seed):
    circuit = random_circuit(n_qubits=1 + seed % 5, n_gates=8 + 3 * seed, seed=seed)
    weights, inputs = random_angles(circuit, seed)
    state = Statevector(to_qiskit(circuit, weights, inputs)).reverse_qargs().data
    np.testing.assert_allclose(state, reference_state(circuit, weights, inputs), rtol=0, atol=1e-12)


def test_to_qiskit_parameters_are_two_vectors():
    circuit = reuploading_circuit(4, 1, 1, 1, 1)
    weights, inputs = random_angles(circuit, 0)
    free = to_qiskit(circuit)
    names = [f"w[{k}]" for k in range(circuit.n_weights)] + [f"x[{k}]" for k in range(circuit.n_inputs)]
    assert [parameter.name for parameter in free.parameters] == names
    bound = to_qiskit(circuit, weights, inputs)
    assert Operator(free.assign_parameters([*weights, *inputs])) == Operator(bound)
    assert Operator(to_qiskit(circuit, inputs=inputs).assign_parameters(weights)) == Operator(bound)
    assert Operator(to_qiskit(circuit, weights).assign_parameters(inputs)) == Operator(bound)


def test_to_qiskit_of_unitary_in_single_precision_is_the_closest_unitary():
    exact = random_unitary(4, seed=3).data
    single = exact.astype(np.complex64)
    assert not is_unitary_matrix(single.astype(complex))
    for given, tolerance in ((exact, 0), (single, 1e-6)):
        circuit = to_qiskit(Circuit.from_gates(2, [Gate("unitary", (1, 0), matrix=given)]))
        np.testing.assert_allclose(Operator(circuit).data, exact, rtol=0, atol=tolerance)


def test_to_qiskit_has_classical_bits_only_if_measured():
    assert to_qiskit(SMALL).num_clbits == 0
    measured = to_qiskit(SMALL, measured=(1,))
    assert (measured.num_clbits, measured.count_ops()["measure"]) == (1, 1)


def test_to_qiskit_counts_of_aer_follow_probabilities():
    shots, measured = 20_000, (2, 0)
    circuit = random_circuit(n_qubits=3, n_gates=20, seed=4)
    weights, inputs = random_angles(circuit, 4)
    sampled = to_qiskit(circuit, weights, inputs, measured)
    counts = AerSimulator(seed_simulator=1).run(sampled, shots=shots).result().get_counts()
    table = (reference_state(circuit, weights, inputs).reshape(2, 2, 2) ** 2).sum(axis=1)  # indexed [qubit 0, qubit 2]
    for first in (0, 1):
        for second in (0, 1):
            expected = table[second, first]  # measured[0] is qubit 2, and Qiskit writes bit 0 last
            bound = 5 * math.sqrt(expected * (1 - expected) / shots) + 1e-9
            assert abs(counts.get(f"{second}{first}", 0) / shots - expected) < bound
    assert len({round(value, 2) for value in table.ravel()}) == 4, "equal probabilities would hide swapped bits"


@pytest.mark.parametrize("seed", range(5))
def test_to_pennylane_expectations_equal_qiskit(seed):
    n_qubits = 1 + seed
    circuit = random_circuit(n_qubits, n_gates=10 + 3 * seed, seed=seed)
    weights, inputs = random_angles(circuit, seed)
    measured = tuple(range(n_qubits))[::-1]
    values = _node(circuit, measured)(weights, inputs)
    state = Statevector(to_qiskit(circuit, weights, inputs))
    expected = [state.expectation_value(Pauli("Z"), [qubit]).real for qubit in measured]
    assert isinstance(values, list)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)


def test_to_pennylane_accepts_batch_of_inputs():
    circuit = reuploading_circuit(3, 2, 1, 1, 2)
    weights, _ = random_angles(circuit, 0)
    batch = np.random.default_rng(1).normal(size=(4, 3))
    node = _node(circuit, (0, 2))
    values = np.array(node(weights, batch))
    assert values.shape == (2, 4)
    for sample, inputs in enumerate(batch):
        state = Statevector(to_qiskit(circuit, weights, inputs))
        expected = [state.expectation_value(Pauli("Z"), [qubit]).real for qubit in (0, 2)]
        np.testing.assert_allclose(values[:, sample], expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(node(list(weights), list(inputs)), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(node(weights, batch.tolist()), values, rtol=0, atol=1e-14)


def test_to_pennylane_accepts_initial_amplitudes():
    circuit = ring_layers(3, 2, 1)
    weights, _ = random_angles(circuit, 0)
    initial = np.random.default_rng(2).normal(size=(4, 8))
    initial /= np.linalg.norm(initial, axis=1, keepdims=True)
    expected = [reference_expectation(reference_state(circuit, weights, [], row), (1, 2)) for row in initial]
    node = _node(circuit, (1, 2))
    np.testing.assert_allclose(np.transpose(node(weights, initial=initial)), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(node(weights, initial=initial[0]), expected[0], rtol=0, atol=1e-10)


def test_to_pennylane_differentiates_by_torch():
    weights = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    node = _node(SMALL, (0,))
    (value,) = node(weights, torch.tensor([0.4], dtype=torch.float64))
    value.backward()
    step = 1e-6
    nudged = [node([0.3 + sign * step, -0.7], [0.4])[0] for sign in (1, -1)]
    assert weights.grad[0].item() == pytest.approx((nudged[0] - nudged[1]) / (2 * step), abs=1e-8)
    assert weights.grad[1].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], [0.2]), r"weights has shape \(1,\); it must be \(2,\)"),
        (([[0.1, 0.2]], [0.2]), r"weights has shape \(1, 2\); it must be \(2,\)"),
        (([0.1, 0.2], 0.3), r"inputs has shape \(\); it must be \(1,\) or \(batch, 1\)"),
        (([0.1, 0.2], np.zeros((2, 2, 1))), r"inputs has shape \(2, 2, 1\)"),
        (([0.1, 0.2], [0.3], np.eye(8)), r"initial has shape \(8, 8\); it must be \(4,\) or \(batch, 4\)"),
        ((None, [0.3]), r"weights is missing: give an array of shape \(2,\)"),
        (([0.1, 0.2],), r"inputs is missing: give an array of shape \(1,\)"),
    ],
)
def test_to_pennylane_wrong_shape_is_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        _node(SMALL, (0,))(*arguments)


@pytest.mark.parametrize("convert", [to_qasm3, to_qiskit, angle_values])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"weights": [0.1]}, "weights has 1 numbers, the circuit has n_weights=2: give one for each"),
        ({"inputs": np.zeros(3)}, "inputs has 3 numbers, the circuit has n_inputs=1: give one for each"),
        ({"weights": [0.1, math.inf]}, r"weights\[1\] is inf: an angle must be a finite number of radians"),
        ({"inputs": [math.nan]}, r"inputs\[0\] is nan: an angle must be a finite"),
        ({"weights": np.zeros((1, 2))}, "weights must be one flat row of 2 numbers, got array"),
        ({"inputs": 0.3}, "inputs must be one flat row of 1 numbers, got 0.3"),
        ({"inputs": ["a"]}, r"inputs must be one flat row of 1 numbers, got \['a'\]"),
    ],
)
def test_export_wrong_numbers_are_refused_by_name(convert, numbers, message):
    with pytest.raises(InputError, match=message):
        convert(SMALL, **numbers)


@pytest.mark.parametrize("convert", [to_qasm3, to_qiskit, to_pennylane])
def test_export_invalid_measured_qubits_are_refused_by_name(convert):
    with pytest.raises(CircuitError, match="qubit 2 cannot be measured"):
        convert(SMALL, measured=(0, 2))
    with pytest.raises(CircuitError, match="measured twice"):
        convert(SMALL, measured=(1, 1))


def test_export_accepts_tensors_that_require_gradients():
    weights = torch.tensor([0.25, -0.5], requires_grad=True)
    assert angle_values(SMALL, weights) == {Angle("weight", 0): 0.25, Angle("weight", 1): -0.5}
    assert angle_values(SMALL, inputs=(number for number in [1])) == {Angle("input", 0): 1.0}
    assert angle_values(SMALL) == {}


@pytest.mark.parametrize(
    ("package", "convert", "extra"),
    [("qiskit", to_qiskit, "hardware"), ("pennylane", to_pennylane, "pennylane")],
)
def test_export_without_package_names_extra(monkeypatch, package, convert, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs a package .*: pip install 'ketfit\[{extra}\]'"):
        convert(SMALL)
    assert to_qasm3(SMALL, measured=(1, 0)) == SMALL_QASM


def _node(circuit: Circuit, measured: tuple[int, ...]) -> qml.QNode:
    return qml.QNode(to_pennylane(circuit, measured), qml.device("default.qubit", wires=circuit.n_qubits))
