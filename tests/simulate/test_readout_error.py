from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qiskit import transpile
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError

from ketfit.circuit import Angle, Circuit, Gate, PauliSum, Projector
from ketfit.circuit.export import to_qiskit
from ketfit.errors import InputError, InsufficientMemoryError
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.measurement import in_basis
from ketfit.simulate.mitigation import mitigated_expectation
from ketfit.simulate.readout_error import (
    PRODUCT_LETTERS,
    ShiftedPauliSum,
    observable_after_readout_error,
    observable_before_readout_error,
)
from ketfit.simulate.state import statevector
from tests.circuits_of_any_kind import random_general_circuit, without_wide_gates
from tests.simulate.dense_reference import random_tensors
from tests.simulate.statistical_assertions import assert_mean

READOUT = ((0.95, 0.12), (0.05, 0.88))
SYMMETRIC = ((0.9, 0.1), (0.1, 0.9))
WORD = "XZYZXYZZYX"
QUBITS = (3, 0, 9, 4, 1, 7, 2, 8, 5, 6)
CIRCUIT = random_general_circuit(10, 60, 3)
GATE_NOISE = NoiseConfig(readout=READOUT, depolarizing_1q=0.01, depolarizing_2q=0.02)


def rotated(n_qubits: int) -> tuple[Circuit, torch.Tensor]:
    """A circuit of one RY on each qubit, and its weights."""
    gates = [Gate("ry", qubit, [Angle("weight", qubit)]) for qubit in range(n_qubits)]
    return Circuit(n_qubits, gates, n_qubits, 0), torch.linspace(0.1, 1.2, n_qubits, dtype=torch.float64)


def test_readout_error_of_a_projector_equals_that_of_its_words():
    projector = Projector("010", (2, 0, 1))
    one, other = (observable_after_readout_error(each, READOUT) for each in (projector, projector.pauli_sum()))
    assert {(t.word, t.qubits): pytest.approx(t.coefficient) for t in one.terms} == {
        (t.word, t.qubits): t.coefficient for t in other.terms
    }


def test_long_word_equals_confused_probabilities():
    weights, inputs = (each.detach() for each in random_tensors(CIRCUIT, 2)[:2])
    noise = NoiseConfig(readout=READOUT)
    found = expectation(CIRCUIT, weights, inputs, observables=[PauliSum([(0.7, WORD, QUBITS)])], noise=noise)
    state = statevector(in_basis(CIRCUIT, QUBITS, WORD), weights, inputs)
    read = state.abs().square().reshape(2, *[2] * 10)
    for _ in range(10):
        read = torch.tensordot(read, torch.tensor(READOUT, dtype=torch.float64), dims=([1], [1]))
    signs = torch.tensor([(-1.0) ** index.bit_count() for index in range(2**10)], dtype=torch.float64)
    torch.testing.assert_close(found[:, 0], 0.7 * read.reshape(2, -1) @ signs, rtol=0, atol=1e-10)


def test_long_word_equals_the_mean_of_aers_shots():
    weights, inputs = (each.detach() for each in random_tensors(CIRCUIT, 1)[:2])
    observables, noise = [PauliSum([(1.0, WORD, QUBITS)])], NoiseConfig(readout=READOUT)
    exact = expectation(CIRCUIT, weights, inputs, observables=observables, noise=noise)[0]
    theirs = to_qiskit(in_basis(CIRCUIT, QUBITS, WORD), weights.tolist(), inputs[0].tolist())
    theirs.measure_all()
    model = NoiseModel()
    model.add_all_qubit_readout_error(ReadoutError(np.array(READOUT).T))
    simulator = AerSimulator(noise_model=model, seed_simulator=1, method="statevector")
    shots = (
        simulator.run(transpile(theirs, simulator, optimization_level=0), shots=20_000, memory=True)
        .result()
        .get_memory()
    )
    assert_mean(torch.tensor([[(-1.0) ** each.count("1")] for each in shots], dtype=torch.float64), exact)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_long_words_have_the_gradients_of_their_sum(engine):
    tensors = random_tensors(CIRCUIT, 2)[:2]
    words = PauliSum([(0.7, WORD, QUBITS), (-0.2, "X", (4,)), (0.3, "", ())])
    product = observable_after_readout_error(words, READOUT)
    assert isinstance(product, ShiftedPauliSum)
    results = [
        expectation(CIRCUIT, *tensors, observables=[words], noise=NoiseConfig(readout=READOUT), engine=engine),
        expectation(CIRCUIT, *tensors, observables=[product.pauli_sum()]),
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(each.sum(), tensors) for each in results]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_time_of_a_long_word_is_linear_in_its_letters():
    circuit, weights = rotated(18)
    start = time.process_time()
    observables = [PauliSum([(1.0, "Z" * 18, range(18))])]
    found = expectation(circuit, weights, observables=observables, noise=NoiseConfig(readout=READOUT))
    assert time.process_time() - start < 10
    assert found.item() == pytest.approx((0.07 + 0.83 * weights.cos()).prod().item())


def test_equal_errors_of_both_outcomes_scale_a_word():
    word = PauliSum([(2.0, "XYZ" * 8, range(24))])
    (term,) = observable_after_readout_error(word, SYMMETRIC).terms
    assert (term.word, term.coefficient) == ("XYZ" * 8, pytest.approx(2 * 0.8**24))


def test_useless_readout_leaves_the_offset():
    (term,) = observable_after_readout_error(PauliSum([(2.0, "XY", (0, 1))]), ((0.7, 0.7), (0.3, 0.3))).terms
    assert (term.word, term.coefficient) == ("", pytest.approx(2 * 0.4**2))
    (zero,) = observable_after_readout_error(PauliSum([(2.0, "XY", (0, 1))]), ((0.5, 0.5), (0.5, 0.5))).terms
    assert (zero.word, zero.coefficient) == ("", 0.0)


def test_readout_error_undoes_its_inverse_on_long_words():
    word = PauliSum([(1.0, "Z" * 20, range(20))])
    again = observable_after_readout_error(observable_before_readout_error(word, READOUT), READOUT)
    assert isinstance(again, ShiftedPauliSum)
    assert (again.offset, again.slope) == (pytest.approx(0, abs=1e-15), pytest.approx(1))


def test_mitigated_long_word_has_its_exact_value():
    circuit, weights = rotated(PRODUCT_LETTERS)
    observables = [PauliSum([(1.0, "Z" * PRODUCT_LETTERS, range(PRODUCT_LETTERS))])]
    noise = NoiseConfig(readout=READOUT)
    found = mitigated_expectation(circuit, weights, observables=observables, mitigation=("readout",), noise=noise)
    assert found.item() == pytest.approx(weights.cos().prod().item())


def test_long_word_in_a_density_matrix_equals_its_sum():
    circuit, weights = rotated(PRODUCT_LETTERS)
    words = PauliSum([(1.0, "Z" * PRODUCT_LETTERS, range(PRODUCT_LETTERS))])
    expanded = observable_after_readout_error(words, READOUT).pauli_sum()
    assert len(expanded.terms) == 2**PRODUCT_LETTERS
    found = expectation(circuit, weights, observables=[words], noise=GATE_NOISE)
    expected = expectation(circuit, weights, observables=[expanded], noise=GATE_NOISE.updated(readout=None))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_long_words_of_trajectories_equal_their_sums(engine):
    circuit = without_wide_gates(CIRCUIT)
    tensors = random_tensors(circuit, 2)[:2]
    given = [PauliSum([(0.7, WORD, QUBITS), (0.4, "X", (4,)), (0.1, "", ())]), PauliSum([(1.0, "ZY", (2, 4))])]
    expanded = [observable_after_readout_error(each, READOUT).pauli_sum() for each in given]
    found, expected = (
        expectation(
            circuit,
            *tensors,
            observables=observables,
            noise=noise,
            trajectories=20,
            generator=torch.Generator().manual_seed(0),
            engine=engine,
        )
        for observables, noise in ((given, GATE_NOISE), (expanded, GATE_NOISE.updated(readout=None)))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(each.sum(), tensors) for each in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_wide_word_in_a_density_matrix_is_refused_at_once():
    circuit, weights = rotated(24)
    observables = [PauliSum([(1.0, "Z" * 24, range(24))])]
    start = time.process_time()
    with pytest.raises(InputError, match=r"a Pauli word on 24 qubits into 2\*\*24 words, .* at most 15 qubits"):
        expectation(circuit, weights, observables=observables, noise=GATE_NOISE)
    assert time.process_time() - start < 5


def test_states_of_trajectories_that_do_not_fit_are_refused_before_they_are_sampled(monkeypatch):
    circuit, weights = rotated(24)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**31))
    monkeypatch.setattr("ketfit.simulate.trajectories.PauliErrors.sample", lambda *_: pytest.fail("it was sampled"))
    observables = [PauliSum([(1.0, "Z" * 24, range(24))])]
    with pytest.raises(InsufficientMemoryError, match="30 trajectories in all need"):
        expectation(circuit, weights, observables=observables, noise=GATE_NOISE, trajectories=30)
