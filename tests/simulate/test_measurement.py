"""Observables and circuits of any gates under noise and from shots."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Circuit, Gate, Hermitian, PauliSum, Projector
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import (
    MeasurementContext,
    group_words,
    in_basis,
)
from ketfit.simulate.shots import GRADIENTS
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import random_complex_states, random_general_circuit, without_wide_gates
from tests.simulate.aer_reference import ALL, run_aer_on_any_gates
from tests.simulate.dense_reference import random_tensors
from tests.simulate.statistical_assertions import assert_mean, repeated_gradients, seeded

READOUT = ((0.95, 0.12), (0.05, 0.88))
EXACT = ALL.updated(readout=READOUT)
TWIRLED = EXACT.updated(pauli_twirl=True)
CIRCUIT = without_wide_gates(random_general_circuit(3, 24, 5))
OBSERVABLES = (
    PauliSum([(0.5, "XY", (2, 0)), (-0.7, "Z", (1,)), (0.4, "X", (2,)), (1.5, "", ())]),
    Projector("01", (2, 0)),
    Hermitian([[1, 0.3j], [-0.3j, -0.5]], (1,)),
)
KINDS = {
    "no noise": {},
    "readout": {"noise": NoiseConfig(readout=READOUT)},
    "density matrix": {"noise": EXACT},
    "trajectories": {"noise": TWIRLED, "trajectories": 3},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def tensors_of(circuit: Circuit, batch: int, seed: int = 0) -> list[Tensor]:
    return random_tensors(circuit, batch, seed=seed)[:2]


def repeated(circuit: Circuit, count: int) -> list[Tensor]:
    """Return detached weights, and the same inputs for each sample."""
    weights, inputs = (each.detach() for each in tensors_of(circuit, 1))
    return [weights, inputs.expand(count, -1)]


def exact_values(circuit: Circuit, tensors, **measured) -> Tensor:
    """Return the exact mean of the kind's shots."""
    measured = {name: value for name, value in measured.items() if name != "trajectories"}
    return expectation(circuit, *tensors, **measured)


# --- exact values ---------------------------------------------------------------------------------------------------


def test_observables_after_readout_error_match_confused_probabilities():
    weights, inputs = (each.detach() for each in tensors_of(CIRCUIT, 1))
    noisy = expectation(CIRCUIT, weights, inputs, observables=OBSERVABLES[:2], noise=EXACT)[0]
    matrix = run_aer_on_any_gates(CIRCUIT, weights.numpy(), inputs[0].numpy(), None, ALL)
    hadamard, phase = np.array([[1, 1], [1, -1]]) / 2**0.5, np.diag([1, -1j])
    turns = {"X": hadamard, "Y": hadamard @ phase, "Z": np.eye(2), "I": np.eye(2)}

    def read(letters: str) -> np.ndarray:
        turn = np.kron(np.kron(turns[letters[0]], turns[letters[1]]), turns[letters[2]])
        read = np.diag(turn @ matrix @ turn.conj().T).real.reshape(2, 2, 2)
        return np.einsum("abc,ia,jb,kc->ijk", read, READOUT, READOUT, READOUT)

    sign = np.array([1, -1])
    expected = 0.5 * np.einsum("ijk,i,k->", read("YIX"), sign, sign) - 0.7 * np.einsum("ijk,j->", read("IZI"), sign)
    expected += 0.4 * np.einsum("ijk,k->", read("IIX"), sign) + 1.5
    np.testing.assert_allclose(noisy, [expected, read("ZZZ")[1, :, 0].sum()], rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_trajectories_of_any_gates_are_unbiased(engine):
    tensors = repeated(CIRCUIT, 300)
    run = {"trajectories": 10, "generator": seeded(), "engine": engine}
    for measured in ({"observables": OBSERVABLES}, {"qubits": (2, 0)}):
        samples = expectation(CIRCUIT, *tensors, **measured, noise=TWIRLED, **run)
        assert_mean(samples, expectation(CIRCUIT, *repeated(CIRCUIT, 1), **measured, noise=TWIRLED)[0])


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_trajectories_from_complex_amplitudes_are_unbiased(engine):
    circuit = random_circuit(2, 12, seed=3)  # real gates, for which the kernel has frames of its own
    weights, inputs = repeated(circuit, 400)
    initial = torch.from_numpy(random_complex_states(1, 2, 0))
    run = {"trajectories": 10, "generator": seeded(1), "engine": engine, "qubits": (1, 0)}
    samples = expectation(circuit, weights, inputs, initial.expand(400, -1), noise=TWIRLED, **run)
    assert_mean(samples, expectation(circuit, weights, inputs[:1], initial, (1, 0), noise=TWIRLED)[0])


@pytest.mark.slow
def test_gradients_of_trajectories_are_unbiased():
    tensors = tensors_of(CIRCUIT, 2)
    run = {"observables": OBSERVABLES, "noise": TWIRLED}
    generator = seeded(2)
    sampled = repeated_gradients(
        lambda: expectation(CIRCUIT, *tensors, trajectories=20, generator=generator, **run), tensors, 100
    )
    assert_mean(sampled, repeated_gradients(lambda: expectation(CIRCUIT, *tensors, **run), tensors, 1)[0])


def test_joint_distribution_of_trajectories_approaches_the_density_matrix():
    batch = CircuitBatch(CIRCUIT, *(each.detach() for each in tensors_of(CIRCUIT, 1)))
    for basis in ("ZZZ", "XYZ"):
        exact = MeasurementContext((2, 0, 1), TWIRLED, basis=basis).distribution(batch)
        for engine in ("native", "torch"):
            context = MeasurementContext((2, 0, 1), TWIRLED, 4000, seeded(), engine, basis)
            sampled = context.distribution(batch)
            np.testing.assert_allclose(sampled.sum(), 1, rtol=0, atol=1e-12)
            np.testing.assert_allclose(sampled, exact, rtol=0, atol=5 * 0.5 / 4000**0.5)


# --- shots ----------------------------------------------------------------------------------------------------------


@EACH_KIND
@pytest.mark.parametrize("circuit", [CIRCUIT, random_circuit(3, 20, seed=1)], ids=["any gates", "RY and CNOT"])
def test_shots_of_observables_are_unbiased(circuit, kind):
    samples = expectation(
        circuit, *repeated(circuit, 600), observables=OBSERVABLES, shots=20, generator=seeded(), **kind
    )
    assert_mean(samples, exact_values(circuit, repeated(circuit, 1), observables=OBSERVABLES, **kind)[0])


@EACH_KIND
def test_shots_of_qubits_of_any_gates_are_unbiased(kind):
    samples = expectation(CIRCUIT, *repeated(CIRCUIT, 600), qubits=(2, 0), shots=20, generator=seeded(), **kind)
    assert_mean(samples, exact_values(CIRCUIT, repeated(CIRCUIT, 1), qubits=(2, 0), **kind)[0])


@pytest.mark.slow
@EACH_KIND
@pytest.mark.parametrize("policy", GRADIENTS)
def test_gradient_of_shots_of_observables_is_unbiased(policy, kind):
    weights, inputs = tensors_of(CIRCUIT, 1)
    generator, repeats = seeded(3), 40 if policy == "parameter_shift" else 150
    run = {"observables": OBSERVABLES, **kind}
    sampled = repeated_gradients(
        lambda: expectation(CIRCUIT, weights, inputs, shots=50, gradient=policy, generator=generator, **run),
        [weights, inputs],
        repeats,
    )
    exact = repeated_gradients(lambda: exact_values(CIRCUIT, (weights, inputs), **run), [weights, inputs], 1)[0]
    if policy == "exact" and "trajectories" not in kind:
        torch.testing.assert_close(sampled[0], exact)
    else:
        assert_mean(sampled, exact)


def test_straight_through_is_the_sample_with_the_gradient_of_the_mean():
    weights, inputs = tensors_of(CIRCUIT, 2)
    run = {"observables": OBSERVABLES, "noise": EXACT}
    values = expectation(CIRCUIT, weights, inputs, shots=7, gradient="straight_through", generator=seeded(1), **run)
    with torch.no_grad():
        plain = expectation(CIRCUIT, weights, inputs, shots=7, generator=seeded(1), **run)
    torch.testing.assert_close(values.detach(), plain, rtol=0, atol=1e-15)
    mean = expectation(CIRCUIT, weights, inputs, **run)
    slopes = (torch.autograd.grad(each.sum(), (weights, inputs)) for each in (values, mean))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_reparameterized_values_have_the_variance_of_shots():
    weights, inputs = tensors_of(CIRCUIT, 1)
    observables = [PauliSum([(1, "ZZ", (0, 1)), (0.5, "Z", (2,))])]
    rows = {"inputs": inputs.detach().expand(4000, -1), "observables": observables, "shots": 30, "generator": seeded()}
    values = expectation(CIRCUIT, weights, **rows).detach()
    with torch.no_grad():
        sampled = expectation(CIRCUIT, weights, **rows)
    assert values.std().item() == pytest.approx(sampled.std().item(), rel=0.1)
    assert_mean(values, expectation(CIRCUIT, weights, inputs, observables=observables)[0].detach())


def test_shots_of_a_projector_are_frequencies_of_its_outcome():
    circuit = Circuit.from_gates(2, [Gate("h", 0), Gate("cx", (0, 1))])
    observables = [Projector("00", (0, 1)), Projector("01", (0, 1))]
    values = expectation(circuit, torch.zeros(0), observables=observables, shots=8)
    assert (values[0, 0] * 8).item() == round((values[0, 0] * 8).item())
    assert values[0, 1] == 0


def test_identity_needs_no_shots_and_words_of_one_group_share_them():
    weights = torch.zeros(0, dtype=torch.float64)
    circuit = Circuit.from_gates(2, [Gate("h", 0), Gate("cx", (0, 1))])
    observables = [PauliSum([(1.5, "", ())]), PauliSum([(1, "Z", (0,))]), PauliSum([(1, "Z", (1,))])]
    values = expectation(circuit, weights, observables=observables, shots=5)[0]
    assert values[0] == 1.5
    assert values[1] == values[2]  # a Bell pair


def test_exact_values_outside_gradients_are_those_of_shots():
    weights, inputs = (each.detach() for each in tensors_of(CIRCUIT, 2))
    run = {"observables": OBSERVABLES, "noise": EXACT, "shots": 10**12, "generator": seeded()}
    many = expectation(CIRCUIT, weights, inputs, **run)
    exact = expectation(CIRCUIT, weights, inputs, observables=OBSERVABLES, noise=EXACT)
    np.testing.assert_allclose(many, exact, rtol=0, atol=1e-5)


# --- groups ---------------------------------------------------------------------------------------------------------


def test_group_words_covers_each_term_once_by_compatible_letters():
    words = ["".join(letters) for letters in product("IXYZ", repeat=3)]
    observable = PauliSum([(k + 1, word, (0, 1, 2)) for k, word in enumerate(words)])
    groups = group_words([observable, observable])
    assert len(groups) == 27
    for group in groups:
        for _, term in group.terms:
            assert all(group.letters[qubit] == letter for qubit, letter in zip(term.qubits, term.word, strict=True))
    found = sorted((number, term.coefficient) for group in groups for number, term in group.terms)
    assert found == sorted((number, k + 1.0) for number in range(2) for k in range(1, 64))


def test_group_words_has_at_most_twelve_qubits():
    groups = group_words([PauliSum([(1, "Z", (qubit,)) for qubit in range(20)])])
    assert [len(group.letters) for group in groups] == [12, 8]
    with pytest.raises(InputError, match="shots of a Pauli word on 13 qubits .* at most 12, or leave shots out"):
        group_words([PauliSum([(1, "Z" * 13, range(13))])])


def test_in_basis_turns_letters_into_z():
    circuit = Circuit(3, (), 0, 0)
    names = [(gate.name, gate.qubits) for gate in in_basis(circuit, (2, 0, 1), "XYZ").gates]
    assert names == [("h", (2,)), ("sdg", (0,)), ("h", (0,))]
    assert in_basis(circuit, (2, 0, 1), "XYZ") is in_basis(circuit, (2, 0, 1), "XYZ")


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"shots": 5}, {"noise": ALL}])
def test_wide_projector_with_noise_or_shots_is_refused(options):
    circuit = Circuit(13, (), 0, 0)
    with pytest.raises(InputError, match="observable 0 is a projector on 13 qubits; with noise or shots .* at most 12"):
        expectation(circuit, torch.zeros(0), observables=[Projector("0" * 13, range(13))], **options)


def test_shots_of_wide_word_are_refused():
    with pytest.raises(InputError, match="shots of a Pauli word on 13 qubits"):
        expectation(Circuit(13, (), 0, 0), torch.zeros(0), observables=[PauliSum([(1, "Z" * 13, range(13))])], shots=2)


@pytest.mark.parametrize(
    ("options", "n_qubits", "fits"),
    [({}, 20, True), ({"shots": 5, "qubits": (0, 1)}, 20, False), ({"engine": "torch"}, 20, False), ({}, 40, False)],
)
def test_trajectories_that_do_not_fit_are_refused_before_they_are_sampled(options, n_qubits, fits, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**31))
    monkeypatch.setattr("ketfit.simulate.trajectories.PauliErrors.sample", lambda *_: pytest.fail("it was sampled"))
    circuit = Circuit.from_gates(n_qubits, [Gate("h", qubit) for qubit in range(n_qubits)])
    refused = pytest.fail.Exception if fits else InsufficientMemoryError
    with pytest.raises(refused, match="it was sampled" if fits else "300 trajectories in all need .* GiB are free"):
        expectation(circuit, torch.zeros(0), noise=TWIRLED, trajectories=300, **options)


def test_observables_with_damping_and_trajectories_are_refused():
    with pytest.raises(ConfigError, match="not a mixture of Pauli errors.*pauli_twirl=True$"):
        expectation(CIRCUIT, *tensors_of(CIRCUIT, 1), observables=OBSERVABLES, noise=ALL, trajectories=3)
