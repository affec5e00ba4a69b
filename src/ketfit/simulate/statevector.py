"""Expectations of real circuits, differentiable by the adjoint method.

Every gate and every loaded amplitude is real, so a state is a real array of shape (2**Q, batch): amplitudes by rows,
samples side by side. The gradient walks the circuit backwards with two states, the state itself and the adjoint (the
derivative of the loss with respect to the state), and undoes one gate at a time; no intermediate state is kept
(Jones and Gacon, arXiv 2009.02823). With psi behind a rotation RY(t) and lambda the adjoint there,
d loss / dt = 1/2 * sum(lambda_1 psi_0 - lambda_0 psi_1), where 0 and 1 are the halves of the target qubit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ketfit.circuit.circuit import Circuit, Gate
from ketfit.errors import ConfigError, InputError

Engine = Literal["auto", "torch"]


def expectation(
    circuit: Circuit,
    weights: Tensor,
    inputs: Tensor | None = None,
    initial: Tensor | None = None,
    qubits: Sequence[int] = (0,),
    *,
    noise: object | None = None,
    trajectories: int | None = None,
    shots: int | None = None,
    gradient: str | None = None,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Tensor:
    """<Z> of each of `qubits` after `circuit`, exact, and differentiable once in all three tensors.

    Args:
        circuit: What to run. Gates that cannot reach `qubits` are left out.
        weights: Angles in radians, shape (n_weights,), shared by the batch.
        inputs: Angles in radians, shape (batch, n_inputs); None only if the circuit reads none.
        initial: Amplitudes before the first gate, shape (batch, 2**n_qubits), qubit 0 the most significant bit of the
            index; None is |0...0>. They are taken as they are: a vector of norm r gives r**2 times the expectation.
        qubits: Which qubits to measure, in the order of the result's columns.
        noise, trajectories, shots, gradient, generator: Gate noise and finite shots, which this version does not have.
        engine: "torch", or "auto" for the fastest there is (today the same).

    Returns:
        Shape (batch, len(qubits)), of the dtype and on the device of `weights`. The batch is 1 if neither `inputs`
        nor `initial` is given.

    Raises:
        CircuitError: a qubit is out of range or named twice.
        InputError: a tensor has the wrong shape, dtype or device, or holds a number that is not finite.
        ConfigError: an engine that is unknown, or noise or shots.
    """
    if any(option is not None for option in (noise, trajectories, shots, gradient, generator)):
        raise ConfigError(
            "gate noise and finite shots are not in this version of KetFit; "
            "leave noise, trajectories, shots, gradient and generator out"
        )
    if engine not in ("auto", "torch"):
        raise ConfigError(f"unknown engine {engine!r}; known are 'auto' and 'torch'")
    batch = _check_tensors(circuit, weights, inputs, initial)
    kept, signs = _plan(circuit, circuit.check_qubits(qubits))
    if inputs is None:
        inputs = weights.new_zeros(batch, 0)
    if initial is None:
        initial = weights.new_zeros(batch, 2**circuit.n_qubits)
        initial[:, 0] = 1
    result: Tensor = _Expectation.apply(kept, signs.to(weights), weights, inputs, initial)  # type: ignore[no-untyped-call]
    return result


@lru_cache(maxsize=64)
def _plan(circuit: Circuit, qubits: tuple[int, ...]) -> tuple[Circuit, Tensor]:
    """The gates that matter, and the eigenvalue of each measured Z for each basis state: (len(qubits), 2**Q)."""
    basis = torch.arange(2**circuit.n_qubits)
    shifts = torch.tensor([circuit.n_qubits - 1 - qubit for qubit in qubits])
    return circuit.light_cone(qubits), 1 - 2 * (basis >> shifts[:, None] & 1)


class _Expectation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, circuit: Circuit, signs: Tensor, weights: Tensor, inputs: Tensor, initial: Tensor) -> Tensor:
        # A copy, because the gates work in place; samples last, so that a gate reads long contiguous rows.
        state = initial.t().clone(memory_format=torch.contiguous_format)
        for gate, rotation in zip(circuit.gates, _rotations(circuit, weights, inputs), strict=True):
            _apply(gate, rotation, state)
        ctx.circuit = circuit
        ctx.save_for_backward(signs, weights, inputs, state)
        return (signs @ state.square()).t().contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, Tensor | None, Tensor | None]:
        signs, weights, inputs, final = ctx.saved_tensors
        circuit: Circuit = ctx.circuit
        wants = dict(zip(("weight", "input", "initial"), ctx.needs_input_grad[2:], strict=True))
        state = final.clone()
        adjoint = 2 * state * (signs.t() @ grad.t())
        grads = {"weight": torch.zeros_like(weights), "input": torch.zeros_like(inputs).t()}
        rotations = _rotations(circuit, weights, inputs)
        for gate, rotation in zip(reversed(circuit.gates), reversed(rotations), strict=True):
            if gate.angle is not None and wants[gate.angle.source]:
                slope = _slope(gate.target, state, adjoint)
                grads[gate.angle.source][gate.angle.index] += slope.sum() if gate.angle.source == "weight" else slope
            _undo(gate, rotation, state)
            _undo(gate, rotation, adjoint)
        return (
            None,
            None,
            grads["weight"] if wants["weight"] else None,
            grads["input"].t() if wants["input"] else None,
            adjoint.t() if wants["initial"] else None,
        )


_Rotation = tuple[Tensor, Tensor]


def _rotations(circuit: Circuit, weights: Tensor, inputs: Tensor) -> list[_Rotation | None]:
    """Cosine and sine of half the angle of each gate: numbers for weights, shape (batch,) for inputs; None for CNOT."""
    columns = {"weight": weights, "input": inputs.t().contiguous()}
    tables = {source: (torch.cos(half / 2).unbind(), torch.sin(half / 2).unbind()) for source, half in columns.items()}
    return [
        None
        if gate.angle is None
        else (tables[gate.angle.source][0][gate.angle.index], tables[gate.angle.source][1][gate.angle.index])
        for gate in circuit.gates
    ]


def _halves(qubit: int, state: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of a (2**Q, batch) state where `qubit` is 0 and 1: views of shape (2**qubit, 2**(Q-1-qubit), batch)."""
    halves = state.view(2**qubit, 2, -1, state.shape[1])
    return halves[:, 0], halves[:, 1]


def _apply(gate: Gate, rotation: _Rotation | None, state: Tensor) -> None:
    if rotation is None:
        _flip(gate, state)
    else:
        _rotate(gate.target, *rotation, state)


def _undo(gate: Gate, rotation: _Rotation | None, state: Tensor) -> None:
    if rotation is None:
        _flip(gate, state)
    else:
        _rotate(gate.target, rotation[0], -rotation[1], state)


def _rotate(qubit: int, cos: Tensor, sin: Tensor, state: Tensor) -> None:
    zero, one = _halves(qubit, state)
    new_zero = (cos * zero).addcmul_(sin, one, value=-1)
    one.mul_(cos).addcmul_(sin, zero)
    zero.copy_(new_zero)


def _flip(gate: Gate, state: Tensor) -> None:
    assert gate.control is not None
    low, high = sorted(gate.qubits)
    parts = state.view(2**low, 2, 2 ** (high - low - 1), 2, -1)
    if gate.control == low:
        zero, one = parts[:, 1, :, 0], parts[:, 1, :, 1]
    else:
        zero, one = parts[:, 0, :, 1], parts[:, 1, :, 1]
    old_zero = zero.clone()
    zero.copy_(one)
    one.copy_(old_zero)


def _slope(qubit: int, state: Tensor, adjoint: Tensor) -> Tensor:
    """Derivative of the loss with respect to the angle of a rotation that has just been applied, shape (batch,)."""
    zero, one = _halves(qubit, state)
    adjoint_zero, adjoint_one = _halves(qubit, adjoint)
    return (adjoint_one * zero).addcmul_(adjoint_zero, one, value=-1).sum(dim=(0, 1)) / 2


def _check_tensors(circuit: Circuit, weights: Tensor, inputs: Tensor | None, initial: Tensor | None) -> int:
    """The size of the batch, once every tensor is seen to fit the circuit and the others."""
    batch: int | None = None
    named = {
        "weights": (weights, circuit.n_weights),
        "inputs": (inputs, circuit.n_inputs),
        "initial": (initial, 2**circuit.n_qubits),
    }
    for name, (tensor, width) in named.items():
        if tensor is None:
            continue
        shape = f"({width},)" if name == "weights" else f"(batch, {width})"
        if tensor.dim() != (1 if name == "weights" else 2) or tensor.shape[-1] != width:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}; this circuit needs {shape}")
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != weights.dtype:
            raise InputError(
                f"{name} is {tensor.dtype} and weights are {weights.dtype}; make both float32 or both float64"
            )
        if tensor.device != weights.device:
            raise InputError(f"{name} is on {tensor.device} and weights are on {weights.device}; move them together")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds a number that is not finite (NaN or infinity)")
        if name != "weights":
            if batch is not None and batch != tensor.shape[0]:
                raise InputError(f"inputs have a batch of {batch} and initial of {tensor.shape[0]}; they must be equal")
            batch = tensor.shape[0]
    if inputs is None and circuit.n_inputs:
        raise InputError(
            f"this circuit reads {circuit.n_inputs} inputs; pass inputs of shape (batch, {circuit.n_inputs})"
        )
    return 1 if batch is None else batch
