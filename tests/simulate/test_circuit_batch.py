"""Test the value that the simulators take: its size, its copies and its checks."""

import dataclasses

import pytest
import torch

from ketfit.circuit import Angle, Circuit, cx, ry
from ketfit.errors import InputError
from ketfit.simulate.circuit_batch import CircuitBatch

CIRCUIT = Circuit(2, (ry(0, Angle("weight", 0)), cx(0, 1), ry(1, Angle("input", 0))), n_weights=1, n_inputs=1)
WEIGHTS = torch.zeros(1)


def test_size_is_that_of_inputs_or_initial_or_one():
    fixed = Circuit(2, CIRCUIT.gates[:2], 1, 0)
    assert CircuitBatch(CIRCUIT, WEIGHTS, torch.zeros(3, 1)).size == 3
    assert CircuitBatch(CIRCUIT, WEIGHTS, torch.zeros(0, 1), torch.zeros(0, 4)).size == 0
    assert CircuitBatch(fixed, WEIGHTS).size == 1
    assert CircuitBatch(fixed, WEIGHTS, torch.zeros(5, 0)).size == 5
    assert CircuitBatch(fixed, WEIGHTS, initial=torch.eye(4)).size == 4


def test_batch_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CircuitBatch(CIRCUIT, WEIGHTS, torch.zeros(3, 1)).size = 2  # type: ignore[misc]


def test_tensors_are_contiguous_and_not_copied_if_they_were():
    inputs, initial = torch.zeros(3, 1), torch.arange(12.0).view(4, 3).t()
    batch = CircuitBatch(CIRCUIT, WEIGHTS, inputs, initial)
    assert batch.tensors[:2] == (WEIGHTS, inputs)
    assert batch.initial is not None
    assert batch.initial.is_contiguous()
    assert torch.equal(batch.initial, initial)


def test_repeat_samples_repeats_each_sample_in_a_row():
    batch = CircuitBatch(CIRCUIT, WEIGHTS, torch.tensor([[1.0], [2.0]]), torch.eye(4)[:2]).repeat_samples(2)
    assert batch.inputs is not None
    assert batch.inputs.tolist() == [[1], [1], [2], [2]]
    assert batch.initial is not None
    assert batch.initial.argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert CircuitBatch(Circuit(1, (), 0, 0), torch.zeros(0)).repeat_samples(7).size == 7


def test_with_circuit_keeps_tensors():
    batch = CircuitBatch(CIRCUIT, WEIGHTS, torch.zeros(3, 1))
    cone = batch.with_circuit(CIRCUIT.light_cone((0,)))
    assert (cone.circuit, cone.size) == (CIRCUIT.light_cone((0,)), 3)
    assert all(one is other for one, other in zip(cone.tensors, batch.tensors, strict=True))
    assert batch.circuit is CIRCUIT


def test_is_differentiated_follows_grad_mode_and_tensors():
    inputs = torch.zeros(3, 1, requires_grad=True)
    assert CircuitBatch(CIRCUIT, WEIGHTS, inputs).is_differentiated
    assert not CircuitBatch(CIRCUIT, WEIGHTS, inputs.detach()).is_differentiated
    with torch.no_grad():
        assert not CircuitBatch(CIRCUIT, WEIGHTS, inputs).is_differentiated


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (([0.0],), "weights is of type list; pass a torch.Tensor"),
        ((WEIGHTS,), r"this circuit reads 1 inputs; pass inputs of shape \(batch, 1\)"),
        ((WEIGHTS, torch.zeros(3)), r"inputs has shape \(3,\); this circuit needs \(batch, 1\)"),
        ((WEIGHTS.int(), torch.zeros(3, 1)), r"weights is torch.int32; convert it with .float\(\) or .double\(\)"),
        ((WEIGHTS, torch.zeros(3, 1).double()), "inputs is torch.float64 and weights are torch.float32; make them"),
        ((WEIGHTS, torch.zeros(3, 1, device="meta")), "inputs is on meta and weights are on cpu; move them together"),
        ((WEIGHTS, torch.zeros(3, 1), torch.zeros(2, 4)), "inputs have a batch of 3 and initial of 2; they must be eq"),
    ],
)
def test_invalid_tensors_raise_input_error(tensors, message):
    with pytest.raises(InputError, match=message):
        CircuitBatch(CIRCUIT, *tensors)


@pytest.mark.parametrize("position", range(3))
def test_check_finite_names_first_invalid_tensor(position):
    tensors = [WEIGHTS.clone(), torch.zeros(2, 1), torch.zeros(2, 4)]
    tensors[position].view(-1)[0] = torch.nan
    name = ("weights", "inputs", "initial")[position]
    with pytest.raises(InputError, match=f"{name} holds a number that is not finite"):
        CircuitBatch(CIRCUIT, *tensors).check_finite()
