"""Test the report of a study: the numbers of the page and of summary.json, and what the page is made of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import StudyError
from ketfit.study.analysis.formatting import interval, p_value, points
from ketfit.study.report import SUMMARY, write_report
from ketfit.study.store import RECORD, ROWS
from tests.study.synthetic_studies import HOSTILE, flat, make_study, study_settings

RESULTS = sorted(path.parent for path in (Path(__file__).parents[3] / "studies" / "results").rglob("study.json"))
VOID = {"meta", "link", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Parser of the elements and the text of a page; wrongly nested tags fail an assertion."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(folder: Path, settings: dict[str, Any], **options: Any) -> tuple[dict[str, Any], Page]:
    make_study(folder, settings, options.pop("skill", flat), **options)
    summary = write_report(folder)
    return summary, Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def factorial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def factorial_report(factorial_folder: Path) -> tuple[dict[str, Any], Page]:
    settings = study_settings(
        seeds=3,
        factors={"head.encoder_layers": [1, 2], "head.connectivity": [1, 3]},
        design={"kind": "full", "estimate": "interactions"},
    )
    return report(factorial_folder, settings)


def test_write_report_page_shows_numbers_of_summary(factorial_report: tuple[dict[str, Any], Page]) -> None:
    summary, page = factorial_report
    for cell in summary["cells"]:
        accuracy = cell["accuracy"]
        for number in (accuracy["mean"], accuracy["spread"], cell["best"], cell["validation_accuracy"]):
            assert points(number) in page.text
        assert interval(accuracy["low"], accuracy["high"]) in page.text
        assert interval(cell["crossed"]["low"], cell["crossed"]["high"]) in page.text
    for each in summary["comparisons"]:
        assert points(each["difference"], plus=True) in page.text
        for test in ("crossed", "paired", "corrected"):
            assert interval(each[test]["low"], each[test]["high"], plus=True) in page.text
            if test != "crossed":
                assert p_value(each[test]["p_value"]) in page.text
        assert p_value(each["adjusted_p"]) in page.text
    for term in summary["effects"][0]["effects"]["terms"]:
        assert points(term["effect"], plus=True) in page.text
        assert interval(term["low"], term["high"], plus=True) in page.text
    assert len(summary["trends"]) == 2 and "Trends on body-a" in page.text
    for trend in summary["trends"]:
        assert points(trend["slope"], plus=True) in page.text
        assert interval(trend["test"]["low"], trend["test"]["high"], plus=True) in page.text
        assert p_value(trend["adjusted_p"]) in page.text
    for text in [*summary["answer"], *(caveat["text"] for caveat in summary["caveats"])]:
        assert " ".join(text.split()) in page.text


def test_write_report_returns_content_of_summary_json(
    factorial_folder: Path, factorial_report: tuple[dict[str, Any], Page]
) -> None:
    summary, _ = factorial_report
    written = json.loads((factorial_folder / "summary.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(summary))
    assert summary["study"]["name"] == "A synthetic study"


def test_write_report_page_describes_runs(factorial_report: tuple[dict[str, Any], Page]) -> None:
    summary, page = factorial_report
    study = summary["study"]
    for word in (study["command"], study["data"]["fingerprint"], study["bodies"]["body-a"]["fingerprint"]):
        assert word in page.text
    assert "30 to train, 10 to validate; all others test, 560" in page.text
    assert "2026-01-01 00:00:00 UTC to" in page.text and "ketfit 0.1.0" in page.text


def test_write_report_page_is_well_formed_and_loads_nothing(factorial_report: tuple[dict[str, Any], Page]) -> None:
    _, page = factorial_report
    assert page.open == []
    assert not {"script", "iframe", "img", "object", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#")[0] == "#" or (tag, attributes[name]) == ("link", "data:,")
        assert not [name for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    references = {attributes["xlink:href"] for attributes in page.all("use")}
    assert references <= {f"#{name}" for name in ids}


def test_write_report_figures_and_tables_are_accessible(factorial_report: tuple[dict[str, Any], Page]) -> None:
    _, page = factorial_report
    for drawing in page.all("svg"):
        assert drawing["role"] == "img" and drawing["aria-label"]
    assert len(page.all("figure")) == len(page.all("figcaption")) > 4
    assert len(page.all("table")) == len(page.all("caption")) > 3
    assert all(heading.get("scope") for heading in page.all("th"))


@pytest.mark.slow
def test_write_report_same_rows_gives_same_bytes(tmp_path: Path) -> None:
    settings = study_settings(factors={"head.connectivity": [1, 2, 3]}, design={"kind": "scan"}, bodies=["a", "b"])
    make_study(tmp_path, settings, flat)
    write_report(tmp_path)
    names = ("report.html", "summary.json")
    before = [(tmp_path / name).read_bytes() for name in names]
    lines = (tmp_path / ROWS).read_text(encoding="utf-8").splitlines()
    (tmp_path / ROWS).write_text("".join(f"{line}\n" for line in reversed(lines)), encoding="utf-8")
    command = [sys.executable, "-c", f"from ketfit.study.report import *; write_report(Path({str(tmp_path)!r}))"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "5"})
    assert [(tmp_path / name).read_bytes() for name in names] == before


@pytest.mark.slow
def test_write_report_depends_on_folder_only(tmp_path: Path) -> None:
    make_study(tmp_path, study_settings(factors={"data.per_label": [10, 20]}, design={"kind": "scan"}), flat)
    write_report(tmp_path)
    names = ("report.html", "summary.json")
    before = [(tmp_path / name).read_bytes() for name in names]
    (tmp_path / "sentences.tsv").write_text("text\tlabel\nothers\tgood\nthan before\tbad\n", encoding="utf-8")
    write_report(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    (tmp_path / "sentences.tsv").unlink()
    write_report(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_write_report_record_without_draws_raises(tmp_path: Path) -> None:
    make_study(tmp_path, study_settings(), flat)
    table = json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))
    del table["draws"]
    (tmp_path / RECORD).write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(
        StudyError, match=r"study\.json is damaged \(StudyRecord needs the setting 'draws'\); run the study again"
    ):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_write_report_escapes_names(tmp_path: Path) -> None:
    heads = {
        HOSTILE: {"kind": "quantum", "settings": {"n_qubits": 5}},
        '"></svg><img src=x onerror=alert(1)>': {"kind": "svc"},
        "{{ 7 * 7 }}": {"kind": "logistic-regression"},
    }
    settings = study_settings(
        name=HOSTILE, question=HOSTILE, bodies=[HOSTILE], heads=heads, report={"reference": "{{ 7 * 7 }}"}
    )
    _, page = report(tmp_path, settings, failed=lambda task: task.seed == 1)
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) > 5 and "{{ 7 * 7 }}" in page.text and "49" not in page.all("h1")


@pytest.mark.slow
def test_write_report_unfinished_study_is_marked_first(tmp_path: Path) -> None:
    _, page = report(tmp_path, study_settings(), missing=lambda task: task.seed > 2, failed=lambda task: task.seed == 0)
    notice = "Not complete. Of 15 runs, 6 have a result, 3 failed and 6 are still to be run."
    assert 0 < page.text.index(notice) < page.text.index("Read with care")


def test_write_report_empty_study_has_no_figure(tmp_path: Path) -> None:
    _, page = report(tmp_path, study_settings(), missing=lambda task: True)
    assert "There is no result yet" in page.text and not page.all("figure")


@pytest.mark.slow
def test_write_report_single_seed_has_no_intervals(tmp_path: Path) -> None:
    summary, page = report(tmp_path, study_settings(seeds=1))
    assert summary["cells"][0]["accuracy"]["low"] is None
    assert "One seed says nothing" in page.text and " to " not in re.findall(r"Mean Spread.*?Differences", page.text)[0]


@pytest.mark.slow
def test_write_report_without_reference_has_no_differences(tmp_path: Path) -> None:
    _, page = report(tmp_path, study_settings(report={}))
    assert "names no reference" in page.text and "Differences from" not in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "factors"),
    [
        ("scan", {"head.n_qubits": [4, 6, 8], "train.epochs": [5, 50], "data.per_label": [10, 20]}),
        ("scan", {"train.learning_rate": [0.001, 0.01, 0.1], "head.merge": ["concat", "mean"]}),
        ("latin-hypercube", {"head.n_qubits": {"low": 4, "high": 8, "integer": True}, "head.connectivity": [1, 2, 3]}),
        (
            "plackett-burman",
            {"head.n_qubits": [4, 5], "head.skip_connection": [False, True], "head.main_layers": [1, 2]},
        ),
    ],
)
def test_write_report_every_design(tmp_path: Path, design: str, factors: dict[str, Any]) -> None:
    table = {"kind": design, **({"samples": 6} if design == "latin-hypercube" else {})}
    settings = study_settings(factors=factors, design=table, seeds=2)
    if "train.learning_rate" in factors:
        settings["budget"] = {"learning_rates": [0.03], "regularization": [1.0]}
    if design == "plackett-burman":
        settings["design"]["estimate"] = "main effects"
    summary, page = report(tmp_path, settings)
    assert len(page.all("svg")) >= 3 and len(summary["cells"]) > 3


def test_write_report_folder_without_study_raises(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        write_report(tmp_path)


def test_write_report_without_effects_does_not_need_statsmodels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path, study_settings(), flat)
    monkeypatch.setitem(sys.modules, "statsmodels.regression.linear_model", None)
    assert write_report(tmp_path)["comparisons"]


@pytest.mark.slow
def test_write_report_missing_extra_names_pip_command(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; sys.modules['matplotlib'] = None\n"
        "from ketfit.errors import MissingExtraError\n"
        "from ketfit.study.report import SUMMARY, write_report\n"
        "try: write_report(pathlib.Path('.'))\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'ketfit[study]'" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_committed_reports_match_their_rows(folder: Path, tmp_path: Path) -> None:
    for name in (RECORD, ROWS):
        shutil.copy(folder / name, tmp_path / name)
    found, committed = write_report(tmp_path), json.loads((folder / SUMMARY).read_text())
    assert found["answer"] == committed["answer"]
    assert found["study"] == committed["study"]
    assert found["study"]["missing"] == found["study"]["failed"] == 0
    means = [[cell["accuracy"]["mean"] for cell in summary["cells"]] for summary in (found, committed)]
    assert means[0] == pytest.approx(means[1], abs=1e-12)
