"""Take the screenshots of the documentation with Debian's Chromium, after `make demo`.

python docs/screenshots.py [FOLDER]

It starts ``ketfit app`` on build/demo-model, opens the committed report of the frozen body, and writes PNG files of at
most 64 colours. Needs the extras ``app`` and ``bundled``, and Playwright and Pillow.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = "/usr/bin/chromium"
SENTENCE = "a film to remember"
REPORT = ROOT / "studies" / "results" / "table" / "frozen" / "report.html"


def main(folder: Path) -> None:
    """Write app.png and report.png into a folder."""
    with sync_playwright() as playwright, running_app() as address:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 940}, color_scheme="light")
        page.goto(address)
        page.get_by_label("Sentence").fill(SENTENCE)
        page.get_by_label("Sentence").press("Enter")
        page.locator(".kf-label").wait_for()
        page.wait_for_timeout(1500)
        save(page, folder / "app.png")
        page.set_viewport_size({"width": 800, "height": 1190})
        page.goto(REPORT.as_uri())
        page.wait_for_timeout(500)
        save(page, folder / "report.png")
        browser.close()


@contextmanager
def running_app() -> Iterator[str]:
    """Run ``ketfit app`` on the model of `make demo` and yield the address that it prints."""
    command = [Path(sys.executable).with_name("ketfit"), "app", ROOT / "build" / "demo-model", "--port", "0"]
    command += ["--data", "rotten-tomatoes", "--few-shot", "256"]
    app = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own program
    try:
        assert app.stderr is not None
        yield next(found[0] for line in app.stderr if (found := re.search(r"http://\S+", line)))
    finally:
        app.terminate()
        app.wait()


def save(page: Page, path: Path) -> None:
    """Write what a page shows as a PNG file of few colours."""
    image = Image.open(BytesIO(page.screenshot()))
    image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
