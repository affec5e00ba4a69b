"""Circuits of any gate against PennyLane, Qiskit, a numpy simulator and finite differences."""

from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch
from qiskit.quantum_info import SparsePauliOp, Statevector

from ketfit.circuit import Angle, Circuit, Gate, Hermitian, PauliSum, Projector, ring_layers
from ketfit.circuit.export import to_pennylane, to_qiskit
from ketfit.circuit.gate import GATES
from ketfit.errors import CircuitError, ConfigError, InputError, InsufficientMemoryError
from ketfit.simulate import expectation, expectation_and_gradients, statevector
from tests.circuits_of_any_kind import random_general_circuit, reference_statevector

OBSERVABLE = PauliSum([(0.5, "X", (0,)), (-1.25, "Y", (0,)), (0.75, "Z", (0,)), (2.0, "", ())])


def random_arguments(circuit: Circuit, seed: int, batch: int = 3, dtype: torch.dtype = torch.float64):
    """Weights, inputs and complex amplitudes of norm 1 that require gradients, exact in single precision."""
    rng = np.random.default_rng(seed)
    initial = rng.normal(size=(batch, 2**circuit.n_qubits, 2)) @ np.array([1, 1j])
    initial /= np.linalg.norm(initial, axis=1, keepdims=True)
    weights, inputs = rng.uniform(-3, 3, circuit.n_weights), rng.uniform(-3, 3, (batch, circuit.n_inputs))
    arrays = (weights.astype(np.float32), inputs.astype(np.float32), initial.astype(np.complex64))
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return [
        torch.tensor(array).to(complex_dtype if np.iscomplexobj(array) else dtype).requires_grad_() for array in arrays
    ]


def random_observables(n_qubits: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    words = [(rng.normal(), "".join(rng.choice(list("IXYZ"), n_qubits)), range(n_qubits)) for _ in range(4)]
    width = min(3, n_qubits)
    matrix = rng.normal(size=(2**width, 2**width, 2)) @ np.array([1, 1j])
    qubits = rng.permutation(n_qubits)[:width]
    return [PauliSum(words), Projector("10"[:width], qubits[:2]), Hermitian(matrix + matrix.conj().T, qubits)]


def dense(observable, n_qubits: int) -> np.ndarray:
    terms = observable.pauli_sum().terms
    triples = [(term.word, [n_qubits - 1 - qubit for qubit in term.qubits], term.coefficient) for term in terms]
    return SparsePauliOp.from_sparse_list(triples, num_qubits=n_qubits).to_matrix()


def compare_with_qiskit(seed: int, n_qubits: int, n_gates: int) -> None:
    circuit = random_general_circuit(n_qubits, n_gates, seed)
    weights, inputs, _ = random_arguments(circuit, seed)
    found = statevector(circuit, weights, inputs).detach().numpy()
    for row, sample in zip(found, inputs.tolist(), strict=True):
        theirs = Statevector(to_qiskit(circuit, weights.tolist(), sample)).reverse_qargs().data
        np.testing.assert_allclose(row, theirs, rtol=0, atol=1e-10)


def compare_with_pennylane(seed: int, n_qubits: int, n_gates: int) -> None:
    circuit = random_general_circuit(n_qubits, n_gates, seed)
    tensors = random_arguments(circuit, seed)
    observables = random_observables(n_qubits, seed)
    matrices = [dense(observable, n_qubits) for observable in observables]
    function = to_pennylane(circuit)

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def reference(weights, inputs, initial):
        with qml.queuing.AnnotatedQueue() as queue:
            function(weights, inputs, initial)
        for operation in qml.tape.QuantumScript.from_queue(queue).operations:
            qml.apply(operation)
        return [qml.expval(qml.Hermitian(matrix, wires=range(n_qubits))) for matrix in matrices]

    theirs = torch.stack(reference(*tensors), dim=1)
    mine = expectation(circuit, *tensors, observables=observables)
    np.testing.assert_allclose(mine.detach(), theirs.detach(), rtol=0, atol=1e-10)
    form = torch.linspace(-1, 2, mine.numel(), dtype=torch.float64).reshape(mine.shape)
    gradients = torch.autograd.grad(mine, tensors, form)
    wanted = torch.autograd.grad((theirs * form).sum(), tensors, allow_unused=True, materialize_grads=True)
    in_one_call = expectation_and_gradients(circuit, *tensors, observables=observables, cotangent=form)
    assert torch.equal(in_one_call.values, mine.detach())
    for one, other, third in zip(gradients, wanted, in_one_call[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
        assert torch.equal(one, third)


@pytest.mark.parametrize("seed", range(6))
def test_statevector_of_random_circuit_equals_qiskit(seed):
    compare_with_qiskit(seed, n_qubits=1 + seed, n_gates=25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_statevector_of_wide_random_circuit_equals_qiskit(seed):
    compare_with_qiskit(seed, n_qubits=1 + seed % 10, n_gates=60)


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_expectation_and_gradients_of_random_circuit_equal_pennylane(seed):
    compare_with_pennylane(seed, n_qubits=1 + seed, n_gates=20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 25))
def test_expectation_and_gradients_of_wide_random_circuit_equal_pennylane(seed):
    compare_with_pennylane(seed, n_qubits=1 + seed % 10, n_gates=50)


@pytest.mark.parametrize("name", [name for name, kind in GATES.items() if kind.n_parameters])
def test_gradient_of_each_gate_equals_finite_differences(name):
    kind = GATES[name]
    angles = [2 * Angle("weight", 0) + 0.3, Angle("input", 0), Angle("weight", 1) - Angle("input", 0)]
    gate = Gate(name, [1, 0][: kind.n_qubits], angles[: kind.n_parameters])
    circuit = Circuit(2, [Gate("h", 0), Gate("h", 1), gate, Gate("sx", 0), Gate("cy", (0, 1))], 2, 1)
    tensors = random_arguments(circuit, seed=0, batch=2)
    observables = [OBSERVABLE, Hermitian(np.array([[1, 2j], [-2j, 0]]), (1,))]
    assert torch.autograd.gradcheck(lambda *each: expectation(circuit, *each, observables=observables), tensors)


@pytest.mark.parametrize("names", [("h", "x", "z", "cz", "ch", "swap", "cry", "ccx", "ry", "cx")])
def test_real_circuit_of_other_gates_keeps_real_states(names):
    circuit = random_general_circuit(3, 30, 1, names)
    weights, inputs, initial = random_arguments(circuit, 1)
    real = initial.detach().real.clone().requires_grad_()
    assert circuit.is_real
    assert not circuit.is_ry_cx
    mine = expectation(circuit, weights, inputs, real, observables=random_observables(3, 2))
    theirs = expectation(circuit, weights, inputs, real + 0j, observables=random_observables(3, 2))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(mine.sum(), (weights, inputs, real)),
        torch.autograd.grad(theirs.sum(), (weights, inputs, real)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_ry_cx_circuit_with_complex_amplitudes_equals_its_real_and_imaginary_part():
    circuit = ring_layers(3, 2, 2)
    weights, _, initial = random_arguments(circuit, 3)
    mine = expectation(circuit, weights, None, initial, qubits=(2, 0))
    parts = [
        expectation(circuit, weights, None, part.contiguous(), qubits=(2, 0)) for part in (initial.real, initial.imag)
    ]
    torch.testing.assert_close(mine, parts[0] + parts[1], rtol=0, atol=1e-12)


def test_z_of_general_circuit_equals_pauli_sum_and_shots_estimate_it():
    circuit = random_general_circuit(4, 30, 4)
    weights, inputs, initial = random_arguments(circuit, 4, batch=2)
    exact = expectation(circuit, weights, inputs, initial, qubits=(3, 1))
    words = [PauliSum([(1.0, "Z", (qubit,))]) for qubit in (3, 1)]
    torch.testing.assert_close(exact, expectation(circuit, weights, inputs, initial, observables=words))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        sampled = expectation(circuit, weights, inputs, initial, (3, 1), shots=10**6, generator=generator)
    torch.testing.assert_close(sampled, exact.detach(), rtol=0, atol=0.006)


def test_single_precision_stays_and_is_close_to_double():
    circuit = random_general_circuit(3, 30, 5)
    single = random_arguments(circuit, 5, dtype=torch.float32)
    double = random_arguments(circuit, 5)
    mine = expectation(circuit, *single, observables=[OBSERVABLE])
    assert mine.dtype == torch.float32
    torch.testing.assert_close(
        mine.double(), expectation(circuit, *double, observables=[OBSERVABLE]), rtol=0, atol=1e-5
    )
    assert [each.dtype for each in torch.autograd.grad(mine.sum(), single)] == [each.dtype for each in single]


def test_statevector_has_the_global_phase():
    gates = [Gate("x", 0), Gate("gphase", (), (Angle("weight", 0),)), Gate("p", 0, (0.5,))]
    state = statevector(Circuit.from_gates(1, gates), torch.tensor([0.25], dtype=torch.float64))
    np.testing.assert_allclose(state[0], [0, np.exp(0.75j)], rtol=0, atol=1e-15)


def test_empty_circuit_leaves_the_amplitudes():
    initial = torch.tensor([[0.6, 0.8j]], dtype=torch.complex128, requires_grad=True)
    circuit, weights = Circuit(1, (), 0, 0), torch.zeros(0, dtype=torch.float64)
    assert torch.equal(statevector(circuit, weights, None, initial), initial)
    assert torch.autograd.gradcheck(
        lambda each: expectation(circuit, weights, None, each, observables=[OBSERVABLE]), initial
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"observables": [OBSERVABLE], "qubits": (1,)}, ConfigError, "either qubits or observables"),
        ({"observables": []}, CircuitError, "at least one observable"),
        ({"observables": OBSERVABLE}, CircuitError, "pass a sequence of observables"),
        ({"observables": ["Z"]}, CircuitError, "observable 0 is of type str"),
        ({"observables": [PauliSum([(1, "Z", (7,))])]}, CircuitError, "acts on qubit 7"),
    ],
)
def test_expectation_of_general_circuit_with_wrong_options_is_refused(options, error, message):
    circuit = Circuit.from_gates(2, [Gate("h", 0), Gate("rx", 1, (Angle("weight", 0),)), Gate("cx", (1, 0))])
    with pytest.raises(error, match=message):
        expectation(circuit, torch.ones(1, requires_grad=True), **options)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (torch.zeros(1, 4, dtype=torch.complex64), "initial is torch.complex64"),
        (torch.full((1, 4), complex("nan"), dtype=torch.complex128), "initial holds a number that is not finite"),
    ],
)
def test_complex_amplitudes_of_wrong_kind_are_refused(initial, message):
    with pytest.raises(InputError, match=message):
        expectation(ring_layers(2, 1, 1), torch.zeros(4, dtype=torch.float64), None, initial)


def test_states_that_do_not_fit_are_refused_before_they_are_allocated():
    with pytest.raises(InsufficientMemoryError, match="40 qubits need"):
        expectation(Circuit.from_gates(40, [Gate("h", q) for q in range(40)]), torch.zeros(0), qubits=range(40))


def test_reference_simulator_of_these_tests_equals_qiskit():
    circuit = random_general_circuit(3, 30, 7)
    weights, inputs, _ = random_arguments(circuit, 7)
    mine = reference_statevector(circuit, weights.tolist(), inputs[0].tolist())
    theirs = Statevector(to_qiskit(circuit, weights.tolist(), inputs[0].tolist())).reverse_qargs().data
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
