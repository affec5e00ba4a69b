"""Analysis of a study: cells, comparisons with the reference, scans, effects of factors, and caveats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import Any

from ketfit.errors import ConfigError
from ketfit.study.analysis.caveats import Caveat, find_caveats
from ketfit.study.analysis.cells import Cell, Group, group_rows, make_cell, own_levels, representative_groups
from ketfit.study.analysis.comparisons import HeadComparison, compare_all
from ketfit.study.analysis.effects import Effects, HalfNormal, half_normal, main_effects
from ketfit.study.analysis.hypothesis_tests import CrossedTest, Summary, crossed_test, summarize
from ketfit.study.spec import LevelRange, StudyPlan
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
    effects: tuple[HeadEffects, ...]
    caveats: tuple[Caveat, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)


def analyse(record: StudyRecord, rows: Mapping[str, TaskResult]) -> Analysis:
    """Analyse the rows of a finished or unfinished study.

    Args:
        record: The plan and the tasks of the study.
        rows: Results by task id; rows of other studies are ignored.
    """
    groups = group_rows(record, rows)
    representative = representative_groups(record, groups)
    cells = tuple(make_cell(group, record, representative.get((group.body, group.head)) is group) for group in groups)
    comparisons = compare_all(record, groups, representative)
    effects = _all_effects(record, groups) if record.plan.design.estimate != "nothing" else ()
    scans = _scans(record, groups) if record.plan.design.kind == "scan" else ()
    return Analysis(
        study=_study(record, rows, groups),
        cells=cells,
        comparisons=comparisons,
        scans=scans,
        effects=effects,
        caveats=find_caveats(record, groups, cells, comparisons),
    )


def _study(record: StudyRecord, rows: Mapping[str, TaskResult], groups: Sequence[Group]) -> dict[str, Any]:
    plan = record.plan
    mine = {task.id: rows[task.id] for task in record.tasks if task.id in rows}
    failed = sum(row.error is not None for row in mine.values())
    planned = len({task.id for task in record.tasks})
    drawn = record.drawn_size
    sizes = sorted({size for group in groups for size in group.results("test_size")})
    times = sorted(str(row.run.get("finished")) for row in mine.values() if row.run.get("finished"))
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
        "train_size": drawn - round(drawn * plan.data.validation_fraction),
        "validation_size": round(drawn * plan.data.validation_fraction),
        "test_sizes": sizes[:1] + sizes[-1:] if len(sizes) > 1 else sizes,
        "finished": [times[0], times[-1]] if times else [],
        "hosts": sorted({str(row.run.get("host")) for row in mine.values()}),
    }


def _all_effects(record: StudyRecord, groups: Sequence[Group]) -> tuple[HeadEffects, ...]:
    """Return the effects on the varied quantum heads, or on all varied heads if none of them is quantum."""
    varied = [group for group in groups if group.levels]
    quantum = [group for group in varied if record.plan.heads[group.head].kind == "quantum"]
    pairs = dict.fromkeys((group.body, group.head) for group in quantum or varied)
    return tuple(
        _effects(record.plan, body, head, [g for g in varied if (g.body, g.head) == (body, head)])
        for body, head in pairs
    )


def _effects(plan: StudyPlan, body: str, head: str, groups: Sequence[Group]) -> HeadEffects:
    seeds = [seed for seed in plan.seeds if all(seed in group.rows for group in groups)]
    left_out = tuple(seed for seed in plan.seeds if seed not in seeds)
    if not seeds:
        return HeadEffects(body, head, (), left_out, problem="no seed has a result for the whole design yet")
    levels = {
        factor: ordered_levels(plan, factor, [group.levels[factor] for group in groups]) for factor in groups[0].levels
    }
    cases = [(seed, group) for seed in seeds for group in groups]
    pairs = plan.design.estimate == "interactions"
    try:
        effects = main_effects(
            [group.levels for _, group in cases],
            [(group.rows[seed].result or {})["test_accuracy"] for seed, group in cases],
            factors=levels,
            interactions=pairs,
            blocks=[seed for seed, _ in cases],
            error="blocks" if len(seeds) > 1 else "residual",
            level=plan.report.level,
        )
    except ConfigError as error:
        return HeadEffects(body, head, tuple(seeds), left_out, problem=str(error))
    plotted = _marginals(groups, seeds, levels, plan.report.level, pairs) if plan.design.kind in BALANCED else ()
    return HeadEffects(body, head, tuple(seeds), left_out, effects, _half_normal(effects), plotted)


def _half_normal(effects: Effects) -> HalfNormal | None:
    try:
        return half_normal(effects, level=effects.level)
    except ConfigError:  # too few effects, or factors of more than two levels
        return None


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
                values = tuple(
                    sum((group.rows[seed].result or {})["test_accuracy"] for group in matching) / len(matching)
                    for seed in seeds
                )
                found.append(Marginal(factors, point, values, summarize(values, level=level)))
    return tuple(found)


def _scans(record: StudyRecord, groups: Sequence[Group]) -> tuple[Scan, ...]:
    found = []
    for body, head in dict.fromkeys((group.body, group.head) for group in groups if group.levels):
        mine = [group for group in groups if (group.body, group.head) == (body, head)]
        own = own_levels(record, body, head, list(mine[0].levels))
        base = next((group for group in mine if group.levels == own), None)
        for factor in own:
            rest = {name: level for name, level in own.items() if name != factor}
            line = [g for g in mine if g.rows and all(g.levels[name] == level for name, level in rest.items())]
            order = ordered_levels(record.plan, factor, [group.levels[factor] for group in line])
            line.sort(key=lambda group, order=order, factor=factor: order.index(group.levels[factor]))  # type: ignore[misc]
            points = (_scan_point(record, group, base, factor) for group in line)
            found.append(Scan(body, head, factor, tuple(points)))
    return tuple(found)


def _scan_point(record: StudyRecord, group: Group, base: Group | None, factor: str) -> ScanPoint:
    level, values = record.plan.report.level, tuple(group.results("test_accuracy"))
    difference: CrossedTest | None = None
    seeds = group.common_seeds(base) if base is not None else []
    if base is not None and group is not base and len(seeds) > 1:
        correct, base_correct = [group.correct(seed) for seed in seeds], [base.correct(seed) for seed in seeds]
        difference = crossed_test(
            correct,
            base_correct,
            [record.test_positions(group.draws[seed]) for seed in seeds],
            test_train_ratio=record.test_train_ratio(group.draws[seeds[0]]),
            level=level,
        )
    return ScanPoint(group.levels[factor], group is base, values, summarize(values, level=level), difference)


def ordered_levels(plan: StudyPlan, factor: str, seen: Sequence[Any]) -> tuple[Any, ...]:
    """Return the levels in `seen` in the order of the plan, low first; numbers are sorted if the plan lacks one."""
    planned = plan.factors[factor]
    levels = list(dict.fromkeys(seen))
    if isinstance(planned, LevelRange):
        return tuple(sorted(levels))
    known = [level for level in planned if level in levels]
    others = [level for level in levels if level not in known]
    if others and all(isinstance(level, (int, float)) for level in levels):
        return tuple(sorted(levels))
    return (*others, *known)
