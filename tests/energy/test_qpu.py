"""Tests of the gate counts and the cost of circuits on a QPU."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketfit.circuit import Angle, Circuit, Gate, cx, ry
from ketfit.circuit.ansatz import ansatz_layers, reuploading_circuit
from ketfit.circuit.export import to_qiskit
from ketfit.energy.profiles import QpuProfile, load_profile, profile_names
from ketfit.energy.qpu import NativeGates, native_gates, qpu_cost
from ketfit.energy.quantities import Assumed, Modelled
from ketfit.errors import InputError
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import random_unitary

BASES = {"zz": ["cz", "rz", "sx", "x"], "ms": ["rxx", "rz", "sx", "x"]}
PAPERS = [(5, 1, 1, 2, 2), (6, 2, 1, 1, 1), (7, 1, 1, 4, 3), (4, 3, 1, 2, 2)]


@pytest.fixture
def forte() -> QpuProfile:
    return load_profile("ionq-forte", QpuProfile)


def transpiled(circuit: Circuit, entangler: str, two_qubit: str | None = None) -> NativeGates:
    """Qiskit's own count, at angles that are nothing special."""
    from qiskit import transpile

    rng = random.Random(0)
    weights = [rng.uniform(0.3, 1.2) for _ in range(circuit.n_weights)]
    inputs = [rng.uniform(0.3, 1.2) for _ in range(circuit.n_inputs)]
    basis = [two_qubit or BASES[entangler][0], *BASES[entangler][1:]]
    native = transpile(to_qiskit(circuit, weights, inputs), basis_gates=basis, optimization_level=1, seed_transpiler=0)
    counts = native.count_ops()
    return NativeGates(counts["sx"] + counts.get("x", 0), counts[basis[0]])


@pytest.mark.parametrize("shape", PAPERS)
def test_zz_gate_counts_match_qiskit(shape):
    circuit = reuploading_circuit(*shape).light_cone((0,))
    assert native_gates(circuit, "zz") == transpiled(circuit, "zz")


@pytest.mark.parametrize("shape", PAPERS)
def test_ms_gate_counts_match_qiskit_within_a_quarter(shape):
    circuit = reuploading_circuit(*shape).light_cone((0,))
    ours, theirs = native_gates(circuit, "ms"), transpiled(circuit, "ms")
    assert ours.two_qubit == theirs.two_qubit
    assert theirs.one_qubit <= ours.one_qubit <= 1.25 * theirs.one_qubit


@pytest.mark.parametrize("seed", range(5))
def test_gate_counts_of_random_circuits_match_qiskit(seed):
    circuit = random_circuit(6, 24, seed)
    theirs = transpiled(circuit, "zz")
    ours = native_gates(circuit, "zz")
    if theirs.two_qubit < ours.two_qubit:
        assert theirs.one_qubit <= ours.one_qubit
    else:
        assert ours == theirs


def test_gate_counts_match_counts_by_hand():
    w = [Angle("weight", k) for k in range(2)]
    assert native_gates(Circuit.from_gates(1, [ry(0, w[0]), ry(0, w[1])]), "zz") == NativeGates(2, 0)
    block = Circuit.from_gates(2, [cx(0, 1), ry(1, w[0])])
    assert native_gates(block, "zz") == NativeGates(1 + 2, 1)  # a Hadamard before; the one after joins the RY
    assert native_gates(block, "ms") == NativeGates(2 + 1, 1)  # the control's two; the RY comes with the quarter turn
    assert native_gates(Circuit(3, (), 0, 0), "zz") == NativeGates(0, 0)


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4), st.integers(1, 100), st.integers(1, 10**5))
def test_qpu_cost_matches_formula(seed, one_qubit, two_qubit, circuits, shots):
    profile = load_profile(random.Random(seed).choice(profile_names("qpu")), QpuProfile)
    cost = qpu_cost(NativeGates(one_qubit, two_qubit), circuits, shots, profile)
    for end in ("value", "low", "high"):
        figure = {
            name: getattr(getattr(profile, name).range, end) for name in type(profile).model_fields if "_us" in name
        }
        shot = one_qubit * figure["time_1q_us"] + two_qubit * figure["time_2q_us"]
        shot += figure["readout_us"] + figure["reset_us"] + figure["overhead_us"]
        seconds = 1e-6 * circuits * shots * shot
        assert getattr(cost.seconds, end) == pytest.approx(seconds)
        power = getattr(profile.power_watts.range, end)
        assert getattr(cost.energy.joules, end) == pytest.approx(seconds * power)


def test_one_assumed_number_makes_the_energy_assumed(forte):
    gates = NativeGates(10, 5)
    assert isinstance(qpu_cost(gates, 1, 1, forte).energy, Assumed)
    published = {name: value.updated(basis="published") for name, value in forte if name.endswith(("_us", "_watts"))}
    assert isinstance(qpu_cost(gates, 1, 1, forte.updated(**published)).energy, Modelled)


def test_assumptions_contain_only_used_numbers(forte):
    names = [assumption.name for assumption in qpu_cost(NativeGates(0, 5), 1, 1, forte).assumptions]
    assert "two-qubit gate (us)" in names
    assert "one-qubit gate (us)" not in names


def test_negative_counts_are_rejected(forte):
    with pytest.raises(InputError, match="-1"):
        NativeGates(-1, 0)
    with pytest.raises(InputError, match="-3"):
        qpu_cost(NativeGates(1, 1), 1, -3, forte)


@pytest.mark.parametrize("ansatz", ["strongly_entangling", "hardware_efficient", "ising"])
def test_gate_counts_of_other_ansaetze_match_qiskit(ansatz):
    circuit = ansatz_layers(ansatz, 4, 3, connectivity=2)
    ours, theirs = native_gates(circuit, "zz"), transpiled(circuit, "zz", "rzz" if ansatz == "ising" else "cz")
    assert ours.two_qubit == theirs.two_qubit
    assert 0.9 * theirs.one_qubit <= ours.one_qubit <= 1.1 * theirs.one_qubit


@pytest.mark.parametrize("n_qubits", [2, 3])
def test_gate_counts_of_constant_unitaries_are_near_those_of_qiskit(n_qubits):
    circuit = Circuit.from_gates(3, [Gate("unitary", range(n_qubits), matrix=random_unitary(n_qubits, 5))])
    theirs, ours = transpiled(circuit, "zz"), native_gates(circuit, "zz")
    assert theirs.two_qubit <= ours.two_qubit <= theirs.two_qubit + (n_qubits == 3)
    assert ours.one_qubit <= 1.1 * theirs.one_qubit
    assert native_gates(circuit, "ms").two_qubit == ours.two_qubit


def test_gate_counts_of_toffoli_match_qiskit():
    circuit = Circuit.from_gates(3, [Gate("ccx", (0, 1, 2)), Gate("rx", 0, [Angle("weight", 0)])])
    assert native_gates(circuit, "zz") == transpiled(circuit, "zz")
