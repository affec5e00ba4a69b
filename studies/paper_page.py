"""Make the page of the paper's results from the rows of its studies: Markdown, figures and one HTML file.

    python studies/paper_page.py

Writes ``docs/paper-results.md``, ``docs/images/paper-*.svg`` and ``studies/results/paper/report.html``. Everything in
them comes from the rows in studies/results, by the rules of `judge`. The statements of the paper are in
``paper_claims.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup
from paper_claims import (
    BASELINES,
    BEST,
    ENERGY,
    HERE,
    PLANS,
    RESULTS,
    RESULTS_FOLDER,
    Claim,
    Result,
    folder_of,
)
from paper_figures import Figure, draw_energy, draw_study, svg_file

from ketfit.storage.atomic import write_file
from ketfit.study.analysis import formatting as fmt
from ketfit.study.analysis.analysis import Analysis, analyse
from ketfit.study.analysis.cells import Cell
from ketfit.study.analysis.hypothesis_tests import holm
from ketfit.study.report.plots import STYLE
from ketfit.study.spec import StudyPlan
from ketfit.study.store import RECORD, StudyRecord, TaskResult, read_results
from ketfit.study.task import training_hash

MARGIN, ALPHA = 0.01, 0.05
PAPER_ERROR = 0.0027
"""Standard error of one accuracy on the 9,101 test sentences of the paper."""

Verdict = Literal["agrees", "disagrees", "cannot be told", "not run yet"]

INTERVALS = (
    "Numbers in brackets are 95 % intervals for new draws and new sentences, except those of screening effects, which "
    "are for new draws from the same sentences."
)

RULES = (
    "Each verdict is that of the first condition that holds. Only the p-values of slopes are corrected for their "
    "number; intervals are not.",
    "An accuracy or difference of the paper **disagrees** if it lies outside our interval, widened by twice the error "
    "of one accuracy on the paper's test sentences (0.53 points). It **agrees** if our interval reaches one point to "
    "each side or less. Otherwise it **cannot be told**.",
    "A direction is held against the interval of the whole change: that of our difference or effect, or that of our "
    "slope times its number of steps. Changes in the paper's direction count as positive. It **disagrees** if the "
    "interval ends below +1 point: no change that matters in the paper's direction is left, even if a smaller one is "
    "shown. It **agrees** if the interval begins above zero; a slope must also have p < 0.05 after Holm's correction "
    "over all slopes of this page. Otherwise it **cannot be told**.",
    "Where the paper's numbers could not be had, nothing can be told.",
    "The crossover of the energies agrees if the paper's lies in the range of ours, and disagrees if not.",
)

CANDIDATES = (
    "The paper states neither depth nor connectivity. `python studies/best_model.py` enumerates M and R from 1 to 8, C "
    "from 1 to 5, and N from 1 to 4 for re-uploads with weights of their own; with shared weights N changes nothing. "
    "The table has the nearest number of parameters of each kind of head, and how many settings have it; those with "
    "shared weights are listed. Trained are heads of exactly 886 parameters with the column of RY and without a skip "
    "connection: for each number of encoders and each C, the one whose M and R are most alike."
)

LEFT_OUT = (
    "The paper's body is paraphrase-mpnet-base-v2, here it is all-mpnet-base-v2, with 768 dimensions as well.",
    "Levels and tries were left out before draws: the recommended head on 10 to 16 qubits and the candidates for the "
    "best model have one try; M and R have the levels 1, 2, 4 and 8.",
    "On the frozen body, in one of five draws, the recommended heads on 15 and 16 qubits keep their initial loss and "
    "predict one class. The page What makes a head learn has a likely reason.",
    "Two encoders on 18 and 20 qubits, and the heads beside them, have one try and at most 15 epochs, in batches of "
    "32. A first run had one step an epoch, as the other results have, for at most 50 epochs on 18 qubits and 30 on "
    "20; the last epoch was the best one in most of its rows, so they were replaced.",
    "On 20 qubits there are two draws, and intervals from two draws are very wide. On the frozen body, one of the two "
    "fits of the paper's head with two encoders was stopped early at its initial loss and predicts one class.",
    "Gate noise is exact, which takes four times as long for each further qubit: its scans are on 5 to 9 qubits, on "
    "principal components, and several encoders are averaged. The scans under shots and noise have one try.",
    "The tables of the paper's scans and ablation, its loss, optimiser, learning rates and number of epochs could not "
    "be had: those of this page are the ones that every study of KetFit has.",
)


HOURS = (
    "The rows state how long one core took for the fits of all tries and for the prediction of the test sentences. A "
    "training whose head was tested in several ways has a row for each, and is counted once. The tuning and the "
    "embedding of bodies are not counted. The rows come from machines of different speed."
)


@dataclass(frozen=True)
class Study:
    """A study that was run, its analysis, and the hours that its tasks took."""

    record: StudyRecord
    analysis: Analysis
    hours: float

    @classmethod
    def read(cls, folder: Path) -> Study | None:
        """Return the study of a folder, or None if it has no result."""
        if not (folder / RECORD).exists():
            return None
        record = StudyRecord.read(folder)
        results = read_results(folder)
        planned = [results[task.id] for task in record.tasks if task.id in results]
        study = cls(record, analyse(record, results), core_hours(planned))
        return study if study.analysis.study["done"] else None

    @property
    def bodies(self) -> tuple[str, ...]:
        """Labels of the bodies that have a result."""
        return tuple(dict.fromkeys(cell.body for cell in self.analysis.cells if cell.accuracy))

    @property
    def trends(self) -> Sequence[Mapping[str, Any]]:
        """Slopes of accuracy, as ``summary.json`` has them under ``trends``."""
        return [_flat(trend) for trend in self.analysis.to_json().get("trends", ())]


def core_hours(results: Iterable[TaskResult]) -> float:
    """Return the hours of all trainings and predictions of results.

    Tasks that ran together have the same training and its seconds each; they count once. A task that trained alone has
    other seconds.
    """
    done = [result for result in results if result.result]
    trainings = dict.fromkeys((training_hash(each.config), each.run["seconds"]["all_tries"]) for each in done)
    predictions = sum(each.run["seconds"]["test"] for each in done)
    return float(sum(seconds for _, seconds in trainings) + predictions) / 3600


def _flat(trend: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a trend with the bounds and the p-value of its test beside its slope."""
    return {"low": None, "high": None, "p_value": None, **(trend.get("test") or {}), **trend}


@dataclass(frozen=True)
class Finding:
    """Our number for a claim, a fraction or qubits, with its interval.

    The number of a slope is that of one step; `span` is the number of steps from the smallest to the largest level.
    """

    value: float
    low: float | None
    high: float | None
    text: str
    p_value: float | None = None
    adjusted_p: float | None = None
    span: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of the page: a claim, and what the rows of one body say to it."""

    result: Result
    claim: Claim
    body: str
    finding: Finding | None

    @property
    def verdict(self) -> Verdict:
        """Verdict of `judge`."""
        return judge(self.claim, self.finding)

    def cells(self) -> tuple[str, ...]:
        """Return result, head, body, the paper's statement, our number, our slope and the verdict as text."""
        head = self.claim.head if isinstance(self.claim.head, str) else "the best on validation"
        is_slope = self.claim.kind == "trend"
        text = self.finding.text if self.finding else fmt.NONE
        named = head if self.claim.kind != "crossover" else fmt.NONE
        found, slope = (fmt.NONE, text) if is_slope else (text, fmt.NONE)
        return self.result.title, named, self.body, self.claim.says, found, slope, self.verdict


HOURS_COLUMNS = ("result", "tasks", "core-hours")
COLUMNS = ("result", "head", "body", "the paper says", "we find", "slope", "verdict")


def judge(claim: Claim, finding: Finding | None) -> Verdict:
    """Return the verdict on a claim by the rules of the page.

    >>> judge(Claim("90 %", "accuracy", value=0.9), Finding(0.88, 0.875, 0.885, ""))
    'disagrees'
    """
    if finding is None:
        return "not run yet"
    if finding.low is None or finding.high is None or not claim.is_known:
        return "cannot be told"
    if claim.value is None:
        return _judge_direction(claim, finding, (finding.low, finding.high))
    is_crossover = claim.kind == "crossover"
    slack = 0.0 if is_crossover else 1.96 * PAPER_ERROR
    if not finding.low - slack <= claim.value <= finding.high + slack:
        return "disagrees"
    return "agrees" if is_crossover or (finding.high - finding.low) / 2 <= MARGIN else "cannot be told"


def _judge_direction(claim: Claim, finding: Finding, bounds: tuple[float, float]) -> Verdict:
    """Return the verdict on a direction, from the bounds of the finding."""
    low, high = sorted(claim.direction * finding.span * bound for bound in bounds)
    if high < MARGIN:
        return "disagrees"
    significant = claim.kind != "trend" or (finding.adjusted_p is not None and finding.adjusted_p < ALPHA)
    return "agrees" if low > 0 and significant else "cannot be told"


def find(claim: Claim, study: Study, body: str) -> Finding | None:
    """Return our number for a claim on one body, or None if it has no rows yet."""
    if claim.kind == "trend":
        return _slope(claim, study, body)
    if claim.kind == "effect":
        return _effect(claim, study, body)
    cell = _cell(claim.head, study, body)
    if cell is None or cell.accuracy is None:
        return None
    named = "" if isinstance(claim.head, str) else f", {cell.head}"
    if claim.kind == "accuracy":
        bounds = (cell.crossed.low, cell.crossed.high) if cell.crossed else (None, None)
        text = f"{fmt.points(cell.accuracy.mean)} % ({fmt.interval(*bounds)}){named}"
        return Finding(cell.accuracy.mean, *bounds, text)
    other = _cell(claim.reference, study, body)
    found = next((each for each in study.analysis.comparisons if _same(each, cell, claim.reference)), None)
    if other is None or found is None:
        return None
    bounds = (found.crossed.low, found.crossed.high) if found.crossed else (None, None)
    interval = fmt.interval(*bounds, plus=True)
    return Finding(found.difference, *bounds, f"{fmt.points(found.difference, plus=True)} points ({interval}){named}")


def _same(comparison: Any, cell: Cell, reference: str) -> bool:
    own = (comparison.body, comparison.head, comparison.levels) == (cell.body, cell.head, cell.levels)
    return bool(own and comparison.reference == reference)


def _cell(head: str | tuple[str, ...], study: Study, body: str) -> Cell | None:
    """Return the cell of a head's own setting; of several heads, the one with the lowest mean validation loss."""
    cells = [cell for cell in study.analysis.cells if cell.body == body and cell.standing and cell.accuracy]
    if isinstance(head, str):
        return next((cell for cell in cells if cell.head == head), None)
    fitting = [cell for cell in cells if any(part in cell.head for part in head)]
    return min(fitting, key=lambda cell: cell.validation_loss or 0.0, default=None)


def _effect(claim: Claim, study: Study, body: str) -> Finding | None:
    for each in study.analysis.effects:
        for term in each.effects.terms if each.effects and (each.body, each.head) == (body, claim.head) else ():
            if term.name == claim.factor:
                interval = fmt.interval(term.low, term.high, plus=True)
                text = f"{fmt.points(term.effect, plus=True)} points ({interval})"
                return Finding(term.effect, term.low, term.high, text, term.p_value)
    return None


def _slope(claim: Claim, study: Study, body: str) -> Finding | None:
    for trend in study.trends:
        if (trend["body"], trend["head"], trend["factor"]) == (body, claim.head, claim.factor):
            span, step = _span(trend)
            interval = fmt.interval(trend["low"], trend["high"], plus=True)
            # The scans of qubits on principal components vary the number of components.
            of = " of the components" if claim.factor == "head.components" else ""
            slope = f"{fmt.points(trend['slope'], plus=True)} points a {step}{of} ({interval})"
            text = f"{slope}, {span:.3g} {step}{'' if span == 1 else 's'}"
            return Finding(trend["slope"], trend["low"], trend["high"], text, trend["p_value"], span=span)
    return None


def _span(trend: Mapping[str, Any]) -> tuple[float, str]:
    """Return the number of steps from the smallest to the largest level of a trend, and the name of a step."""
    lowest, highest = min(trend["levels"]), max(trend["levels"])
    if trend["scale"] == "log2":
        return math.log2(highest / lowest), "doubling"
    return (highest - lowest) / trend["step"], "step"


def _crossover(report: Mapping[str, Any]) -> Finding:
    low, high = report["range"]
    text = f"{report['crossover_qubits']} qubits ({low} to {high}), against {report['against']}"
    return Finding(report["crossover_qubits"], low, high, text)


def adjust(rows: Sequence[Row]) -> list[Row]:
    """Return rows whose slopes have p-values adjusted by Holm over all slopes of the page."""
    slopes = [row.finding.p_value if row.finding and row.claim.kind == "trend" else None for row in rows]
    return [
        row if p is None or row.finding is None else replace(row, finding=_with_p(row.finding, p))
        for row, p in zip(rows, holm(slopes), strict=True)
    ]


def _with_p(finding: Finding, p: float) -> Finding:
    return replace(finding, adjusted_p=p, text=f"{finding.text}, p {fmt.p_value(p, equals=True)}")


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    rows: list[Row]
    figures: dict[str, Figure]
    results: tuple[Result, ...]
    questions: dict[str, str]
    commands: dict[str, str]
    hours: list[tuple[str, ...]]

    @property
    def missing(self) -> list[str]:
        """Titles of the results that have no rows."""
        return [result.title for result in self.results if result.name not in self.figures]


def make_page(results: Path) -> Page:
    """Return the page of the rows in a folder of results."""
    known = {result.name for result in RESULTS}
    plans = {path.stem: StudyPlan.read(path) for path in sorted(PLANS.glob("*.toml"))}
    others = tuple(Result(name, plan.name, ()) for name, plan in plans.items() if name not in known)
    every = (*RESULTS, *others)
    studies = {each.name: Study.read(folder_of(each.name, results)) for each in every if each.name != ENERGY}
    energy = folder_of(ENERGY, results) / "energy.json"
    report = json.loads(energy.read_text(encoding="utf-8")) if energy.exists() else None
    rows: list[Row] = []
    figures: dict[str, Figure] = {}
    baselines = study.analysis.cells if (study := studies[BASELINES]) else ()
    with matplotlib.rc_context(STYLE):
        for result in every:
            study = studies.get(result.name)
            if study is not None:
                figures[result.name] = draw_study(result.name, study.analysis, baselines)
            elif result.name == ENERGY and report is not None:
                figures[result.name] = draw_energy(report)
            rows += _rows(result, study, report if result.name == ENERGY else None)
    questions = {name: plan.question for name, plan in plans.items()}
    commands = {each.name: _command(each.name) for each in every}
    return Page(adjust(rows), figures, every, questions, commands, list(_hours(every, studies)))


def _hours(results: Sequence[Result], studies: Mapping[str, Study | None]) -> Iterator[tuple[str, ...]]:
    """Yield title, tasks and hours of each study that was run, and last their sums."""
    run = {result.title: study for result in results if (study := studies.get(result.name)) is not None}
    done = {title: study.analysis.study["done"] for title, study in run.items()}
    yield from ((title, f"{done[title]:,}", f"{study.hours:.1f}") for title, study in run.items())
    yield "all", f"{sum(done.values()):,}", f"{sum(study.hours for study in run.values()):.1f}"


def _rows(result: Result, study: Study | None, energy: Mapping[str, Any] | None) -> Iterator[Row]:
    """Yield a line for each claim and body, or one for a result that was not run yet."""
    for claim in result.claims if study or energy else result.claims[:1]:
        if claim.kind == "crossover":
            yield Row(result, claim, fmt.NONE, None if energy is None else _crossover(energy))
        if study is not None:
            for body in study.bodies:
                yield Row(result, claim, body, find(claim, study, body))
        elif claim.kind != "crossover":
            yield Row(result, claim, fmt.NONE, None)


def _command(name: str) -> str:
    if name == ENERGY:
        return "ketfit energy"
    return f"python studies/paper.py --data sst2.tsv --only {name}"


def summary(page: Page) -> list[str]:
    """Return the five sentences at the top."""
    counts = {name: sum(row.verdict == name for row in page.rows) for name in ("agrees", "disagrees", "cannot be told")}
    told = ", ".join(f"{name}: {number}" for name, number in counts.items())
    if unknown := sum(not row.claim.is_known for row in page.rows if row.finding):
        told += f", {unknown} of them because the paper's numbers could not be had"
    missing = f"; not run yet: {fmt.join_names(page.missing)}" if page.missing else ""
    best = next(claim for result in page.results if result.name == BEST for claim in result.claims)
    return [
        f"Each statement of the paper was held against every body that was run ({told}{missing}).",
        _said(page, "qubits", "The paper's head on 10 qubits", "reaches {}; the paper reports 90.21 %"),
        _said(page, "qubits", "The change of its accuracy with the number of qubits", "is {}", "trend"),
        _said(
            page, BEST, "The head of 886 parameters that validation chooses", f"reaches {{}}; the paper: {best.says}"
        ),
        _said(page, ENERGY, "The energies", "cross at {}; the paper estimates 46", "crossover"),
    ]


def _said(page: Page, name: str, subject: str, predicate: str, kind: str = "accuracy") -> str:
    """Return a sentence with our numbers of one kind of one result, on each body."""
    found = [
        f"{row.finding.text}{'' if row.body == fmt.NONE else f' on {row.body}'}"
        for row in page.rows
        if (row.result.name, row.claim.kind) == (name, kind) and row.finding
    ]
    return f"{subject} {predicate.format(fmt.join_names(found))}." if found else f"{subject}: not run yet."


def to_markdown(page: Page) -> str:
    """Return the page as Markdown; its figures are files beside those of the documentation."""
    lines = [
        "# The paper, result by result",
        "",
        *(f"{sentence}  " for sentence in summary(page)[:-1]),
        summary(page)[-1],
        "",
        "This page is written by `python studies/paper_page.py` from the rows in `studies/results`;",
        "`make paper SST=sst2.tsv` runs what has no rows yet. The protocol is the paper's: 256 sentences of each",
        "label, 85 % of them for training, everything chosen on the other 15 %, tested on the remaining 9,101",
        "sentences of SST-2, five draws.",
        "",
        "## Verdicts",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(row.cells())} |" for row in page.rows),
        "",
        INTERVALS,
        "",
        "The rules:",
        "",
        *(f"- {rule}" for rule in RULES),
        "",
    ]
    for result in page.results:
        lines += _section(page, result)
    lines += ["## Hours", "", HOURS, "", f"| {' | '.join(HOURS_COLUMNS)} |", "|---|---:|---:|"]
    lines += [*(f"| {' | '.join(row)} |" for row in page.hours), ""]
    lines += ["## Left out", "", *(f"- {reason}" for reason in LEFT_OUT), ""]
    return "\n".join(lines)


def _section(page: Page, result: Result) -> Iterator[str]:
    yield from (f"## {result.title}", "")
    if result.name in page.questions:
        yield from (page.questions[result.name], "")
    if result.name == BEST:
        yield from (CANDIDATES, "", '--8<-- "paper/best_model/candidates.md"', "")
    figure = page.figures.get(result.name)
    if figure is None:
        yield from ("**Not run yet.**", "")
    else:
        yield from (f"![{panel.title}](images/{panel.name}.svg)" for panel in figure.panels)
        yield from ("", f"*{figure.caption}*", "")
    rows = "computed, without rows" if result.name == ENERGY else f"`{_rows_path(result.name)}`"
    yield from (f"Command: `{page.commands[result.name]}`. Rows: {rows}.", "")


def _rows_path(name: str) -> str:
    return (folder_of(name, Path("studies/results")) / "rows.jsonl").as_posix()


def to_html(page: Page) -> str:
    """Return the page as one HTML file in the style of the report of a study."""
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(HERE), PackageLoader("ketfit.study.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("paper_page.html.j2").render(
        page=page,
        summary=summary(page),
        columns=COLUMNS,
        intervals=INTERVALS,
        rules=[Markup(re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", rule)) for rule in RULES],  # noqa: S704 - our own text
        left_out=LEFT_OUT,
        hours_caption=HOURS,
        hours_columns=HOURS_COLUMNS,
        rows_path=_rows_path,
        energy=ENERGY,
        svg=Markup,
    )


def write_page(results: Path, docs: Path) -> Page:
    """Write the page, its figures and ``report.html``; remove figures of results that have no rows."""
    page = make_page(results)
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = {f"{panel.name}.svg": svg_file(panel) for figure in page.figures.values() for panel in figure.panels}
    for path in images.glob("paper-*.svg"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        write_file(images / name, text.encode())
    write_file(docs / "paper-results.md", to_markdown(page).encode())
    write_file(results / "paper" / "report.html", to_html(page).encode())
    return page


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, help="folder of the results")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of the page and its images")
    options = parser.parse_args()
    write_page(options.results, options.docs)


if __name__ == "__main__":
    main()
