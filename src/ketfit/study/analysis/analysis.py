"""Analysis of a study: cells, comparisons with the reference, scans, trends, effects of factors, and caveats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from typing import Any

from ketfit.errors import ConfigError
from ketfit.study.analysis.caveats import Caveat, find_caveats
from ketfit.study.analysis.cells import (
    Cell,
    Group,
    by_head,
    crossed_difference,
    group_results,
    is_on_line,
    make_cell,
    own_levels,
    representative_groups,
    varied_groups,
)
from ketfit.study.analysis.comparisons import HeadComparison, compare_all
from ketfit.study.analysis.effects import Design, Effects, HalfNormal, half_normal, main_effects
from ketfit.study.analysis.hypothesis_tests import CrossedTest, Summary, summarize
from ketfit.study.analysis.trends import Trend, find_trends
from ketfit.study.spec import NONE, LevelRange, StudyPlan
from ketfit.study.store import StudyRecord, TaskResult

BALANCED = ("full", "fractional", "plackett-burman")
"""Balanced designs: plain means over the other factors can be compared."""


@dataclass(frozen=True)
class Marginal:
    """Mean accuracy at the levels of one or two factors, averaged over the other factors; one value per seed."""

    factors: tuple[str, ...]
    levels: tuple[Any, ...]
    values: tuple[float, ...]
    accuracy: Summary


@dataclass(frozen=True)
class HeadEffects:
    """The effects of the factors on one head on one body.

    `seeds` are the blocks; `left_out` are seeds without the whole design. `problem` says why nothing is estimated.
    """

    body: str
    head: str
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    effects: Effects | None = None
    half_normal: HalfNormal | None = None
    marginals: tuple[Marginal, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class ScanPoint:
    """One level of a scanned factor; `difference` is that to the head's own setting, on their common seeds."""

    level: Any
    own: bool
    values: tuple[float, ...]
    accuracy: Summary
    difference: CrossedTest | None


@dataclass(frozen=True)
class Scan:
    """Levels of one factor of one head on one body; the other factors have the head's own levels."""

    body: str
    head: str
    factor: str
    points: tuple[ScanPoint, ...]


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report; `study` describes the runs."""

    study: Mapping[str, Any]
    cells: tuple[Cell, ...]
    comparisons: tuple[HeadComparison, ...]
    scans: tuple[Scan, ...]
    trends: tuple[Trend, ...]
    effects: tuple[HeadEffects, ...]
    caveats: tuple[Caveat, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)


def analyse(record: StudyRecord, results: Mapping[str, TaskResult]) -> Analysis:
    """Analyse the results of a finished or unfinished study.

    Args:
        record: The plan and the tasks of the study.
        results: Results by task id; those of other studies are ignored.
    """
    groups = group_results(record, results)
    representative = representative_groups(record, groups)
    cells = tuple(make_cell(group, record, representative.get((group.body, group.head)) is group) for group in groups)
    comparisons = compare_all(record, groups, representative)
    return Analysis(
        study=_study(record, results, groups),
        cells=cells,
        comparisons=comparisons,
        scans=_scans(record, groups) if record.plan.design.kind == "scan" else (),
        trends=find_trends(record, groups),
        effects=_all_effects(record, groups) if record.plan.design.estimate != "nothing" else (),
        caveats=find_caveats(record, groups, cells, comparisons),
    )


def _study(record: StudyRecord, results: Mapping[str, TaskResult], groups: Sequence[Group]) -> dict[str, Any]:
    plan = record.plan
    mine = {task.id: results[task.id] for task in record.tasks if task.id in results}
    failed = sum(result.error is not None for result in mine.values())
    planned = len({task.id for task in record.tasks})
    test_sizes = {size for group in groups for size in group.values("test_size")}
    times = sorted(str(result.run["finished"]) for result in mine.values() if result.run.get("finished"))
    return {
        "name": plan.name,
        "question": plan.question,
        "command": record.command,
        "versions": dict(record.versions),
        "data": record.data.model_dump(mode="json"),
        "bodies": {name: body.model_dump(mode="json") for name, body in record.bodies.items()},
        "design": plan.design.model_dump(mode="json"),
        "reference": plan.report.reference,
        "margin": plan.report.margin,
        "level": plan.report.level,
        "seeds": list(plan.seeds),
        "tasks": planned,
        "done": len(mine) - failed,
        "failed": failed,
        "missing": planned - len(mine),
        "train_sizes": _range({record.train_size(split) for split in record.draws}),
        "validation_sizes": _range({record.validation_size(split) for split in record.draws}),
        "test_sizes": _range(test_sizes),
        "finished": [times[0], times[-1]] if times else [],
        "hosts": sorted({str(result.run.get("host")) for result in mine.values()}),
    }


def _range(sizes: Collection[int]) -> list[int]:
    """Return the smallest and the largest size, once if they are equal; nothing without sizes."""
    return sorted({min(sizes), max(sizes)}) if sizes else []


def _all_effects(record: StudyRecord, groups: Sequence[Group]) -> tuple[HeadEffects, ...]:
    return tuple(_effects(record.plan, mine) for mine in by_head(varied_groups(record, groups)).values())


def _effects(plan: StudyPlan, groups: Sequence[Group]) -> HeadEffects:
    seeds = tuple(seed for seed in plan.seeds if all(seed in group.results for group in groups))
    left_out = tuple(seed for seed in plan.seeds if seed not in seeds)
    found = HeadEffects(groups[0].body, groups[0].head, seeds, left_out)
    if not seeds:
        return replace(found, problem="no seed has a result for the whole design yet")
    levels = {
        factor: ordered_levels(plan, factor, [group.levels[factor] for group in groups]) for factor in groups[0].levels
    }
    cases = [(seed, group) for seed in seeds for group in groups]
    pairs = plan.design.estimate == "interactions"
    try:
        effects = main_effects(
            Design([group.levels for _, group in cases], levels, pairs, [seed for seed, _ in cases]),
            [group.value("test_accuracy", seed) for seed, group in cases],
            error="blocks" if len(seeds) > 1 else "residual",
            level=plan.report.level,
        )
    except ConfigError as error:
        return replace(found, problem=str(error))
    plot = None
    with suppress(ConfigError):  # too few effects, or factors of more than two levels
        plot = half_normal(effects, level=effects.level)
    marginals = _marginals(groups, seeds, levels, plan.report.level, pairs) if plan.design.kind in BALANCED else ()
    return replace(found, effects=effects, half_normal=plot, marginals=marginals)


def _marginals(
    groups: Sequence[Group], seeds: Sequence[int], levels: Mapping[str, Sequence[Any]], level: float, pairs: bool
) -> tuple[Marginal, ...]:
    combined: list[tuple[str, ...]] = [(factor,) for factor in levels]
    combined += list(combinations(levels, 2)) if pairs else []
    found = []
    for factors in combined:
        for point in product(*(levels[factor] for factor in factors)):
            matching = [g for g in groups if all(g.levels[f] == v for f, v in zip(factors, point, strict=True))]
            if matching:
                values = tuple(sum(g.value("test_accuracy", seed) for g in matching) / len(matching) for seed in seeds)
                found.append(Marginal(factors, point, values, summarize(values, level=level)))
    return tuple(found)


def _scans(record: StudyRecord, groups: Sequence[Group]) -> tuple[Scan, ...]:
    found = []
    for (body, head), mine in by_head(group for group in groups if group.levels).items():
        own = own_levels(record, mine[0])
        base = next((group for group in mine if group.levels == own), None)
        for factor in own:
            line = [group for group in mine if group.results and is_on_line(record, group, factor)]
            order = ordered_levels(record.plan, factor, [group.levels[factor] for group in line])
            line.sort(key=lambda group, order=order, factor=factor: order.index(group.levels[factor]))  # type: ignore[misc]
            points = (_scan_point(record, group, base, factor) for group in line)
            found.append(Scan(body, head, factor, tuple(points)))
    return tuple(found)


def _scan_point(record: StudyRecord, group: Group, base: Group | None, factor: str) -> ScanPoint:
    values = tuple(group.values("test_accuracy"))
    seeds = group.common_seeds(base) if base is not None and group is not base else []
    difference = crossed_difference(record, group, base, seeds) if base is not None and len(seeds) > 1 else None
    accuracy = summarize(values, level=record.plan.report.level)
    return ScanPoint(group.levels[factor], group is base, values, accuracy, difference)


def ordered_levels(plan: StudyPlan, factor: str, seen: Sequence[Any]) -> tuple[Any, ...]:
    """Return the levels in `seen` in the order of the plan, low first; numbers are sorted if the plan lacks one."""
    planned = plan.factors[factor]
    levels = list(dict.fromkeys(seen))
    if isinstance(planned, LevelRange):
        return tuple(sorted(levels))
    known = [level for level in (None if level == NONE else level for level in planned) if level in levels]
    others = [level for level in levels if level not in known]
    if others and all(isinstance(level, (int, float)) for level in levels):
        return tuple(sorted(levels))
    return (*others, *known)
