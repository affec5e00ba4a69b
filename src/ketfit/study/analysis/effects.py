"""Effects of factors in designed studies, and checks that a design can estimate them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ketfit.errors import ConfigError, InputError, optional_imports
from ketfit.study.analysis.hypothesis_tests import ROUNDING, check_between, finite_array, holm, t_test

Floats = NDArray[np.float64]

MEAN, BLOCKS = "the mean", "the blocks"
MAX_NAMES = 12  # names in one group of an error


@dataclass(frozen=True)
class Design:
    """Points of an experiment and the terms to estimate from it.

    Attributes:
        points: One mapping {factor: level} for each observation, all with the same factors.
        factors: Levels of each factor in order, low first; default: the sorted levels in `points`.
        interactions: True for all pairs of two-level factors, False for none, or ``[("a", "b"), ("a", "b", "c")]``.
        blocks: The block of each observation, such as its seed.
    """

    points: Sequence[Mapping[str, Hashable]]
    factors: Mapping[str, Sequence[Hashable]] | None = None
    interactions: bool | Sequence[tuple[str, ...]] = True
    blocks: Sequence[Hashable] | None = None


@dataclass(frozen=True)
class Term:
    """One effect: ``"a"`` of a two-level factor, ``"a[level]"`` of one with more, ``"a:b"`` of an interaction.

    `low` and `high` bound the effect at the given level; `p_value` tests for no effect, `p_adjusted` is adjusted by
    Holm over all terms. All but `effect` are None if no degree of freedom is left to estimate the error.
    """

    name: str
    source: str
    effect: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    statistic: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True)
class SourceTest:
    """Joint F test of all terms of a factor or an interaction, with (`df`, `df_error`) degrees of freedom.

    `p_adjusted` is adjusted by Holm over all sources. Values are None if the error cannot be estimated.
    """

    name: str
    df: int
    df_error: int
    statistic: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True)
class Effects:
    """Least-squares effects of a study of `n` observations.

    `df` are the degrees of freedom of the terms' errors; `residual_spread` is the residual standard deviation, None
    if it is zero; `r_squared` is the share of variance that terms and blocks explain, None without variance.
    """

    terms: tuple[Term, ...]
    sources: tuple[SourceTest, ...]
    n: int
    df: int
    residual_spread: float | None
    r_squared: float | None
    error: Literal["residual", "blocks"]
    level: float


@dataclass(frozen=True)
class HalfNormal:
    """Points of a half-normal plot in order of absolute effect, with Lenth's margins.

    Effects that are noise lie on a line through the origin with the slope `pseudo_error`, Lenth's pseudo standard
    error (PSE). One effect named beforehand is significant above `margin` (ME); the largest effects, picked
    afterwards, above `simultaneous_margin` (SME).
    """

    names: tuple[str, ...]
    effects: tuple[float, ...]
    quantiles: tuple[float, ...]
    pseudo_error: float
    margin: float
    simultaneous_margin: float


class ModelMatrix(NamedTuple):
    """Model matrix with the name and source of each column; the `nuisance` columns (mean, blocks) come first."""

    matrix: Floats
    names: tuple[str, ...]
    sources: tuple[str, ...]
    nuisance: int


def main_effects(
    design: Design, response: ArrayLike, *, error: Literal["residual", "blocks"] = "residual", level: float = 0.95
) -> Effects:
    """Estimate main effects and interactions of factors on a response by least squares.

    The effect of a two-level factor is mean(high) - mean(low); ``a:b`` is half the difference of a's effects at the
    two levels of b, as in Montgomery's Design and Analysis of Experiments (ch. 6). A factor of k levels has k - 1
    terms, each a level against the first, and one joint F test.

    Blocks remove the mean of each block (seed). ``error="residual"`` pools all residuals into one error, which is
    right only if an effect is the same for each seed. ``error="blocks"`` estimates the effects in each block and tests
    their mean over blocks with (blocks - 1) degrees of freedom, which holds for new seeds also if effects vary between
    seeds; each block must contain the whole design. Both treat the test sentences as fixed.

    Args:
        design: The points and the terms.
        response: Shape (n,), such as accuracies.
        error: Source of the error estimate.
        level: Confidence level of the intervals.

    Raises:
        ConfigError: The design cannot estimate all terms (the message names them), or a factor or setting is invalid.
        InputError: The response is not finite numbers or has another length than `points`.
        MissingExtraError: statsmodels is not installed.

    >>> points = [{"a": 0}, {"a": 1}, {"a": 0}, {"a": 1}]
    >>> round(main_effects(Design(points), [1.0, 3.0, 2.0, 4.0]).terms[0].effect, 6)
    2.0
    """
    check_between(level, "level")
    y = finite_array(response, "response")
    if len(y) != len(design.points):
        raise InputError(f"{len(design.points)} points but {len(y)} responses; give one response for each point")
    blocks = () if design.blocks is None else design.blocks
    if error not in ("residual", "blocks") or (error == "blocks" and len(set(blocks)) < 2):
        raise ConfigError(f"error {error!r} is not possible; take 'residual', or 'blocks' with at least two blocks")
    model = check_estimable(design)
    with optional_imports("Estimating the effects of factors", "study"):
        from statsmodels.regression.linear_model import OLS

    fit = OLS(y, model.matrix).fit()
    smallest = ROUNDING * float(np.abs(y).max())
    spread = math.sqrt(fit.ssr / fit.df_resid) if fit.df_resid else 0.0
    r_squared = 1 - float(fit.ssr) / float(((y - y.mean()) ** 2).sum()) if np.ptp(y) > 0 else None
    if error == "blocks":
        df, estimates, covariance = _over_blocks(model, y, blocks)
    else:
        df, estimates = int(fit.df_resid), np.asarray(fit.params)[model.nuisance :]
        covariance = spread**2 * np.asarray(fit.normalized_cov_params)[model.nuisance :, model.nuisance :]
    errors = np.sqrt(np.diag(covariance)) if df > 0 else np.zeros(len(estimates))
    terms = _terms(model, estimates, np.where(errors > smallest, errors, 0), df, level)
    sources = _sources(terms, estimates, covariance, df, error)
    left = spread if spread > smallest else None
    return Effects(terms, sources, len(y), df, left, r_squared, error, level)


def _over_blocks(model: ModelMatrix, y: Floats, blocks: Sequence[Hashable]) -> tuple[int, Floats, Floats]:
    """Return the degrees of freedom, mean and covariance of the mean of the effects estimated per block."""
    columns = [0, *range(model.nuisance, len(model.names))]
    found = []
    for block in dict.fromkeys(blocks):
        rows = [row for row, other in enumerate(blocks) if other == block]
        part = model.matrix[np.ix_(rows, columns)]
        if np.linalg.matrix_rank(part) < len(columns):
            raise ConfigError(f"block {block!r} lacks points of the design; run them or take error='residual'")
        found.append(np.linalg.lstsq(part, y[rows], rcond=None)[0][1:])
    effects = np.array(found)
    return len(found) - 1, effects.mean(axis=0), np.atleast_2d(np.cov(effects, rowvar=False)) / len(found)


def _terms(model: ModelMatrix, estimates: Floats, errors: Floats, df: int, level: float) -> tuple[Term, ...]:
    terms = []
    for column, (effect, error) in enumerate(zip(estimates.tolist(), errors.tolist(), strict=True), model.nuisance):
        tested = (error, *t_test(effect, error, df, level)) if error else ()
        terms.append(Term(model.names[column], model.sources[column], effect, *tested))
    adjusted = holm([term.p_value for term in terms])
    return tuple(replace(term, p_adjusted=p) for term, p in zip(terms, adjusted, strict=True))


def _sources(
    terms: Sequence[Term], estimates: Floats, covariance: Floats, df: int, error: str
) -> tuple[SourceTest, ...]:
    found = []
    for name in dict.fromkeys(term.source for term in terms):
        indices = [index for index, term in enumerate(terms) if term.source == name]
        part, size = covariance[np.ix_(indices, indices)], len(indices)
        # A covariance estimated from few blocks costs degrees of freedom: Hotelling's T^2.
        df_error = df - size + 1 if error == "blocks" else df
        if df_error < 1 or any(terms[index].p_value is None for index in indices) or np.linalg.cond(part) > 1e12:
            found.append(SourceTest(name, size, max(df_error, 0)))
            continue
        f = float(estimates[indices] @ np.linalg.solve(part, estimates[indices])) / size * df_error / df
        found.append(SourceTest(name, size, df_error, f, float(stats.f.sf(f, size, df_error))))
    adjusted = holm([source.p_value for source in found])
    return tuple(replace(source, p_adjusted=p) for source, p in zip(found, adjusted, strict=True))


def check_estimable(design: Design) -> ModelMatrix:
    """Return the model of a design that can estimate all its terms.

    Raises:
        ConfigError: Terms are aliased, wholly or in part (the message names them), or a factor has one level.
    """
    model, messages = _model(design), []
    for group in _aliases(model):
        names = list(dict.fromkeys(model.sources[column] for column in sorted(group)))
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        alone = f"the levels of {names[0]} apart (a combination is missing)"
        messages.append(" from ".join(names[:MAX_NAMES]) + more if len(names) > 1 else alone)
    if messages:
        mixed = "; ".join(dict.fromkeys(messages))
        raise ConfigError(f"this design cannot tell {mixed}: ask for fewer interactions or take a larger design")
    return model


def confounded_interactions(design: Design) -> dict[str, list[str]]:
    """Return the interactions of two factors that bias each main effect of a design, wholly or in part.

    These are the entries of the alias matrix (Box and Wilson 1951): a main effect, estimated without interactions,
    has as its expectation the true effect plus these interactions. Factors of more than two levels have no interactions
    here. Terms without confounding are omitted.

    Raises:
        ConfigError: A factor has one level, or its levels cannot be sorted.

    >>> half = [{"a": a, "b": b, "c": a ^ b} for a in (0, 1) for b in (0, 1)]
    >>> confounded_interactions(Design(half))
    {'a': ['b:c'], 'b': ['a:c'], 'c': ['a:b']}
    """
    model = _model(replace(design, interactions=True))
    apart = [index for index, source in enumerate(model.sources) if ":" not in source]
    pairs = [index for index, source in enumerate(model.sources) if ":" in source]
    aliases = np.linalg.lstsq(model.matrix[:, apart], model.matrix[:, pairs], rcond=None)[0]
    found = {}
    for row, index in enumerate(apart):
        biased_by = [model.names[pair] for pair, weight in zip(pairs, aliases[row], strict=True) if abs(weight) > 1e-6]
        if index >= model.nuisance and biased_by:
            found[model.names[index]] = biased_by
    return found


def _aliases(model: ModelMatrix) -> list[set[int]]:
    """Return the smallest groups of linearly dependent columns."""
    rows = np.unique(model.matrix, axis=0)
    independent: list[int] = []
    groups: list[set[int]] = []
    for column in range(rows.shape[1]):
        weights = np.linalg.lstsq(rows[:, independent], rows[:, column], rcond=None)[0]
        rest = rows[:, column] - rows[:, independent] @ weights
        if np.linalg.norm(rest) > 1e-8 * math.sqrt(len(rows)):
            independent.append(column)
            continue
        group = {column, *(independent[index] for index in np.flatnonzero(np.abs(weights) > 1e-6))}
        apart = [other for other in groups if not other & group]
        groups = [*apart, group.union(*(other for other in groups if other & group))]
    return sorted(groups, key=min)


def _model(design: Design) -> ModelMatrix:
    points, blocks, levels = design.points, design.blocks, _levels(design)
    coded = {name: _coded(name, [point[name] for point in points], order) for name, order in levels.items()}
    columns: list[tuple[str, str, Floats]] = [(MEAN, MEAN, np.ones(len(points)))]
    if blocks is not None:
        if len(blocks) != len(points):
            raise InputError(f"{len(points)} points but {len(blocks)} blocks; give one block for each point")
        columns += [(BLOCKS, BLOCKS, column) for _, column in _coded(BLOCKS, blocks, list(dict.fromkeys(blocks)))]
    nuisance = len(columns)
    for names in [(name,) for name in levels] + _interactions(design, levels):
        for parts in product(*(coded[name] for name in names)):
            # Factors are coded 1 apart; the power of two makes an interaction half a difference of effects.
            column = np.prod([column for _, column in parts], axis=0) * 2.0 ** (len(names) - 1)
            columns.append((":".join(label for label, _ in parts), ":".join(names), column))
    labels, sources, values = zip(*columns, strict=True)
    return ModelMatrix(np.column_stack(values), labels, sources, nuisance)


def _coded(name: str, values: Sequence[Hashable], order: Sequence[Hashable]) -> list[tuple[str, Floats]]:
    """Return the name and the column of each level but the first, centred for equally frequent levels."""
    names = [name if len(order) == 2 else f"{name}[{level}]" for level in order]
    columns = [np.array([value == level for value in values]) - 1 / len(order) for level in order]
    return list(zip(names, columns, strict=True))[1:]


def _levels(design: Design) -> dict[str, tuple[Any, ...]]:
    points, factors = design.points, design.factors
    if not points:
        raise ConfigError("the design has no points; give one mapping {factor: level} for each run")
    names = list(points[0] if factors is None else factors)
    found: dict[str, tuple[Any, ...]] = {}
    for index, point in enumerate(points):
        if set(point) != set(names):
            raise ConfigError(f"point {index} has the factors {sorted(point)}, not {sorted(names)}; give all to each")
    for name in names:
        seen = {point[name] for point in points}
        try:
            order = tuple(sorted(seen)) if factors is None else tuple(factors[name])  # type: ignore[type-var]
        except TypeError:
            raise ConfigError(f"the levels of {name} cannot be sorted; give their order as factors=") from None
        if len(order) < 2:
            raise ConfigError(f"factor {name} has the levels {list(order)}; give it two or more, or leave it out")
        if set(order) != seen or len(set(order)) < len(order):
            raise ConfigError(f"factor {name} has the levels {list(order)}, but the points have {list(seen)}")
        found[name] = order
    return found


def _interactions(design: Design, levels: Mapping[str, Sequence[Any]]) -> list[tuple[str, ...]]:
    if isinstance(design.interactions, bool):
        pairs = combinations([name for name, order in levels.items() if len(order) == 2], 2)
        return list(pairs) if design.interactions else []
    for names in design.interactions:
        if isinstance(names, str) or len(names) < 2 or len(set(names)) < len(names) or not set(names) <= set(levels):
            raise ConfigError(f"interaction {names!r} must name two or more of the factors {', '.join(levels)}")
    return [tuple(names) for names in design.interactions]


def half_normal(effects: Effects, *, level: float = 0.95) -> HalfNormal:
    """Return the half-normal plot (Daniel 1959) of the effects with Lenth's margins (1989).

    For two-level designs without replicates. Most effects should be noise of one variance.

    Raises:
        ConfigError: There are fewer than three effects, a factor has more than two levels, or `level` is not in (0, 1).
    """
    check_between(level, "level")
    m = len(effects.terms)
    if m < 3 or any(source.df > 1 for source in effects.sources):
        raise ConfigError("a half-normal plot needs three or more effects, all of two-level factors")
    sizes, names = zip(*sorted((abs(term.effect), term.name) for term in effects.terms), strict=True)
    noise = [size for size in sizes if size < 2.5 * 1.5 * np.median(sizes)]
    pseudo = 1.5 * float(np.median(noise)) if noise else 0.0
    each, together = (float(stats.t.ppf((1 + part) / 2, m / 3)) * pseudo for part in (level, level ** (1 / m)))
    quantiles = stats.norm.ppf(0.5 + 0.5 * (np.arange(1, m + 1) - 0.5) / m)
    return HalfNormal(names, sizes, tuple(quantiles.tolist()), pseudo, each, together)
