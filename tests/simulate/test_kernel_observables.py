from __future__ import annotations

import numpy as np
import pytest
import torch

from ketfit.circuit import Angle, Circuit, Gate, PauliSum
from ketfit.errors import InputError
from ketfit.simulate import expectation, expectation_and_gradients
from ketfit.simulate.complex_statevector import ProgramBatch, plan_for, simulate
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.pauli_program import PauliWord
from tests.circuits_of_any_kind import random_general_circuit, reference_statevector

NAMES = ("weights", "inputs", "initial")
SUMS = [
    PauliSum([(0.5, "ZZ", (0, 2)), (-1.25, "X", (1,)), (2.0, "", ())]),
    PauliSum([(0.75, "X", (1,)), (-0.5, "YXZ", (2, 0, 1))]),
]


def arguments(circuit: Circuit, seed: int, kind: str | None, batch: int = 3) -> list[torch.Tensor | None]:
    """Weights, inputs, and real, complex or no initial amplitudes; all require gradients."""
    rng = np.random.default_rng(seed)
    initial = rng.normal(size=(batch, 2**circuit.n_qubits))
    if kind == "complex":
        initial = initial + 1j * rng.normal(size=initial.shape)
    arrays = [rng.uniform(-3, 3, circuit.n_weights), rng.uniform(-3, 3, (batch, circuit.n_inputs))]
    arrays.append(None if kind is None else initial / np.linalg.norm(initial, axis=1, keepdims=True))
    return [None if array is None else torch.tensor(array).requires_grad_() for array in arrays]


def values_and_gradients(circuit, tensors, engine, **readout):
    values = expectation(circuit, *tensors, engine=engine, **readout)
    cotangent = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
    leaves = [tensor for tensor in tensors if tensor is not None]
    return [values, *torch.autograd.grad((values * cotangent).sum(), leaves)]


@pytest.mark.parametrize("kind", [None, "real", "complex"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("readout", [{"qubits": (2, 0)}, {"observables": SUMS}], ids=["z", "sums"])
def test_kernel_and_torch_agree_on_any_circuit(readout, seed, kind):
    circuit = random_general_circuit(3 + seed, 40, seed)
    tensors = arguments(circuit, seed, kind)
    native, other = (values_and_gradients(circuit, tensors, engine, **readout) for engine in ("native", "torch"))
    for one, two in zip(native, other, strict=True):
        assert one.dtype == two.dtype
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_states_of_real_circuits_have_no_imaginary_parts(seed):
    circuit = random_general_circuit(3 + 2 * seed, 40, seed, ("ry", "cry", "cx", "cz", "swap", "x", "z"))
    tensors = arguments(circuit, seed, None)
    native, other = (values_and_gradients(circuit, tensors, engine, observables=SUMS) for engine in ("native", "torch"))
    for one, two in zip(native, other, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)
    words = tuple(PauliWord(0, 1 << bit) for bit in range(circuit.n_qubits))
    plans = []
    for gates in (circuit.gates, (*circuit.gates, Gate("rx", 0, (0.2,)))):
        changed = Circuit(circuit.n_qubits, gates, circuit.n_weights, circuit.n_inputs)
        plans.append(plan_for(ProgramBatch(program_of(changed), *tensors), words))
    assert 2 * plans[0].unit_numbers == plans[1].unit_numbers


@pytest.mark.parametrize("kind", [None, "real", "complex"])
@pytest.mark.parametrize("readout", [{"qubits": (1,)}, {"observables": SUMS}], ids=["z", "sums"])
def test_values_and_gradients_in_one_call_equal_those_of_autograd(readout, kind):
    circuit = random_general_circuit(4, 30, 7)
    tensors = arguments(circuit, 7, kind)
    columns = len(next(iter(readout.values())))
    cotangent = torch.linspace(-1, 2, 3 * columns, dtype=torch.float64).reshape(3, columns)
    values = expectation(circuit, *tensors, **readout)
    leaves = [tensor for tensor in tensors if tensor is not None]
    expected = [values, *torch.autograd.grad((values * cotangent).sum(), leaves)]
    found = expectation_and_gradients(circuit, *tensors, cotangent=cotangent, wrt=NAMES[: len(leaves)], **readout)
    for one, two in zip([each for each in found if each is not None], expected, strict=True):
        torch.testing.assert_close(one, two.detach(), rtol=0, atol=1e-12)


def test_second_derivatives_equal_those_of_torch():
    circuit = random_general_circuit(3, 15, 11)
    weights, inputs, _ = arguments(circuit, 11, None)

    def hessian(engine):
        values = expectation(circuit, weights, inputs, observables=SUMS, engine=engine).square().sum()
        (slope,) = torch.autograd.grad(values, weights, create_graph=True)
        return torch.autograd.grad(slope.sum(), weights)[0]

    torch.testing.assert_close(hessian("auto"), hessian("torch"), rtol=0, atol=1e-10)


def test_program_of_circuit_gives_its_states():
    circuit = random_general_circuit(4, 40, 3)
    weights, inputs, _ = arguments(circuit, 3, None)
    states = simulate(ProgramBatch(program_of(circuit), weights, inputs)).detach().numpy()
    for state, sample in zip(states, inputs.tolist(), strict=True):
        np.testing.assert_allclose(state, reference_statevector(circuit, weights.tolist(), sample), atol=1e-12)


@pytest.mark.parametrize("name", ["weights", "inputs", "initial"])
def test_numbers_that_are_not_finite_are_refused(name):
    circuit = Circuit.from_gates(1, [Gate("rx", 0, [Angle("weight", 0)]), Gate("rz", 0, [Angle("input", 0)])])
    tensors = {"weights": torch.zeros(1), "inputs": torch.zeros(2, 1), "initial": torch.eye(2)}
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    with pytest.raises(InputError, match=f"{name} holds a number that is not finite"):
        expectation(circuit, **tensors)
    with pytest.raises(InputError, match=f"{name} holds a number that is not finite"):
        expectation_and_gradients(circuit, **tensors)


def test_many_rotations_of_one_stage_do_not_overflow() -> None:
    """The kernel divides the numbers of a chunk by cosines, whose product is 2**-355 here."""
    gates = [gate for _ in range(200) for gate in (Gate("rxx", (0, 1), [2.0]), Gate("ry", 0, [Angle("weight", 0)]))]
    runs = []
    for n_qubits, dtype in ((18, torch.float32), (2, torch.float64)):
        weights = torch.full((1,), 2.0, dtype=dtype, requires_grad=True)
        value = expectation(Circuit.from_gates(n_qubits, gates), weights, qubits=(0,))
        runs.append((value.item(), torch.autograd.grad(value.sum(), weights)[0].item()))
    assert runs[0] == pytest.approx(runs[1], rel=1e-2, abs=1e-2)
