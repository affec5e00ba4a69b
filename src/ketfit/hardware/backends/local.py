"""The local simulator as a backend: exact or noisy distributions of KetFit's engine, and shots from a seed."""

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
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.density_matrix import MAX_QUBITS
from ketfit.simulate.expectation import check_noise
from ketfit.simulate.measurement import MeasurementContext
from ketfit.simulate.native import MAX_JOINT
from ketfit.simulate.noise import NoiseConfig
from ketfit.simulate.shots import MAX_SHOTS, sample_outcomes

MAX_CIRCUITS = 500
"""Default number of circuits per job."""


class Simulator(LocalJobStore):
    """A backend on this machine. A job is done as soon as it is submitted.

    Args:
        folder: Folder of the job files; created if it is missing.
        noise: Noise of every gate and readout; None simulates without noise.
        trajectories: As in `ketfit.expectation`; None is the exact density matrix.
        seed: Seed of shots and trajectories; the n-th job of a folder has a stream of its own.
        name: Name of the backend.
        device: Device whose prices and times are assumed; None costs nothing.
        max_circuits: Circuits per job, at least 2: one of them is the canary.

    Raises:
        ConfigError: The noise, the trajectories, the seed or `max_circuits` are invalid.
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
        is_exact = noise is not None and not noise.is_gate_noiseless and trajectories is None
        options: dict[str, Scalar] = {"seed": seed}
        if noise is not None:
            options["noise"] = json.dumps(noise.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        if trajectories is not None:
            options["trajectories"] = trajectories
        self._description = Description(
            name=name,
            options=options,
            limits=Limits(
                qubits=MAX_QUBITS if is_exact else None, circuits=max_circuits, shots=MAX_SHOTS, measured=MAX_JOINT
            ),
            device=device,
            listing_delay_s=0.0,
            keeps_gates=True,
            keeps_qubits=True,
            is_local=True,
        )

    def count_gates(self, circuits: Sequence[BoundCircuit]) -> list[GateCounts]:
        """Return the gates as they are written; nothing is transpiled."""
        widths = [[len(gate.qubits) for gate in bound.circuit.gates] for bound in circuits]
        return [GateCounts(each.count(1), len(each) - each.count(0) - each.count(1)) for each in widths]

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        """Run a job, store its counts and return its id."""
        shots, number = check_submission(self._description, circuits, shots, tag), self.next_number()
        counts: dict[int, Counts] = {}
        generator = torch_stream(self.seed, "shots", number)
        for indices, distribution in _grouped_distributions(circuits, self.noise, self.trajectories, generator):
            width = len(circuits[indices[0]].measured)
            sampled = sample_outcomes(distribution, shots, generator).long().tolist()
            for index, row in zip(indices, sampled, strict=True):
                counts[index] = {f"{outcome:0{width}b}": count for outcome, count in enumerate(row) if count}
        return self.save(number, tag, shots, [counts[index] for index in range(len(circuits))])


def exact_distributions(circuits: Sequence[BoundCircuit]) -> list[list[float]]:
    """Return the noiseless probability of each outcome of each circuit; its highest bit is the first measured qubit."""
    distributions: dict[int, list[float]] = {}
    for indices, distribution in _grouped_distributions(circuits, None, None, None):
        distributions |= dict(zip(indices, distribution.tolist(), strict=True))
    return [distributions[index] for index in range(len(circuits))]


@torch.no_grad()
def _grouped_distributions(
    circuits: Sequence[BoundCircuit],
    noise: NoiseConfig | None,
    trajectories: int | None,
    generator: torch.Generator | None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield the indices of circuits that differ only in their inputs, which run together, and their distributions."""
    groups: dict[Any, list[int]] = {}
    for index, bound in enumerate(circuits):
        groups.setdefault((bound.circuit, bound.weights, bound.measured), []).append(index)
    for (circuit, weights, measured), indices in groups.items():
        rows = torch.tensor([circuits[index].inputs for index in indices], dtype=torch.float64)
        context = MeasurementContext(measured, noise, trajectories, generator)
        angles = torch.tensor(weights, dtype=torch.float64)
        distribution = context.distribution(CircuitBatch(circuit, angles, rows if circuit.n_inputs else None))
        yield indices, distribution.expand(len(indices), -1)
