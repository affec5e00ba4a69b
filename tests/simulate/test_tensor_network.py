from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ketfit import expectation
from ketfit.circuit import Circuit, Gate
from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.gate import GATES
from ketfit.errors import CircuitError, InputError, InsufficientMemoryError, MissingExtraError
from ketfit.simulate.tensor_network import network_expectation, plan_contraction
from tests.circuits import random_angles, random_circuit
from tests.circuits_of_any_kind import random_general_circuit


def by_statevector(circuit, weights, inputs, qubits):
    return expectation(circuit, torch.tensor(weights), torch.tensor(inputs)[None], qubits=qubits)[0].numpy()


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(4, 40), st.integers(0, 10**6), st.data())
def test_network_expectation_random_circuit_matches_statevector(n_qubits, n_gates, seed, data):
    circuit = random_circuit(n_qubits, n_gates, seed)
    qubits = data.draw(st.lists(st.integers(0, n_qubits - 1), min_size=1, max_size=3, unique=True))
    weights, inputs = random_angles(circuit, seed)
    found = network_expectation(circuit, weights, inputs, qubits)
    np.testing.assert_allclose(found, by_statevector(circuit, weights, inputs, qubits), atol=1e-10)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5, 7])
def test_network_expectation_of_any_gates_matches_statevector(n_qubits):
    for seed in range(3):
        circuit = random_general_circuit(n_qubits, 6 * n_qubits, seed)
        weights, inputs = random_angles(circuit, seed)
        qubits = tuple(range(n_qubits))
        found = network_expectation(circuit, weights, inputs, qubits)
        np.testing.assert_allclose(found, by_statevector(circuit, weights, inputs, qubits), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [name for name, gate in GATES.items() if gate.n_qubits])
def test_network_expectation_of_each_gate_matches_statevector(name):
    kind = GATES[name]
    start = [Gate("u", q, [0.4 + q, 1.0, 2.0]) for q in range(3)]
    gate = Gate(name, tuple(range(kind.n_qubits))[::-1], [0.7 + k for k in range(kind.n_parameters)])
    circuit = Circuit.from_gates(3, [*start, gate, *(Gate("h", q) for q in range(3))])
    found = network_expectation(circuit, [], None, (0, 1, 2))
    expected = expectation(circuit, torch.zeros(0, dtype=torch.float64), qubits=(0, 1, 2))[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_plan_of_complex_gates_counts_sixteen_bytes():
    real, other = (Circuit.from_gates(2, [Gate(name, 0), Gate("cx", (0, 1))]) for name in ("h", "sx"))
    assert (plan_contraction(real, 1).itemsize, plan_contraction(other, 1).itemsize) == (8, 16)
    assert plan_contraction(other, 1).bytes_needed == 16 * plan_contraction(other, 1).peak


@pytest.mark.parametrize(
    "shape", [(6, 1, 1, 1, 2), (8, 2, 1, 1, 1), (12, 1, 1, 2, 1), (20, 1, 1, 1, 1), (20, 1, 1, 3, 1)]
)
def test_network_expectation_paper_circuit_matches_statevector(shape):
    circuit = reuploading_circuit(*shape)
    weights, inputs = random_angles(circuit, 1)
    np.testing.assert_allclose(
        network_expectation(circuit, weights, inputs), by_statevector(circuit, weights, inputs, (0,)), atol=1e-6
    )


def test_plan_width_is_independent_of_qubits():
    narrow, wide = (plan_contraction(reuploading_circuit(n, 1, 1, 1, 1)) for n in (30, 90))
    assert wide.largest <= 4 * narrow.largest
    assert wide.largest < 2**14
    assert wide.multiplications < 5 * narrow.multiplications


def test_network_expectation_wide_circuit_gives_known_value():
    n = 60  # no rotation turns: the state stays |0...0>, and a half turn of input 0 goes once around the ring
    circuit = reuploading_circuit(n, 1, 1, 1, 1)
    still, turned = np.zeros(n), np.zeros(n)
    turned[0] = np.pi
    weights = np.zeros(circuit.n_weights)
    assert network_expectation(circuit, weights, still)[0] == pytest.approx(1)
    bits = [1] + [0] * (n - 1)
    for gate in circuit.gates:
        if gate.control is not None:
            bits[gate.target] ^= bits[gate.control]
    for qubit in (0, 7, n - 1):
        assert network_expectation(circuit, weights, turned, (qubit,))[0] == pytest.approx(1 - 2 * bits[qubit])


def test_plan_contraction_is_deterministic():
    plans = [plan_contraction(reuploading_circuit(10, 1, 1, 2, 2)) for _ in range(2)]
    assert plans[0].multiplications == plans[1].multiplications
    assert plans[0].path == plans[1].path


def test_memory_too_small_raises_before_contraction(monkeypatch):
    circuit = reuploading_circuit(12, 1, 1, 2, 2)
    weights, inputs = random_angles(circuit, 0)
    need = plan_contraction(circuit).bytes_needed
    monkeypatch.setattr("ketfit.simulate.tensor_network._contract", lambda *_: pytest.fail("it started"))
    with pytest.raises(InsufficientMemoryError, match=r"needs .* and .* are available"):
        network_expectation(circuit, weights, inputs, memory=need - 1)


def test_invalid_arguments_raise_errors():
    circuit = reuploading_circuit(4, 1, 1, 1, 1)
    weights, inputs = random_angles(circuit, 0)
    with pytest.raises(InputError, match="reads 4 inputs"):
        network_expectation(circuit, weights)
    with pytest.raises(InputError, match="weights"):
        network_expectation(circuit, weights[1:], inputs)
    with pytest.raises(CircuitError, match="9"):
        network_expectation(circuit, weights, inputs, (9,))


def test_missing_cotengra_raises_missing_extra_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cotengra", None)
    with pytest.raises(MissingExtraError, match=r"ketfit\[network\]"):
        plan_contraction(reuploading_circuit(4, 1, 1, 1, 1))


def test_untouched_qubit_has_expectation_one():
    assert network_expectation(Circuit(3, (), 0, 0), [])[0] == 1


@pytest.mark.slow
def test_network_expectation_wide_circuit_matches_quimb():
    from quimb.tensor import Circuit as QuimbCircuit

    circuit = reuploading_circuit(24, 1, 1, 1, 1)
    weights, inputs = random_angles(circuit, 3)
    values = {"weight": weights, "input": inputs}
    theirs = QuimbCircuit(24)
    for gate in circuit.light_cone((0,)).gates:
        if gate.angle is None:
            theirs.apply_gate("CX", gate.control, gate.target)
        else:
            theirs.apply_gate("RY", values[gate.angle.source][gate.angle.index], gate.target)
    expected = theirs.local_expectation(np.diag([1.0, -1.0]), (0,), optimize="greedy")
    assert network_expectation(circuit, weights, inputs)[0] == pytest.approx(np.real(expected), abs=1e-9)
