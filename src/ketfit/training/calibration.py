"""Calibrate the probabilities of a trained head by temperature scaling."""

from __future__ import annotations

import math
import warnings

from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ketfit.errors import DataWarning

TEMPERATURES = (0.05, 20.0)
"""Where the best temperature is looked for."""


PRIOR_SPREAD = 0.5
"""Standard deviation of the logarithm of the temperature before any sample is seen: 95 % between 1/e and e."""


def fit_temperature(logits: Tensor, y: Tensor, weight: Tensor) -> float:
    """Return the number to divide logits by, fitted by cross-entropy (Guo et al., section 4.2) and drawn towards 1.

    The logarithm of the temperature has a normal prior with mean 0 and standard deviation `PRIOR_SPREAD`: what is
    minimised is the sum of the cross-entropies, each times its weight, plus ``log(T)**2 / (2 * PRIOR_SPREAD**2)``. The
    sum grows with the number of samples and the prior does not, so that a few samples move the temperature a little
    and hundreds decide it.

    Without a minimum inside `TEMPERATURES` before the prior is added, the samples say nothing about the temperature:
    where all of them are predicted right, ever smaller ones fit ever better, and where the logits are worse than none,
    ever larger ones. It is 1 then, with a warning.

    Args:
        logits: Shape (n, n_classes), of samples that were not trained on.
        y: Class numbers, shape (n,).
        weight: How many samples each of them stands for, shape (n,), positive; see `effective_counts`.

    Returns:
        Between the two `TEMPERATURES`; above 1 if the logits are too sure of themselves.
    """
    logits, weight = logits.double(), weight.double()
    own = logits.gather(1, y[:, None])[:, 0]

    def slope(temperature: float) -> float:
        """Return the derivative of the loss by the inverse of the temperature; it grows with that inverse."""
        mean = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1)
        return float(weight @ (mean - own))

    def penalised(logarithm: float) -> float:
        losses = nn.functional.cross_entropy(logits / math.exp(logarithm), y, reduction="none")
        return float(weight @ losses) + logarithm**2 / (2 * PRIOR_SPREAD**2)

    low, high = TEMPERATURES
    rounding = 1e-9 * float(weight.sum() * logits.abs().max())
    if not (slope(low) > rounding and slope(high) < -rounding):
        warnings.warn(
            f"the temperature of the probabilities stays 1: no number from {low} to {high} fits the {len(y)} "
            "validation samples best, for all of them are predicted right, or hardly any; give more validation samples",
            DataWarning,
            stacklevel=2,
        )
        return 1.0
    bounds = (math.log(low), math.log(high))
    return math.exp(minimize_scalar(penalised, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def effective_counts(weight: Tensor) -> Tensor:
    """Return weights scaled so that they sum to Kish's effective number of samples, whatever unit they came in."""
    return weight * (weight.sum() / (weight @ weight))
