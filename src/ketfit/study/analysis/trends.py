"""Trends: slopes of accuracy on the ordered levels of a factor, with seeds as blocks.

Each seed is a block of its own: its slope is that of least squares over its runs, which train on the same sentences,
and the trend is the mean of the seeds' slopes. This is ordinary least squares with a dummy variable for each seed. A
mixed model with a random intercept and a random slope for each seed estimates the same; with all levels run for all
seeds it has the same slope and standard error. Blocks were chosen because they need no iterations, which fail for few
seeds or a variance of zero, because their t test has the degrees of freedom of the seeds where the mixed model takes a
normal distribution, and because the sentences can be crossed with them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ketfit.errors import InputError
from ketfit.study.analysis.cells import Group, by_head, is_on_line
from ketfit.study.analysis.hypothesis_tests import CrossedTest, check_between, crossed_mean, holm
from ketfit.study.spec import LevelRange, StudyPlan, TrendScale, is_number
from ketfit.study.store import StudyRecord

MIN_DOUBLINGS = 2
"""Doublings from the smallest to the largest level from which on a doubling can be the natural step."""


class TrendRun(NamedTuple):
    """One run of a seed.

    Attributes:
        x: Level on the scale of the trend.
        correct: Test sentences that the head has right; bool, shape (n,).
        sentences: Positions of its test sentences in the data set, sorted, each once; integers, shape (n,).
        line: Levels of the other factors; only runs with the same ones are compared.
    """

    x: float
    correct: NDArray[np.bool_]
    sentences: NDArray[np.integer[Any]]
    line: Hashable = None


@dataclass(frozen=True)
class TrendTest(CrossedTest):
    """Slope of accuracy per unit of x; `slopes` are those of the seeds, `weights` their shares in the mean."""

    slopes: tuple[float, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Trend:
    """Slope of accuracy on the levels of one factor, for one head on one body.

    Attributes:
        levels: Levels with a result, in order.
        scale: "log2": the slope is per doubling of the level; "linear": per `step` of it.
        step: Step of a linear scale: 1 for integer levels, else the smallest distance of two levels of the plan.
        seeds: Seeds with results at two levels or more.
        slopes: Slope of each of these seeds, a fraction.
        slope: Their mean, weighted by the spread of each seed's levels; equal weights if every seed has all levels.
        test: Test of `slope` against 0, for new seeds and new sentences; None for one seed.
        adjusted_p: p-value of `test`, adjusted by Holm over a family of trends, by default those of the study.
    """

    body: str
    head: str
    factor: str
    levels: tuple[float, ...]
    scale: TrendScale
    step: float
    seeds: tuple[int, ...]
    slopes: tuple[float, ...]
    slope: float
    test: TrendTest | None
    adjusted_p: float | None = None


class _SeedSlope(NamedTuple):
    """Slope of one seed: the mean of one value for each sentence that all its runs test on."""

    values: NDArray[np.float64]
    sentences: NDArray[np.integer[Any]]
    information: float


def trend_test(
    seeds: Sequence[Sequence[TrendRun]], *, test_train_ratio: float | None = None, level: float = 0.95
) -> TrendTest:
    """Test the slope of accuracy on x, with seeds as blocks, for new seeds and new sentences.

    The slope is that of least squares with a fixed effect for each seed (and each of its lines): the mean of the seeds'
    slopes b_j, weighted by the sums of squares S_j of their x. Seeds may lack different levels; one whose x are all
    equal has no slope and is left out. Each b_j is the mean over sentences of a contrast of its runs, so that seeds and
    sentences are crossed as in `crossed_test`; with the same x for all seeds, the part of the seeds is that of a t
    test of their slopes. Sentences that not all runs of a seed test on are left out: only runs that draw different
    numbers of training sentences have any.

    Args:
        seeds: For each seed, its runs.
        test_train_ratio: n_test / n_train of repeated hold-outs; see `crossed_test`.
        level: Confidence level of the interval.

    Raises:
        InputError: Fewer than two seeds have runs at two x, or the runs of a seed have no sentence in common.
        ConfigError: `level` or `test_train_ratio` is out of range.

    >>> right, wrong, sentences = np.ones(4, bool), np.zeros(4, bool), np.arange(4)
    >>> seed = [TrendRun(0, wrong, sentences), TrendRun(2, right, sentences)]
    >>> trend_test([seed, seed]).difference
    0.5
    """
    check_between(level, "level")
    ratio = 0.0 if test_train_ratio is None else check_between(test_train_ratio, "test_train_ratio", math.inf)
    found = [slope for slope in map(_seed_slope, seeds) if slope is not None]
    if len(found) < 2:
        raise InputError(f"{len(found)} of {len(seeds)} seeds have runs at two levels; a test needs two such seeds")
    information = np.array([slope.information for slope in found])
    weights = information / information.sum()
    test = crossed_mean(
        [slope.values for slope in found],
        [slope.sentences for slope in found],
        weights=weights,
        ratio=ratio,
        level=level,
    )
    slopes = tuple(float(slope.values.mean()) for slope in found)
    return TrendTest(**vars(test), slopes=slopes, weights=tuple(weights.tolist()))


def _seed_slope(runs: Sequence[TrendRun]) -> _SeedSlope | None:
    """Return the slope of a seed, or None if no line has runs at two x."""
    lines: dict[Hashable, list[float]] = {}
    for run in runs:
        lines.setdefault(run.line, []).append(run.x)
    centred = np.array([run.x - np.mean(lines[run.line]) for run in runs])
    information = float(centred @ centred)
    if information <= 1e-12 * sum(run.x**2 for run in runs):
        return None
    common = reduce(partial(np.intersect1d, assume_unique=True), [run.sentences for run in runs])
    if len(common) < 2:
        raise InputError("the runs of a seed have fewer than two test sentences in common; draw fewer to train on")
    correct = np.stack([run.correct[np.searchsorted(run.sentences, common)] for run in runs])
    return _SeedSlope(centred @ correct / information, common, information)


def natural_scale(levels: Iterable[float]) -> TrendScale:
    """Return the scale on which a plan's numeric levels are spaced most evenly.

    "log2" if all levels are above zero, the largest is at least four times the smallest, and the steps between their
    logarithms are at least as even as those between the levels (by the coefficient of variation); else "linear".

    >>> natural_scale([1, 2, 4, 8]), natural_scale([1, 2, 3, 4]), natural_scale([10, 12, 14, 16])
    ('log2', 'linear', 'linear')
    """
    ordered = np.unique(np.array(list(levels), np.float64))
    if ordered[0] <= 0 or ordered[-1] < 2**MIN_DOUBLINGS * ordered[0]:
        return "linear"
    even, even_log = (float(steps.std() / steps.mean()) for steps in (np.diff(ordered), np.diff(np.log2(ordered))))
    return "log2" if even_log <= even else "linear"


def find_trends(record: StudyRecord, groups: Sequence[Group]) -> tuple[Trend, ...]:
    """Return the trend of each factor with numeric levels, for each head and body of a scan or a full design.

    A scan has the trend over the levels of one factor at the head's own settings, which count as a level. A full design
    has the trend at each combination of the other factors, averaged. Levels that are not numbers take no part, and a
    factor with results at fewer than two numeric levels has no trend. `adjusted_p` is by Holm over all of them.
    """
    plan = record.plan
    if plan.design.kind not in ("scan", "full"):
        return ()
    found: list[Trend] = []
    for mine in by_head(group for group in groups if group.levels).values():
        for factor in mine[0].levels:
            planned = numeric_levels(plan, factor)
            if len(planned) > 1:
                on_line = [group for group in mine if plan.design.kind == "full" or is_on_line(record, group, factor)]
                found += _trend(record, on_line, factor, planned)
    return adjust_trends(found)


def numeric_levels(plan: StudyPlan, factor: str) -> list[float]:
    """Return the levels of a plan's factor that are numbers."""
    levels = plan.factors[factor]
    return [] if isinstance(levels, LevelRange) else [level for level in levels if is_number(level)]


def adjust_trends(trends: Iterable[Trend]) -> tuple[Trend, ...]:
    """Return trends with `adjusted_p` by Holm over all of them; they may come from several studies."""
    family = tuple(trends)
    adjusted = holm([trend.test.p_value if trend.test else None for trend in family])
    return tuple(replace(trend, adjusted_p=p) for trend, p in zip(family, adjusted, strict=True))


def _trend(record: StudyRecord, groups: Sequence[Group], factor: str, planned: Sequence[float]) -> Iterator[Trend]:
    report = record.plan.report
    scale = report.trends.get(factor) or natural_scale(planned)
    whole = all(isinstance(level, int) for level in planned)
    step = 1.0 if whole else float(np.diff(np.unique(planned)).min())
    lowest = 0 if scale == "log2" else -math.inf
    used = [group for group in groups if is_number(group.levels[factor]) and group.levels[factor] > lowest]
    runs: dict[int, list[TrendRun]] = {seed: [] for seed in record.plan.seeds}
    draws = {}
    for group in used:
        level, line = group.levels[factor], {name: each for name, each in group.levels.items() if name != factor}
        x = math.log2(level) if scale == "log2" else level / step
        for seed in group.results:
            positions = record.test_positions(group.draws[seed])
            runs[seed].append(TrendRun(x, group.correct(seed), positions, json.dumps(line, sort_keys=True)))
            draws[seed] = group.draws[seed]
    slopes = {seed: slope for seed, each in runs.items() if (slope := _seed_slope(each)) is not None}
    if not slopes:
        return
    first, *others = slopes
    test = None
    if others:
        ratio = record.test_train_ratio(draws[first])
        test = trend_test([runs[seed] for seed in slopes], test_train_ratio=ratio, level=report.level)
    own = tuple(float(slope.values.mean()) for slope in slopes.values())
    yield Trend(
        body=groups[0].body,
        head=groups[0].head,
        factor=factor,
        levels=tuple(sorted({group.levels[factor] for group in used if group.results})),
        scale=scale,
        step=step,
        seeds=tuple(slopes),
        slopes=own,
        slope=own[0] if test is None else test.difference,
        test=test,
    )
