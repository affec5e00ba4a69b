"""The native engine compared with torch's: circuits, layouts, threads, processes and extreme values."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ketfit.circuit import Angle, Circuit, Gate, cx, reuploading_circuit, ry
from ketfit.errors import InputError, InsufficientMemoryError
from ketfit.simulate import expectation, native
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.statevector import statevector_expectation
from tests.circuits import random_circuit, reference_expectation, reference_state
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
    random_signs,
    random_tensors,
    values_and_gradients,
)

# --- against the torch engine -------------------------------------------------------------------------------------

# The shape of a tensor that a view of shape (rows, width) is taken of, and the view.
LAYOUTS: dict[str, tuple[Callable[[int, int], tuple[int, int]], Callable[[Tensor, int, int], Tensor]]] = {
    "plain": (lambda rows, width: (rows, width), lambda base, rows, width: base),
    "sliced": (lambda rows, width: (2 * rows, 2 * width + 1), lambda base, rows, width: base[::2, 1::2]),
    "transposed": (lambda rows, width: (width, rows), lambda base, rows, width: base.t()),
    "equal rows": (lambda rows, width: (1, width), lambda base, rows, width: base.expand(rows, width)),
    "equal columns": (lambda rows, width: (rows, 1), lambda base, rows, width: base.expand(rows, width)),
}


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    """Generate gates on any qubits, with weights and inputs that are repeated or unused."""
    n_qubits, n_weights, n_inputs = draw(st.integers(1, 9)), draw(st.integers(0, 12)), draw(st.integers(0, 4))
    angles = [Angle("weight", k) for k in range(n_weights)] + [Angle("input", k) for k in range(n_inputs)]
    n_gates, rng = draw(st.integers(0, 50)), random.Random(draw(st.integers(0, 2**32 - 1)))
    gates = []
    while len(gates) < n_gates:
        target, control = rng.randrange(n_qubits), rng.randrange(n_qubits)
        if control != target:
            gates.append(cx(control, target))
        if angles and rng.random() < 0.7:  # often a rotation behind the CNOT that ends on its qubit
            gates.append(ry(target, rng.choice(angles)))
        elif n_qubits == 1 and not angles:
            break
    return Circuit(n_qubits, tuple(gates), n_weights, n_inputs)


@pytest.mark.slow
@given(
    circuit=circuits(),
    batch=st.integers(0, 40),
    dtype=st.sampled_from(sorted(TOLERANCE, key=str)),
    wants=st.tuples(*[st.booleans()] * 3),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 3),
    has_initial=st.booleans(),
    signed=st.booleans(),
    joint=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_native_engine_matches_torch_engine(circuit, batch, dtype, wants, layouts, has_initial, signed, joint, seed):
    rng = np.random.default_rng(seed)
    qubits = tuple(rng.permutation(circuit.n_qubits)[: rng.integers(1, circuit.n_qubits + 1)].tolist())
    signs = random_signs(circuit, batch, seed) if signed else None
    shapes = [(1, circuit.n_weights), (batch, circuit.n_inputs), (batch, 2**circuit.n_qubits)]
    bases = [rng.uniform(-4, 4, LAYOUTS[layout][0](*shape)) for layout, shape in zip(layouts, shapes, strict=True)]
    bases[2] /= 2 ** (circuit.n_qubits / 2)

    def run(engine: str, dtype: torch.dtype) -> list[Tensor | None]:
        leaves = [torch.tensor(base).float().to(dtype) for base in bases]
        views = [
            LAYOUTS[layout][1](leaf.requires_grad_(want), *shape)
            for leaf, want, layout, shape in zip(leaves, wants, layouts, shapes, strict=True)
        ]
        weights, inputs, initial = views[0][0], views[1], views[2] if has_initial else None
        values = statevector_expectation(
            CircuitBatch(circuit, weights, inputs, initial), qubits, signs=signs, joint=joint, engine=engine
        )
        assert (values.dtype, values.shape) == (dtype, (batch, 2 ** len(qubits) if joint else len(qubits)))
        differentiable = any(wants[: 2 + has_initial])
        assert values.requires_grad == differentiable
        if differentiable:
            values.backward(torch.linspace(-1, 1.5, values.numel(), dtype=dtype).reshape(values.shape))
        return [values.detach(), *(leaf.grad for leaf in leaves)]

    mine, other = run("native", dtype), run("torch", torch.float64)
    assert [grad is None for grad in mine[1:]] == [grad is None for grad in other[1:]]
    assert [grad is not None for grad in mine[1:]] == [*wants[:2], wants[2] and has_initial]
    norms = LAYOUTS[layouts[2]][1](torch.tensor(bases[2]), *shapes[2]).square().sum(dim=1)
    scale = 3 * max([1.0, *norms.tolist()]) if has_initial else 3.0  # 50 gates by one angle round the same way
    assert_close(*([part for part in parts if part is not None] for parts in (mine, other)), TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize("name", NAMES)
def test_other_dtype_raises_input_error(engine, dtype, name):
    circuit = random_circuit(3, n_gates=8, seed=0)
    tensors = {key: tensor.detach() for key, tensor in zip(NAMES, random_tensors(circuit, 2), strict=True)}
    tensors[name] = tensors[name].to(dtype)
    with pytest.raises(InputError, match=f"{name} is {dtype}; convert it with"):
        expectation(circuit, **tensors, engine=engine)


@functools.cache
def layout_case(n_qubits: int, has_initial: bool) -> tuple[Circuit, tuple[int, ...], list[Tensor]]:
    """Return a circuit, qubits to measure, and the torch engine's results for `random_tensors`."""
    circuit = random_circuit(n_qubits, n_gates=12 + 5 * n_qubits, seed=n_qubits)
    qubits = random_qubits(circuit, seed=n_qubits)
    tensors = random_tensors(circuit, 11, has_initial=has_initial)
    return circuit, qubits, values_and_gradients(expectation(circuit, *tensors, qubits, engine="torch"), tensors)


@pytest.mark.slow
@BOTH_DTYPES
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("n_qubits", [1, 2, 4, 7, 10, 13])
def test_every_layout_matches_torch_engine(n_qubits, has_initial, isa, dtype):
    circuit, qubits, expected = layout_case(n_qubits, has_initial)
    tensors = random_tensors(circuit, 11, dtype, has_initial)
    for layout in all_layouts(n_qubits, isa, dtype):
        values = native.NativeExpectation.apply(
            (native.make_plan(circuit, qubits, **layout), []), CircuitBatch(circuit, *tensors), None, None, *tensors
        )
        assert_close(values_and_gradients(values, tensors), expected, TOLERANCE[dtype])


# --- threads and processes ----------------------------------------------------------------------------------------


@BOTH_DTYPES
@pytest.mark.parametrize(("n_qubits", "batch"), [(4, 1500), (10, 64), (11, 3), (14, 2), (16, 2), (18, 1)])
def test_results_any_number_of_threads_are_bitwise_equal(n_qubits, batch, dtype, set_threads):
    circuit = random_circuit(n_qubits, n_gates=60, seed=n_qubits)
    tensors = random_tensors(circuit, batch, dtype)

    def run(threads: int) -> list[Tensor]:
        set_threads(threads)
        return values_and_gradients(expectation(circuit, *tensors, range(n_qubits), engine="native"), tensors)

    first = run(1)
    assert all(tensor.abs().max() > 0 for tensor in first)
    for threads in (1, 2, 4, 7, 2):
        assert_equal(run(threads), first)


def paper_results(seed: int, threads: int = 2) -> list[np.ndarray]:
    """Return values and gradients, as arrays, of a random circuit large enough for two threads."""
    torch.set_num_threads(threads)
    circuit = reuploading_circuit(9 + seed % 3, 2, 1, 1 + seed % 2, 2)
    tensors = random_tensors(circuit, 64, torch.float32, has_initial=False, seed=seed)
    return [part.numpy() for part in values_and_gradients(expectation(circuit, *tensors, qubits=(0, 3)), tensors)]


def assert_same_arrays(got: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> None:
    assert [np.array_equal(a, b) for a, b in zip(got, reference, strict=True)] == [True] * len(reference)


def test_concurrent_calls_match_sequential_calls(set_threads):
    in_turn = [paper_results(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(paper_results, [*range(8)] * 4))
    assert_same_arrays([*itertools.chain(*at_once)], [*itertools.chain(*in_turn)] * 4)


@pytest.mark.slow
def test_worker_processes_give_same_results(set_threads):
    reference = [paper_results(seed) for seed in range(3)]
    try:
        got = Parallel(n_jobs=2, backend="loky", timeout=80)(delayed(paper_results)(seed) for seed in range(3))
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
    assert_same_arrays([*itertools.chain(*got)], [*itertools.chain(*reference)])


def send_result(pipe: Any, function: Callable[..., Any], *args: Any) -> None:
    pipe.send(function(*args))


def in_a_fork(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of `function` in a forked child, and fail if the child hangs or dies."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=send_result, args=(there, function, *args))
    child.start()
    there.close()
    try:
        assert here.poll(60), "the child hangs"
        return here.recv()
    except EOFError:
        child.join()
        pytest.fail(f"the child ended with {child.exitcode}")
    finally:
        child.kill()
        child.join()


forks = pytest.mark.skipif(sys.platform != "linux", reason="fork is safe to rely on in Linux alone")
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@forks
@may_fork
def test_forked_child_uses_its_own_threads(set_threads):
    reference = paper_results(1, threads=2)
    for threads in (2, 3):
        assert_same_arrays(in_a_fork(paper_results, 1, threads), reference)
    assert_same_arrays(paper_results(1, threads=3), reference)


def wrong_gradients_of_one_graph() -> int:
    """Return the number of wrong gradients among 32 that four threads compute from one graph."""
    circuit = reuploading_circuit(10, 2, 2, 3, 2)
    weights, inputs, _ = random_tensors(circuit, 64)
    wrong = 0
    for _ in range(8):
        total, other = (expectation(circuit, weights, inputs, engine="native").sum() for _ in range(2))
        (reference,) = torch.autograd.grad(other, weights)
        with ThreadPoolExecutor(4) as pool:
            taken = pool.map(lambda _, total=total: torch.autograd.grad(total, weights, retain_graph=True)[0], range(4))
            wrong += sum(not torch.equal(gradient, reference) for gradient in taken)
    return wrong


@forks
@may_fork
def test_concurrent_adjoint_passes_of_one_graph_agree():
    assert in_a_fork(wrong_gradients_of_one_graph) == 0  # a fork, because memory that is freed too early kills


# --- the graph ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_qubits", "batch"), [(4, 21), (9, 5), (17, 1)])
def test_backward_again_or_of_some_outputs_gives_gradients(n_qubits, batch):
    circuit = random_circuit(n_qubits, n_gates=50, seed=n_qubits)
    tensors, signs = random_tensors(circuit, batch), random_signs(circuit, batch)
    values = native.expect(CircuitBatch(circuit, *tensors), (0, 2, 1), signs)
    first, second, third = (torch.autograd.grad(values.square().sum(), tensors, retain_graph=True) for _ in range(3))
    assert_equal(first, second)
    assert_equal(first, third)
    alone = native.expect(CircuitBatch(circuit, *tensors), (2,), signs)
    one = torch.autograd.grad(values[-1:, 1].sum(), tensors)
    assert_close(one, torch.autograd.grad(alone[-1:].sum(), tensors), 1e-12)
    assert one[2][:-1].eq(0).all()


def test_changed_weights_raise_errors():
    circuit = random_circuit(4, n_gates=20, seed=0)
    tensors = random_tensors(circuit, 3)
    for changed in tensors:
        values = expectation(circuit, *tensors, engine="native")
        with torch.no_grad():
            changed.mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            values.sum().backward()


# --- extremes -----------------------------------------------------------------------------------------------------

ANGLES = [0.0, -0.0, np.pi, -np.pi, np.pi + 1e-6, np.pi - 2e-6, np.pi - 1e-7, 3 * np.pi, 2 * np.pi, 1e6, 1e-300, 3e5]


@BOTH_DTYPES
@pytest.mark.parametrize("n_qubits", [1, 3, 8])
@pytest.mark.parametrize("source", ["weight", "input"])
def test_angles_full_turn_and_huge_are_exact(source, n_qubits, dtype):
    circuit = random_circuit(n_qubits, n_gates=60, seed=n_qubits, n_inputs=12)
    tensors = [tensor.detach() for tensor in random_tensors(circuit, 5, dtype)]
    numbers = tensors[source == "input"]
    numbers.copy_(torch.tensor(np.resize(ANGLES, numbers.shape)))
    values = expectation(circuit, *tensors, range(n_qubits), engine="native")
    weights, *samples = (tensor.double().numpy() for tensor in tensors)
    states = [reference_state(circuit, weights, x, psi) for x, psi in zip(*samples, strict=True)]
    expected = [reference_expectation(state, range(n_qubits)) for state in states]
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE[dtype] * 2)


@BOTH_DTYPES
@pytest.mark.parametrize("angle", [None, np.pi - 3e-6, np.pi - 1e-6, 3.0])
@pytest.mark.parametrize("has_initial", [False, True])
def test_3000_gates_keep_the_norm(angle, has_initial, dtype):
    rng = random.Random(1)
    gates = [ry(rng.randrange(3), Angle("weight", k)) if k % 2 else cx(*rng.sample(range(3), 2)) for k in range(3000)]
    circuit = Circuit(4, tuple(gates), 3000, 0)  # the fourth qubit stays |0>: its <Z> is the squared norm
    weights = torch.tensor([angle or rng.uniform(-4, 4) for _ in gates], dtype=dtype, requires_grad=True)
    initial = torch.eye(16, dtype=dtype)[[6] * 5].requires_grad_() if has_initial else None
    values = expectation(circuit, weights, None, initial, range(4), engine="native")
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    psi = reference_state(circuit, weights.detach().double().numpy(), [], np.eye(16)[6 * has_initial])
    np.testing.assert_allclose(values[0].detach(), reference_expectation(psi, range(4)), rtol=0, atol=tolerance)
    np.testing.assert_allclose(values[:, 3].detach(), 1, rtol=0, atol=tolerance)
    values[:, 0].sum().backward()
    assert weights.grad.isfinite().all()
    if has_initial:  # |2 Z psi|, brought back through every gate
        np.testing.assert_allclose(initial.grad.norm(dim=1), 2, rtol=tolerance)


@BOTH_DTYPES
@pytest.mark.parametrize("n_qubits", [1, 2, 5, 14, 17])
def test_circuit_without_gates_measures_amplitudes(n_qubits, dtype):
    circuit, qubits = Circuit(n_qubits, (), 3, 1), tuple(range(n_qubits))[::-1]
    tensors, doubles = random_tensors(circuit, 3, dtype), random_tensors(circuit, 3)
    mine = values_and_gradients(expectation(circuit, *tensors, qubits, engine="native"), tensors)
    assert_close(
        mine, values_and_gradients(expectation(circuit, *doubles, qubits, engine="torch"), doubles), TOLERANCE[dtype]
    )
    assert not mine[1].any()
    assert not mine[2].any()
    assert torch.equal(expectation(circuit, *tensors[:2], qubits=qubits), torch.ones(3, n_qubits, dtype=dtype))


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n_qubits", "free"), [(30, 2**34), (20, 2**27), (45, None)])
def test_gradients_memory_too_small_raises(n_qubits, free, engine, monkeypatch):
    if free:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    circuit = reuploading_circuit(n_qubits, 1, 1, 0, 1)
    weights, inputs = torch.zeros(circuit.n_weights, requires_grad=True), torch.zeros(64, n_qubits)
    with pytest.raises(InsufficientMemoryError, match=f"64 samples on {n_qubits} qubits need .* GiB"):
        expectation(circuit, weights, inputs, engine=engine)


def test_values_without_gradient_need_one_state_per_thread(monkeypatch, set_threads):
    set_threads(1)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**27))
    circuit = Circuit.from_gates(20, [ry(0, Angle("input", 0)), cx(0, 19)])
    inputs = torch.linspace(0, 3, 64)[:, None].requires_grad_()
    with pytest.raises(InsufficientMemoryError):
        expectation(circuit, torch.zeros(0), inputs)
    with torch.no_grad():
        np.testing.assert_allclose(expectation(circuit, torch.zeros(0), inputs), inputs.cos(), rtol=0, atol=1e-6)


@BOTH_DTYPES
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", range(3))
def test_nonfinite_number_at_any_index_raises_input_error(position, number, engine, dtype):
    for n_qubits, batch in ((1, 1), (2, 9), (9, 3)):
        circuit = random_circuit(n_qubits, n_gates=9, seed=n_qubits)
        circuit = Circuit(n_qubits, circuit.gates, circuit.n_weights + 1, circuit.n_inputs + 1)  # the last used by none
        tensors = [tensor.detach() for tensor in random_tensors(circuit, batch, dtype)]
        for where in (0, -1):
            bad = [tensor.clone() for tensor in tensors]
            bad[position].view(-1)[where] = number
            with pytest.raises(InputError, match=f"{NAMES[position]} holds a number that is not finite"):
                expectation(circuit, *bad, engine=engine)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("gate", ["ry", "rx"])
def test_values_without_gradient_store_no_states(gate: str) -> None:
    circuit = Circuit.from_gates(10, [Gate(gate, 0, [Angle("input", 0)]), cx(0, 9)])
    inputs = torch.linspace(0, 3, 64)[:, None].requires_grad_()
    with torch.no_grad(), LargestTensor() as largest:
        expectation(circuit, torch.zeros(0), inputs)
    assert largest.numbers < 2**12, "the states of all samples are 2**16 numbers"
