"""``ketfit demo`` in process on a tiny body."""

from __future__ import annotations

from pathlib import Path

import pytest

from ketfit import HeadConfig, QuantumHead, TextClassifier
from tests.cli.running import run, run_json


@pytest.mark.slow
def test_demo_compares_heads_and_saves_model(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    output = tmp_path / "demo"
    options = ["--data", data, "--body", tiny_body_folder, "--per-label", 4, "-o", output]
    report = run_json(capsys, "demo", *options)
    assert list(report) == ["data", "body", "train_size", "test_size", "heads", "model"]
    assert [row["name"] for row in report["heads"]] == [
        "quantum head",
        "logistic regression",
        "SVC (RBF)",
        "MLP, matched",
    ]
    for row in report["heads"]:
        assert list(row) == ["name", "parameters", "test_accuracy", "interval", "fit_seconds"]
        assert row["interval"][0] <= row["test_accuracy"] <= row["interval"][1]
    accuracy = report["heads"][0]["test_accuracy"]
    loaded = TextClassifier.from_pretrained(output)
    head = QuantumHead(HeadConfig.recommended(loaded.body_.dimension), loaded.body_.dimension, 2)
    assert report["heads"][0]["parameters"] == head.parameter_counts()["total"]
    inspected = run_json(capsys, "inspect", output)
    assert inspected["metrics"]["test_accuracy"] == accuracy
    code, out, err = run(capsys, "demo", *options)
    assert code == 0
    assert "quantum head" in out
    words = " ".join(out.split())
    assert "logistic regression is enough: no head is shown to be better" in words
    assert "|" in out
    assert "ketfit compare repeats the draw" in words
    assert "saved in" in err
