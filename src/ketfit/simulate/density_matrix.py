"""Exact noise: the density matrix, kept as its real Pauli coefficients, and its expectations.

rho = 2**-Q sum_P r_P P over the 4**Q strings P of I, X, Z and Y, with r_P = tr(P rho). Gates turn and permute the
coefficients, every channel of `NoiseConfig` scales them, and <Z_j Z_k ...> is one of them (see kernel/pauli_kernels.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, Gate
from ketfit.errors import InputError, InsufficientMemoryError
from ketfit.memory import memory_shortage
from ketfit.simulate import _kernel
from ketfit.simulate.native import ISA, check_finite, kernel_batch, kernel_gradients
from ketfit.simulate.noise import NoiseConfig, noisy_light_cone

MAX_QUBITS = 15
"""Strings are numbered by 32 bits; 15 qubits take 4 GiB in single precision."""

_PULLED_BYTES = 2**30  # of observables that are evolved for a whole batch; if it is more, each sample is for itself
_NO_ANGLE = np.iinfo(np.int32).min


def density_matrix_expectation(
    circuit: Circuit,
    parities: Sequence[tuple[int, ...]],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    noise: NoiseConfig,
) -> Tensor:
    """<Z_j Z_k ...> of each of `parities` under gate and preparation noise, shape (batch, len(parities)).

    Differentiable once in all three tensors. Computed on the CPU; the arguments are those of `ketfit.expectation`.

    Args:
        parities: The qubits of each product; an empty one gives the trace.

    Raises:
        InputError: a tensor is not on the CPU, or not finite; or more than 15 qubits.
        InsufficientMemoryError: the density matrices do not fit into the memory that is free.
    """
    if weights.device.type != "cpu":
        raise InputError(f"density matrices are computed on the CPU and weights are on {weights.device}; move them")
    check_finite(weights=weights, inputs=inputs, initial=initial)
    _check_memory(circuit, batch, weights, inputs, initial)
    cone = noisy_light_cone(circuit, tuple({qubit for parity in parities for qubit in parity}))
    loading = _loading(cone)
    pulled = len(parities) * weights.element_size() * 4 ** _width(circuit)
    small = len(parities) == 1 or pulled <= _PULLED_BYTES
    if initial is None and loading is not None and len(parities) < batch and small:
        assert inputs is not None
        return _measure_loaded(*loading, parities, weights, inputs, noise)
    plan = _plan(cone, parities, noise)
    width = _width(circuit)
    if initial is None:
        start = reduce(torch.kron, [weights.new_tensor([1, 0, 1 - 2 * noise.preparation, 0])] * width)
    else:
        start = pauli_coefficients(initial, noise.preparation)
        if circuit.n_qubits < width:
            start = torch.kron(start, weights.new_tensor([[1, 0, 1, 0]]))
    result: Tensor = _Density.apply(  # type: ignore[no-untyped-call]
        plan, len(parities), weights, inputs, start, batch
    )
    return result


def _plan(circuit: Circuit, parities: Sequence[tuple[int, ...]], noise: NoiseConfig) -> Any:
    key = ("density", tuple(parities), noise)
    if key not in circuit.cache:
        width = _width(circuit)
        strings = [sum(2 << (2 * (width - 1 - qubit)) for qubit in parity) for parity in parities]  # 2 is the digit Z
        circuit.cache[key] = make_plan(circuit, strings, noise)
    return circuit.cache[key]


def _loading(circuit: Circuit) -> tuple[list[int | None], Circuit] | None:
    """The input that each qubit's first rotation reads, if inputs enter nowhere else; and the circuit behind them."""
    if "loading" not in circuit.cache:
        loaded: list[int | None] = [None] * circuit.n_qubits
        rest: list[Gate] = []
        touched: set[int] = set()
        for gate in circuit.gates:
            if gate.angle is not None and gate.angle.source == "input" and gate.target not in touched:
                loaded[gate.target] = gate.angle.index
            else:
                rest.append(gate)
            touched.update(gate.qubits)
        later = any(gate.angle is not None and gate.angle.source == "input" for gate in rest)
        behind = Circuit(circuit.n_qubits, tuple(rest), circuit.n_weights, circuit.n_inputs)
        once = not later and any(index is not None for index in loaded)
        circuit.cache["loading"] = (loaded, behind) if once else None
    result: tuple[list[int | None], Circuit] | None = circuit.cache["loading"]
    return result


def _measure_loaded(
    loaded: list[int | None],
    circuit: Circuit,
    parities: Sequence[tuple[int, ...]],
    weights: Tensor,
    inputs: Tensor,
    noise: NoiseConfig,
) -> Tensor:
    """The same for inputs that are loaded once, on fresh qubits: one evolution for the whole batch.

    Behind the loading every sample sees the same channel. So the observables go backwards through it once (Heisenberg
    picture), and meet each sample's product state, which has no string with a Y. By linearity one evolution gives the
    gradient of the weights too: that of the samples' states, each times its share of the loss, summed. The last digits
    depend on the number of threads, as those of torch's matrix products do.
    """
    observables: Tensor = _Observables.apply(  # type: ignore[no-untyped-call]
        _plan(circuit, parities, noise), len(parities), 4 ** _width(circuit), weights
    )
    width = _width(circuit)
    for qubit in range(width):
        observables = observables.view(len(parities), 3**qubit, 4, -1)[:, :, :3].reshape(len(parities), -1)
    states = [_loaded_qubit(None if index is None else inputs[:, index], inputs, noise) for index in loaded]
    states += [inputs.new_tensor([[1.0, 0.0, 1.0]]).expand(len(inputs), 3)] * (width - len(states))
    left, right = (
        reduce(lambda state, qubit: (state[:, :, None] * qubit[:, None, :]).flatten(1), part)
        for part in (states[: width // 2], states[width // 2 :])
    )
    matrices = observables.view(len(parities), left.shape[1], right.shape[1])
    return torch.stack([((left @ matrix) * right).sum(dim=1) for matrix in matrices], dim=1)


def _loaded_qubit(angle: Tensor | None, inputs: Tensor, noise: NoiseConfig) -> Tensor:
    """Coefficients of I, X and Z of a fresh qubit, perhaps behind a noisy RY, shape (batch, 3)."""
    z = 1 - 2 * noise.preparation
    if angle is None:
        return inputs.new_tensor([[1, 0, z]]).expand(len(inputs), 3)
    after = noise.after_rotation
    turned = (torch.ones_like(angle), after.x * z * angle.sin(), after.z * z * angle.cos() + after.shift)
    return torch.stack(turned, dim=1)


def pauli_coefficients(amplitudes: Tensor, flip: float = 0.0) -> Tensor:
    """<psi|P|psi> of every string P, shape (batch, 4**Q), from real amplitudes of shape (batch, 2**Q).

    Qubit 0 is the most significant digit; digits are 0 I, 1 X, 2 Z, 3 Y. With probability `flip` each qubit is flipped
    first.
    """
    batch, size = amplitudes.shape
    n_qubits = size.bit_length() - 1
    result = (amplitudes[:, :, None] * amplitudes[:, None, :]).view(batch, *[2] * (2 * n_qubits))
    order = [0] + [axis for qubit in range(n_qubits) for axis in (1 + qubit, 1 + n_qubits + qubit)]
    result = result.permute(order).reshape(batch, 4**n_qubits)
    z = 1 - 2 * flip
    # From rho_00, rho_01, rho_10 and rho_11; tr(Y rho) has a factor i, which the signs below put back.
    digit = amplitudes.new_tensor([[1, 0, 0, 1], [0, 1, 1, 0], [z, 0, 0, -z], [0, z, -z, 0]])
    for qubit in range(n_qubits):
        rest = 4 ** (n_qubits - 1 - qubit)
        result = (digit @ result.view(batch, 4**qubit, 4, rest)).view(batch, 4**n_qubits)
    signs, imaginary = amplitudes.new_ones(1), amplitudes.new_zeros(1)  # of a product with i for each Y
    for _ in range(n_qubits):
        signs, imaginary = torch.cat([signs] * 3 + [-imaginary]), torch.cat([imaginary] * 3 + [signs])
    return result * signs


def make_plan(circuit: Circuit, strings: Sequence[int], noise: NoiseConfig, isa: str = ISA) -> Any:
    """The kernel's plan for the coefficients of `strings`, by number; it applies every gate of the circuit."""
    width = _width(circuit)
    rotation, cnot = ((each.x, each.z, each.y, each.shift) for each in (noise.after_rotation, noise.after_cnot))
    return _kernel.DensityMatrixPlan(
        instruction_set=isa,
        n_qubits=width,
        n_weights=circuit.n_weights,
        n_inputs=circuit.n_inputs,
        operations=_operations(circuit.gates, width),
        observables=strings,
        after_rotation=rotation,
        after_cnot=cnot,
        depolarizing=1 - noise.depolarizing_2q,
    )


def _width(circuit: Circuit) -> int:
    return max(2, circuit.n_qubits)  # an operation takes two qubits; beside a lone one the second stays |0>


def _operations(gates: Sequence[Gate], width: int) -> npt.NDArray[np.int32]:
    """Rows (digit a, digit b, CNOT?, angle of a, angle of b): a CNOT with the rotation of its target, or two rotations.

    A rotation joins an operation if nothing has touched its qubit since.
    """
    rows: list[list[int]] = []
    last: dict[int, int] = {}  # of each qubit: the operation that touched it last
    single: int | None = None  # an operation with one rotation and room for another
    for gate in gates:
        digit = width - 1 - gate.target
        before = last.get(gate.target)
        if gate.control is not None:
            last[gate.target] = last[gate.control] = len(rows)
            rows.append([width - 1 - gate.control, digit, 1, _NO_ANGLE, _NO_ANGLE])
        elif before is not None and rows[before][slot := 4 if rows[before][1] == digit else 3] == _NO_ANGLE:
            rows[before][slot] = _term(gate.angle)
        elif single is not None and (before is None or before < single):
            rows[single][0], rows[single][3] = digit, _term(gate.angle)
            last[gate.target], single = single, None
        else:
            last[gate.target] = single = len(rows)
            rows.append([(digit + 1) % width, digit, 0, _NO_ANGLE, _term(gate.angle)])
    return np.array(rows, np.int32).reshape(-1, 5)


def _term(angle: Angle | None) -> int:
    assert angle is not None
    return angle.index if angle.source == "weight" else ~angle.index


def _check_memory(circuit: Circuit, batch: int, weights: Tensor, inputs: Tensor | None, initial: Tensor | None) -> None:
    """Refuse what does not fit before any of it is allocated."""
    if circuit.n_qubits > MAX_QUBITS:
        raise InputError(
            f"a density matrix on {circuit.n_qubits} qubits has 4**{circuit.n_qubits} entries; exact noise goes up to "
            f"{MAX_QUBITS} qubits: pass trajectories for more"
        )
    state = weights.element_size() * 4 ** _width(circuit) * 1.07  # with the gaps of pauli_kernels.h
    tensors = (weights, inputs, initial)
    states = 1 + min(batch, torch.get_num_threads())
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        # Backward keeps two times the root of the number of operations; see density_matrix.cpp.
        states = 1 + min(batch, torch.get_num_threads()) * (4 + 2 * int(len(circuit.gates) ** 0.5))
    if initial is not None:
        states += batch * (6 if initial.requires_grad else 4)
    if (free := memory_shortage(states * state)) is not None:
        raise InsufficientMemoryError(
            f"{batch} density matrices on {circuit.n_qubits} qubits need {states * state / 2**30:,.1f} GiB at work and "
            f"{free / 2**30:,.1f} GiB are free; pass trajectories, or use a smaller batch or fewer qubits"
        )


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Any, n_columns: int, weights: Tensor, inputs: Tensor | None, start: Tensor, batch: int
    ) -> Tensor:
        """Expectations of shape (batch, n_columns); `start` is shared by the batch if it has one dimension."""
        weights, start = weights.contiguous(), start.contiguous()
        inputs = None if inputs is None else inputs.contiguous()
        ctx.plan, ctx.batch = plan, batch
        ctx.save_for_backward(weights, inputs, start)
        result = weights.new_empty(batch, n_columns)
        run = plan.forward_f32 if weights.dtype == torch.float32 else plan.forward_f64
        arrays = kernel_batch(batch, weights, inputs, start)
        run(arrays, start.dim() == 1, result.data_ptr(), torch.get_num_threads())
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, the inputs and the start."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        weights, inputs, start = ctx.saved_tensors
        grad, grad_weights = grad.contiguous(), torch.empty_like(weights)
        grad_inputs, grad_start = (
            torch.empty_like(tensor) if wanted else None
            for tensor, wanted in zip((inputs, start), ctx.needs_input_grad[3:5], strict=True)
        )
        run = ctx.plan.backward_f32 if weights.dtype == torch.float32 else ctx.plan.backward_f64
        arrays = kernel_batch(ctx.batch, weights, inputs, start)
        gradients = kernel_gradients(grad_weights, grad_inputs, grad_start)
        run(arrays, start.dim() == 1, grad.data_ptr(), gradients, torch.get_num_threads())
        return None, None, grad_weights, grad_inputs, grad_start, None


class _Observables(torch.autograd.Function):
    """Strings in front of a circuit, by their coefficients there; differentiable in the weights."""

    @staticmethod
    def forward(ctx: Any, plan: Any, rows: int, size: int, weights: Tensor) -> Tensor:
        """Shape (rows, size)."""
        weights = weights.contiguous()
        ctx.plan = plan
        ctx.save_for_backward(weights)
        result = weights.new_empty(rows, size)
        run = plan.evolve_observables_f32 if weights.dtype == torch.float32 else plan.evolve_observables_f64
        run(weights.data_ptr(), result.data_ptr(), torch.get_num_threads())
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor]:
        """The gradient of the weights: of row k's state, which `grad` holds, by observable k."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        (weights,) = ctx.saved_tensors
        grad, grad_weights = grad.contiguous(), torch.empty_like(weights)
        each_its_own = torch.eye(len(grad)).to(weights)
        run = ctx.plan.backward_f32 if weights.dtype == torch.float32 else ctx.plan.backward_f64
        arrays, gradients = kernel_batch(len(grad), weights, None, grad), kernel_gradients(grad_weights, None, None)
        run(arrays, False, each_its_own.data_ptr(), gradients, torch.get_num_threads())
        return None, None, None, grad_weights
