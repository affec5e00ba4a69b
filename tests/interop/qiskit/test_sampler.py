"""Behaviours of Qiskit's StatevectorSampler, which is the oracle."""

from __future__ import annotations

import random

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit.library import real_amplitudes
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorSampler
from qiskit.providers import JobStatus
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Statevector
from qiskit.transpiler import generate_preset_pass_manager

from ketfit.interop.qiskit import KetFitSampler, QiskitCircuitError, sampler
from tests.interop.qiskit.random_circuits import PARAMETERS, random_qiskit_circuit
from tests.interop.qiskit.test_estimator import if_test, loop, reset_late
from tests.simulate.statistical_assertions import assert_frequencies


def assert_equals_qiskit(circuit: QuantumCircuit) -> None:
    """Check the bits of a circuit whose outcome is certain."""
    found, expected = (
        each.run([circuit], shots=3).result()[0].data for each in (KetFitSampler(), StatevectorSampler())
    )
    assert list(found) == list(expected)
    for register in expected:
        one, other = getattr(found, register), getattr(expected, register)
        assert (one.num_bits, one.array.shape, one.array.dtype) == (
            other.num_bits,
            other.array.shape,
            other.array.dtype,
        )
        np.testing.assert_array_equal(one.array, other.array)


@pytest.mark.parametrize("seed", range(12))
def test_outcomes_have_the_probabilities_of_the_state(seed):
    n_qubits = 1 + seed % 4
    circuit = random_qiskit_circuit(n_qubits, 10, seed)
    values = np.random.default_rng(seed).normal(size=(2, len(PARAMETERS)))
    exact = [Statevector(circuit.assign_parameters(row)).probabilities() for row in values]
    circuit.measure_all()
    bits = KetFitSampler(seed=seed).run([(circuit, values)], shots=50_000).result()[0].data.meas
    for row, probabilities in enumerate(exact):
        counts = bits.get_int_counts(row)
        merged = probabilities < 2e-4  # an outcome with fewer than 10 shots cannot be tested by itself
        observed = np.array([counts.get(outcome, 0) for outcome in range(2**n_qubits)])
        assert_frequencies(
            [*observed[~merged], observed[merged].sum()], [*probabilities[~merged], probabilities[merged].sum()]
        ) if probabilities[merged].sum() > 2e-4 else assert_frequencies(observed[~merged], probabilities[~merged])


@pytest.mark.parametrize("seed", range(20))
def test_bits_of_random_measurements_equal_qiskits(seed):
    rng = random.Random(seed)
    n_qubits = rng.randint(1, 12)
    registers = [ClassicalRegister(rng.randint(1, 10), f"c{number}") for number in range(rng.randint(1, 3))]
    circuit = QuantumCircuit(QuantumRegister(n_qubits), *registers)
    circuit.x([qubit for qubit in range(n_qubits) if rng.random() < 0.5])
    for _ in range(rng.randint(0, n_qubits + 3)):
        circuit.measure(rng.randrange(n_qubits), rng.randrange(circuit.num_clbits))
    assert_equals_qiskit(circuit)


def test_circuit_transpiled_for_a_large_machine_has_the_shots_of_the_one_that_was_written():
    circuit = QuantumCircuit(3, 3)
    circuit.ry(1.1, 0)
    circuit.cx(0, 2)
    circuit.measure([0, 1, 2], [2, 1, 0])
    backend = GenericBackendV2(127, seed=1)
    transpiled = generate_preset_pass_manager(1, backend=backend, seed_transpiler=1).run(circuit)
    one, other = (
        KetFitSampler(seed=1).run([each], shots=10_000).result()[0].data.c.get_counts()
        for each in (circuit, transpiled)
    )
    assert set(one) == set(other) == {"000", "101"}
    assert_frequencies([other["000"], other["101"]], [np.cos(0.55) ** 2, np.sin(0.55) ** 2])


def test_bits_in_two_registers_are_in_both():
    qubits, first = QuantumRegister(3), ClassicalRegister(2, "first")
    second = ClassicalRegister(name="second", bits=[first[1], first[0]])
    circuit = QuantumCircuit(qubits, first, second)
    circuit.x(0)
    circuit.measure([0, 1], first)
    assert_equals_qiskit(circuit)


def test_register_of_no_bits_is_kept():
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(0, "none"), ClassicalRegister(1, "one"))
    circuit.x(0)
    circuit.measure(0, 0)
    assert_equals_qiskit(circuit)


def test_reset_at_the_start_and_delay_at_the_end_are_ignored():
    circuit = QuantumCircuit(2)
    circuit.reset([0, 1])
    circuit.x(1)
    circuit.delay(10, 0)
    circuit.measure_all()
    assert_equals_qiskit(circuit)


def test_circuit_without_registers_warns_and_has_an_empty_result():
    with pytest.warns(UserWarning, match="a circuit has no classical register, so its result is empty"):
        result = KetFitSampler().run([QuantumCircuit(1)]).result()[0]
    assert list(result.data) == []


def test_circuit_without_measurements_has_zeros():
    circuit = QuantumCircuit(1, 2)
    circuit.h(0)
    assert KetFitSampler().run([circuit], shots=5).result()[0].data.c.get_counts() == {"00": 5}


def test_bits_of_one_shot_belong_together():
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1, "a"), ClassicalRegister(1, "b"))
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    data = KetFitSampler(seed=0).run([circuit], shots=100).result()[0].data
    np.testing.assert_array_equal(data.a.array, data.b.array)
    assert 20 < data.a.get_int_counts()[0] < 80
    assert data.a.array[:10].any() and not data.a.array[:10].all(), "the shots are not in random order"


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (0,)])
def test_result_has_the_shape_of_the_parameter_values(shape):
    circuit = real_amplitudes(2, reps=1).measure_all(inplace=False)
    values = np.zeros((*shape, 4))
    values[..., 1] = np.pi
    found, expected = (
        each.run([(circuit, values)], shots=7).result()[0] for each in (KetFitSampler(), StatevectorSampler())
    )
    assert found.data.shape == expected.data.shape == found.data.meas.shape == shape
    np.testing.assert_array_equal(found.data.meas.array, expected.data.meas.array)


def test_values_in_mappings_are_taken():
    circuit = QuantumCircuit(2)
    circuit.rx(PARAMETERS[1], 0)
    circuit.rx(PARAMETERS[0], 1)
    circuit.measure_all()
    values = {"a": [0.0, np.pi], "b": [np.pi, 0.0]}
    meas = KetFitSampler().run([(circuit, values)], shots=10).result()[0].data.meas
    assert [meas.get_counts(row) for row in range(2)] == [{"01": 10}, {"10": 10}]


def test_shots_of_the_pub_precede_those_of_run_and_the_default():
    circuit = QuantumCircuit(1).measure_all(inplace=False)
    ours = KetFitSampler(default_shots=20)
    assert ours.default_shots == 20 and ours.seed is None
    runs = [
        ours.run([circuit]),
        ours.run([circuit], shots=30),
        ours.run([(circuit, None, 40), (circuit,)], shots=30),
        KetFitSampler().run([circuit]),
    ]
    found = [[each.data.meas.num_shots for each in run.result()] for run in runs]
    assert found == [[20], [30], [40, 30], [1024]]
    assert [each.metadata["shots"] for each in runs[2].result()] == [40, 30]


def test_metadata_equal_qiskits():
    circuit = QuantumCircuit(1, metadata={"a": 1}).measure_all(inplace=False)
    found, expected = (each.run(iter([circuit, circuit])).result() for each in (KetFitSampler(), StatevectorSampler()))
    assert found.metadata == expected.metadata == {"version": 2}
    assert [each.metadata for each in found] == [each.metadata for each in expected]


def test_equal_seeds_give_equal_shots_and_pubs_independent_ones():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    first, second = (KetFitSampler(seed=4).run([circuit, circuit], shots=50).result() for _ in range(2))
    np.testing.assert_array_equal(first[0].data.meas.array, second[0].data.meas.array)
    assert (first[0].data.meas.array != first[1].data.meas.array).any()
    generator = KetFitSampler(seed=np.random.default_rng(4))
    again = [generator.run([circuit], shots=50).result()[0].data.meas.array for _ in range(2)]
    np.testing.assert_array_equal(again[0], first[0].data.meas.array)
    assert (again[0] != again[1]).any()


def test_batch_that_is_simulated_in_parts_has_the_same_shots(monkeypatch):
    circuit = random_qiskit_circuit(3, 10, 0).measure_all(inplace=False)
    values = np.random.default_rng(0).normal(size=(5, len(PARAMETERS)))
    whole = KetFitSampler(seed=1).run([(circuit, values)]).result()[0].data.meas.array
    monkeypatch.setattr(sampler, "MAX_AMPLITUDES", 16)
    np.testing.assert_array_equal(whole, KetFitSampler(seed=1).run([(circuit, values)]).result()[0].data.meas.array)


def test_job_reaches_its_final_status():
    job = KetFitSampler().run([QuantumCircuit(1).measure_all(inplace=False)])
    job.result()
    assert job.status() == JobStatus.DONE


# --- refused -----------------------------------------------------------------------------------------------------

ONE = QuantumCircuit(1).measure_all(inplace=False)


@pytest.mark.parametrize(
    ("pubs", "shots"),
    [
        (ONE, None),
        ((real_amplitudes(1).measure_all(inplace=False), [1.0] * 4), None),
        ([(ONE, None, 10, 1)], None),
        ([(ONE, [1.0])], None),
        ([(real_amplitudes(1).measure_all(inplace=False),)], None),
        ([("circuit",)], None),
        ([(ONE, None, 0)], None),
        ([(ONE, None, -1)], None),
        ([(ONE, None, 1.5)], None),
        ([(ONE, None, True)], None),
        ([ONE], 0),
        ([ONE], "10"),
    ],
)
def test_invalid_pubs_have_qiskits_errors(pubs, shots):
    found = []
    for each in (StatevectorSampler(), KetFitSampler()):
        with pytest.raises(Exception) as caught:
            each.run(pubs, shots=shots).result()
        found.append((caught.type, str(caught.value)))
    assert found[0] == found[1]


def measured_early() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    circuit.cx(0, 1)
    return circuit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            measured_early,
            r"instruction 0 \(measure\) is a mid-circuit measurement \(instruction 1, cx, acts on qubit 0 after it\); "
            "measure at the end alone",
        ),
        (reset_late, r"instruction 1 \(reset\) is a reset of a qubit that gates acted on"),
        (if_test, r"instruction 0 \(if_else\) is control flow"),
        (loop, r"instruction 0 \(for_loop\) is control flow"),
    ],
)
def test_circuit_that_cannot_be_simulated_is_refused_before_anything_runs(make, message):
    circuit = make()
    circuit.measure_all()
    with pytest.raises(QiskitCircuitError, match=f"KetFitSampler cannot run the circuit .*{message}") as caught:
        KetFitSampler().run([ONE, circuit])
    assert isinstance(caught.value, QiskitError)


def test_circuit_without_parameters_is_not_confused_with_a_measured_one():
    # One conversion serves the sampler, another the estimator.
    from ketfit.interop.qiskit import KetFitEstimator

    KetFitSampler().run([ONE]).result()
    with pytest.raises(QiskitCircuitError, match="is a measurement"):
        KetFitEstimator().run([(ONE, "Z")])
