"""Pauli errors behind gates: moved to the end in the kernel, and as gates in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ketfit.circuit import Angle, Circuit, Gate
from ketfit.circuit.gate import GATES
from ketfit.simulate import NoiseConfig
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.complex_statevector import ProgramBatch, expect_words, simulate
from ketfit.simulate.evolution import evolve
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_errors import PauliErrors, gate_error_probabilities, masked_words
from tests.circuits_of_any_kind import (
    random_complex_states,
    random_general_circuit,
    random_pauli_words,
    without_wide_gates,
)
from tests.simulate.aer_reference import ALL
from tests.simulate.dense_reference import random_tensors
from tests.simulate.statistical_assertions import assert_frequencies

STRONG = NoiseConfig(depolarizing_1q=0.4, depolarizing_2q=0.5, phase_flip=0.1, preparation=0.3)


def sampled(circuit: Circuit, count: int, noise: NoiseConfig = STRONG, seed: int = 0) -> PauliErrors:
    return PauliErrors.sample(circuit, noise, count, np.random.default_rng(seed))


@pytest.mark.parametrize("has_initial", [False, True], ids=["from zero", "amplitudes"])
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5])
def test_moved_errors_give_the_means_of_errors_as_gates(n_qubits, has_initial):
    circuit = random_general_circuit(n_qubits, 12 * n_qubits, n_qubits)  # gates on three qubits have no errors
    weights, inputs, _ = (each if each is None else each.detach() for each in random_tensors(circuit, 40))
    initial = torch.from_numpy(random_complex_states(40, n_qubits, 1)) if has_initial else None
    errors, batch = sampled(circuit, 40), CircuitBatch(circuit, weights, inputs, initial)
    words = masked_words(random_pauli_words(n_qubits, 15, 2), n_qubits)
    rotation_signs, word_signs = errors.signs(circuit, words)
    assert (rotation_signs == -1).any() and (word_signs == -1).any()
    program = ProgramBatch(program_of(circuit), weights, inputs, initial, torch.from_numpy(rotation_signs))
    as_gates = errors.as_gates(batch)
    plain = ProgramBatch(program_of(as_gates.circuit), *as_gates.tensors)
    mine = expect_words(program, words) * torch.from_numpy(word_signs)
    torch.testing.assert_close(mine, expect_words(plain, words), rtol=0, atol=1e-12)
    bits = np.array(masked_words([("Z", (q,)) for q in range(n_qubits)], n_qubits), dtype=object)
    flips = errors.signs(circuit, list(bits))[1] < 0
    outcomes = (torch.from_numpy(flips) * 2 ** torch.arange(n_qubits - 1, -1, -1)).sum(dim=1, keepdim=True)
    probabilities = simulate(program).abs().square().gather(1, outcomes ^ torch.arange(2**n_qubits))
    torch.testing.assert_close(probabilities, evolve(as_gates).abs().square(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, gate in GATES.items() if 0 < gate.n_qubits < 3])
def test_errors_behind_each_gate_are_moved_past_later_gates(name):
    n_parameters = GATES[name].n_parameters
    gate = Gate(name, tuple(range(GATES[name].n_qubits)), [0.3 + k for k in range(n_parameters)])
    circuit = Circuit.from_gates(2, [Gate("u", 0, [0.4, 1.0, 2.0]), Gate("rxx", (0, 1), [0.7]), gate, gate])
    weights, words = torch.zeros(0, dtype=torch.float64), masked_words(random_pauli_words(2, 12, 0), 2)
    errors = sampled(circuit, 60)
    rotation_signs, word_signs = errors.signs(circuit, words)
    inputs = weights.new_empty(60, 0)
    program = ProgramBatch(program_of(circuit), weights, inputs, None, torch.from_numpy(rotation_signs))
    as_gates = errors.as_gates(CircuitBatch(circuit, weights, inputs))
    plain = ProgramBatch(program_of(as_gates.circuit), *as_gates.tensors)
    mine = expect_words(program, words) * torch.from_numpy(word_signs)
    torch.testing.assert_close(mine, expect_words(plain, words), rtol=0, atol=1e-12)


def test_sampled_errors_have_the_probabilities_of_the_noise():
    noise, count = ALL.updated(pauli_twirl=True), 200_000
    circuit = Circuit.from_gates(
        3, [Gate("h", 2), Gate("gphase", (), [1.0]), Gate("cz", (2, 0)), Gate("ccx", (0, 1, 2))]
    )
    errors = sampled(circuit, count, noise)
    assert (errors.flips.shape, errors.count) == ((3, count), count)
    assert_frequencies([errors.flips.sum(), (1 - errors.flips).sum()], [noise.preparation, 1 - noise.preparation])
    expected = gate_error_probabilities(noise)
    single, phase, double, wide = errors.of_gates
    assert (len(phase[0]), len(wide[0])) == (0, 0)
    for (affected, codes), width in ((single, 1), (double, 2)):
        assert len(set(affected.tolist())) == len(affected)
        numbers = sum(code.astype(int) * 4 ** (width - 1 - place) for place, code in enumerate(codes))
        counts = np.bincount(numbers, minlength=4**width)
        counts[0] = count - len(affected)
        assert_frequencies(counts, expected[width])


def test_without_noise_there_are_no_errors():
    circuit = without_wide_gates(random_general_circuit(3, 30, 1))
    signs, of_words = sampled(circuit, 5, NoiseConfig()).signs(circuit, masked_words([("XYZ", (0, 1, 2))], 3))
    assert (signs == 1).all() and (of_words == 1).all()
    assert (
        not sampled(circuit, 5, NoiseConfig())
        .as_gates(CircuitBatch(circuit, torch.zeros(circuit.n_weights), torch.zeros(5, circuit.n_inputs)))
        .inputs.any()
    )


def test_errors_as_gates_keep_the_inputs_and_the_weights():
    circuit = Circuit.from_gates(1, [Gate("rx", 0, [Angle("weight", 0)]), Gate("rz", 0, [Angle("input", 0)])])
    batch = CircuitBatch(circuit, torch.ones(1), torch.arange(3.0)[:, None])
    changed = sampled(circuit, 3).as_gates(batch)
    assert torch.equal(changed.inputs[:, :1], batch.inputs)
    assert set(changed.inputs[:, 1:].unique().tolist()) <= {0.0, torch.tensor(torch.pi).item()}
    assert (changed.circuit.n_weights, changed.circuit.n_inputs) == (1, 1 + 1 + 2 * 2)
