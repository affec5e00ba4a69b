"""Expectations of real circuits, differentiable by the adjoint method, in the native kernel and in torch.

Every gate and every initial amplitude is real, so a state is a real array. The torch engine stores it as (2**Q, batch),
one column for each sample (the kernel has layouts of its own). With J psi the state whose halves along the target
qubit are (-psi_1, psi_0), a rotation is RY(t) psi = cos(t/2) psi + sin(t/2) J psi, and a CNOT swaps rows.

The adjoint pass applies the inverse gates in reverse order to two states, the state itself and the adjoint (the
derivative of the loss with respect to the state), and stores no intermediate state (Jones and Gacon, arXiv
2009.02823). With psi after the rotation and lambda the adjoint there, d loss / dt = 1/2 sum(lambda * J psi).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, Gate
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.memory import memory_shortage
from ketfit.simulate.native import check_finite, check_joint, check_signs, expect, expect_and_differentiate

Engine = Literal["auto", "native", "torch"]


def statevector_expectation(
    circuit: Circuit,
    measured: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    *,
    signs: Tensor | None = None,
    joint: bool = False,
    engine: Engine = "auto",
) -> Tensor:
    """Return <Z> of the qubits `measured`, or the joint distribution of their outcomes.

    The arguments are those of `ketfit.expectation`, already checked except that numbers are finite, and `signs` and
    `joint` of `native.expect`.

    Returns:
        Shape (batch, len(measured)), or (batch, 2**len(measured)) with `joint`; differentiable once.

    Raises:
        InputError: A number is not finite, `signs` do not fit, or `joint` is set for more than 12 qubits.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    check_signs(circuit, batch, signs, weights.device)
    check_joint(measured, joint)
    native = _runs_native(engine, weights)
    cone = circuit.light_cone(measured)  # valid for outcomes too, as their projectors are diagonal like Z
    columns = 2 ** len(measured) if joint else len(measured)
    needs_grad = [tensor is not None and tensor.requires_grad for tensor in (weights, inputs, initial)]
    differentiated = torch.is_grad_enabled() and any(needs_grad)
    if native:  # the adjoint pass needs the final state of every sample; each thread has a workspace
        states = min(batch, torch.get_num_threads()) + (batch * (1 + needs_grad[2]) if differentiated else 0)
    else:
        states = batch * (6 if differentiated else 4)
    _check_memory(circuit.n_qubits, batch, columns, states, weights)
    if signs is not None and len(cone.gates) < len(circuit.gates):
        signs = signs[:, _cone_rotations(circuit, measured)]
    if native:
        return expect(cone, measured, weights, inputs, initial, batch, signs, joint)
    check_finite(weights=weights, inputs=inputs, initial=initial)
    if inputs is None:
        inputs = weights.new_zeros(batch, 0)
    if initial is None:
        initial = weights.new_zeros(batch, 2**circuit.n_qubits)
        initial[:, 0] = 1
    result: Tensor = _Expectation.apply(  # type: ignore[no-untyped-call]
        cone, measured, weights, inputs, initial, signs, joint
    )
    return result


def statevector_expectation_and_gradients(
    circuit: Circuit,
    measured: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
    engine: Engine = "auto",
) -> list[Tensor | None]:
    """Return <Z> of `measured`, and the gradients of the sum of <Z> times `cotangent` that `needs_grad` selects.

    The arguments are those of `ketfit.expectation_and_gradients`, already checked except that numbers are finite.

    Returns:
        The values, shape (batch, len(measured)), and a gradient or None for weights, inputs and initial.

    Raises:
        InputError: A number is not finite.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    native = _runs_native(engine, weights)
    # Each thread of the kernel has a state and its adjoint; the gradient of `initial` is a state for each sample.
    states = 2 * min(batch, torch.get_num_threads()) + batch * needs_grad[2] if native else 7 * batch
    _check_memory(circuit.n_qubits, batch, len(measured), states, weights)
    tensors = (weights, inputs, initial)
    if native:
        return expect_and_differentiate(circuit.light_cone(measured), measured, *tensors, batch, cotangent, needs_grad)
    check_finite(cotangent=cotangent)
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because autograd does not accept tensors from inference mode.
        angles = weights.detach().clone().requires_grad_(needs_grad[0])
        samples, amplitudes = (
            None if tensor is None else tensor.detach().clone().requires_grad_(needed)
            for tensor, needed in zip((inputs, initial), needs_grad[1:], strict=True)
        )
        leaves = [leaf for leaf in (angles, samples, amplitudes) if leaf is not None and leaf.requires_grad]
        values = statevector_expectation(circuit, measured, angles, samples, amplitudes, batch, engine=engine)
        gradients = iter(torch.autograd.grad(values, leaves, cotangent) if leaves else ())
    return [values.detach(), *(next(gradients) if needed else None for needed in needs_grad)]


def _cone_rotations(circuit: Circuit, measured: tuple[int, ...]) -> Tensor:
    """Return the indices of the rotations in the light cone of `measured`: the first ones on each qubit."""
    key = ("cone_rotations", measured)
    if key not in circuit.cache:
        remaining = Counter(gate.target for gate in circuit.light_cone(measured).gates if gate.angle is not None)
        indices = []
        for rotation, qubit in enumerate(gate.target for gate in circuit.gates if gate.angle is not None):
            if remaining[qubit]:
                remaining[qubit] -= 1
                indices.append(rotation)
        circuit.cache[key] = torch.tensor(indices, dtype=torch.long)
    rotations: Tensor = circuit.cache[key]
    return rotations


class _State:
    """A state of shape (2**Q, batch) that gates change in place, with a scratch array of the same shape.

    The views of both arrays are cached, because creating them costs as much as a gate on a small state.
    """

    def __init__(self, amplitudes: Tensor) -> None:
        self.amplitudes = amplitudes
        self.scratch = torch.empty_like(amplitudes)
        self._views: dict[tuple[int, ...], tuple[Tensor, ...]] = {}

    def halves(self, qubit: int) -> tuple[Tensor, ...]:
        """Return the halves where `qubit` is 0 and 1, of the amplitudes and then of the scratch array."""
        if (qubit,) not in self._views:
            rows, batch = self.amplitudes.shape
            shape = (2**qubit, 2, rows >> (qubit + 1), batch)
            whole = (self.amplitudes.view(shape), self.scratch.view(shape))
            self._views[qubit,] = tuple(array[:, bit] for array in whole for bit in (0, 1))
        return self._views[qubit,]

    def swap(self, gate: Gate) -> None:
        """Apply a CNOT, which is its own inverse."""
        if gate.qubits not in self._views:
            low, high = sorted(gate.qubits)
            rows, batch = self.amplitudes.shape
            shape = (2**low, 2, 2 ** (high - low - 1), 2, rows >> (high + 1), batch)
            whole = (self.amplitudes.view(shape), self.amplitudes.view(shape), self.scratch.view(shape))
            bits = ((1, 0), (1, 1), (1, 0)) if gate.control == low else ((0, 1), (1, 1), (0, 1))
            self._views[gate.qubits] = tuple(
                array[:, first, :, second] for array, (first, second) in zip(whole, bits, strict=True)
            )
        zero, one, scratch = self._views[gate.qubits]
        scratch.copy_(zero)
        zero.copy_(one)
        one.copy_(scratch)

    def apply_j(self, qubit: int) -> Tensor:
        """Return J psi along `qubit`, in the scratch array."""
        zero, one, scratch_zero, scratch_one = self.halves(qubit)
        torch.neg(one, out=scratch_zero)
        scratch_one.copy_(zero)
        return self.scratch

    def rotate(self, j_psi: Tensor, cos: Any, sin: Any) -> None:
        """Replace psi by cos * psi + sin * J psi."""
        self.amplitudes.mul_(cos)
        if isinstance(sin, Tensor):
            self.amplitudes.addcmul_(j_psi, sin)
        else:
            self.amplitudes.add_(j_psi, alpha=sin)


class _Expectation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        circuit: Circuit,
        qubits: tuple[int, ...],
        weights: Tensor,
        inputs: Tensor,
        initial: Tensor,
        signs: Tensor | None,
        joint: bool,
    ) -> Tensor:
        """Return <Z> of each qubit, or the joint distribution, shape (batch, columns)."""
        # A copy, because gates change it in place; samples are the last axis, so that a gate moves whole rows.
        state = _State(initial.t().clone(memory_format=torch.contiguous_format))
        for gate, rotation in zip(circuit.gates, _rotations(circuit, weights, inputs, signs), strict=True):
            if rotation is None:
                state.swap(gate)
            else:
                cos, sin, _ = rotation
                state.rotate(state.apply_j(gate.target), cos, sin)
        ctx.circuit, ctx.qubits, ctx.joint = circuit, qubits, joint
        ctx.save_for_backward(weights, inputs, signs, state.amplitudes)
        torch.square(state.amplitudes, out=state.scratch)
        if joint:
            return _joint_distribution(state.scratch, qubits)
        halves = [state.halves(qubit)[2:] for qubit in qubits]
        return torch.stack([zero.sum(dim=(0, 1)) - one.sum(dim=(0, 1)) for zero, one in halves], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        weights, inputs, signs, final = ctx.saved_tensors
        circuit: Circuit = ctx.circuit
        needs_grad = dict(zip(("weight", "input", "initial"), ctx.needs_input_grad[2:5], strict=True))
        state, adjoint = _State(final.clone()), _State(torch.zeros_like(final))
        _add_observables(adjoint, 2 * grad.t(), ctx.qubits, ctx.joint)
        adjoint.amplitudes.mul_(final)
        grads = {"weight": torch.zeros_like(weights), "input": torch.zeros_like(inputs)}
        rotations = _rotations(circuit, weights, inputs, signs)
        for gate, rotation in zip(reversed(circuit.gates), reversed(rotations), strict=True):
            if rotation is None:
                state.swap(gate)
                adjoint.swap(gate)
                continue
            assert gate.angle is not None
            cos, sin, sign = rotation
            j_psi = state.apply_j(gate.target)
            if needs_grad[gate.angle.source]:
                slope = torch.mul(adjoint.amplitudes, j_psi, out=adjoint.scratch)
                grad_of_angle = grads[gate.angle.source][..., gate.angle.index]
                per_sample = slope.sum(dim=0) if sign is None else slope.sum(dim=0) * sign
                grad_of_angle += 0.5 * (per_sample.sum() if gate.angle.source == "weight" else per_sample)
            state.rotate(j_psi, cos, -sin)
            adjoint.rotate(adjoint.apply_j(gate.target), cos, -sin)
        return (
            None,
            None,
            grads["weight"] if needs_grad["weight"] else None,
            grads["input"] if needs_grad["input"] else None,
            adjoint.amplitudes.t() if needs_grad["initial"] else None,
            None,
            None,
        )


def _joint_distribution(squares: Tensor, qubits: tuple[int, ...]) -> Tensor:
    """Return the joint distribution of `qubits`, (batch, 2**len(qubits)), from probabilities of shape (2**Q, batch)."""
    n_qubits, batch = squares.shape[0].bit_length() - 1, squares.shape[1]
    others = [qubit for qubit in range(n_qubits) if qubit not in qubits]
    bits = squares.view(*[2] * n_qubits, batch).permute(*others, *qubits, n_qubits)
    return bits.reshape(2 ** len(others), 2 ** len(qubits), batch).sum(dim=0).t().contiguous()


def _add_observables(adjoint: _State, columns: Tensor, qubits: tuple[int, ...], joint: bool) -> None:
    """Add to the adjoint the diagonal of the observables, weighted by `columns`."""
    if joint:
        n_qubits, batch = adjoint.amplitudes.shape[0].bit_length() - 1, columns.shape[1]
        others = [qubit for qubit in range(n_qubits) if qubit not in qubits]
        bits = adjoint.amplitudes.view(*[2] * n_qubits, batch).permute(*others, *qubits, n_qubits)
        bits.add_(columns.reshape(*[2] * len(qubits), batch))
        return
    for qubit, column in zip(qubits, columns, strict=True):
        zero, one, *_ = adjoint.halves(qubit)
        zero.add_(column)
        one.sub_(column)


# Cosine and sine of half the angle, as numbers or one per sample, and the sign of each sample or None.
_Rotation = tuple[Any, Any, Tensor | None]


def _rotations(circuit: Circuit, weights: Tensor, inputs: Tensor, signs: Tensor | None) -> list[_Rotation | None]:
    """Return the rotation of each gate; None for a CNOT."""
    cosines = {"weight": (weights / 2).cos().tolist(), "input": (inputs / 2).cos().unbind(dim=1)}
    sines = {"weight": (weights / 2).sin().tolist(), "input": (inputs / 2).sin().unbind(dim=1)}
    columns = None if signs is None else iter(signs.to(weights.dtype).t().contiguous())
    rotations: list[_Rotation | None] = []
    for gate in circuit.gates:
        if gate.angle is None:
            rotations.append(None)
            continue
        cos, sin = cosines[gate.angle.source][gate.angle.index], sines[gate.angle.source][gate.angle.index]
        sign = None if columns is None else next(columns)
        rotations.append((cos, sin if sign is None else sin * sign, sign))
    return rotations


def check_tensors(circuit: Circuit, weights: Tensor, inputs: Tensor | None, initial: Tensor | None) -> int:
    """Return the batch size; raise InputError if a tensor has the wrong shape, dtype or device."""
    check_tensor("weights", weights, weights, circuit.n_weights, dimensions=1)
    batch = None
    if inputs is not None:
        check_tensor("inputs", inputs, weights, circuit.n_inputs, dimensions=2)
        batch = inputs.shape[0]
    elif circuit.n_inputs:
        raise InputError(
            f"this circuit reads {circuit.n_inputs} inputs; pass inputs of shape (batch, {circuit.n_inputs})"
        )
    if initial is not None:
        check_tensor("initial", initial, weights, 2**circuit.n_qubits, dimensions=2)
        if batch is not None and batch != initial.shape[0]:
            raise InputError(f"inputs have a batch of {batch} and initial of {initial.shape[0]}; they must be equal")
        batch = initial.shape[0]
    return 1 if batch is None else batch


def check_tensor(name: str, tensor: Tensor, weights: Tensor, width: int, dimensions: int) -> None:
    """Raise InputError if the shape, dtype or device of a tensor does not fit the circuit or the weights."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} is of type {type(tensor).__name__}; pass a torch.Tensor")
    if tensor.dim() != dimensions or tensor.shape[-1] != width:
        shape = f"({width},)" if dimensions == 1 else f"(batch, {width})"
        raise InputError(f"{name} has shape {tuple(tensor.shape)}; this circuit needs {shape}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} is {tensor.dtype}; convert it with .float() or .double()")
    if tensor is weights:
        return
    if tensor.dtype != weights.dtype:
        raise InputError(f"{name} is {tensor.dtype} and weights are {weights.dtype}; make them the same")
    if tensor.device != weights.device:
        raise InputError(f"{name} is on {tensor.device} and weights are on {weights.device}; move them together")


def _runs_native(engine: Engine, weights: Tensor) -> bool:
    on_cpu = weights.device.type == "cpu"
    if engine == "native" and not on_cpu:
        raise ConfigError(f"the native engine computes on the CPU and weights are on {weights.device}; use 'auto'")
    return engine != "torch" and on_cpu


def _check_memory(n_qubits: int, batch: int, columns: int, states: int, weights: Tensor) -> None:
    """Raise an error, before anything is allocated, if the states and the result do not fit into free memory."""
    itemsize = weights.element_size()
    required = states * (itemsize << n_qubits) + batch * columns * itemsize
    if (free := memory_shortage(required)) is not None:
        raise InsufficientMemoryError(
            f"{batch} samples on {n_qubits} qubits need {required / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use a smaller batch or fewer qubits"
        )
