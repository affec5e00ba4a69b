"""The callbacks of the page and the guard in front of it, without a browser."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from ketfit import NoiseConfig, TextClassifier
from ketfit.app.server import HEADERS, RequestLimitMiddleware, serve
from ketfit.app.trace import MeasurementSettings, TracePredictor
from ketfit.app.ui import MAX_PARQUET_BYTES, MAX_SENTENCES, Page, _sliders
from ketfit.bodies.body import load_body
from ketfit.data.tables import Block, TextTable
from ketfit.errors import ConfigError
from tests.app.test_trace import make

HOSTILE = '<script>alert(1)</script> & "good" film'


@pytest.fixture(scope="module")
def page(tiny_body_folder: Path) -> Page:
    return Page(TracePredictor(make(load_body(tiny_body_folder, device="cpu"))), [])


def test_page_shows_all_steps_and_escapes_text(page: Page) -> None:
    html = "".join(page.classify(HOSTILE, 20, 0.01, 0))
    assert "<script>" not in html
    for title in ("Embedding", "Encoder", "QPU circuit", "Shots", "Expectation"):
        assert title in html
    assert page.measure("", 20, 0.01, 0) == ("", "")


def test_page_shows_principal_components(page: Page, tiny_body_folder: Path) -> None:
    body = load_body(tiny_body_folder, device="cpu")
    html = "".join(Page(TracePredictor(make(body, components=3)), []).classify("a good film", 20, 0.01, 0))
    assert "along 3 principal directions" in html
    assert "3 numbers of the projected embedding" in html
    assert "Principal components" not in "".join(page.classify("a good film", 20, 0.01, 0))


@pytest.mark.parametrize(
    ("shots", "error", "draw"),
    [(-1, 0, 0), (10**9, 0, 0), (math.nan, 0, 0), (math.inf, 0, 0), (0, -0.1, 0), (0, math.nan, 0), (0, 2, 0),
     (0, 0, -1), (0, 0, 10**30), ("many", 0, 0), (None, 0, 0), ([1], 0, 0)],
)  # fmt: skip
def test_page_invalid_numbers_are_refused(page: Page, shots: Any, error: Any, draw: Any) -> None:
    html = page.classify("a film", shots, error, draw)
    assert "kf-error" in html[0]
    assert html[1:] == ("", "", "")


@pytest.mark.parametrize("sentence", [None, 3, ["a"], {"a": 1}, "\x00", "\ud800", "x" * 10**6, "\u202eabc", "🎬" * 100])
def test_page_any_sentence_is_answered(page: Page, sentence: Any) -> None:
    assert page.classify(sentence, 0, 0, 0)[0].startswith(("<p", "<section"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"review\ngood\n", "no column &#39;text&#39;"),
        ("b.txt", b"\xff\xfe\x00", "not valid utf-8"),
        ("c.parquet", b"PAR1 not", "not a readable Parquet"),
        ("d.txt", b"a film\n" * (MAX_SENTENCES + 1), "more than 1,000 sentences"),
        ("e.txt", b"x" * 3000, "3,000 characters"),
        ("f.jsonl", b'{"text": ' * 5000, "malformed JSON"),
        ("g.txt", b"", "no sentence"),
    ],
)
def test_page_unusable_file_error_hides_path(
    page: Page, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    html, file = page.classify_file(str(tmp_path / name), 0, 0)
    assert file is None
    assert message in html
    assert str(tmp_path) not in html


def test_page_reads_few_rows_of_long_repeated_parquet_value(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "repeated.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * 1_000_000])
    with parquet.ParquetWriter(
        path, pa.schema({"text": column.type}), store_schema=False, dictionary_pagesize_limit=2**22
    ) as writer:
        writer.write_table(pa.table({"text": column}))
    assert path.stat().st_size < 2**20
    read: list[int] = []
    blocks = TextTable.blocks

    def count_rows(table: TextTable, size: int) -> Iterator[Block]:
        for block in blocks(table, size):
            read.append(len(block))
            yield block

    monkeypatch.setattr(TextTable, "blocks", count_rows)
    html, file = page.classify_file(str(path), 0, 0)
    assert "1,000,000 characters" in html
    assert file is None
    assert sum(read) <= 16


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([b"x" * (MAX_PARQUET_BYTES + 1)]), "bytes after decompression"),
        (pa.array([[0] * 1000]), "holds lists"),
    ],
)
def test_page_refuses_parquet_that_decompresses_to_much(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: pa.Array, message: str
) -> None:
    path = tmp_path / "large.parquet"
    parquet.write_table(pa.table({"text": ["a good film"], "other": column}), path, compression="zstd")
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(TextTable, "blocks", lambda *_: pytest.fail("rows are read"))
    html, file = page.classify_file(str(path), 0, 0)
    assert message in html
    assert file is None


def test_page_classifies_parquet_file(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "films.parquet"
    parquet.write_table(pa.table({"text": ["a good film", "bad film"] * 5, "number": range(10)}), path)
    html, file = page.classify_file(str(path), 0, 0)
    assert html.count("a good film") == 5
    assert "kf-notice" not in html
    assert file is not None
    assert len(Path(file).read_text(encoding="utf-8").splitlines()) == 11


def test_page_shows_notice_about_truncated_sentences_of_file(page: Page, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("good " * 390 + "\na good film\n", encoding="utf-8")
    html, file = page.classify_file(str(tmp_path / "long.txt"), 0, 0)
    assert '<p class="kf-notice">1 of 2 new sentences have more than' in html
    assert file is not None


def test_sliders_include_settings_of_training(tiny_body_folder: Path) -> None:
    noise = NoiseConfig(depolarizing_2q=0.25)
    trained = Page(TracePredictor(make(load_body(tiny_body_folder, device="cpu"), shots=5000, noise=noise)), [])
    gradio = SimpleNamespace(Slider=lambda low, high, *, value, **_: (low, high, value))
    assert _sliders(gradio, trained.predictor.trained_settings) == ((0, 5000, 5000), (0, 0.25, 0.25))
    assert _sliders(gradio, MeasurementSettings(20, 0.01)) == ((0, 4000, 20), (0, 0.1, 0.01))
    assert "kf-error" not in trained.measure("a good film", 5000, 0.25, 0)[0]
    assert "kf-error" in trained.measure("a good film", 5001, 0.25, 0)[0]
    assert "kf-error" in trained.measure("a good film", 5000, 0.26, 0)[0]


def answer(guard: RequestLimitMiddleware, headers: dict[str, str], pieces: list[bytes]) -> tuple[int, list[bytes]]:
    """The status and the body's pieces that the application behind the guard got."""
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(guard(scope, receive, send))
    names = {name for name, _ in sent[0]["headers"]}
    assert sent[0]["status"] != 200 or {name.encode() for name in HEADERS} <= names
    return sent[0]["status"], [message["body"] for message in sent[1:]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    got = b""
    while (message := await receive())["type"] == "http.request":
        got += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(got)})


def test_middleware_limits_requests_and_hosts() -> None:
    guard = RequestLimitMiddleware(echo, max_bytes=10)
    here = {"host": "127.0.0.1:80"}
    assert answer(guard, here, [b"12345", b"67890"]) == (200, [b"10"])
    assert answer(guard, here, [b"12345", b"67890", b"1"]) == (200, [b"10"])  # the rest of it never comes
    assert answer(guard, {**here, "content-length": "11"}, [])[0] == 413
    assert answer(guard, {**here, "content-length": "-1"}, [])[0] == 413
    for host in ("localhost", "LOCALHOST:7860", "[::1]:80", "127.0.0.1"):
        assert answer(guard, {"host": host}, [])[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80"):
        assert answer(guard, {"host": host}, [])[0] == 421
    assert answer(RequestLimitMiddleware(echo, hosts=()), {"host": "any.example"}, [])[0] == 200


def test_serve_port_in_use_is_refused(page: Page) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="choose another --port"):
            serve(page.predictor, [], "127.0.0.1", taken.getsockname()[1], lambda url: None)


def test_app_without_gradio_names_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ketfit.app import server
    from ketfit.cli.main import main

    monkeypatch.setattr(server, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        main(["app", "no-model"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "error: The web demo needs a package that is not installed: pip install 'ketfit[app]'\n"
    )


def test_page_of_classical_head_has_no_circuit(tiny_body_folder: Path) -> None:
    texts = [f"{word} film {number}" for number in range(10) for word in ("good", "bad")]
    classifier = TextClassifier(str(tiny_body_folder), "logistic-regression").fit(texts, ["good", "bad"] * 10)
    page = Page(TracePredictor(classifier), [])
    prediction, inputs, circuit, outputs = page.classify(HOSTILE, 0, 0, 0)
    assert "The logistic regression says" in prediction
    assert "Embedding" in inputs
    assert (circuit, outputs) == ("", "")
    assert "<script>" not in prediction + inputs
    assert "kf-error" in page.classify("a film", 100, 0, 0)[0]
    assert "quantum" not in page._header()
    gradio = SimpleNamespace(Slider=lambda *_, visible, **__: visible)  # its event loops outlive a test
    assert _sliders(gradio, page.predictor.trained_settings) == (False, False)
    assert _sliders(gradio, MeasurementSettings()) == (True, True)
