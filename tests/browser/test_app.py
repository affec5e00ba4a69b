"""The web demo as a visitor meets it: by keyboard, on a telephone, with hostile sentences, and without a network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from ketfit import HeadConfig, QuantumHeadClassifier, TextClassifier, TrainConfig
from ketfit.app import server
from ketfit.app.trace import TracePredictor, fit_baseline
from ketfit.bodies.body import load_body
from ketfit.data.dataset import Dataset
from tests.browser.test_study_report import CONTRASTS

TEXTS = ("good fine film", "the good film", "fine, not dull", "bad dull film", "the bad film", "dull, not good") * 4
LABELS = ("good", "good", "good", "bad", "bad", "bad") * 4
HOSTILE = "<img src=x onerror=alert(1)> <b>good</b> film"
SECONDS = 30_000
# Gradio's queue asks pandas for an option that pandas 3 is about to drop.
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore:.*no_silent_downcasting")]


@pytest.fixture(scope="module")
def classifier(tiny_body_folder: Path) -> TextClassifier:
    body = load_body(tiny_body_folder, device="cpu")
    head = QuantumHeadClassifier(HeadConfig(n_qubits=5, main_layers=3), TrainConfig(epochs=10))
    return TextClassifier.from_parts(body, head.fit(body.encode(TEXTS), np.array(LABELS)))


@pytest.fixture(scope="module")
def address(classifier: TextClassifier) -> Iterator[str]:
    """A demo that runs, with logistic regression beside the quantum head."""
    import uvicorn

    predictor = TracePredictor(classifier, fit_baseline(classifier, Dataset("six", TEXTS, LABELS)))
    with server._temporary_files(), server._listening("127.0.0.1", 0) as bound:
        config = uvicorn.Config(server.make_app(predictor, [("model", HOSTILE)]), log_level="warning")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        while not running.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        running.should_exit = True
        thread.join()


class Visit:
    """A page with all that it asked for and complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(SECONDS)
        page.on("request", lambda asked: self.requests.append(asked.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        page.get_by_label("Sentence").wait_for()

    def classify(self, sentence: str) -> None:
        self.page.get_by_label("Sentence").fill(sentence)
        self.page.get_by_label("Sentence").press("Enter")
        expect(self.page.locator(".kf-label")).to_be_visible(timeout=SECONDS)

    def width(self) -> tuple[int, int]:
        width, window = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        return width, window


def visit(browser: Browser, address: str, **looks: Any) -> Visit:
    return Visit(browser.new_context(**looks).new_page(), address)


@pytest.fixture
def desk(browser: Browser, address: str) -> Iterator[Visit]:
    found = visit(browser, address, viewport={"width": 1200, "height": 900})
    yield found
    found.page.context.close()


def test_app_traces_sentence_and_stays_on_host(desk: Visit, address: str, classifier: TextClassifier) -> None:
    desk.classify("a good film")
    expected = classifier.predict_proba(["a good film"])[0]
    assert desk.page.locator(".kf-label").inner_text() == str(classifier.classes_[expected.argmax()])
    shown = desk.page.locator(".kf-prediction > .kf-bars .kf-figure").all_inner_texts()
    assert shown == [f"{share:.1%}" for share in sorted(expected, reverse=True)]
    assert "Logistic regression" in desk.page.locator(".kf-classical").inner_text()
    titles = [text.split("\n")[-1] for text in desk.page.locator(".kf-card h2").all_inner_texts()]
    assert [title.lstrip("12345") for title in titles] == [
        "Embedding",
        "Encoder ⟨Z⟩",
        "QPU circuit",
        "Outcomes",
        "Expectation",
    ]
    circuit = classifier.classifier_.module_.circuit
    assert desk.page.locator("svg.circuit rect").count() == circuit.gate_counts()["ry"]
    assert desk.page.locator("svg.kf-strip rect").count() == 16
    outside = [url for url in desk.requests if not url.startswith((address, "data:", "blob:"))]
    assert len(desk.requests) > 10
    assert outside == []
    assert desk.complaints == []


def test_app_sliders_update_prediction(desk: Visit) -> None:
    desk.classify("a good film")
    exact = desk.page.locator(".kf-line .kf-figure").inner_text()
    shots = desk.page.get_by_label("range slider for Shots (0 is exact)")
    shots.focus()
    shots.press("ArrowRight")
    expect(desk.page.locator(".kf-card h2", has_text="Shots")).to_be_visible(timeout=SECONDS)
    counts = [int(text) for text in desk.page.locator(".kf-shots .kf-figure").all_inner_texts()]
    assert sum(counts) == 10
    for _ in range(6):  # 10 shots fall the same way now and then
        desk.page.get_by_role("button", name="Measure again").click()
        desk.page.wait_for_timeout(300)
        if [int(text) for text in desk.page.locator(".kf-shots .kf-figure").all_inner_texts()] != counts:
            break
    else:
        pytest.fail("ten shots fell the same way seven times")
    shots.press("Home")
    expect(desk.page.locator(".kf-card h2", has_text="Outcomes")).to_be_visible(timeout=SECONDS)
    expect(desk.page.locator(".kf-line .kf-figure")).to_have_text(exact, timeout=SECONDS)
    error = desk.page.get_by_label("range slider for Error of a two-qubit gate")
    error.focus()
    error.press("End")
    expect(desk.page.locator(".kf-line .kf-figure")).not_to_have_text(exact, timeout=SECONDS)
    noisy = desk.page.locator(".kf-line .kf-figure").inner_text()
    assert abs(_number(noisy)) < abs(_number(exact))


def _number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_app_works_by_keyboard(desk: Visit) -> None:
    order = ["Classify", "number input for Shots", "range slider for Shots", "range slider for Error", "Measure again"]
    for name in order:
        control = desk.page.get_by_label(name).or_(desk.page.get_by_role("button", name=name))
        expect(control).to_be_visible(timeout=SECONDS)
    desk.page.get_by_label("Sentence").focus()
    desk.page.keyboard.type("a dull film")
    seen: list[str] = []
    # The page has eight stops, and browsers add some of their own.
    while len(seen) < 12 and not (seen and seen[-1].startswith(order[-1])):
        desk.page.keyboard.press("Tab")
        seen.append(desk.page.evaluate("(e => e.ariaLabel || e.textContent.trim())(document.activeElement)"))
    places = [next((place for place, name in enumerate(seen) if name.startswith(wanted)), None) for wanted in order]
    assert None not in places, f"not reached: one of {order}; the walk was {seen}"
    assert places == sorted(places), seen
    desk.page.get_by_role("button", name="Classify").focus()
    desk.page.keyboard.press("Enter")
    expect(desk.page.locator(".kf-label")).to_be_visible(timeout=SECONDS)


def test_app_html_in_sentence_is_escaped(desk: Visit, tmp_path: Path) -> None:
    desk.classify(HOSTILE)
    desk.page.get_by_role("tab", name="About").click()
    expect(desk.page.locator(".kf-facts dd")).to_have_text(HOSTILE)
    desk.page.get_by_role("tab", name="Upload").click()
    path = tmp_path / "hostile.txt"
    path.write_text(f"{HOSTILE}\na dull film\n")
    desk.page.locator("input[type=file]").set_input_files(path)
    cell = desk.page.locator(".kf-table td:nth-child(3)").first
    expect(cell).to_have_text(HOSTILE, timeout=SECONDS)
    assert desk.page.locator("img[src=x]").count() == 0
    assert desk.complaints == []


def test_app_file_is_classified_and_downloaded(desk: Visit, tmp_path: Path, classifier: TextClassifier) -> None:
    desk.page.get_by_role("tab", name="Upload").click()
    path = tmp_path / "reviews.csv"
    path.write_text("id,text\n1,a good film\n2,a bad film\n")
    desk.page.locator("input[type=file]").set_input_files(path)
    expect(desk.page.locator(".kf-table tbody tr")).to_have_count(2, timeout=SECONDS)
    with desk.page.expect_download() as download:
        desk.page.get_by_text("Download all as CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "text,predicted_label,probability_bad,probability_good"
    expected = classifier.predict_proba(["a good film", "a bad film"])
    assert [float(line.split(",")[3]) for line in lines[1:]] == pytest.approx(expected[:, 1], abs=1e-6)


def test_app_errors_are_shown(desk: Visit, tmp_path: Path) -> None:
    desk.page.get_by_label("Sentence").fill("   ")
    desk.page.get_by_role("button", name="Classify").click()
    expect(desk.page.locator(".kf-error")).to_contain_text("blank", timeout=SECONDS)
    desk.page.get_by_role("tab", name="Upload").click()
    path = tmp_path / "other.csv"
    path.write_text("review\na good film\n")
    desk.page.locator("input[type=file]").set_input_files(path)
    told = desk.page.locator(".kf-error").last
    expect(told).to_contain_text("no column 'text'", timeout=SECONDS)
    assert "/" not in told.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_app_on_phone_needs_no_sideways_scrolling(browser: Browser, address: str, scheme: str) -> None:
    phone = visit(browser, address, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    phone.classify("a good film")
    assert phone.width()[0] <= phone.width()[1] == 360
    frame = phone.page.locator(".kf-scroll").first
    assert frame.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")
    ground = phone.page.evaluate("getComputedStyle(document.querySelector('.kf-card')).backgroundColor")
    red = int(ground.split("(")[1].split(",")[0])
    assert red < 60 if scheme == "dark" else red > 200
    contrasts = phone.page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [told for told in contrasts if told[0] < 4.5 and told[1] != "SCRIPT"] == []
    for tab in ("Upload", "About"):
        phone.page.get_by_role("tab", name=tab).click()
        assert phone.width()[0] <= 360
    phone.page.context.close()


def test_app_responses_have_security_headers(address: str) -> None:
    with urlopen(address, timeout=10) as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    with pytest.raises(Exception, match="421"):
        urlopen(Request(address, headers={"Host": "elsewhere.example"}), timeout=10)
    # The headers alone: a client that is still sending may hear of the closed connection before it hears the answer.
    connection = HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(server.MAX_REQUEST_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_app_stopped_server_leaves_no_files(
    classifier: TextClassifier, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    classifier.save_pretrained(tmp_path / "model")
    (tmp_path / "files").mkdir()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "ketfit", "app", tmp_path / "model", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "files")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    found = None
    while found is None and (line := process.stderr.readline()):
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found is not None
    with urlopen(found[0], timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    process.stderr.close()
    assert [path.name for path in (tmp_path / "files").iterdir() if path.name.startswith("ketfit")] == []
