"""The choice among heads by the one-standard-error rule."""

from __future__ import annotations

import pytest

from ketfit.errors import ConfigError
from ketfit.model.head_choice import HeadChoice, HeadLoss


def choice(*losses: tuple[str, float, float]) -> HeadChoice:
    rows = [HeadLoss(kind=kind, mean=mean, standard_error=error) for kind, mean, error in losses]  # type: ignore[arg-type]
    return HeadChoice(n_splits=5, losses=rows)


@pytest.mark.parametrize(
    ("means", "chosen"),
    [
        ((0.50, 0.45, 0.42, 0.41), "mlp"),
        ((0.43, 0.45, 0.42, 0.41), "logistic-regression"),
        ((0.44, 0.45, 0.46, 0.41), "quantum"),
        ((0.40, 0.45, 0.46, 0.41), "logistic-regression"),
    ],
)
def test_head_choice_takes_simplest_within_one_standard_error_of_best(means: tuple[float, ...], chosen: str) -> None:
    kinds = ("logistic-regression", "svc", "mlp", "quantum")
    # The error of the best head counts, and not that of the others.
    errors = (0.02 if mean == min(means) else 9.0 for mean in means)
    assert choice(*zip(kinds, means, errors, strict=True)).kind == chosen


def test_head_choice_limit_is_inclusive() -> None:
    assert choice(("svc", 0.75, 0.1), ("quantum", 0.5, 0.25)).kind == "svc"


@pytest.mark.parametrize(
    ("losses", "message"),
    [([], "losses"), ([("svc", 0.1, 0.1), ("svc", 0.2, 0.1)], "twice"), ([("svc", float("nan"), 0.1)], "mean=nan")],
)
def test_head_choice_invalid_losses_raise(losses: list[tuple[str, float, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choice(*losses)
