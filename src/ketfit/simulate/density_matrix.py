"""Exact simulation of noise: the density matrix, stored as its real Pauli coefficients, and its expectations.

rho = 2**-Q sum_P r_P P over the 4**Q strings P of I, X, Z and Y, with r_P = tr(P rho). Gates rotate and permute the
coefficients, every channel of `NoiseConfig` scales them, and the mean of a Pauli word is one of them. Circuits of RY by
a weight or input and CNOT run in the kernel (see kernel/pauli_kernels.h), and others in torch
(`ketfit.simulate.density_evolution`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, Gate, cached_on_circuit
from ketfit.errors import ConfigError, InputError, InsufficientMemoryError
from ketfit.memory import memory_shortage
from ketfit.simulate import _kernel
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_evolution import LETTERS, evolve_coefficients, n_blocks
from ketfit.simulate.evolution import needs_recorded_operations
from ketfit.simulate.native import (
    ISA,
    NO_SECOND_DERIVATIVE,
    empty_gradients,
    kernel_batch,
    kernel_gradients,
)
from ketfit.simulate.noise import NoiseConfig, noisy_light_cone
from ketfit.simulate.statevector import Engine

Word = tuple[str, tuple[int, ...]]
"""A Pauli word: a letter X, Y or Z for each of some qubits."""

MAX_QUBITS = 15
"""Largest density matrix: strings have 32-bit numbers, and 15 qubits take 4 GiB in single precision."""

_MAX_OBSERVABLE_BYTES = 2**30  # above this size every sample is evolved instead of the observables
_NO_ANGLE = np.iinfo(np.int32).min


def density_matrix_words(
    batch: CircuitBatch, words: Sequence[Word], noise: NoiseConfig, engine: Engine = "auto"
) -> Tensor:
    """Return the mean of each Pauli word under gate and preparation noise, shape (size, len(words)).

    The result is differentiable in all three tensors: once where the kernel computes it, which runs circuits of RY by a
    weight or input and CNOT on the CPU, and any number of times where torch does, which runs all others.

    Args:
        batch: Circuit and its tensors; with noise, gates on three qubits are decomposed.
        words: Pairs of the letters X, Y and Z and their qubits; an empty word gives the trace.
        noise: Noise of gates and preparation.
        engine: "native" for the kernel, "torch" or "auto".

    Raises:
        ConfigError: The engine is the native one, which does not know a gate or runs on another device, or the
            distributed one, which has no noise.
        InputError: A number is not finite, or the circuit has more than 15 qubits.
        InsufficientMemoryError: The density matrices do not fit into the free memory.
    """
    noise.check_engine(engine)
    batch = batch.with_circuit(noise.decomposed(batch.circuit))
    on_cpu = batch.weights.device.type == "cpu"
    native = batch.circuit.is_ry_cx and on_cpu and engine != "torch"
    if engine == "native" and not native:
        reason = f"weights are on {batch.weights.device}" if not on_cpu else "this circuit has other gates"
        raise ConfigError(
            f"the native engine has the density matrix of RY and CNOT on the CPU and {reason}; use engine='auto'"
        )
    batch.check_finite()
    cone = noisy_light_cone(batch.circuit, tuple({qubit for _, qubits in words for qubit in qubits}))
    batch = batch.with_circuit(cone)
    if native:
        _check_memory(batch, _width(cone), 4 + 2 * int(len(cone.gates) ** 0.5))
        return _kernel_words(batch, tuple(words), noise)
    _check_memory(batch, cone.n_qubits, 4 + 5 * (1 + int(n_blocks(cone, noise) ** 0.5)), threads=batch.size)
    state = evolve_coefficients(batch, noise, _start(batch, cone.n_qubits, noise))
    numbers = torch.tensor([_string(word, cone.n_qubits) for word in words], device=state.device)
    return _with_graph(state[:, numbers].expand(batch.size, -1), batch)


def _with_graph(values: Tensor, batch: CircuitBatch) -> Tensor:
    """Return values that have a gradient by all tensors of a batch, which is zero for those that no gate reads."""
    if not batch.is_differentiated:
        return values
    nothing = [each.real.flatten()[:0].sum() for each in batch.tensors if each is not None and each.requires_grad]
    return reduce(torch.add, nothing, values)


def _kernel_words(batch: CircuitBatch, words: tuple[Word, ...], noise: NoiseConfig) -> Tensor:
    cone, weights = batch.circuit, batch.weights
    width, loading = _width(cone), _loading(cone)
    small = len(words) == 1 or len(words) * weights.element_size() * 4**width <= _MAX_OBSERVABLE_BYTES
    if batch.initial is None and loading is not None and len(words) < batch.size and small:
        loaded, behind = loading
        return _loaded_expectation(loaded, batch.with_circuit(behind), words, noise)
    start = _start(batch, width, noise)
    result: Tensor = _Density.apply(  # type: ignore[no-untyped-call]
        _plan(cone, words, noise), batch.size, weights, batch.inputs, start[0] if batch.initial is None else start
    )
    return result


def _start(batch: CircuitBatch, width: int, noise: NoiseConfig) -> Tensor:
    """Return the coefficients of the prepared states, shape (size, 4**width), or (1, 4**width) from |0...0>."""
    weights, initial = batch.weights, batch.initial
    if initial is None:
        return reduce(torch.kron, [weights.new_tensor([1, 0, 1 - 2 * noise.preparation, 0])] * width)[None]
    start = pauli_coefficients(initial, noise.preparation)
    return torch.kron(start, weights.new_tensor([[1, 0, 1, 0]])) if batch.circuit.n_qubits < width else start


@cached_on_circuit
def _plan(circuit: Circuit, words: tuple[Word, ...], noise: NoiseConfig) -> Any:
    return make_plan(circuit, [_string(word, _width(circuit)) for word in words], noise)


def _string(word: Word, width: int) -> int:
    """Return the number of a word's string."""
    return sum(LETTERS.index(letter) << (2 * (width - 1 - qubit)) for letter, qubit in zip(*word, strict=True))


@cached_on_circuit
def _loading(circuit: Circuit) -> tuple[list[int | None], Circuit] | None:
    """Return the input of each qubit's first rotation and the remaining circuit; None if inputs are used elsewhere."""
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
    return None if later or loaded.count(None) == len(loaded) else (loaded, circuit.with_gates(rest))


def _loaded_expectation(
    loaded: list[int | None], batch: CircuitBatch, words: tuple[Word, ...], noise: NoiseConfig
) -> Tensor:
    """Return the expectations for inputs that are loaded once, on fresh qubits, with one evolution for the batch.

    The batch has the circuit behind the loading, where every sample passes the same channel. So the observables are
    evolved backwards through it once (Heisenberg picture) and contracted with each sample's product state, which has no
    string with a Y. By linearity one evolution also gives the gradient of the weights, from the sum of the samples'
    states weighted by the gradient of the loss. The last digits depend on the number of threads, as those of torch's
    matrix products do.
    """
    inputs, width = batch.inputs, _width(batch.circuit)
    assert inputs is not None
    observables: Tensor = _Observables.apply(  # type: ignore[no-untyped-call]
        _plan(batch.circuit, words, noise), batch.weights
    )
    for qubit in range(width):
        observables = observables.view(len(words), 3**qubit, 4, -1)[:, :, :3].reshape(len(words), -1)
    states = [_loaded_qubit(None if index is None else inputs[:, index], inputs, noise) for index in loaded]
    states += [inputs.new_tensor([[1.0, 0.0, 1.0]]).expand(len(inputs), 3)] * (width - len(states))
    left, right = (
        reduce(lambda state, qubit: (state[:, :, None] * qubit[:, None, :]).flatten(1), part)
        for part in (states[: width // 2], states[width // 2 :])
    )
    matrices = observables.view(len(words), left.shape[1], right.shape[1])
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
    """Return <psi|P|psi> of every string P, shape (batch, 4**Q), from amplitudes of shape (batch, 2**Q).

    Qubit 0 is the most significant digit; digits are 0 I, 1 X, 2 Z, 3 Y. Each qubit is first flipped with probability
    `flip`.
    """
    batch, size = amplitudes.shape
    n_qubits = size.bit_length() - 1
    result = (amplitudes[:, :, None] * amplitudes[:, None, :].conj()).view(batch, *[2] * (2 * n_qubits))
    order = [0] + [axis for qubit in range(n_qubits) for axis in (1 + qubit, 1 + n_qubits + qubit)]
    result = result.permute(order).reshape(batch, 4**n_qubits)
    z = 1 - 2 * flip
    # From rho_00, rho_01, rho_10 and rho_11; for real amplitudes the signs below restore the factor i of tr(Y rho).
    y = 1j * z if amplitudes.is_complex() else z
    digit = amplitudes.new_tensor([[1, 0, 0, 1], [0, 1, 1, 0], [z, 0, 0, -z], [0, y, -y, 0]])
    for qubit in range(n_qubits):
        rest = 4 ** (n_qubits - 1 - qubit)
        result = (digit @ result.view(batch, 4**qubit, 4, rest)).view(batch, 4**n_qubits)
    if amplitudes.is_complex():
        return result.real
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


def _check_memory(batch: CircuitBatch, width: int, differentiated_states: int, threads: int | None = None) -> None:
    """Raise an error, before anything is allocated, if the circuit is too wide or the memory too small.

    Args:
        batch: The light cone and its tensors.
        width: Qubits of a density matrix.
        differentiated_states: Density matrices of a thread if gradients are computed; see density_matrix.cpp.
        threads: Samples that are computed at the same time; None is torch's number of threads.
    """
    circuit, size = batch.circuit, batch.size
    if circuit.n_qubits > MAX_QUBITS:
        raise InputError(
            f"a density matrix on {circuit.n_qubits} qubits has 4**{circuit.n_qubits} entries; exact noise goes up to "
            f"{MAX_QUBITS} qubits: pass trajectories for more"
        )
    state = batch.weights.element_size() * 4**width * 1.07  # with the gaps of pauli_kernels.h
    states_of_thread = differentiated_states if batch.is_differentiated else 1 if threads is None else 3
    states = 1 + min(size, torch.get_num_threads() if threads is None else threads) * states_of_thread
    if batch.initial is not None:
        states += size * (6 if batch.initial.requires_grad else 4) * (2 if batch.initial.is_complex() else 1)
    if (free := memory_shortage(states * state)) is not None:
        raise InsufficientMemoryError(
            f"{size} density matrices on {circuit.n_qubits} qubits need {states * state / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; pass trajectories, or use a smaller batch or fewer qubits"
        )


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Any, size: int, weights: Tensor, inputs: Tensor | None, start: Tensor) -> Tensor:
        """Return expectations, shape (size, observables); a `start` of one dimension is shared by the batch."""
        start = start.contiguous()
        ctx.plan, ctx.size = plan, size
        ctx.save_for_backward(weights, inputs, start)
        result = weights.new_empty(size, plan.n_observables)
        arrays = kernel_batch(size, weights, inputs, start)
        plan.forward(arrays, start.dim() == 1, result.data_ptr(), torch.get_num_threads())
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, the inputs and the start."""
        if needs_recorded_operations(grad):
            raise InputError(NO_SECOND_DERIVATIVE)
        saved, grad = ctx.saved_tensors, grad.contiguous()
        grads = empty_gradients(saved, (True, *ctx.needs_input_grad[3:]))
        shared = saved[-1].dim() == 1
        arrays, gradients = kernel_batch(ctx.size, *saved), kernel_gradients(*grads)
        ctx.plan.backward(arrays, shared, grad.data_ptr(), gradients, torch.get_num_threads())
        return None, None, *grads


class _Observables(torch.autograd.Function):
    """Coefficients of observables evolved to the start of a circuit; differentiable in the weights."""

    @staticmethod
    def forward(ctx: Any, plan: Any, weights: Tensor) -> Tensor:
        """Return the coefficients, shape (observables, 4**Q)."""
        ctx.plan = plan
        ctx.save_for_backward(weights)
        result = weights.new_empty(plan.n_observables, plan.n_coefficients)
        plan.evolve_observables(
            kernel_batch(len(result), weights, None, None), result.data_ptr(), torch.get_num_threads()
        )
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Return the gradient of the weights; row k of `grad` is the state that observable k is measured on."""
        if needs_recorded_operations(grad):
            raise InputError(NO_SECOND_DERIVATIVE)
        (weights,) = ctx.saved_tensors
        grad, grad_weights = grad.contiguous(), torch.empty_like(weights)
        cotangent = torch.eye(len(grad)).to(weights)
        arrays, gradients = kernel_batch(len(grad), weights, None, grad), kernel_gradients(grad_weights, None, None)
        ctx.plan.backward(arrays, False, cotangent.data_ptr(), gradients, torch.get_num_threads())
        return None, grad_weights
