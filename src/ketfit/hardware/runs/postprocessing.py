"""Predictions from counts: expectation values, mitigation, logits, labels, and intervals from the shots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.errors import ConfigError
from ketfit.hardware.backends.base import BoundCircuit, Counts
from ketfit.model.config import HeadConfig
from ketfit.simulate.measurement import WordGroup, group_circuits, group_words
from ketfit.simulate.mitigation import extrapolation, fold_gates, mitigate_readout
from ketfit.simulate.noise import Confusion
from ketfit.simulate.shots import expectations as z_expectations
from ketfit.simulate.shots import rotation_angles, rotations_as_inputs, sample_outcomes

Mitigation = Literal["readout", "zero_noise"]
FOLDS, DEGREE = (1, 3, 5), 2
RESAMPLES = 200


def check_mitigation(names: Iterable[str]) -> tuple[Mitigation, ...]:
    """Return the distinct names of mitigations in their fixed order.

    Raises:
        ConfigError: A name is unknown.

    >>> check_mitigation(["zero_noise", "readout"])
    ('readout', 'zero_noise')
    """
    chosen, known = set(names), get_args(Mitigation)
    if unknown := chosen - set(known):
        raise ConfigError(f"unknown mitigation {min(unknown)!r}; known are 'readout' and 'zero_noise'")
    return tuple(name for name in known if name in chosen)


@dataclass(frozen=True)
class MeasurementPlan:
    """The circuits that stand for a batch of inputs, and the way from their counts to expectations.

    Attributes:
        circuit: The whole QPU circuit.
        measured: The qubits that are read out.
        mitigation: "readout" adds two calibration circuits, which show how each qubit is misread, and corrects for it;
            they follow the circuits of the run, to be measured at the same physical qubits. "zero_noise" sends each
            circuit folded to one, three and five times its length, and extrapolates.
        groups: Pauli words to estimate in the place of Z of each measured qubit, in groups that commute qubit by qubit
            (Qiskit's ``group_commuting(qubit_wise=True)``). Each group is measured in a circuit of its own, with basis
            changes at its end. Empty for Z.

    Raises:
        ConfigError: The mitigation is unknown, or is for Pauli words.
    """

    circuit: Circuit
    measured: tuple[int, ...]
    mitigation: tuple[Mitigation, ...] = ()
    groups: tuple[WordGroup, ...] = ()

    def __post_init__(self) -> None:
        check_mitigation(self.mitigation)
        if self.groups and self.mitigation:
            raise ConfigError(
                f"mitigation={list(self.mitigation)} is for Z of single qubits, not for a readout of words"
            )

    @classmethod
    def of_head(cls, config: HeadConfig, mitigation: tuple[Mitigation, ...] = ()) -> MeasurementPlan:
        """Return the measurements of a head."""
        groups = () if config.observables is None else tuple(group_words(config.observables))
        return cls(config.qpu_circuit(), config.read_qubits, mitigation, groups)

    @cached_property
    def measured_circuits(self) -> list[tuple[Circuit, tuple[int, ...]]]:
        """The circuit and the measured qubits of each group, or of Z, without gates that cannot reach them."""
        if self.groups:
            return group_circuits(self.circuit, self.groups)
        return [(self.circuit.light_cone(self.measured), self.measured)]

    @cached_property
    def _group_values(self) -> list[tuple[list[int], Tensor]]:
        """The numbers of the words of each group, and what each outcome adds to them, of shape (2**qubits, words)."""
        numbers = [sorted(number for number, _ in group.terms) for group in self.groups]
        n_words = sum(map(len, numbers))
        return [(own, group.values(n_words)[:, own]) for own, group in zip(numbers, self.groups, strict=True)]

    @property
    def folds(self) -> tuple[int, ...]:
        """The lengths at which each circuit is run, in multiples of its own."""
        return FOLDS if "zero_noise" in self.mitigation else (1,)

    def circuits(self, weights: Sequence[float], inputs: Tensor) -> list[BoundCircuit]:
        """Return the circuits of every row of `inputs`, one for each group of words.

        For Z they come fold by fold, and the calibration circuits follow. Gates that cannot reach the measured qubits
        are left out.

        Args:
            weights: Trained angles in radians, shape (n_weights,).
            inputs: Input angles in radians, shape (batch, n_inputs).
        """
        rows = inputs.double().tolist()
        bound = [
            BoundCircuit(circuit, tuple(weights), tuple(row), measured)
            for row in rows
            for circuit, measured in self.measured_circuits
        ]
        plain = list(bound)
        if len(self.folds) > 1:
            single, originals = rotations_as_inputs(self.measured_circuits[0][0])
            angles = rotation_angles(originals, torch.tensor(list(weights)).double(), inputs.double(), len(rows))
            both = torch.cat([angles, -angles], dim=1).tolist()
            bound += [
                BoundCircuit(fold_gates(single, fold), (), tuple(row), self.measured, follows, fold)
                for fold in self.folds[1:]
                for row, follows in zip(both, plain, strict=True)
            ]
        return bound + (self._calibration(plain[0]) if "readout" in self.mitigation and plain else [])

    def _calibration(self, follows: BoundCircuit) -> list[BoundCircuit]:
        """Return circuits that prepare 0 and 1 with the same gates, since many machines reject an empty circuit."""
        flips = Circuit(self.circuit.n_qubits, tuple(ry(q, Angle("weight", 0)) for q in self.measured), 1, 0)
        return [BoundCircuit(flips, (angle,), (), self.measured, follows) for angle in (0.0, math.pi)]

    def distributions(self, counts: Sequence[Counts]) -> list[Tensor]:
        """Return the frequencies of the bitstrings of each group, or of Z, of shape (circuits, 2**qubits).

        Args:
            counts: Counts of each circuit of `circuits`, of any number of calls one after another.
        """
        step = len(self.measured_circuits)
        return [_frequencies(counts[g::step], len(qubits)) for g, (_, qubits) in enumerate(self.measured_circuits)]

    def expectations(self, frequencies: Sequence[Tensor]) -> Tensor:
        """Return <Z> of each measured qubit, or of each word, shape (batch, measured) or (batch, words).

        Args:
            frequencies: The result of `distributions` for all circuits.
        """
        if self.groups:
            parts = [table @ values for table, (_, values) in zip(frequencies, self._group_values, strict=True)]
            order = [number for own, _ in self._group_values for number in own]
            return torch.cat(parts, dim=1)[:, np.argsort(order)]
        (table,) = frequencies
        confusion: list[Confusion | None] = [None] * len(self.measured)
        if "readout" in self.mitigation:
            zeros, ones = ((1 - z_expectations(row[None])[0]) / 2 for row in table[-2:])
            table = table[:-2]
            confusion = [((1 - z, 1 - o), (z, o)) for z, o in zip(zeros.tolist(), ones.tolist(), strict=True)]
        folded = z_expectations(table)
        folded = torch.stack([mitigate_readout(folded[:, j], matrix) for j, matrix in enumerate(confusion)], dim=1)
        folded = folded.reshape(len(self.folds), -1, len(self.measured))
        degree = min(DEGREE, len(self.folds) - 1)
        coefficients = torch.tensor(extrapolation(self.folds, degree), dtype=folded.dtype)
        return torch.einsum("f,fbm->bm", coefficients, folded).clamp(-1, 1)


def _frequencies(counts: Sequence[Counts], width: int) -> Tensor:
    """Return the frequencies of bitstrings, shape (circuits, 2**width)."""
    table = torch.zeros(len(counts), 2**width, dtype=torch.float64)
    for row, each in enumerate(counts):
        for bitstring, count in each.items():
            table[row, int(bitstring, 2)] = count
    return table / table.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class OutputLayer:
    """The last layer of a head, from <Z> to probabilities, in double precision.

    Attributes:
        weight: Shape (classes, features).
        bias: Shape (classes,).
        skip: True if the features include the encoders' output.
        temperature: Divisor of the logits.
    """

    weight: Tensor
    bias: Tensor
    skip: bool
    temperature: float

    def logits(self, qpu_expectations: Tensor, encoder_expectations: Tensor) -> Tensor:
        """Return the logits, shape (batch, classes).

        Args:
            qpu_expectations: What is read out, shape (batch, measured) or (batch, words).
            encoder_expectations: Output of the encoders, shape (batch, qubits).
        """
        features = qpu_expectations
        if self.skip:
            features = torch.cat([qpu_expectations, encoder_expectations.double()], dim=1)
        return features @ self.weight.T + self.bias

    def probabilities(self, qpu_expectations: Tensor, encoder_expectations: Tensor) -> Tensor:
        """Return the probabilities, shape (batch, classes), from the arguments of `logits`."""
        return (self.logits(qpu_expectations, encoder_expectations) / self.temperature).softmax(dim=1)


@dataclass(frozen=True)
class ShotPredictions:
    """Predictions for a batch of sentences from a finite number of shots.

    Attributes:
        expectations: <Z> of each measured qubit or of each word, shape (batch, measured) or (batch, words).
        probabilities: Shape (batch, classes).
        interval: 95 % interval of the probabilities from the shots alone, shape (2, batch, classes).
        stability: Share of resamples of the shots that keep the label, shape (batch,).
    """

    expectations: Tensor
    probabilities: Tensor
    interval: Tensor
    stability: Tensor


@torch.no_grad()
def postprocess(
    measurement: MeasurementPlan,
    output_layer: OutputLayer,
    encoder_expectations: Tensor,
    counts: Sequence[Counts],
    shots: int,
    generator: torch.Generator,
) -> ShotPredictions:
    """Return the predictions of a batch from its counts, with intervals by resampling the shots.

    Args:
        measurement: Plan that made the circuits.
        output_layer: Last layer of the head.
        encoder_expectations: Output of the encoders, shape (batch, qubits).
        counts: Counts of the circuits of `MeasurementPlan.circuits`.
        shots: Shots per circuit.
        generator: Random generator of the resamples.
    """
    frequencies = measurement.distributions(counts)
    expectations = measurement.expectations(frequencies)
    probabilities = output_layer.probabilities(expectations, encoder_expectations)
    # Half a count for each bitstring: otherwise one that was never measured could not occur in a resample.
    smooth = [(table * shots + 0.5) / (shots + table.shape[1] / 2) for table in frequencies]
    resamples = []
    for _ in range(RESAMPLES):
        sampled = measurement.expectations([sample_outcomes(table, shots, generator) / shots for table in smooth])
        resamples.append(output_layer.probabilities(sampled, encoder_expectations))
    draws = torch.stack(resamples)
    interval = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype), dim=0)
    stability = (draws.argmax(dim=2) == probabilities.argmax(dim=1)).double().mean(dim=0)
    return ShotPredictions(expectations, probabilities, interval, stability)
