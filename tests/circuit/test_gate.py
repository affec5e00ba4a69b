from __future__ import annotations

import math
import pickle
from functools import partial

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import GlobalPhaseGate
from qiskit.quantum_info import Operator

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.gate import GATES
from ketfit.errors import CircuitError
from tests.circuits_of_any_kind import (
    random_general_circuit,
    random_unitary,
    reference_statevector,
)

W0 = Angle("weight", 0)
ANGLES = (0.83, -2.1, 5.7)
NAMES = tuple(GATES)
PENNYLANE = {
    "x": qml.PauliX, "y": qml.PauliY, "z": qml.PauliZ, "h": qml.Hadamard, "s": qml.S, "t": qml.T, "sx": qml.SX,
    "rx": qml.RX, "ry": qml.RY, "rz": qml.RZ, "p": qml.PhaseShift, "u": qml.U3, "cx": qml.CNOT, "cy": qml.CY,
    "cz": qml.CZ, "ch": qml.CH, "swap": qml.SWAP, "iswap": qml.ISWAP, "crx": qml.CRX, "cry": qml.CRY, "crz": qml.CRZ,
    "cp": qml.ControlledPhaseShift, "rxx": qml.IsingXX, "ryy": qml.IsingYY, "rzz": qml.IsingZZ, "ccx": qml.Toffoli,
}  # fmt: skip


def numbers(name: str) -> tuple[float, ...]:
    return ANGLES[: GATES[name].n_parameters]


@pytest.mark.parametrize("name", NAMES)
def test_matrix_of_gate_equals_qiskit(name):
    kind = GATES[name]
    theirs = QuantumCircuit(kind.n_qubits)
    if name == "gphase":
        theirs.append(GlobalPhaseGate(ANGLES[0]), [])
    else:
        getattr(theirs, name)(*numbers(name), *range(kind.n_qubits))
    wanted = Operator(theirs).reverse_qargs().data
    np.testing.assert_allclose(np.array(kind.matrix(*numbers(name))), wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", PENNYLANE)
def test_matrix_of_gate_equals_pennylane(name):
    kind = GATES[name]
    operation = PENNYLANE[name](*numbers(name), wires=range(kind.n_qubits))
    wanted = qml.matrix(operation, wire_order=range(kind.n_qubits))
    np.testing.assert_allclose(np.array(kind.matrix(*numbers(name))), wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_is_real_equals_matrix_at_many_angles(name):
    kind = GATES[name]
    rng = np.random.default_rng(0)
    matrices = [np.array(kind.matrix(*rng.uniform(-7, 7, kind.n_parameters))) for _ in range(5)]
    assert kind.is_real == all((matrix.imag == 0).all() for matrix in matrices)
    qubits = tuple(range(kind.n_qubits))
    gate = Gate(name, qubits, numbers(name))
    assert gate.is_real == kind.is_real
    for qubit in qubits:
        z = np.diag(1.0 - 2.0 * (np.arange(2**kind.n_qubits) >> (kind.n_qubits - 1 - qubit) & 1))
        commutes = all(np.allclose(matrix @ z, z @ matrix) for matrix in matrices)
        assert (qubit in gate.diagonal_qubits) == commutes
    assert gate.permutes_basis == all((np.count_nonzero(matrix, axis=0) == 1).all() for matrix in matrices)


@pytest.mark.parametrize("name", [*GATES, "unitary"])
def test_inverse_has_the_adjoint_matrix(name):
    if name == "unitary":
        gate = Gate(name, (1, 0), matrix=random_unitary(2, 3))
    else:
        gate = Gate(name, tuple(range(GATES[name].n_qubits)), numbers(name))
    inverse = gate.inverse()
    assert inverse.qubits == gate.qubits
    mine, other = (np.array(each.matrix_at(*each.parameters)) for each in (inverse, gate))
    np.testing.assert_allclose(mine, other.conj().T, rtol=0, atol=1e-15)


def test_inverse_of_weights_and_inputs_has_negative_angles():
    assert Gate("rx", 0, [W0]).inverse() == Gate("rx", 0, [-1 * W0])
    assert Gate("u", 0, [W0, 0.5, 2 * W0]).inverse() == Gate("u", 0, [-1 * W0, -2 * W0, -0.5])
    assert Gate("sx", 0).inverse().name == "unitary"


def test_general_circuit_is_one_frozen_value():
    one, other = (random_general_circuit(4, 40, seed=1) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != random_general_circuit(4, 40, seed=2)
    assert sum(one.gate_counts().values()) == 40
    assert list(one.gate_counts())[:2] == ["ry", "cx"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gate("foo", 0), r"unknown gate 'foo'; known are 'x', .*'unitary'"),
        (lambda: Gate(["x"], 0), "unknown gate"),
        (lambda: Gate("ry", 0), "gate 'ry' has 1 angle, got 0"),
        (lambda: Gate("ry", (0, 1), (W0,)), "gate 'ry' has 1 qubit, got 2"),
        (lambda: Gate("h", 0, (W0,)), "gate 'h' has 0 angles, got 1"),
        (lambda: Gate("cx", 0), "gate 'cx' has 2 qubits, got 1"),
        (lambda: Gate("cx", (1, np.int64(1))), "gate 'cx' needs different qubits, got 1 twice"),
        (lambda: Gate("rx", 0, W0), "pass a sequence of angles"),
        (lambda: Gate("rx", 0, "1"), "pass a sequence of angles"),
        (lambda: Gate("rx", 0, ("1",)), "angle 0 of gate 'rx'='1': an angle is"),
        (lambda: Gate("rx", 0, (math.nan,)), "use finite numbers"),
        (lambda: Gate("x", "0"), "qubit='0': it must be a whole number"),
        (lambda: Gate("x", 0.0), "qubit=0.0: it must be a whole number"),
        (lambda: Gate("x", (0.0,)), r"qubits\[0\]=0.0: it must be a whole number"),
        (lambda: Gate("x", 0, matrix=np.eye(2)), "has no matrix of its own"),
        (lambda: Gate("unitary", 0), "needs a matrix"),
        (lambda: Gate("unitary", (), matrix=[[1]]), "acts on one to 3 qubits, got 0"),
        (lambda: Gate("unitary", range(4), matrix=np.eye(16)), "acts on one to 3 qubits, got 4"),
        (lambda: Gate("unitary", (0, 1), matrix=np.eye(2)), r"has shape \(2, 2\); on 2 qubits it is \(4, 4\)"),
        (lambda: Gate("unitary", 0, matrix=[[1, 0], [0, 1.001]]), "is not unitary: the product of its rows 1 and 1"),
        (lambda: Gate("unitary", 0, matrix=[[1, 0], [0, math.nan]]), "not finite"),
        (lambda: Gate("unitary", 0, matrix="x"), "must be 2 rows of 2 numbers"),
        (lambda: Gate("unitary", 0, matrix=7), "must be 2 rows of 2 numbers"),
        (lambda: Gate("unitary", 0, (0.1,), np.eye(2)), "gate 'unitary' has 0 angles, got 1"),
        (lambda: Circuit(1, (Gate("rx", 0, (2 * W0,)),), 0, 0), "reads weight 0; the circuit has n_weights=0"),
        (lambda: Circuit(2, (Gate("ccx", (0, 1, 2)),), 0, 0), r"gate 0 \(ccx\) acts on qubit 2"),
        (lambda: Circuit.from_gates(1, [Gate("p", 0, (Angle("input", 1) + 1,))]), "no gate uses input 0"),
    ],
)
def test_gate_invalid_parts_are_refused_by_name(build, message):
    with pytest.raises(CircuitError, match=message):
        build()


@pytest.mark.parametrize("reader", ["target", "control", "angle"])
@pytest.mark.parametrize(
    "gate", [Gate("h", 0), Gate("crx", (0, 1), (W0,)), Gate("ry", 0, (0.5,)), Gate("gphase", (), (1,))]
)
def test_readers_of_ry_and_cnot_refuse_other_gates(gate, reader):
    with pytest.raises(CircuitError, match=f"gate '{gate.name}' has no '{reader}'"):
        getattr(gate, reader)


def test_readers_of_ry_and_cnot_stay():
    rotation, cnot = Gate("ry", 2, (W0,)), Gate("cx", (1, 0))
    assert (rotation.name, rotation.target, rotation.control, rotation.angle) == ("ry", 2, None, W0)
    assert (cnot.name, cnot.target, cnot.control, cnot.angle, cnot.qubits) == ("cx", 0, 1, None, (1, 0))


@pytest.mark.parametrize(
    "array", [np.array, partial(torch.tensor, dtype=torch.complex128), lambda rows: [list(row) for row in rows]]
)
def test_unitary_of_any_array_is_one_value(array):
    rows = random_unitary(2, 5).tolist()
    gate = Gate("unitary", torch.tensor([1, 0]), matrix=array(rows))
    assert gate == Gate("unitary", (1, 0), matrix=rows)
    assert hash(gate) == hash(Gate("unitary", (1, 0), matrix=rows))
    assert gate.qubits == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_light_cone_of_general_circuit_keeps_expectations(seed):
    rng = np.random.default_rng(seed)
    n_qubits = 1 + seed % 5
    circuit = random_general_circuit(n_qubits, int(rng.integers(3, 25)), seed)
    qubits = tuple(rng.permutation(n_qubits)[: 1 + n_qubits // 3].tolist())
    weights, inputs = rng.uniform(-3, 3, circuit.n_weights), rng.uniform(-3, 3, circuit.n_inputs)
    initial = rng.normal(size=(2**n_qubits, 2)) @ [1, 1j]
    cone = circuit.light_cone(qubits)
    one, other = (
        np.abs(reference_statevector(each, weights, inputs, initial).reshape([2] * n_qubits)) ** 2
        for each in (circuit, cone)
    )
    rest = tuple(qubit for qubit in range(n_qubits) if qubit not in qubits)
    np.testing.assert_allclose(one.sum(axis=rest), other.sum(axis=rest), rtol=0, atol=1e-12)
    assert cone.light_cone(qubits) == cone


def test_light_cone_of_general_circuits_drops_gates():
    circuits = [random_general_circuit(5, 20, seed) for seed in range(20)]
    assert sum(len(circuit.gates) - len(circuit.light_cone((0,)).gates) for circuit in circuits) > 50


@pytest.mark.parametrize(
    ("gates", "kept"),
    [
        ([Gate("rz", 0, (W0,)), Gate("cz", (0, 1)), Gate("gphase", (), (1.0,))], []),
        ([Gate("h", 1), Gate("crx", (0, 1), (W0,))], []),
        ([Gate("crx", (1, 0), (W0,)), Gate("h", 1)], [0]),
        ([Gate("rzz", (0, 1), (W0,)), Gate("h", 0)], [0, 1]),
        ([Gate("rz", 1, (W0,)), Gate("swap", (0, 1))], [1]),
    ],
)
def test_light_cone_of_general_gates_equals_hand_made_example(gates, kept):
    assert Circuit(2, gates, 1, 0).light_cone([0]).gates == tuple(gates[place] for place in kept)
