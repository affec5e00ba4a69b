from __future__ import annotations

import math
import re
from itertools import pairwise

import pennylane as qml
import pytest
import torch

from ketfit import expectation
from ketfit.circuit import (
    Angle,
    Circuit,
    Gate,
    ansatz_layers,
    cx,
    data_reuploading,
    encoder_circuit,
    reuploading_circuit,
    ring_layers,
    ry,
)
from ketfit.circuit.ansatz import ansatz_size
from ketfit.circuit.circuit import gate_angles
from ketfit.errors import CircuitError

# Q=4, L=3, C=2, read off the figure: CXab has control a and target b, RYb(tk) is RY(theta_k) on b.
FIGURE_3 = """
CX01 RY1(t0)   CX12 RY2(t1)   CX23 RY3(t2)   CX30 RY0(t3)
CX02 RY2(t4)   CX13 RY3(t5)   CX20 RY0(t6)   CX31 RY1(t7)
RY0(t8)        RY1(t9)        RY2(t10)       RY3(t11)
CX01 RY1(t12)  CX12 RY2(t13)  CX23 RY3(t14)  CX30 RY0(t15)
CX02 RY2(t16)  CX13 RY3(t17)  CX20 RY0(t18)  CX31 RY1(t19)
CX01 RY1(t20)  CX12 RY2(t21)  CX23 RY3(t22)  CX30 RY0(t23)
CX02 RY2(t24)  CX13 RY3(t25)  CX20 RY0(t26)  CX31 RY1(t27)
"""
# Q=5, C=2, the ten blocks of one layer as (control, target).
FIGURE_2 = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (1, 3), (2, 4), (3, 0), (4, 1)]


def test_ring_layers_equal_figure_3_gate_by_gate():
    gates = [_read(word) for word in FIGURE_3.split()]
    assert len(gates) == 24 + 28
    assert ring_layers(4, 3, 2) == Circuit(4, tuple(gates), n_weights=28, n_inputs=0)


def test_ring_layers_without_rotation_layer_have_24_weights():
    with_wall, without = ring_layers(4, 3, 2), ring_layers(4, 3, 2, rotation_layer=False)
    assert without.n_weights == 24
    assert _shape(without.gates) == _shape(with_wall.gates[:16] + with_wall.gates[20:])
    assert _weights(without) == list(range(24))


def test_ring_layers_equal_figure_2_block_by_block():
    gates = [gate for k, (a, b) in enumerate(FIGURE_2) for gate in (cx(a, b), ry(b, Angle("weight", k)))]
    assert ring_layers(5, 1, 2, rotation_layer=False).gates == tuple(gates)
    wall = tuple(ry(qubit, Angle("weight", 10 + qubit)) for qubit in range(5))
    assert ring_layers(5, 1, 2).gates == (*gates, *wall)


@pytest.mark.parametrize("n_qubits", [2, 3, 4, 7])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_ring_layers_have_expected_counts(n_qubits, layers):
    for connectivity in range(1, n_qubits):
        circuit = ring_layers(n_qubits, layers, connectivity)
        assert circuit.n_weights == n_qubits * (connectivity * layers + 1)
        assert circuit.gate_counts() == {"ry": circuit.n_weights, "cx": n_qubits * connectivity * layers}
        assert circuit.n_inputs == 0
        assert _weights(circuit) == list(range(circuit.n_weights))
        bare = ring_layers(n_qubits, layers, connectivity, rotation_layer=False)
        assert bare.n_weights == n_qubits * connectivity * layers


def test_ring_layers_of_zero_layers_are_empty():
    assert ring_layers(3, 0, 2) == Circuit(3, (), 0, 0)
    uploads = (ry(0, Angle("input", 0)), ry(1, Angle("input", 1)))
    assert reuploading_circuit(2, 2, 0, 0, 1) == Circuit(2, uploads * 2, 0, 2)
    main_only = reuploading_circuit(2, 1, 0, 1, 1)
    assert main_only.gates == uploads + ring_layers(2, 1, 1).gates


def test_encoder_circuit_is_ring_ansatz():
    assert encoder_circuit(4, 2, 3) == ring_layers(4, 2, 3)
    assert encoder_circuit(4, 2, 3, rotation_layer=False) == ring_layers(4, 2, 3, rotation_layer=False)


@pytest.mark.parametrize("wall", [True, False])
def test_reuploading_tied_shares_weights(wall):
    circuit = reuploading_circuit(3, 2, 1, 2, 1, rotation_layer=wall)
    block, main = ring_layers(3, 1, 1, wall), ring_layers(3, 2, 1, wall)
    uploads = tuple(ry(qubit, Angle("input", qubit)) for qubit in range(3))
    expected = uploads + block.gates + uploads + block.gates + _shifted(main, block.n_weights)
    assert circuit == Circuit(3, expected, n_weights=block.n_weights + main.n_weights, n_inputs=3)


@pytest.mark.parametrize("wall", [True, False])
def test_reuploading_untied_numbers_weights_in_gate_order(wall):
    circuit = reuploading_circuit(3, 3, 1, 2, 1, tie_reuploads=False, rotation_layer=wall)
    block, main = ring_layers(3, 1, 1, wall), ring_layers(3, 2, 1, wall)
    assert circuit.n_weights == 3 * block.n_weights + main.n_weights
    assert _weights(circuit) == list(range(circuit.n_weights))
    assert _shape(circuit.gates) == _shape(reuploading_circuit(3, 3, 1, 2, 1, rotation_layer=wall).gates)


def test_reuploading_once_ignores_tying():
    assert reuploading_circuit(4, 1, 2, 3, 2, tie_reuploads=True) == reuploading_circuit(
        4, 1, 2, 3, 2, tie_reuploads=False
    )


def test_ring_layers_more_layers_append_gates():
    for shorter, longer in pairwise(ring_layers(4, layers, 2) for layers in range(5)):
        assert longer.gates[: len(shorter.gates)] == shorter.gates


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ring_layers(1, 1, 1), "n_qubits=1: a ring needs at least two"),
        (lambda: ring_layers(4, 1, 0), "connectivity=0: with 4 qubits it goes from 1 to 3"),
        (lambda: ring_layers(4, 1, 4), "connectivity=4: with 4 qubits it goes from 1 to 3"),
        (lambda: ring_layers(4, -1, 1), "layers=-1: it cannot be negative"),
        (lambda: encoder_circuit(4, -2, 1), "layers=-2: it cannot be negative"),
        (lambda: reuploading_circuit(1, 1, 1, 1, 1), "n_qubits=1"),
        (lambda: reuploading_circuit(3, 1, 1, 1, 3), "connectivity=3"),
        (lambda: reuploading_circuit(3, 1, -1, 1, 1), "reupload_layers=-1: it cannot be negative"),
        (lambda: reuploading_circuit(3, 1, 1, -1, 1), "main_layers=-1: it cannot be negative"),
        (lambda: reuploading_circuit(3, 0, 1, 1, 1), "n_reuploads=0: the inputs must be loaded at least once"),
    ],
)
def test_ansatz_number_out_of_range_is_refused_by_name(build, message):
    with pytest.raises(CircuitError, match=message):
        build()


def _read(word: str) -> Gate:
    if match := re.fullmatch(r"CX(\d)(\d)", word):
        return cx(int(match[1]), int(match[2]))
    match = re.fullmatch(r"RY(\d)\(t(\d+)\)", word)
    assert match, word
    return ry(int(match[1]), Angle("weight", int(match[2])))


def _weights(circuit: Circuit) -> list[int]:
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    return [angle.index for angle in angles if angle.source == "weight"]


def _shape(gates: tuple[Gate, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(gate.name, gate.qubits) for gate in gates]


def _shifted(circuit: Circuit, by: int) -> tuple[Gate, ...]:
    return tuple(
        gate if gate.angle is None else ry(gate.target, Angle("weight", gate.angle.index + by))
        for gate in circuit.gates
    )


@pytest.mark.parametrize(("n_qubits", "layers"), [(2, 2), (4, 5)])
def test_strongly_entangling_layers_equal_pennylane(n_qubits, layers):
    circuit = ansatz_layers("strongly_entangling", n_qubits, layers, n_qubits - 1)
    weights = torch.rand(circuit.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def expected(weights):
        qml.StronglyEntanglingLayers(weights, wires=range(n_qubits))
        return [qml.expval(qml.Z(wire)) for wire in range(n_qubits)]

    values = expectation(circuit, weights, qubits=range(n_qubits))[0]
    assert values.tolist() == pytest.approx(expected(weights.reshape(layers, n_qubits, 3).numpy()), abs=1e-12)


def test_hardware_efficient_layer_is_a_line():
    (layer,) = [ansatz_layers("hardware_efficient", 3, 1, 1).gates]
    assert [gate.qubits for gate in layer if gate.name == "cx"] == [(0, 1), (1, 2)]
    assert [gate.name for gate in layer[:6]] == ["ry", "rz"] * 3
    assert _all_weights(ansatz_layers("hardware_efficient", 3, 2, 1)) == list(range(12))


def test_ising_layer_rotates_all_pairs():
    circuit = ansatz_layers("ising", 4, 1, 3)
    pairs = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    for name in ("rzz", "rxx"):
        assert {gate.qubits for gate in circuit.gates if gate.name == name} == pairs
    near = ansatz_layers("ising", 4, 1, 1)
    assert {gate.qubits for gate in near.gates if gate.name == "rxx"} == {(0, 1), (1, 2), (2, 3)}


PROGRAM = """OPENQASM 3.0; include "stdgates.inc"; input float w_0; input float w_1; qubit[2] q;
rx(2*w_0 + w_1) q[0]; rz(w_1 + pi/2) q[1]; cz q[0], q[1];"""


def test_program_layers_have_weights_of_their_own():
    circuit = ansatz_layers(PROGRAM, 2, 2)
    assert circuit.n_weights == 4
    first, second = circuit.gates[:3], circuit.gates[3:]
    assert first == Circuit.from_qasm3(PROGRAM).gates
    w = [Angle("weight", index) for index in range(4)]
    assert second[0] == Gate("rx", 0, (2 * w[2] + w[3],))
    assert second[1] == Gate("rz", 1, (w[3] + math.pi / 2,))
    assert second[2] == first[2]


@pytest.mark.parametrize("ansatz", ["ring", "strongly_entangling", "hardware_efficient", "ising", PROGRAM])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_ansatz_size_equals_the_circuit(ansatz, layers):
    n_qubits = 2 if ansatz == PROGRAM else 4
    circuit = ansatz_layers(ansatz, n_qubits, layers, n_qubits - 1)
    assert ansatz_size(ansatz, n_qubits, layers, n_qubits - 1) == (circuit.n_weights, len(circuit.gates))
    assert sorted(set(_all_weights(circuit))) == list(range(circuit.n_weights))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_data_reuploading_loads_about_the_axis(axis):
    block = ansatz_layers("ising", 2, 1, 1)
    circuit = data_reuploading(2, block, block, tie_reuploads=False, angle_axis=axis)
    loading = [gate for gate in circuit.gates if gate.parameters and gate_angles(gate)[0].source == "input"]
    assert [(gate.name, gate.qubits) for gate in loading] == 2 * [(f"r{axis}", (0,)), (f"r{axis}", (1,))]
    assert circuit.gate_counts().get("h", 0) == (4 if axis == "z" else 0)
    assert (circuit.n_weights, circuit.n_inputs) == (3 * block.n_weights, 2)
    inputs = torch.tensor([[0.3, 0.4], [0.5, 0.9]], dtype=torch.float64)
    values = expectation(circuit, torch.zeros(circuit.n_weights, dtype=torch.float64), inputs, qubits=(0, 1))
    if axis != "z":
        assert values.allclose((2 * inputs).cos())
    else:
        assert (values[0] - values[1]).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_reuploads": 0}, "the inputs must be loaded at least once"),
        ({"angle_axis": "xy"}, "unknown angle_axis='xy'; known are x, y, z"),
        ({"main": ring_layers(3, 1, 1)}, "PQC1 on 2 and PQC2 on 3 qubits must be circuits of weights"),
        ({"main": reuploading_circuit(2, 1, 1, 1, 1)}, "must be circuits of weights"),
    ],
)
def test_data_reuploading_wrong_arguments_are_refused(change, message):
    arguments = {"n_reuploads": 1, "reupload": ring_layers(2, 1, 1), "main": ring_layers(2, 1, 1), **change}
    with pytest.raises(CircuitError, match=message):
        data_reuploading(**arguments)


def test_program_with_wrong_numbers_is_refused():
    with pytest.raises(CircuitError, match="layers=-1: it cannot be negative"):
        ansatz_layers(PROGRAM, 2, -1)
    with pytest.raises(CircuitError, match="layers"):
        ansatz_size(PROGRAM, 2, 1.5)


def _all_weights(circuit):
    return [angle.index for gate in circuit.gates for angle in gate_angles(gate)]
