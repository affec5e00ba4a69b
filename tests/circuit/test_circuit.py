from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from ketfit.circuit import Angle, Circuit, cx, reuploading_circuit, ring_layers, ry
from ketfit.circuit.export import to_qiskit
from ketfit.errors import CircuitError, KetFitError
from tests.circuits import random_angles, random_circuit, reference_expectation, reference_state

W0 = Angle("weight", 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Angle("bias", 0), "comes from 'weight' or 'input', not from 'bias'"),
        (lambda: Angle("weight", -1), "starts at 0, got -1"),
        (lambda: cx(2, 2), "different qubits, got 2 twice"),
        (lambda: Circuit(0, (), 0, 0), "at least one qubit, got n_qubits=0"),
        (lambda: Circuit(2, (cx(0, 1), ry(2, W0)), 1, 0), r"gate 1 \(ry\) acts on qubit 2; the qubits are 0 to 1"),
        (lambda: Circuit(2, (cx(3, 1),), 0, 0), r"gate 0 \(cx\) acts on qubit 3"),
        (lambda: Circuit(2, (cx(0, -1),), 0, 0), r"gate 0 \(cx\) acts on qubit -1"),
        (lambda: Circuit(1, (ry(0, W0),), 0, 0), r"reads weight 0; the circuit has n_weights=0"),
        (lambda: Circuit(1, (ry(0, Angle("input", 3)),), 9, 3), r"reads input 3; the circuit has n_inputs=3"),
        (lambda: Circuit.from_gates(1, [ry(0, W0), ry(0, Angle("weight", 2))]), "no gate uses weight 1"),
        (lambda: Circuit.from_gates(1, [ry(0, Angle("input", 1))]), "no gate uses input 0"),
        (lambda: ring_layers(3, 1, 1).light_cone([]), "at least one qubit to measure"),
        (lambda: ring_layers(3, 1, 1).light_cone([3]), "qubit 3 cannot be measured; .* qubits 0 to 2"),
        (lambda: ring_layers(3, 1, 1).check_qubits([-1]), "qubit -1 cannot be measured"),
        (lambda: ring_layers(3, 1, 1).check_qubits(iter([1, 0, 1])), r"measured twice in \(1, 0, 1\)"),
    ],
)
def test_circuit_invalid_parts_are_refused_by_name(build, message):
    with pytest.raises(CircuitError, match=message) as caught:
        build()
    assert isinstance(caught.value, KetFitError)
    assert isinstance(caught.value, ValueError)


def test_circuit_is_frozen():
    circuit = ring_layers(3, 1, 1)
    with pytest.raises(FrozenInstanceError):
        circuit.n_qubits = 4
    with pytest.raises(FrozenInstanceError):
        circuit.gates[0].qubits = (2, 0)
    with pytest.raises(FrozenInstanceError):
        W0.index = 1


def test_circuit_gates_of_any_iterable_become_tuple():
    gates = [ry(0, W0), cx(0, 1)]
    assert Circuit(2, gates, 1, 0) == Circuit.from_gates(2, iter(gates))
    assert Circuit(2, gates, 1, 0).gates == tuple(gates)
    assert [gate.qubits for gate in gates] == [(0,), (0, 1)]


def test_circuit_equal_content_has_equal_hash():
    first, second = ring_layers(4, 2, 2), ring_layers(4, 2, 2)
    assert first == second
    assert first is not second
    assert hash(first) == hash(second)
    assert len({first, second, ring_layers(4, 2, 1)}) == 2


def test_circuit_with_other_field_differs():
    circuit = ring_layers(3, 1, 1)
    others = [
        replace(circuit, n_qubits=4),
        replace(circuit, gates=circuit.gates[:-1]),
        replace(circuit, n_weights=circuit.n_weights + 1),
        replace(circuit, n_inputs=1),
    ]
    assert len({circuit, *others}) == 5


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda circuit: pickle.loads(pickle.dumps(circuit))])
def test_circuit_copy_is_equal(duplicate):
    circuit = ring_layers(3, 1, 1)
    hash(circuit)
    assert duplicate(circuit) == circuit
    assert hash(duplicate(circuit)) == hash(circuit)


def test_circuit_pickle_from_other_hash_seed_has_own_hash():
    program = (
        "import pickle, sys; from ketfit.circuit import reuploading_circuit\n"
        "circuit = reuploading_circuit(3, 2, 1, 1, 2); hash(circuit)\n"
        "sys.stdout.buffer.write(pickle.dumps((circuit, hash(circuit))))"
    )
    circuit = reuploading_circuit(3, 2, 1, 1, 2)
    foreign_hashes = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
        loaded, foreign_hash = pickle.loads(done.stdout)
        foreign_hashes.add(foreign_hash)
        assert loaded == circuit
        assert hash(loaded) == hash(circuit)
        assert {circuit: "found"}[loaded] == "found"
    assert len(foreign_hashes) == 2, "the two processes hash strings alike, so this test showed nothing"


@pytest.mark.parametrize("seed", range(20))
def test_depth_and_gate_counts_equal_qiskit(seed):
    circuit = random_circuit(n_qubits=1 + seed % 6, n_gates=5 + 3 * seed, seed=seed)
    converted = to_qiskit(circuit)
    assert circuit.depth() == converted.depth()
    assert {name: count for name, count in circuit.gate_counts().items() if count} == dict(converted.count_ops())


def test_depth_of_empty_circuit_is_zero():
    circuit = Circuit.from_gates(2, [])
    assert circuit.depth() == 0
    assert circuit.gate_counts() == {"ry": 0, "cx": 0}
    assert circuit.light_cone([1]) == circuit


@pytest.mark.parametrize("seed", range(40))
def test_light_cone_keeps_measured_expectations(seed):
    circuit, qubits = _circuit_and_subset(seed)
    cone = circuit.light_cone(qubits)
    weights, inputs = random_angles(circuit, seed)
    for initial in (None, _random_state(circuit.n_qubits, seed)):
        whole = reference_expectation(reference_state(circuit, weights, inputs, initial), qubits)
        part = reference_expectation(reference_state(cone, weights, inputs, initial), qubits)
        np.testing.assert_allclose(part, whole, rtol=0, atol=1e-12)
    assert (cone.n_qubits, cone.n_weights, cone.n_inputs) == (circuit.n_qubits, circuit.n_weights, circuit.n_inputs)
    assert cone.light_cone(qubits) == cone
    assert len(cone.gates) <= len(circuit.gates)


@pytest.mark.parametrize("seed", range(15))
def test_light_cone_dropped_gate_has_no_influence(seed):
    circuit, qubits = _circuit_and_subset(seed)
    circuit = _one_weight_for_each_rotation(circuit)
    weights, _ = random_angles(circuit, seed)
    initial = _random_state(circuit.n_qubits, seed)
    expected = reference_expectation(reference_state(circuit, weights, [], initial), qubits)
    kept = iter(circuit.light_cone(qubits).gates)
    following = next(kept, None)
    for place, gate in enumerate(circuit.gates):
        if gate == following:
            following = next(kept, None)
            continue
        changed, without = weights.copy(), circuit
        if gate.angle is None:
            without = replace(circuit, gates=circuit.gates[:place] + circuit.gates[place + 1 :])
        else:
            changed[gate.angle.index] += 1.0
        actual = reference_expectation(reference_state(without, changed, [], initial), qubits)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert following is None


def test_light_cone_of_random_circuits_drops_gates():
    dropped = 0
    for seed in range(40):
        circuit, qubits = _circuit_and_subset(seed)
        dropped += len(circuit.gates) - len(circuit.light_cone(qubits).gates)
    assert dropped > 50


def test_light_cone_of_paper_circuit_is_smaller():
    circuit = reuploading_circuit(10, 2, 2, 3, 2)
    cone = circuit.light_cone([0])
    assert circuit.gate_counts() == {"ry": 190, "cx": 140}
    assert cone.gate_counts() == {"ry": 185, "cx": 135}
    assert (cone.n_weights, cone.n_inputs) == (circuit.n_weights, circuit.n_inputs)


@pytest.mark.parametrize(
    ("gates", "measured", "kept"),
    [
        ([cx(0, 1)], 0, []),  # Z on the control commutes with a CNOT
        ([cx(0, 1)], 1, [0]),
        ([cx(0, 1), ry(0, W0)], 0, [0, 1]),  # but not once a rotation has turned it
        ([ry(1, W0), cx(0, 1), cx(0, 2)], 0, []),
        ([ry(1, W0), cx(0, 1), ry(0, W0)], 0, [0, 1, 2]),
        ([cx(1, 2), cx(0, 1), ry(0, W0)], 0, [0, 1, 2]),
        ([ry(0, W0), ry(2, W0), cx(0, 1)], 1, [0, 2]),
    ],
)
def test_light_cone_equals_hand_made_example(gates, measured, kept):
    circuit = Circuit(3, gates, 1, 0)
    assert circuit.light_cone([measured]).gates == tuple(gates[place] for place in kept)


def test_circuit_import_loads_neither_torch_nor_numpy():
    program = (
        "import sys\n"
        "from ketfit.circuit import reuploading_circuit\n"
        "from ketfit.circuit.drawing.text import draw_text\n"
        "from ketfit.circuit.export import to_qasm3\n"
        "circuit = reuploading_circuit(4, 1, 1, 2, 2)\n"
        "assert hash(circuit.light_cone([0])) and circuit.depth() and draw_text(circuit) and to_qasm3(circuit)\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'qiskit', 'pennylane'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _circuit_and_subset(seed: int) -> tuple[Circuit, tuple[int, ...]]:
    rng = random.Random(seed)
    n_qubits = rng.randint(1, 5)
    circuit = random_circuit(n_qubits, n_gates=rng.randint(3, 30), seed=seed)
    return circuit, tuple(rng.sample(range(n_qubits), rng.randint(1, (n_qubits + 1) // 2)))


def _random_state(n_qubits: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    state = rng.normal(size=2**n_qubits) + 1j * rng.normal(size=2**n_qubits)
    return state / np.linalg.norm(state)


def _one_weight_for_each_rotation(circuit: Circuit) -> Circuit:
    gates, n_weights = [], 0
    for gate in circuit.gates:
        if gate.angle is None:
            gates.append(gate)
        else:
            gates.append(ry(gate.target, Angle("weight", n_weights)))
            n_weights += 1
    return Circuit.from_gates(circuit.n_qubits, gates)
