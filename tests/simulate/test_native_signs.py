"""Signs of rotations for each sample, the Pauli errors that they represent, and joint distributions."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Angle, Circuit, cx, reuploading_circuit, ry
from ketfit.errors import InputError, InsufficientMemoryError
from ketfit.simulate import native
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.statevector import statevector_expectation
from tests.circuits import random_circuit, reference_state
from tests.simulate.dense_reference import (
    BOTH_DTYPES,
    ENGINES,
    ISAS,
    PAULIS,
    TOLERANCE,
    all_layouts,
    assert_close,
    assert_equal,
    dense_state,
    measure_dense_state,
    random_qubits,
    random_signs,
    random_tensors,
    values_and_gradients,
)

READOUTS = pytest.mark.parametrize("joint", [False, True], ids=["each", "joint"])
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])


def merging_circuit(n_qubits: int, seed: int = 0) -> Circuit:
    """Return random gates with consecutive rotations by weights and by inputs on a qubit in between."""
    circuit = random_circuit(n_qubits, n_gates=10 + 4 * n_qubits, seed=seed)
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
    rng = np.random.default_rng(seed)
    gates = []
    for gate in circuit.gates:
        gates += [gate] + [ry(gate.target, angles[rng.integers(len(angles))]) for _ in range(rng.integers(3))]
    return Circuit.from_gates(n_qubits, gates)


def expected_outcome(circuit, qubits, tensors, batch, signs, joint) -> list[Tensor]:
    return values_and_gradients(
        measure_dense_state(dense_state(circuit, tensors, batch, signs), qubits, joint), tensors
    )


# --- against a dense simulation -----------------------------------------------------------------------------------


@pytest.mark.slow
@READOUTS
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("n_qubits", range(1, 10))
def test_signs_per_sample_match_dense_simulation(n_qubits, has_initial, batch, engine, joint):
    circuit = merging_circuit(n_qubits, seed=n_qubits)
    qubits, signs = random_qubits(circuit, seed=n_qubits), random_signs(circuit, batch)
    doubles = random_tensors(circuit, batch, has_initial=has_initial)
    expected = expected_outcome(circuit, qubits, doubles, batch, signs, joint)
    plain = measure_dense_state(dense_state(circuit, doubles, batch), qubits, joint)
    assert not torch.allclose(plain, expected[0], atol=1e-3)
    for dtype, tolerance in TOLERANCE.items():
        tensors = random_tensors(circuit, batch, dtype, has_initial)
        values = statevector_expectation(
            CircuitBatch(circuit, *tensors), qubits, signs=signs, joint=joint, engine=engine
        )
        assert (values.dtype, values.shape) == (dtype, plain.shape)
        # In single precision the torch engine loses more digits.
        assert_close(values_and_gradients(values, tensors), expected, tolerance * (1 if engine == "native" else 4))


@functools.cache
def layout_case(n_qubits: int, has_initial: bool, signed: bool, joint: bool):
    circuit = merging_circuit(n_qubits, seed=n_qubits)
    qubits, signs = random_qubits(circuit, seed=n_qubits), random_signs(circuit, 11) if signed else None
    doubles = random_tensors(circuit, 11, has_initial=has_initial)
    return circuit, qubits, signs, expected_outcome(circuit, qubits, doubles, 11, signs, joint)


@pytest.mark.slow
@BOTH_DTYPES
@READOUTS
@SIGNED
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("n_qubits", [1, 3, 8, 12])
def test_every_layout_matches_dense_simulation(n_qubits, has_initial, isa, signed, joint, dtype):
    circuit, qubits, signs, expected = layout_case(n_qubits, has_initial, signed, joint)
    tensors = random_tensors(circuit, 11, dtype, has_initial)
    for layout in all_layouts(n_qubits, isa, dtype):
        plan = native.make_plan(circuit, qubits, joint=joint, **layout)
        values = native.NativeExpectation.apply((plan, []), CircuitBatch(circuit, *tensors), signs, None, *tensors)
        assert_close(values_and_gradients(values, tensors), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("engine", ENGINES)
def test_joint_of_twelve_qubits_keeps_requested_order(engine):
    circuit = merging_circuit(12, seed=2)
    qubits = tuple(np.random.default_rng(0).permutation(12).tolist())
    weights, inputs, initial = (tensor.detach() for tensor in random_tensors(circuit, 3))
    values = statevector_expectation(CircuitBatch(circuit, weights, inputs, initial), qubits, joint=True, engine=engine)
    for b in range(3):
        state = reference_state(circuit, weights.numpy(), inputs[b].numpy(), initial[b].numpy())
        np.testing.assert_allclose(values[b], (state.reshape([2] * 12).transpose(qubits) ** 2).ravel(), atol=1e-14)


@READOUTS
@SIGNED
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("has_initial", [False, True])
def test_gradients_match_finite_differences(has_initial, engine, signed, joint):
    circuit = merging_circuit(4, seed=1)
    tensors = [tensor for tensor in random_tensors(circuit, 3, has_initial=has_initial) if tensor is not None]
    signs = random_signs(circuit, 3) if signed else None

    def run(weights: Tensor, inputs: Tensor, initial: Tensor | None = None) -> Tensor:
        return statevector_expectation(
            CircuitBatch(circuit, weights, inputs, initial), (2, 0), signs=signs, joint=joint, engine=engine
        )

    assert torch.autograd.gradcheck(run, tensors)


@READOUTS
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(5))
def test_light_cone_selects_its_signs(seed, engine, joint):
    circuit = random_circuit(6, n_gates=20, seed=seed)
    qubits, signs = ((seed + 1) % 6, seed), random_signs(circuit, 7, seed)
    cone = circuit.light_cone(qubits)
    assert cone.gate_counts()["ry"] < signs.shape[1]
    tensors = random_tensors(circuit, 7)
    values = statevector_expectation(CircuitBatch(circuit, *tensors), qubits, signs=signs, joint=joint, engine=engine)
    assert_close(
        values_and_gradients(values, tensors), expected_outcome(circuit, qubits, tensors, 7, signs, joint), 1e-12
    )


# --- Pauli errors as signs ----------------------------------------------------------------------------------------


def some_errors(circuit: Circuit, batch: int, seed: int) -> tuple[list[tuple[int, int]], Tensor]:
    """Return sorted positions in the circuit, some twice, and Paulis: 0 none, 1 X, 2 Y, 3 Z."""
    rng, n, end = np.random.default_rng(seed), circuit.n_qubits, len(circuit.gates)
    slots = [(int(rng.integers(end + 1)), int(rng.integers(n))) for _ in range(12)]
    slots += [(0, 0), (0, n - 1), (end, 0), (end, 0), (end, n - 1), slots[0]]
    codes = rng.integers(0, 4, (batch, len(slots))) * (rng.random((batch, len(slots))) < rng.random(len(slots)))
    return sorted(slots), torch.tensor(codes, dtype=torch.int8)


def frame(circuit: Circuit, slots: list[tuple[int, int]], codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the signs and the flipped bits after every error is moved behind the last gate."""
    x, z = (torch.zeros(len(codes), circuit.n_qubits, dtype=torch.bool) for _ in range(2))
    columns = []
    for position, gate in enumerate((*circuit.gates, None)):
        for column, (after, qubit) in enumerate(slots):
            if after == position:
                x[:, qubit] ^= (codes[:, column] == 1) | (codes[:, column] == 2)
                z[:, qubit] ^= codes[:, column] >= 2
        if gate is None:
            break
        if gate.angle is None:
            x[:, gate.target] ^= x[:, gate.control]
            z[:, gate.control] ^= z[:, gate.target]
        else:
            columns.append(x[:, gate.target] ^ z[:, gate.target])
    return (1 - 2 * torch.stack(columns, 1).to(torch.int8)), x


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("n_qubits", range(2, 9))
def test_pauli_errors_equal_signs_and_flipped_bits(n_qubits, has_initial, engine):
    circuit, qubits = reuploading_circuit(n_qubits, 1, 1, 1, 1), tuple(range(n_qubits))[::-1]
    slots, codes = some_errors(circuit, 20, seed=n_qubits)
    signs, flipped = frame(circuit, slots, codes)
    tensors = random_tensors(circuit, 20, has_initial=has_initial)

    def expected(joint: bool) -> list[Tensor]:
        return values_and_gradients(
            measure_dense_state(dense_state(circuit, tensors, 20, None, slots, codes), qubits, joint), tensors
        )

    values = statevector_expectation(CircuitBatch(circuit, *tensors), qubits, signs=signs, engine=engine)
    mine = values * (1 - 2 * flipped[:, list(qubits)].double())
    assert not torch.allclose(measure_dense_state(dense_state(circuit, tensors, 20), qubits, False), mine, atol=1e-3)
    assert_close(values_and_gradients(mine, tensors), expected(joint=False), 1e-12)
    # Read at once, the values_and_gradients of a sample moves to where its bits differ.
    values = statevector_expectation(CircuitBatch(circuit, *tensors), qubits, signs=signs, joint=True, engine=engine)
    moved = (flipped[:, list(qubits)].long() * 2 ** torch.arange(n_qubits).flip(0)).sum(1)
    mine = values.gather(1, torch.arange(2**n_qubits) ^ moved[:, None])
    assert_close(values_and_gradients(mine, tensors), expected(joint=True), 1e-12)


def test_pauli_after_rotation_equals_sign():
    rotation = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    for pauli, sign in zip(PAULIS.numpy(), (1, -1, 1, -1), strict=True):
        turned = rotation if sign > 0 else rotation.T
        np.testing.assert_allclose(rotation @ pauli, pauli @ turned, atol=1e-15)


# --- bits ---------------------------------------------------------------------------------------------------------


@BOTH_DTYPES
@READOUTS
@pytest.mark.parametrize(("n_qubits", "batch"), [(4, 1500), (10, 64), (11, 3), (14, 2), (17, 1)])
def test_results_any_number_of_threads_are_bitwise_equal(n_qubits, batch, joint, dtype, set_threads):
    circuit = merging_circuit(n_qubits, seed=n_qubits)
    tensors, signs = random_tensors(circuit, batch, dtype), random_signs(circuit, batch)
    qubits = tuple(range(min(n_qubits, 12)))

    def run(threads: int) -> list[Tensor]:
        set_threads(threads)
        return values_and_gradients(native.expect(CircuitBatch(circuit, *tensors), qubits, signs, joint), tensors)

    first = run(1)
    assert all(tensor.abs().max() > 0 for tensor in first)
    for threads in (1, 2, 4):
        assert_equal(run(threads), first)


@BOTH_DTYPES
@pytest.mark.parametrize("n_qubits", [3, 6, 12])
def test_signs_of_one_sample_do_not_affect_others(n_qubits, dtype):
    circuit, qubits = merging_circuit(n_qubits, seed=n_qubits), (0, 1)
    tensors, signs = random_tensors(circuit, 20, dtype), random_signs(circuit, 20)
    signs[::3] = 1
    some, none = (
        values_and_gradients(native.expect(CircuitBatch(circuit, *tensors), qubits, s), tensors)
        for s in (signs, torch.ones_like(signs))
    )
    assert not torch.equal(some[0], none[0])
    assert_equal([some[k][::3] for k in (0, 2, 3)], [none[k][::3] for k in (0, 2, 3)])
    assert_close(
        none, values_and_gradients(native.expect(CircuitBatch(circuit, *tensors), qubits), tensors), TOLERANCE[dtype]
    )


def test_plan_is_shared_with_and_without_signs():
    circuit = merging_circuit(5)
    weights, inputs, initial = (tensor.detach() for tensor in random_tensors(circuit, 9))
    first = native.expect(CircuitBatch(circuit, weights, inputs, initial), (0,))
    native.expect(CircuitBatch(circuit, weights, inputs, initial), (0,), random_signs(circuit, 9))
    assert torch.equal(native.expect(CircuitBatch(circuit, weights, inputs, initial), (0,)), first)
    assert [key[0] for key in circuit.cache].count("plan") == 1


def test_noncontiguous_signs_give_same_results():
    circuit = merging_circuit(5)
    tensors, signs = random_tensors(circuit, 9), random_signs(circuit, 9)
    strided = torch.stack([signs.t(), -signs.t()], 2)[..., 0].t()
    assert not strided.is_contiguous()
    runs = [
        values_and_gradients(native.expect(CircuitBatch(circuit, *tensors), (0,), each), tensors)
        for each in (signs, strided)
    ]
    assert_equal(*runs)


# --- errors -------------------------------------------------------------------------------------------------------

PAIR = Circuit.from_gates(
    2, [ry(0, Angle("weight", 0)), cx(0, 1), ry(1, Angle("weight", 1)), ry(0, Angle("weight", 0))]
)
GOOD = torch.ones(3, 3, dtype=torch.int8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("signs", "message"),
    [
        (GOOD[:2], r"signs must be an int8 tensor of shape \(3, 3\) on cpu, one column for each rotation"),
        (GOOD[:, :2], "signs must be an int8 tensor of shape"),
        (GOOD.t()[None], "signs must be an int8 tensor of shape"),
        (GOOD.float(), "signs must be an int8 tensor of shape"),
        (GOOD.bool(), "signs must be an int8 tensor of shape"),
        (GOOD.to("meta"), "signs must be an int8 tensor of shape"),
        ([[1] * 3] * 3, "signs must be an int8 tensor of shape"),
        (GOOD * 0, "signs has a value other than 1 and -1; pass 1, or -1"),
        (GOOD.index_fill(1, torch.tensor(2), 2), "signs has a value other than 1 and -1; pass 1, or -1"),
        (GOOD.index_fill(0, torch.tensor(0), -128), "signs has a value other than 1 and -1; pass 1, or -1"),
    ],
)
def test_invalid_signs_raise_input_error(signs, message, engine):
    initial = torch.eye(4)[:3]
    with pytest.raises(InputError, match=message):
        statevector_expectation(CircuitBatch(PAIR, torch.zeros(2), None, initial), (1,), signs=signs, engine=engine)


def test_joint_memory_too_small_raises(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**27))
    circuit, batch = Circuit(12, (ry(0, Angle("input", 0)),), 0, 1), 2**14
    inputs = torch.zeros(batch, 1)
    with pytest.raises(InsufficientMemoryError, match="16384 samples on 12 qubits need"):
        statevector_expectation(CircuitBatch(circuit, torch.zeros(0), inputs), tuple(range(12)), joint=True)
    assert statevector_expectation(CircuitBatch(circuit, torch.zeros(0), inputs), (0, 1), joint=True).shape == (
        batch,
        4,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_joint_of_more_than_12_qubits_raises_input_error(engine):
    circuit, message = Circuit(13, (), 0, 0), "of 13 qubits has 8192 outcomes; measure at most 12 qubits"
    with pytest.raises(InputError, match=message):
        statevector_expectation(CircuitBatch(circuit, torch.zeros(0)), tuple(range(13)), joint=True, engine=engine)
    values = statevector_expectation(CircuitBatch(circuit, torch.zeros(0)), tuple(range(13)), engine=engine)
    assert values.shape == (1, 13)
