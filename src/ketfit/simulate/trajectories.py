"""Simulation of noise by Pauli trajectories: noiseless circuits with the signs of some rotations flipped.

An error anywhere in the circuit can be moved to its end: RY(t) X = X RY(-t) and RY(t) Z = Z RY(-t), Y commutes with
RY, and a CNOT maps Paulis to Paulis. So a trajectory is described by the product of Paulis at each gate (a Pauli frame,
as in stabiliser simulation): the rotations that it negates, and the measured bits that it flips at the end. No error is
applied to a state, and the adjoint method differentiates a trajectory like the noiseless circuit. These are the rules
of RY and CNOT; `ketfit.simulate.pauli_errors` has those of all gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.circuit.gate import GATES
from ketfit.circuit.observable import PauliSum
from ketfit.errors import InsufficientMemoryError
from ketfit.integers import as_integer
from ketfit.memory import memory_shortage
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.complex_statevector import ProgramBatch, as_complex, expect_words, simulate
from ketfit.simulate.density_matrix import Word
from ketfit.simulate.evolution import apply_matrix, evolve
from ketfit.simulate.lowered_program import program_of
from ketfit.simulate.native import check_joint
from ketfit.simulate.noise import NoiseConfig, noisy_light_cone
from ketfit.simulate.pauli_errors import (
    PauliErrors,
    gate_error_probabilities,
    masked_words,
    sample_gate_errors,
)
from ketfit.simulate.readout import BASIS_CHANGES, apply_shifted_sum, inner_product, joint_distribution
from ketfit.simulate.readout_error import ShiftedPauliSum
from ketfit.simulate.statevector import Engine, observable_expectation, runs_native, statevector_expectation


@dataclass(frozen=True)
class Estimate:
    """A mean over trajectories, shape (batch, columns), and its standard error, of the same shape."""

    mean: Tensor
    standard_error: Tensor


def trajectory_expectation(
    batch: CircuitBatch,
    measured: Sequence[int],
    noise: NoiseConfig,
    trajectories: int,
    *,
    joint: bool = False,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
    basis: str = "",
) -> Estimate:
    """Estimate <Z> of the measured qubits, or their joint distribution, under gate and preparation noise.

    Each sample has `trajectories` trajectories of its own. The estimate is unbiased and differentiable in all three
    tensors, with the gradient of the sampled trajectories. `basis` has a letter X, Y or Z for each measured qubit to
    measure in place of Z. The other arguments are those of `ketfit.expectation`.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        ConfigError: The noise is not a mixture of Paulis, `trajectories` is not a valid number, or the engine is the
            distributed one, which has no noise.
        InputError: A number is not finite.
        InsufficientMemoryError: The trajectories do not fit into the free memory.
    """
    noise.check_engine(engine)
    measured = batch.circuit.check_qubits(measured, "measured")
    basis = basis or "Z" * len(measured)
    if not batch.is_ry_cx or set(basis) != {"Z"}:
        words = [(letter, (qubit,)) for letter, qubit in zip(basis, measured, strict=True)]
        if not joint:
            return trajectory_words(batch, words, noise, trajectories, generator=generator, engine=engine)
        check_joint(measured, joint)
        run = _Run.sample(batch, words, noise, trajectories, generator, engine, joint)
        values, flipped = run.distribution(measured, basis), run.signs < 0
    else:
        trajectories = as_integer(trajectories, "trajectories", minimum=1)
        cone = batch.with_circuit(noisy_light_cone(batch.circuit, measured))
        _check_memory(cone, trajectories)
        signs, flips = sample_frames(cone.circuit, measured, noise, batch.size * trajectories, _rng(generator))
        device = batch.weights.device
        values = statevector_expectation(
            cone.repeat_samples(trajectories),
            measured,
            signs=torch.from_numpy(signs).to(device),
            joint=joint,
            engine=engine,
        )
        flipped = torch.from_numpy(flips).to(device)
    if joint:
        powers = 2 ** torch.arange(len(measured) - 1, -1, -1, device=values.device)
        outcomes = torch.arange(2 ** len(measured), device=values.device)
        values = values.gather(1, (flipped * powers).sum(dim=1, keepdim=True) ^ outcomes)
    else:
        values = torch.where(flipped, -values, values)
    return _estimate(values, batch.size, trajectories)


def trajectory_words(
    batch: CircuitBatch,
    words: Sequence[Word],
    noise: NoiseConfig,
    trajectories: int,
    *,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Estimate:
    """Estimate the mean of each Pauli word, pairs of letters and qubits, under gate and preparation noise.

    Arguments and errors are those of `trajectory_expectation`.
    """
    noise.check_engine(engine)
    run = _Run.sample(batch, words, noise, trajectories, generator, engine)
    return _estimate(run.means(words) * run.signs, batch.size, trajectories)


def trajectory_products(
    batch: CircuitBatch,
    observables: Sequence[ShiftedPauliSum],
    noise: NoiseConfig,
    trajectories: int,
    *,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Estimate:
    """Estimate the mean of each sum of products of (offset + slope P), under gate and preparation noise.

    The final states of all trajectories are stored, and the products applied to them letter by letter. Arguments and
    errors are those of `trajectory_expectation`.
    """
    noise.check_engine(engine)
    letters = tuple({each: None for observable in observables for each in observable.letters})
    words = [(letter, (qubit,)) for letter, qubit in letters]
    run = _Run.sample(batch, words, noise, trajectories, generator, engine, joint=True)
    state, signs = run.final_state(), dict(zip(letters, run.signs.unbind(dim=1), strict=True))
    values = [inner_product(state, apply_shifted_sum(state, each, signs)) for each in observables]
    return _estimate(torch.stack(values, dim=1), batch.size, trajectories)


def _estimate(values: Tensor, size: int, trajectories: int) -> Estimate:
    values = values.view(size, trajectories, values.shape[1])
    mean = values.mean(dim=1)
    error = torch.full_like(mean, torch.inf)
    if trajectories > 1:
        with torch.no_grad():
            error = ((values - mean[:, None]).square().mean(dim=1) / (trajectories - 1)).sqrt()
    return Estimate(mean, error)


def _rng(generator: torch.Generator | None) -> np.random.Generator:
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device if generator else "cpu"))
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class _Run:
    """The trajectories of a circuit of any gates, which are samples of a batch.

    Attributes:
        batch: A sample for each trajectory; in torch, the errors are gates of the circuit.
        rotation_signs: In the kernel, the signs of the lowered rotations, shape (trajectories, rotations).
        signs: What the errors multiply the means of the words by, shape (trajectories, words).
    """

    batch: CircuitBatch
    rotation_signs: Tensor | None
    signs: Tensor

    @classmethod
    def sample(
        cls,
        batch: CircuitBatch,
        words: Sequence[Word],
        noise: NoiseConfig,
        trajectories: int,
        generator: torch.Generator | None,
        engine: Engine,
        joint: bool = False,
    ) -> _Run:
        """Return trajectories with sampled errors for the light cone of the words, or of their joint distribution."""
        trajectories = as_integer(trajectories, "trajectories", minimum=1)
        batch.check_finite()
        support = {qubit for _, qubits in words for qubit in qubits}
        cone = batch.with_circuit(noisy_light_cone(noise.decomposed(batch.circuit), support))
        native = runs_native(engine, batch.weights)
        gates = cone.circuit.gates
        angles = 0 if native else cone.circuit.n_qubits + 2 * sum(len(gate.qubits) for gate in gates)
        stored = batch.is_differentiated or joint or not native
        _check_memory(cone, trajectories, stored=stored, error_angles=angles)
        repeated = cone.repeat_samples(trajectories)
        errors = PauliErrors.sample(cone.circuit, noise, repeated.size, _rng(generator))
        if not native:
            ones = batch.weights.new_ones(repeated.size, len(words))
            return cls(errors.as_gates(repeated), None, ones)
        rotation_signs, signs = errors.signs(cone.circuit, masked_words(words, cone.circuit.n_qubits))
        return cls(repeated, torch.from_numpy(rotation_signs), torch.from_numpy(signs).to(batch.weights.dtype))

    def means(self, words: Sequence[Word]) -> Tensor:
        """Return the mean of each word before the signs, shape (trajectories, words)."""
        if self.rotation_signs is None:
            sums = tuple(PauliSum(((1.0, *word),)) for word in words)
            return observable_expectation(self.batch, sums, "torch")
        return expect_words(self._program_batch, masked_words(words, self.batch.circuit.n_qubits))

    def final_state(self) -> Tensor:
        """Return the final states before the signs, shape (trajectories, 2**n_qubits)."""
        return as_complex(evolve(self.batch)) if self.rotation_signs is None else simulate(self._program_batch)

    def distribution(self, measured: tuple[int, ...], basis: str) -> Tensor:
        """Return the joint distribution of outcomes in a basis, before bits are flipped by the signs."""
        state = self.final_state()
        for qubit, letter in zip(measured, basis, strict=True):
            for name in BASIS_CHANGES[letter]:
                state = apply_matrix(state, np.array(GATES[name].matrix()), (qubit,))
        return joint_distribution(state, measured)

    @property
    def _program_batch(self) -> ProgramBatch:
        initial = None if self.batch.initial is None else as_complex(self.batch.initial)
        program = program_of(self.batch.circuit)
        return ProgramBatch(program, self.batch.weights, self.batch.inputs, initial, self.rotation_signs)


def _check_memory(batch: CircuitBatch, trajectories: int, stored: bool | None = None, error_angles: int = 0) -> None:
    """Raise an error, before anything is sampled, if the trajectories do not fit into the free memory.

    Args:
        batch: Circuit of one trajectory of each sample.
        trajectories: Number of trajectories.
        stored: True if the complex states of all trajectories are stored, and False if each thread has two; None counts
            no states, which the statevector engine checks.
        error_angles: Angles of gates that errors become in each trajectory; torch has each of them in about eight
            tensors, from the random bits to the cosines.
    """
    circuit, rows = batch.circuit, batch.size * trajectories
    states = 0 if stored is None else 4 * rows if stored else 2 * min(rows, torch.get_num_threads())
    numbers = (
        rows * (circuit.n_inputs + 8 * error_angles)
        + (2 * states + rows * (batch.initial is not None)) * 2**circuit.n_qubits
    )
    needed = rows * (9 * circuit.n_qubits + 3 * len(circuit.gates)) + numbers * batch.weights.element_size()
    if (free := memory_shortage(needed)) is not None:
        raise InsufficientMemoryError(
            f"{rows:,} trajectories in all need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free; "
            "use fewer, or a smaller batch"
        )


def sample_frames(
    circuit: Circuit, measured: Sequence[int], noise: NoiseConfig, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Sample the rotations that `count` trajectories negate and the measured bits that they flip.

    The rotations of circuits of RY by a weight or input and CNOT are these RY. Those of others are the Pauli rotations
    that the kernel runs: those of `program_of` the circuit in which noise has decomposed gates on three qubits.

    Returns:
        +1 or -1 for each rotation, shape (count, rotations); and True for each flipped bit, shape (count, measured).

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        ConfigError: The count is not an integer, or negative, or the noise is not a mixture of Paulis.
    """
    measured, count = circuit.check_qubits(measured, "measured"), as_integer(count, "count", minimum=0)
    if not circuit.is_ry_cx:
        circuit = noise.decomposed(circuit)
        words = masked_words([("Z", (qubit,)) for qubit in measured], circuit.n_qubits)
        rotation_signs, word_signs = PauliErrors.sample(circuit, noise, count, rng).signs(circuit, words)
        return rotation_signs, word_signs < 0
    probabilities = gate_error_probabilities(noise)
    rotations = circuit.gate_counts()["ry"]
    errors = {
        "ry": sample_gate_errors(rotations, probabilities[1], count, rng),
        "cx": sample_gate_errors(len(circuit.gates) - rotations, probabilities[2], count, rng),
    }
    # One array for each qubit, in which bit 0 is its X and bit 1 its Z.
    frames = list((rng.random((circuit.n_qubits, count)) < noise.preparation).astype(np.uint8))
    at_rotation = np.empty((rotations, count), np.uint8)
    rotation = 0
    for gate in circuit.gates:
        target = frames[gate.target]
        affected, on_target, on_control = next(errors[gate.name])
        if gate.control is None:
            at_rotation[rotation] = target
            rotation += 1
        else:
            control = frames[gate.control]
            target ^= control & 1
            control ^= target & 2
            control[affected] ^= on_control
        target[affected] ^= on_target
    signs = np.array([1, -1, -1, 1], np.int8)  # X and Z negate the angle, Y does not
    flips = np.array([frames[qubit] for qubit in measured]) & 1 == 1
    return np.ascontiguousarray(signs.take(at_rotation).T), np.ascontiguousarray(flips.T)
