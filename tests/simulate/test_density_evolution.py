"""Density matrices of circuits of any gates with noise, against Qiskit Aer, finite differences and the kernel."""

from __future__ import annotations

from functools import reduce
from types import SimpleNamespace

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Angle, Circuit, Gate, Hermitian, PauliSum, Projector, reuploading_circuit
from ketfit.circuit.decomposition import decompose_three_qubit_gates
from ketfit.circuit.export import to_qiskit
from ketfit.circuit.gate import GATES
from ketfit.errors import InsufficientMemoryError
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_evolution import _group_gates, n_blocks
from ketfit.simulate.density_matrix import density_matrix_words
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.trajectories import trajectory_expectation
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import (
    random_complex_states,
    random_general_circuit,
    random_pauli_words,
    random_unitary,
    reference_statevector,
    without_wide_gates,
)
from tests.simulate.aer_reference import ALL, NOISES, run_aer_on_any_gates
from tests.simulate.dense_reference import random_tensors, values_and_gradients
from tests.simulate.statistical_assertions import assert_within_errors

MATRICES = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
NAMES = [name for name, gate in GATES.items() if gate.n_qubits < 3]
NARROW = without_wide_gates(random_general_circuit(3, 30, 11))


def dense(word: str, qubits: tuple[int, ...], n_qubits: int) -> np.ndarray:
    letters = dict(zip(qubits, word, strict=True))
    return reduce(np.kron, (MATRICES[letters.get(qubit, "I")] for qubit in range(n_qubits)))


def arguments(circuit: Circuit, batch: int, seed: int, amplitudes: str | None = None) -> list[Tensor | None]:
    """Return weights and inputs, and initial amplitudes that are "real", "complex" or None; all require gradients."""
    weights, inputs, initial = random_tensors(circuit, batch, seed=seed)
    if amplitudes == "complex":
        initial = torch.from_numpy(random_complex_states(batch, circuit.n_qubits, seed)).requires_grad_()
    return [weights, inputs, initial if amplitudes else None]


def assert_equals_aer(circuit: Circuit, tensors, noise: NoiseConfig, words) -> None:
    values = density_matrix_words(CircuitBatch(circuit, *tensors), words, noise).detach()
    weights, inputs, initial = (None if each is None else each.detach().numpy() for each in tensors)
    for row in range(len(values)):
        start = None if initial is None else initial[row]
        matrix = run_aer_on_any_gates(circuit, weights, inputs[row], start, noise)
        expected = [np.trace(dense(*word, circuit.n_qubits) @ matrix).real for word in words]
        np.testing.assert_allclose(values[row], expected, rtol=0, atol=1e-10)


def assert_words_of(matrix: np.ndarray, circuit: Circuit, tensors, noise: NoiseConfig) -> None:
    """Compare the means of words under noise with those of a density matrix of the first sample."""
    words = random_pauli_words(circuit.n_qubits, 12, 1)
    expected = [[np.trace(dense(*word, circuit.n_qubits) @ matrix).real for word in words]]
    values = density_matrix_words(CircuitBatch(circuit, *tensors), words, noise)
    np.testing.assert_allclose(values.detach(), expected, rtol=0, atol=1e-10)


def with_wide_gates(n_qubits: int) -> Circuit:
    """Return a random circuit with both kinds of gates on three qubits."""
    circuit = random_general_circuit(n_qubits, 12, 6)
    wide = [Gate("unitary", (2, 0, 1), matrix=random_unitary(3, 1)), Gate("ccx", (1, 2, 0)), Gate("rx", 2, [0.4])]
    return circuit.with_gates([*circuit.gates, *wide])


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("n_qubits", [1, 2, 3])
def test_each_channel_on_random_gates_matches_aer(n_qubits, noise):
    circuit = without_wide_gates(random_general_circuit(n_qubits, 20, n_qubits))
    assert_equals_aer(circuit, arguments(circuit, 1, 1), noise, random_pauli_words(n_qubits, 12, 1))


@pytest.mark.parametrize("amplitudes", [None, "real", "complex"])
@pytest.mark.parametrize("n_qubits", [1, 2, 4, 5])
def test_random_gates_from_any_state_match_aer(n_qubits, amplitudes):
    circuit = without_wide_gates(random_general_circuit(n_qubits, 14 * n_qubits, n_qubits))
    assert_equals_aer(circuit, arguments(circuit, 2, 2, amplitudes), ALL, random_pauli_words(n_qubits, 12, 2))


@pytest.mark.parametrize("amplitudes", [None, "real", "complex"])
def test_words_with_y_of_real_circuit_in_the_kernel_match_aer(amplitudes):
    circuit = random_circuit(3, 20, seed=1)
    assert_equals_aer(circuit, arguments(circuit, 2, 2, amplitudes), ALL, random_pauli_words(3, 12, 2))


@pytest.mark.parametrize("name", NAMES)
def test_each_gate_with_noise_matches_aer(name):
    gate = GATES[name]
    parameters = [Angle("weight", k) for k in range(gate.n_parameters)]
    gates = [Gate("u", q, [0.3 + q, 1.0, -0.4]) for q in range(2)]
    gates += [Gate(name, tuple(reversed(range(gate.n_qubits))), parameters), Gate("rxx", (0, 1), [0.9])]
    circuit = Circuit.from_gates(2, gates)
    weights = torch.tensor([0.8, -2.0, 1.7], dtype=torch.float64)[: circuit.n_weights]
    tensors = [weights, torch.zeros(1, 0, dtype=torch.float64), None]
    assert_equals_aer(circuit, tensors, ALL, random_pauli_words(2, 12, 3))


@pytest.mark.parametrize("noise", [ALL, NOISES["depolarizing of CNOTs"]], ids=["all", "depolarizing"])
def test_toffoli_with_noise_matches_aer_on_the_circuit_that_qiskit_decomposes(noise):
    gates = [Gate("h", 0), Gate("u", 1, [0.7, 0.2, 1.0]), Gate("ccx", (2, 0, 1)), Gate("rxx", (1, 2), [0.9])]
    circuit = Circuit.from_gates(3, [*gates, Gate("ccx", (0, 1, 2))])
    decomposed = Circuit.from_qiskit(to_qiskit(circuit).decompose("ccx"))
    assert decomposed.gate_counts()["cx"] == 12
    matrix = run_aer_on_any_gates(decomposed, np.zeros(0), np.zeros(0), None, noise)
    assert_words_of(matrix, circuit, [torch.zeros(0, dtype=torch.float64), None, None], noise)


@pytest.mark.parametrize("amplitudes", [None, "complex"])
def test_unitary_on_three_qubits_with_noise_matches_aer_on_the_decomposed_circuit(amplitudes):
    circuit = with_wide_gates(4)
    tensors = arguments(circuit, 1, 2, amplitudes)
    weights, inputs, initial = (None if each is None else each.detach().numpy() for each in tensors)
    start = None if initial is None else initial[0]
    matrix = run_aer_on_any_gates(decompose_three_qubit_gates(circuit), weights, inputs[0], start, ALL)
    assert_words_of(matrix, circuit, tensors, ALL)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("joint", [False, True])
def test_trajectories_of_gates_on_three_qubits_have_the_mean_of_the_density_matrix(joint, engine):
    circuit, noise = with_wide_gates(3), ALL.updated(pauli_twirl=True)
    weights, inputs, _ = (None if each is None else each.detach() for each in arguments(circuit, 1, 4))
    batch, exact = CircuitBatch(circuit, weights, inputs), MeasurementContext((2, 0), noise)
    mine = trajectory_expectation(
        batch, (2, 0), noise, 4000, joint=joint, engine=engine, generator=torch.Generator().manual_seed(1)
    )
    expected = (exact.distribution if joint else exact.expectations)(batch)
    assert_within_errors(mine.mean, expected, mine.standard_error, within=4)
    without = (MeasurementContext((2, 0)).distribution if joint else MeasurementContext((2, 0)).expectations)(batch)
    assert ((expected - without).abs() > 8 * mine.standard_error).any()


def test_noise_of_preparation_alone_leaves_gates_whole():
    circuit = with_wide_gates(3)
    assert NoiseConfig(preparation=0.1, readout=((0.9, 0.1), (0.1, 0.9))).decomposed(circuit) is circuit
    assert len(ALL.decomposed(circuit).gates) > len(circuit.gates)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_without_noise_equals_the_statevector(engine):
    circuit = random_general_circuit(4, 40, 3)  # with gates on three qubits, which need no channel
    weights, inputs, _ = arguments(circuit, 2, 3)
    values = density_matrix_words(CircuitBatch(circuit, weights, inputs), [("Z", (1,))], NoiseConfig(), engine)
    exact = expectation(circuit, weights, inputs, qubits=(1,))
    np.testing.assert_allclose(values.detach(), exact.detach(), rtol=0, atol=1e-12)


def test_torch_engine_equals_the_kernel_on_real_circuit():
    circuit = random_circuit(4, 30, seed=2)
    tensors = arguments(circuit, 3, 4, "real")
    native, other = (
        values_and_gradients(
            density_matrix_words(CircuitBatch(circuit, *tensors), [("Z", (0,)), ("XZ", (1, 3))], ALL, engine), tensors
        )
        for engine in ("native", "torch")
    )
    for one, two in zip(native, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)


def test_words_of_inputs_that_are_loaded_once_equal_those_of_torch():
    circuit = reuploading_circuit(4, 1, 1, 1, 2)  # the kernel evolves the words, not the states
    tensors = arguments(circuit, 20, 4)[:2]
    words = [("YY", (0, 2)), ("XZX", (1, 0, 3)), ("ZYYX", (3, 2, 0, 1)), ("Y", (1,))]
    native, other = (
        values_and_gradients(density_matrix_words(CircuitBatch(circuit, *tensors), words, ALL, engine), tensors)
        for engine in ("native", "torch")
    )
    assert (native[0][:, :3].abs() > 1e-4).any(dim=0).all()
    for one, two in zip(native, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-11)


def test_every_kind_of_observable_is_that_of_the_noisy_state():
    tensors = arguments(NARROW, 1, 5)
    hermitian = random_complex_states(4, 2, 5)
    hermitian = hermitian + hermitian.conj().T
    observables = [
        PauliSum([(0.5, "XY", (2, 0)), (-2, "Z", (1,)), (3, "", ())]),
        Projector("01", (2, 0)),
        Hermitian(hermitian, (1, 2)),
    ]
    values = expectation(NARROW, *tensors, observables=observables, noise=ALL).detach()[0]
    weights, inputs, _ = (None if each is None else each.detach().numpy() for each in tensors)
    matrix = run_aer_on_any_gates(NARROW, weights, inputs[0], None, ALL)
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    expected = [
        0.5 * dense("XY", (2, 0), 3) - 2 * dense("Z", (1,), 3) + 3 * np.eye(8),
        reduce(np.kron, (one, np.eye(2), zero)),
        np.kron(np.eye(2), hermitian),
    ]
    np.testing.assert_allclose(values, [np.trace(each @ matrix).real for each in expected], rtol=0, atol=1e-10)


def test_default_mixed_of_pennylane_agrees_with_depolarizing_and_damping():
    noise = NoiseConfig(depolarizing_1q=0.1, bit_flip=0.05, t1_us=3.0, time_1q_us=1.0)
    circuit = Circuit.from_gates(1, [Gate("u", 0, [Angle("weight", k) for k in range(3)])])
    weights = torch.tensor([0.4, 1.1, -0.7], dtype=torch.float64, requires_grad=True)

    @qml.qnode(qml.device("default.mixed", wires=1), interface="torch")
    def node(weights):
        qml.U3(*weights, wires=0)
        qml.DepolarizingChannel(0.75 * 0.1, wires=0)
        qml.BitFlip(0.05, wires=0)
        qml.AmplitudeDamping(1 - np.exp(-1 / 3), wires=0)
        return qml.expval(qml.PauliY(0))

    mine = expectation(circuit, weights, observables=[PauliSum([(1, "Y", (0,))])], noise=noise).sum()
    theirs = node(weights)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-12)
    np.testing.assert_allclose(
        torch.autograd.grad(mine, weights)[0], torch.autograd.grad(theirs, weights)[0], rtol=0, atol=1e-12
    )


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("amplitudes", [None, "real", "complex"])
def test_gradients_and_second_derivatives_match_finite_differences(amplitudes):
    circuit = without_wide_gates(random_general_circuit(2, 16, 4))
    tensors = [each for each in arguments(circuit, 2, 6, amplitudes) if each is not None]

    def run(*given: Tensor) -> Tensor:
        return expectation(circuit, *given, qubits=(1, 0), noise=ALL)

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_gradient_of_wide_circuit_is_a_directional_derivative():
    circuit = without_wide_gates(random_general_circuit(6, 60, 5))
    weights, inputs, _ = arguments(circuit, 1, 7)
    run = lambda given: expectation(circuit, given, inputs, qubits=(0, 5), noise=ALL).sum()  # noqa: E731
    (slope,) = torch.autograd.grad(run(weights), weights)
    direction = torch.linspace(-1, 1, len(weights)).double()
    with torch.no_grad():
        ahead, behind = (run(weights + step * direction).item() for step in (1e-5, -1e-5))
    assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_float32_and_empty_batch():
    doubles = arguments(NARROW, 3, 8)
    singles = [None if each is None else each.detach().float() for each in doubles]
    values = expectation(NARROW, *singles, noise=ALL)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values, expectation(NARROW, *doubles, noise=ALL).detach(), rtol=0, atol=1e-5)
    assert expectation(NARROW, singles[0], singles[1][:0], noise=ALL).shape == (0, 1)
    assert expectation(NARROW, singles[0], singles[1][:0], torch.zeros(0, 8), noise=ALL).shape == (0, 1)


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_gates_in_a_row_share_a_block():
    gates = [Gate("h", 0), Gate("cx", (0, 1)), Gate("t", 1), Gate("cz", (1, 0)), Gate("h", 2), Gate("cx", (1, 2))]
    assert [block.qubits for block in _group_gates(gates)] == [(0, 1), (1, 2)]
    assert [len(block.gates) for block in _group_gates(gates)] == [4, 2]
    assert n_blocks(Circuit.from_gates(3, gates), ALL) == 2


# --- errors ---------------------------------------------------------------------------------------------------------


def test_density_matrices_that_do_not_fit_are_refused_before_they_are_allocated(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**31))
    circuit = Circuit.from_gates(15, [Gate("h", 0)])
    with pytest.raises(InsufficientMemoryError, match="1 density matrices on 15 qubits need .* pass trajectories"):
        expectation(circuit, torch.zeros(0), noise=ALL)


def test_reference_of_these_tests_equals_the_statevector():
    weights, inputs, _ = (None if each is None else each.detach().numpy() for each in arguments(NARROW, 1, 9))
    state = reference_statevector(NARROW, weights, inputs[0])
    matrix = run_aer_on_any_gates(NARROW, weights, inputs[0], None, NoiseConfig())
    np.testing.assert_allclose(matrix, np.outer(state, state.conj()), rtol=0, atol=1e-12)


def test_gradient_of_tensor_that_light_cone_does_not_read_is_zero() -> None:
    circuit = Circuit.from_gates(2, [Gate("h", 0), Gate("rx", 1, [Angle("weight", 0)])])
    weights = torch.ones(1, requires_grad=True)
    expectation(circuit, weights, qubits=(0,), noise=ALL).sum().backward()
    assert torch.equal(weights.grad, torch.zeros(1))
