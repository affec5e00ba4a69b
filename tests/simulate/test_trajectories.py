from __future__ import annotations

import math
from itertools import starmap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Chi
from torch import Tensor

from ketfit.circuit import Circuit, Gate
from ketfit.errors import ConfigError, InsufficientMemoryError
from ketfit.simulate import NoiseConfig, expectation, trajectories
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.complex_statevector import ProgramBatch, expect_words
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.noise import noisy_light_cone
from ketfit.simulate.pauli_errors import _sample_successes, masked_words, sample_gate_errors
from ketfit.simulate.readout_error import apply_readout_error
from ketfit.simulate.trajectories import (
    Estimate,
    sample_frames,
    trajectory_expectation,
    trajectory_words,
)
from tests.circuits import random_circuit
from tests.circuits_of_any_kind import random_general_circuit
from tests.simulate.aer_reference import ALL, NOISES, aer_channels, run_aer
from tests.simulate.dense_reference import (
    ENGINES,
    dense_state,
    measure_dense_state,
    random_tensors,
    values_and_gradients,
)
from tests.simulate.statistical_assertions import (
    assert_frequencies,
    assert_mean,
    assert_variance,
    assert_within_errors,
    repeated_gradients,
    repeated_tensors,
    seeded,
)

TWIRLED = ALL.updated(pauli_twirl=True)
PAULI = {name: noise for name, noise in NOISES.items() if not (noise.after_rotation.shift or noise.after_cnot.shift)}
EACH_NOISE = pytest.mark.parametrize("noise", PAULI.values(), ids=PAULI)
EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)
INITIAL = pytest.mark.parametrize("has_initial", [False, True], ids=["from zero", "amplitudes"])
READOUTS = pytest.mark.parametrize(
    ("qubits", "joint"), [((1,), False), ((2, 0, 1), False), ((2, 0, 1), True)], ids=["one", "each", "joint"]
)
CIRCUIT = random_circuit(3, 30, seed=2)


def estimate(tensors, noise, count, qubits=(2, 0, 1), joint=False, engine="auto", generator=None) -> Estimate:
    batch = CircuitBatch(CIRCUIT, *tensors)
    return trajectory_expectation(batch, qubits, noise, count, joint=joint, generator=generator, engine=engine)


def exactly(tensors, noise, qubits=(2, 0, 1), joint=False) -> Tensor:
    device = MeasurementContext(qubits, noise)
    return (device.distribution if joint else device.expectations)(CircuitBatch(CIRCUIT, *tensors))


# --- against the density matrix -----------------------------------------------------------------------------------


@EACH_NOISE
@EACH_ENGINE
@INITIAL
@READOUTS
def test_mean_matches_density_matrix(qubits, joint, has_initial, engine, noise):
    tensors = random_tensors(CIRCUIT, 2, has_initial=has_initial, seed=1)
    with torch.no_grad():
        mine = estimate(tensors, noise, 5000, qubits, joint, engine, seeded(3))
        assert_within_errors(mine.mean, exactly(tensors, noise, qubits, joint), mine.standard_error)
        distance = (mine.mean - exactly(tensors, NoiseConfig(), qubits, joint)).abs()
    assert (distance > 8 * mine.standard_error).any(), "noise that does nothing hides an error"
    assert mine.mean.shape == mine.standard_error.shape == (2, 2 ** len(qubits) if joint else len(qubits))


@INITIAL
def test_mean_matches_aer_density_matrix(has_initial):
    tensors = random_tensors(CIRCUIT, 2, has_initial=has_initial, seed=4)
    with torch.no_grad():
        singles = estimate(tensors, TWIRLED, 20_000, generator=seeded())
        joint_estimate = estimate(tensors, TWIRLED, 20_000, joint=True, generator=seeded(1))
    weights, inputs, initial = (None if tensor is None else tensor.detach().numpy() for tensor in tensors)
    for sample in range(2):
        psi = None if initial is None else initial[sample] / np.linalg.norm(initial[sample])
        values, matrix = run_aer(CIRCUIT, weights, inputs[sample], psi, TWIRLED, [(2,), (0,), (1,)])
        assert_within_errors(singles.mean[sample], torch.tensor(values), singles.standard_error[sample], within=4)
        probabilities = torch.tensor(matrix.diagonal().real.reshape(2, 2, 2).transpose(2, 0, 1).ravel())
        assert_within_errors(
            joint_estimate.mean[sample], probabilities, joint_estimate.standard_error[sample], within=4
        )


def test_few_trajectories_have_unbiased_mean_and_error():
    tensors = repeated_tensors(CIRCUIT, 4000)
    mine = estimate(tensors, TWIRLED, 6, generator=seeded())
    exact = exactly([tensors[0], *(tensor[:1] for tensor in tensors[1:])], TWIRLED)
    assert_mean(mine.mean, exact[0])
    assert_variance(mine.mean, mine.standard_error.square().mean(0))


def test_standard_error_falls_with_root_of_trajectories():
    tensors = repeated_tensors(CIRCUIT, 1)
    few, many = (estimate(tensors, TWIRLED, count, generator=seeded()).standard_error for count in (500, 50_000))
    np.testing.assert_allclose(few / many, 10, rtol=0.2)


def test_one_trajectory_has_infinite_standard_error():
    mine = estimate(repeated_tensors(CIRCUIT, 3), TWIRLED, 1)
    assert mine.mean.isfinite().all()
    assert torch.equal(mine.standard_error, torch.full((3, 3), torch.inf, dtype=torch.float64))


def test_full_depolarizing_gives_zero():
    tensors = random_tensors(CIRCUIT, 2)
    for noise in (NoiseConfig(depolarizing_1q=1.0), NoiseConfig(depolarizing_1q=1.0, depolarizing_2q=1.0)):
        mine = estimate(tensors, noise, 4000, generator=seeded())
        assert_within_errors(mine.mean, torch.zeros(2, 3), mine.standard_error)
        joint_estimate = estimate(tensors, noise, 4000, joint=True, generator=seeded())
        assert_within_errors(joint_estimate.mean, torch.full((2, 8), 1 / 8), joint_estimate.standard_error)


# --- sources ------------------------------------------------------------------------------------------------------


@EACH_ENGINE
def test_seed_repeats_trajectories_and_next_sample_differs(engine):
    tensors = random_tensors(CIRCUIT, 2)
    generators = [seeded(5), seeded(5)]
    first, second = (
        [estimate(tensors, TWIRLED, 4, engine=engine, generator=each).mean for _ in range(2)] for each in generators
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], estimate(tensors, TWIRLED, 4, engine=engine, generator=seeded(6)).mean)


def test_without_generator_uses_torch_default():
    tensors = random_tensors(CIRCUIT, 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = estimate(tensors, TWIRLED, 4).mean
        other = estimate(tensors, TWIRLED, 4).mean
        torch.manual_seed(1)
        assert torch.equal(estimate(tensors, TWIRLED, 4).mean, first)
    assert not torch.equal(other, first)


def test_given_generator_is_the_only_one_advanced():
    before = torch.random.get_rng_state(), np.random.get_state()[2]  # noqa: NPY002
    estimate(random_tensors(CIRCUIT, 2), TWIRLED, 4, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[2] == before[1]  # noqa: NPY002


def test_engines_sample_same_trajectories_per_sample():
    tensors = repeated_tensors(CIRCUIT, 8)
    native, by_torch = (estimate(tensors, TWIRLED, 1, engine=engine, generator=seeded(2)).mean for engine in ENGINES)
    np.testing.assert_allclose(native, by_torch, rtol=0, atol=1e-13)
    assert len(set(native[:, 0].tolist())) > 1


# --- gradients ----------------------------------------------------------------------------------------------------


@EACH_ENGINE
@READOUTS
@INITIAL
def test_gradient_matches_finite_differences_of_same_trajectories(has_initial, qubits, joint, engine):
    tensors = random_tensors(CIRCUIT, 2, has_initial=has_initial)

    def run(weights: Tensor, inputs: Tensor, initial: Tensor | None = None) -> Tensor:
        return estimate((weights, inputs, initial), TWIRLED, 3, qubits, joint, engine, seeded(9)).mean

    assert torch.autograd.gradcheck(run, [tensor for tensor in tensors if tensor is not None])


@READOUTS
def test_gradient_mean_matches_density_matrix(qubits, joint):
    tensors, generator = random_tensors(CIRCUIT, 1, seed=2), seeded()
    form = torch.linspace(-1, 2, 8 if joint else len(qubits), dtype=torch.float64)
    sampled = repeated_gradients(
        lambda: estimate(tensors, TWIRLED, 10, qubits, joint, "auto", generator).mean @ form, tensors, 200
    )
    exact = repeated_gradients(lambda: exactly(tensors, TWIRLED, qubits, joint) @ form, tensors, 1)
    assert_mean(sampled, exact[0])


def test_standard_error_is_detached():
    mine = estimate(random_tensors(CIRCUIT, 2), TWIRLED, 4)
    assert mine.mean.requires_grad
    assert not mine.standard_error.requires_grad


# --- frames -------------------------------------------------------------------------------------------------------

Errors = dict[int, list[tuple[np.ndarray, np.ndarray]]]


def every_single_error(circuit: Circuit) -> tuple[Errors, int]:
    """Return every Pauli after every gate, one trajectory each, by the number of Paulis and the gate."""
    errors: Errors = {4: [], 16: []}
    count = 0
    for gate in circuit.gates:
        paulis = 4 if gate.control is None else 16
        bits = np.arange(1, paulis) >> np.arange(4)[:, None] & 1 == 1
        errors[paulis].append((count + np.arange(paulis - 1), bits))
        count += paulis - 1
    return errors, count


def as_codes(struck, bits):
    """Return an item of `sample_gate_errors` from the bits x and z of the target and of the control."""
    target, control = np.array([1, 2]) @ bits.reshape(2, 2, -1).astype(np.uint8)
    return struck, target.astype(np.uint8), control.astype(np.uint8)


def as_bits(struck, target, control):
    """Return the bits x and z from an item of `sample_gate_errors`."""
    return struck, np.array([code >> bit & 1 == 1 for code in (target, control) for bit in (0, 1)])


def as_operators(circuit: Circuit, errors: Errors, count: int, flipped: bool) -> tuple[list[tuple[int, int]], Tensor]:
    """Return the positions and the Paulis (0 none, 1 X, 2 Y, 3 Z) that `dense_state` applies."""
    slots = [(0, qubit) for qubit in range(circuit.n_qubits)]
    columns = [np.full(count, int(flipped)) for _ in slots]
    left = {paulis: iter(each) for paulis, each in errors.items()}
    for position, gate in enumerate(circuit.gates):
        struck, bits = next(left[4 if gate.control is None else 16])
        for qubit, (x, z) in zip((gate.target, gate.control), bits.reshape(2, 2, -1).astype(int), strict=True):
            if qubit is None:
                assert not x.any()
                assert not z.any()
                continue
            columns.append(np.zeros(count, int))
            columns[-1][struck] = x + 3 * z - 2 * x * z
            slots.append((position + 1, qubit))
    return slots, torch.tensor(np.array(columns).T)


@pytest.mark.parametrize("preparation", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_single_error_becomes_signs_and_flips(seed, preparation, monkeypatch):
    circuit = random_circuit(3, 20, seed=seed)
    errors, count = every_single_error(circuit)
    monkeypatch.setattr(
        trajectories,
        "sample_gate_errors",
        lambda _gates, error_probabilities, *_: starmap(as_codes, errors[len(error_probabilities)]),
    )
    noise = NoiseConfig(preparation=preparation)
    signs, flips = sample_frames(circuit, (0, 1, 2), noise, count, np.random.default_rng(0))
    assert (signs.dtype, signs.shape, flips.shape) == (np.int8, (count, circuit.gate_counts()["ry"]), (count, 3))
    # From each basis state, so that whole matrices are compared.
    weights, inputs, _ = random_tensors(circuit, 1)
    tensors = [weights, inputs.expand(8 * count, -1), torch.eye(8, dtype=torch.float64).repeat(count, 1)]
    slots, codes = as_operators(circuit, errors, count, bool(preparation))
    noisy = measure_dense_state(
        dense_state(circuit, tensors, 8 * count, None, slots, codes.repeat_interleave(8, 0)), (0, 1, 2), True
    )
    signed = torch.tensor(signs).repeat_interleave(8, 0)
    mine = measure_dense_state(dense_state(circuit, tensors, 8 * count, signed), (0, 1, 2), True)
    moved = torch.tensor(flips @ [4, 2, 1]).repeat_interleave(8)[:, None]
    np.testing.assert_allclose(mine.gather(1, torch.arange(8) ^ moved).detach(), noisy.detach(), rtol=0, atol=1e-13)
    assert (signs < 0).any()
    assert flips.any()


@EACH_ENGINE
@READOUTS
@pytest.mark.parametrize("seed", range(4))
def test_trajectories_equal_circuits_with_sampled_paulis(seed, qubits, joint, engine, monkeypatch):
    sampled: Errors = {4: [], 16: []}

    def recorded(gates, probabilities, *rest):
        for each in sample_gate_errors(gates, probabilities, *rest):
            sampled[len(probabilities)].append(as_bits(*each))
            yield each

    monkeypatch.setattr(trajectories, "sample_gate_errors", recorded)
    circuit = random_circuit(4, 24, seed=seed)
    noise = NoiseConfig(depolarizing_1q=0.1, depolarizing_2q=0.3, phase_flip=0.1, preparation=float(seed % 2))
    tensors = random_tensors(circuit, 3)
    run = (CircuitBatch(circuit, *tensors), qubits, noise, 5)
    mine = trajectory_expectation(*run, joint=joint, generator=seeded(seed), engine=engine).mean
    cone = noisy_light_cone(circuit, qubits)
    slots, codes = as_operators(cone, sampled, 15, bool(noise.preparation))
    weights, *others = tensors
    repeated = [weights, *(tensor.repeat_interleave(5, 0) for tensor in others)]
    expected = (
        measure_dense_state(dense_state(cone, repeated, 15, None, slots, codes), qubits, joint).view(3, 5, -1).mean(1)
    )
    for one, other in zip(values_and_gradients(mine, tensors), values_and_gradients(expected, tensors), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_frames_of_any_gates_give_the_means_of_the_density_matrix():
    circuit = random_general_circuit(3, 24, 3)  # with gates on three qubits
    noise = NoiseConfig(depolarizing_1q=0.02, depolarizing_2q=0.03, phase_flip=0.01, preparation=0.1)
    weights, inputs, _ = (None if each is None else each.detach() for each in random_tensors(circuit, 1))
    count, measured = 4000, (2, 0)
    signs, flips = sample_frames(circuit, measured, noise, count, np.random.default_rng(5))
    program = program_of(noise.decomposed(circuit))
    assert (signs.dtype, signs.shape) == (np.int8, (count, len(program.lowered[0])))
    assert (flips.dtype, flips.shape) == (np.bool_, (count, 2))
    batch = ProgramBatch(program, weights, inputs.expand(count, -1), None, torch.from_numpy(signs))
    values = expect_words(batch, masked_words([("Z", (qubit,)) for qubit in measured], 3))
    expected = expectation(circuit, weights, inputs, qubits=measured, noise=noise)
    assert_mean(torch.where(torch.from_numpy(flips), -values, values), expected[0])


@EACH_NOISE
def test_paulis_have_probabilities_of_aer(noise, monkeypatch):
    asked = {}

    def listening(gates, probabilities, *_):
        asked[len(probabilities)] = probabilities
        return iter([(np.empty(0, int), np.empty(0, np.uint8), np.empty(0, np.uint8))] * gates)

    monkeypatch.setattr(trajectories, "sample_gate_errors", listening)
    sample_frames(CIRCUIT, (0,), noise, 1, np.random.default_rng(0))
    order = np.array([0, 1, 3, 2])  # Aer's X, Y, Z after our X, Z, Y
    for channel, size, indices in zip(
        aer_channels(noise), (2, 4), (order, np.add.outer(4 * order, order).ravel()), strict=True
    ):
        by_aer = Chi(channel).data.diagonal().real / size
        np.testing.assert_allclose(asked[size**2], by_aer[indices], rtol=0, atol=1e-12)
        assert asked[size**2].sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("paulis", [4, 16])
def test_sample_gate_errors_frequencies_match_probabilities(paulis):
    shares = np.random.default_rng(1).dirichlet(np.full(paulis - 1, 3.0))
    shares[1] = 0
    error_probabilities = np.array([0.6, *(0.4 * shares / shares.sum())])
    gates, count = 4, 20_000
    table = np.zeros((gates, paulis))
    by_trajectory = np.zeros(count)
    for gate, each in enumerate(sample_gate_errors(gates, error_probabilities, count, np.random.default_rng(2))):
        struck, bits = as_bits(*each)
        assert (np.diff(struck) > 0).all()
        np.add.at(table[gate], (1 << np.arange(4)) @ bits, 1)
        table[gate, 0] = count - len(struck)
        by_trajectory[struck] += 1
    assert gate == gates - 1
    for row in table:
        assert_frequencies(row, error_probabilities)
    binomial = [math.comb(gates, k) * 0.4**k * 0.6 ** (gates - k) for k in range(gates + 1)]
    assert_frequencies(np.bincount(by_trajectory.astype(int), minlength=gates + 1), binomial)


def test_sample_gate_errors_at_interval_edge_skips_zero_probability():
    class Edge:
        random, geometric = staticmethod(np.zeros), staticmethod(lambda _probability, size: np.ones(size, int))

    ((struck, target, control),) = sample_gate_errors(1, np.array([0.9, 0.0, 0.1, 0.0]), 3, Edge())
    assert struck.tolist() == [0, 1, 2]
    assert (target.tolist(), control.tolist()) == ([2, 2, 2], [0, 0, 0])


# --- successes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_sample_successes_are_independent(probability):
    rng = np.random.default_rng(3)
    probabilities = [
        math.prod(probability if k >> position & 1 else 1 - probability for position in range(3)) for k in range(8)
    ]
    alone = [int((1 << _sample_successes(3, probability, rng)).sum()) for _ in range(8000)]
    assert_frequencies(np.bincount(alone, minlength=8), probabilities)
    together = np.zeros(3 * 50_000, int)
    together[_sample_successes(len(together), probability, rng)] = 1
    assert_frequencies(np.bincount(together.reshape(-1, 3) @ [1, 2, 4], minlength=8), probabilities)


def test_sample_successes_many_are_uniform():
    rng, trials, probability = np.random.default_rng(4), 100_000, 0.01
    runs = [_sample_successes(trials, probability, rng) for _ in range(200)]
    assert all((np.diff(indices) > 0).all() and indices[0] >= 0 and indices[-1] < trials for indices in runs)
    assert_frequencies(np.bincount(np.concatenate(runs) // 1000, minlength=100), np.ones(100))
    counts = torch.tensor([float(len(indices)) for indices in runs])
    assert_mean(counts, torch.tensor(trials * probability))
    assert_variance(counts, torch.tensor(trials * probability * (1 - probability)))


@pytest.mark.parametrize(
    ("trials", "probability", "expected"),
    [(50, 0.0, 0), (50, -1e-17, 0), (50, 1.0, 50), (50, 1e-300, 0), (2**40, 1e-300, 0), (0, 0.5, 0), (0, 1.0, 0)],
)
def test_sample_successes_extremes_give_expected(trials, probability, expected):
    indices = _sample_successes(trials, probability, np.random.default_rng(0))
    assert indices.tolist() == list(range(expected))


def test_sample_successes_continues_after_short_gaps():
    class Short:
        def geometric(self, probability: float, size: int) -> np.ndarray:
            return np.ones(size, int)

    assert _sample_successes(1000, 0.01, Short()).tolist() == list(range(1000))


# --- no noise, other noise, no samples ----------------------------------------------------------------------------


@EACH_ENGINE
def test_without_noise_gives_noiseless_value(engine):
    weights, inputs, initial = (tensor.detach() for tensor in random_tensors(CIRCUIT, 2))
    plain = expectation(CIRCUIT, weights, inputs, initial, (1, 0), engine=engine)
    run = {"qubits": (1, 0), "trajectories": 3, "engine": engine}
    assert torch.equal(expectation(CIRCUIT, weights, inputs, initial, noise=NoiseConfig(), **run), plain)
    readout = ((0.9, 0.2), (0.1, 0.8))
    misread = expectation(CIRCUIT, weights, inputs, initial, noise=NoiseConfig(readout=readout), **run)
    assert torch.equal(misread, apply_readout_error(plain, readout))
    mine = estimate((weights, inputs, initial), NoiseConfig(), 3, (1, 0), engine=engine)
    np.testing.assert_allclose(mine.mean, plain, rtol=0, atol=1e-14)
    np.testing.assert_allclose(mine.standard_error, 0, rtol=0, atol=1e-14)


def test_distributed_engine_is_refused():
    tensors = random_tensors(CIRCUIT, 2)
    message = "^engine='distributed' simulates no noise of gates or preparation; use engine='auto'"
    with pytest.raises(ConfigError, match=message):
        estimate(tensors, TWIRLED, 3, engine="distributed")
    with pytest.raises(ConfigError, match=message):
        trajectory_words(CircuitBatch(CIRCUIT, *tensors), [("X", (0,))], TWIRLED, 3, engine="distributed")


@pytest.mark.parametrize("name", ["damping", "relaxation", "fast dephasing", "all"])
def test_noise_without_pauli_mixture_raises_config_error(name):
    message = r"amplitude damping \(t1_us\) is not a mixture of Pauli errors.*approximate with pauli_twirl=True"
    with pytest.raises(ConfigError, match=message):
        estimate(random_tensors(CIRCUIT, 2), NOISES[name], 3)
    with pytest.raises(ConfigError, match=message):
        expectation(CIRCUIT, *random_tensors(CIRCUIT, 2), noise=NOISES[name], trajectories=3)


@EACH_ENGINE
@READOUTS
@pytest.mark.parametrize("count", [1, 3])
def test_empty_batch_returns_empty(count, qubits, joint, engine):
    tensors = random_tensors(CIRCUIT, 0)
    mine = estimate(tensors, TWIRLED, count, qubits, joint, engine)
    assert mine.mean.shape == mine.standard_error.shape == (0, 8 if joint else len(qubits))
    of_weights, *others = torch.autograd.grad(mine.mean.sum(), tensors)
    assert not of_weights.any()
    assert [other.shape for other in others] == [tensor.shape for tensor in tensors[1:]]


@EACH_ENGINE
def test_float32_matches_float64(engine):
    runs = [
        estimate(random_tensors(CIRCUIT, 2, dtype), TWIRLED, 50, engine=engine, generator=seeded()).mean
        for dtype in (torch.float32, torch.float64)
    ]
    assert runs[0].dtype == torch.float32
    np.testing.assert_allclose(runs[0].detach(), runs[1].detach(), rtol=0, atol=1e-5)


def test_memory_too_small_raises_before_sampling(monkeypatch):
    monkeypatch.setattr(trajectories, "sample_frames", lambda *_: pytest.fail("frames were sampled"))
    weights, inputs, _ = random_tensors(CIRCUIT, 2)
    with pytest.raises(InsufficientMemoryError, match=r"trajectories in all need [\d,.]+ GiB and"):
        expectation(CIRCUIT, weights, inputs, noise=TWIRLED, trajectories=10**10)


def test_memory_of_error_gates_in_torch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**28))
    monkeypatch.setattr(trajectories.PauliErrors, "sample", lambda *_: pytest.fail("errors were sampled"))
    circuit = Circuit.from_gates(4, [Gate("h", 0), *[Gate("cz", (k % 4, (k + 1) % 4)) for k in range(100)]])
    with pytest.raises(InsufficientMemoryError, match="trajectories in all need"):
        expectation(circuit, torch.zeros(0), noise=TWIRLED, trajectories=10**5, engine="torch")
