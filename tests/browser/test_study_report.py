"""The report of a study as a reader meets it: in light, in dark, on a telephone and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from ketfit.study.report import write_report
from ketfit.study.task import Task
from tests.study.synthetic_studies import HOSTILE, flat, make_study, study_settings

pytestmark = pytest.mark.browser

SIZES = {"light": (1200, 800), "dark": (1200, 800), "phone": (360, 740)}

CONTRASTS = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgba("white");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["STYLE", "TITLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const drawn = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgba(drawn)), light(ground(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName, walker.currentNode.textContent]);
  }
  return found;
}
"""

CLIPPED_TEXT = """
() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 3 || box.right > frame.right + 3
      || box.top < frame.top - 3 || box.bottom > frame.bottom + 3;
  }).map(text => text.textContent);
})
"""


class Opened(NamedTuple):
    """A report opened at one window size, with the errors and requests of the browser."""

    look: str
    page: Page
    errors: list[str]
    requests: list[str]


def _levels(task: Task) -> float:
    return 1.5 + task.levels["head.connectivity"] / 3 if task.head == "quantum" else 2.3


@pytest.fixture(scope="session")
def report_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write reports of a factorial on two bodies, of a scan, and of a study with hostile names and missing rows."""
    factors: dict[str, Any] = {"head.connectivity": [1, 3], "head.main_layers": [1, 4], "head.n_qubits": [4, 5]}
    heads = {
        HOSTILE: {"kind": "quantum", "settings": {"n_qubits": 5}},
        '"></svg><img src=x onerror=alert(1)>': {"kind": "svc"},
        "a-name-without-any-place-to-break-it-" * 5: {"kind": "mlp"},
        "lr": {"kind": "logistic-regression"},
    }
    settings = {
        "factorial": study_settings(
            bodies=["body-a", "body-b"], factors=factors, design={"kind": "full", "estimate": "interactions"}
        ),
        "scan": study_settings(factors={"head.connectivity": [1, 2, 3, 4]}, design={"kind": "scan"}, seeds=20),
        "hostile": study_settings(name=HOSTILE, bodies=[HOSTILE, "b" * 90], heads=heads, report={"reference": "lr"}),
    }
    base = tmp_path_factory.mktemp("reports")
    for name, table in settings.items():
        skill = flat if name == "hostile" else _levels
        make_study(base / name, table, skill, missing=lambda task: task.head == "lr" and task.seed == 2)
        write_report(base / name)
    return {name: base / name for name in settings}


@pytest.fixture(scope="module", params=[(study, look) for study in ("factorial", "scan", "hostile") for look in SIZES])
def opened(browser: Browser, report_folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Opened]:
    study, look = request.param
    width, height = SIZES[look]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light"
    )
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((report_folders[study] / "report.html").as_uri())
    yield Opened(look, page, errors, requests)
    context.close()


def test_report_loads_nothing_and_logs_no_error(opened: Opened) -> None:
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]
    assert opened.page.evaluate("document.scripts.length") == 0


def test_report_fits_window_width(opened: Opened) -> None:
    width, window = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window


def test_report_wide_tables_scroll(opened: Opened) -> None:
    frames = opened.page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.getBoundingClientRect().right, e.tabIndex, e.ariaLabel])"
    )
    assert frames
    for right, tab, label in frames:
        assert right <= SIZES[opened.look][0] and tab == 0 and label


def test_report_figures_are_visible(opened: Opened) -> None:
    boxes = [svg.bounding_box() for svg in opened.page.locator("figure svg").all()]
    assert len(boxes) >= 3
    for box in boxes:
        assert box is not None and box["width"] > 200 and box["height"] > 80
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZES[opened.look][0]
    assert opened.page.evaluate(CLIPPED_TEXT) == []


def test_report_figure_text_is_large_enough(opened: Opened) -> None:
    sizes = opened.page.evaluate(
        """[...document.querySelectorAll("svg text")].map(text => {
             const svg = text.closest("svg");
             return parseFloat(getComputedStyle(text).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width;
           })"""
    )
    assert min(sizes) > 7.5


def test_report_text_has_contrast(opened: Opened) -> None:
    contrasts = opened.page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert [told for told in contrasts if told[0] < 4.5] == []


def test_report_background_follows_color_scheme(opened: Opened) -> None:
    red = int(opened.page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert red < 60 if opened.look == "dark" else red > 200


def test_report_headings_are_nested(opened: Opened) -> None:
    steps = [
        int(tag[1]) for tag in opened.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => e.tagName)")
    ]
    assert steps[0] == 1 and steps.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(steps))


def test_report_shows_names_unchanged(browser: Browser, report_folders: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto((report_folders["hostile"] / "report.html").as_uri())
    assert page.locator("h1").inner_text() == HOSTILE
    assert HOSTILE in (page.locator("figure svg").first.get_attribute("aria-label") or "")
    assert page.locator("svg text", has_text="alert('q')").count() > 0
    assert page.locator("img").count() == 0
    page.close()


def test_report_prints_light_in_dark_mode(browser: Browser, report_folders: dict[str, Path]) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((report_folders["factorial"] / "report.html").as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(int(part) for part in ink[4:-1].split(",")) < 80
    assert len(page.pdf()) > 10_000
    page.close()
