"""Random arguments, comparisons of results, and a dense reference simulation that torch differentiates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit.circuit import Circuit
from ketfit.simulate import _kernel

ENGINES = ("native", "torch")
NAMES = ("weights", "inputs", "initial")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}  # of what float64 gives
ISAS = _kernel.instruction_sets()
BOTH_DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
PAULIS = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1], [1, 0]], [[1, 0], [0, -1]]]).double()  # Y = XZ
Tensors = Sequence[Tensor | None]


def random_tensors(
    circuit: Circuit, batch: int, dtype: torch.dtype = torch.float64, has_initial: bool = True, seed: int = 0
) -> list[Tensor | None]:
    """Return weights, inputs and normalised amplitudes or None, exact in float32; all require gradients."""
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-4, 4, circuit.n_weights), rng.uniform(-4, 4, (batch, circuit.n_inputs))]
    if has_initial:
        initial = rng.normal(size=(batch, 2**circuit.n_qubits))
        arrays.append(initial / np.linalg.norm(initial, axis=1, keepdims=True))
    tensors = [torch.tensor(array.astype(np.float32)).to(dtype).requires_grad_() for array in arrays]
    return tensors if has_initial else [*tensors, None]


def random_signs(circuit: Circuit, batch: int, seed: int = 0) -> Tensor:
    """Return a random sign for each rotation of each sample."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, circuit.gate_counts()["ry"])
    return (2 * torch.randint(2, shape, generator=generator) - 1).to(torch.int8)


def random_qubits(circuit: Circuit, seed: int = 0) -> tuple[int, ...]:
    """Return about half of the qubits, shuffled."""
    rng = np.random.default_rng(seed)
    return tuple(rng.permutation(circuit.n_qubits)[: 1 + circuit.n_qubits // 2].tolist())


def values_and_gradients(values: Tensor, tensors: Tensors) -> list[Tensor]:
    """Return `values`, and the gradients of a linear form of them with respect to the `tensors` that are not None."""
    form = torch.linspace(-1, 1.5, values.numel(), dtype=torch.float64).reshape(values.shape).to(values.dtype)
    given = [tensor for tensor in tensors if tensor is not None]
    return [values.detach(), *torch.autograd.grad(values, given, form)]


def assert_close(mine: Sequence[Tensor], other: Sequence[Tensor], tolerance: float) -> None:
    """Compare values, then gradients with a larger tolerance, because they are sums over the batch."""
    for k, (a, b) in enumerate(zip(mine, other, strict=True)):
        scale = 4 * max(1.0, b.abs().max().item() if b.numel() else 0.0) if k else 1
        np.testing.assert_allclose(a.double(), b.double(), rtol=0, atol=tolerance * scale, err_msg=f"output {k}")


def assert_equal(mine: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    assert [torch.equal(a, b) for a, b in zip(mine, other, strict=True)] == [True] * len(mine)


def all_layouts(n_qubits: int, isa: str, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Yield arguments of make_plan for all numbers of samples per unit, and for narrow to full chunks."""
    lane_bits = int(_kernel.lanes(isa, dtype.itemsize)).bit_length() - 1
    for sample_bits in range(max(0, lane_bits - n_qubits), lane_bits + 1):
        for chunk_bits in (None, lane_bits + 4, 9, n_qubits + sample_bits):
            yield {"itemsize": dtype.itemsize, "sample_bits": sample_bits, "isa": isa, "chunk_bits": chunk_bits}


def dense_state(
    circuit: Circuit,
    tensors: Tensors,
    batch: int,
    signs: Tensor | None = None,
    slots: Sequence[tuple[int, int]] = (),
    codes: Tensor | None = None,
) -> Tensor:
    """Return the amplitudes, shape (batch, 2, 2, ...), with each rotation by its sign times its angle.

    Column k of `codes` has the Paulis of the samples on qubit slots[k][1] after slots[k][0] gates.
    """
    weights, inputs, initial = tensors
    n = circuit.n_qubits
    state = torch.eye(1, 2**n).double().expand(batch, -1) if initial is None else initial
    state = state.reshape(batch, *[2] * n)

    def apply(matrices: Tensor, qubit: int) -> Tensor:
        return torch.einsum("bij,bj...->bi...", matrices, state.movedim(1 + qubit, 1)).movedim(1, 1 + qubit)

    rotation = 0
    for position, gate in enumerate((*circuit.gates, None)):
        for column, (after, qubit) in enumerate(slots):
            if after == position:
                state = apply(PAULIS[codes[:, column].long()], qubit)
        if gate is None:
            break
        if gate.angle is None:
            zero, one = state.movedim((1 + gate.control, 1 + gate.target), (1, 2)).unbind(1)
            state = torch.stack([zero, one.flip(1)], 1).movedim((1, 2), (1 + gate.control, 1 + gate.target))
        else:
            angle = weights[gate.angle.index] if gate.angle.source == "weight" else inputs[:, gate.angle.index]
            half = angle / 2 if signs is None else angle * signs[:, rotation] / 2
            cos, sin = half.cos().expand(batch), half.sin().expand(batch)
            state = apply(torch.stack([cos, -sin, sin, cos], 1).reshape(batch, 2, 2), gate.target)
            rotation += 1
    return state


def measure_dense_state(state: Tensor, qubits: Sequence[int], joint: bool) -> Tensor:
    """Return <Z> of each of `qubits`, or their joint distribution, from a result of `dense_state`."""
    batch, squares = len(state), state.square()
    if joint:
        indices = [1 + qubit for qubit in qubits]
        return squares.movedim(indices, list(range(1, 1 + len(indices)))).reshape(batch, 2 ** len(indices), -1).sum(2)
    halves = [squares.movedim(1 + qubit, 1).reshape(batch, 2, -1).sum(2) for qubit in qubits]
    return torch.stack([half[:, 0] - half[:, 1] for half in halves], 1)
