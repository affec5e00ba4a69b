"""Reasons to read the results of a study with care, found in its results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from ketfit.study.analysis.cells import Cell, Group, by_head, varied_groups
from ketfit.study.analysis.comparisons import HeadComparison
from ketfit.study.analysis.effects import Design, confounded_interactions
from ketfit.study.analysis.formatting import count, join_names, margin_points, points, sentence, term_name
from ketfit.study.store import StudyRecord

FEW_SEEDS = 5
OFTEN = 0.5
"""Share of the runs of a head above which a problem is reported."""
LARGE_SHARE = 0.1
"""Share of all sentences in one draw above which the overlap of the draws is reported."""
MAX_PAIRS = 3
"""Number of interactions of one term that are named."""


@dataclass(frozen=True)
class Caveat:
    """A reason to read the results with care: its kind and its sentence."""

    kind: str
    text: str


def find_caveats(
    record: StudyRecord, groups: Sequence[Group], cells: Sequence[Cell], comparisons: Sequence[HeadComparison]
) -> tuple[Caveat, ...]:
    """Return all caveats that apply, the most serious first."""
    done = [group for group in groups if group.results]
    return (
        *_unfinished(groups),
        *_few_seeds(done),
        *_unequal_seeds(record, comparisons),
        *_shared_sentences(record),
        *_mixed_precision(done),
        *_confounding(record, groups),
        *_budget(record, done),
        *_training(done),
        *_chance(record, cells),
        *_selection(record, cells),
        *_identical_heads(done),
        *_best_seed_bias(cells),
    )


def _unfinished(groups: Sequence[Group]) -> Iterator[Caveat]:
    missing = {group.tasks[seed] for group in groups for seed in group.missing}
    failed = {group.tasks[seed]: group.head for group in groups for seed in group.failed}
    if missing:
        verb = "has" if len(missing) == 1 else "have"
        yield Caveat(
            "missing", f"{count(len(missing), 'run')} {verb} no result yet; every figure below is of those that have."
        )
    if failed:
        yield Caveat(
            "failed",
            f"{count(len(failed), 'run')} failed, of {join_names(dict.fromkeys(failed.values()))}. Means are over the "
            "seeds that did not fail, which may be the easier ones.",
        )


def _few_seeds(groups: Sequence[Group]) -> Iterator[Caveat]:
    fewest = min((len(group.results) for group in groups), default=FEW_SEEDS)
    if fewest == 1:
        yield Caveat(
            "seeds", "There are results of a single seed: no spread, no interval and no test over seeds exists."
        )
    elif fewest < FEW_SEEDS:
        yield Caveat(
            "seeds",
            f"Some results rest on {count(fewest, 'seed')}: an interval from {count(fewest - 1, 'degree')} of freedom "
            "is wide, and holds only as far as seeds scatter normally, which so few cannot show.",
        )


def _unequal_seeds(record: StudyRecord, comparisons: Sequence[HeadComparison]) -> Iterator[Caveat]:
    short = [each for each in comparisons if len(each.seeds) < len(record.plan.seeds)]
    if short:
        fewest = min(len(each.seeds) for each in short)
        verb = "uses" if len(short) == 1 else "use"
        yield Caveat(
            "pairs",
            f"{count(len(short), 'comparison')} {verb} fewer than the {count(len(record.plan.seeds), 'seed')} planned, "
            f"down to {fewest}, because both heads must have a result.",
        )


def _shared_sentences(record: StudyRecord) -> Iterator[Caveat]:
    if record.plan.data.test_fraction is not None:
        yield Caveat(
            "hold-outs",
            "Every seed is a hold-out of the same sentences, so that seeds share most of their training sentences. "
            "Intervals are widened for it by Nadeau and Bengio's correction, which is an approximation.",
        )
        return
    share = max(map(record.drawn_size, record.draws), default=0) / record.data.size
    if share > LARGE_SHARE and len(record.plan.seeds) > 1:
        yield Caveat(
            "shared sentences",
            f"Each seed draws {100 * share:.0f} % of the sentences to train and validate, so that two seeds share "
            "about that part of them. Intervals make no allowance for it and are somewhat too narrow.",
        )


def _mixed_precision(groups: Sequence[Group]) -> Iterator[Caveat]:
    by_stage: dict[tuple[str, int], set[str]] = {}
    for group in groups:
        for result in group.results.values():
            for number, precision in enumerate(result.run.get("precision", ())):
                by_stage.setdefault((group.body, number), set()).add(precision)
    found = set().union(*(precisions for precisions in by_stage.values() if len(precisions) > 1))
    if found:
        yield Caveat(
            "precision",
            f"Bodies were tuned in {join_names(sorted(found))}, because the precision auto depends on the machine. "
            "Name one precision in the plan for runs that can be repeated elsewhere.",
        )


def _confounding(record: StudyRecord, groups: Sequence[Group]) -> Iterator[Caveat]:
    if record.plan.design.estimate != "main effects" or record.plan.design.kind not in (
        "fractional",
        "plackett-burman",
    ):
        return
    by_term: dict[str, list[str]] = {}
    for mine in by_head(varied_groups(record, groups)).values():
        design = [group.levels for group in mine]
        levels = {factor: tuple(dict.fromkeys(point[factor] for point in design)) for factor in design[0]}
        by_term |= confounded_interactions(Design(design, levels))
    parts = [f"that of {term_name(term)} with {_interactions(pairs)}" for term, pairs in by_term.items()]
    if parts:
        yield Caveat(
            "confounded",
            f"Main effects are confounded with interactions of two settings: {join_names(parts)}. The design cannot "
            "tell them apart; a larger fraction can.",
        )


def _interactions(pairs: Sequence[str]) -> str:
    if len(pairs) > MAX_PAIRS:
        return f"those of {len(pairs)} pairs, wholly or in part"
    return join_names(map(term_name, pairs))


def _budget(record: StudyRecord, groups: Sequence[Group]) -> Iterator[Caveat]:
    tries = len(record.plan.budget.learning_rates)
    if tries == 1 and groups and "train.learning_rate" not in record.plan.factors:
        yield Caveat(
            "one try",
            "Every head had one learning rate, or one strength of regularisation. A head whose best value lies "
            "elsewhere is at a disadvantage that this study cannot see.",
        )
    edges, diverging = [], []
    for head, runs in _runs_by_head(groups):
        values = [result["tries"][result["chosen"]]["value"] for result, _ in runs if _chose_grid_edge(result)]
        if len(values) > OFTEN * len(runs):
            often = max(set(values), key=lambda value: (values.count(value), value))
            edges.append(f"{head} ({len(values)} of {count(len(runs), 'run')}, mostly {often:g})")
        attempts = [attempt for result, _ in runs for attempt in result["tries"]]
        if diverged := sum("error" in attempt for attempt in attempts):
            diverging.append(f"{head} ({diverged} of {len(attempts)} tries)")
    if edges:
        yield Caveat(
            "edge",
            f"Validation chose the smallest or the largest try more often than not for {join_names(edges)}: the grid "
            "may be too narrow.",
        )
    if diverging:
        yield Caveat(
            "diverged", f"Training diverged, so that the try could not be chosen, for {join_names(diverging)}."
        )


def _chose_grid_edge(result: dict[str, Any]) -> bool:
    values = [attempt["value"] for attempt in result["tries"]]
    return len(values) > 1 and values[result["chosen"]] in (min(values), max(values))


def _training(groups: Sequence[Group]) -> Iterator[Caveat]:
    for head, runs in _runs_by_head(groups):
        epochs = [
            (result["tries"][result["chosen"]].get("best_epoch"), (config.get("train") or {}).get("epochs"))
            for result, config in runs
        ]
        trained = [(best, planned) for best, planned in epochs if best is not None and planned is not None]
        late = sum(best >= planned - 1 for best, planned in trained)
        if late > OFTEN * len(trained):
            yield Caveat(
                "short",
                f"For {head}, the last epoch was the best in {late} of {count(len(trained), 'run')}: training was cut "
                "short, and more epochs may do better.",
            )


def _chance(record: StudyRecord, cells: Sequence[Cell]) -> Iterator[Caveat]:
    chance = 1 / record.data.n_classes
    for cell in cells:
        if cell.standing and cell.accuracy is not None and cell.accuracy.mean < chance + 0.05:
            yield Caveat(
                "chance",
                f"{sentence(cell.head)} on {cell.body} reaches {points(cell.accuracy.mean, 1)} %, near the "
                f"{points(chance, 1)} % of guessing: it has hardly learnt, and its differences to others say so only.",
            )


def _selection(record: StudyRecord, cells: Sequence[Cell]) -> Iterator[Caveat]:
    plan = record.plan
    sizes = sorted(set(map(record.validation_size, record.draws))) or [0]
    size, few = sizes[0], "As few as " if len(sizes) > 1 else ""
    accuracies = [cell.validation_accuracy for cell in cells if cell.validation_accuracy is not None]
    if accuracies and size:
        typical = mean(accuracies)
        error = math.sqrt(typical * (1 - typical) / size)
        if error > plan.report.margin:
            yield Caveat(
                "validation",
                f"{few}{size} validation sentences choose among tries and epochs: the standard error of one accuracy "
                f"on them is {points(error, 1)} points, more than the margin of {margin_points(plan.report.margin)}.",
            )
    if plan.design.kind not in ("heads", "scan"):
        settings = {(cell.body, cell.head): 0 for cell in cells}
        for cell in cells:
            settings[cell.body, cell.head] += bool(cell.seeds)
        largest, smallest = max(settings.values(), default=0), min(settings.values(), default=0)
        if largest > max(smallest, 1):
            names = join_names(dict.fromkeys(head for (_, head), number in settings.items() if number == largest))
            yield Caveat(
                "many settings",
                f"What stands for {names} is the best on validation of {largest} settings; other heads had as few as "
                f"{smallest}. That is a larger budget than theirs.",
            )


def _identical_heads(groups: Sequence[Group]) -> Iterator[Caveat]:
    heads: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        heads.setdefault(tuple(group.tasks.values()), []).append(group.head)
    identical = {tuple(dict.fromkeys(names)) for names in heads.values() if len(set(names)) > 1}
    for names in sorted(identical):
        apart = any(set(runs) & set(names) and not set(names) <= set(runs) for runs in heads.values())
        where = "At some levels, " if apart else ""
        together = f"{where}{join_names(names)}"
        yield Caveat(
            "twins",
            f"{sentence(together)} are the same settings: they are one set of runs and agree by construction.",
        )


def _best_seed_bias(cells: Sequence[Cell]) -> Iterator[Caveat]:
    gaps: list[tuple[float, Any]] = [
        (cell.best - cell.accuracy.mean, cell)
        for cell in cells
        if cell.standing and cell.accuracy and cell.best is not None and len(cell.seeds) > 1
    ]
    if gaps:
        gap, cell = max(gaps, key=lambda pair: pair[0])
        yield Caveat(
            "best",
            f"The best of the {count(len(cell.seeds), 'seed')} lies up to {points(gap, 1)} points above the mean "
            f"({cell.head}). A best of several runs is what one gets by choosing on the test set; only means are "
            "compared here.",
        )


def _runs_by_head(groups: Sequence[Group]) -> Iterator[tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Yield each head with the result and the configuration of its runs."""
    for head in dict.fromkeys(group.head for group in groups):
        runs = [run for group in groups if group.head == head for run in group.results.values()]
        yield head, [(run.result, run.config) for run in runs if run.result is not None]
