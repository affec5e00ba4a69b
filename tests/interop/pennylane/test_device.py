"""The device ketfit.qubit beside default.qubit."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys

import numpy as np
import pennylane as qml
import pytest
import torch
from pennylane import numpy as pnp
from pennylane.devices import ExecutionConfig
from pennylane.exceptions import DeviceError, QuantumFunctionError

from ketfit.errors import MissingExtraError
from ketfit.interop.pennylane import KetFitQubit
from tests.interop.pennylane.random_tapes import random_node, random_numbers
from tests.simulate.statistical_assertions import assert_frequencies


def measure_everything():
    hermitian = np.array([[1, 2j], [-2j, 3]])
    return (
        qml.expval(qml.Z(0)),
        qml.expval(0.5 * qml.X(0) @ qml.Y(1) - 1.5 * qml.Z(2) + qml.Identity(0)),
        qml.expval(qml.Hermitian(hermitian, wires=1)),
        qml.expval(qml.Projector([1, 0], wires=[2, 0])),
        qml.expval(qml.Hadamard(1) @ qml.Z(0)),
        qml.var(qml.X(1) @ qml.Z(2)),
        qml.var(2 * qml.X(1) + qml.Z(1)),
        qml.var(qml.Hermitian(hermitian, wires=0)),
        qml.probs(wires=[2, 0]),
        qml.probs(op=qml.Y(1)),
    )


def state_and_reduced():
    return qml.state(), qml.density_matrix(wires=[1]), qml.purity(wires=[0]), qml.vn_entropy(wires=[0, 2])


def both_devices(n_wires):
    return KetFitQubit(wires=n_wires), qml.device("default.qubit", wires=n_wires)


def loss(results):
    """A number that depends on every element of all results."""
    return sum(qml.math.sum(qml.math.sin((1 + number) * result)) for number, result in enumerate(results))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [None, 3])
def test_values_and_torch_gradients_equal_default_qubit(seed, batch):
    found = []
    for device in both_devices(4):
        node = random_node(device, 4, 14, seed, measure_everything)
        tensors = [torch.tensor(each, requires_grad=True) for each in random_numbers(node, seed, batch)]
        results = node(*tensors)
        found.append([*results, *torch.autograd.grad(loss(results), tensors)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")  # in the gradients of default.qubit
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [None, 2])
def test_autograd_gradients_equal_default_qubit(seed, batch):
    found = []
    for device in both_devices(4):
        node = random_node(device, 4, 10, seed, measure_everything)
        arrays = [pnp.array(each, requires_grad=True) for each in random_numbers(node, seed, batch)]
        found.append([loss(node(*arrays)), *qml.grad(lambda *given, node=node: loss(node(*given)))(*arrays)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("batch", [None, 2])
def test_states_equal_default_qubit(batch):
    found = []
    for device in both_devices(3):
        node = random_node(device, 3, 12, 5, state_and_reduced)
        tensors = [torch.tensor(each, requires_grad=True) for each in random_numbers(node, 5, batch)]
        results = node(*tensors)
        real = torch.view_as_real(results[0]) * torch.tensor([1.0, 0.5])
        found.append([*results, *torch.autograd.grad(real.sum() + results[2].sum(), tensors)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")  # autograd's gradient of PennyLane's own cast
@pytest.mark.parametrize("interface", ["torch", "autograd"])
@pytest.mark.parametrize("complex_amplitudes", [False, True])
def test_gradients_of_batched_amplitudes_equal_backpropagation(interface, complex_amplitudes):
    rng = np.random.default_rng(0)
    amplitudes = rng.normal(size=(3, 8)) + 1j * complex_amplitudes * rng.normal(size=(3, 8))
    amplitudes = amplitudes if complex_amplitudes else amplitudes.real
    angles = rng.normal(size=(2, 3, 3))

    def circuit(features, weights):
        qml.AmplitudeEmbedding(features, wires=range(3), normalize=True)
        qml.StronglyEntanglingLayers(weights, wires=range(3))
        return qml.expval(qml.Z(0)), qml.probs(wires=[1, 2])

    found = []
    for device in both_devices(3):
        node = qml.QNode(circuit, device, interface=interface)
        if interface == "torch":
            tensors = [torch.tensor(each, requires_grad=True) for each in (amplitudes, angles)]
            found.append([each.numpy() for each in torch.autograd.grad(loss(node(*tensors)), tensors)])
        else:
            arrays = [pnp.array(each, requires_grad=True) for each in (amplitudes, angles)]
            found.append(qml.grad(lambda *given, node=node: loss(node(*given)))(*arrays))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_amplitudes_on_some_wires_are_broadcast_over_angles():
    def circuit(features, angles):
        qml.StatePrep(features, wires=["b"])
        qml.AngleEmbedding(angles, wires=["a", "b"], rotation="Y")
        return qml.expval(qml.Z("b"))

    amplitudes, angles = np.array([0.6, 0.8]), np.random.default_rng(1).normal(size=(4, 2))
    ours, theirs = (
        qml.QNode(circuit, device)(amplitudes, angles)
        for device in (KetFitQubit(wires=["a", "b"]), qml.device("default.qubit", wires=["a", "b"]))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("wires", [["x", 7, -1, "q"], None])
def test_any_wire_labels_give_the_same_state(wires):
    labels = ["q", "x", 7, -1]
    nodes = [random_node(device, 4, 12, 3, qml.probs, labels) for device in both_devices(wires)]
    numbers = random_numbers(nodes[0], 3)
    ours, theirs = (node(*numbers) for node in nodes)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_jacobian_of_autograd_and_vector_products_agree_with_torch():
    device = KetFitQubit(wires=2)

    @qml.qnode(device, interface=None)
    def circuit(x, y):
        qml.RX(x, wires=0)
        qml.IsingXX(y, wires=[0, 1])
        return qml.probs(wires=[0, 1])

    x, y = pnp.array(0.3, requires_grad=True), pnp.array(0.7, requires_grad=True)
    ours = qml.jacobian(qml.QNode(circuit.func, device))(x, y)
    tensors = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    theirs = torch.autograd.functional.jacobian(qml.QNode(circuit.func, qml.device("default.qubit")), tensors)
    np.testing.assert_allclose(ours, [each.numpy() for each in theirs], atol=1e-12)


def test_device_methods_take_a_single_tape():
    device = KetFitQubit(wires=1)
    tape = qml.tape.QuantumScript([qml.RX(0.4, 0)], [qml.expval(qml.Z(0)), qml.expval(qml.Y(0))])
    results, jacobian = device.execute_and_compute_derivatives(tape)
    np.testing.assert_allclose(results, [np.cos(0.4), -np.sin(0.4)])
    np.testing.assert_allclose(jacobian, [-np.sin(0.4), -np.cos(0.4)])
    results, product = device.execute_and_compute_vjp(tape, (2.0, 1.0))
    np.testing.assert_allclose(product, [-2 * np.sin(0.4) - np.cos(0.4)])
    assert device.compute_vjp(tape, (np.array([2.0, 0.0]), np.array([0.0, 1.0])))[0].shape == (2,)
    with device.tracker:
        device.execute(tape)
    assert device.tracker.totals["simulations"] == 1


def test_torch_gradients_of_second_order_equal_default_qubit():
    def circuit(angles):
        qml.BasicEntanglerLayers(angles, wires=range(2), rotation=qml.RX)
        return qml.expval(qml.Z(0) @ qml.Z(1))

    angles = torch.tensor([[0.3, 1.1], [0.2, -0.4]], dtype=torch.float64)
    ours, theirs = (torch.autograd.functional.hessian(qml.QNode(circuit, device), angles) for device in both_devices(2))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("method", ["best", "backprop"])
def test_autograd_gradients_of_second_order_equal_default_qubit(method):
    def circuit(angles):
        qml.RX(angles[0], wires=0)
        qml.RY(angles[1], wires=0)
        return qml.expval(qml.Z(0))

    angles = pnp.array([0.3, 0.5])
    ours, theirs = (
        qml.jacobian(qml.grad(qml.QNode(circuit, device, diff_method=method, max_diff=2)))(angles)
        for device in both_devices(1)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("interface", ["torch", "autograd"])
def test_coefficients_of_nested_sums_are_differentiated(interface):
    def circuit(numbers):
        qml.RX(numbers[0], 0)
        inner = qml.sum(qml.s_prod(numbers[1], qml.Hadamard(0)), qml.Z(1))
        return qml.expval(qml.sum(qml.s_prod(numbers[2], inner), qml.s_prod(numbers[1], qml.Projector([1], 0))))

    if interface == "torch":
        numbers = torch.tensor([0.4, 0.5, -2.0], dtype=torch.float64, requires_grad=True)
        ours, theirs = (torch.autograd.grad(qml.QNode(circuit, each)(numbers), numbers)[0] for each in both_devices(2))
    else:
        numbers = pnp.array([0.4, 0.5, -2.0], requires_grad=True)
        ours, theirs = (qml.grad(qml.QNode(circuit, each))(numbers) for each in both_devices(2))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_coefficients_of_an_observable_are_differentiated():
    coefficients = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)

    def circuit(given):
        qml.RX(0.3, wires=0)
        return qml.expval(qml.Hamiltonian(given, [qml.Z(0), qml.X(0) @ qml.Z(1)]))

    ours, theirs = (
        torch.autograd.grad(qml.QNode(circuit, device)(coefficients), coefficients)[0] for device in both_devices(2)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("measure", [qml.expval, qml.var])
@pytest.mark.parametrize("observable", [qml.Z(0), qml.Projector([1], 0)], ids=["word", "projector"])
def test_coefficient_of_one_is_differentiated(measure, observable):
    def circuit(coefficient, angle):
        qml.RX(angle, wires=0)
        return measure(coefficient * observable)

    results = []
    for device in both_devices(1):
        values = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.4)]
        results.append(torch.autograd.grad(qml.QNode(circuit, device)(*values), values))
    torch.testing.assert_close(*results)


def test_integer_parameters_are_differentiated_as_floats():
    def circuit(bits, turns, angle):
        qml.BasisState(bits, wires=[0, 1])
        qml.RX(turns[1] * angle, wires=0)
        qml.RY(turns[1], wires=1)
        qml.CNOT(wires=[0, 1])
        return qml.expval(qml.Z(1))

    arguments = pnp.array([1, 0]), pnp.array([0, 1]), pnp.array(0.3)
    ours, theirs = (qml.jacobian(qml.QNode(circuit, device), argnums=2)(*arguments) for device in both_devices(2))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_single_precision_is_close():
    double, single = KetFitQubit(wires=3), KetFitQubit(wires=3, c_dtype=np.complex64)
    nodes = [random_node(device, 3, 12, 1, lambda: qml.expval(qml.Z(0))) for device in (double, single)]
    results = [node(*random_numbers(nodes[0], 1)) for node in nodes]
    assert results[1].dtype == np.float32
    np.testing.assert_allclose(*results, atol=1e-5)
    shots = qml.set_shots(nodes[1], 20_000)(*random_numbers(nodes[0], 1))
    np.testing.assert_allclose(shots, results[0], atol=0.05)


def test_sparse_hamiltonian_is_measured_and_differentiated_by_the_parameter_shift():
    matrix = qml.Hamiltonian([0.5, 1.0], [qml.Z(0), qml.X(1)]).sparse_matrix()
    device = KetFitQubit(wires=2)

    @qml.qnode(device)
    def circuit(angle):
        qml.RY(angle, wires=0)
        return qml.expval(qml.SparseHamiltonian(matrix, wires=[0, 1]))

    assert float(circuit(0.3)) == pytest.approx(0.5 * np.cos(0.3))
    assert float(qml.grad(circuit)(pnp.array(0.3))) == pytest.approx(-0.5 * np.sin(0.3))


@pytest.mark.parametrize("seed", range(3))
def test_counts_follow_the_exact_distribution(seed):
    device = KetFitQubit(wires=3, seed=seed)
    node = random_node(device, 3, 12, seed, lambda: (qml.counts(all_outcomes=True), qml.probs(wires=[1])))
    exact = random_node(device, 3, 12, seed, qml.probs)
    numbers = random_numbers(node, seed)
    counts, probabilities = qml.set_shots(node, 20_000)(*numbers)
    assert_frequencies([counts[f"{outcome:03b}"] for outcome in range(8)], exact(*numbers))
    assert probabilities.sum() == pytest.approx(1)


def test_shots_depend_on_the_seed_alone():
    def samples(seed):
        device = KetFitQubit(wires=2, seed=seed)

        @qml.set_shots((5, 7))
        @qml.qnode(device)
        def circuit():
            qml.Hadamard(0)
            return qml.sample(), qml.expval(qml.X(1) @ qml.Z(0))

        return circuit()

    (first, _), (second, _) = samples(3)
    assert first.shape == (5, 2) and second.shape == (7, 2)
    assert (samples(3)[1][0] == second).all()
    assert (samples(4)[1][0] != second).any()


def test_shots_of_a_batch_are_near_exact_values():
    device = KetFitQubit(wires=2, seed=0)

    @qml.qnode(device)
    def circuit(angles):
        qml.RX(angles, wires=0)
        return qml.expval(qml.Z(0)), qml.var(qml.Z(0))

    angles = np.linspace(0, 3, 5)
    for exact, shot in zip(circuit(angles), qml.set_shots(circuit, 40_000)(angles), strict=True):
        np.testing.assert_allclose(shot, exact, atol=0.03)


def test_gradient_from_shots_is_the_parameter_shift():
    device = KetFitQubit(wires=1, seed=0)

    @qml.set_shots(50_000)
    @qml.qnode(device)
    def circuit(angle):
        qml.RX(angle, wires=0)
        return qml.expval(qml.Z(0))

    assert float(qml.grad(circuit)(pnp.array(0.8))) == pytest.approx(-np.sin(0.8), abs=0.02)


@pytest.mark.parametrize("shots", [None, 40_000])
def test_measurement_before_the_end_is_deferred(shots):
    def circuit(angle):
        qml.RY(angle, wires=0)
        outcome = qml.measure(0)
        qml.cond(outcome, qml.RX)(0.4, wires=1)
        return qml.expval(qml.Z(1)), qml.expval(outcome)

    ours = qml.set_shots(qml.QNode(circuit, KetFitQubit(wires=3, seed=1)), shots)(0.9)
    theirs = qml.QNode(circuit, qml.device("default.qubit"))(0.9)
    np.testing.assert_allclose(ours, theirs, atol=1e-9 if shots is None else 0.02)


def test_batches_that_the_simulator_does_not_know_are_split():
    unitaries = np.stack([qml.RX.compute_matrix(angle) for angle in (0.1, 0.7)])

    def circuit(angles):
        qml.RY(angles, wires=1)
        qml.QubitUnitary(unitaries, wires=0)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1))

    for ours, theirs in zip(
        *(qml.QNode(circuit, device)(np.array([0.2, 0.3])) for device in both_devices(2)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("angles", [np.array([0.1, 0.7, -2.0]), torch.tensor([0.1, 0.7, -2.0], dtype=torch.double)])
def test_batches_of_decompositions_that_branch_on_the_angle_are_split(angles):
    def circuit(angles):
        qml.RX(0.4, 0)
        qml.FermionicSWAP(angles, wires=[0, 1])
        return qml.probs(wires=[1, 0])

    ours, theirs = (qml.QNode(circuit, device)(angles) for device in both_devices(2))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_batch_of_no_samples_has_no_results():
    @qml.qnode(qml.device("ketfit.qubit", wires=2))
    def circuit(angles):
        qml.AngleEmbedding(angles, wires=[0, 1])
        qml.RX(angles[:, 0], 0)
        return qml.expval(qml.Z(0)), qml.probs(wires=[1, 0])

    angles = torch.zeros(0, 2, requires_grad=True)
    means, probabilities = circuit(angles)
    assert (means.shape, probabilities.shape) == ((0,), (0, 4))
    (means.sum() + probabilities.sum()).backward()
    assert angles.grad.shape == (0, 2)


def test_batches_that_pennylane_cannot_decompose_are_split():
    def circuit(angles):
        qml.Hadamard(0)
        qml.Hadamard(1)
        qml.ctrl(qml.RZ(angles, wires=3), control=[0, 1, 2], control_values=[1, 0, 0])
        qml.ctrl(qml.RY(angles, wires=3), control=[0, 1, 2], control_values=[1, 0, 0])
        return qml.expval(qml.Z(3))

    ours, theirs = (qml.QNode(circuit, device)(np.array([0.2, 1.3])) for device in both_devices(4))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Snapshots are not supported:UserWarning")  # they take a tape each
def test_snapshots_are_taken():
    @qml.qnode(KetFitQubit(wires=1))
    def circuit():
        qml.Snapshot("before", measurement=qml.expval(qml.Z(0)))
        qml.PauliX(0)
        return qml.expval(qml.Z(0))

    found = qml.snapshots(circuit)()
    assert (found["before"], found["execution_results"]) == (1.0, -1.0)


def trainable_matrix():
    qml.QubitUnitary(torch.eye(4, dtype=torch.complex128).requires_grad_(), wires=[0, 1])
    return qml.expval(qml.Z(0))


def density_matrix_preparation():
    qml.QubitDensityMatrix(np.eye(2) / 2, wires=[0])
    return qml.expval(qml.Z(0))


def postselection():
    qml.Hadamard(0)
    qml.measure(0, postselect=1)
    return qml.expval(qml.Z(0))


def not_unitary():
    qml.QubitUnitary(np.ones((2, 2)), wires=0)
    return qml.expval(qml.Z(0))


def tensor_on_another_device():
    qml.RX(torch.zeros((), device="meta"), wires=0)
    return qml.expval(qml.Z(0))


def complex_angle():
    qml.RX(np.array(0.3j), wires=0)
    return qml.expval(qml.Z(0))


@pytest.mark.parametrize(
    ("circuit", "error", "message"),
    [
        (trainable_matrix, DeviceError, "gradient of the matrix of QubitUnitary on 2 wires"),
        (density_matrix_preparation, DeviceError, "(?s)QubitDensityMatrix.*not supported with ketfit.qubit"),
        (postselection, ValueError, "Postselection is not allowed"),
        (lambda: qml.sample(wires=0), DeviceError, "sample.*not accepted for analytic simulation on ketfit.qubit"),
        (lambda: qml.expval(qml.Z(9)), qml.exceptions.WireError, r"not found on the device: \{9\}"),
        (not_unitary, DeviceError, "is not unitary"),
        (tensor_on_another_device, DeviceError, "computes on the CPU and a parameter is on meta"),
        (complex_angle, DeviceError, "complex; pass its real part"),
    ],
)
def test_unsupported_circuit_is_refused_by_name(circuit, error, message):
    with pytest.raises(error, match=message):
        qml.QNode(circuit, KetFitQubit(wires=4), interface="torch")()


def test_state_from_shots_is_refused():
    node = qml.set_shots(qml.QNode(lambda: qml.density_matrix(wires=0), KetFitQubit(wires=1)), 10)
    with pytest.raises(DeviceError, match="not accepted with finite shots on ketfit.qubit"):
        node()


def test_circuit_without_wires_is_refused():
    with pytest.raises(DeviceError, match="circuits without wires"):
        qml.QNode(lambda: qml.state(), KetFitQubit())()


def test_batches_of_different_sizes_are_refused():
    tape = qml.tape.QuantumScript([qml.RX(np.zeros(2), 0), qml.RX(np.zeros(3), 0)], [qml.expval(qml.Z(0))])
    with pytest.raises(DeviceError, match=r"broadcast over \[2, 3\] samples"):
        KetFitQubit(wires=1).execute(tape)
    tape = qml.tape.QuantumScript([qml.StatePrep(np.eye(2), 0), qml.RX(np.zeros(3), 0)], [qml.expval(qml.Z(0))])
    with pytest.raises(DeviceError, match="prepares 2 states for a batch of 3"):
        KetFitQubit(wires=1).execute(tape)


def test_options_that_the_device_does_not_have_are_refused():
    with pytest.raises(DeviceError, match="use numpy.complex128 or numpy.complex64"):
        KetFitQubit(wires=1, c_dtype=float)
    with pytest.raises(DeviceError, match="c_dtype='no'"):
        KetFitQubit(wires=1, c_dtype="no")
    with pytest.raises(DeviceError, match="seed='local'"):
        KetFitQubit(wires=1, seed="local")
    device = KetFitQubit(wires=1)
    with pytest.raises(DeviceError, match="option max_workers not present"):
        device.setup_execution_config(ExecutionConfig(device_options={"max_workers": 2}))
    with pytest.raises(DeviceError, match="mcm_method one-shot not supported on ketfit.qubit"):
        device.setup_execution_config(ExecutionConfig(mcm_config={"mcm_method": "one-shot"}))
    node = qml.QNode(lambda angle: qml.expval(qml.RX(angle, 0) @ qml.Z(0)), device, diff_method="adjoint", max_diff=2)
    with pytest.raises(QuantumFunctionError, match="does not support adjoint"):
        node(pnp.array(0.1))


JAX = """
import warnings
warnings.simplefilter("ignore")
import jax, numpy as np, pennylane as qml
from ketfit.interop.pennylane import KetFitQubit
jax.config.update("jax_enable_x64", True)

def circuit(features, weights):
    qml.AngleEmbedding(features, wires=range(3))
    qml.StronglyEntanglingLayers(weights, wires=range(3))
    return qml.expval(qml.Z(0)), qml.probs(wires=[1, 2])

rng = np.random.default_rng(0)
arguments = [jax.numpy.array(rng.normal(size=shape)) for shape in ((4, 3), (2, 3, 3))]
found = []
for device in (KetFitQubit(wires=3), qml.device("default.qubit", wires=3)):
    node = qml.QNode(circuit, device)
    loss = lambda *given: sum(jax.numpy.sin(each).sum() for each in node(*given))
    for function in (loss, jax.jit(loss)):
        found.append([function(*arguments), *jax.grad(function, argnums=(0, 1))(*arguments)])
    rows = lambda given: node(given, arguments[1])[1]
    found[-1].append(jax.jacrev(rows)(arguments[0]))
    found[-2].append(jax.jacrev(jax.jit(rows))(arguments[0]))
for values in found[1:]:
    for one, other in zip(values, found[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
print("equal")
"""


@pytest.mark.slow
def test_jax_gradients_equal_default_qubit():
    assert subprocess.run([sys.executable, "-c", JAX], check=True, capture_output=True, text=True).stdout == "equal\n"


def test_old_pennylane_is_refused(monkeypatch):
    package = importlib.import_module("ketfit.interop.pennylane")
    with monkeypatch.context() as patch:
        patch.delattr(qml, "CompilePipeline")
        with pytest.raises(MissingExtraError, match=r"too old.*pip install 'pennylane>=0\.44'"):
            importlib.reload(package)
    importlib.reload(package)


def test_entry_point_names_the_device():
    found = importlib.metadata.entry_points(group="pennylane.plugins", name="ketfit.qubit")
    assert {each.value for each in found} == {"ketfit.interop.pennylane:KetFitQubit"}
    assert isinstance(qml.device("ketfit.qubit", wires=2), KetFitQubit)


@pytest.mark.slow
def test_importing_ketfit_imports_no_pennylane():
    code = "import ketfit.interop, ketfit.cli.main, sys; print('pennylane' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
