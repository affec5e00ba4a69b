from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from ketfit.circuit import Circuit, Gate, Hermitian, PauliSum, PauliTerm, Projector, ring_layers
from ketfit.errors import CircuitError, ConfigError, InputError
from ketfit.simulate import expectation, probabilities, sample_counts, statevector, variance
from tests.circuits_of_any_kind import random_general_circuit
from tests.simulate.test_evolution import dense, random_arguments, random_observables

GENERAL = random_general_circuit(4, 30, seed=11)


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
