"""Comparisons of the cells of a study with the reference, on the same seeds and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

from ketfit.errors import ConfigError
from ketfit.study.analysis.cells import Group, by_head, crossed_difference, describe_setting
from ketfit.study.analysis.hypothesis_tests import (
    CrossedTest,
    Equivalence,
    PairedTest,
    equivalence_test,
    holm,
    mcnemar,
    paired_test,
)
from ketfit.study.analysis.power import detectable_difference, seeds_needed
from ketfit.study.store import StudyRecord


@dataclass(frozen=True)
class Sentencewise:
    """McNemar's exact tests, one per seed. Seeds share test sentences, so the p-values are not pooled."""

    median_p: float
    significant: int
    n: int


@dataclass(frozen=True)
class HeadComparison:
    """Differences of accuracies, cell minus reference, as fractions over the common seeds.

    Attributes:
        setting, standing: See `Cell`.
        crossed: The main test, for new seeds and new sentences.
        paired: The test for new seeds on the same sentences.
        corrected: `paired` with Nadeau and Bengio's variance, which assumes far more overlap than there is.
        adjusted_p: p-value of `crossed`, adjusted by Holm over all comparisons of the study.
        equivalence: TOST of `crossed` against the plan's margin.
        seeds_needed: Seeds that find a difference of this size with power 0.8; None if no number suffices.
        detectable: The smallest true difference that these seeds find with power 0.8.

    All but `difference`, `differences` and `mcnemar` are None for one seed.
    """

    body: str
    head: str
    levels: Mapping[str, Any]
    setting: str
    reference: str
    reference_levels: Mapping[str, Any]
    standing: bool
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: float
    mcnemar: Sentencewise
    crossed: CrossedTest | None = None
    paired: PairedTest | None = None
    corrected: PairedTest | None = None
    adjusted_p: float | None = None
    equivalence: Equivalence | None = None
    seeds_needed: int | None = None
    detectable: float | None = None


def compare_all(
    record: StudyRecord, groups: Sequence[Group], representative: Mapping[tuple[str, str], Group]
) -> tuple[HeadComparison, ...]:
    """Compare all cells with the plan's reference, body by body; return () if the plan names no reference.

    A cell is compared with the reference cell at the same levels of their common factors, else with the cell that
    represents the reference. Other cells of the reference are compared with its representative. Cells without a
    common seed and split are skipped.
    """
    name, found, grouped = record.plan.report.reference, [], by_head(groups)
    for group in groups:
        if name is None or (group.body, name) not in representative:
            continue
        other = _counterpart(group, representative[group.body, name], grouped[group.body, name])
        seeds = group.common_seeds(other)
        if group is not other and seeds:
            standing = representative.get((group.body, group.head)) is group
            found.append(_compare(record, group, other, seeds, standing))
    adjusted = holm([each.crossed.p_value if each.crossed else None for each in found])
    return tuple(replace(each, adjusted_p=p) for each, p in zip(found, adjusted, strict=True))


def _counterpart(group: Group, reference: Group, candidates: Sequence[Group]) -> Group:
    levels = group.levels
    matching = [g for g in candidates if all(levels[f] == g.levels[f] for f in levels.keys() & g.levels.keys())]
    return reference if group.head == reference.head or reference in matching or not matching else matching[0]


def _compare(record: StudyRecord, group: Group, other: Group, seeds: Sequence[int], standing: bool) -> HeadComparison:
    level, margin = record.plan.report.level, record.plan.report.margin
    correct = [(group.correct(seed), other.correct(seed)) for seed in seeds]
    first, second = ([float(side.mean()) for side in sides] for sides in zip(*correct, strict=True))
    differences = tuple(a - b for a, b in zip(first, second, strict=True))
    p_values = [mcnemar(one, two).p_value for one, two in correct]
    comparison = HeadComparison(
        body=group.body,
        head=group.head,
        levels=group.levels,
        setting=describe_setting(record, group),
        reference=other.head,
        reference_levels=other.levels,
        standing=standing,
        seeds=tuple(seeds),
        differences=differences,
        difference=mean(differences),
        mcnemar=Sentencewise(median(p_values), sum(p < 1 - level for p in p_values), len(p_values)),
    )
    if len(seeds) < 2:
        return comparison
    paired = paired_test(first, second, level=level)
    ratio = _test_train_ratio(record, group, seeds[0])
    crossed = crossed_difference(record, group, other, seeds)
    noise = {"level": level, "sentence_error": crossed.sentence_error}
    return replace(
        comparison,
        crossed=crossed,
        paired=paired,
        corrected=paired_test(first, second, test_train_ratio=ratio, level=level),
        equivalence=equivalence_test(crossed, margin, level=level),
        seeds_needed=_or_none(lambda: seeds_needed(paired.difference, paired.spread, **noise)),
        detectable=_or_none(lambda: detectable_difference(len(seeds), paired.spread, **noise)),
    )


def _test_train_ratio(record: StudyRecord, group: Group, seed: int) -> float:
    return float(group.value("test_size", seed) / record.train_size(group.draws[seed]))


def _or_none(calculate: Callable[[], Any]) -> Any:
    """Return None instead of ConfigError: for a difference or spread of zero, or more than `MAX_SEEDS` seeds."""
    try:
        return calculate()
    except ConfigError:
        return None
