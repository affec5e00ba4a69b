"""Noise by Pauli trajectories: each is the noiseless circuit with the signs of some rotations flipped.

An error that strikes somewhere can be moved to the end of the circuit: RY(t) X = X RY(-t) and RY(t) Z = Z RY(-t), Y
commutes with RY, and a CNOT turns a Pauli into a Pauli. So a trajectory is known by the Pauli it has collected at each
gate (a Pauli frame, as in stabiliser simulation): the rotations it reverses, and the measured bits it flips at the end.
No error ever acts on a state, and the adjoint method differentiates a trajectory as it does the noiseless circuit.
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
from ketfit.errors import InputError, InsufficientMemoryError
from ketfit.integers import as_integer
from ketfit.memory import memory_shortage
from ketfit.simulate.noise import NoiseConfig, noisy_light_cone
from ketfit.simulate.statevector import Engine, check_tensors, statevector_expectation


@dataclass(frozen=True)
class Estimate:
    """A mean over trajectories, shape (batch, columns), and its standard error, of the same shape."""

    mean: Tensor
    standard_error: Tensor


def trajectory_expectation(
    circuit: Circuit,
    measured: tuple[int, ...],
    weights: Tensor,
    inputs: Tensor | None,
    initial: Tensor | None,
    batch: int,
    noise: NoiseConfig,
    trajectories: int,
    *,
    joint: bool = False,
    generator: torch.Generator | None = None,
    engine: Engine = "auto",
) -> Estimate:
    """<Z> of the measured qubits, or their joint distribution, under gate and preparation noise.

    Each sample has `trajectories` trajectories of its own. Unbiased; differentiable in all three tensors, where the
    gradient is that of the very trajectories that were drawn. The arguments are those of `ketfit.expectation`.

    Raises:
        CircuitError: a qubit is out of range, not an integer, or named twice.
        ConfigError: the noise is no mixture of Paulis, or `batch` or `trajectories` is no such number.
        InputError: a tensor does not fit the circuit or the batch.
        InsufficientMemoryError: so many trajectories do not fit into the memory that is free.
    """
    batch = as_integer(batch, "batch", minimum=0)
    trajectories = as_integer(trajectories, "trajectories", minimum=1)
    measured = circuit.check_qubits(measured, "measured")
    if check_tensors(circuit, weights, inputs, initial) != batch and (inputs is not None or initial is not None):
        raise InputError(f"batch={batch} is not the batch of the inputs or of the initial amplitudes")
    cone = noisy_light_cone(circuit, measured)
    _check_memory(cone, batch * trajectories, weights, initial is not None)
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device if generator else "cpu"))
    signs, flips = draw_frames(cone, measured, noise, batch * trajectories, np.random.default_rng(seed))
    values = statevector_expectation(
        cone,
        measured,
        weights,
        None if inputs is None else inputs.repeat_interleave(trajectories, 0),
        None if initial is None else initial.repeat_interleave(trajectories, 0),
        batch * trajectories,
        signs=torch.from_numpy(signs).to(weights.device),
        joint=joint,
        engine=engine,
    )
    flipped = torch.from_numpy(flips).to(weights.device)
    if joint:
        places = 2 ** torch.arange(len(measured) - 1, -1, -1, device=weights.device)
        read = (flipped * places).sum(dim=1, keepdim=True) ^ torch.arange(2 ** len(measured), device=weights.device)
        values = values.gather(1, read)
    else:
        values = torch.where(flipped, -values, values)
    values = values.view(batch, trajectories, values.shape[1])
    mean = values.mean(dim=1)
    error = torch.full_like(mean, torch.inf)
    if trajectories > 1:
        with torch.no_grad():
            error = ((values - mean[:, None]).square().mean(dim=1) / (trajectories - 1)).sqrt()
    return Estimate(mean, error)


def _check_memory(circuit: Circuit, rows: int, weights: Tensor, given_initial: bool) -> None:
    """Refuse what does not fit before any of it is drawn."""
    numbers = circuit.n_inputs + (2**circuit.n_qubits if given_initial else 0)
    needed = rows * (9 * circuit.n_qubits + 3 * len(circuit.gates) + numbers * weights.element_size())
    if (free := memory_shortage(needed)) is not None:
        raise InsufficientMemoryError(
            f"{rows:,} trajectories in all need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free; "
            "use fewer, or a smaller batch"
        )


def draw_frames(
    circuit: Circuit, measured: Sequence[int], noise: NoiseConfig, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Which rotations `count` trajectories reverse and which measured bits they flip.

    Returns:
        +1 or -1 for each rotation, shape (count, rotations); and whether each measured bit flips, (count, measured).

    Raises:
        CircuitError: a qubit is out of range, not an integer, or named twice.
        ConfigError: `count` is not an integer, or negative.
    """
    measured, count = circuit.check_qubits(measured, "measured"), as_integer(count, "count", minimum=0)
    single = np.array(noise.after_rotation.pauli_probabilities())
    local = np.array(noise.after_cnot.pauli_probabilities())
    depolarized = np.full(16, noise.depolarizing_2q / 16)
    depolarized[0] += 1 - noise.depolarizing_2q
    both = _compose(depolarized, np.kron(local, local))  # control, target
    rotations = circuit.gate_counts()["ry"]
    errors = {
        "ry": _draw_errors(rotations, single, count, rng),
        "cx": _draw_errors(len(circuit.gates) - rotations, both, count, rng),
    }
    # Of each qubit one array, in which bit 0 is its X and bit 1 its Z.
    frames = list((rng.random((circuit.n_qubits, count)) < noise.preparation).astype(np.uint8))
    at_rotation = np.empty((rotations, count), np.uint8)
    rotation = 0
    for gate in circuit.gates:
        target = frames[gate.target]
        struck, on_target, on_control = next(errors[gate.name])
        if gate.control is None:
            at_rotation[rotation] = target
            rotation += 1
        else:
            control = frames[gate.control]
            target ^= control & 1
            control ^= target & 2
            control[struck] ^= on_control
        target[struck] ^= on_target
    reverses = np.array([1, -1, -1, 1], np.int8)  # X and Z do, Y does not
    flips = np.array([frames[qubit] for qubit in measured]) & 1 == 1
    return np.ascontiguousarray(reverses.take(at_rotation).T), np.ascontiguousarray(flips.T)


def _compose(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The distribution of the product of two Paulis, numbered so that a product is the exclusive or."""
    numbers = np.arange(len(first))
    return np.array([first @ second[numbers ^ product] for product in numbers])


def _draw_errors(
    gates: int, probabilities: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """For each gate: the trajectories that an error strikes behind it, and of each the Pauli on target and control.

    Paulis are 1 X, 2 Z and 3 Y; `probabilities` are of 4 times the control's plus the target's.
    """
    places = _draw_places(gates * count, 1 - probabilities[0], rng)
    shares = np.cumsum(probabilities[1:])
    codes = (1 + np.searchsorted(shares[:-1], shares[-1] * rng.random(len(places)), side="right")).astype(np.uint8)
    on_target, on_control, struck = codes & 3, codes >> 2, places % count
    ends = np.searchsorted(places, count * np.arange(gates + 1)).tolist()
    for start, end in pairwise(ends):
        yield struck[start:end], on_target[start:end], on_control[start:end]


def _draw_places(trials: int, probability: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of so many trials succeed, ascending: by the geometric gaps between them, so that rare ones cost little."""
    if probability <= 0 or not trials:
        return np.empty(0, np.int64)
    found = [np.empty(0, np.int64)]
    last = -1
    while last < trials:
        expected = (trials - last) * probability
        gaps = rng.geometric(probability, size=int(expected + 5 * expected**0.5) + 10).clip(max=trials + 1)
        found.append(last + np.cumsum(gaps))
        last = int(found[-1][-1])
    places = np.concatenate(found)
    return places[places < trials]
