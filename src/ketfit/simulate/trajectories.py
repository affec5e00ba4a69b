"""Simulation of noise by Pauli trajectories: noiseless circuits with the signs of some rotations flipped.

An error anywhere in the circuit can be moved to its end: RY(t) X = X RY(-t) and RY(t) Z = Z RY(-t), Y commutes with
RY, and a CNOT maps Paulis to Paulis. So a trajectory is described by the product of Paulis at each gate (a Pauli frame,
as in stabiliser simulation): the rotations that it negates, and the measured bits that it flips at the end. No error is
applied to a state, and the adjoint method differentiates a trajectory like the noiseless circuit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ketfit.circuit.circuit import Circuit
from ketfit.errors import InsufficientMemoryError
from ketfit.integers import as_integer
from ketfit.memory import memory_shortage
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.noise import NoiseConfig, noisy_light_cone
from ketfit.simulate.statevector import Engine, statevector_expectation


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
) -> Estimate:
    """Estimate <Z> of the measured qubits, or their joint distribution, under gate and preparation noise.

    Each sample has `trajectories` trajectories of its own. The estimate is unbiased and differentiable in all three
    tensors, with the gradient of the sampled trajectories. The other arguments are those of `ketfit.expectation`.

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice, or a gate is neither RY by a weight or
            input nor CNOT.
        ConfigError: The noise is not a mixture of Paulis, or `trajectories` is not a valid number.
        InputError: A number is not finite.
        InsufficientMemoryError: The trajectories do not fit into the free memory.
    """
    trajectories = as_integer(trajectories, "trajectories", minimum=1)
    measured = batch.circuit.check_qubits(measured, "measured")
    batch.check_ry_cx("a simulation by trajectories")
    cone = batch.with_circuit(noisy_light_cone(batch.circuit, measured))
    _check_memory(cone, trajectories)
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device if generator else "cpu"))
    rng = np.random.default_rng(seed)
    signs, flips = sample_frames(cone.circuit, measured, noise, batch.size * trajectories, rng)
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
        powers = 2 ** torch.arange(len(measured) - 1, -1, -1, device=device)
        sources = (flipped * powers).sum(dim=1, keepdim=True) ^ torch.arange(2 ** len(measured), device=device)
        values = values.gather(1, sources)
    else:
        values = torch.where(flipped, -values, values)
    values = values.view(batch.size, trajectories, values.shape[1])
    mean = values.mean(dim=1)
    error = torch.full_like(mean, torch.inf)
    if trajectories > 1:
        with torch.no_grad():
            error = ((values - mean[:, None]).square().mean(dim=1) / (trajectories - 1)).sqrt()
    return Estimate(mean, error)


def _check_memory(batch: CircuitBatch, trajectories: int) -> None:
    """Raise an error, before anything is sampled, if the trajectories do not fit into the free memory."""
    circuit, rows = batch.circuit, batch.size * trajectories
    numbers = circuit.n_inputs + (2**circuit.n_qubits if batch.initial is not None else 0)
    needed = rows * (9 * circuit.n_qubits + 3 * len(circuit.gates) + numbers * batch.weights.element_size())
    if (free := memory_shortage(needed)) is not None:
        raise InsufficientMemoryError(
            f"{rows:,} trajectories in all need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free; "
            "use fewer, or a smaller batch"
        )


def sample_frames(
    circuit: Circuit, measured: Sequence[int], noise: NoiseConfig, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Sample the rotations that `count` trajectories negate and the measured bits that they flip.

    Returns:
        +1 or -1 for each rotation, shape (count, rotations); and True for each flipped bit, shape (count, measured).

    Raises:
        CircuitError: A qubit is out of range, not an integer, or named twice.
        ConfigError: The count is not an integer, or negative.
    """
    measured, count = circuit.check_qubits(measured, "measured"), as_integer(count, "count", minimum=0)
    circuit.check_ry_cx("a simulation by trajectories")
    single = np.array(noise.after_rotation.pauli_probabilities())
    local = np.array(noise.after_cnot.pauli_probabilities())
    depolarized = np.full(16, noise.depolarizing_2q / 16)
    depolarized[0] += 1 - noise.depolarizing_2q
    two_qubit = _compose(depolarized, np.kron(local, local))  # control, target
    rotations = circuit.gate_counts()["ry"]
    errors = {
        "ry": _sample_errors(rotations, single, count, rng),
        "cx": _sample_errors(len(circuit.gates) - rotations, two_qubit, count, rng),
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


def _compose(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distribution of the product of two Paulis, numbered so that a product is the exclusive or."""
    numbers = np.arange(len(first))
    return np.array([first @ second[numbers ^ product] for product in numbers])


def _sample_errors(
    gates: int, probabilities: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Yield for each gate the trajectories with an error after it, and the Paulis on the target and the control.

    Paulis are 1 X, 2 Z and 3 Y; the index of `probabilities` is 4 times the control's Pauli plus the target's.
    """
    hits = _sample_successes(gates * count, 1 - probabilities[0], rng)
    shares = np.cumsum(probabilities[1:])
    codes = (1 + np.searchsorted(shares[:-1], shares[-1] * rng.random(len(hits)), side="right")).astype(np.uint8)
    on_target, on_control, affected = codes & 3, codes >> 2, hits % count
    ends = np.searchsorted(hits, count * np.arange(gates + 1)).tolist()
    for start, end in pairwise(ends):
        yield affected[start:end], on_target[start:end], on_control[start:end]


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
