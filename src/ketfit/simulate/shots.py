"""Estimates of <Z> from finite shots, and the ways to differentiate them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ketfit.circuit.circuit import Angle, Circuit, Gate, cached_on_circuit, ry
from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer
from ketfit.simulate.circuit_batch import CircuitBatch
from ketfit.simulate.native import NO_SECOND_DERIVATIVE

Gradient = Literal["reparameterized", "straight_through", "parameter_shift", "exact"]
"""Gradient policies of values that are estimated from shots; `ketfit.expectation` explains each."""

GRADIENTS: tuple[Gradient, ...] = ("reparameterized", "straight_through", "parameter_shift", "exact")

MAX_SHOTS = 2**53
"""Counts are stored in double precision, which is exact up to this number."""

_MAX_ANGLES = 2**22  # in one run of shifted circuits


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

    >>> step_cost(Circuit(1, (ry(0, Angle("weight", 0)),), n_weights=1, n_inputs=0), 8, 100, "parameter_shift")
    StepCost(circuits=24, shots=2400)
    """
    batch, shots = as_integer(batch, "batch", minimum=1), as_integer(shots, "shots", minimum=1)
    _check_gradient(gradient)
    if gradient == "parameter_shift":
        circuit.check_ry_cx("the parameter shift")
    shifted = 2 * circuit.gate_counts()["ry"] if gradient == "parameter_shift" else 0
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


def sample(distribution: Tensor, shots: int, generator: torch.Generator | None = None) -> Tensor:
    """Return estimates of <Z> from `shots` shots, shape (batch, measured), without a gradient."""
    frequencies = sample_outcomes(distribution.detach().double(), shots, generator) / shots
    return expectations(frequencies.to(distribution))


def straight_through(distribution: Tensor, shots: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the value of `sample` with the gradient of the mean."""
    mean = expectations(distribution)
    return sample(distribution, shots, generator) + (mean - mean.detach())  # adds exactly zero


def reparameterized(distribution: Tensor, shots: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the mean plus Gaussian noise with the covariance of shots, with the gradient through both.

    For one qubit m + sqrt((1 - m**2) / S) eps. For several, frequencies p + (sqrt(p) eps - p (sqrt(p) . eps)) /
    sqrt(S), with the covariance (diag(p) - p p^T) / S of S shots, so correlations between qubits are exact.
    """
    shape = (len(distribution), 1) if distribution.shape[1] == 2 else distribution.shape
    source = distribution.device if generator is None else generator.device
    noise = torch.randn(shape, generator=generator, dtype=distribution.dtype, device=source).to(distribution.device)
    minimum = torch.finfo(distribution.dtype).tiny ** 0.5  # the root is not differentiable at zero
    mean = expectations(distribution)
    if distribution.shape[1] == 2:
        spread: Tensor = ((1 - mean**2).clamp(min=minimum) / shots).sqrt()
        return mean + spread * noise
    roots = distribution.clamp(min=minimum).sqrt() * noise
    return mean + expectations(roots - distribution * roots.sum(dim=1, keepdim=True)) / math.sqrt(shots)


def parameter_shift(estimate: Callable[[CircuitBatch], Tensor], batch: CircuitBatch, trajectories: int = 1) -> Tensor:
    """Return the value of `estimate` with the gradient that hardware measures: (f(t + pi/2) - f(t - pi/2)) / 2.

    Every rotation of every sample is shifted up and down, each in a circuit and shots of its own (Schuld et al., arXiv
    1811.11184); `step_cost` counts them. The rule is linear in the channel, so it is exact under noise too. `estimate`
    returns <Z> from new shots, shape (size, measured), and holds `trajectories` states for each sample, which limits
    the samples that run together.

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
def rotations_as_inputs(circuit: Circuit) -> tuple[Circuit, Tensor]:
    """Return the circuit with one input per rotation, and each rotation's original column in (weights, inputs)."""
    circuit.check_ry_cx("the parameter shift")
    gates: list[Gate] = []
    columns: list[int] = []
    for gate in circuit.gates:
        if gate.angle is None:
            gates.append(gate)
        else:
            gates.append(ry(gate.target, Angle("input", len(columns))))
            columns.append(gate.angle.index + (0 if gate.angle.source == "weight" else circuit.n_weights))
    return Circuit(circuit.n_qubits, tuple(gates), 0, len(columns)), torch.tensor(columns).long()


def rotation_angles(columns: Tensor, weights: Tensor, inputs: Tensor | None, batch: int) -> Tensor:
    """Return the angle of every rotation, shape (batch, rotations), by the columns of `rotations_as_inputs`."""
    parts = [weights.expand(batch, -1)] + ([] if inputs is None else [inputs])
    return torch.cat(parts, dim=1)[:, columns.to(weights.device)]


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
        if torch.is_grad_enabled():
            raise InputError(NO_SECOND_DERIVATIVE)
        batch = CircuitBatch(ctx.circuit, *ctx.saved_tensors)
        circuit, columns = rotations_as_inputs(batch.circuit)
        weights, inputs, initial = batch.tensors
        angles = rotation_angles(columns, weights, inputs, batch.size)
        no_weights = weights.new_empty(0)
        step = max(1, _MAX_ANGLES // max(1, 2 * angles.numel() * ctx.trajectories))
        slopes = torch.empty_like(angles)
        for first in range(0, angles.shape[1], step):
            shift = torch.pi / 2 * torch.eye(angles.shape[1]).to(angles)[first : first + step]
            shifted = (angles + torch.stack([shift, -shift])[:, :, None]).flatten(0, 2)
            copies = None if initial is None else initial.repeat(2 * len(shift), 1)
            values = ctx.estimate(CircuitBatch(circuit, no_weights, shifted, copies))
            up, down = values.view(2, len(shift), batch.size, values.shape[1])
            slopes[:, first : first + step] = ((up - down) * grad / 2).sum(dim=2).t()
        columns = columns.to(weights.device)
        grads = slopes.new_zeros(batch.size, len(weights) + (0 if inputs is None else inputs.shape[1]))
        grads.index_add_(1, columns, slopes)
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
