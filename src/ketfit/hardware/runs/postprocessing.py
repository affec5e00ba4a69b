"""From counts to predictions: expectation values, mitigation, logits, labels, and intervals from the shots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.errors import ConfigError
from ketfit.hardware.backends.base import BoundCircuit, Counts
from ketfit.simulate.mitigation import extrapolation, fold_gates, mitigate_readout
from ketfit.simulate.noise import Confusion
from ketfit.simulate.shots import expectations, rotation_angles, rotations_as_inputs, sample_outcomes

Mitigation = Literal["readout", "zero_noise"]
FOLDS, DEGREE = (1, 3, 5), 2
RESAMPLES = 200


def checked_mitigation(names: Iterable[str]) -> tuple[Mitigation, ...]:
    """Names of mitigations, if all of them are.

    Raises:
        ConfigError: one is not.
    """
    given = set(names)
    if unknown := given - {"readout", "zero_noise"}:
        raise ConfigError(f"unknown mitigation {min(unknown)!r}; known are 'readout' and 'zero_noise'")
    return tuple(name for name in get_args(Mitigation) if name in given)


@dataclass(frozen=True)
class MeasurementPlan:
    """Which circuits stand for a batch of inputs, and how their counts become <Z>.

    Attributes:
        circuit: Of the QPU, all of it.
        measured: The qubits that are read.
        mitigation: "readout" sends two more circuits, which tell how each qubit is misread here and today, and undoes
            that. They follow the circuits of the run, to be read at the same physical qubits. "zero_noise" sends each
            circuit folded to one, three and five times its length, and extrapolates.
    """

    circuit: Circuit
    measured: tuple[int, ...]
    mitigation: tuple[Mitigation, ...] = ()

    def __post_init__(self) -> None:
        checked_mitigation(self.mitigation)

    @property
    def folds(self) -> tuple[int, ...]:
        """How long each circuit is run, in lengths of its own."""
        return FOLDS if "zero_noise" in self.mitigation else (1,)

    def circuits(self, weights: Sequence[float], inputs: Tensor) -> list[BoundCircuit]:
        """The circuits of every row of `inputs`, fold by fold, and at the end those of the readout.

        Gates that cannot reach the measured qubits are left out.
        """
        cone = self.circuit.light_cone(self.measured)
        rows = inputs.double().tolist()
        plain = [BoundCircuit(cone, tuple(weights), tuple(row), self.measured) for row in rows]
        bound = list(plain)
        if len(self.folds) > 1:
            single, columns = rotations_as_inputs(cone)
            angles = rotation_angles(columns, torch.tensor(list(weights)).double(), inputs.double(), len(rows))
            both = torch.cat([angles, -angles], dim=1).tolist()
            bound += [
                BoundCircuit(fold_gates(single, fold), (), tuple(row), self.measured, follows, fold)
                for fold in self.folds[1:]
                for row, follows in zip(both, plain, strict=True)
            ]
        return bound + (self._calibration(plain[0]) if "readout" in self.mitigation and plain else [])

    def _calibration(self, follows: BoundCircuit) -> list[BoundCircuit]:
        """The measured qubits at 0 and at 1. Both have the same gates, since many machines refuse an empty circuit."""
        turned = Circuit(self.circuit.n_qubits, tuple(ry(q, Angle("weight", 0)) for q in self.measured), 1, 0)
        return [BoundCircuit(turned, (angle,), (), self.measured, follows) for angle in (0.0, math.pi)]

    def distributions(self, counts: Sequence[Counts]) -> Tensor:
        """Frequencies of the readings, shape (circuits, 2**measured)."""
        table = torch.zeros(len(counts), 2 ** len(self.measured), dtype=torch.float64)
        for row, each in enumerate(counts):
            for reading, count in each.items():
                table[row, int(reading, 2)] = count
        return table / table.sum(dim=1, keepdim=True)

    def values(self, frequencies: Tensor) -> Tensor:
        """<Z> of each measured qubit for each row of inputs, shape (batch, measured), from `distributions`."""
        confusion: list[Confusion | None] = [None] * len(self.measured)
        if "readout" in self.mitigation:
            zeros, ones = ((1 - expectations(row[None])[0]) / 2 for row in frequencies[-2:])
            frequencies = frequencies[:-2]
            confusion = [((1 - z, 1 - o), (z, o)) for z, o in zip(zeros.tolist(), ones.tolist(), strict=True)]
        runs = expectations(frequencies)
        runs = torch.stack([mitigate_readout(runs[:, j], matrix) for j, matrix in enumerate(confusion)], dim=1)
        runs = runs.reshape(len(self.folds), -1, len(self.measured))
        degree = min(DEGREE, len(self.folds) - 1)
        coefficients = torch.tensor(extrapolation(self.folds, degree), dtype=runs.dtype)
        return torch.einsum("f,fbm->bm", coefficients, runs).clamp(-1, 1)


@dataclass(frozen=True)
class OutputLayer:
    """What turns <Z> into probabilities: the last layer of a head, in double precision.

    Attributes:
        weight: Shape (classes, features).
        bias: Shape (classes,).
        skip: Whether the features go on with the encoders' output.
        temperature: What the logits are divided by.
    """

    weight: Tensor
    bias: Tensor
    skip: bool
    temperature: float

    def logits(self, values: Tensor, z: Tensor) -> Tensor:
        """Logits of shape (batch, classes)."""
        features = torch.cat([values, z.double()], dim=1) if self.skip else values
        return features @ self.weight.T + self.bias

    def probabilities(self, values: Tensor, z: Tensor) -> Tensor:
        """Probabilities of shape (batch, classes)."""
        return (self.logits(values, z) / self.temperature).softmax(dim=1)


@dataclass(frozen=True)
class ShotPredictions:
    """What was read for a batch of sentences.

    Attributes:
        values: <Z>, shape (batch, measured).
        probabilities: Shape (batch, classes).
        interval: Of the probabilities, from the shots alone: 95 %, shape (2, batch, classes).
        stability: How often each label would stay if the shots were drawn again, shape (batch,).
    """

    values: Tensor
    probabilities: Tensor
    interval: Tensor
    stability: Tensor


@torch.no_grad()
def postprocess(
    measurement: MeasurementPlan,
    linear: OutputLayer,
    z: Tensor,
    counts: Sequence[Counts],
    shots: int,
    generator: torch.Generator,
) -> ShotPredictions:
    """Predictions of a batch from its counts, with intervals by drawing the shots again from what was read.

    Args:
        measurement: What made the circuits.
        linear: The last layer.
        z: The encoders' output, shape (batch, qubits).
        counts: Of the circuits of `MeasurementPlan.circuits`.
        shots: Of each.
        generator: Source of the draws.
    """
    frequencies = measurement.distributions(counts)
    values = measurement.values(frequencies)
    probabilities = linear.probabilities(values, z)
    readings = frequencies.shape[1]
    # Half a count for each reading, or what was never read could not be in a draw.
    smooth = (frequencies * shots + 0.5) / (shots + readings / 2)
    drawn = []
    for _ in range(RESAMPLES):
        again = measurement.values(sample_outcomes(smooth, shots, generator) / shots)
        drawn.append(linear.probabilities(again, z))
    draws = torch.stack(drawn)
    interval = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype), dim=0)
    stability = (draws.argmax(dim=2) == probabilities.argmax(dim=1)).double().mean(dim=0)
    return ShotPredictions(values, probabilities, interval, stability)
