"""Every cell of a study against the reference, on the same seeds and the same sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

from ketfit.errors import ConfigError
from ketfit.study.analysis.cells import Group, describe_setting
from ketfit.study.analysis.hypothesis_tests import (
    CrossedTest,
    Equivalence,
    McNemar,
    PairedTest,
    crossed_test,
    equivalence_test,
    holm,
    mcnemar,
    paired_test,
)
from ketfit.study.analysis.power import detectable_difference, seeds_needed
from ketfit.study.store import StudyRecord


@dataclass(frozen=True)
class Sentencewise:
    """McNemar's exact test of each seed by itself. The seeds share sentences, so their p-values are not pooled."""

    median_p: float
    significant: int
    n: int


@dataclass(frozen=True)
class HeadComparison:
    """A cell minus the reference, in fractions, over the seeds that both have.

    Attributes:
        setting, standing: In words, and whether the cell stands for its head; see `Cell`.
        crossed: For new seeds and new sentences: the headline.
        paired: For new seeds on the same sentences.
        corrected: The same with Nadeau and Bengio's variance, which supposes far more overlap than there is.
        adjusted_p: Holm's, of the headline, over all comparisons of the study.
        equivalence: Of the headline against the plan's margin.
        seeds_needed: To find a true difference as large as this one, with power 0.8; None if no number is enough.
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
    record: StudyRecord, groups: Sequence[Group], standing: Mapping[tuple[str, str], Group]
) -> tuple[HeadComparison, ...]:
    """All comparisons with the plan's reference, body by body; none if the plan names no reference.

    A cell is compared with the reference at the same levels of the factors that both have, and with the cell that
    stands for the reference where there is no such one; other cells of the reference too are compared with that.
    Cells that were not tested on the same sentences are not compared.
    """
    name = record.plan.report.reference
    found = []
    for group in groups:
        if name is None or (group.body, name) not in standing:
            continue
        other = _counterpart(group, [g for g in groups if (g.body, g.head) == (group.body, name)], standing)
        seeds = group.common_seeds(other)
        if group is not other and seeds:
            found.append(_compare(record, group, other, seeds, standing))
    adjusted = iter(holm([each.crossed.p_value for each in found if each.crossed is not None]))
    return tuple(each if each.crossed is None else replace(each, adjusted_p=next(adjusted)) for each in found)


def _counterpart(group: Group, candidates: Sequence[Group], standing: Mapping[tuple[str, str], Group]) -> Group:
    own = standing[group.body, candidates[0].head]
    if group.head == own.head:
        return own
    alike = [other for other in candidates if _agree(group.levels, other.levels)]
    return own if own in alike or not alike else alike[0]


def _agree(levels: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(levels[factor] == others[factor] for factor in levels.keys() & others.keys())


def _compare(
    record: StudyRecord,
    group: Group,
    other: Group,
    seeds: Sequence[int],
    standing: Mapping[tuple[str, str], Group],
) -> HeadComparison:
    level, margin = record.plan.report.level, record.plan.report.margin
    correct = [(group.correct(seed), other.correct(seed)) for seed in seeds]
    first, second = ([float(side.mean()) for side in sides] for sides in zip(*correct, strict=True))
    differences = tuple(a - b for a, b in zip(first, second, strict=True))
    comparison = HeadComparison(
        body=group.body,
        head=group.head,
        levels=group.levels,
        setting=describe_setting(record, group),
        reference=other.head,
        reference_levels=other.levels,
        standing=standing.get((group.body, group.head)) is group,
        seeds=tuple(seeds),
        differences=differences,
        difference=mean(differences),
        mcnemar=_sentencewise([mcnemar(one, two) for one, two in correct], 1 - level),
    )
    if len(seeds) < 2:
        return comparison
    paired = paired_test(first, second, level=level)
    ratio = _test_train_ratio(record, group, seeds[0])
    positions = [record.test_positions(group.draws[seed]) for seed in seeds]
    crossed = crossed_test([one for one, _ in correct], [two for _, two in correct], positions, level=level)
    noise = {"level": level, "sentence_error": crossed.sentence_error}
    return replace(
        comparison,
        crossed=crossed,
        paired=paired,
        corrected=paired_test(first, second, test_train_ratio=ratio, level=level),
        equivalence=equivalence_test(crossed, margin, level=level),
        seeds_needed=_possible(lambda: seeds_needed(paired.difference, paired.spread, **noise)),
        detectable=_possible(lambda: detectable_difference(len(seeds), paired.spread, **noise)),
    )


def _sentencewise(tests: Sequence[McNemar], alpha: float) -> Sentencewise:
    p_values = [test.p_value for test in tests]
    return Sentencewise(median(p_values), sum(p < alpha for p in p_values), len(tests))


def _test_train_ratio(record: StudyRecord, group: Group, seed: int) -> float:
    draw = group.draws[seed]
    drawn = draw.per_label * record.data.n_classes
    return float((group.rows[seed].result or {})["test_size"] / (drawn - round(drawn * draw.validation_fraction)))


def _possible(ask: Callable[[], Any]) -> Any:
    """None where there is no answer: a difference or a spread of zero, or more seeds than anyone has."""
    try:
        return ask()
    except ConfigError:
        return None
