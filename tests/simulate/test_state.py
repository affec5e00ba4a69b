from __future__ import annotations

import numpy as np
import pennylane as qml
import pytest
import torch
from scipy.stats import chisquare

from ketfit.circuit import Circuit, Gate, Hermitian, PauliSum, PauliTerm, Projector, reuploading_circuit, ring_layers
from ketfit.circuit.export import to_pennylane
from ketfit.errors import CircuitError, ConfigError, InputError
from ketfit.simulate import expectation, probabilities, sample_counts, statevector, variance
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.statevector import final_state
from tests.circuits_of_any_kind import random_general_circuit
from tests.simulate.test_evolution import dense, random_arguments, random_observables

GENERAL = random_general_circuit(4, 30, seed=11)


def states_and_gradients(circuit, tensors, engine):
    """The final states of an engine, and the gradients of their product with random numbers by all tensors."""
    states = final_state(CircuitBatch(circuit, *tensors), engine)
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(states.shape, generator=generator, dtype=torch.complex128).to(states.dtype)
    leaves = [tensor for tensor in tensors if tensor is not None]
    return [states.detach(), *torch.autograd.grad((states * factors).real.sum(), leaves)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["f64", "f32"])
@pytest.mark.parametrize("kind", ["zero", "real", "complex"])
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5, 8])
def test_states_and_gradients_of_kernel_equal_those_of_torch(n_qubits, kind, dtype, tolerance):
    circuit = random_general_circuit(n_qubits, 40, seed=n_qubits)
    weights, inputs, initial = random_arguments(circuit, 6, batch=5, dtype=dtype)
    if kind != "complex":
        initial = None if kind == "zero" else initial.detach().real.clone().requires_grad_()
    native = states_and_gradients(circuit, (weights, inputs, initial), "native")
    other = states_and_gradients(circuit, (weights, inputs, initial), "torch")
    for one, two in zip(native, other, strict=True):
        assert one.dtype == two.dtype
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)


@pytest.mark.parametrize("has_initial", [False, True])
def test_states_of_wide_circuit_equal_those_of_torch(has_initial):
    circuit = random_general_circuit(17, 40, seed=4)  # threads share a state, which is larger than the cache
    weights, inputs, initial = random_arguments(circuit, 7, batch=1, dtype=torch.float32)
    tensors = (weights, inputs, initial if has_initial else None)
    native, other = (states_and_gradients(circuit, tensors, engine) for engine in ("native", "torch"))
    for one, two in zip(native, other, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=2e-3 if one.ndim == 1 else 1e-3)


@pytest.mark.parametrize("n_qubits", [2, 5, 9])
def test_probabilities_and_gradients_equal_pennylane(n_qubits):
    circuit = random_general_circuit(n_qubits, 40, seed=20 + n_qubits)
    tensors = random_arguments(circuit, 8)
    function, measured = to_pennylane(circuit), [n_qubits - 1, 0]

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def reference(weights, inputs, initial):
        with qml.queuing.AnnotatedQueue() as queue:
            function(weights, inputs, initial)
        for operation in qml.tape.QuantumScript.from_queue(queue).operations:
            qml.apply(operation)
        return qml.probs(wires=measured)

    mine, theirs = probabilities(circuit, *tensors, qubits=measured), reference(*tensors)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    form = torch.linspace(-1, 2, mine.numel(), dtype=torch.float64).reshape(mine.shape)
    found = torch.autograd.grad(mine, tensors, form)
    wanted = torch.autograd.grad(theirs, tensors, form, allow_unused=True, materialize_grads=True)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "circuit", [random_general_circuit(2, 12, 3), reuploading_circuit(2, 1, 0, 1, 1)], ids=["general", "ry_cx"]
)
def test_second_derivatives_and_batched_gradients_of_states(circuit):
    tensors = random_arguments(circuit, 9, batch=2)
    assert torch.autograd.gradgradcheck(lambda *each: statevector(circuit, *each), tensors)

    def outcomes(weights):
        return probabilities(circuit, weights, *tensors[1:], qubits=(1, 0))

    wanted = torch.autograd.functional.jacobian(outcomes, tensors[0])
    batched = torch.autograd.functional.jacobian(outcomes, tensors[0], vectorize=True)
    torch.testing.assert_close(batched, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.func.jacrev(outcomes)(tensors[0].detach()), wanted, rtol=0, atol=1e-12)


def test_gradient_of_states_changed_in_place_is_refused():
    weights, inputs, _ = random_arguments(GENERAL, 1)
    states = statevector(GENERAL, weights, inputs)
    loss = states.real.sum()
    (first,) = torch.autograd.grad(loss, weights, retain_graph=True)
    assert torch.equal(first, torch.autograd.grad(loss, weights, retain_graph=True)[0])
    with torch.no_grad():
        states.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, weights)


@pytest.mark.parametrize("circuit", [GENERAL, ring_layers(4, 1, 1)], ids=["general", "ry_cx"])
def test_conjugate_and_negative_views_are_read_as_their_numbers(circuit):
    weights, inputs, initial = (tensor.detach() for tensor in random_arguments(circuit, 2))
    for start in (initial.conj(), torch.view_as_real(initial)[..., 0], initial.conj().imag):
        negative = torch.complex(inputs, -inputs).conj().imag.neg()
        views = expectation(circuit, torch.complex(weights, -weights).conj().imag, negative.neg(), start)
        copies = [tensor.resolve_conj().resolve_neg().clone() for tensor in (weights, inputs, start)]
        torch.testing.assert_close(views, expectation(circuit, *copies), rtol=0, atol=1e-12)


@pytest.mark.parametrize("qubits", [(0,), (2, 0), torch.tensor([3, 1, 0, 2])])
def test_probabilities_equal_squares_of_amplitudes(qubits):
    weights, inputs, initial = random_arguments(GENERAL, 1)
    found = probabilities(GENERAL, weights, inputs, initial, qubits)
    squares = statevector(GENERAL, weights, inputs, initial).abs().square().reshape(3, 2, 2, 2, 2)
    order = [int(qubit) for qubit in qubits]
    rest = [1 + qubit for qubit in range(4) if qubit not in order]
    wanted = squares.permute(0, *(1 + qubit for qubit in order), *rest).reshape(3, 2 ** len(order), -1).sum(dim=2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="measure at most 12"):
        probabilities(Circuit(13, (Gate("h", 0),), 0, 0), torch.zeros(0), qubits=range(13))


def test_probabilities_of_ry_cx_circuit_equal_expectation():
    circuit = ring_layers(3, 2, 1)
    weights = torch.linspace(-1, 1, circuit.n_weights, dtype=torch.float64)
    outcomes = probabilities(circuit, weights, qubits=(1,))
    torch.testing.assert_close(
        outcomes @ outcomes.new_tensor([1, -1]), expectation(circuit, weights, qubits=(1,))[:, 0]
    )


def test_sample_counts_fit_probabilities():
    weights, inputs, initial = random_arguments(GENERAL, 2)
    counts = sample_counts(
        GENERAL, weights, inputs, initial, (3, 0), shots=20_000, generator=torch.Generator().manual_seed(1)
    )
    assert counts.dtype == torch.int64
    assert counts.sum(dim=1).tolist() == [20_000] * 3
    expected = probabilities(GENERAL, weights, inputs, initial, (3, 0)).detach().numpy()
    expected *= 20_000 / expected.sum(axis=1, keepdims=True)
    assert min(chisquare(row, each).pvalue for row, each in zip(counts.numpy(), expected, strict=True)) > 1e-3
    with pytest.raises(ConfigError, match="shots=0"):
        sample_counts(GENERAL, weights, inputs, shots=0)


@pytest.mark.parametrize("n_qubits", [1, 3])
def test_variance_equals_dense_matrices(n_qubits):
    circuit = random_general_circuit(n_qubits, 20, seed=n_qubits)
    weights, inputs, initial = random_arguments(circuit, 3)
    observables = random_observables(n_qubits, 3)
    states = statevector(circuit, weights, inputs, initial).detach().numpy()
    found = variance(circuit, weights, inputs, initial, observables=observables)
    for column, observable in enumerate(observables):
        matrix = dense(observable, n_qubits)
        means, squares = (
            np.einsum("bi,ij,bj->b", states.conj(), each, states).real for each in (matrix, matrix @ matrix)
        )
        np.testing.assert_allclose(found[:, column].detach(), squares - means**2, rtol=0, atol=1e-11)
    assert torch.autograd.gradcheck(
        lambda *each: variance(circuit, *each, observables=observables), (weights, inputs, initial)
    )


@pytest.mark.parametrize("n_qubits", [1, 2, 4])
def test_observables_equal_their_pauli_sums(n_qubits):
    circuit = random_general_circuit(n_qubits, 20, seed=n_qubits)
    arguments = random_arguments(circuit, 4)
    observables = random_observables(n_qubits, 5)
    words = [observable.pauli_sum() for observable in observables]
    mine, theirs = (expectation(circuit, *arguments, observables=each) for each in (observables, words))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_observables_of_other_integer_types_are_one_value():
    for qubits in (np.array([2, 0]), torch.tensor([2, 0]), [np.int8(2), torch.tensor(0)]):
        assert hash(PauliSum([(1, "XZ", qubits)])) == hash(PauliSum([(1.0, "ZX", (0, 2))]))
        assert Projector("10", qubits) == Projector("10", (2, 0))
        assert Hermitian(torch.eye(4), qubits) == Hermitian(np.eye(4), (2, 0))
    assert PauliSum([(1, "X", (0,)), (2, "X", (0,))]) == PauliSum([PauliTerm(3, "X", (0,))])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PauliSum([]), "at least one term"),
        (lambda: PauliSum([(1, "XZ", (0,))]), "has 2 letters for 1 qubits"),
        (lambda: PauliSum([(1, "A", (0,))]), "letters I, X, Y and Z, got 'A'"),
        (lambda: PauliSum([(1j, "X", (0,))]), "the coefficient of a Pauli word"),
        (lambda: PauliSum([(float("nan"), "X", (0,))]), "use finite numbers"),
        (lambda: PauliSum([(1, "XX", (0, np.int64(0)))]), "named twice"),
        (lambda: PauliSum([(1, "X", (0.0,))]), "must be a whole number"),
        (lambda: Projector("2", (0,)), "characters 0 and 1"),
        (lambda: Projector("01", (0,)), "pass one for each"),
        (lambda: Projector("", ()), "acts on 1 to 62 qubits"),
        (lambda: Projector("00", (1, 1)), "named twice"),
        (lambda: Hermitian([[0, 1], [2, 0]], (0,)), r"not Hermitian: element \(0, 1\)"),
        (lambda: Hermitian([[0, 1]], (0,)), "has shape"),
        (lambda: Hermitian(np.eye(16), range(4)), "acts on one to 3 qubits"),
        (lambda: Hermitian([[0, float("inf")], [float("inf"), 0]], (0,)), "not finite"),
    ],
)
def test_invalid_observables_are_refused(build, message):
    with pytest.raises(CircuitError, match=message):
        build()


def test_default_device_does_not_matter() -> None:
    circuit, weights = Circuit.from_gates(1, [Gate("h", 0)]), torch.zeros(0, device="cpu")
    with torch.device("meta"):
        state = statevector(circuit, weights)
        mean = expectation(circuit, weights, observables=[PauliSum([(2.0, "X", (0,)), (1.0, "Z", (0,))])])
    assert state.device.type == "cpu"
    assert mean.item() == pytest.approx(2)
