"""Estimates of <Z> and of observables from finite shots, and the ways to differentiate them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ketfit.circuit.angle import Angle, AngleExpression, angles_of
from ketfit.circuit.circuit import Circuit, cached_on_circuit
from ketfit.circuit.gate import Gate
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.evolution import AffineAngles, angle_columns, needs_recorded_operations
from ketfit.simulate.native import NO_SECOND_DERIVATIVE

Gradient = Literal["reparameterized", "straight_through", "parameter_shift", "exact"]
"""Gradient policies of values that are estimated from shots; `ketfit.expectation` explains each."""

GRADIENTS: tuple[Gradient, ...] = ("reparameterized", "straight_through", "parameter_shift", "exact")

MAX_SHOTS = 2**53
"""Counts are stored in double precision, which is exact up to this number."""

_MAX_ANGLES = 2**22  # in one run of shifted circuits

_OUTER, _INNER = ((math.sqrt(2) + sign) / (4 * math.sqrt(2)) for sign in (1, -1))
SHIFT_RULES = {
    2: ((math.pi / 2, 0.5), (-math.pi / 2, -0.5)),
    4: ((math.pi / 2, _OUTER), (-math.pi / 2, -_OUTER), (3 * math.pi / 2, -_INNER), (-3 * math.pi / 2, _INNER)),
}
"""Shifts of an angle and the factors of the shifted values, by their number."""

_CONTROLLED_ROTATIONS = ("crx", "cry", "crz")  # the only gates with angles of two frequencies, 1/2 and 1


@dataclass(frozen=True)
class StepCost:
    """Number of circuits and shots that one training step runs on a QPU."""

    circuits: int
    shots: int


def step_cost(circuit: Circuit, batch: int, shots: int, gradient: Gradient) -> StepCost:
    """Return the circuits and shots for the values of a batch and, by parameter shift, their gradients.

    The gradients of the other policies need a simulator and no circuits on a QPU.

    Args:
        circuit: Circuit without the gates outside the light cone.
        batch: Number of samples in a step.
        shots: Shots per circuit.
        gradient: Gradient policy, as in `ketfit.expectation`.

    Raises:
        ConfigError: A number is not an integer or less than 1, or the policy is unknown.

    >>> step_cost(Circuit.from_gates(1, [Gate("ry", 0, [Angle("weight", 0)])]), 8, 100, "parameter_shift")
    StepCost(circuits=24, shots=2400)
    """
    batch, shots = as_integer(batch, "batch", minimum=1), as_integer(shots, "shots", minimum=1)
    _check_gradient(gradient)
    shifted = sum(shift_counts(circuit)) if gradient == "parameter_shift" else 0
    circuits = batch * (1 + shifted)
    return StepCost(circuits, circuits * shots)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # because autograd cannot use a cached tensor from inference mode
def readout_signs(n_measured: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return Z (+1 or -1) of each measured qubit for each outcome, shape (2**n_measured, n_measured)."""
    outcomes = torch.arange(2**n_measured, device=device)[:, None]
    bits = torch.arange(n_measured - 1, -1, -1, device=device)
    signs: Tensor = (1 - 2 * (outcomes >> bits & 1)).to(dtype)
    return signs


def expectations(distribution: Tensor) -> Tensor:
    """Return <Z> of each measured qubit, shape (batch, measured), from joint distributions (batch, 2**measured)."""
    n_measured = distribution.shape[1].bit_length() - 1
    return distribution @ readout_signs(n_measured, distribution.dtype, distribution.device)


@torch.no_grad()
def sample_outcomes(distribution: Tensor, shots: int, generator: torch.Generator | None = None) -> Tensor:
    """Return an exact multinomial sample of the count of each outcome, with the shape and dtype of `distribution`.

    The bits are sampled in turn: among the shots that agree in the earlier bits, the number of zeros is binomial.
    """
    exact = distribution.double().clamp(min=0)
    if generator is not None:
        exact = exact.to(generator.device)
    batch, outcomes = exact.shape
    counts = exact.new_full((batch, 1), float(shots))
    while (groups := counts.shape[1]) < outcomes:
        halves = exact.view(batch, groups, 2, outcomes // (2 * groups)).sum(dim=3)
        share = (halves[:, :, 0] / halves.sum(dim=2)).nan_to_num(0.0).clamp(0, 1)
        zeros = torch.binomial(counts, share, generator=generator)
        counts = torch.stack([zeros, counts - zeros], dim=2).flatten(1)
    return counts.to(distribution)


def sample(
    distribution: Tensor, shots: int, generator: torch.Generator | None = None, values: Tensor | None = None
) -> Tensor:
    """Return estimates from `shots` shots, without a gradient; `values` are those of `mean_values`."""
    frequencies = sample_outcomes(distribution.detach().double(), shots, generator) / shots
    return mean_values(frequencies.to(distribution), values)


def mean_values(distribution: Tensor, values: Tensor | None) -> Tensor:
    """Return the mean over outcomes of `values`, shape (outcomes, columns); None is Z of each measured qubit."""
    return expectations(distribution) if values is None else distribution @ values


def straight_through(
    distribution: Tensor, shots: int, generator: torch.Generator | None = None, values: Tensor | None = None
) -> Tensor:
    """Return the value of `sample` with the gradient of the mean."""
    mean = mean_values(distribution, values)
    return sample(distribution, shots, generator, values) + (mean - mean.detach())  # adds exactly zero


def reparameterized(
    distribution: Tensor, shots: int, generator: torch.Generator | None = None, values: Tensor | None = None
) -> Tensor:
    """Return the mean plus Gaussian noise with the covariance of shots, with the gradient through both.

    For <Z> of one qubit m + sqrt((1 - m**2) / S) eps. For others, frequencies p + (sqrt(p) eps - p (sqrt(p) . eps)) /
    sqrt(S), with the covariance (diag(p) - p p^T) / S of S shots, so correlations between qubits are exact.
    """
    single = distribution.shape[1] == 2 and values is None
    shape = (len(distribution), 1) if single else distribution.shape
    source = distribution.device if generator is None else generator.device
    noise = torch.randn(shape, generator=generator, dtype=distribution.dtype, device=source).to(distribution.device)
    minimum = torch.finfo(distribution.dtype).tiny ** 0.5  # the root is not differentiable at zero
    mean = mean_values(distribution, values)
    if single:
        spread: Tensor = ((1 - mean**2).clamp(min=minimum) / shots).sqrt()
        return mean + spread * noise
    roots = distribution.clamp(min=minimum).sqrt() * noise
    deviation = roots - distribution * roots.sum(dim=1, keepdim=True)
    return mean + mean_values(deviation, values) / math.sqrt(shots)


def estimate_from_shots(
    distribution: Tensor,
    shots: int,
    generator: torch.Generator | None,
    gradient: Gradient | None,
    values: Tensor | None = None,
) -> Tensor:
    """Return the estimate of a gradient policy, "straight_through" or "reparameterized", or without a gradient."""
    estimates = {"straight_through": straight_through, "reparameterized": reparameterized, None: sample}
    return estimates[gradient](distribution, shots, generator, values)


def parameter_shift(estimate: Callable[[CircuitBatch], Tensor], batch: CircuitBatch, trajectories: int = 1) -> Tensor:
    """Return the value of `estimate` with the gradient that hardware measures: (f(t + pi/2) - f(t - pi/2)) / 2.

    Every angle of every gate in every sample is shifted up and down, each in a circuit and shots of its own (Schuld et
    al., arXiv 1811.11184); `step_cost` counts them. Controlled rotations take four shifts, by pi/2 and 3 pi/2
    (Anselmetti et al., arXiv 2104.05695). The derivative of an angle that is a sum of weights and inputs is multiplied
    by their factors. The rule is linear in the channel, so it is exact under noise too. `estimate` returns the values
    from new shots, shape (size, columns), and holds `trajectories` states for each sample, which limits the samples
    that run together.

    Raises:
        InputError: The initial amplitudes need a gradient, which parameter shift does not have.
    """
    if batch.initial is not None and batch.initial.requires_grad:
        raise InputError("parameter_shift has no gradient of the initial amplitudes; detach them or change the policy")
    result: Tensor = _ParameterShift.apply(  # type: ignore[no-untyped-call]
        estimate, batch, trajectories, batch.weights, batch.inputs
    )
    return result


@cached_on_circuit
def rotations_as_inputs(circuit: Circuit) -> tuple[Circuit, AffineAngles]:
    """Return the circuit with an input for each angle of a gate that is not a number, and the original angles.

    Global phases, which no expectation depends on, are left out.
    """
    gates: list[Gate] = []
    angles = AffineAngles()

    def as_input(expression: AngleExpression) -> AngleExpression:
        return Angle("input", angles.add(expression, circuit.n_weights)) if angles_of(expression) else expression

    for gate in circuit.gates:
        if gate.qubits:
            own = tuple(as_input(expression) for expression in gate.parameters)
            gates.append(Gate(gate.name, gate.qubits, own, gate.matrix) if own else gate)
    return Circuit(circuit.n_qubits, tuple(gates), 0, len(angles.offsets)), angles


def rotation_angles(angles: AffineAngles, weights: Tensor, inputs: Tensor | None, batch: int) -> Tensor:
    """Return the angle of every rotation, shape (batch, rotations), from the angles of `rotations_as_inputs`."""
    return angles.values(angle_columns(weights, inputs, batch))


@cached_on_circuit
def shift_counts(circuit: Circuit) -> tuple[int, ...]:
    """Return the number of shifts of each angle of `rotations_as_inputs`."""
    return tuple(
        4 if gate.name in _CONTROLLED_ROTATIONS else 2
        for gate in circuit.gates
        for expression in gate.parameters
        if gate.qubits and angles_of(expression)
    )


class _ParameterShift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        estimate: Callable[[CircuitBatch], Tensor],
        batch: CircuitBatch,
        trajectories: int,
        *_differentiated: Tensor | None,
    ) -> Tensor:
        """Return the sampled value."""
        ctx.estimate, ctx.circuit, ctx.trajectories = estimate, batch.circuit, trajectories
        ctx.save_for_backward(*batch.tensors)
        return estimate(batch)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights and the inputs from the shifted circuits."""
        if needs_recorded_operations(grad):
            raise InputError(NO_SECOND_DERIVATIVE)
        batch = CircuitBatch(ctx.circuit, *ctx.saved_tensors)
        circuit, originals = rotations_as_inputs(batch.circuit)
        weights, inputs, initial = batch.tensors
        angles = rotation_angles(originals, weights, inputs, batch.size)
        slopes = torch.empty_like(angles)
        counts = torch.tensor(shift_counts(batch.circuit))
        for count, rule in SHIFT_RULES.items():
            chosen = torch.nonzero(counts == count)[:, 0].to(angles.device)
            numbers = angles.numel() if initial is None else max(angles.numel(), initial.numel())
            step = max(1, _MAX_ANGLES // max(1, count * numbers * ctx.trajectories))
            for some in torch.split(chosen, step) if len(chosen) else ():
                unit = torch.eye(angles.shape[1]).to(angles)[some]
                shifted = angles + torch.stack([shift * unit for shift, _ in rule])[:, :, None]
                copies = None if initial is None else initial.repeat(count * len(some), 1)
                values = ctx.estimate(CircuitBatch(circuit, weights.new_empty(0), shifted.flatten(0, 2), copies))
                by_shift = values.view(count, len(some), batch.size, values.shape[1])
                slope = sum(factor * each for (_, factor), each in zip(rule, by_shift, strict=True))
                slopes[:, some] = (slope * grad).sum(dim=2).t()
        columns, rows = (
            torch.tensor(each, device=angles.device).long() for each in (originals.columns, originals.rows)
        )
        grads = slopes.new_zeros(batch.size, len(weights) + (0 if inputs is None else inputs.shape[1]))
        grads.index_add_(1, columns, slopes[:, rows] * slopes.new_tensor(originals.factors))
        grad_inputs = None if inputs is None else grads[:, len(weights) :]
        return None, None, None, grads[:, : len(weights)].sum(dim=0), grad_inputs


def check_shots(shots: int | None, gradient: str | None) -> int | None:
    """Return the number of shots as a Python integer, or None.

    Raises:
        ConfigError: The number of shots is invalid, or the policy is unknown or given without shots.
    """
    if shots is not None:
        shots = as_integer(shots, "shots", minimum=1, hint="None is the exact value")
        if shots > MAX_SHOTS:
            raise ConfigError(f"shots={shots} is more than the maximum of 2**53; lower it, or None is the exact value")
    if gradient is not None:
        _check_gradient(gradient)
    if gradient is not None and shots is None:
        raise ConfigError(f"gradient={gradient!r} says how to differentiate shots; pass shots, or leave it out")
    return shots


def _check_gradient(gradient: str) -> None:
    if gradient not in GRADIENTS:
        raise ConfigError(f"unknown gradient {gradient!r}; known are {', '.join(map(repr, GRADIENTS))}")
