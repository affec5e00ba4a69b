"""Assertions on samples: five standard errors, and a chi-square test that is about as strict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import chisquare
from torch import Tensor

from ketfit.circuit import Circuit
from tests.simulate.dense_reference import random_tensors


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_within_errors(estimate: Tensor, expected: Tensor, error: Tensor, within: float = 5) -> None:
    """Check the distance in standard errors; an error of zero allows rounding."""
    distance = (estimate - expected).detach().abs()
    assert (distance <= within * error + 1e-12).all(), f"{(distance / error).max():.1f} standard errors"


def assert_mean(samples: Tensor, expected: Tensor) -> None:
    """Check the mean over the independent rows of `samples`."""
    assert_within_errors(samples.mean(0), expected, samples.std(0) / len(samples) ** 0.5)


def assert_variance(samples: Tensor, expected: Tensor) -> None:
    """Check the variance over the rows of `samples`, whose mean is unknown."""
    assert_mean((samples - samples.mean(0)).square() * len(samples) / (len(samples) - 1), expected)


def assert_frequencies(counts: npt.ArrayLike, probabilities: npt.ArrayLike) -> None:
    """Check counts of independent samples; outcomes of probability zero must have no counts."""
    counts, probabilities = np.asarray(counts, float).ravel(), np.asarray(probabilities, float).ravel()
    possible = probabilities > 1e-12
    assert not counts[~possible].any()
    expected = counts.sum() * probabilities[possible] / probabilities.sum()
    assert expected.min() >= 5, "too few samples for a chi-square test"
    assert chisquare(counts[possible], expected).pvalue > 1e-6


def repeated_tensors(circuit: Circuit, count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Return weights, and `count` copies of the same inputs and amplitudes, without gradients."""
    weights, inputs, initial = (tensor.detach() for tensor in random_tensors(circuit, 1, dtype, seed=seed))
    return [weights, inputs.expand(count, -1), initial.expand(count, -1)]


def repeated_gradients(run: Callable[[], Tensor], tensors: list[Tensor], repeats: int) -> Tensor:
    """Return gradients of the sum of `run()` with respect to all `tensors`, one new run for each row."""
    rows = (torch.autograd.grad(run().sum(), tensors) for _ in range(repeats))
    return torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
