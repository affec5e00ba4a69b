"""Pauli errors behind the gates of a circuit: sampling, and two ways to simulate them.

In the kernel an error is moved to the end of the circuit, as in `ketfit.simulate.trajectories`: a circuit is a sequence
of Pauli rotations (`ketfit.simulate.pauli_program`), exp(-i t/2 P) E = E exp(+-i t/2 P), so that an error E negates the
angles of the later rotations and the observed words that anticommute with it. In torch the errors are gates RX and RZ
by inputs of 0 or pi.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from ketfit.circuit.angle import Angle
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import Gate
from ketfit.circuit.lowering import lower_gate, word_masks
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.pauli_program import Frame, PauliWord

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PauliErrors:
    """Sampled errors of `count` trajectories.

    Attributes:
        flips: 1 where a prepared qubit is flipped, shape (n_qubits, count).
        of_gates: For each gate the trajectories with an error behind it, and the Pauli matrix on each of its qubits
            there: 0 I, 1 X, 2 Z and 3 Y.
    """

    flips: Bits
    of_gates: tuple[tuple[npt.NDArray[np.int64], tuple[Bits, ...]], ...]

    @classmethod
    def sample(cls, circuit: Circuit, noise: NoiseConfig, count: int, rng: np.random.Generator) -> PauliErrors:
        """Return the errors of gates on one and two qubits; other gates have none.

        Raises:
            ConfigError: The noise is not a mixture of Paulis.
        """
        widths = [len(gate.qubits) for gate in circuit.gates]
        of_width = {
            width: sample_gate_errors(widths.count(width), probabilities, count, rng)
            for width, probabilities in gate_error_probabilities(noise).items()
        }
        flips = (rng.random((circuit.n_qubits, count)) < noise.preparation).astype(np.uint8)
        errors: list[tuple[npt.NDArray[np.int64], tuple[Bits, ...]]] = []
        for width in widths:
            if width in of_width:
                affected, on_last, on_first = next(of_width[width])
                errors.append((affected, (on_last,) if width == 1 else (on_first, on_last)))
            else:
                errors.append((np.empty(0, np.int64), ()))
        return cls(flips, tuple(errors))

    @property
    def count(self) -> int:
        """The number of trajectories."""
        return len(self.flips[0])

    def signs(self, circuit: Circuit, words: Sequence[PauliWord]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Return the signs of the lowered rotations, shape (count, rotations), and of words, shape (count, words)."""
        frames = _Frames(self.flips)
        steps, last = _steps(circuit)
        signs = np.empty((len(program_of(circuit).lowered[0]), self.count), np.int8)
        row = 0
        for step, (affected, codes) in zip(steps, self.of_gates, strict=True):
            for word in step.words:
                signs[row] = 1 - 2 * frames.anticommutes(word).astype(np.int8)
                row += 1
            for (x, z), code in zip(step.images, codes, strict=False):
                frames.multiply(x, affected[code & 1 == 1])
                frames.multiply(z, affected[code & 2 == 2])
        of_words = [1 - 2 * frames.anticommutes(last.image(word)).astype(np.int8) for word in words]
        return np.ascontiguousarray(signs.T), np.array(of_words, np.int8).reshape(len(words), self.count).T

    def as_gates(self, batch: CircuitBatch) -> CircuitBatch:
        """Return the batch, a sample for each trajectory, with the errors as gates by additional inputs."""
        circuit = _circuit_with_errors(batch.circuit)
        bits = np.zeros((circuit.n_inputs - batch.circuit.n_inputs, self.count), np.uint8)
        bits[: len(self.flips)] = self.flips
        row = len(self.flips)
        for gate, (affected, codes) in zip(batch.circuit.gates, self.of_gates, strict=True):
            for place, code in enumerate(codes):
                bits[row + 2 * place, affected], bits[row + 2 * place + 1, affected] = code & 1, code >> 1
            row += 2 * len(gate.qubits)
        errors = torch.pi * torch.from_numpy(np.ascontiguousarray(bits.T)).to(batch.weights)
        inputs = errors if batch.inputs is None else torch.cat([batch.inputs, errors], dim=1)
        return CircuitBatch(circuit, batch.weights, inputs, batch.initial)


def gate_error_probabilities(noise: NoiseConfig) -> dict[int, npt.NDArray[np.float64]]:
    """Return the probability of each error behind gates on one and on two qubits, by the number of qubits.

    The index is the Pauli matrix (1 X, 2 Z, 3 Y) on the last qubit of the gate, plus 4 times that on the first of two.

    Raises:
        ConfigError: The noise is not a mixture of Paulis.
    """
    single = np.array(noise.after_rotation.pauli_probabilities())
    local = np.array(noise.after_cnot.pauli_probabilities())
    depolarized = np.full(16, noise.depolarizing_2q / 16)
    depolarized[0] += 1 - noise.depolarizing_2q
    return {1: single, 2: _compose(depolarized, np.kron(local, local))}


def _compose(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distribution of the product of two Paulis, numbered so that a product is the exclusive or."""
    numbers = np.arange(len(first))
    return np.array([first @ second[numbers ^ product] for product in numbers])


def sample_gate_errors(
    gates: int, probabilities: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.int64], Bits, Bits]]:
    """Yield for each gate the trajectories with an error after it, and the Paulis on its last and its first qubit.

    Paulis are 1 X, 2 Z and 3 Y, and `probabilities` those of `gate_error_probabilities`.
    """
    hits = _sample_successes(gates * count, 1 - probabilities[0], rng)
    shares = np.cumsum(probabilities[1:])
    codes = (1 + np.searchsorted(shares[:-1], shares[-1] * rng.random(len(hits)), side="right")).astype(np.uint8)
    on_last, on_first, affected = codes & 3, codes >> 2, hits % count
    ends = np.searchsorted(hits, count * np.arange(gates + 1)).tolist()
    for start, end in pairwise(ends):
        yield affected[start:end], on_last[start:end], on_first[start:end]


def _sample_successes(trials: int, probability: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the indices of successful trials, ascending, from their geometric gaps, so that rare ones cost little."""
    if probability <= 0 or not trials:
        return np.empty(0, np.int64)
    chunks = [np.empty(0, np.int64)]
    last = -1
    while last < trials:
        expected = (trials - last) * probability
        gaps = rng.geometric(probability, size=int(expected + 5 * expected**0.5) + 10).clip(max=trials + 1)
        chunks.append(last + np.cumsum(gaps))
        last = int(chunks[-1][-1])
    indices = np.concatenate(chunks)
    return indices[indices < trials]


@dataclass(frozen=True)
class _Step:
    """A gate in the kernel: the words of its rotations, and those of X and Z on each of its qubits behind it."""

    words: tuple[PauliWord, ...]
    images: tuple[tuple[PauliWord, PauliWord], ...]


@cached_on_circuit
def _steps(circuit: Circuit) -> tuple[tuple[_Step, ...], Frame]:
    """Return the steps of all gates, and the frame behind the last."""
    program, frame, steps, first = program_of(circuit), Frame(circuit.n_qubits), [], 0
    for gate in circuit.gates:
        last = first + len(lower_gate(gate))
        words = tuple(rotation.word for rotation in program.lower(program.operations[first:last], frame))
        images = tuple(
            (frame.image(PauliWord(bit, 0)), frame.image(PauliWord(0, bit)))
            for bit in (1 << (circuit.n_qubits - 1 - qubit) for qubit in gate.qubits)
        )
        steps.append(_Step(words, images))
        first = last
    return tuple(steps), frame


@cached_on_circuit
def _circuit_with_errors(circuit: Circuit) -> Circuit:
    """Return the circuit with RX at the start, and RX and RZ behind each gate, on its qubits by additional inputs."""
    n_inputs = circuit.n_inputs
    gates = []
    for qubit in range(circuit.n_qubits):
        gates.append(Gate("rx", (qubit,), (Angle("input", n_inputs),)))
        n_inputs += 1
    for gate in circuit.gates:
        gates.append(gate)
        for qubit in gate.qubits:
            for name in ("rx", "rz"):
                gates.append(Gate(name, (qubit,), (Angle("input", n_inputs),)))
                n_inputs += 1
    return Circuit(circuit.n_qubits, tuple(gates), circuit.n_weights, n_inputs)


class _Frames:
    """A product of Paulis for each trajectory, as bits of X and of Z of each bit of an amplitude's index."""

    def __init__(self, flips: Bits) -> None:
        self._x = flips[::-1].copy()  # bit 0 of the index is the last qubit
        self._z = np.zeros_like(self._x)

    def multiply(self, word: PauliWord, trajectories: npt.NDArray[np.int64]) -> None:
        """Multiply the products of some trajectories by a word."""
        for frame, mask in ((self._x, word.x), (self._z, word.z)):
            for bit in _bits(mask):
                frame[bit, trajectories] ^= 1

    def anticommutes(self, word: PauliWord) -> Bits:
        """Return 1 for each trajectory whose product anticommutes with the word."""
        total = np.zeros(self._x.shape[1], np.uint8)
        for frame, mask in ((self._x, word.z), (self._z, word.x)):
            for bit in _bits(mask):
                total ^= frame[bit]
        return total


def _bits(mask: int) -> Iterator[int]:
    """Yield the set bits of a mask, the lowest first."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def masked_words(words: Sequence[tuple[str, tuple[int, ...]]], n_qubits: int) -> tuple[PauliWord, ...]:
    """Return words of letters and qubits as masks."""
    return tuple(PauliWord(*word_masks(word, qubits, n_qubits)) for word, qubits in words)
