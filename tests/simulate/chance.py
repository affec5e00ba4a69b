"""Bounds for what is drawn: five standard errors, and a chi-square test that is about as strict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import chisquare
from torch import Tensor

from ketfit.circuit import Circuit
from tests.simulate.samples import some_tensors


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_near(estimate: Tensor, expected: Tensor, error: Tensor, within: float = 5) -> None:
    """As close as the standard error lets expect; an error of zero leaves room for rounding."""
    distance = (estimate - expected).detach().abs()
    assert (distance <= within * error + 1e-12).all(), f"{(distance / error).max():.1f} standard errors"


def assert_mean(draws: Tensor, expected: Tensor) -> None:
    """The mean over the rows of `draws`, which are independent."""
    assert_near(draws.mean(0), expected, draws.std(0) / len(draws) ** 0.5)


def assert_variance(draws: Tensor, expected: Tensor) -> None:
    """The variance over the rows of `draws`, whose mean is not known."""
    assert_mean((draws - draws.mean(0)).square() * len(draws) / (len(draws) - 1), expected)


def assert_likely(counts: npt.ArrayLike, probabilities: npt.ArrayLike) -> None:
    """Counts of independent draws; what has no probability has not been drawn."""
    counts, probabilities = np.asarray(counts, float).ravel(), np.asarray(probabilities, float).ravel()
    possible = probabilities > 1e-12
    assert not counts[~possible].any()
    expected = counts.sum() * probabilities[possible] / probabilities.sum()
    assert expected.min() >= 5, "too few draws for a chi-square test"
    assert chisquare(counts[possible], expected).pvalue > 1e-6


def alike(circuit: Circuit, count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Weights, and `count` times the same inputs and amplitudes; none wants gradients."""
    weights, inputs, initial = (tensor.detach() for tensor in some_tensors(circuit, 1, dtype, seed=seed))
    return [weights, inputs.expand(count, -1), initial.expand(count, -1)]


def slopes(run: Callable[[], Tensor], tensors: list[Tensor], repeats: int) -> Tensor:
    """The gradients of the sum of `run()` to all of `tensors`, drawn anew for each row."""
    rows = (torch.autograd.grad(run().sum(), tensors) for _ in range(repeats))
    return torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
