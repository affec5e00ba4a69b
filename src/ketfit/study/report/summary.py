"""The results of a study in sentences; the tests of the analysis select each sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis
from ketfit.study.analysis.cells import Cell
from ketfit.study.analysis.comparisons import HeadComparison
from ketfit.study.analysis.effects import Term
from ketfit.study.analysis.hypothesis_tests import Difference, Equivalence
from ketfit.study.analysis.trends import Trend

MAX_LISTED = 3
"""Results listed in a sentence."""
MAX_SETTINGS = 4
"""Settings named in a sentence."""


def summary_sentences(analysis: Analysis) -> list[str]:
    """Return the sentences that answer the question of a study."""
    study, several = analysis.study, len(analysis.study["bodies"]) > 1
    if study["done"] == 0:
        return ["There is no result yet, so there is nothing to answer."]
    sentences: list[str] = []
    for body in study["bodies"]:
        found = [each for each in analysis.comparisons if each.body == body and each.standing]
        statement = _without_reference(analysis, body) if not found else _on_body(analysis, found)
        sentences += (
            [f"On {body}, {statement[0]}", *map(fmt.sentence, statement[1:])]
            if several
            else map(fmt.sentence, statement)
        )
    return (
        sentences
        + _about_scans(analysis, several)
        + _about_trends(analysis, several)
        + _about_effects(analysis, several)
    )


def _on_body(analysis: Analysis, found: Sequence[HeadComparison]) -> list[str]:
    kinds = {cell.head: cell.kind for cell in analysis.cells}
    found = sorted(found, key=lambda each: kinds[each.head] != "quantum")  # stable sort keeps the plan's order
    leading = [each for each in found if kinds[each.head] == "quantum"][:MAX_LISTED] or found[:1]
    sentences = [verdict(each, analysis.study, first=not place) for place, each in enumerate(leading)]
    rest = [each for each in found if each not in leading]
    if rest and rest[0].crossed is not None:
        sentences += _remaining(rest, 1 - analysis.study["level"])
    return sentences


def verdict(comparison: HeadComparison, study: Mapping[str, Any], first: bool = True) -> str:
    """Return the result of a comparison in one or two sentences; the `first` also explains interval and margin."""
    name, test, equivalence = _subject(comparison, study), comparison.crossed, comparison.equivalence
    if test is None or equivalence is None:
        return _one_seed(comparison, name)
    bounds = _bounds(test)
    half = (bounds[1] - bounds[0]) / 2 if bounds else abs(comparison.difference)
    digits = 1 if half >= 0.005 else 2  # as many as the interval justifies
    size, side = fmt.points(abs(comparison.difference), digits), "above" if comparison.difference > 0 else "below"
    scope = ", for new seeds and new sentences" if first else ""
    between = f"{fmt.percent(study['level'])} interval {_between(bounds, digits)}{scope}"
    limit = (
        f"the margin of {fmt.margin_points(study['margin'])} that the plan calls irrelevant" if first else "the margin"
    )
    where = f"{size} points {side}" if float(size) else "level with"
    statement = f"{name} is {where} {comparison.reference} ({between})"
    if is_shown(comparison, 1 - study["level"]):
        return f"{statement}. {_shown_size(equivalence, bounds, limit)}"
    return f"{statement}: no difference was shown. {_not_shown(equivalence, bounds, limit)}"


def conclusion(comparison: HeadComparison, study: Mapping[str, Any]) -> str:
    """Return the result of a comparison in a few words, for a table."""
    test, equivalence = comparison.crossed, comparison.equivalence
    if test is None or equivalence is None:
        return "one seed: open"
    if is_shown(comparison, 1 - study["level"]):
        side = "higher" if comparison.difference > 0 else "lower"
        if equivalence.equivalent:
            return f"{side}, within the margin"
        return f"{side}, by more than the margin" if _is_beyond(_bounds(test), study["margin"]) else side
    if equivalence.equivalent:
        return "no difference beyond the margin"
    return "no worse by more than the margin" if equivalence.no_worse else "open"


def is_shown(comparison: HeadComparison, alpha: float) -> bool:
    """Return True if the difference is significant after adjustment over all comparisons of the study."""
    return comparison.adjusted_p is not None and comparison.adjusted_p < alpha


def _subject(cell: Cell | HeadComparison, study: Mapping[str, Any]) -> str:
    chosen = study["design"]["kind"] not in ("heads", "scan") and bool(cell.levels)
    if chosen and len(cell.levels) > MAX_SETTINGS:
        return f"{cell.head} (its best setting on validation)"
    return f"{cell.head} ({cell.setting}, chosen on validation)" if chosen else fmt.cell_name(cell)


def _bounds(test: Difference) -> tuple[float, float] | None:
    return None if test.low is None or test.high is None else (test.low, test.high)


def _is_beyond(bounds: tuple[float, float] | None, margin: float) -> bool:
    return bounds is not None and (bounds[0] > margin or bounds[1] < -margin)


def _between(bounds: tuple[float, float] | None, digits: int) -> str:
    """Return an interval as text: of absolute values if zero is outside, with signs if it is inside."""
    if bounds is None:
        return "not to be had, as all seeds differ alike"
    if _is_beyond(bounds, 0):
        low, high = sorted(map(abs, bounds))
        return fmt.interval(low, high, digits)
    return fmt.interval(*bounds, digits, plus=True)


def _not_shown(equivalence: Equivalence, bounds: tuple[float, float] | None, limit: str) -> str:
    alone = ""
    if _is_beyond(bounds, 0):
        alone = "The interval leaves zero out, but not once all comparisons of this study are allowed for. "
    if equivalence.equivalent:
        p = fmt.p_value(equivalence.p_value, equals=True)
        return f"{alone}Whatever there is lies within {limit} (two one-sided tests, p {p})."
    if equivalence.no_worse:
        p = fmt.p_value(equivalence.p_no_worse, equals=True)
        return f"{alone}It is no worse by more than {limit} (one-sided p {p})."
    if bounds is None:
        return f"{alone}Whether it lies within {limit} is open."
    largest = fmt.points(max(map(abs, bounds)), 1)
    return f"{alone}It may be as large as {largest} points, so whether it lies within {limit} is open."


def _shown_size(equivalence: Equivalence, bounds: tuple[float, float] | None, limit: str) -> str:
    if equivalence.equivalent:
        return f"There is a difference, but it is smaller than {limit}."
    if _is_beyond(bounds, equivalence.margin):
        return f"The difference is larger than {limit}."
    return f"There is a difference; whether it is larger than {limit} is open."


def _one_seed(comparison: HeadComparison, name: str) -> str:
    size, where = fmt.points(abs(comparison.difference)), "above" if comparison.difference > 0 else "below"
    p = fmt.p_value(comparison.mcnemar.median_p, equals=True)
    tested = f"on the one seed that both have; McNemar's exact test of these two trained heads, p {p}"
    return (
        f"{name} is {size} points {where} {comparison.reference} ({tested}). "
        "One seed says nothing about how either would do with another draw of sentences."
    )


def _remaining(rest: Sequence[HeadComparison], alpha: float) -> list[str]:
    reference = rest[0].reference
    shown = [each for each in rest if is_shown(each, alpha)]
    above, below = [each for each in shown if each.difference > 0], [each for each in shown if each.difference <= 0]
    sentences = [
        f"{_with_differences(each)} {'is' if len(each) == 1 else 'are'} {side} {reference}."
        for side, each in (("above", above), ("below", below))
        if each
    ]
    same = [each for each in rest if each not in shown]
    return (
        [*sentences, f"No difference from {reference} was shown for {_with_differences(same)}."] if same else sentences
    )


def _with_differences(comparisons: Sequence[HeadComparison]) -> str:
    return fmt.join_names(f"{each.head} ({fmt.points(each.difference, 1, plus=True)})" for each in comparisons)


def _without_reference(analysis: Analysis, body: str) -> list[str]:
    means = [
        (cell.accuracy.mean, cell)
        for cell in analysis.cells
        if cell.body == body and cell.standing and cell.accuracy is not None
    ]
    if not means:
        return ["nothing has a result yet."]
    reference = analysis.study["reference"]
    if len(means) == 1:
        reason = (
            "there is nothing to compare it with yet" if reference else "the plan names no reference to test against"
        )
        return [f"{_subject(means[0][1], analysis.study)} reaches {fmt.points(means[0][0], 1)} %; {reason}."]
    (low, lowest), (high, highest) = min(means, key=itemgetter(0)), max(means, key=itemgetter(0))
    reason = "The reference has no result yet" if reference else "The plan names no reference"
    return [
        f"mean accuracies go from {fmt.points(low, 1)} % ({lowest.head}) to {fmt.points(high, 1)} % ({highest.head}).",
        f"{reason}, so no difference between heads is tested.",
    ]


def _about_scans(analysis: Analysis, several: bool) -> list[str]:
    sentences: list[str] = []
    for scan in [scan for scan in analysis.scans if len(scan.points) > 1][:MAX_LISTED]:
        low, high = (pick(scan.points, key=attrgetter("accuracy.mean")) for pick in (min, max))
        where = f"{scan.head} on {scan.body}" if several else scan.head
        statement = (
            f"Over the {fmt.factor_name(scan.factor)} of {where} the mean goes from "
            f"{fmt.points(low.accuracy.mean, 1)} % at {fmt.level_name(low.level)} to "
            f"{fmt.points(high.accuracy.mean, 1)} % at {fmt.level_name(high.level)}"
        )
        if high.own:
            statement += ", which is its own setting"
        elif high.difference is not None:
            bounds = fmt.interval(high.difference.low, high.difference.high, 1, plus=True)
            selection_note = "" if sentences else ", with no allowance for having been picked"
            statement += (
                f", {fmt.points(high.difference.difference, 1, plus=True)} points from its own setting "
                f"({fmt.percent(analysis.study['level'])} interval {bounds}{selection_note})"
            )
        sentences.append(f"{statement}.")
    return sentences


def _about_trends(analysis: Analysis, several: bool) -> list[str]:
    tested = [trend for trend in analysis.trends if trend.test is not None]
    found = [f"{_trend_text(trend, analysis, several)}." for trend in tested[:MAX_LISTED]]
    alpha = 1 - analysis.study["level"]
    if more := len(tested) - len(found):
        shown = sum(trend.adjusted_p < alpha for trend in tested[MAX_LISTED:] if trend.adjusted_p is not None)
        found.append(
            f"Of {more} other {'trend' if more == 1 else 'trends'}, {shown} {'is' if shown == 1 else 'are'} shown."
        )
    return found


def _trend_text(trend: Trend, analysis: Analysis, several: bool) -> str:
    assert trend.test is not None and trend.adjusted_p is not None
    level, where = analysis.study["level"], f"{trend.head} on {trend.body}" if several else trend.head
    setting, unit = fmt.factor_name(trend.factor), fmt.trend_unit(trend)
    bounds = f"{fmt.percent(level)} interval {fmt.interval(trend.test.low, trend.test.high, 2, plus=True)}"
    tested = f"{bounds}, p {fmt.p_value(trend.adjusted_p, equals=True)} after adjustment"
    slope = f"{fmt.points(trend.slope, 2, plus=True)} points {unit} ({tested})"
    if trend.adjusted_p >= 1 - level:
        return f"No trend of the accuracy of {where} over its {setting} was shown: {slope}"
    verb = "rises" if trend.slope > 0 else "falls"
    return f"The accuracy of {where} {verb} with its {setting}: {slope}"


def _about_effects(analysis: Analysis, several: bool) -> list[str]:
    sentences = []
    for each in analysis.effects:
        if each.effects is None:
            continue
        alpha = 1 - each.effects.level
        shown = [term for term in each.effects.terms if term.p_adjusted is not None and term.p_adjusted < alpha]
        shown.sort(key=lambda term: -abs(term.effect))
        where = f"{each.head} on {each.body}" if several else each.head
        if not shown:
            tested = any(term.p_value is not None for term in each.effects.terms)
            statement = (
                "no factor has an effect that was shown" if tested else "the effects have no error to be tested by"
            )
            sentences.append(f"For {where}, {statement}.")
            continue
        largest = [_effect_text(term, each.effects.level) for term in shown[:MAX_LISTED]]
        more = len(shown) - len(largest)
        rest = f", and {more} smaller {'one' if more == 1 else 'ones'}" if more else ""
        sentences.append(f"For {where}, {fmt.count(len(shown), 'effect')} stood out: {fmt.join_names(largest)}{rest}.")
    return sentences


def _effect_text(term: Term, level: float) -> str:
    size, bounds = fmt.points(term.effect, 1, plus=True), fmt.interval(term.low, term.high, 1, plus=True)
    return f"{fmt.term_name(term.name)} ({size} points, {fmt.percent(level)} interval {bounds})"
