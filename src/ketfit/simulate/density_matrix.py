"""Exact simulation of noise: the density matrix, stored as its real Pauli coefficients, and its expectations.

rho = 2**-Q sum_P r_P P over the 4**Q strings P of I, X, Z and Y, with r_P = tr(P rho). Gates rotate and permute the
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
"""Largest density matrix: strings have 32-bit numbers, and 15 qubits take 4 GiB in single precision."""

_MAX_OBSERVABLE_BYTES = 2**30  # above this size every sample is evolved instead of the observables
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
    """Return <Z_j Z_k ...> of each of `parities` under gate and preparation noise, shape (batch, len(parities)).

    Each parity has the qubits of one product; an empty one gives the trace. The other arguments are those of
    `ketfit.expectation`. The result is computed on the CPU and is differentiable once in all three tensors.

    Raises:
        InputError: A tensor is not on the CPU or not finite, or the circuit has more than 15 qubits.
        InsufficientMemoryError: The density matrices do not fit into the free memory.
    """
    if weights.device.type != "cpu":
        raise InputError(f"density matrices are computed on the CPU and weights are on {weights.device}; move them")
    check_finite(weights=weights, inputs=inputs, initial=initial)
    _check_memory(circuit, batch, weights, inputs, initial)
    cone = noisy_light_cone(circuit, tuple({qubit for parity in parities for qubit in parity}))
    loading = _loading(cone)
    observable_bytes = len(parities) * weights.element_size() * 4 ** _width(circuit)
    small = len(parities) == 1 or observable_bytes <= _MAX_OBSERVABLE_BYTES
    if initial is None and loading is not None and len(parities) < batch and small:
        assert inputs is not None
        return _loaded_expectation(*loading, parities, weights, inputs, noise)
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
    """Return the input of each qubit's first rotation and the remaining circuit; None if inputs are used elsewhere."""
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


def _loaded_expectation(
    loaded: list[int | None],
    circuit: Circuit,
    parities: Sequence[tuple[int, ...]],
    weights: Tensor,
    inputs: Tensor,
    noise: NoiseConfig,
) -> Tensor:
    """Return the expectations for inputs that are loaded once, on fresh qubits, with one evolution for the batch.

    After the loading every sample passes the same channel. So the observables are evolved backwards through it once
    (Heisenberg picture) and contracted with each sample's product state, which has no string with a Y. By linearity
    one evolution also gives the gradient of the weights, from the sum of the samples' states weighted by the gradient
    of the loss. The last digits depend on the number of threads, as those of torch's matrix products do.
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
    """Return the coefficients of I, X and Z of a fresh qubit after a noisy RY, if it has one, shape (batch, 3)."""
    z = 1 - 2 * noise.preparation
    if angle is None:
        return inputs.new_tensor([[1, 0, z]]).expand(len(inputs), 3)
    after = noise.after_rotation
    rotated = (torch.ones_like(angle), after.x * z * angle.sin(), after.z * z * angle.cos() + after.shift)
    return torch.stack(rotated, dim=1)


def pauli_coefficients(amplitudes: Tensor, flip: float = 0.0) -> Tensor:
    """Return <psi|P|psi> of every string P, shape (batch, 4**Q), from real amplitudes of shape (batch, 2**Q).

    Qubit 0 is the most significant digit; digits are 0 I, 1 X, 2 Z, 3 Y. Each qubit is first flipped with probability
    `flip`.
    """
    batch, size = amplitudes.shape
    n_qubits = size.bit_length() - 1
    result = (amplitudes[:, :, None] * amplitudes[:, None, :]).view(batch, *[2] * (2 * n_qubits))
    order = [0] + [axis for qubit in range(n_qubits) for axis in (1 + qubit, 1 + n_qubits + qubit)]
    result = result.permute(order).reshape(batch, 4**n_qubits)
    z = 1 - 2 * flip
    # From rho_00, rho_01, rho_10 and rho_11; tr(Y rho) has a factor i, which the signs below restore.
    digit = amplitudes.new_tensor([[1, 0, 0, 1], [0, 1, 1, 0], [z, 0, 0, -z], [0, z, -z, 0]])
    for qubit in range(n_qubits):
        rest = 4 ** (n_qubits - 1 - qubit)
        result = (digit @ result.view(batch, 4**qubit, 4, rest)).view(batch, 4**n_qubits)
    signs, imaginary = amplitudes.new_ones(1), amplitudes.new_zeros(1)  # parts of a product with one i for each Y
    for _ in range(n_qubits):
        signs, imaginary = torch.cat([signs] * 3 + [-imaginary]), torch.cat([imaginary] * 3 + [signs])
    return result * signs


def make_plan(circuit: Circuit, strings: Sequence[int], noise: NoiseConfig, isa: str = ISA) -> Any:
    """Return the kernel's plan for the coefficients of the numbered `strings`; it applies every gate of the circuit."""
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
    return max(2, circuit.n_qubits)  # an operation takes two qubits; a single qubit gets a second one in |0>


def _operations(gates: Sequence[Gate], width: int) -> npt.NDArray[np.int32]:
    """Return rows (digit a, digit b, CNOT?, angle of a, angle of b).

    A row is a CNOT with a rotation of its target, or two rotations. A rotation joins an earlier row if no later row
    acts on its qubit.
    """
    rows: list[list[int]] = []
    last: dict[int, int] = {}  # for each qubit the last operation on it
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
    """Raise an error, before anything is allocated, if the circuit is too wide or the memory too small."""
    if circuit.n_qubits > MAX_QUBITS:
        raise InputError(
            f"a density matrix on {circuit.n_qubits} qubits has 4**{circuit.n_qubits} entries; exact noise goes up to "
            f"{MAX_QUBITS} qubits: pass trajectories for more"
        )
    state = weights.element_size() * 4 ** _width(circuit) * 1.07  # with the gaps of pauli_kernels.h
    tensors = (weights, inputs, initial)
    states = 1 + min(batch, torch.get_num_threads())
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        # The adjoint pass stores 2 sqrt(number of operations) states; see density_matrix.cpp.
        states = 1 + min(batch, torch.get_num_threads()) * (4 + 2 * int(len(circuit.gates) ** 0.5))
    if initial is not None:
        states += batch * (6 if initial.requires_grad else 4)
    if (free := memory_shortage(states * state)) is not None:
        raise InsufficientMemoryError(
            f"{batch} density matrices on {circuit.n_qubits} qubits need {states * state / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; pass trajectories, or use a smaller batch or fewer qubits"
        )


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Any, n_columns: int, weights: Tensor, inputs: Tensor | None, start: Tensor, batch: int
    ) -> Tensor:
        """Return expectations, shape (batch, n_columns); a `start` of one dimension is shared by the batch."""
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
        """Return the gradients of the weights, the inputs and the start."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        weights, inputs, start = ctx.saved_tensors
        grad, grad_weights = grad.contiguous(), torch.empty_like(weights)
        grad_inputs, grad_start = (
            torch.empty_like(tensor) if needed else None
            for tensor, needed in zip((inputs, start), ctx.needs_input_grad[3:5], strict=True)
        )
        run = ctx.plan.backward_f32 if weights.dtype == torch.float32 else ctx.plan.backward_f64
        arrays = kernel_batch(ctx.batch, weights, inputs, start)
        gradients = kernel_gradients(grad_weights, grad_inputs, grad_start)
        run(arrays, start.dim() == 1, grad.data_ptr(), gradients, torch.get_num_threads())
        return None, None, grad_weights, grad_inputs, grad_start, None


class _Observables(torch.autograd.Function):
    """Coefficients of observables evolved to the start of a circuit; differentiable in the weights."""

    @staticmethod
    def forward(ctx: Any, plan: Any, rows: int, size: int, weights: Tensor) -> Tensor:
        """Return the coefficients, shape (rows, size)."""
        weights = weights.contiguous()
        ctx.plan = plan
        ctx.save_for_backward(weights)
        result = weights.new_empty(rows, size)
        run = plan.evolve_observables_f32 if weights.dtype == torch.float32 else plan.evolve_observables_f64
        run(weights.data_ptr(), result.data_ptr(), torch.get_num_threads())
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor]:
        """Return the gradient of the weights; row k of `grad` is the state that observable k is measured on."""
        if torch.is_grad_enabled():
            raise InputError("expectation is differentiable once; leave create_graph=True out")
        (weights,) = ctx.saved_tensors
        grad, grad_weights = grad.contiguous(), torch.empty_like(weights)
        cotangent = torch.eye(len(grad)).to(weights)
        run = ctx.plan.backward_f32 if weights.dtype == torch.float32 else ctx.plan.backward_f64
        arrays, gradients = kernel_batch(len(grad), weights, None, grad), kernel_gradients(grad_weights, None, None)
        run(arrays, False, cotangent.data_ptr(), gradients, torch.get_num_threads())
        return None, None, None, grad_weights
