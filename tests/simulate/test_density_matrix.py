from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit, ry
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.simulate import NoiseConfig
from ketfit.simulate import density_matrix as density
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_matrix import (
    _Density,
    density_matrix_words,
    make_plan,
    pauli_coefficients,
)
from ketfit.simulate.noise import Channel
from ketfit.simulate.statevector import statevector_expectation
from tests.circuits import random_circuit
from tests.simulate.aer_reference import (
    ALL,
    NOISES,
    density_matrix_expectation,
    density_matrix_from_coefficients,
    example_parities,
    run_aer,
)
from tests.simulate.dense_reference import (
    BOTH_DTYPES,
    ISAS,
    NAMES,
    assert_close,
    assert_equal,
    random_tensors,
    values_and_gradients,
)

EACH_NOISE = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
INITIAL = pytest.mark.parametrize("has_initial", [False, True], ids=["from zero", "amplitudes"])


def small_random_circuit(n_qubits: int, seed: int = 0) -> Circuit:
    return random_circuit(n_qubits, n_gates=10 + 4 * n_qubits, seed=seed)


def by_numpy(tensors) -> list[np.ndarray | None]:
    return [None if tensor is None else tensor.detach().double().numpy() for tensor in tensors]


def all_coefficients(circuit: Circuit, tensors, batch: int, noise: NoiseConfig, isa: str = ISAS[0]) -> Tensor:
    """Return tr(P rho) of every string P, shape (batch, 4**n_qubits), without the kernel's padding qubit."""
    weights, inputs, initial = tensors
    if initial is None:
        initial = torch.eye(1, 2**circuit.n_qubits, dtype=weights.dtype).expand(batch, -1)
    start, spread = pauli_coefficients(initial, noise.preparation), 1
    if circuit.n_qubits == 1:
        start, spread = torch.kron(start, weights.new_tensor([[1, 0, 1, 0]])), 4
    strings = range(0, start.shape[1], spread)
    return _Density.apply(make_plan(circuit, strings, noise, isa), batch, weights, inputs, start)


# --- against Aer --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@EACH_NOISE
@pytest.mark.parametrize("n_qubits", range(2, 9))
def test_expectation_random_circuit_matches_aer(n_qubits, noise):
    circuits = [small_random_circuit(n_qubits, seed=n_qubits)]
    if n_qubits > 2:
        circuits.append(reuploading_circuit(n_qubits, 2, 1, 1, 2))
    parities = example_parities(n_qubits)
    for circuit in circuits:
        tensors = random_tensors(circuit, 1, has_initial=False, seed=n_qubits)
        weights, inputs, _ = by_numpy(tensors)
        expected, _ = run_aer(circuit, weights, inputs[0], None, noise, parities)
        values = density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, noise)
        assert (values.dtype, values.shape) == (torch.float64, (1, len(parities)))
        np.testing.assert_allclose(values.detach()[0], expected, rtol=0, atol=1e-10)
        silent = statevector_expectation(CircuitBatch(circuit, *tensors), tuple(range(n_qubits)))
        assert not torch.allclose(values[:, :n_qubits], silent, atol=1e-3), "noise that does nothing hides an error"


@EACH_NOISE
@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4])
def test_coefficients_random_circuit_match_aer_density_matrix(n_qubits, has_initial, noise):
    circuit = small_random_circuit(n_qubits, seed=10 + n_qubits)
    tensors = random_tensors(circuit, 2, has_initial=has_initial, seed=n_qubits)
    weights, inputs, initial = by_numpy(tensors)
    for sample, row in enumerate(all_coefficients(circuit, tensors, 2, noise).detach().numpy()):
        psi = None if initial is None else initial[sample] / np.linalg.norm(initial[sample])
        _, expected = run_aer(circuit, weights, inputs[sample], psi, noise)
        np.testing.assert_allclose(
            density_matrix_from_coefficients(row), expected, rtol=0, atol=1e-7
        )  # amplitudes are of float32


# --- properties of a density matrix -------------------------------------------------------------------------------


@EACH_NOISE
@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4])
def test_coefficients_random_circuit_form_a_density_matrix(n_qubits, has_initial, noise):
    for seed in range(3):
        circuit = small_random_circuit(n_qubits, seed)
        tensors = random_tensors(circuit, 2, has_initial=has_initial, seed=seed)
        norms = [1, 1] if tensors[2] is None else tensors[2].detach().square().sum(1).tolist()
        for row, norm in zip(all_coefficients(circuit, tensors, 2, noise).detach().numpy(), norms, strict=True):
            matrix = density_matrix_from_coefficients(row)
            assert np.trace(matrix) == pytest.approx(norm, abs=1e-13)
            np.testing.assert_allclose(matrix, matrix.conj().T, rtol=0, atol=1e-15)
            eigenvalues = np.linalg.eigvalsh(matrix)
            assert eigenvalues.min() >= -1e-12
            if n_qubits > 1 or noise.after_rotation != Channel() or noise.preparation:
                assert eigenvalues.max() < norm - 1e-3, "the state is still pure, which would hide an error"


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4])
def test_pauli_coefficients_pure_state_match_definition(n_qubits):
    amplitudes = random_tensors(small_random_circuit(n_qubits), 3)[2].detach()
    for psi, row in zip(amplitudes.numpy(), pauli_coefficients(amplitudes).numpy(), strict=True):
        np.testing.assert_allclose(density_matrix_from_coefficients(row), np.outer(psi, psi), rtol=0, atol=1e-15)


@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 2, 5, 7])
def test_expectation_without_noise_matches_statevector(n_qubits, has_initial):
    circuit, qubits = small_random_circuit(n_qubits), tuple(range(n_qubits))[::-1]
    tensors = random_tensors(circuit, 3, has_initial=has_initial)
    values = density_matrix_expectation(CircuitBatch(circuit, *tensors), [(qubit,) for qubit in qubits], NoiseConfig())
    assert_close(
        values_and_gradients(values, tensors),
        values_and_gradients(statevector_expectation(CircuitBatch(circuit, *tensors), qubits), tensors),
        1e-12,
    )


@pytest.mark.parametrize("n_qubits", [1, 3, 7])
def test_expectation_full_depolarizing_keeps_only_the_trace(n_qubits):
    rotations = [ry(qubit, Angle("weight", 0)) for qubit in range(n_qubits)]
    cnots = [cx(qubit, (qubit + 1) % n_qubits) for qubit in range(n_qubits) if n_qubits > 1]
    circuit = Circuit.from_gates(n_qubits, rotations + cnots)
    for noise in (NoiseConfig(depolarizing_1q=1), NoiseConfig(depolarizing_2q=1))[: 2 if cnots else 1]:
        coefficients = all_coefficients(circuit, (torch.ones(1), None, None), 1, noise)
        assert coefficients[0, 0] == 1
        assert not coefficients[0, 1:].any()


def test_expectation_single_qubit_matches_manual_relaxation():
    circuit = Circuit.from_gates(1, [ry(0, Angle("weight", 0))])
    weights = torch.tensor([2.5], dtype=torch.float64)
    for noise, expected in (
        (NoiseConfig(depolarizing_1q=0.2), 0.8 * math.cos(2.5)),
        (NoiseConfig(bit_flip=0.1, phase_flip=0.3), 0.8 * math.cos(2.5)),
        (NoiseConfig(preparation=0.1), 0.8 * math.cos(2.5)),
        (NoiseConfig(t1_us=1, time_1q_us=2), 1 + math.exp(-2) * (math.cos(2.5) - 1)),
    ):
        values = density_matrix_expectation(CircuitBatch(circuit, weights), [(0,), ()], noise)
        np.testing.assert_allclose(values, [[expected, 1]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("radius", [0.0, 0.5, 7.0])
def test_expectation_unnormalized_initial_scales_with_squared_norm(radius):
    circuit, parities = small_random_circuit(4), example_parities(4)
    weights, inputs, initial = random_tensors(circuit, 3)
    values = density_matrix_expectation(CircuitBatch(circuit, weights, inputs, initial), parities, ALL)
    scaled = density_matrix_expectation(CircuitBatch(circuit, weights, inputs, radius * initial), parities, ALL)
    np.testing.assert_allclose(scaled.detach(), radius**2 * values.detach(), rtol=1e-12, atol=1e-15)


@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 3])
def test_expectation_without_gates_returns_prepared_state(n_qubits, has_initial):
    circuit, parities = Circuit(n_qubits, (), 2, 1), example_parities(n_qubits)
    tensors = random_tensors(circuit, 2, has_initial=has_initial)
    results = values_and_gradients(density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, ALL), tensors)
    plain = values_and_gradients(
        density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, NoiseConfig()), tensors
    )
    shrunk = torch.tensor([(1 - 2 * ALL.preparation) ** len(parity) for parity in parities], dtype=torch.float64)
    np.testing.assert_allclose(results[0], plain[0] * shrunk, rtol=0, atol=1e-15)
    assert not results[1].any()
    assert not results[2].any()


# --- shapes, numbers and bits -------------------------------------------------------------------------------------


@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 2, 5, 7])
def test_expectation_batch_equals_loop_over_samples(n_qubits, has_initial):
    circuit, parities = small_random_circuit(n_qubits), example_parities(n_qubits)
    weights, inputs, initial = tensors = random_tensors(circuit, 4, has_initial=has_initial)
    together = values_and_gradients(density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, ALL), tensors)
    rows = [slice(k, k + 1) for k in range(4)]
    pairs = [(inputs[row], None if initial is None else initial[row]) for row in rows]
    one_by_one = [density_matrix_expectation(CircuitBatch(circuit, weights, x, psi), parities, ALL) for x, psi in pairs]
    assert_close(together, values_and_gradients(torch.cat(one_by_one), tensors), 1e-13)


@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5, 8])
def test_expectation_float32_matches_float64(n_qubits, has_initial):
    circuit, parities = reuploading_circuit(max(3, n_qubits), 2, 1, 1, 2), example_parities(n_qubits)
    if n_qubits < 3:
        circuit = small_random_circuit(n_qubits)
    doubles, singles = (random_tensors(circuit, 2, dtype, has_initial) for dtype in (torch.float64, torch.float32))
    values = density_matrix_expectation(CircuitBatch(circuit, *singles), parities, ALL)
    assert values.dtype == torch.float32
    expected = values_and_gradients(density_matrix_expectation(CircuitBatch(circuit, *doubles), parities, ALL), doubles)
    assert_close(values_and_gradients(values, singles), expected, 1e-5)


@BOTH_DTYPES
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 6, 7])
def test_plan_every_instruction_set_gives_same_values(n_qubits, dtype):
    circuit = small_random_circuit(n_qubits, seed=3)
    tensors = random_tensors(circuit, 2, dtype)
    first, *others = (values_and_gradients(all_coefficients(circuit, tensors, 2, ALL, isa), tensors) for isa in ISAS)
    assert all(result.any() for result in first)
    for other in others:
        assert_close(other, first, 1e-13 if dtype == torch.float64 else 1e-6)


@BOTH_DTYPES
@INITIAL
@pytest.mark.parametrize(("n_qubits", "batch"), [(1, 9), (3, 50), (6, 5), (7, 1), (7, 3), (8, 1)])
def test_results_any_number_of_threads_are_bitwise_equal(n_qubits, batch, has_initial, dtype, set_threads):
    circuit, parities = small_random_circuit(n_qubits), example_parities(n_qubits)
    tensors = random_tensors(circuit, batch, dtype, has_initial)

    def run(threads: int) -> list[Tensor]:
        set_threads(threads)
        return values_and_gradients(density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, ALL), tensors)

    first = run(1)
    assert all(result.any() for result in first)
    for threads in (2, 1, 2):
        assert_equal(run(threads), first)


def test_expectation_noncontiguous_tensors_gives_same_results():
    circuit, parities = small_random_circuit(4), example_parities(4)
    plain, strided = (random_tensors(circuit, 3) for _ in range(2))
    weights, inputs, initial = strided
    given = (
        torch.stack([weights, weights], 1)[:, 0],
        inputs.t().contiguous().t(),
        torch.cat([initial, initial], 1)[:, : initial.shape[1]],
    )
    assert not any(tensor.is_contiguous() for tensor in given)
    expected = density_matrix_expectation(CircuitBatch(circuit, *plain), parities, ALL)
    assert_equal(
        values_and_gradients(density_matrix_expectation(CircuitBatch(circuit, *given), parities, ALL), strided),
        values_and_gradients(expected.clone(), plain),
    )
    # A loss that hands back a transposed and expanded gradient.
    values = density_matrix_expectation(CircuitBatch(circuit, *plain), parities, ALL)
    sums = (torch.autograd.grad(total, plain, retain_graph=True) for total in (values.t().sum(), values.clone().sum()))
    assert_equal(*sums)


@INITIAL
@pytest.mark.parametrize("n_qubits", [1, 3, 7])
def test_expectation_empty_batch_returns_empty(n_qubits, has_initial):
    circuit = small_random_circuit(n_qubits)
    tensors = random_tensors(circuit, 0, has_initial=has_initial)
    values, of_weights, *others = values_and_gradients(
        density_matrix_expectation(CircuitBatch(circuit, *tensors), [(0,), ()], ALL), tensors
    )
    assert values.shape == (0, 2)
    assert torch.equal(of_weights, torch.zeros_like(of_weights))
    assert [other.shape for other in others] == [tensor.shape for tensor in tensors[1:] if tensor is not None]


def test_plan_cache_separates_noise_parity_and_dtype():
    shared = small_random_circuit(3)
    for noise in (ALL, NoiseConfig(), NOISES["damping"], ALL):
        for parities in ([(0,)], [(0,), (2, 1)], [(1, 2)]):
            for dtype in (torch.float64, torch.float32):
                tensors = random_tensors(shared, 2, dtype)
                fresh = density_matrix_expectation(CircuitBatch(small_random_circuit(3), *tensors), parities, noise)
                assert torch.equal(density_matrix_expectation(CircuitBatch(shared, *tensors), parities, noise), fresh)


def test_expectation_without_initial_starts_from_zero_state():
    circuit, parities = small_random_circuit(3), example_parities(3)
    weights, inputs, _ = random_tensors(circuit, 2)
    zero = torch.eye(1, 8).double().expand(2, -1)
    runs = [
        values_and_gradients(
            density_matrix_expectation(CircuitBatch(circuit, weights, inputs, start), parities, ALL), (weights, inputs)
        )
        for start in (None, zero)
    ]
    assert_close(*runs, 1e-15)


# --- gradients ----------------------------------------------------------------------------------------------------


@INITIAL
@pytest.mark.parametrize(("n_qubits", "n_gates"), [(1, 5), *((3, count) for count in (3, 4, 7, 10, 16, 25)), (4, 20)])
def test_gradients_random_circuit_match_finite_differences(n_qubits, n_gates, has_initial):
    circuit = random_circuit(n_qubits, n_gates, seed=n_gates)
    tensors = [tensor for tensor in random_tensors(circuit, 2, has_initial=has_initial) if tensor is not None]

    def run(weights: Tensor, inputs: Tensor, initial: Tensor | None = None) -> Tensor:
        return density_matrix_expectation(
            CircuitBatch(circuit, weights, inputs, initial), example_parities(n_qubits), ALL
        )

    assert torch.autograd.gradcheck(run, tensors)


@EACH_NOISE
def test_gradients_each_noise_match_finite_differences(noise):
    circuit = small_random_circuit(2, seed=7)
    tensors = random_tensors(circuit, 1)
    assert torch.autograd.gradcheck(
        lambda *given: density_matrix_expectation(CircuitBatch(circuit, *given), [(0,), (1, 0)], noise), tensors
    )


@pytest.mark.parametrize(("n_qubits", "batch"), [(5, 2), (7, 1), (8, 1)])
def test_gradients_wide_state_match_directional_derivative(n_qubits, batch):
    circuit, parities = reuploading_circuit(n_qubits, 2, 1, 1, 2), example_parities(n_qubits)
    tensors = random_tensors(circuit, batch)

    def run(*given: Tensor) -> Tensor:
        return density_matrix_expectation(CircuitBatch(circuit, *given), parities, ALL).square().sum()

    slopes = torch.autograd.grad(run(*tensors), tensors)
    generator = torch.Generator().manual_seed(0)
    for position, (tensor, slope) in enumerate(zip(tensors, slopes, strict=True)):
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            steps = (tensor + step * direction for step in (1e-5, -1e-5))
            ahead, behind = (run(*tensors[:position], moved, *tensors[position + 1 :]).item() for moved in steps)
        assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("mask", range(1, 8))
def test_gradients_only_for_tensors_that_require_grad(mask):
    circuit, parities = small_random_circuit(3), example_parities(3)
    tensors = random_tensors(circuit, 2)
    expected = values_and_gradients(
        density_matrix_expectation(CircuitBatch(circuit, *tensors), parities, ALL), tensors
    )[1:]
    chosen = [tensor.detach().requires_grad_(bool(mask >> k & 1)) for k, tensor in enumerate(tensors)]
    values = density_matrix_expectation(CircuitBatch(circuit, *chosen), parities, ALL)
    values.backward(torch.linspace(-1, 1.5, values.numel(), dtype=torch.float64).reshape(values.shape))
    for tensor, slope in zip(chosen, expected, strict=True):
        assert tensor.grad is None or torch.equal(tensor.grad, slope)
        assert (tensor.grad is None) != tensor.requires_grad


def test_backward_twice_gives_same_gradients_and_keeps_arguments():
    circuit = small_random_circuit(3)
    tensors = random_tensors(circuit, 1)
    before = [tensor.detach().clone() for tensor in tensors]
    total = density_matrix_expectation(CircuitBatch(circuit, *tensors), example_parities(3), ALL).sum()
    first = torch.autograd.grad(total, tensors, retain_graph=True)
    assert_equal(first, torch.autograd.grad(total, tensors))
    assert_equal(tensors, before)


def test_second_derivative_raises_input_error():
    circuit = small_random_circuit(3)
    tensors = random_tensors(circuit, 1)
    values = density_matrix_expectation(CircuitBatch(circuit, *tensors), [(0,)], ALL)
    for position in range(3):
        with pytest.raises(InputError, match="differentiable once; leave create_graph=True out"):
            torch.autograd.grad(values.square().sum(), tensors[position], create_graph=True)


# --- errors -------------------------------------------------------------------------------------------------------


def refuse_to_start(monkeypatch, free: int) -> None:
    """Set the free memory, and fail if a plan is made."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(density, "make_plan", lambda *_: pytest.fail("this should have been refused before"))


def test_sixteen_qubits_raise_input_error(monkeypatch):
    refuse_to_start(monkeypatch, 2**60)
    circuit = Circuit(16, (), 0, 0)
    with pytest.raises(
        InputError, match=r"a density matrix on 16 qubits has 4\*\*16 entries; .* up to 15 qubits: pass t"
    ):
        density_matrix_expectation(CircuitBatch(circuit, torch.zeros(0)), [(0,)], ALL)


@pytest.mark.parametrize(
    ("n_qubits", "batch", "wants", "has_initial"),
    [(15, 1, False, False), (14, 1, True, False), (12, 64, False, True), (12, 16, True, True)],
)
def test_memory_too_small_raises_before_allocation(n_qubits, batch, wants, has_initial, monkeypatch):
    refuse_to_start(monkeypatch, 2**31)
    monkeypatch.setattr(density, "pauli_coefficients", lambda *_: pytest.fail("this should have been refused before"))
    circuit = Circuit.from_gates(n_qubits, [ry(0, Angle("weight", 0)), cx(0, 1)])
    weights = torch.zeros(1, requires_grad=wants)
    initial = torch.zeros(batch, 2**n_qubits) if has_initial else None
    message = rf"{batch} density matrices on {n_qubits} qubits need \d+\.\d GiB and 2\.0 GiB are free; pass traj"
    with pytest.raises(InsufficientMemoryError, match=message):
        density_matrix_expectation(CircuitBatch(circuit, weights, None, initial), [(0,)], ALL)


def test_memory_check_at_the_limit_is_exact(monkeypatch, set_threads):
    set_threads(1)
    circuit, needed = small_random_circuit(6), 2 * 8 * 4**6 * 1.07  # the last for gaps between coefficients
    weights, inputs, _ = random_tensors(circuit, 3)
    monkeypatch.setattr("ketfit.memory.ALWAYS_AVAILABLE", 0)
    for free in (math.ceil(needed), math.ceil(needed) - 1):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        with torch.no_grad(), pytest.raises(InsufficientMemoryError) if free < needed else contextlib.nullcontext():
            density_matrix_expectation(CircuitBatch(circuit, weights, inputs), [(0,)], ALL)


@BOTH_DTYPES
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", range(3))
def test_nonfinite_number_raises_input_error(position, number, dtype):
    circuit = small_random_circuit(3)
    tensors = [tensor.detach() for tensor in random_tensors(circuit, 2, dtype)]
    tensors[position].view(-1)[-1] = number
    with pytest.raises(InputError, match=f"{NAMES[position]} holds a number that is not finite"):
        density_matrix_expectation(CircuitBatch(circuit, *tensors), [(0,)], ALL)


def test_distributed_engine_is_refused():
    circuit = Circuit.from_gates(1, [Gate("h", 0)])
    with pytest.raises(ConfigError, match="^engine='distributed' simulates no noise of gates or preparation; use"):
        density_matrix_words(CircuitBatch(circuit, torch.zeros(0)), [("Z", (0,))], ALL, "distributed")


@pytest.mark.parametrize(
    ("circuit", "device", "reason"),
    [
        (Circuit(2, (), 0, 0), "meta", "weights are on meta"),
        (Circuit.from_gates(1, [Gate("h", 0)]), "cpu", "this circuit has other gates"),
    ],
)
def test_native_engine_where_the_kernel_does_not_run_raises_config_error(circuit, device, reason):
    with pytest.raises(ConfigError, match=f"the density matrix of RY and CNOT on the CPU and {reason}; use engine='a"):
        density_matrix_words(CircuitBatch(circuit, torch.zeros(0, device=device)), [("Z", (0,))], ALL, "native")
