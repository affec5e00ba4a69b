"""Expectations of circuits, differentiable by the adjoint method, in the native kernel and in torch.

Circuits of RY by a weight or input and CNOT run in the kernel, or in torch as described here: every gate and every
initial amplitude is real, so a state is a real array. Of other circuits the kernel computes <Z> and sums of Pauli words
(`ketfit.simulate.kernel_observables`), and states, from which torch computes other results. Other devices, function
transforms and second derivatives evolve states in torch (`ketfit.simulate.evolution`). The torch engine of RY and CNOT
stores a state as (2**Q, batch), one column for each sample (the kernel has layouts of its own). With J psi the state
whose halves along the target qubit are (-psi_1, psi_0), a rotation is RY(t) psi = cos(t/2) psi + sin(t/2) J psi, and a
CNOT swaps rows.

The adjoint pass applies the inverse gates in reverse order to two states, the state itself and the adjoint (the
derivative of the loss with respect to the state), and stores no intermediate state (Jones and Gacon, arXiv
2009.02823). With psi after the rotation and lambda the adjoint there, d loss / dt = 1/2 sum(lambda * J psi).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit, Gate, observable_light_cone
from ketfit.circuit.observable import PauliSum
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.memory import memory_shortage
from ketfit.simulate.circuit_batch import CircuitBatch, check_finite
from ketfit.simulate.complex_statevector import ProgramBatch, as_complex, simulate
from ketfit.simulate.distributed.statevector import distributed_distribution, distributed_expectation
from ketfit.simulate.evolution import (
    differentiate_operations,
    evolve,
    is_transformed,
    needs_recorded_operations,
)
from ketfit.simulate.kernel_observables import expect_sums, expect_sums_and_differentiate, z_sums
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.native import (
    NO_SECOND_DERIVATIVE,
    check_joint,
    check_signs,
    expect,
    expect_and_differentiate,
    signs_in_light_cone,
)
from ketfit.simulate.readout import joint_distribution, observable_expectations, z_expectations
from ketfit.simulate.readout_error import MeasuredObservable

Engine = Literal["auto", "native", "torch", "distributed"]


def statevector_expectation(
    batch: CircuitBatch,
    measured: tuple[int, ...],
    *,
    signs: Tensor | None = None,
    joint: bool = False,
    engine: Engine = "auto",
) -> Tensor:
    """Return <Z> of the qubits `measured`, or the joint distribution of their outcomes.

    The qubits have to be valid; `signs` and `joint` are those of `native.expect`.

    Returns:
        Shape (size, len(measured)), or (size, 2**len(measured)) with `joint`; differentiable any number of times, but
        only once with `signs`.

    Raises:
        InputError: A number is not finite, `signs` do not fit, or `joint` is set for more than 12 qubits.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    check_joint(measured, joint)
    if engine == "distributed":
        if joint:
            return distributed_distribution(_for_ranks(batch, signs), measured)
        return distributed_expectation(_for_ranks(batch, signs), z_sums(measured))
    if signs is None and (not batch.is_ry_cx or is_transformed()):
        readout = _Readout(measured, joint)
        if not joint and (sums := _kernel_sums(batch, z_sums(measured), engine, batch.is_differentiated)):
            return expect_sums(batch, sums, lambda copy: _state_readout(copy, readout, "torch"))
        return _state_readout(batch, readout, engine)
    check_signs(batch, signs)
    native, size = runs_native(engine, batch.weights), batch.size
    differentiated = batch.is_differentiated
    if native:  # the adjoint pass needs the final state of every sample; each thread has a workspace
        final = 2 if batch.initial is not None and batch.initial.requires_grad else 1
        states = min(size, torch.get_num_threads()) + (size * final if differentiated else 0)
    else:
        states = size * (6 if differentiated else 4)
    _check_memory(batch, states, 2 ** len(measured) if joint else len(measured))
    if native:
        circuit = batch.circuit

        def compute_again(*given: Tensor) -> Tensor:
            return _state_readout(CircuitBatch(circuit, *given), _Readout(measured, joint), "torch")

        return expect(batch, measured, signs, joint, compute_again)
    batch.check_finite()
    if signs is not None:
        signs = signs_in_light_cone(batch.circuit, measured, signs)
    weights, inputs, initial = batch.tensors
    if initial is None:
        initial = weights.new_zeros(size, 2**batch.circuit.n_qubits)
        initial[:, 0] = 1
    result: Tensor = _Expectation.apply(  # type: ignore[no-untyped-call]
        batch.circuit.light_cone(measured),  # for outcomes too: their projectors are diagonal like Z
        _Readout(measured, joint),
        signs,
        weights,
        weights.new_zeros(size, 0) if inputs is None else inputs,
        initial,
    )
    return result


def statevector_expectation_and_gradients(
    batch: CircuitBatch,
    measured: tuple[int, ...],
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
    engine: Engine = "auto",
) -> list[Tensor | None]:
    """Return <Z> of `measured`, and the gradients of the sum of <Z> times `cotangent` that `needs_grad` selects.

    The other arguments are those of `ketfit.expectation_and_gradients`, already checked except that numbers are finite.

    Returns:
        The values, shape (size, len(measured)), and a gradient or None for weights, inputs and initial.

    Raises:
        InputError: A number is not finite.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    if engine == "distributed":
        return observable_expectation_and_gradients(batch, z_sums(measured), cotangent, needs_grad, engine)
    if not batch.is_ry_cx:
        if sums := _kernel_sums(batch, z_sums(measured), engine, differentiated=True):
            return expect_sums_and_differentiate(batch, sums, cotangent, needs_grad)
        return _differentiate(
            lambda copy: _state_readout(copy, _Readout(measured, False), engine), batch, cotangent, needs_grad
        )
    native, size = runs_native(engine, batch.weights), batch.size
    # Each thread of the kernel has a state and its adjoint; the gradient of `initial` is a state for each sample.
    states = 2 * min(size, torch.get_num_threads()) + size * needs_grad[2] if native else 7 * size
    _check_memory(batch, states, len(measured))
    if native:
        return expect_and_differentiate(batch, measured, cotangent, needs_grad)
    return _differentiate(
        lambda copy: statevector_expectation(copy, measured, engine=engine), batch, cotangent, needs_grad
    )


def observable_expectation(
    batch: CircuitBatch, observables: tuple[MeasuredObservable, ...], engine: Engine = "auto"
) -> Tensor:
    """Return the expectation of each observable, shape (size, len(observables)), differentiable any number of times.

    Raises:
        InputError: A number is not finite.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    if engine == "distributed":
        if others := [each for each in observables if not isinstance(each, PauliSum)]:
            raise ConfigError(f"distributed states have sums of Pauli words, and not {type(others[0]).__name__}")
        return distributed_expectation(_for_ranks(batch, None), observables)  # type: ignore[arg-type]
    if sums := _kernel_sums(batch, observables, engine, batch.is_differentiated):
        return expect_sums(batch, sums, lambda copy: _state_observables(copy, observables, "torch"))
    return _state_observables(batch, observables, engine)


def _state_observables(batch: CircuitBatch, observables: tuple[MeasuredObservable, ...], engine: Engine) -> Tensor:
    """Return the expectation of each observable from final states."""
    support = frozenset(qubit for each in observables for qubit in each.qubits)
    not_diagonal = frozenset(qubit for each in observables for qubit in each.not_diagonal)
    cone = observable_light_cone(batch.circuit, support, not_diagonal)
    return observable_expectations(final_state(batch.with_circuit(cone), engine), observables)


def observable_expectation_and_gradients(
    batch: CircuitBatch,
    observables: tuple[MeasuredObservable, ...],
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
    engine: Engine = "auto",
) -> list[Tensor | None]:
    """Return the expectations and the gradients of their sum times `cotangent` that `needs_grad` selects.

    Results and errors are those of `statevector_expectation_and_gradients`.
    """
    if engine != "distributed" and (sums := _kernel_sums(batch, observables, engine, differentiated=True)):
        return expect_sums_and_differentiate(batch, sums, cotangent, needs_grad)
    return _differentiate(lambda copy: observable_expectation(copy, observables, engine), batch, cotangent, needs_grad)


def final_state(batch: CircuitBatch, engine: Engine = "auto") -> Tensor:
    """Return the final amplitudes, shape (size, 2**n_qubits), differentiable any number of times.

    They may be real if the gates and the initial amplitudes are.

    Raises:
        InputError: A number is not finite.
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The states do not fit into the free memory.
    """
    circuit, transformed, differentiated = batch.circuit, is_transformed(), batch.is_differentiated
    if runs_native(engine, batch.weights) and not transformed:  # beside the states: those of readouts and gradients
        states = 2 * min(batch.size, torch.get_num_threads()) + batch.size * (6 if differentiated else 3)
        _check_memory(batch, 2 * states, 0)
        program = ProgramBatch.from_circuit_batch(program_of(circuit), batch)
        return simulate(program, lambda *given: as_complex(evolve(CircuitBatch(circuit, *given))))
    states = 4 if not differentiated else 8 if not transformed else 3 * (2 + len(circuit.gates))
    _check_memory(batch, 2 * states * batch.size, 0)
    batch.check_finite()
    return evolve(batch)


def _kernel_sums(
    batch: CircuitBatch, observables: tuple[MeasuredObservable, ...], engine: Engine, differentiated: bool
) -> tuple[PauliSum, ...] | None:
    """Return the observables if the kernel computes them, whatever the gates of the circuit, and None otherwise.

    If `differentiated`, the free memory has to hold a final state and a gradient of the initial one for each sample.

    Raises:
        ConfigError: The engine does not run on this device.
        InsufficientMemoryError: The kernel's complex states do not fit into the free memory.
    """
    sums = tuple(each for each in observables if isinstance(each, PauliSum))
    if len(sums) < len(observables) or is_transformed() or not runs_native(engine, batch.weights):
        return None
    workspaces = 2 * min(batch.size, torch.get_num_threads())
    _check_memory(batch, 2 * (workspaces + batch.size * (2 if differentiated else 0)), len(sums))
    return sums


def _state_readout(batch: CircuitBatch, readout: _Readout, engine: Engine) -> Tensor:
    """Return <Z> or the joint distribution from final states."""
    state = final_state(batch.with_circuit(batch.circuit.light_cone(readout.qubits)), engine)
    return joint_distribution(state, readout.qubits) if readout.joint else z_expectations(state, readout.qubits)


def _differentiate(
    compute: Callable[[CircuitBatch], Tensor],
    batch: CircuitBatch,
    cotangent: Tensor,
    needs_grad: tuple[bool, bool, bool],
) -> list[Tensor | None]:
    """Return the values and the gradients of their sum times `cotangent`, from autograd on copies of the tensors."""
    check_finite(cotangent=cotangent)
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because autograd does not accept tensors from inference mode.
        copies = [
            None if tensor is None else tensor.detach().clone().requires_grad_(needed)
            for tensor, needed in zip(batch.tensors, needs_grad, strict=True)
        ]
        leaves = [copy for copy in copies if copy is not None and copy.requires_grad]
        values = compute(CircuitBatch(batch.circuit, *copies))  # type: ignore[arg-type]
        gradients = iter(torch.autograd.grad(values, leaves, cotangent) if leaves else ())
    return [values.detach(), *(next(gradients) if needed else None for needed in needs_grad)]


def _differentiate_again(
    source: tuple[Circuit, _Readout], tensors: Sequence[Tensor | None], signs: Tensor | None, grad: Tensor
) -> list[Any]:
    """Return the gradients of the weights, the inputs and the initial amplitudes, which can be differentiated again."""
    if signs is not None:
        raise InputError(NO_SECOND_DERIVATIVE)
    circuit, readout = source
    return differentiate_operations(
        lambda *given: _state_readout(CircuitBatch(circuit, *given), readout, "torch"), tensors, grad
    )


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


@dataclass(frozen=True)
class _Readout:
    """The results that are read from a final state: <Z> of each of `qubits`, or with `joint` their distribution."""

    qubits: tuple[int, ...]
    joint: bool

    def values(self, state: _State) -> Tensor:
        """Return the results, shape (batch, columns), of a state, whose scratch array is overwritten."""
        torch.square(state.amplitudes, out=state.scratch)
        if self.joint:
            outcomes, (rows, batch) = 2 ** len(self.qubits), state.scratch.shape
            return self._by_qubit(state.scratch).reshape(rows // outcomes, outcomes, batch).sum(dim=0).t().contiguous()
        halves = [state.halves(qubit)[2:] for qubit in self.qubits]
        return torch.stack([zero.sum(dim=(0, 1)) - one.sum(dim=(0, 1)) for zero, one in halves], dim=1)

    def add_observables(self, adjoint: _State, columns: Tensor) -> None:
        """Add to the adjoint the diagonal of the observables, weighted by `columns`, shape (columns, batch)."""
        if self.joint:
            self._by_qubit(adjoint.amplitudes).add_(columns.reshape(*[2] * len(self.qubits), columns.shape[1]))
            return
        for qubit, column in zip(self.qubits, columns, strict=True):
            zero, one, *_ = adjoint.halves(qubit)
            zero.add_(column)
            one.sub_(column)

    def _by_qubit(self, array: Tensor) -> Tensor:
        """Return a view of an array (2**Q, batch) with an axis for each qubit, the measured ones last."""
        n_qubits, batch = len(array).bit_length() - 1, array.shape[1]
        others = [qubit for qubit in range(n_qubits) if qubit not in self.qubits]
        return array.view(*[2] * n_qubits, batch).permute(*others, *self.qubits, n_qubits)


class _Expectation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, circuit: Circuit, readout: _Readout, signs: Tensor | None, *tensors: Tensor) -> Tensor:
        """Return <Z> of each qubit, or the joint distribution, shape (batch, columns)."""
        weights, inputs, initial = tensors
        # A copy, because gates change it in place; samples are the last axis, so that a gate moves whole rows.
        state = _State(initial.t().clone(memory_format=torch.contiguous_format))
        for gate, rotation in zip(circuit.gates, _rotations(circuit, weights, inputs, signs), strict=True):
            if rotation is None:
                state.swap(gate)
            else:
                cos, sin, _ = rotation
                state.rotate(state.apply_j(gate.target), cos, sin)
        ctx.circuit, ctx.readout = circuit, readout
        ctx.save_for_backward(weights, inputs, signs, state.amplitudes, initial)
        return readout.values(state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the initial amplitudes."""
        weights, inputs, signs, final, initial = ctx.saved_tensors
        circuit: Circuit = ctx.circuit
        if needs_recorded_operations(grad):
            given = (weights, inputs, initial)
            return None, None, None, *_differentiate_again((circuit, ctx.readout), given, signs, grad)
        needs_grad = dict(zip(("weight", "input", "initial"), ctx.needs_input_grad[3:], strict=True))
        state, adjoint = _State(final.clone()), _State(torch.zeros_like(final))
        ctx.readout.add_observables(adjoint, 2 * grad.t())
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
        grads["initial"] = adjoint.amplitudes.t()
        return None, None, None, *(grads[name] if needed else None for name, needed in needs_grad.items())


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


def _for_ranks(batch: CircuitBatch, signs: Tensor | None) -> CircuitBatch:
    """Return the batch, if distributed states can run it."""
    if is_transformed():
        raise ConfigError("distributed states cannot be transformed by torch.func; use another engine")
    if signs is not None:
        raise ConfigError("distributed states have no trajectories; use another engine")
    return batch


def runs_native(engine: Engine, weights: Tensor) -> bool:
    """Return True if the kernel computes on the device of the weights; raise ConfigError if it cannot and has to."""
    on_cpu = weights.device.type == "cpu"
    if engine == "native" and not on_cpu:
        raise ConfigError(f"the native engine computes on the CPU and weights are on {weights.device}; use 'auto'")
    return engine != "torch" and on_cpu


def _check_memory(batch: CircuitBatch, states: int, columns: int) -> None:
    """Raise an error, before anything is allocated, if the states and the result do not fit into free memory."""
    n_qubits, itemsize = batch.circuit.n_qubits, batch.weights.element_size()
    required = states * (itemsize << n_qubits) + batch.size * columns * itemsize
    if (free := memory_shortage(required)) is not None:
        raise InsufficientMemoryError(
            f"{batch.size} samples on {n_qubits} qubits need {required / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use a smaller batch or fewer qubits"
        )
