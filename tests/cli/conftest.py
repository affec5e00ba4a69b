"""A small data set and a model fitted on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import LABELS, SENTENCES, SMALL, run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.tsv"
    rows = [f"{text}\t{label}" for text, label in zip(SENTENCES, LABELS, strict=True)]
    path.write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path, data: Path, tiny_body_folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "model"
    assert run(capsys, "fit", data, "-o", path, "--body", tiny_body_folder, *SMALL)[0] == 0
    return path
