"""Samples and gradients of each policy except parameter shift."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multinomial
from torch import Tensor

from ketfit.circuit import Angle, Circuit, cx, ry
from ketfit.simulate import NoiseConfig, expectation
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.shots import GRADIENTS, readout_signs, reparameterized, sample, sample_outcomes, straight_through
from tests.circuits import random_circuit, reference_state
from tests.simulate.aer_reference import ALL, run_aer
from tests.simulate.dense_reference import BOTH_DTYPES, random_tensors, values_and_gradients
from tests.simulate.statistical_assertions import (
    assert_frequencies,
    assert_mean,
    assert_within_errors,
    repeated_gradients,
    repeated_tensors,
    seeded,
)

CIRCUIT = random_circuit(3, 24, seed=5)
READOUT = ((0.95, 0.12), (0.05, 0.88))
TWIRLED = ALL.updated(pauli_twirl=True, readout=READOUT)
KINDS = {"no noise": {}, "density matrix": {"noise": ALL}, "trajectories": {"noise": TWIRLED, "trajectories": 3}}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
EACH_POLICY = pytest.mark.parametrize("policy", GRADIENTS)
QUBITS = pytest.mark.parametrize("qubits", [(1,), (2, 0, 1)], ids=["one", "three"])
SIGNS = torch.tensor([[1 - 2 * bit for bit in bits] for bits in itertools.product((0, 1), repeat=3)]).double()


def by_numpy(tensors, sample: int = 0, qubits=(2, 0, 1)) -> np.ndarray:
    """Return the joint distribution from the amplitudes of the dense simulation."""
    weights, inputs, initial = (tensor.detach().double().numpy() for tensor in tensors)
    psi = initial[sample] / np.linalg.norm(initial[sample])
    state = reference_state(CIRCUIT, weights, inputs[sample], psi).reshape([2] * 3)
    return (state.transpose(qubits) ** 2).ravel()


# --- counts -------------------------------------------------------------------------------------------------------


@BOTH_DTYPES
def test_counts_follow_statevector_distribution(dtype):
    tensors = random_tensors(CIRCUIT, 2, dtype)
    distribution = MeasurementContext((2, 0, 1)).distribution(CircuitBatch(CIRCUIT, *tensors))
    counts = sample_outcomes(distribution, 200_000, seeded())
    assert (counts.dtype, counts.shape, counts.requires_grad) == (dtype, (2, 8), False)
    for number, row in enumerate(counts):
        assert_frequencies(row, by_numpy(tensors, number))


def test_counts_follow_aer_density_matrix():
    tensors = random_tensors(CIRCUIT, 2)
    distribution = MeasurementContext((2, 0, 1), ALL).distribution(CircuitBatch(CIRCUIT, *tensors))
    weights, inputs, initial = (tensor.detach().numpy() for tensor in tensors)
    for number, row in enumerate(sample_outcomes(distribution, 200_000, seeded(1))):
        _, matrix = run_aer(CIRCUIT, weights, inputs[number], initial[number] / np.linalg.norm(initial[number]), ALL)
        assert_frequencies(row, matrix.diagonal().real.reshape(2, 2, 2).transpose(2, 0, 1).ravel())


def test_counts_few_shots_are_multinomial():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    counts = sample_outcomes(probabilities.expand(40_000, 4), 3, seeded(2))
    kinds = [kind for kind in itertools.product(range(4), repeat=4) if sum(kind) == 3]
    found = [(counts == torch.tensor(kind)).all(1).sum().item() for kind in kinds]
    assert sum(found) == 40_000
    assert_frequencies(found, [multinomial.pmf(kind, 3, probabilities.numpy()) for kind in kinds])


@BOTH_DTYPES
@pytest.mark.parametrize("shots", [1, 7, 1000, 10**6])
def test_counts_are_integers_that_sum_to_shots(shots, dtype):
    rows = np.random.default_rng(shots).dirichlet(np.full(16, 0.1), size=50)
    counts = sample_outcomes(torch.tensor(rows, dtype=dtype), shots)
    assert torch.equal(counts, counts.round())
    assert counts.min() >= 0
    assert torch.equal(counts.sum(1), torch.full((50,), float(shots), dtype=dtype))


def test_counts_of_each_row_follow_its_distribution():
    rows = np.random.default_rng(3).dirichlet(np.full(4, 2.0), size=30)
    for counts, row in zip(sample_outcomes(torch.tensor(rows), 100_000, seeded(3)), rows, strict=True):
        assert_frequencies(counts, row)


def test_impossible_outcomes_have_no_counts():
    rows = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1], [1 + 1e-7, -1e-7, 0, 0], [-1e-7, 0.5, -1e-9, 0.5 + 1e-7]])
    counts = sample_outcomes(rows, 1000, seeded(4))
    assert counts[:3].tolist() == [[1000, 0, 0, 0], [0, 0, 0, 1000], [1000, 0, 0, 0]]
    assert counts[3, [0, 2]].tolist() == [0, 0]
    assert 400 < counts[3, 1] < 600


@EACH_POLICY
@BOTH_DTYPES
def test_certain_outcome_gives_exact_value(dtype, policy):
    circuit = Circuit.from_gates(2, [ry(0, Angle("input", 0)), cx(0, 1)])
    inputs = torch.tensor([[0.0], [math.pi]], dtype=torch.float64).to(dtype).requires_grad_()
    run = (circuit, torch.zeros(0, dtype=dtype), inputs, None)
    assert sample(MeasurementContext((1, 0)).distribution(CircuitBatch(*run)), 77).tolist() == [[1, 1], [-1, -1]]
    with torch.no_grad():
        for qubits, expected in (((0,), [[1], [-1]]), ((1, 0), [[1, 1], [-1, -1]])):
            assert expectation(*run, qubits, shots=77, gradient=policy).tolist() == expected
    values = expectation(*run, (0, 1), shots=77, gradient=policy)
    np.testing.assert_allclose(values.detach(), [[1, 1], [-1, -1]], rtol=0, atol=1e-6)
    values.sum().backward()
    assert inputs.grad.isfinite().all()


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, *GRADIENTS])
@pytest.mark.parametrize("shots", [4, 900])
@pytest.mark.parametrize("readout", [None, READOUT], ids=["read", "misread"])
def test_values_have_mean_and_covariance_of_shots(readout, shots, policy):
    tensors = repeated_tensors(CIRCUIT, 6000, seed=5)
    probabilities = by_numpy(tensors)
    if readout is not None:
        probabilities = np.kron(np.kron(readout, readout), readout) @ probabilities
    p = torch.tensor(probabilities)
    mean, covariance = p @ SIGNS, SIGNS.t() @ (p.diag() - p.outer(p)) @ SIGNS / shots
    np.testing.assert_allclose(covariance.diagonal(), (1 - mean**2) / shots, rtol=1e-12)
    assert covariance.triu(1).abs().max() > 0.1 / shots, "no correlation would hide an error"
    tensors[0].requires_grad_(policy not in (None, "exact"))  # "exact" samples if no gradient is computed
    run = {"noise": NoiseConfig(readout=readout), "shots": shots, "gradient": policy, "generator": seeded(shots)}
    repeats = expectation(CIRCUIT, *tensors, (2, 0, 1), **run).detach()
    assert_mean(repeats, mean)
    around = repeats - mean
    assert_mean((around[:, :, None] * around[:, None]).flatten(1), covariance.flatten())
    one = expectation(CIRCUIT, *tensors, (0,), **run).detach()
    assert_mean(torch.cat([one, (one - mean[1]).square()], 1), torch.stack([mean[1], covariance[1, 1]]))


def test_outcomes_of_entangled_pair_are_correlated():
    circuit = Circuit.from_gates(2, [ry(0, Angle("input", 0)), cx(0, 1)])
    inputs = torch.full((5000, 1), 1.2, dtype=torch.float64)
    repeats = expectation(circuit, torch.zeros(0).double(), inputs, None, (0, 1), shots=25, generator=seeded())
    assert torch.equal(repeats[:, 0], repeats[:, 1])
    assert_mean(
        (repeats[:, 0] - math.cos(1.2)) * (repeats[:, 1] - math.cos(1.2)), torch.tensor(math.sin(1.2) ** 2 / 25)
    )


def test_reparameterized_with_impossible_outcomes_has_covariance_of_shots():
    p = torch.tensor([0.5, 0.0, 0.0, 0.2, 0.0, 0.3, 0.0, 0.0]).double()
    repeats = reparameterized(p.expand(20_000, 8), 50, seeded())
    around = repeats - p @ SIGNS
    expected = SIGNS.t() @ (p.diag() - p.outer(p)) @ SIGNS / 50
    assert_mean(repeats, p @ SIGNS)
    assert_mean((around[:, :, None] * around[:, None]).flatten(1), expected.flatten())


# --- gradients ----------------------------------------------------------------------------------------------------


def run_with(tensors, qubits, policy, kind, shots=20, generator=None) -> Tensor:
    return expectation(CIRCUIT, *tensors, qubits, shots=shots, gradient=policy, generator=generator, **kind)


def across(gradient: Tensor, initial: Tensor) -> Tensor:
    """Omit initial amplitudes, whose norm must be 1 for readout errors and shots."""
    return gradient - (gradient * initial).sum(1, True) / initial.square().sum(1, True) * initial


@EACH_KIND
@QUBITS
def test_straight_through_is_sample_with_gradient_of_mean(qubits, kind):
    tensors = random_tensors(CIRCUIT, 3)
    exact = values_and_gradients(run_with(tensors, qubits, None, kind, None, seeded(1)), tensors)
    value, *gradients = values_and_gradients(
        run_with(tensors, qubits, "straight_through", kind, 20, seeded(1)), tensors
    )
    with torch.no_grad():
        sampled = run_with(tensors, qubits, None, kind, 20, seeded(1))
    np.testing.assert_allclose(value, sampled, rtol=0, atol=1e-14)
    assert not torch.allclose(value, exact[0], atol=1e-3)
    gradients[2], exact[3] = (across(gradient, tensors[2].detach()) for gradient in (gradients[2], exact[3]))
    for mine, other in zip(gradients, exact[1:], strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)


@EACH_KIND
@QUBITS
def test_exact_gradient_uses_shots_only_without_differentiation(qubits, kind):
    tensors = random_tensors(CIRCUIT, 3)
    exact = values_and_gradients(run_with(tensors, qubits, None, kind, None, seeded(1)), tensors)
    mine = values_and_gradients(run_with(tensors, qubits, "exact", kind, 20, seeded(1)), tensors)
    assert all(torch.equal(one, other) for one, other in zip(mine, exact, strict=True))
    with torch.no_grad():
        sampled, again = (run_with(tensors, qubits, policy, kind, 20, seeded(1)) for policy in ("exact", None))
    assert torch.equal(sampled, again)
    assert not torch.allclose(sampled, exact[0], atol=1e-3)


@EACH_KIND
@QUBITS
def test_reparameterized_gradient_matches_finite_differences(qubits, kind):
    tensors = random_tensors(CIRCUIT, 2)
    assert torch.autograd.gradcheck(
        lambda *given: run_with(given, qubits, "reparameterized", kind, 20, seeded(6)), tensors
    )


@QUBITS
def test_reparameterized_gradient_is_unbiased(qubits):
    tensors, generator = random_tensors(CIRCUIT, 1), seeded()
    sampled = repeated_gradients(lambda: run_with(tensors, qubits, "reparameterized", {}, 5, generator), tensors, 1000)
    assert_mean(sampled, repeated_gradients(lambda: run_with(tensors, qubits, None, {}, None), tensors, 1)[0])
    assert (sampled.std(0) > 1e-3).any(), "a gradient of the mean alone"


def test_gradient_default_is_reparameterized():
    tensors = random_tensors(CIRCUIT, 2)
    named, unnamed = (run_with(tensors, (0, 1), policy, {}, 9, seeded()) for policy in ("reparameterized", None))
    assert torch.equal(named, unnamed)


@BOTH_DTYPES
@pytest.mark.parametrize("policy", [policy for policy in GRADIENTS if policy != "parameter_shift"])
@pytest.mark.parametrize("angle", [0.0, math.pi, 1e-9, 1e-4])
def test_gradients_of_certain_outcomes_are_finite(angle, policy, dtype):
    circuit = Circuit.from_gates(3, [ry(k, Angle("input", 0)) for k in range(3)] + [cx(0, 1), cx(1, 2)])
    inputs = torch.full((20, 1), angle, dtype=dtype, requires_grad=True)
    for qubits in ((0,), (0, 2, 1)):
        run = {"shots": 10, "gradient": policy, "generator": seeded()}
        values = expectation(circuit, torch.zeros(0, dtype=dtype), inputs, None, qubits, **run)
        (gradient,) = torch.autograd.grad(values.sum(), inputs)
        assert values.isfinite().all()
        assert gradient.abs().max() <= 30


def test_gradients_of_negative_rounded_probabilities_are_finite():
    p = torch.tensor([[1 + 1e-7, -1e-7, 0, 0]], requires_grad=True)
    for estimate in (reparameterized, straight_through):
        (gradient,) = torch.autograd.grad(estimate(p, 10, seeded()).sum(), p)
        assert gradient.isfinite().all()


# --- sources, shapes, modes ---------------------------------------------------------------------------------------


@EACH_POLICY
@EACH_KIND
def test_seed_repeats_results_and_next_sample_differs(kind, policy):
    tensors = random_tensors(CIRCUIT, 2)[:2]

    def twice(generator: torch.Generator | None) -> list[list[Tensor]]:
        run = (run_with((*tensors, None), (0, 2), policy, kind, 15, generator) for _ in range(2))
        return [values_and_gradients(values, tensors) for values in run]

    def equal(some: list[Tensor], others: list[Tensor]) -> bool:
        return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))

    first, second = twice(seeded(7))
    again = twice(seeded(7))
    assert equal(first, again[0])
    assert equal(second, again[1])
    assert equal(first, second) == (policy == "exact" and "trajectories" not in kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        default = twice(None)
        torch.manual_seed(1)
        for one, other in zip(default, twice(None), strict=True):
            assert equal(one, other)


@EACH_POLICY
@EACH_KIND
@QUBITS
def test_empty_batch_returns_empty(qubits, kind, policy):
    weights, inputs, _ = random_tensors(CIRCUIT, 0)
    values, of_weights, of_inputs = values_and_gradients(
        run_with((weights, inputs, None), qubits, policy, kind), (weights, inputs)
    )
    assert values.shape == (0, len(qubits))
    assert not of_weights.any()
    assert of_inputs.shape == inputs.shape
    with torch.no_grad():
        assert run_with((weights, inputs, None), qubits, policy, kind).shape == (0, len(qubits))


@EACH_POLICY
@EACH_KIND
def test_gradients_after_inference_mode_work(kind, policy):
    circuit = random_circuit(3, 24, seed=9)
    weights, inputs, _ = random_tensors(circuit, 2)
    run = {"qubits": (0, 2), "shots": 5, "gradient": policy, "generator": seeded(), **kind}
    readout_signs.cache_clear()
    with torch.inference_mode():
        expectation(circuit, weights, inputs, **run)
    values = expectation(circuit, weights, inputs, **run)
    assert all(gradient.any() for gradient in torch.autograd.grad(values.sum(), (weights, inputs)))


def test_many_shots_approach_exact_values_in_qubit_order():
    tensors = [tensor.detach() for tensor in random_tensors(CIRCUIT, 2)]
    for qubits in itertools.permutations(range(3)):
        exact = expectation(CIRCUIT, *tensors, qubits)
        sampled = expectation(CIRCUIT, *tensors, qubits, shots=10**8, generator=seeded())
        assert_within_errors(sampled, exact, ((1 - exact**2) / 10**8).sqrt())
    assert min(abs(a - b) for row in exact.tolist() for a, b in itertools.combinations(row, 2)) > 1e-2
