"""Evolution of density matrices under circuits of any gates with noise, in torch.

A density matrix is stored as its real Pauli coefficients (`ketfit.simulate.density_matrix`), shape (batch, 4**Q). A
gate on k qubits with the noise behind it is a real matrix of 4**k rows, its Pauli transfer matrix; that of a rotation
exp(-i t/2 P) is 1 + sin(t) G + (1 - cos(t)) G**2 with a constant G. Gates in a row on the same one or two qubits are
multiplied before they are applied. Every step is an operation of torch, which differentiates it; the backward pass
stores a density matrix at the end of every segment of gates, and computes the others again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ketfit.circuit.angle import angles_of
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import GATES, Gate
from ketfit.circuit.lowering import ConstantUnitary, lower_gate
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.evolution import AffineAngles, angle_columns
from ketfit.simulate.noise import Channel, NoiseConfig

LETTERS = "IXZY"
"""Pauli matrices in the order of the digits of a coefficient's number."""

_PAULIS = np.array([np.eye(2), *(GATES[letter.lower()].matrix() for letter in LETTERS[1:])])

Array = npt.NDArray[np.float64]


def evolve_coefficients(batch: CircuitBatch, noise: NoiseConfig, start: Tensor) -> Tensor:
    """Return the Pauli coefficients after the circuit, shape (size, 4**Q), or (1, 4**Q) if the samples do not differ.

    Args:
        batch: Circuit of gates on one and two qubits; gates on three are possible if gates have no noise.
        noise: Noise behind every gate; preparation and readout are not considered.
        start: Coefficients before the first gate, shape (size, 4**Q) or (1, 4**Q).
    """
    program = _program(batch.circuit, noise)
    shared = program.shared.values(batch.weights)
    sample = program.sample.values(angle_columns(batch.weights, batch.inputs, batch.size))
    segment = max(1, math.isqrt(len(program.blocks)))
    state = start
    for first in range(0, len(program.blocks), segment):
        blocks = program.blocks[first : first + segment]
        if batch.is_differentiated:
            state = checkpoint(
                _apply_blocks, blocks, shared, sample, state, use_reentrant=False, preserve_rng_state=False
            )
        else:
            state = _apply_blocks(blocks, shared, sample, state)
    return state


def n_blocks(circuit: Circuit, noise: NoiseConfig) -> int:
    """Return the number of matrices that the circuit's gates are multiplied to."""
    return len(_program(circuit, noise).blocks)


@dataclass(frozen=True)
class _Turn:
    """A rotation's generator G and G**2, and the slot of its angle among those that the samples share or the others."""

    generator: Array
    square: Array
    is_shared: bool
    slot: int

    def matrix(self, shared: Tensor, sample: Tensor) -> Tensor:
        """Return the Pauli transfer matrix, shape (rows, rows), or (size, rows, rows)."""
        angle = (shared if self.is_shared else sample)[..., self.slot, None, None]
        generator, square = (torch.from_numpy(each).to(angle) for each in (self.generator, self.square))
        return torch.eye(len(generator)).to(angle) + angle.sin() * generator + (1 - angle.cos()) * square


@dataclass
class _Block:
    """Factors on some qubits, in the order they are applied, whose product is one matrix."""

    qubits: tuple[int, ...]
    gates: list[Gate]
    factors: list[_Turn | Array] = field(default_factory=list)

    def apply(self, state: Tensor, shared: Tensor, sample: Tensor) -> Tensor:
        """Return the block's matrix times the coefficients."""
        matrices = [
            each.matrix(shared, sample) if isinstance(each, _Turn) else torch.from_numpy(each).to(state)
            for each in self.factors
        ]
        matrix = reduce(lambda total, each: each @ total, matrices)
        ascending, width = sorted(self.qubits), len(self.qubits)
        n_qubits = (state.shape[1].bit_length() - 1) // 2
        edges = [-1, *ascending, n_qubits]
        gaps = [4 ** (after - before - 1) for before, after in pairwise(edges)]
        shape = [len(state), gaps[0], *(size for gap in gaps[1:] for size in (4, gap))]
        axes = [2 + 2 * ascending.index(qubit) for qubit in self.qubits]
        moved = state.reshape(shape).movedim(axes, list(range(1, 1 + width)))
        result = matrix @ moved.reshape(len(state), 4**width, 4 ** (n_qubits - width))
        split = result.reshape(len(result), *moved.shape[1:]).movedim(list(range(1, 1 + width)), axes)
        return split.reshape(len(result), 4**n_qubits)


@dataclass(frozen=True)
class _Program:
    blocks: tuple[_Block, ...]
    shared: AffineAngles
    sample: AffineAngles


def _apply_blocks(blocks: Sequence[_Block], shared: Tensor, sample: Tensor, state: Tensor) -> Tensor:
    for block in blocks:
        state = block.apply(state, shared, sample)
    return state


@cached_on_circuit
def _program(circuit: Circuit, noise: NoiseConfig) -> _Program:
    shared, sample = AffineAngles(), AffineAngles()
    blocks = _group_gates(circuit.gates)
    for block in blocks:
        for gate in block.gates:
            places = tuple(block.qubits.index(qubit) for qubit in gate.qubits)
            for operation in lower_gate(gate):
                own = tuple(block.qubits.index(qubit) for qubit in operation.qubits)
                if isinstance(operation, ConstantUnitary):
                    block.factors.append(_embedded(_transfer_matrix(operation.matrix), own, len(block.qubits)))
                elif own:
                    letters = dict(zip(own, operation.word, strict=True))
                    word = "".join(letters.get(place, "I") for place in range(len(block.qubits)))
                    is_shared = all(angle.source == "weight" for angle in angles_of(operation.angle))
                    slot = (shared if is_shared else sample).add(operation.angle, circuit.n_weights)
                    block.factors.append(_Turn(*_generator(word), is_shared, slot))
            block.factors.append(_embedded(_gate_noise(noise, len(places)), places, len(block.qubits)))
        block.factors = _merged(block.factors)
    return _Program(tuple(blocks), shared, sample)


def _group_gates(gates: Sequence[Gate]) -> list[_Block]:
    """Return the gates as blocks; a gate joins the last block on its qubits, and blocks before it on one qubit join."""
    blocks: dict[int, _Block] = {}
    last: dict[int, int] = {}  # for each qubit the last block on it
    for number, gate in enumerate(gates):
        if not gate.qubits:  # a global phase
            continue
        before = {last[qubit] for qubit in gate.qubits if qubit in last}
        if len(before) == 1 and set(gate.qubits) <= set(blocks[min(before)].qubits):
            blocks[min(before)].gates.append(gate)
            continue
        single = [each for each in sorted(before) if len(blocks[each].qubits) == 1]
        earlier = [own for each in single for own in blocks.pop(each).gates]
        blocks[number] = _Block(gate.qubits, [*earlier, gate])
        last.update(dict.fromkeys(gate.qubits, number))
    return list(blocks.values())


def _merged(factors: Sequence[_Turn | Array]) -> list[_Turn | Array]:
    """Return the factors with constant ones in a row multiplied."""
    merged: list[_Turn | Array] = []
    for each in factors:
        if merged and not isinstance(each, _Turn) and not isinstance(merged[-1], _Turn):
            merged[-1] = each @ merged[-1]
        else:
            merged.append(each)
    return merged


def _gate_noise(noise: NoiseConfig, width: int) -> Array:
    """Return the transfer matrix of the noise behind a gate; a gate on three qubits is here only if there is none."""
    if width == 1:
        return _channel_matrix(noise.after_rotation)
    if width > 2:
        return np.eye(4**width)
    local = _channel_matrix(noise.after_cnot)
    depolarizing = np.full(16, 1 - noise.depolarizing_2q)
    depolarizing[0] = 1
    matrix: Array = np.kron(local, local) * depolarizing
    return matrix


def _channel_matrix(channel: Channel) -> Array:
    matrix = np.diag([1.0, channel.x, channel.z, channel.y])
    matrix[LETTERS.index("Z"), 0] = channel.shift
    return matrix


def _embedded(matrix: Array, places: tuple[int, ...], width: int) -> Array:
    """Return a matrix on some places of a block as a matrix on the block."""
    rest = [place for place in range(width) if place not in places]
    whole = np.kron(matrix, np.eye(4 ** len(rest))).reshape([4] * (2 * width))
    order = np.argsort([*places, *rest])
    return np.ascontiguousarray(whole.transpose([*order, *(width + order)])).reshape(4**width, 4**width)


@lru_cache(maxsize=8)
def _pauli_basis(width: int) -> npt.NDArray[np.complex128]:
    """Return the matrix of every word, shape (4**width, 2**width, 2**width)."""
    return np.array([reduce(np.kron, matrices) for matrices in product(_PAULIS, repeat=width)])


def _transfer_matrix(matrix: Sequence[Sequence[complex]]) -> Array:
    """Return the transfer matrix of a unitary U: tr(P U P' U^dagger) / 2**k for all words P and P'."""
    unitary = np.array(matrix)
    basis = _pauli_basis(len(unitary).bit_length() - 1)
    images = unitary @ basis @ unitary.conj().T
    transfer: Array = np.einsum("aij,bji->ab", basis, images, optimize=True).real / len(unitary)
    return transfer


@lru_cache(maxsize=64)
def _generator(word: str) -> tuple[Array, Array]:
    """Return the generator of a rotation's transfer matrix, of the commutator with -i/2 P, and its square."""
    basis = _pauli_basis(len(word))
    pauli = basis[sum(LETTERS.index(letter) * 4 ** (len(word) - 1 - place) for place, letter in enumerate(word))]
    images = -0.5j * (pauli @ basis - basis @ pauli)
    generator: Array = np.einsum("aij,bji->ab", basis, images, optimize=True).real / len(pauli)
    return generator, generator @ generator
