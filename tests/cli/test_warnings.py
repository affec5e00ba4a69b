"""Warnings on the command line: one plain line on stderr each, once; figures under weights have names of their own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.data.splits import duplicate_groups, holdout_split
from ketfit.estimators.text import TextClassifier
from tests.cli.running import BAD, GOOD, SMALL, run, run_json


def write(path: Path, texts: list[str], labels: list[str]) -> Path:
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return path


def told(err: str) -> list[str]:
    return [line for line in err.splitlines() if "arning" in line]


def test_fit_warnings_are_printed_once_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_body_folder: Path
) -> None:
    texts = [f"{text} {number}" for number in range(6) for text in GOOD]
    labels = [["one", "two", "three", "four ", "four"][place % 5] for place in range(30)]
    file = write(tmp_path / "five.jsonl", texts, labels)
    code, _, err = run(capsys, "fit", file, "-o", tmp_path / "m", "--body", tiny_body_folder, *SMALL)
    assert code == 0, err
    assert told(err) == [
        "warning: the labels 'four' and 'four ' differ by surrounding space only and are two classes; strip them if "
        "they are meant to be one",
        "warning: this head tells 5 classes apart by 1 number, where 2 or more are needed; set n_measured=5 and "
        "skip_connection=True, or use HeadConfig.recommended(16, n_classes=5)",
    ]


def test_predict_truncated_sentence_warns(
    capsys: pytest.CaptureFixture[str],
    model: Path,
) -> None:
    code, _, err = run(capsys, "predict", model, " ".join(["film"] * 300))
    assert code == 0
    assert len(told(err)) == 1
    assert told(err)[0].startswith("warning: 1 of 1 new sentences have more than the 256 tokens")


def test_warnings_of_other_packages_are_unchanged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn() -> Any:
        warnings.warn("something else", UserWarning, stacklevel=1)

    monkeypatch.setattr("ketfit.cli.doctor.collect_diagnostics", warn)
    with pytest.warns(UserWarning, match="something else"):
        _, _, err = run(capsys, "doctor")
    assert "warning: something else" not in err


def test_fit_class_weights_report_weighted_accuracy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_body_folder: Path
) -> None:
    texts = [f"{text} {number}" for number in range(8) for text in (*GOOD, *BAD)]
    labels = ["rare" if place % 8 == 0 else "usual" for place in range(80)]
    file, output = write(tmp_path / "imbalanced.jsonl", texts, labels), tmp_path / "m"
    command = ["fit", file, "-o", output, "--body", tiny_body_folder, *SMALL, "--set", "validation_fraction=0.3"]
    report = run_json(capsys, *command, "--set", "class_weight=balanced")
    codes = [sorted(set(labels)).index(label) for label in labels]
    _, held = holdout_split(np.array(codes), 0.3, 0, duplicate_groups(texts))
    predicted = TextClassifier.from_pretrained(output).predict([texts[row] for row in held])
    truth = np.array(labels)[held]
    weight = np.where(truth == "rare", 80 / (2 * 10), 80 / (2 * 70))
    assert report["validation_accuracy"] == pytest.approx((predicted == truth).mean())
    assert report["validation_weighted_accuracy"] == pytest.approx(np.average(predicted == truth, weights=weight), 1e-5)
    assert report["validation_accuracy"] != pytest.approx(report["validation_weighted_accuracy"])
    metrics = json.loads((output / "config.json").read_text())["metrics"]
    assert metrics == {name: report[name] for name in ("validation_accuracy", "validation_weighted_accuracy")}
    card = (output / "README.md").read_text()
    assert "| validation accuracy |" in card
    assert "| validation weighted accuracy |" in card
    plain = run_json(capsys, *command)
    assert "validation_weighted_accuracy" not in plain
