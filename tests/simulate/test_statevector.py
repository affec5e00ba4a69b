from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import Pauli, Statevector
from qiskit_aer import AerSimulator
from qiskit_aer.library import SetStatevector
from torch import Tensor

from ketfit import simulate
from ketfit.circuit import Angle, Circuit, cx, encoder_circuit, reuploading_circuit, ring_layers, ry
from ketfit.circuit.export import to_pennylane, to_qiskit
from ketfit.errors import CircuitError, ConfigError, InputError
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.statevector import statevector_expectation
from tests.circuits import random_angles, random_circuit, reference_expectation, reference_state

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
NAMES = ("weights", "inputs", "initial")
PAPER = reuploading_circuit(10, n_reuploads=2, reupload_layers=2, main_layers=3, connectivity=2)
# Qubit 0 is read; weight 1 turns a qubit that nothing carries to qubit 0, weight 2 comes after the last CNOT to it.
CONE = Circuit.from_gates(
    3,
    [ry(k, Angle("input", k)) for k in range(3)]
    + [ry(0, Angle("weight", 0)), ry(2, Angle("weight", 1)), cx(1, 0), ry(1, Angle("weight", 2)), cx(0, 2)],
)

expectation = simulate.expectation


@pytest.fixture(params=["native", "torch"], autouse=True)
def engine(request, monkeypatch):
    """Run every test with both engines."""
    monkeypatch.setattr(f"{__name__}.expectation", functools.partial(simulate.expectation, engine=request.param))
    return request.param


def random_tensors(circuit: Circuit, batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return weights, inputs and normalised initial amplitudes for `circuit`."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-np.pi, np.pi, circuit.n_weights)
    inputs = rng.uniform(-np.pi, np.pi, (batch, circuit.n_inputs))
    initial = rng.normal(size=(batch, 2**circuit.n_qubits))
    initial /= np.linalg.norm(initial, axis=1, keepdims=True)
    return [torch.tensor(array, dtype=dtype) for array in (weights, inputs, initial)]


def some_order(circuit: Circuit, seed: int) -> tuple[int, ...]:
    """Return about half of the qubits, shuffled."""
    rng = np.random.default_rng(seed)
    return tuple(rng.permutation(circuit.n_qubits)[: 1 + circuit.n_qubits // 2].tolist())


def wanting(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def gradients(values: Tensor, tensors: list[Tensor], seed: int = 0) -> list[np.ndarray]:
    """Return the gradients of a random linear form of `values`, fixed by seed and shape, as float64 arrays."""
    form = torch.tensor(np.random.default_rng(seed).normal(size=tuple(values.shape)), dtype=values.dtype)
    return [gradient.double().numpy() for gradient in torch.autograd.grad((form.to(values) * values).sum(), tensors)]


def by_reference(circuit: Circuit, tensors: list[Tensor], qubits: tuple[int, ...]) -> np.ndarray:
    weights, inputs, initial = (tensor.detach().double().numpy() for tensor in tensors)
    samples = zip(inputs, initial, strict=True)
    return np.array([reference_expectation(reference_state(circuit, weights, x, psi), qubits) for x, psi in samples])


def by_pennylane(circuit: Circuit, tensors: list[Tensor], qubits: tuple[int, ...]) -> Tensor:
    device = qml.device("default.qubit", wires=circuit.n_qubits)
    node = qml.QNode(to_pennylane(circuit, qubits), device, interface="torch", diff_method="backprop")
    return torch.stack(node(*tensors), dim=1)


def by_aer(runs: list[tuple[Circuit, np.ndarray, np.ndarray, np.ndarray]], qubits: tuple[int, ...]) -> np.ndarray:
    """Return <Z> of `qubits` for each (circuit, weights, inputs of one sample, amplitudes of one sample)."""
    loaded = []
    for circuit, weights, inputs, initial in runs:
        converted = QuantumCircuit(circuit.n_qubits)
        converted.append(SetStatevector(Statevector(initial).reverse_qargs()), range(circuit.n_qubits))
        converted.compose(to_qiskit(circuit, weights, inputs), inplace=True)
        for qubit in qubits:
            converted.save_expectation_value(Pauli("Z"), [qubit], label=str(qubit))
        loaded.append(converted)
    result = AerSimulator(method="statevector", max_parallel_threads=1).run(loaded).result()
    return np.array([[result.data(run)[str(qubit)] for qubit in qubits] for run in range(len(runs))])


def untied(circuit: Circuit) -> tuple[Circuit, list[Angle]]:
    """Return the circuit with one input per rotation, and the original angle of each rotation."""
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    indices = itertools.count()
    gates = [gate if gate.angle is None else ry(gate.target, Angle("input", next(indices))) for gate in circuit.gates]
    return Circuit.from_gates(circuit.n_qubits, gates), angles


def shifted(angles: list[Angle], weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return the values of `angles` with one shifted by pi/2 (first half of the rows) or -pi/2 in each row."""
    values = np.array([(weights if angle.source == "weight" else inputs)[angle.index] for angle in angles])
    shifts = np.pi / 2 * np.eye(len(angles))
    return np.concatenate([values + shifts, values - shifts])


def shift_rule(circuit: Circuit, angles: list[Angle], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients of the weights and of one sample's inputs, from <Z> at each row of `shifted`."""
    forwards, backwards = np.split(values, 2)
    sums = {"weight": np.zeros(circuit.n_weights), "input": np.zeros(circuit.n_inputs)}
    for angle, slope in zip(angles, (forwards - backwards) / 2, strict=True):
        sums[angle.source][angle.index] += slope
    return sums["weight"], sums["input"]


# --- comparison with other simulators -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_qubits", range(2, 11))
def test_values_and_gradients_match_pennylane(n_qubits, engine):
    circuit = random_circuit(n_qubits, n_gates=12 + 4 * n_qubits, seed=n_qubits, n_inputs=3)
    qubits = some_order(circuit, seed=n_qubits)
    ours = wanting(random_tensors(circuit, seed=n_qubits))
    theirs = wanting(ours)
    values, expected = expectation(circuit, *ours, qubits), by_pennylane(circuit, theirs, qubits)
    assert values.shape == (3, len(qubits))
    np.testing.assert_allclose(values.detach(), expected.detach(), rtol=0, atol=1e-10)
    slopes = gradients(expected, theirs)
    for name, mine, other in zip(NAMES, gradients(values, ours), slopes, strict=True):
        assert np.abs(other).max() > 1e-3, f"all gradients to {name} vanish, which would hide an error"
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-10, err_msg=name)
    form = torch.tensor(np.random.default_rng(0).normal(size=tuple(values.shape)))
    found = simulate.expectation_and_gradients(circuit, *ours, qubits, cotangent=form, engine=engine)
    for mine, other in zip(found, (expected.detach(), *slopes), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-10)

    single = wanting([tensor.float() for tensor in ours])
    values = expectation(circuit, *single, qubits)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.detach(), expected.detach(), rtol=0, atol=1e-5)
    for name, mine, other in zip(NAMES, gradients(values, single), slopes, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("n_qubits", range(2, 11))
def test_values_match_aer(n_qubits):
    circuit = random_circuit(n_qubits, n_gates=15 + 5 * n_qubits, seed=100 + n_qubits)
    qubits = some_order(circuit, seed=n_qubits)
    weights, inputs, initial = random_tensors(circuit, seed=n_qubits)
    runs = [(circuit, weights.numpy(), x, psi) for x, psi in zip(inputs.numpy(), initial.numpy(), strict=True)]
    expected = by_aer(runs, qubits)
    np.testing.assert_allclose(expectation(circuit, weights, inputs, initial, qubits), expected, rtol=0, atol=1e-10)
    single = expectation(circuit, weights.float(), inputs.float(), initial.float(), qubits)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_qubits", [2, 5, 10])
def test_gradients_match_parameter_shift_of_aer(n_qubits):
    circuit = random_circuit(n_qubits, n_gates=16, seed=200 + n_qubits)
    ours = wanting(random_tensors(circuit, batch=1, seed=n_qubits))
    weights, inputs, initial = (tensor.detach().numpy() for tensor in ours)
    free, angles = untied(circuit)
    values = by_aer([(free, [], row, initial[0]) for row in shifted(angles, weights, inputs[0])], (0,))
    expected = shift_rule(circuit, angles, values[:, 0])
    expectation(circuit, *ours).sum().backward()
    np.testing.assert_allclose(ours[0].grad, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours[1].grad[0], expected[1], rtol=0, atol=1e-10)


def test_reuploading_circuit_matches_pennylane_and_aer():
    assert PAPER.gate_counts()["ry"] == 190
    qubits = (0, 7)
    ours = wanting(random_tensors(PAPER, batch=2))
    theirs = wanting(ours)
    values, expected = expectation(PAPER, *ours, qubits), by_pennylane(PAPER, theirs, qubits)
    np.testing.assert_allclose(values.detach(), expected.detach(), rtol=0, atol=1e-10)
    for name, mine, other in zip(NAMES, gradients(values, ours), gradients(expected, theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-10, err_msg=name)
    weights, inputs, initial = (tensor.detach().numpy() for tensor in ours)
    runs = [(PAPER, weights, x, psi) for x, psi in zip(inputs, initial, strict=True)]
    np.testing.assert_allclose(values.detach(), by_aer(runs, qubits), rtol=0, atol=1e-10)
    single = expectation(PAPER, *(tensor.detach().float() for tensor in ours), qubits)
    np.testing.assert_allclose(single, expected.detach(), rtol=0, atol=1e-5)


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wants", [w for w in itertools.product((False, True), repeat=3) if any(w)])
def test_gradients_every_combination_matches_finite_differences(wants):
    circuit = random_circuit(3, n_gates=18, seed=3)
    tensors = [
        tensor.requires_grad_(want) for tensor, want in zip(random_tensors(circuit, batch=2), wants, strict=True)
    ]
    assert torch.autograd.gradcheck(lambda *given: expectation(circuit, *given, (2, 0)), tensors)
    expectation(circuit, *tensors, (2, 0)).sum().backward()
    assert [tensor.grad is not None for tensor in tensors] == list(wants)


@pytest.mark.parametrize(
    "circuit", [encoder_circuit(4, 2, 2), reuploading_circuit(3, 2, 1, 1, 2), reuploading_circuit(6, 2, 2, 3, 2)]
)
def test_gradients_match_parameter_shift_rule(circuit):
    free, angles = untied(circuit)
    weights, inputs, initial = wanting(random_tensors(circuit, batch=1, seed=5))
    rows = torch.tensor(shifted(angles, weights.detach().numpy(), inputs.detach().numpy()[0]))
    with torch.no_grad():
        values = expectation(free, rows.new_zeros(0), rows, initial.expand(len(rows), -1))
    expected = shift_rule(circuit, angles, values[:, 0].numpy())
    expectation(circuit, weights, inputs, initial).sum().backward()
    np.testing.assert_allclose(weights.grad, expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(inputs.grad[0], expected[1], rtol=0, atol=1e-12)
    assert np.abs(expected[0]).max() > 1e-3


def test_backward_twice_gives_same_gradients():
    tensors = wanting(random_tensors(PAPER))
    total = expectation(PAPER, *tensors, (3, 1)).sum()
    first = torch.autograd.grad(total, tensors, retain_graph=True)
    second = torch.autograd.grad(total, tensors)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
        assert one.abs().max() > 0


def test_gradient_that_can_be_differentiated_equals_adjoint():
    tensors = wanting(random_tensors(PAPER))
    total = expectation(PAPER, *tensors, (3, 1)).square().sum()
    adjoint = torch.autograd.grad(total, tensors, retain_graph=True)
    recorded = torch.autograd.grad(total, tensors, create_graph=True)
    for one, other in zip(recorded, adjoint, strict=True):
        assert one.requires_grad
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_second_derivative_of_rotations_with_signs_raises_input_error(engine):
    weights, inputs, _ = wanting(random_tensors(PAPER))
    signs = torch.ones(len(inputs), PAPER.gate_counts()["ry"], dtype=torch.int8)
    value = statevector_expectation(CircuitBatch(PAPER, weights, inputs), (0,), signs=signs, engine=engine).sum()
    with pytest.raises(InputError, match="differentiable once; leave create_graph=True out"):
        torch.autograd.grad(value, weights, create_graph=True)


@pytest.mark.parametrize("circuit", [PAPER, CONE, Circuit(3, (), 2, 2)])
@pytest.mark.parametrize("batch", [1, 3])  # one sample needs no copy to be contiguous either way
def test_arguments_are_not_modified(circuit, batch):
    tensors = wanting(random_tensors(circuit, batch))
    before = [tensor.detach().clone() for tensor in tensors]
    versions = [tensor._version for tensor in tensors]
    values = expectation(circuit, *tensors, (1, 2))
    kept = values.detach().clone()
    values.square().sum().backward()
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
    assert [tensor._version for tensor in tensors] == versions
    assert torch.equal(values, kept)


def test_weight_changed_before_backward_raises_torch_error():
    weights, inputs, _ = wanting(random_tensors(PAPER))
    total = expectation(PAPER, weights, inputs).sum()
    with torch.no_grad():
        weights += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_gradients_after_inference_mode_work():
    circuit = random_circuit(3, n_gates=14, seed=314159)  # a circuit of its own, so that its plan is not cached yet
    tensors = random_tensors(circuit)
    with torch.inference_mode():
        values = expectation(circuit, *tensors)
    again = wanting(tensors)
    result = expectation(circuit, *again)
    assert torch.equal(result, values)
    result.sum().backward()
    assert again[0].grad.abs().max() > 0


# --- shapes -------------------------------------------------------------------------------------------------------


def test_batch_equals_loop_over_samples():
    ours, looped = (wanting(random_tensors(PAPER, batch=4)) for _ in range(2))
    values = expectation(PAPER, *ours, (0, 5))
    weights, inputs, initial = looped
    one_by_one = [expectation(PAPER, weights, inputs[k : k + 1], initial[k : k + 1], (0, 5)) for k in range(4)]
    np.testing.assert_allclose(values.detach(), torch.cat(one_by_one).detach(), rtol=0, atol=1e-13)
    pairs = zip(gradients(values, ours), gradients(torch.cat(one_by_one), looped), strict=True)
    for mine, other in pairs:
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("radius", [0.0, 1e-3, 0.5, 7.0])
def test_unnormalized_initial_scales_with_squared_norm(radius):
    circuit = random_circuit(4, n_gates=25, seed=8)
    weights, inputs, initial = random_tensors(circuit)
    values = expectation(circuit, weights, inputs, initial, (1, 3))
    scaled = expectation(circuit, weights, inputs, radius * initial, (1, 3))
    np.testing.assert_allclose(scaled, radius**2 * values, rtol=1e-12, atol=0)


def test_without_initial_starts_from_zero_state():
    circuit = random_circuit(3, n_gates=20, seed=9)
    weights, inputs, initial = wanting(random_tensors(circuit, batch=2))
    zero = torch.zeros_like(initial)
    zero[:, 0] = 1
    values = expectation(circuit, weights, inputs, qubits=(0, 1, 2))
    assert torch.equal(values, expectation(circuit, weights, inputs, zero, (0, 1, 2)))
    np.testing.assert_allclose(values.detach(), by_reference(circuit, [weights, inputs, zero], (0, 1, 2)), atol=1e-12)
    for mine, other in zip(
        gradients(values, [weights, inputs]),
        gradients(expectation(circuit, weights, inputs, zero, (0, 1, 2)), [weights, inputs]),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


def test_inputs_none_only_for_circuit_without_inputs():
    circuit = ring_layers(3, 2, 2)
    weights, _, initial = random_tensors(circuit, batch=5)
    values = expectation(circuit, weights, initial=initial, qubits=(2, 0))
    assert torch.equal(values, expectation(circuit, weights, torch.zeros(5, 0, dtype=torch.float64), initial, (2, 0)))
    np.testing.assert_allclose(values, by_reference(circuit, [weights, torch.zeros(5, 0), initial], (2, 0)), atol=1e-12)
    alone = expectation(circuit, weights)
    assert alone.shape == (1, 1)
    state = reference_state(circuit, weights.numpy(), [])
    np.testing.assert_allclose(alone[0], reference_expectation(state, (0,)), atol=1e-12)


@pytest.mark.parametrize("has_initial", [False, True])
def test_empty_batch_returns_empty(has_initial):
    circuit = reuploading_circuit(3, 1, 1, 1, 1)
    weights, inputs, initial = wanting(random_tensors(circuit, batch=0))
    values = expectation(circuit, weights, inputs, initial if has_initial else None, (0, 2))
    assert values.shape == (0, 2)
    values.sum().backward()
    assert torch.equal(weights.grad, torch.zeros_like(weights))
    assert inputs.grad.shape == inputs.shape


def test_circuit_without_gates_measures_amplitudes():
    circuit = Circuit.from_gates(2, [])
    initial = torch.tensor([[0.1, 0.2, 0.4, 0.8]], dtype=torch.float64, requires_grad=True)
    values = expectation(circuit, initial.new_zeros(0), initial=initial, qubits=(0, 1))
    np.testing.assert_allclose(values.detach(), [[0.01 + 0.04 - 0.16 - 0.64, 0.01 - 0.04 + 0.16 - 0.64]], atol=1e-15)
    values[0, 0].backward()
    np.testing.assert_allclose(initial.grad, [[0.2, 0.4, -0.8, -1.6]], atol=1e-15)


def test_single_rotation_gives_cosine():
    circuit = Circuit.from_gates(1, [ry(0, Angle("weight", 0))])
    for angle in (0.0, 0.3, math.pi / 2, -2.0, 100.0):
        weights = torch.tensor([angle], dtype=torch.float64, requires_grad=True)
        value = expectation(circuit, weights)
        value.backward()
        assert value.item() == pytest.approx(math.cos(angle), abs=1e-14)
        assert weights.grad.item() == pytest.approx(-math.sin(angle), abs=1e-14)


def test_noncontiguous_tensors_give_same_results():
    tensors = wanting(random_tensors(PAPER, batch=4))
    plain = expectation(PAPER, *tensors, (6, 2))
    strided = wanting(tensors)
    weights, inputs, initial = strided
    doubled = torch.stack([weights, weights], dim=1)[:, 0]
    columns = inputs.t().contiguous().t()
    wide = torch.cat([initial, initial], dim=1)[:, : initial.shape[1]]
    assert not any(tensor.is_contiguous() for tensor in (doubled, columns, wide))
    values = expectation(PAPER, doubled, columns, wide, (6, 2))
    assert torch.equal(values, plain)
    assert values.is_contiguous()
    for mine, other in zip(gradients(values, strided), gradients(plain, tensors), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-14)
    # A loss that hands back a transposed and expanded gradient.
    (one,) = torch.autograd.grad(expectation(PAPER, *tensors, (6, 2)).t().sum(), tensors[:1])
    (other,) = torch.autograd.grad(expectation(PAPER, *tensors, (6, 2)).clone().sum(), tensors[:1])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)


def test_expanded_tensors_sum_their_gradients():
    circuit = random_circuit(4, n_gates=30, seed=11)
    weights, inputs, initial = wanting(random_tensors(circuit, batch=1))
    values = expectation(circuit, weights, inputs.expand(5, -1), initial.expand(5, -1), (1,))
    single = expectation(circuit, weights, inputs, initial, (1,))
    np.testing.assert_allclose(values.detach(), single.detach().expand(5, 1), rtol=0, atol=1e-14)
    all_five = torch.autograd.grad(values.sum(), [weights, inputs, initial])
    only_one = torch.autograd.grad(single.sum(), [weights, inputs, initial])
    for five, one in zip(all_five, only_one, strict=True):
        np.testing.assert_allclose(five, 5 * one, rtol=0, atol=1e-13)
    same_angle = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    expectation(circuit, same_angle.expand(circuit.n_weights), inputs, initial).sum().backward()
    expanded = same_angle.detach().repeat(circuit.n_weights).requires_grad_()
    expectation(circuit, expanded, inputs, initial).sum().backward()
    assert same_angle.grad.item() == pytest.approx(expanded.grad.sum().item(), abs=1e-13)


def test_measured_qubits_keep_requested_order():
    circuit = random_circuit(4, n_gates=40, seed=12)
    tensors = random_tensors(circuit)
    every = expectation(circuit, *tensors, range(4))
    np.testing.assert_allclose(every, by_reference(circuit, tensors, (0, 1, 2, 3)), rtol=0, atol=1e-12)
    assert len({round(value, 6) for value in every[0].tolist()}) == 4, "equal columns would hide a wrong order"
    for count in range(1, 5):
        for qubits in itertools.permutations(range(4), count):
            mine = expectation(circuit, *tensors, qubits)
            np.testing.assert_allclose(mine, every[:, list(qubits)], rtol=0, atol=1e-13)
    assert torch.equal(expectation(circuit, *tensors, [2, 1]), expectation(circuit, *tensors, iter([2, 1])))
    assert torch.equal(expectation(circuit, *tensors), expectation(circuit, *tensors, (0,)))


# --- light cone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_light_cone_keeps_values_and_gradients(seed):
    circuit = random_circuit(5, n_gates=14, seed=seed)
    qubits = (seed % 5,)
    cone = circuit.light_cone(qubits)
    assert len(cone.gates) < len(circuit.gates)
    tensors = wanting(random_tensors(circuit, seed=seed))
    # Measuring every qubit keeps every gate, and the column of this one must not notice the others.
    whole = expectation(circuit, *tensors, (*qubits, *(q for q in range(5) if q not in qubits)))[:, :1]
    narrow = expectation(circuit, *tensors, qubits)
    np.testing.assert_allclose(narrow.detach(), whole.detach(), rtol=0, atol=1e-13)
    for mine, other in zip(gradients(narrow, tensors), gradients(whole, tensors), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-13)
    assert torch.equal(expectation(cone, *tensors, qubits), narrow)


def test_gradient_outside_light_cone_is_exactly_zero():
    weights, inputs, initial = wanting(random_tensors(CONE, seed=2))
    expectation(CONE, weights, inputs, initial, (0,)).sum().backward()
    assert weights.grad[0] != 0
    assert weights.grad[1:].tolist() == [0, 0]
    assert (inputs.grad[:, :2] != 0).all()
    assert inputs.grad[:, 2].tolist() == [0, 0, 0]


# --- properties ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n_qubits=st.integers(1, 6), angle=st.floats(-1e6, 1e6))
@settings(max_examples=40, deadline=None)
def test_expectations_are_within_minus_one_and_one(seed, n_qubits, angle):
    circuit = random_circuit(n_qubits, n_gates=20, seed=seed)
    weights, inputs, initial = random_tensors(circuit, seed=seed)
    weights[0] = angle
    values = expectation(circuit, weights, inputs, initial, range(n_qubits))
    assert values.abs().max() <= 1 + 1e-12
    np.testing.assert_allclose(
        values, by_reference(circuit, [weights, inputs, initial], range(n_qubits)), rtol=0, atol=1e-10
    )


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_full_turns_keep_expectations(seed):
    circuit = random_circuit(4, n_gates=20, seed=seed)
    weights, inputs, initial = random_tensors(circuit, seed=seed)
    turns = torch.tensor(np.random.default_rng(seed).integers(-3, 4, circuit.n_weights))
    turned_weights = weights + 2 * math.pi * turns.double()
    values = expectation(circuit, turned_weights, inputs, initial, range(4))
    np.testing.assert_allclose(values, expectation(circuit, weights, inputs, initial, range(4)), rtol=0, atol=1e-12)


def test_repeated_runs_are_equal_and_threads_agree():
    circuit = random_circuit(11, n_gates=20, seed=0)

    def once(threads: int) -> list[np.ndarray]:
        torch.set_num_threads(threads)
        tensors = wanting(random_tensors(circuit, batch=40, dtype=torch.float32))  # enough for torch to share the work
        values = expectation(circuit, *tensors, (0, 4))
        return [values.detach().double().numpy(), *gradients(values, tensors)]

    threads = torch.get_num_threads()
    try:
        one, again, two = once(1), once(1), once(2)
        two_again = once(2)
    finally:
        torch.set_num_threads(threads)
    for name, a, b, c, d in zip(("values", *NAMES), one, again, two, two_again, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{name}: one thread, twice")
        np.testing.assert_array_equal(c, d, err_msg=f"{name}: two threads, twice")
        np.testing.assert_allclose(a, c, rtol=0, atol=1e-6, err_msg=f"{name}: one thread and two")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_has_dtype_and_device_of_weights(device, dtype):
    circuit = random_circuit(3, n_gates=15, seed=1)
    tensors = wanting([tensor.to(device) for tensor in random_tensors(circuit, dtype=dtype)])
    values = expectation(circuit, *tensors, (1, 2))
    assert (values.dtype, values.device.type) == (dtype, device)
    values.sum().backward()
    for tensor in tensors:
        assert (tensor.grad.dtype, tensor.grad.device.type, tensor.grad.shape) == (dtype, device, tensor.shape)
    cpu = [tensor.detach().cpu() for tensor in tensors]
    np.testing.assert_allclose(values.detach().cpu(), by_reference(circuit, cpu, (1, 2)), rtol=0, atol=1e-5)


def test_autocast_keeps_precision():
    circuit = random_circuit(3, n_gates=15, seed=1)
    tensors = random_tensors(circuit, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = expectation(circuit, *tensors)
    assert torch.equal(values, expectation(circuit, *tensors))


def test_auto_engine_on_cpu_is_native():
    tensors = random_tensors(PAPER)
    assert torch.equal(expectation(PAPER, *tensors, engine="auto"), expectation(PAPER, *tensors, engine="native"))


# --- errors -------------------------------------------------------------------------------------------------------

PAIR = reuploading_circuit(2, 1, 1, 0, 1)  # 4 weights, 2 inputs
W, X, PSI = torch.zeros(4), torch.zeros(3, 2), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ((W[:3], X, PSI), r"weights has shape \(3,\); this circuit needs \(4,\)"),
        ((W[None], X, PSI), r"weights has shape \(1, 4\); this circuit needs \(4,\)"),
        ((W.sum(), X, PSI), r"weights has shape \(\); this circuit needs \(4,\)"),
        ((W, X[0], PSI), r"inputs has shape \(2,\); this circuit needs \(batch, 2\)"),
        ((W, X.t(), PSI), r"inputs has shape \(2, 3\); this circuit needs \(batch, 2\)"),
        ((W, X, PSI[0]), r"initial has shape \(4,\); this circuit needs \(batch, 4\)"),
        ((W, X, PSI[:, :3]), r"initial has shape \(3, 3\); this circuit needs \(batch, 4\)"),
        ((W, X[None], PSI), r"inputs has shape \(1, 3, 2\); this circuit needs \(batch, 2\)"),
        ((W, X.double(), PSI), "inputs is torch.float64 and weights are torch.float32; make them the same"),
        ((W.double(), X.double(), PSI), "initial is torch.float32 and weights are torch.float64; make them the same"),
        ((W.half(), X.half(), PSI.half()), r"weights is torch.float16; convert it with .float\(\)"),
        ((W.long(), X.long(), PSI.long()), r"weights is torch.int64; convert it with .float\(\)"),
        ((W, X, PSI.cdouble()), r"initial is torch.complex128; convert it"),
        ((W, X.to("meta"), PSI), "inputs is on meta and weights are on cpu; move them together"),
        ((W, X, PSI.to("meta")), "initial is on meta and weights are on cpu; move them together"),
        ((W.log().neg(), X, PSI), "weights holds a number that is not finite"),
        ((W, X * math.nan, PSI), r"inputs holds a number that is not finite \(NaN or infinity\)"),
        ((W, X, PSI.index_fill(1, torch.tensor([2]), -math.inf)), "initial holds a number that is not finite"),
        ((W, X, PSI[:2]), "inputs have a batch of 3 and initial of 2; they must be equal"),
        ((W, X[:1], PSI), "inputs have a batch of 1 and initial of 3; they must be equal"),
        ((W, None, PSI), r"this circuit reads 2 inputs; pass inputs of shape \(batch, 2\)"),
        ((W,), r"this circuit reads 2 inputs; pass inputs of shape \(batch, 2\)"),
    ],
)
def test_invalid_tensor_raises_named_input_error(tensors, message):
    with pytest.raises(InputError, match=message):
        expectation(PAIR, *tensors)


@pytest.mark.parametrize("unknown", ["", "Torch", None])
def test_unknown_engine_raises_config_error(unknown):
    with pytest.raises(ConfigError, match=f"unknown engine {unknown!r}; known are 'auto', 'native', 'torch', 'distri"):
        expectation(PAIR, W, X, engine=unknown)


@pytest.mark.parametrize(
    ("qubits", "message"),
    [
        ((), "name at least one qubit to measure"),
        ((2,), "qubit 2 cannot be measured; the circuit has qubits 0 to 1"),
        ((-1,), "qubit -1 cannot be measured"),
        ((1, 0, 1), r"a qubit is measured twice in \(1, 0, 1\); name each once"),
    ],
)
def test_invalid_qubit_raises_circuit_error(qubits, message):
    with pytest.raises(CircuitError, match=message):
        expectation(PAIR, W, X, qubits=qubits)


def test_reference_simulators_agree_on_random_angles():
    circuit = random_circuit(4, n_gates=24, seed=0)
    weights, inputs = random_angles(circuit, 0)
    state = reference_state(circuit, weights, inputs)
    assert np.linalg.norm(state) == pytest.approx(1, abs=1e-13)
    ours = expectation(circuit, torch.tensor(weights), torch.tensor(inputs[None]), qubits=range(4))
    np.testing.assert_allclose(ours[0], reference_expectation(state, range(4)), rtol=0, atol=1e-12)
