"""Calibrate the probabilities of a trained head by temperature scaling."""

from __future__ import annotations

import math
import warnings

from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ketfit.errors import DataWarning

TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest temperature of the search."""

PRIOR_SPREAD = 0.5
"""Standard deviation of the prior of the logarithm of the temperature: 95 % between 1/e and e."""


def fit_temperature(logits: Tensor, y: Tensor, weight: Tensor) -> float:
    """Return the temperature to divide logits by, fitted by cross-entropy (Guo et al., section 4.2) with a prior at 1.

    The logarithm of the temperature has a normal prior with mean 0 and standard deviation `PRIOR_SPREAD`: the minimised
    sum is that of the weighted cross-entropies plus ``log(T)**2 / (2 * PRIOR_SPREAD**2)``. The cross-entropies grow
    with the number of samples and the prior does not: a few samples change the temperature a little, hundreds
    determine it.

    If the cross-entropies alone have no minimum inside `TEMPERATURES`, the samples do not determine the temperature:
    if all are predicted correctly, a lower temperature always fits better, and if the logits are worse than constant
    ones, a higher one does. The temperature is then 1, with a warning.

    Args:
        logits: Logits of samples that were not trained on, shape (n, n_classes).
        y: Class indices, shape (n,).
        weight: The number of samples that each row represents, shape (n,), positive; see `effective_counts`.

    Returns:
        A number between the two `TEMPERATURES`; above 1 if the logits are overconfident.

    Warns:
        DataWarning: The samples do not determine the temperature.

    >>> import torch
    >>> logits, y = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), torch.tensor([0, 1, 1])
    >>> round(fit_temperature(logits, y, torch.ones(3)), 1)
    1.2
    """
    logits, weight = logits.double(), weight.double()
    true_logits = logits.gather(1, y[:, None])[:, 0]

    def slope(temperature: float) -> float:
        """Return the derivative of the loss by the inverse temperature, an increasing function of it."""
        mean = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1)
        return float(weight @ (mean - true_logits))

    def objective(logarithm: float) -> float:
        losses = nn.functional.cross_entropy(logits / math.exp(logarithm), y, reduction="none")
        return float(weight @ losses) + logarithm**2 / (2 * PRIOR_SPREAD**2)

    low, high = TEMPERATURES
    rounding = 1e-9 * float(weight.sum() * logits.abs().max())
    if not (slope(low) > rounding and slope(high) < -rounding):
        warnings.warn(
            f"the temperature of the probabilities stays 1: no number from {low} to {high} fits the {len(y)} "
            "validation samples best, because all of them are predicted right, or hardly any; give more validation "
            "samples",
            DataWarning,
            stacklevel=2,
        )
        return 1.0
    bounds = (math.log(low), math.log(high))
    return math.exp(minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def effective_counts(weight: Tensor) -> Tensor:
    """Return weights scaled so that they sum to Kish's effective number of samples.

    >>> import torch
    >>> effective_counts(torch.tensor([10.0, 10.0])).tolist()
    [1.0, 1.0]
    """
    return weight * (weight.sum() / (weight @ weight))
