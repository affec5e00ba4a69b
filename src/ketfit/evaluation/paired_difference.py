"""Differences of heads to one reference on the same test sentences, and the conclusions from them in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

ALPHA = 0.05
"""A difference is shown if its adjusted p-value is below; the intervals have the level 1 - `ALPHA`."""


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a head minus that of the reference, as a fraction.

    `interval` is its 95 % interval, None if nothing varies; `adjusted_p` is adjusted by Holm over all heads.
    """

    head: str
    difference: float
    interval: tuple[float, float] | None
    adjusted_p: float

    @property
    def is_shown(self) -> bool:
        """True if the difference is significant after the adjustment."""
        return self.adjusted_p < ALPHA


def differences_on_one_split(correct: Mapping[str, NDArray[np.bool_]], reference: str) -> list[PairedDifference]:
    """Return the differences of trained heads to the reference on one test set, for new sentences.

    The p-values are those of McNemar's exact test, the intervals those of the paired difference of two shares (Wald).

    Args:
        correct: For each head, the test sentences that it has right; bool, shape (n,), in the same order.
        reference: Name of the reference among them.

    >>> correct = {"a": np.array([True, True, False]), "b": np.array([True, False, False])}
    >>> differences_on_one_split(correct, "a")[0].adjusted_p
    1.0
    """
    base, found = correct[reference], []
    for head, mine in correct.items():
        if head == reference:
            continue
        gained, lost, n = int((mine & ~base).sum()), int((base & ~mine).sum()), len(base)
        p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        difference = (gained - lost) / n
        half = float(norm.isf(ALPHA / 2)) * math.sqrt((gained + lost) / n - difference**2) / math.sqrt(n)
        interval = (difference - half, difference + half) if half else None
        found.append((head, difference, interval, p_value))
    adjusted = _holm(np.array([p_value for *_, p_value in found]))
    return [PairedDifference(*each[:3], p) for each, p in zip(found, adjusted, strict=True)]


def conclusions(differences: Sequence[PairedDifference], reference: str) -> list[str]:
    """Return the conclusions from the differences to a reference, in plain sentences.

    >>> shown = PairedDifference("a circuit", 0.02, (0.01, 0.03), 0.002)
    >>> conclusions([shown], "logistic regression")[0]
    'a circuit is better than logistic regression by 2.0 points [1.0, 3.0]'
    """
    better = [each for each in differences if each.is_shown and each.difference > 0]
    worse = [each for each in differences if each.is_shown and each.difference < 0]
    others = [each for each in differences if not each.is_shown]
    sentences = [] if better else [f"{reference} is enough: no head is shown to be better"]
    for kind, found in (("better", better), ("worse", worse)):
        sentences += [f"{each.head} is {kind} than {reference} by {_points(each, size=True)}" for each in found]
    if others:
        listed = "; ".join(f"{each.head}, {_points(each)}{_adjustment(each)}" for each in others)
        sentences.append(f"no difference from {reference} is shown for {listed}")
    return sentences


def _adjustment(each: PairedDifference) -> str:
    """Return the p-value of a difference that is not shown although its own interval excludes 0, else ""."""
    if each.interval is None or each.interval[0] <= 0 <= each.interval[1]:
        return ""
    return f" (p {each.adjusted_p:.2f} after Holm's adjustment)"


def _points(each: PairedDifference, *, size: bool = False) -> str:
    """Return a difference with its interval in percentage points; with `size` without the sign of the difference."""
    flip = -1 if size and each.difference < 0 else 1
    sign = "" if size else "+"
    bounds = sorted(flip * bound for bound in each.interval or ())
    listed = f" [{', '.join(f'{round(100 * bound, 1) + 0.0:{sign}.1f}' for bound in bounds)}]" if bounds else ""
    return f"{round(100 * flip * each.difference, 1) + 0.0:{sign}.1f} points{listed}"


def _holm(p_values: NDArray[np.float64]) -> list[float]:
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]
