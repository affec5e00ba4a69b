"""Values and gradients in one call, compared with `expectation` and autograd in every layout."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketfit.circuit import Circuit, reuploading_circuit
from ketfit.errors import CircuitError, ConfigError, InputError, InsufficientMemoryError
from ketfit.simulate import expectation, expectation_and_gradients, native
from ketfit.simulate.circuit_batch import CircuitBatch
from tests.circuits import random_circuit
from tests.simulate.dense_reference import (
    BOTH_DTYPES,
    ENGINES,
    ISAS,
    NAMES,
    TOLERANCE,
    all_layouts,
    assert_close,
    assert_equal,
    random_qubits,
    random_tensors,
    values_and_gradients,
)

PAIR = reuploading_circuit(2, 1, 1, 0, 1)  # 4 weights, 2 inputs
W, X, PSI = torch.zeros(4), torch.zeros(3, 2), torch.zeros(3, 4)


def form(batch: int, columns: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the cotangent of `values_and_gradients`."""
    return torch.linspace(-1, 1.5, batch * columns, dtype=torch.float64).reshape(batch, columns).to(dtype)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_qubits=st.integers(1, 9),
    batch=st.integers(0, 40),
    dtype=st.sampled_from(sorted(TOLERANCE, key=str)),
    engine=st.sampled_from(ENGINES),
    has_initial=st.booleans(),
    wrt=st.sets(st.sampled_from(NAMES)),
)
@settings(max_examples=150, deadline=None)
def test_expectation_and_gradients_matches_autograd(seed, n_qubits, batch, dtype, engine, has_initial, wrt):
    circuit = random_circuit(n_qubits, n_gates=3 + seed % 50, seed=seed)
    qubits = random_qubits(circuit, seed)
    tensors = random_tensors(circuit, batch, dtype, has_initial, seed)
    names = wrt if has_initial else wrt - {"initial"}
    found = expectation_and_gradients(
        circuit, *tensors, qubits, cotangent=form(batch, len(qubits), dtype), wrt=sorted(names), engine=engine
    )
    values, *gradients = values_and_gradients(expectation(circuit, *tensors, qubits, engine="torch"), tensors)
    reference = dict(zip(NAMES, gradients, strict=False))
    assert {name for name in NAMES if getattr(found, name) is not None} == names
    mine = [found.values, *(getattr(found, name) for name in sorted(names))]
    assert_close(mine, [values, *(reference[name] for name in sorted(names))], 4 * TOLERANCE[dtype])
    assert not any(part.requires_grad for part in mine)


@BOTH_DTYPES
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("n_qubits", [1, 2, 4, 7, 10, 13])
def test_every_layout_is_bitwise_equal_to_autograd(n_qubits, has_initial, isa, dtype, monkeypatch):
    circuit = random_circuit(n_qubits, n_gates=12 + 5 * n_qubits, seed=n_qubits)
    qubits = random_qubits(circuit, seed=n_qubits)
    tensors = random_tensors(circuit, 11, dtype, has_initial)
    reference = tuple(tensor is not None for tensor in tensors)
    cotangent = form(11, len(qubits), dtype)
    for layout in all_layouts(n_qubits, isa, dtype):
        plan = native.make_plan(circuit, qubits, **layout)
        monkeypatch.setattr(native, "plan_for", lambda *_, plan=plan: (plan, []))
        once = native.expect_and_differentiate(CircuitBatch(circuit, *tensors), qubits, cotangent, reference)
        twice = values_and_gradients(
            native.NativeExpectation.apply((plan, []), CircuitBatch(circuit, *tensors), None, None, *tensors), tensors
        )
        assert_equal([part for part in once if part is not None], twice)


@BOTH_DTYPES
@pytest.mark.parametrize(("n_qubits", "batch"), [(4, 1500), (8, 5), (10, 64), (14, 2), (16, 2), (18, 1), (18, 3)])
def test_results_any_number_of_threads_are_bitwise_equal(n_qubits, batch, dtype, set_threads):
    circuit = random_circuit(n_qubits, n_gates=60, seed=n_qubits)
    tensors = random_tensors(circuit, batch, dtype)

    def run(threads: int) -> list[Tensor]:
        set_threads(threads)
        cotangent = form(batch, n_qubits, dtype)
        return list(expectation_and_gradients(circuit, *tensors, range(n_qubits), cotangent=cotangent))

    first = run(1)
    assert all(tensor.abs().max() > 0 for tensor in first)
    for threads in (1, 2, 4, 7, 2):
        assert_equal(run(threads), first)
    assert_equal(values_and_gradients(expectation(circuit, *tensors, range(n_qubits)), tensors), first)


def test_concurrent_calls_match_sequential_calls(set_threads):
    set_threads(2)

    def run(seed: int) -> list[Tensor]:
        circuit = reuploading_circuit(8 + seed % 3, 2, 1, 1 + seed % 2, 2)
        found = expectation_and_gradients(circuit, *random_tensors(circuit, 64, torch.float32, False, seed))
        return [part for part in found if part is not None]

    in_turn = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(run, [*range(8)] * 4))
    assert_equal([*itertools.chain(*at_once)], [*itertools.chain(*in_turn)] * 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_match_finite_differences(engine):
    circuit = random_circuit(5, n_gates=40, seed=5)
    tensors = [tensor.detach() for tensor in random_tensors(circuit, 3)]
    cotangent = form(3, 2)
    found = expectation_and_gradients(circuit, *tensors, (3, 1), cotangent=cotangent, engine=engine)
    for position, gradient in enumerate(found[1:]):
        for index in np.ndindex(*gradient.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [tensor.clone() for tensor in tensors]
                moved[position][index] += step
                sides.append((expectation(circuit, *moved, (3, 1), engine=engine) * cotangent).sum().item())
            assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_defaults_are_unit_cotangent_and_all_given_tensors(engine):
    circuit = random_circuit(4, n_gates=30, seed=4)
    tensors = random_tensors(circuit, 6, has_initial=False)
    found = expectation_and_gradients(circuit, *tensors, qubits=(1, 2), engine=engine)
    values = expectation(circuit, *tensors, (1, 2), engine="torch")
    reference = torch.autograd.grad(values.sum(), tensors[:2])
    assert found.initial is None
    assert_close([found.values, found.weights, found.inputs], [values.detach(), *reference], 1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("required", [False, True])
def test_grad_mode_and_requires_grad_do_not_affect_results(engine, mode, required):
    circuit = random_circuit(4, n_gates=30, seed=4)
    tensors = [tensor.detach().requires_grad_(required) for tensor in random_tensors(circuit, 6)]
    before = [tensor.detach().clone() for tensor in tensors]
    cotangent = form(6, 1)
    reference = expectation_and_gradients(circuit, *(tensor.detach() for tensor in tensors), cotangent=cotangent)
    with mode():
        found = expectation_and_gradients(circuit, *tensors, cotangent=cotangent, engine=engine)
        made_there = expectation_and_gradients(circuit, *(tensor.clone() for tensor in tensors), engine=engine)
    assert_close(found, reference, 1e-12)
    assert_close([made_there.values], [reference.values], 1e-12)
    assert_equal([tensor.detach() for tensor in tensors], before)
    assert torch.equal(cotangent, form(6, 1))
    assert all(tensor.grad is None and tensor.requires_grad == required for tensor in tensors)


def test_noncontiguous_tensors_give_same_results():
    circuit = random_circuit(3, n_gates=20, seed=3)
    tensors = [tensor.detach() for tensor in random_tensors(circuit, 6)]
    odd = [torch.stack([tensor, tensor + 1], dim=-1)[..., 0] for tensor in tensors]
    cotangent = form(6, 2)
    found = expectation_and_gradients(circuit, *odd, (0, 2), cotangent=cotangent.t().contiguous().t())
    assert_equal(found, expectation_and_gradients(circuit, *tensors, (0, 2), cotangent=cotangent))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": W[:3]}, InputError, r"weights has shape \(3,\); this circuit needs \(4,\)"),
        ({"inputs": X.double()}, InputError, "inputs is torch.float64 and weights are torch.float32"),
        ({"initial": PSI[:2]}, InputError, "inputs have a batch of 3 and initial of 2"),
        ({"inputs": None, "initial": None}, InputError, r"this circuit reads 2 inputs"),
        ({"weights": W + math.nan}, InputError, "weights holds a number that is not finite"),
        ({"inputs": X + math.inf}, InputError, "inputs holds a number that is not finite"),
        ({"initial": PSI + math.nan}, InputError, "initial holds a number that is not finite"),
        ({"cotangent": torch.ones(3, 2)}, InputError, r"cotangent has shape \(3, 2\); this circuit needs \(batch, 1\)"),
        ({"cotangent": torch.ones(3)}, InputError, r"cotangent has shape \(3,\)"),
        ({"cotangent": torch.ones(2, 1)}, InputError, "cotangent has 2 rows for a batch of 3"),
        ({"cotangent": torch.ones(3, 1).double()}, InputError, "cotangent is torch.float64 and weights"),
        ({"cotangent": [[1.0]] * 3}, InputError, "cotangent is of type list"),
        ({"cotangent": torch.full((3, 1), math.nan)}, InputError, "cotangent holds a number that is not finite"),
        (
            {"wrt": ("weights", "angles")},
            ConfigError,
            "wrt names 'angles'; known are 'weights', 'inputs' and 'initial'",
        ),
        ({"initial": None, "wrt": ("initial",)}, InputError, "wrt names 'initial', which is not given"),
        ({"qubits": (2,)}, CircuitError, "qubit 2 cannot be measured"),
        ({"qubits": (1, 1)}, CircuitError, "a qubit is measured twice"),
    ],
)
def test_invalid_arguments_raise_named_errors(engine, arguments, error, message):
    with pytest.raises(error, match=message):
        expectation_and_gradients(PAIR, **{"weights": W, "inputs": X, "initial": PSI, "engine": engine, **arguments})


@pytest.mark.parametrize("unknown", ["", "Torch", None])
def test_unknown_engine_raises_config_error(unknown):
    with pytest.raises(ConfigError, match=f"unknown engine {unknown!r}"):
        expectation_and_gradients(PAIR, W, X, engine=unknown)


def test_memory_check_needs_less_than_autograd_and_raises(monkeypatch, set_threads):
    set_threads(2)
    circuit = Circuit(20, (), 0, 0)
    free = SimpleNamespace(available=5 * 2**22)  # of four states for two threads, in float32
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    monkeypatch.setattr("ketfit.memory.ALWAYS_AVAILABLE", 0)
    weights, initial = torch.zeros(0), torch.zeros(4, 2**20)
    initial[:, 0] = 1
    found = expectation_and_gradients(circuit, weights, initial=initial, wrt=("weights",))
    assert torch.equal(found.values, torch.ones(4, 1))
    with pytest.raises(InsufficientMemoryError, match="4 samples on 20 qubits need"):
        expectation_and_gradients(circuit, weights, initial=initial)
    with pytest.raises(InsufficientMemoryError, match="4 samples on 20 qubits need"):
        expectation(circuit, weights.requires_grad_(), initial=initial)


@pytest.mark.parametrize("threads", [1, 3])
def test_limit_torch_threads_gives_torch_one_and_kernel_all(threads, set_threads):
    set_threads(threads)
    seen = []
    with pytest.raises(KeyError), native.limit_torch_threads():
        seen.append((torch.get_num_threads(), native.kernel_threads()))
        with native.limit_torch_threads():
            seen.append((torch.get_num_threads(), native.kernel_threads()))
        seen.append(native.kernel_threads())
        raise KeyError
    assert seen[:2] == [(1, threads)] * 2
    assert seen[2] == threads
    assert (torch.get_num_threads(), native.kernel_threads()) == (threads, threads)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_choose_layout_fits_cache_and_feeds_two_threads(itemsize):
    for n_qubits, batch in itertools.product(range(1, 31), (0, 1, 2, 3, 8, 9, 32, 1024)):
        isa, bits = native.choose_layout(n_qubits, batch, itemsize)
        lanes = native._kernel.lanes(isa, itemsize)
        assert 2**bits <= lanes <= 2 ** (n_qubits + bits)
        if n_qubits + bits > lanes.bit_length() - 1 and bits:
            assert itemsize << (n_qubits + bits) <= 2 * native.CHUNK_BYTES
        if n_qubits >= 8 and batch > 1 and bits:
            assert batch > 2**bits
