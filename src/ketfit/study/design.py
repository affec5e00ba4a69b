"""Designs of experiments: the combinations of factor levels that a study runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ketfit.errors import ConfigError, MissingExtraError
from ketfit.study.spec import DesignPlan, Level, LevelRange

try:
    import pyDOE3
except ImportError as error:
    raise MissingExtraError("Planning a study", "'ketfit[study]'") from error

Levels = Mapping[str, Sequence[Level] | LevelRange]
Point = dict[str, Level]

MAX_POINTS = 100_000
"""Largest number of points in one design."""


def design_points(design: DesignPlan, factors: Levels) -> list[Point]:
    """Return the points of a design, each a mapping from factors to levels.

    The first point of a scan is empty (the heads' own settings); each of the others sets one factor.

    Args:
        design: The kind of design and its options.
        factors: Levels by factor, in the order of the plan; the first of two levels is the low one.

    Raises:
        ConfigError: The design does not exist for this number of factors, or has more than 100,000 points.

    >>> design_points(DesignPlan(kind="full"), {"head.n_qubits": (10, 11)})
    [{'head.n_qubits': 10}, {'head.n_qubits': 11}]
    """
    levels = {name: values for name, values in factors.items() if not isinstance(values, LevelRange)}
    match design.kind:
        case "heads":
            return [{}]
        case "scan":
            return [{}, *({name: level} for name, values in levels.items() for level in values)]
        case "full":
            _check_size(math.prod(map(len, levels.values())))
            return [dict(zip(levels, point, strict=True)) for point in itertools.product(*levels.values())]
        case "latin-hypercube":
            return _latin_hypercube(design, factors)
    signs = pyDOE3.pbdesign(len(levels)) if design.kind == "plackett-burman" else _fraction(design, len(levels))
    return [
        {name: pair[int(sign > 0)] for (name, pair), sign in zip(levels.items(), row, strict=True)} for row in signs
    ]


def _fraction(design: DesignPlan, n_factors: int) -> NDArray[Any]:
    """Return the signs of a regular two-level fraction, by generators or as the smallest of a resolution (pyDOE3)."""
    if design.generators is None:
        request = f"resolution={design.resolution} of {n_factors} factors"
    else:
        request, words = f"generators={design.generators!r}", design.generators.split()
        if len(words) != n_factors:
            raise ConfigError(f"{request} are for {len(words)} factors; the plan has {n_factors}")
        _check_size(2 ** sum(len(word) == 1 for word in words))
    try:
        signs: NDArray[Any] = (
            pyDOE3.fracfact_by_res(n_factors, design.resolution)
            if design.generators is None
            else pyDOE3.fracfact(design.generators)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ConfigError(
            f"{request}: no such fraction is known ({error}); give generators, another resolution, or kind full"
        ) from error
    return signs


def _latin_hypercube(design: DesignPlan, factors: Levels) -> list[Point]:
    assert design.samples is not None
    _check_size(design.samples)
    fractions = pyDOE3.lhs(len(factors), samples=design.samples, seed=np.random.default_rng(design.seed))
    return [
        {
            name: _level_at(levels, float(fraction))
            for (name, levels), fraction in zip(factors.items(), row, strict=True)
        }
        for row in fractions
    ]


def _level_at(levels: Sequence[Level] | LevelRange, fraction: float) -> Level:
    """Return the level at a fraction (0 to 1) of a range or of a list of levels."""
    if not isinstance(levels, LevelRange):
        return levels[min(int(fraction * len(levels)), len(levels) - 1)]
    if levels.integer:  # each integer gets the same fraction, or that of its part of the logarithm
        low, high = math.ceil(levels.low), math.floor(levels.high)
        if levels.log:
            return min(int(low * ((high + 1) / low) ** fraction), high)
        return min(low + int(fraction * (high - low + 1)), high)
    if levels.log:
        return float(levels.low * (levels.high / levels.low) ** fraction)
    return levels.low + fraction * (levels.high - levels.low)


def _check_size(points: int) -> None:
    if points > MAX_POINTS:
        raise ConfigError(
            f"this design has {points:,} points, more than the limit of {MAX_POINTS:,}; use a fractional design"
        )
