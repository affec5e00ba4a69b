"""Expectations of real circuits, differentiable by the adjoint method: the native kernel, and the same in torch.

Every gate and every loaded amplitude is real, so a state is a real array. The torch engine holds it as (2**Q, batch):
amplitudes by rows, samples side by side (the kernel has layouts of its own). With J psi the state
whose halves along the target qubit are (-psi_1, psi_0), a rotation is RY(t) psi = cos(t/2) psi + sin(t/2) J psi, and a
CNOT swaps rows.

The gradient walks the circuit backwards with two states, the state itself and the adjoint (the derivative of the loss
with respect to the state), and undoes one gate at a time; no intermediate state is kept (Jones and Gacon,
arXiv 2009.02823). With psi behind the rotation and lambda the adjoint there, d loss / dt = 1/2 sum(lambda * J psi).
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
    """<Z> of the qubits `measured`, or how their outcomes are distributed, on the engine that choice and device give.

    The arguments are those of `ketfit.expectation`, checked there but for being finite.

    Args:
        signs: Of the angle of each rotation of `circuit` in each sample, as for `native.expect`; None is +1 for all.
        joint: Return the probability of each outcome, the first of `measured` its most significant bit.

    Returns:
        Shape (batch, len(measured)), or (batch, 2**len(measured)) with `joint`; differentiable once.

    Raises:
        InputError: a number is not finite, `signs` do not fit, or `joint` for more than 12 qubits.
        ConfigError: the engine does not run on this device.
        InsufficientMemoryError: the states do not fit into the memory that is free.
    """
    check_signs(circuit, batch, signs, weights.device)
    check_joint(measured, joint)
    native = _runs_native(engine, weights)
    cone = circuit.light_cone(measured)  # outcomes are as diagonal as Z: what cannot change <Z> changes none of them
    columns = 2 ** len(measured) if joint else len(measured)
    wanted = [tensor is not None and tensor.requires_grad for tensor in (weights, inputs, initial)]
    differentiated = torch.is_grad_enabled() and any(wanted)
    if native:  # gradients keep the state of every sample; each thread has one to work in
        states = min(batch, torch.get_num_threads()) + (batch * (1 + wanted[2]) if differentiated else 0)
    else:
        states = batch * (6 if differentiated else 4)
    _check_memory(circuit.n_qubits, batch, columns, states, weights)
    if signs is not None and len(cone.gates) < len(circuit.gates):
        signs = signs[:, _kept_rotations(circuit, measured)]
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
    wanted: tuple[bool, bool, bool],
    engine: Engine = "auto",
) -> list[Tensor | None]:
    """<Z> of `measured`, and the gradients of the sum of <Z> times `cotangent` to those `wanted` of the three tensors.

    The arguments are those of `ketfit.expectation_and_gradients`, checked there but for being finite.

    Returns:
        The values, shape (batch, len(measured)), and a gradient or None for weights, inputs and initial.

    Raises:
        InputError: a number is not finite.
        ConfigError: the engine does not run on this device.
        InsufficientMemoryError: the states do not fit into the memory that is free.
    """
    native = _runs_native(engine, weights)
    # The kernel's threads have a state and its adjoint each, and what it returns for `initial` is another for each.
    states = 2 * min(batch, torch.get_num_threads()) + batch * wanted[2] if native else 7 * batch
    _check_memory(circuit.n_qubits, batch, len(measured), states, weights)
    tensors = (weights, inputs, initial)
    if native:
        return expect_and_differentiate(circuit.light_cone(measured), measured, *tensors, batch, cotangent, wanted)
    check_finite(cotangent=cotangent)
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, as autograd takes no tensors that inference mode has made.
        angles = weights.detach().clone().requires_grad_(wanted[0])
        samples, amplitudes = (
            None if tensor is None else tensor.detach().clone().requires_grad_(want)
            for tensor, want in zip((inputs, initial), wanted[1:], strict=True)
        )
        chosen = [leaf for leaf in (angles, samples, amplitudes) if leaf is not None and leaf.requires_grad]
        values = statevector_expectation(circuit, measured, angles, samples, amplitudes, batch, engine=engine)
        gradients = iter(torch.autograd.grad(values, chosen, cotangent) if chosen else ())
    return [values.detach(), *(next(gradients) if want else None for want in wanted)]


def _kept_rotations(circuit: Circuit, measured: tuple[int, ...]) -> Tensor:
    """Which of the circuit's rotations are in the light cone of `measured`: on each qubit, the first ones."""
    key = ("kept_rotations", measured)
    if key not in circuit.cache:
        left = Counter(gate.target for gate in circuit.light_cone(measured).gates if gate.angle is not None)
        kept = []
        for rotation, qubit in enumerate(gate.target for gate in circuit.gates if gate.angle is not None):
            if left[qubit]:
                left[qubit] -= 1
                kept.append(rotation)
        circuit.cache[key] = torch.tensor(kept, dtype=torch.long)
    found: Tensor = circuit.cache[key]
    return found


class _State:
    """A state of shape (2**Q, batch) that gates change in place, with a second array of that shape to work in.

    The views of both arrays that gates need are made once: making them costs as much as a gate on a small state.
    """

    def __init__(self, amplitudes: Tensor) -> None:
        self.amplitudes = amplitudes
        self.spare = torch.empty_like(amplitudes)
        self._views: dict[tuple[int, ...], tuple[Tensor, ...]] = {}

    def halves(self, qubit: int) -> tuple[Tensor, ...]:
        """Where `qubit` is 0 and where it is 1, of the amplitudes and then of the spare array."""
        if (qubit,) not in self._views:
            rows, batch = self.amplitudes.shape
            shape = (2**qubit, 2, rows >> (qubit + 1), batch)
            whole = (self.amplitudes.view(shape), self.spare.view(shape))
            self._views[qubit,] = tuple(array[:, bit] for array in whole for bit in (0, 1))
        return self._views[qubit,]

    def swap(self, gate: Gate) -> None:
        """A CNOT, which is its own inverse."""
        if gate.qubits not in self._views:
            low, high = sorted(gate.qubits)
            rows, batch = self.amplitudes.shape
            shape = (2**low, 2, 2 ** (high - low - 1), 2, rows >> (high + 1), batch)
            whole = (self.amplitudes.view(shape), self.amplitudes.view(shape), self.spare.view(shape))
            bits = ((1, 0), (1, 1), (1, 0)) if gate.control == low else ((0, 1), (1, 1), (0, 1))
            self._views[gate.qubits] = tuple(
                array[:, first, :, second] for array, (first, second) in zip(whole, bits, strict=True)
            )
        zero, one, spare = self._views[gate.qubits]
        spare.copy_(zero)
        zero.copy_(one)
        one.copy_(spare)

    def turn(self, qubit: int) -> Tensor:
        """J psi along `qubit`, in the spare array."""
        zero, one, spare_zero, spare_one = self.halves(qubit)
        torch.neg(one, out=spare_zero)
        spare_one.copy_(zero)
        return self.spare

    def rotate(self, turned: Tensor, cos: Any, sin: Any) -> None:
        """cos * psi + sin * J psi."""
        self.amplitudes.mul_(cos)
        if isinstance(sin, Tensor):
            self.amplitudes.addcmul_(turned, sin)
        else:
            self.amplitudes.add_(turned, alpha=sin)


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
        """<Z> of each qubit, or the joint distribution, shape (batch, columns)."""
        # A copy, because gates change it; samples last, so that a gate moves whole rows.
        state = _State(initial.t().clone(memory_format=torch.contiguous_format))
        for gate, rotation in zip(circuit.gates, _rotations(circuit, weights, inputs, signs), strict=True):
            if rotation is None:
                state.swap(gate)
            else:
                cos, sin, _ = rotation
                state.rotate(state.turn(gate.target), cos, sin)
        ctx.circuit, ctx.qubits, ctx.joint = circuit, qubits, joint
        ctx.save_for_backward(weights, inputs, signs, state.amplitudes)
        torch.square(state.amplitudes, out=state.spare)
        if joint:
            return _outcomes(state.spare, qubits)
        halves = [state.halves(qubit)[2:] for qubit in qubits]
        return torch.stack([zero.sum(dim=(0, 1)) - one.sum(dim=(0, 1)) for zero, one in halves], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, the inputs and the initial amplitudes."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        weights, inputs, signs, final = ctx.saved_tensors
        circuit: Circuit = ctx.circuit
        wants = dict(zip(("weight", "input", "initial"), ctx.needs_input_grad[2:5], strict=True))
        state, adjoint = _State(final.clone()), _State(torch.zeros_like(final))
        _observe(adjoint, 2 * grad.t(), ctx.qubits, ctx.joint)
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
            turned = state.turn(gate.target)
            if wants[gate.angle.source]:
                slope = torch.mul(adjoint.amplitudes, turned, out=adjoint.spare)
                where = grads[gate.angle.source][..., gate.angle.index]
                each = slope.sum(dim=0) if sign is None else slope.sum(dim=0) * sign
                where += 0.5 * (each.sum() if gate.angle.source == "weight" else each)
            state.rotate(turned, cos, -sin)
            adjoint.rotate(adjoint.turn(gate.target), cos, -sin)
        return (
            None,
            None,
            grads["weight"] if wants["weight"] else None,
            grads["input"] if wants["input"] else None,
            adjoint.amplitudes.t() if wants["initial"] else None,
            None,
            None,
        )


def _outcomes(squares: Tensor, qubits: tuple[int, ...]) -> Tensor:
    """The joint distribution of `qubits`, shape (batch, 2**len(qubits)), from probabilities of shape (2**Q, batch)."""
    n_qubits, batch = squares.shape[0].bit_length() - 1, squares.shape[1]
    others = [qubit for qubit in range(n_qubits) if qubit not in qubits]
    bits = squares.view(*[2] * n_qubits, batch).permute(*others, *qubits, n_qubits)
    return bits.reshape(2 ** len(others), 2 ** len(qubits), batch).sum(dim=0).t().contiguous()


def _observe(adjoint: _State, columns: Tensor, qubits: tuple[int, ...], joint: bool) -> None:
    """Add up, over the zeros of the adjoint, what each amplitude is to be multiplied by behind the last gate."""
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


# Cosine and sine of half the angle, numbers or one per sample, and the sign of each sample if there are signs.
_Rotation = tuple[Any, Any, Tensor | None]


def _rotations(circuit: Circuit, weights: Tensor, inputs: Tensor, signs: Tensor | None) -> list[_Rotation | None]:
    """The rotation of each gate; None for a CNOT."""
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
    """The size of the batch, once every tensor is seen to fit the circuit and the others.

    Raises:
        InputError: a tensor has the wrong shape, dtype or device.
    """
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
    """Refuse a tensor that does not fit the circuit, or the weights.

    Raises:
        InputError: the shape, dtype or device is wrong.
    """
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
    """Refuse what does not fit before any of it is allocated: states, and a result of so many columns."""
    itemsize = weights.element_size()
    need = states * (itemsize << n_qubits) + batch * columns * itemsize
    if (free := memory_shortage(need)) is not None:
        raise InsufficientMemoryError(
            f"{batch} samples on {n_qubits} qubits need {need / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use a smaller batch or fewer qubits"
        )
