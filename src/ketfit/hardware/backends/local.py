"""The local simulator behind the seam: exact or noisy distributions of our own engine, and shots from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ketfit.hardware.backends.base import (
    BoundCircuit,
    Counts,
    Description,
    GateCounts,
    Limits,
    Scalar,
    check_range,
    check_submission,
)
from ketfit.hardware.backends.job_store import LocalJobStore
from ketfit.integers import as_integer
from ketfit.rng import torch_stream
from ketfit.simulate.density_matrix import MAX_QUBITS
from ketfit.simulate.expectation import MeasurementContext, check_noise
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import MAX_SHOTS, sample_outcomes

MAX_CIRCUITS = 500
"""Circuits of one job, if no other number is given."""


class Simulator(LocalJobStore):
    """A backend on this machine. A job is done as soon as it is submitted.

    Args:
        folder: Where jobs are kept; made if it is missing.
        noise: Of every gate and readout; None is none.
        trajectories: As in `ketfit.expectation`; None is the exact density matrix.
        seed: Source of shots and trajectories; the n-th job of a folder has a stream of its own.
        name: What it is called.
        device: The file of prices and times it is taken to have; None costs nothing.
        max_circuits: Of one job, at least 2: one of them is the canary.

    Raises:
        ConfigError: noise, trajectories, the seed or `max_circuits` are not what they may be.
    """

    def __init__(
        self,
        folder: Path,
        noise: NoiseConfig | None = None,
        trajectories: int | None = None,
        seed: int = 0,
        name: str = "simulator",
        device: str | None = None,
        max_circuits: int = MAX_CIRCUITS,
    ) -> None:
        super().__init__(folder)
        if trajectories is not None:
            trajectories = as_integer(trajectories, "trajectories", minimum=1, hint="None is the exact density matrix")
        check_noise(noise, trajectories, "auto")
        seed = as_integer(seed, "seed", minimum=0)
        max_circuits = check_range(max_circuits, "max_circuits", 2, None, "a job, which has a canary besides,")
        self.noise, self.trajectories, self.seed = noise, trajectories, seed
        exactly = noise is not None and not noise.is_gate_noiseless and trajectories is None
        options: dict[str, Scalar] = {"seed": seed}
        if noise is not None:
            options["noise"] = json.dumps(noise.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        if trajectories is not None:
            options["trajectories"] = trajectories
        self._description = Description(
            name=name,
            options=options,
            limits=Limits(
                qubits=MAX_QUBITS if exactly else None, circuits=max_circuits, shots=MAX_SHOTS, measured=MAX_JOINT
            ),
            device=device,
            listing_delay_s=0.0,
            keeps_gates=True,
            keeps_qubits=True,
        )

    def describe(self) -> Description:
        """What it is."""
        return self._description

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """The gates as they are written: nothing is transpiled."""
        counted = (bound.circuit.gate_counts() for bound in circuits)
        return [GateCounts(counts["ry"], counts["cx"]) for counts in counted]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Run a job and keep its counts."""
        shots = check_submission(self._description, circuits, shots, tag)
        number = self.next_number()
        return self.keep(number, tag, shots, sample(circuits, shots, self.seed, number, self.noise, self.trajectories))


def sample(
    circuits: Sequence[BoundCircuit],
    shots: int,
    seed: int,
    number: int,
    noise: NoiseConfig | None = None,
    trajectories: int | None = None,
) -> list[Counts]:
    """Counts of each circuit, drawn from the distribution of our own engine.

    Args:
        circuits: What to run.
        shots: Of each.
        seed: With `number`, the source of chance.
        number: Of the job.
        noise: As in `ketfit.expectation`, and so are `trajectories`.
    """
    found: dict[int, Counts] = {}
    generator = torch_stream(seed, "shots", number)
    for places, distribution in _groups(circuits, noise, trajectories, generator):
        width = len(circuits[places[0]].measured)
        for place, row in zip(places, sample_outcomes(distribution, shots, generator).long().tolist(), strict=True):
            found[place] = {f"{reading:0{width}b}": count for reading, count in enumerate(row) if count}
    return [found[place] for place in range(len(circuits))]


def exact_distributions(circuits: Sequence[BoundCircuit], noise: NoiseConfig | None = None) -> list[list[float]]:
    """The probability of each reading of each circuit, the first measured qubit the highest bit."""
    found: dict[int, list[float]] = {}
    for places, distribution in _groups(circuits, noise, None, None):
        found |= dict(zip(places, distribution.tolist(), strict=True))
    return [found[place] for place in range(len(circuits))]


@torch.no_grad()
def _groups(
    circuits: Sequence[BoundCircuit],
    noise: NoiseConfig | None,
    trajectories: int | None,
    generator: torch.Generator | None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Places of circuits that differ in their inputs alone, which run together, and their distributions."""
    groups: dict[Any, list[int]] = {}
    for place, bound in enumerate(circuits):
        groups.setdefault((bound.circuit, bound.weights, bound.measured), []).append(place)
    for (circuit, weights, measured), places in groups.items():
        rows = torch.tensor([circuits[place].inputs for place in places], dtype=torch.float64)
        device = MeasurementContext(measured, noise, trajectories, generator)
        angles = torch.tensor(weights, dtype=torch.float64)
        inputs = rows if circuit.n_inputs else None
        distribution = device.distribution(circuit, angles, inputs, None, len(places) if circuit.n_inputs else 1)
        yield places, distribution.expand(len(places), -1)
