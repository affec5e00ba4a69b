"""Complex statevectors of the kernel against products of matrices, PennyLane, and each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
import pytest
import torch
from torch import Tensor

from ketfit.errors import InputError
from ketfit.simulate.complex_statevector import (
    ProgramBatch,
    choose_layout,
    expect_words,
    expect_words_and_differentiate,
    make_plan,
    simulate,
)
from ketfit.simulate.native import count_lane_bits, empty_gradients, kernel_batch, kernel_gradients
from ketfit.simulate.pauli_program import AngleTerms, PauliProgram, PauliWord, Rotation, Unitary
from tests.simulate.dense_reference import BOTH_DTYPES, ISAS
from tests.simulate.pauli_reference import (
    CONSTANT_GATES,
    N_INPUTS,
    N_WEIGHTS,
    random_program,
    random_word,
    reference_states,
    reference_values,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}


def random_tensors(
    rng: np.random.Generator, n_qubits: int, size: int, has_initial: bool, dtype: torch.dtype = torch.float64
) -> list[Tensor | None]:
    """Return weights, inputs and normalised complex amplitudes or None, exact in float32; all require gradients."""
    arrays = [rng.uniform(-4, 4, N_WEIGHTS), rng.uniform(-4, 4, (size, N_INPUTS))]
    tensors: list[Tensor | None] = [
        torch.tensor(array.astype(np.float32)).to(dtype).requires_grad_() for array in arrays
    ]
    if not has_initial:
        return [*tensors, None]
    initial = rng.normal(size=(size, 2**n_qubits)) + 1j * rng.normal(size=(size, 2**n_qubits))
    initial = (initial / np.linalg.norm(initial, axis=1, keepdims=True)).astype(np.complex64)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return [*tensors, torch.tensor(initial).to(complex_dtype).requires_grad_()]


def gradients(values: Tensor, tensors: list[Tensor | None], cotangent: Tensor) -> list[Tensor]:
    """Return the gradients of the sum of values times `cotangent` by the tensors that are not None."""
    given = [tensor for tensor in tensors if tensor is not None]
    return list(torch.autograd.grad(values, given, cotangent))


def assert_close(mine: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Compare numbers in double precision."""
    for a, b in zip(mine, expected, strict=True):
        assert (a.detach().to(b.dtype) - b).abs().max() < tolerance


def doubles(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Return copies in double precision."""
    return [
        None
        if tensor is None
        else tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64).requires_grad_()
        for tensor in tensors
    ]


@BOTH_DTYPES
@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_expect_words_random_program_equals_matrix_products(seed: int, has_initial: bool, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    n_qubits, size = int(rng.integers(1, 7)), int(rng.choice([1, 2, 3, 9, 17]))
    program = random_program(rng, n_qubits, int(rng.integers(1, 25)))
    words = [random_word(rng, n_qubits) for _ in range(3)]
    tensors = random_tensors(rng, n_qubits, size, has_initial, dtype)
    cotangent = torch.tensor(rng.normal(size=(size, 3)), dtype=torch.float32).double()
    wide = doubles(tensors)
    states = reference_states(program, *wide)  # type: ignore[arg-type]
    expected = reference_values(states, words, n_qubits)
    expected_all = [expected.detach(), *gradients(expected, wide, cotangent)]
    batch = ProgramBatch(program, *tensors)  # type: ignore[arg-type]
    found = expect_words_and_differentiate(batch, words, cotangent.to(dtype), (True, True, has_initial))
    assert_close([tensor for tensor in found if tensor is not None], expected_all, TOLERANCE[dtype])
    values = expect_words(batch, words)
    assert_close([values, *gradients(values, tensors, cotangent.to(dtype))], expected_all, TOLERANCE[dtype])


@pytest.mark.parametrize("has_initial", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_simulate_random_program_gives_states_and_gradients_of_any_function(seed: int, has_initial: bool) -> None:
    rng = np.random.default_rng(100 + seed)
    n_qubits, size = int(rng.integers(1, 7)), int(rng.choice([1, 3, 5]))
    program = random_program(rng, n_qubits, 20)
    tensors = random_tensors(rng, n_qubits, size, has_initial)
    basis = torch.tensor(
        np.linalg.qr(rng.normal(size=(2**n_qubits,) * 2) + 1j * rng.normal(size=(2**n_qubits,) * 2))[0]
    )
    levels = torch.arange(2**n_qubits, dtype=torch.float64)
    results = []
    for states in (
        simulate(ProgramBatch(program, *tensors)),  # type: ignore[arg-type]
        reference_states(program, *tensors),  # type: ignore[arg-type]
    ):
        energies = (states @ basis).abs().square() @ levels
        results.append([states.detach(), *gradients(energies, tensors, torch.ones(size, dtype=torch.float64))])
    assert_close(results[0], results[1], 1e-10)


def pennylane_values(program: PauliProgram, words: list[PauliWord], weights: Tensor, inputs: Tensor) -> Tensor:
    """Return the mean of each word by default.qubit, (size, len(words))."""
    n_qubits = program.n_qubits

    def letters(word: PauliWord) -> str:
        return "".join("IXZY"[(word.x >> bit & 1) + 2 * (word.z >> bit & 1)] for bit in reversed(range(n_qubits)))

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")  # type: ignore[untyped-decorator]
    def circuit() -> Any:
        for operation in program.operations:
            if isinstance(operation, Unitary):
                qml.QubitUnitary(operation.matrix, wires=operation.qubits)
                continue
            angle = torch.full((len(inputs),), operation.angle.offset, dtype=torch.float64)
            for index, factor in operation.angle.weights:
                angle = angle + factor * weights[index]
            for index, factor in operation.angle.inputs:
                angle = angle + factor * inputs[:, index]
            if letters(operation.word).strip("I"):
                qml.PauliRot(operation.word.sign * angle, letters(operation.word), wires=range(n_qubits))
        return [qml.expval(qml.pauli.string_to_pauli_word(letters(word))) for word in words]

    return torch.stack([word.sign * value for word, value in zip(words, circuit(), strict=True)], dim=1)


@pytest.mark.parametrize("n_qubits", [2, 5, 8, pytest.param(10, marks=pytest.mark.slow)])
def test_expect_words_random_program_equals_pennylane(n_qubits: int) -> None:
    rng = np.random.default_rng(n_qubits)
    program = random_program(rng, n_qubits, 40)
    words = [PauliWord(0, 1 << (n_qubits - 1)), *(random_word(rng, n_qubits) for _ in range(2))]
    weights, inputs, _ = tensors = random_tensors(rng, n_qubits, 3, has_initial=False)
    assert weights is not None and inputs is not None
    cotangent = torch.tensor(rng.normal(size=(3, 3)))
    expected = pennylane_values(program, words, weights, inputs)
    values = expect_words(ProgramBatch(program, weights, inputs), words)
    assert_close(
        [values, *gradients(values, tensors, cotangent)],
        [expected.detach(), *gradients(expected, tensors, cotangent)],
        1e-10,
    )


@BOTH_DTYPES
@pytest.mark.parametrize("isa", ISAS)
def test_plan_every_layout_gives_equal_results(isa: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(7)
    n_qubits, size = 8, 5
    itemsize = dtype.itemsize
    program = random_program(rng, n_qubits, 40)
    words = [random_word(rng, n_qubits) for _ in range(2)]
    for has_initial in (False, True):
        tensors = random_tensors(rng, n_qubits, size, has_initial, dtype)
        wide = doubles(tensors)
        cotangent = torch.ones(size, 2, dtype=torch.float64)
        expected = reference_values(reference_states(program, *wide), words, n_qubits)  # type: ignore[arg-type]
        expected_all = [expected.detach(), *gradients(expected, wide, cotangent)]
        lane_bits = count_lane_bits(isa, itemsize)
        for sample_bits in range(lane_bits + 1):
            for chunk_bits in (lane_bits + 3, n_qubits + sample_bits):
                plan = make_plan(
                    program,
                    words,
                    itemsize,
                    from_zero=not has_initial,
                    isa=isa,
                    sample_bits=sample_bits,
                    chunk_bits=chunk_bits,
                )
                contiguous = [None if tensor is None else tensor.detach() for tensor in tensors]
                grads = empty_gradients(contiguous, (True, True, has_initial))
                values = torch.empty(size, 2, dtype=dtype)
                ones = cotangent.to(dtype)
                assert plan.forward_and_backward(
                    kernel_batch(size, *contiguous),  # type: ignore[arg-type]
                    values.data_ptr(),
                    ones.data_ptr(),
                    kernel_gradients(*grads),
                    2,
                )
                found = [values, *(grad for grad in grads if grad is not None)]
                assert_close(found, expected_all, TOLERANCE[dtype])


@pytest.mark.parametrize(("n_qubits", "size"), [(4, 40), (16, 3)])
def test_expect_words_threads_do_not_change_results(
    n_qubits: int, size: int, set_threads: Callable[[int], None]
) -> None:
    rng = np.random.default_rng(8)
    bits = [1 << bit for bit in range(n_qubits)]
    operations = [Rotation(PauliWord(bit, bit), AngleTerms(weights=((0, 1.0),))) for bit in bits]
    operations += [
        Rotation(PauliWord(bit | bits[0], bits[1]), AngleTerms(weights=((1, 0.5),), inputs=((k % 3, 1.0),)))
        for k, bit in enumerate(bits[2:])
    ]
    program = PauliProgram(n_qubits, N_WEIGHTS, N_INPUTS, tuple(operations))
    weights, inputs, _ = random_tensors(rng, n_qubits, size, has_initial=False)
    assert weights is not None
    batch = ProgramBatch(program, weights.detach(), None if inputs is None else inputs.detach())
    words = [PauliWord(bits[0], bits[1]), PauliWord(0, bits[2])]
    results = []
    for threads in (1, 2):
        set_threads(threads)
        ones = torch.ones(size, 2, dtype=torch.float64)
        results.append(expect_words_and_differentiate(batch, words, ones, (True, True, False))[:3])
    for one, two in zip(*results, strict=True):
        assert one is not None and two is not None
        assert torch.equal(one, two)


@pytest.mark.parametrize("n_qubits", [1, 3, 6])
def test_expect_words_signs_negate_angles_of_each_sample(n_qubits: int) -> None:
    rng = np.random.default_rng(11 + n_qubits)
    size = 5
    program = random_program(rng, n_qubits, 20)
    lowered, frame = program.lowered
    signs = torch.tensor(rng.choice([-1, 1], (size, len(lowered))), dtype=torch.int8)
    words = [random_word(rng, n_qubits) for _ in range(2)]
    weights, inputs, initial = tensors = random_tensors(rng, n_qubits, size, has_initial=True)
    assert weights is not None and inputs is not None and initial is not None
    rows = []
    for b in range(size):
        negated = tuple(
            replace(rotation, word=replace(rotation.word, sign=rotation.word.sign * sign))
            for rotation, sign in zip(lowered, signs[b].tolist(), strict=True)
        )
        alone = ProgramBatch(PauliProgram(n_qubits, N_WEIGHTS, N_INPUTS, negated), weights, inputs[[b]], initial[[b]])
        rows.append(expect_words(alone, [frame.image(word) for word in words]))
    expected = torch.cat(rows)
    cotangent = torch.tensor(rng.normal(size=(size, 2)))
    expected_all = [expected.detach(), *gradients(expected, tensors, cotangent)]
    batch = ProgramBatch(program, weights, inputs, initial, signs)
    values = expect_words(batch, words)
    assert_close([values, *gradients(values, tensors, cotangent)], expected_all, 1e-10)
    found = expect_words_and_differentiate(batch, words, cotangent, (True, True, True))
    assert_close([tensor for tensor in found if tensor is not None], expected_all, 1e-10)


def test_program_batch_wrong_signs_are_refused() -> None:
    for signs in (torch.ones(1, 1), torch.ones(1, 2, dtype=torch.int8), torch.zeros(1, 1, dtype=torch.int8)):
        with pytest.raises(InputError, match="signs must be 1 and -1"):
            ProgramBatch(ONE_ROTATION, torch.zeros(1), torch.zeros(1, 1), signs=signs)


def test_expect_words_second_backward_pass_gives_equal_gradients() -> None:
    rng = np.random.default_rng(9)
    tensors = random_tensors(rng, 3, 2, has_initial=True)
    values = expect_words(ProgramBatch(random_program(rng, 3, 10), *tensors), [PauliWord(1, 2)])  # type: ignore[arg-type]
    given = [tensor for tensor in tensors if tensor is not None]
    first = torch.autograd.grad(values.sum(), given, retain_graph=True)
    second = torch.autograd.grad(values.sum(), given)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_expect_words_gradient_of_gradient_is_refused() -> None:
    rng = np.random.default_rng(10)
    tensors = random_tensors(rng, 2, 1, has_initial=False)
    values = expect_words(ProgramBatch(random_program(rng, 2, 10), *tensors), [PauliWord(1, 2)])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="differentiable once"):
        torch.autograd.grad(values.sum(), tensors[:2], create_graph=True)  # type: ignore[arg-type]


ONE_ROTATION = PauliProgram(1, 1, 1, (Rotation(PauliWord(1, 0), AngleTerms(((0, 1.0),), ((0, 1.0),))),))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2),), "weights has shape"),
        ((torch.zeros(1),), "reads 1 inputs"),
        ((torch.zeros(1), torch.zeros(1, 2)), "inputs has shape"),
        ((torch.zeros(1), torch.zeros(1, 1).double()), "inputs is torch.float64"),
        ((torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 2).double()), "initial is torch.float64"),
        ((torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.complex64)), "initial has shape"),
        ((torch.zeros(1), torch.zeros(1, 1), torch.zeros(2, 2, dtype=torch.complex64)), "batch of 1 and initial of 2"),
    ],
)
def test_program_batch_wrong_tensor_is_refused(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProgramBatch(ONE_ROTATION, *arguments)


def test_expect_words_number_that_is_not_finite_is_refused() -> None:
    words = [PauliWord(0, 1)]
    with pytest.raises(InputError, match="weights holds a number that is not finite"):
        expect_words(ProgramBatch(ONE_ROTATION, torch.tensor([torch.nan]), torch.zeros(1, 1)), words)
    batch = ProgramBatch(ONE_ROTATION, torch.zeros(1), torch.zeros(1, 1))
    with pytest.raises(InputError, match="cotangent holds a number that is not finite"):
        expect_words_and_differentiate(batch, words, torch.tensor([[torch.inf]]), (True, False, False))
    with pytest.raises(InputError, match="inputs holds a number that is not finite"):
        simulate(ProgramBatch(ONE_ROTATION, torch.zeros(1), torch.tensor([[torch.inf]])))
    with pytest.raises(InputError, match="cotangent has 2 rows for a batch of 1"):
        expect_words_and_differentiate(batch, words, torch.ones(2, 1), (True, False, False))


def test_choose_layout_gives_units_of_a_row_at_least() -> None:
    for itemsize in (4, 8):
        for n_qubits in range(1, 25):
            for size in (1, 2, 5, 33):
                isa, sample_bits = choose_layout(n_qubits, size, itemsize)
                assert count_lane_bits(isa, itemsize) <= n_qubits + sample_bits


def test_expect_words_clifford_circuit_needs_no_rotation() -> None:
    gates = [Unitary((0,), CONSTANT_GATES["x"]), Unitary((0, 1), CONSTANT_GATES["cx"])]
    batch = ProgramBatch(PauliProgram(2, 0, 0, tuple(gates)), torch.zeros(0))
    assert expect_words(batch, [PauliWord(0, 1), PauliWord(0, 3, -1)]).tolist() == [[-1, -1]]
    assert simulate(batch).tolist() == [[0, 0, 0, 1]]
