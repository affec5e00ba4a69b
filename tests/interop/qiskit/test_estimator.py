"""Behaviours of Qiskit's StatevectorEstimator, which is the oracle."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    PauliEvolutionGate,
    PermutationGate,
    QFTGate,
    RXGate,
    UnitaryGate,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.exceptions import QiskitError
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import JobStatus
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp, Statevector, random_clifford
from qiskit.transpiler import generate_preset_pass_manager

from ketfit.errors import InputError, KetFitError
from ketfit.interop.qiskit import KetFitEstimator, QiskitCircuitError
from tests.interop.qiskit.random_circuits import PARAMETERS, random_qiskit_circuit
from tests.interop.qiskit.test_observables import dense


def values_of(estimator: BaseEstimatorV2, *pub: object) -> np.ndarray:
    return estimator.run([pub]).result()[0].data.evs


def assert_equals_qiskit(*pub: object) -> None:
    expected = values_of(StatevectorEstimator(), *pub)
    found = values_of(KetFitEstimator(), *pub)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.fixture
def rotations() -> QuantumCircuit:
    """A circuit of two qubits with the parameters x[0], x[1] and y, in Qiskit's order."""
    x, y = ParameterVector("x", 2), Parameter("y")
    circuit = QuantumCircuit(2, metadata={"name": "rotations"})
    circuit.ry(y, 0)
    circuit.rx(x[1], 1)
    circuit.cx(0, 1)
    circuit.rz(x[0] + y, 1)
    circuit.h(1)
    return circuit


@pytest.mark.parametrize("seed", range(20))
def test_random_circuits_equal_qiskits_values(seed):
    rng = np.random.default_rng(seed)
    n_qubits = 1 + seed % 4
    observables = [[SparsePauliOp(["".join(rng.choice(list("IXYZ"), n_qubits)) for _ in range(3)], rng.normal(size=3))]]
    assert_equals_qiskit(random_qiskit_circuit(n_qubits, 12, seed), observables, rng.normal(size=(3, len(PARAMETERS))))


@pytest.mark.parametrize(
    ("bindings", "observables"),
    [((), ()), ((4,), ()), ((), (3,)), ((4,), (1,)), ((3,), (3,)), ((4,), (3, 1)), ((2, 1, 3), (4, 1)), ((0,), ())],
)
def test_bindings_and_observables_are_broadcast(rotations, bindings, observables):
    rng = np.random.default_rng(0)
    labels = rng.choice(["ZZ", "XI", "IY", "ZX"], observables).tolist()
    assert_equals_qiskit(rotations, labels, rng.normal(size=(*bindings, 3)))


def test_shapes_that_cannot_be_broadcast_are_refused(rotations):
    with pytest.raises(ValueError, match=r"shape \(2,\) .* shape \(3,\) are not broadcastable"):
        KetFitEstimator().run([(rotations, ["ZZ", "XX"], np.zeros((3, 3)))])


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        {"y": 3, "x[0]": 1, "x[1]": 2},
        {("x[1]", "y"): [[2, 3], [5, 6]], "x[0]": [1, 4]},
        BindingsArray({("y", "x[0]", "x[1]"): np.arange(12).reshape(4, 3)}),
    ],
    ids=["list", "mapping", "arrays", "bindings array"],
)
def test_parameter_values_of_any_form_are_taken(rotations, values):
    assert_equals_qiskit(rotations, "XZ", values)


@pytest.mark.parametrize(
    "observables",
    [
        "XZ",
        Pauli("XZ"),
        -Pauli("XZ"),
        SparsePauliOp(["XZ", "IY", "XZ"], [1, 2, 0.5]),
        {"XZ": 2.0, "YY": -1},
        {Pauli("XZ"): 2.0},
        SparseObservable.from_list([("XZ", 0.5), ("II", 2)]),
        PauliList(["XZ", "IY"]),
        [["XZ", Pauli("YY")], [SparsePauliOp("II"), {"ZI": 2}]],
        ObservablesArray(["XZ", "IY"]),
    ],
    ids=str,
)
def test_observables_of_any_form_are_taken(rotations, observables):
    assert_equals_qiskit(rotations, observables, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("observable", [{"0+": 1.0}, {"r1": 2.0, "Z-": -0.5}, {"lI": 1.0}, {"00": 1.0, "11": 1.0}])
def test_projectors_equal_their_matrices(rotations, observable):
    state = Statevector(rotations.assign_parameters([0.1, 0.2, 0.3])).data
    found = values_of(KetFitEstimator(), rotations, observable, [0.1, 0.2, 0.3])
    assert found == pytest.approx((state.conj() @ dense(observable) @ state).real, abs=1e-12)


def test_number_without_parameters_or_arrays_has_no_dimension():
    found = values_of(KetFitEstimator(), QuantumCircuit(1), "Z")
    assert found.shape == () and float(found) == 1.0


@pytest.mark.parametrize(
    "circuit",
    [zz_feature_map(4), real_amplitudes(4), zz_feature_map(3).compose(real_amplitudes(3)).decompose()],
    ids=lambda circuit: circuit.name,
)
def test_circuits_of_the_library_equal_qiskits_values(circuit):
    values = np.random.default_rng(0).normal(size=(5, circuit.num_parameters))
    assert_equals_qiskit(circuit, "Z" * circuit.num_qubits, values)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # in Qiskit's own evolution
def test_definitions_with_parameters_are_used():
    time = Parameter("t")
    inner = QuantumCircuit(2, name="inner")
    inner.rx(time**2, 0)
    inner.cx(0, 1)
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.append(PauliEvolutionGate(SparsePauliOp(["XXI", "ZZI"], [0.3, -0.7]), time=time), [0, 1, 2])
    circuit.append(inner.to_gate(), [2, 0])
    circuit.append(inner.to_gate().control(1), [0, 1, 2])
    circuit.append(QFTGate(3), [0, 1, 2])
    assert_equals_qiskit(circuit, ["ZIX", "YYI"], [[0.4], [1.3]])


def test_operations_that_are_no_gates_are_synthesized():
    circuit = QuantumCircuit(3)
    circuit.append(random_clifford(3, seed=1), [2, 0, 1])
    circuit.append(RXGate(PARAMETERS[0]).control(1, annotated=True), [0, 1])
    circuit.append(PermutationGate([2, 0, 1]), [0, 1, 2])
    assert_equals_qiskit(circuit, [["XYZ"], ["ZZI"], ["IXX"]], [[0.4], [1.3]])


def test_global_phases_with_parameters_are_kept_in_controlled_gates():
    a, b, _ = PARAMETERS
    inner = QuantumCircuit(1, global_phase=a * b + 0.3)
    inner.rx(a, 0)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.append(inner.to_gate().control(1), [0, 1])
    assert_equals_qiskit(circuit, [["IX"], ["ZY"]], [[0.4, 0.7], [1.3, -0.2]])


def test_transpiled_circuit_takes_observables_of_its_layout(rotations):
    backend = GenericBackendV2(4, seed=1)
    manager = generate_preset_pass_manager(1, backend=backend, initial_layout=[3, 1], seed_transpiler=1)
    transpiled, observable = manager.run(rotations), SparsePauliOp(["XZ", "YI"], [0.5, -2])
    values = [0.1, 0.2, 0.3]
    laid_out = observable.apply_layout(transpiled.layout)
    assert laid_out.num_qubits == 4
    found = values_of(KetFitEstimator(), transpiled, laid_out, values)
    assert found == pytest.approx(values_of(StatevectorEstimator(), rotations, observable, values), abs=1e-10)


@pytest.mark.parametrize("letters", ["IIIII", "ZIZIZ", "0Z1X0", "XIIYI", "Y+IIZ", "-r0ZI", "lI1II"])
def test_qubits_without_gates_are_in_zero(letters):
    circuit = QuantumCircuit(5)
    circuit.ry(0.4, 3)
    circuit.rx(0.7, 1)
    circuit.cx(3, 1)
    for observable in ({letters: 1.5, "ZZZZZ": 0.5}, {letters[::-1]: -2.0}):
        for each in (circuit, QuantumCircuit(5)):
            state = Statevector(each).data
            found = values_of(KetFitEstimator(), each, observable)
            assert found == pytest.approx((state.conj() @ dense(observable) @ state).real, abs=1e-12)


def test_circuit_transpiled_for_a_large_machine_equals_the_one_that_was_written(rotations):
    backend = GenericBackendV2(127, seed=1)
    manager = generate_preset_pass_manager(1, backend=backend, initial_layout=[101, 17], seed_transpiler=1)
    transpiled, observable = manager.run(rotations), SparsePauliOp(["XZ", "YI"], [0.5, -2])
    values = [[0.1, 0.2, 0.3], [1.1, -0.2, 0.7]]
    found = values_of(KetFitEstimator(), transpiled, observable.apply_layout(transpiled.layout), values)
    assert found == pytest.approx(values_of(StatevectorEstimator(), rotations, observable, values), abs=1e-10)


def test_barriers_and_delays_are_ignored():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.barrier()
    circuit.delay(100, 0)
    circuit.cx(0, 1)
    assert_equals_qiskit(circuit, "XX")


def test_initialization_and_reset_at_the_start_are_taken():
    circuit = QuantumCircuit(3)
    circuit.reset(0)
    circuit.initialize([0.5, 0.5j, -0.5, 0.5], [2, 0])
    circuit.initialize("+", 1)
    circuit.cx(0, 1)
    assert_equals_qiskit(circuit, ["XYZ", "ZZI", "IXX"])


def test_several_pubs_have_a_result_each(rotations):
    bell = QuantumCircuit(2)
    bell.h(0)
    bell.cx(0, 1)
    pubs = [(bell, ["ZZ", "XX"]), (rotations, "ZZ", [[1, 2, 3], [4, 5, 6]]), EstimatorPub.coerce((bell, "IZ"))]
    expected = StatevectorEstimator().run(pubs).result()
    found = KetFitEstimator().run(iter(pubs)).result()
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.data.evs, other.data.evs, atol=1e-12)


def test_metadata_equal_qiskits(rotations):
    pubs = [(rotations, "ZZ", [1, 2, 3], 0.1), (QuantumCircuit(1, metadata={"a": 1}), "Z")]
    found, expected = (
        estimator(default_precision=0.2).run(pubs).result() for estimator in (KetFitEstimator, StatevectorEstimator)
    )
    assert found.metadata == expected.metadata == {"version": 2}
    assert [each.metadata for each in found] == [each.metadata for each in expected]
    assert [dict(each.data.items()).keys() for each in found] == [dict(each.data.items()).keys() for each in expected]
    assert found[0].data.stds.shape == ()


def test_job_reaches_its_final_status(rotations):
    job = KetFitEstimator().run([(rotations, "ZZ", [1, 2, 3])])
    job.result()
    assert job.status() == JobStatus.DONE and job.done() and job.in_final_state()


# --- precision ---------------------------------------------------------------------------------------------------


def test_noise_has_the_precision_as_standard_deviation(rotations):
    values = np.tile([0.1, 0.2, 0.3], (4000, 1))
    exact = values_of(KetFitEstimator(), rotations, "ZZ", values[0])
    noise = values_of(KetFitEstimator(seed=1), rotations, "ZZ", values, 0.05) - exact
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    assert abs(noise.mean()) < 5 * 0.05 / 4000**0.5


def test_noise_of_a_seed_equals_qiskits(rotations):
    pub = (rotations, [["ZZ"], ["XX"]], np.ones((3, 3)), 0.1)
    found, expected = (values_of(estimator(seed=5), *pub) for estimator in (KetFitEstimator, StatevectorEstimator))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_equal_seeds_give_equal_noise_and_pubs_independent_noise():
    pubs = [(QuantumCircuit(1), "Z", None, 0.1)] * 2
    first, second = (KetFitEstimator(seed=3).run(pubs).result() for _ in range(2))
    assert first[0].data.evs == second[0].data.evs
    assert first[0].data.evs != first[1].data.evs


def test_generator_advances_from_run_to_run():
    estimator = KetFitEstimator(seed=np.random.default_rng(3))
    pub = (QuantumCircuit(1), "Z", None, 0.1)
    assert values_of(estimator, *pub) != values_of(estimator, *pub)


def test_precision_of_the_pub_precedes_that_of_run_and_the_default():
    estimator, pub = KetFitEstimator(default_precision=0.3), (QuantumCircuit(1), "Z")
    assert estimator.default_precision == 0.3 and estimator.seed is None
    results = [
        estimator.run([pub]).result()[0],
        estimator.run([pub], precision=0.2).result()[0],
        estimator.run([(*pub, None, 0.1)], precision=0.2).result()[0],
        estimator.run([pub], precision=0.0).result()[0],
    ]
    assert [each.metadata["target_precision"] for each in results] == [0.3, 0.2, 0.1, 0.0]
    assert results[-1].data.evs == 1.0


# --- refused -----------------------------------------------------------------------------------------------------


def outcome(estimator: BaseEstimatorV2, pubs: object, precision: object) -> object:
    """The shape of the result, or the error."""
    try:
        return estimator.run(pubs, precision=precision).result()[0].data.evs.shape
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("pubs", "precision"),
    [
        ((QuantumCircuit(1), "Z"), None),
        ([(QuantumCircuit(1),)], None),
        ([(QuantumCircuit(1), "Z", None, 0.1, 1)], None),
        ([(QuantumCircuit(1), "ZZ")], None),
        ([(QuantumCircuit(1), "Q")], None),
        ([(QuantumCircuit(1), SparsePauliOp("Z", 1j))], None),
        ([(QuantumCircuit(1), [])], None),
        ([(QuantumCircuit(1), "Z", [1.0])], None),
        ([(real_amplitudes(1), "Z")], None),
        ([(real_amplitudes(1), "Z", [1.0])], None),
        ([(real_amplitudes(1), "Z", [1.0, 2.0, 3.0, 1j])], None),
        ([("circuit", "Z")], None),
        ([(QuantumCircuit(1), "Z", None, -1)], None),
        ([(QuantumCircuit(1), "Z", None, "0.1")], None),
        ([(QuantumCircuit(1), "Z")], -0.1),
        ([(QuantumCircuit(1), "Z")], "0.1"),
    ],
)
def test_invalid_pubs_have_qiskits_errors(pubs, precision):
    found = [outcome(estimator, pubs, precision) for estimator in (StatevectorEstimator(), KetFitEstimator())]
    assert found[0] == found[1]


def measured() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    return circuit


def reset_late() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.reset(0)
    return circuit


def initialized_late() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.initialize([0.6, 0.8], 1)
    return circuit


def if_test() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(0)
    return circuit


def loop() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    with circuit.for_loop(range(3)):
        circuit.x(0)
    return circuit


def stored() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.add_var("a", True)
    return circuit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (measured, r"instruction 0 \(measure\) is a measurement; call remove_final_measurements\(\) first"),
        (reset_late, r"instruction 1 \(reset\) is a reset of a qubit that gates acted on; use a qubit of its own"),
        (initialized_late, r"instruction 1 \(initialize\) is a reset of a qubit that gates acted on"),
        (if_test, r"instruction 0 \(if_else\) is control flow; write the circuit without it"),
        (loop, r"instruction 0 \(for_loop\) is control flow"),
        (stored, r"instruction 0 \(store\) is an instruction that a circuit of gates cannot hold"),
        (lambda: QuantumCircuit(0), "at least one qubit"),
    ],
)
def test_circuit_that_cannot_be_simulated_is_refused_before_anything_runs(make, message):
    circuit = make()
    pubs = [(QuantumCircuit(1), "Z"), (circuit, "I" * circuit.num_qubits)]
    with pytest.raises(QiskitCircuitError, match=f"KetFitEstimator cannot run the circuit .*{message}") as caught:
        KetFitEstimator().run(pubs)
    assert isinstance(caught.value, KetFitError) and isinstance(caught.value, QiskitError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_complex_angle_is_refused_before_anything_runs():
    circuit = QuantumCircuit(1)
    circuit.rx(1j * PARAMETERS[0] * PARAMETERS[1], 0)
    with pytest.raises(QiskitCircuitError, match=r"has the number .*I, which is not finite and real"):
        KetFitEstimator().run([(circuit, "Z", [1.0, 2.0])])


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_angle_that_is_not_finite_is_refused(value):
    circuit = QuantumCircuit(1)
    circuit.rx(PARAMETERS[0].log(), 0)
    job = KetFitEstimator().run([(circuit, "Z", [[1.0], [value]])])
    with pytest.raises(InputError, match="inputs holds a number that is not finite"):
        job.result()


# --- circuits that change ----------------------------------------------------------------------------------------


def test_circuit_that_changed_since_the_last_run_is_converted_again():
    circuit = QuantumCircuit(2)
    circuit.rx(0.5, 0)
    circuit.unitary(np.eye(2), 1)
    estimator, changes = KetFitEstimator(), []
    for change in (
        lambda: circuit.cx(0, 1),
        lambda: circuit.data.pop(),
        lambda: circuit.data.__setitem__(0, circuit.data[0].replace(params=[0.7])),
        lambda: circuit.rx(PARAMETERS[0], 1),
        lambda: circuit.assign_parameters([0.3], inplace=True),
    ):
        change()
        values = [0.2] * circuit.num_parameters
        found, expected = (
            values_of(each, circuit, ["IZ", "ZI"], values) for each in (estimator, StatevectorEstimator())
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)
        changes.append(found.tolist())
    assert len(set(map(tuple, changes))) == 5


@pytest.mark.parametrize(
    ("make", "observable", "change"),
    [
        (RXGate, "Y", 1e-11),
        (lambda angle: UnitaryGate(RXGate(angle).to_matrix()), "Y", 3e-9),
        (lambda angle: RXGate(angle).inverse(annotated=True).inverse(annotated=True), "Y", 1e-11),
    ],
    ids=["angle", "unitary", "annotated"],
)
def test_number_that_changed_slightly_is_converted_again(make, observable, change):
    estimator, circuit, found = KetFitEstimator(), QuantumCircuit(1), []
    circuit.append(make(0.0), [0])
    for angle in (0.0, change):
        circuit.data[0] = circuit.data[0].replace(operation=make(angle))
        found.append(float(values_of(estimator, circuit, observable)))
    assert found == pytest.approx([0.0, -change], abs=change / 100)


def test_parameters_that_were_renamed_keep_their_values(rotations):
    estimator = KetFitEstimator()
    values_of(estimator, rotations, "ZZ", [0.1, 0.2, 0.3])
    rotations.assign_parameters({"y": Parameter("a")}, inplace=True)  # which comes first now
    found, expected = (
        values_of(each, rotations, "ZZ", [0.1, 0.2, 0.3]) for each in (estimator, StatevectorEstimator())
    )
    assert found == pytest.approx(expected, abs=1e-12)
