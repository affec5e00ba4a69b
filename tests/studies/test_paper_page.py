"""Test the page of the paper's results: verdicts by its rules, numbers equal to those recomputed from the rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import paper_figures
import paper_page
import pytest
from paper_claims import LITERAL, RESULTS, RESULTS_FOLDER, Claim, Result
from paper_figures import draw_study, svg_file
from paper_page import COLUMNS, Finding, Row, Study, adjust, core_hours, find, judge, make_page, to_html, to_markdown

from ketfit.study.analysis.analysis import Analysis
from ketfit.study.analysis.formatting import points
from ketfit.study.store import TaskResult
from tests.study.report.test_report import Page as Html
from tests.study.synthetic_studies import flat, make_study, study_settings

ROOT = Path(__file__).parents[2]
RISE = Claim("it rises", "trend", direction=1)
BODIES = ["body-a", "body-b"]


def quantum(**settings: Any) -> dict[str, Any]:
    return {"kind": "quantum", "settings": {"n_qubits": 4, **settings}}


HEADS = {
    LITERAL: quantum(),
    "recommended": quantum(main_layers=1),
    "logistic regression": {"kind": "logistic-regression"},
    "SVC (RBF)": {"kind": "svc"},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic studies in the place of those of two scans, of the baselines and of the best model, on two bodies."""
    folder = tmp_path_factory.mktemp("results")
    few: dict[str, Any] = {"bodies": BODIES, "seeds": 3}
    scan = {**few, "design": {"kind": "scan"}, "heads": HEADS}
    factors = {
        "qubits": {"head.n_qubits": [4, 5, 6]},
        "depth": {"head.encoder_layers": [1, 2, 4], "head.main_layers": [1, 2, 4]},
    }
    for name, levels in factors.items():
        make_study(folder / "paper" / name, study_settings(**scan, factors=levels), flat, sentences=200)
    make_study(folder / "paper" / "baselines", study_settings(**few, heads=HEADS), flat, sentences=200)
    heads = {"2 of 7 qubits averaged": quantum(), "3 of 4 qubits averaged": quantum(connectivity=3), **HEADS}
    make_study(folder / "paper" / "best_model", study_settings(**few, heads=heads), flat, sentences=200)
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> paper_page.Page:
    return make_page(results)


def frame(folder: Path) -> pd.DataFrame:
    """Return one line for each task and result of a study, from its two files alone."""
    tasks = pd.DataFrame(json.loads((folder / "study.json").read_text(encoding="utf-8"))["tasks"])
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = pd.DataFrame({"id": [line["task"] for line in lines], "result": [line["result"] for line in lines]})
    return tasks.merge(rows, on="id").assign(accuracy=lambda table: [each["test_accuracy"] for each in table["result"]])


def recomputed(rows: pd.DataFrame, point: Any) -> float:
    """Return the mean accuracy of a mark from the rows; the other factors are at their defaults of the paper."""
    mine = rows[(rows["body"] == point.body) & (rows["head"] == point.head)]
    if point.factor is not None:
        levels = pd.DataFrame(mine["levels"].tolist(), index=mine.index)
        own = {"head.encoder_layers": 2, "head.main_layers": 1 if point.head == "recommended" else 4}
        keep = levels[point.factor] == point.level
        for factor in levels.columns.difference([point.factor]):
            keep &= levels[factor] == own[factor]
        mine = mine[keep]
    return float(mine["accuracy"].mean())


def test_figures_means_equal_those_of_pandas(results: Path, page: paper_page.Page) -> None:
    assert set(page.figures) == {"qubits", "depth", "baselines", "best_model"}
    baselines = frame(results / "paper" / "baselines")
    for name, figure in page.figures.items():
        rows = frame(results / "paper" / name)
        drawn = " ".join(named.panel.svg for named in figure.panels)
        assert len(figure.points) > 4
        for point in figure.points:
            is_line = point.factor is None and (name in ("qubits", "depth") or point.head not in set(rows["head"]))
            mean = recomputed(baselines if is_line else rows, point)
            assert point.mean == pytest.approx(mean, abs=1e-12)
            assert points(mean) in drawn


def test_figures_intervals_equal_those_of_the_summary(results: Path, page: paper_page.Page) -> None:
    cells = [cell for name in page.figures for cell in Study.read(results / "paper" / name).analysis.cells]  # type: ignore[union-attr]
    intervals = {(cell.body, cell.head, cell.crossed.low, cell.crossed.high) for cell in cells if cell.crossed}
    for figure in page.figures.values():
        assert {(point.body, point.head, point.low, point.high) for point in figure.points} <= intervals


@pytest.mark.slow
def test_effects_figure_of_committed_screening_equals_pandas() -> None:
    folder = RESULTS_FOLDER / "paper" / "screening"
    rows, study = frame(folder), Study.read(folder)
    levels = pd.DataFrame(rows["levels"].tolist(), index=rows.index)
    assert study is not None
    figure = draw_study("screening", study.analysis, ())
    assert {point.level for point in figure.points} == set(levels.columns)
    for point in figure.points:
        mine = rows["body"] == point.body
        high = levels[point.level] == levels[point.level].max()
        accuracy = rows["accuracy"]
        assert point.mean == pytest.approx(accuracy[mine & high].mean() - accuracy[mine & ~high].mean(), abs=1e-12)


def test_make_page_levels_and_bodies_of_a_scan_have_a_panel_each(page: paper_page.Page) -> None:
    names = [named.name for named in page.figures["depth"].panels]
    assert names == [f"paper-depth-{number}" for number in range(4)]
    assert {point.level for point in page.figures["qubits"].points if point.factor} == {4, 5, 6}


def test_make_page_best_model_is_chosen_by_validation_loss(results: Path, page: paper_page.Page) -> None:
    rows = frame(results / "paper" / "best_model")
    rows["loss"] = [each["validation_loss"] for each in rows["result"]]
    mine = rows[(rows["body"] == "body-a") & rows["head"].str.contains("qubits averaged")]
    best = mine.groupby("head")["loss"].mean().idxmin()
    found = next(row for row in page.rows if row.result.name == "best_model" and row.body == "body-a")
    assert found.finding is not None and best in found.finding.text
    assert found.finding.value == pytest.approx(mine[mine["head"] == best]["accuracy"].mean())


def test_find_difference_equals_pandas(results: Path) -> None:
    study = Study.read(results / "paper" / "baselines")
    assert study is not None
    found = find(Claim("", "difference", LITERAL, "logistic regression"), study, "body-b")
    rows = frame(results / "paper" / "baselines")
    means = rows[rows["body"] == "body-b"].groupby("head")["accuracy"].mean()
    assert found is not None and found.value == pytest.approx(means[LITERAL] - means["logistic regression"])
    assert find(Claim("", "accuracy", "no such head"), study, "body-b") is None
    assert find(Claim("", "difference", LITERAL, "no such head"), study, "body-b") is None
    assert find(Claim("", "effect", LITERAL, factor="head.n_qubits"), study, "body-b") is None


def test_study_trends_have_the_numbers_of_their_tests(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.read(results / "paper" / "qubits")
    assert study is not None
    tested = {"slope": 0.1, "test": {"low": 0.0, "high": 0.2, "p_value": 0.05}}
    monkeypatch.setattr(Analysis, "to_json", lambda self: {"trends": [tested, {"slope": 0.1, "test": None}]})
    assert [(trend["low"], trend["high"], trend["p_value"]) for trend in study.trends] == [
        (0.0, 0.2, 0.05),
        (None, None, None),
    ]


def test_find_trend_reads_the_trends_of_the_summary(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.read(results / "paper" / "qubits")
    assert study is not None
    numbers = {"slope": 0.004, "low": 0.001, "high": 0.007, "p_value": 0.01}
    scale = {"scale": "linear", "step": 1.0, "levels": [4, 5, 6]}
    trend = {"head": LITERAL, "body": "body-a", "factor": "head.n_qubits", **scale, **numbers}
    monkeypatch.setattr(Study, "trends", [trend])
    claim = Claim("", "trend", factor="head.n_qubits", direction=1)
    found = find(claim, study, "body-a")
    assert found is not None and (found.value, found.low, found.high, found.span) == (0.004, 0.001, 0.007, 2.0)
    assert found.text == "+0.40 points a step (+0.10 to +0.70), 2 steps"
    assert find(claim, study, "body-b") is None
    rows = adjust([Row(Result("a", "A", ()), claim, "body-a", found)] * 2)
    assert [row.finding.adjusted_p for row in rows if row.finding] == [0.02, 0.02]
    monkeypatch.setattr(Study, "trends", [{**trend, "scale": "log2"}])
    found = find(claim, study, "body-a")
    assert found is not None and found.span == pytest.approx(0.585, abs=1e-3)
    assert found.text == "+0.40 points a doubling (+0.10 to +0.70), 0.585 doublings"
    monkeypatch.setattr(Study, "trends", [{**trend, "step": 0.5, "levels": [4, 4.5]}])
    found = find(claim, study, "body-a")
    assert found is not None and found.text.endswith(", 1 step")


@pytest.mark.parametrize(
    ("claim", "finding", "verdict"),
    [
        (Claim("", "accuracy", value=0.9), None, "not run yet"),
        (Claim("", "accuracy", value=0.9), Finding(0.9, None, None, ""), "cannot be told"),
        (Claim("", "accuracy", value=0.9), Finding(0.9, 0.895, 0.905, ""), "agrees"),
        (Claim("", "accuracy", value=0.9), Finding(0.89, 0.886, 0.8949, ""), "agrees"),
        (Claim("", "accuracy", value=0.9), Finding(0.89, 0.886, 0.8945, ""), "disagrees"),
        (Claim("", "accuracy", value=0.9), Finding(0.9, 0.88, 0.92, ""), "cannot be told"),
        (Claim("", "difference", value=0.03), Finding(0.0, -0.01, 0.01, ""), "disagrees"),
        (Claim("", "difference", direction=-1), Finding(-0.02, -0.03, -0.01, ""), "agrees"),
        (Claim("", "difference", direction=-1), Finding(0.02, 0.01, 0.03, ""), "disagrees"),
        (Claim("", "difference", direction=-1), Finding(0.0, -0.02, 0.02, ""), "cannot be told"),
        (Claim("", "difference", direction=-1), Finding(0.0, -0.009, 0.009, ""), "disagrees"),
        (Claim("", "difference", direction=1), Finding(0.0015, 0.0001, 0.003, ""), "disagrees"),
        (Claim("", "difference", direction=-1), Finding(-0.0015, -0.003, -0.0001, ""), "disagrees"),
        (Claim("", "difference", direction=1), Finding(-0.05, -0.109, 0.009, ""), "disagrees"),
        (Claim("", "difference", direction=1), Finding(0.006, 0.0001, 0.0119, ""), "agrees"),
        (RISE, Finding(0.004, 0.001, 0.007, "", 0.01, 0.02, 4), "agrees"),
        (RISE, Finding(0.004, 0.001, 0.007, "", 0.01, 0.2, 4), "cannot be told"),
        (RISE, Finding(-0.004, -0.007, -0.001, "", 0.01, 0.02, 4), "disagrees"),
        (RISE, Finding(0.0, -0.002, 0.002, "", 0.9, 1.0, 4), "disagrees"),
        (RISE, Finding(0.0, -0.003, 0.003, "", 0.9, 1.0, 4), "cannot be told"),
        (RISE, Finding(0.001, 0.0001, 0.002, "", 0.01, 0.02, 4), "disagrees"),
        (RISE, Finding(-0.01, -0.02, 0.002, "", 0.3, 1.0, 4), "disagrees"),
        (Claim("", "trend"), Finding(0.004, 0.001, 0.007, "", 0.01, 0.02, 4), "cannot be told"),
        (Claim("", "crossover", value=46), Finding(39, 33, 51, ""), "agrees"),
        (Claim("", "crossover", value=60), Finding(39, 33, 51, ""), "disagrees"),
    ],
)
def test_judge_verdict_follows_the_rules(claim: Claim, finding: Finding | None, verdict: str) -> None:
    assert judge(claim, finding) == verdict


def test_committed_verdicts_on_directions_follow_from_the_printed_numbers() -> None:
    directions = {(each.title, claim.says): claim.direction for each in RESULTS for claim in each.claims}
    text = (ROOT / "docs" / "paper-results.md").read_text(encoding="utf-8").replace("\N{MINUS SIGN}", "-")
    rows = [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    judged = 0
    for title, *_, says, found, slope, verdict in (row for row in rows if len(row) == len(COLUMNS)):
        if direction := directions.get((title, says)):
            low, high = map(float, re.findall(r"([-+\d.]+) to ([-+\d.]+)", f"{found} {slope}")[0])
            steps = re.search(r"([\d.]+) (?:step|doubling)s?,", slope)
            low, high = sorted(direction * bound * (float(steps[1]) if steps else 1) for bound in (low, high))
            significant = not steps or re.search(r"p (?:= 0\.0[0-4]|< 0\.0)", slope)
            expected = "disagrees" if high < 1 else "agrees" if low > 0 and significant else "cannot be told"
            assert verdict == expected, (title, found, slope)
            judged += 1
    assert judged > 50


def test_core_hours_counts_a_training_of_several_tests_once() -> None:
    def result(seconds: float, test: dict[str, Any] | None = None, **other: Any) -> TaskResult:
        config = {"head": {"kind": "quantum", "settings": {}} | ({"test": test} if test else {}), "seed": 0, **other}
        run = {"seconds": {"fit": seconds, "all_tries": seconds, "test": 3600.0}}
        return TaskResult(task=str(config), config=config, result={"test_accuracy": 0.5}, error=None, run=run)

    together = [result(7200.0), result(7200.0, {"shots": 10}), result(7200.0, {"shots": 100})]
    assert core_hours(together) == 2 + 3
    assert core_hours([*together, result(7200.0, seed=1), result(10800.0, {"shots": 1000})]) == 2 + 2 + 3 + 5
    failed = TaskResult(task="", config={}, result=None, error={"type": "", "message": ""}, run={})
    assert core_hours([failed]) == 0


def test_page_says_that_intervals_of_screening_effects_are_for_the_same_sentences(
    page: paper_page.Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "except those of screening effects, which are for new draws from the same sentences."
    assert sentence in to_markdown(page) and sentence in to_html(page)
    picture = SimpleNamespace(caption="Effects.", title="", panels=("",))
    monkeypatch.setattr(paper_figures, "effect_pictures", lambda each, number: [picture])
    effects = SimpleNamespace(body="body-a", head="quantum head", effects=SimpleNamespace(terms=()))
    figure = draw_study("screening", cast(Any, SimpleNamespace(effects=[effects])), ())
    assert figure.caption == "Effects. The intervals are for new draws from the same sentences."


def test_make_page_hours_equal_those_of_pandas(results: Path, page: paper_page.Page) -> None:
    *own, (_, all_tasks, all_hours) = page.hours
    assert [title for title, *_ in own] == [each.title for each in RESULTS if each.name in page.figures]
    rows = pd.concat(
        pd.read_json(results / "paper" / name / "rows.jsonl", lines=True, orient="records") for name in page.figures
    )
    seconds = pd.DataFrame([run["seconds"] for run in rows["run"]])
    assert all_tasks == f"{len(rows):,}"
    assert all_hours == f"{(seconds['all_tries'] + seconds['test']).sum() / 3600:.1f}"


def test_to_markdown_lists_every_result_and_what_was_not_run(page: paper_page.Page) -> None:
    text = to_markdown(page)
    for result in RESULTS:
        assert f"\n## {result.title}\n" in text
    assert text.count("**Not run yet.**") == len(RESULTS) - 4
    for row in page.rows:
        assert f"| {' | '.join(row.cells())} |" in text and len(row.cells()) == len(COLUMNS)
    top = text.partition("\n\nThis page")[0]
    assert top.count(".  \n") == 4 and top.endswith("."), "five sentences"
    assert "The energies: not run yet." in top and "The paper's head on 10 qubits reaches " in top


def test_to_html_is_well_formed_and_loads_nothing(page: paper_page.Page) -> None:
    html = Html(to_html(page))
    assert html.open == []
    assert not {"script", "img", "iframe"} & {tag for tag, _ in html.elements}
    assert len(html.all("svg")) == sum(len(figure.panels) for figure in page.figures.values())
    ids = [attributes["id"] for _, attributes in html.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for row in page.rows:
        assert row.verdict in html.text


def assert_alike(found: str, expected: str) -> None:
    """Compare texts whose numbers may differ in their sixth decimal, in which processors differ."""
    number = re.compile(r"-?\d+(?:\.\d+)?")
    assert number.sub("", found) == number.sub("", expected), "run python studies/paper_page.py"
    numbers, own = (np.array(number.findall(text), float) for text in (found, expected))
    np.testing.assert_allclose(numbers, own, rtol=0, atol=2e-6, err_msg="run python studies/paper_page.py")


@pytest.mark.slow
def test_committed_page_is_that_of_the_committed_rows() -> None:
    committed = make_page(RESULTS_FOLDER)
    text = (ROOT / "docs" / "paper-results.md").read_text(encoding="utf-8")
    assert text == to_markdown(committed), "run python studies/paper_page.py"
    assert_alike((RESULTS_FOLDER / "paper" / "report.html").read_text(encoding="utf-8"), to_html(committed))
    drawn = {f"{named.name}.svg": svg_file(named) for each in committed.figures.values() for named in each.panels}
    images = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "images").glob("paper-*.svg")}
    assert images.keys() == drawn.keys(), "run python studies/paper_page.py"
    for name, text in images.items():
        assert_alike(text, drawn[name])
