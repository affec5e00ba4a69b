"""How commands end: one line and the fix, a trace with --debug, 130 and how to go on after Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ketfit
from ketfit.bodies.body import Body
from ketfit.estimators.text import TextClassifier
from tests.cli.test_cli import GOOD, SENTENCES, SMALL, data, model, run, run_json  # noqa: F401 - fixtures

PROGRAM = Path(sys.executable).parent / "ketfit"


def stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_error_is_one_line_and_debug_shows_the_trace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = ["predict", tmp_path, "--input", tmp_path / "missing.txt"]
    code, out, err = run(capsys, *missing)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    code, out, debugged = run(capsys, "--debug", *missing)
    assert (code, out) == (1, "")
    assert debugged.startswith("Traceback")
    assert debugged.endswith(err)


def test_an_error_that_nobody_foresaw_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("ketfit.cli.doctor.collect_diagnostics", broken)
    code, out, err = run(capsys, "doctor", "--json")
    assert (code, out) == (1, "")
    assert err == "error: RuntimeError: two lines; nobody foresaw this: report what ketfit --debug ... prints\n"
    assert "Traceback" in run(capsys, "--debug", "doctor")[2]


@pytest.mark.parametrize(
    "command",
    [["inspect"], ["draw"], ["predict", "model", "--input"], ["fit", "-o", "out"], ["fit", "data.csv", "--output"]],
)
def test_name_that_no_file_can_have_is_an_error_of_the_file_system(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "9" * 5000
    code, out, err = run(capsys, *command, name)
    assert (code, out) == (1, "")
    assert err.startswith("error: cannot ")
    assert err.endswith(": File name too long\n")


@pytest.mark.parametrize("command", [["doctor"], ["inspect", "x"]])
def test_any_command_ends_with_130_after_ctrl_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("ketfit.cli.doctor.collect_diagnostics", stop)
    monkeypatch.setattr("ketfit.persistence.model_files.find_model", stop)
    code, out, err = run(capsys, *command)
    assert (code, out) == (130, "")
    assert err.startswith("stopped; ")


def test_an_interrupted_fit_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data: Path,  # noqa: F811
    tmp_path: Path,
    tiny_body_folder: Path,
) -> None:
    monkeypatch.setattr(TextClassifier, "fit", stop)
    command = ["fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *SMALL]
    code, _, err = run(capsys, *command)
    assert code == 130
    assert "with --checkpoint FILE it goes on" in err
    code, _, err = run(capsys, *command, "--checkpoint", tmp_path / "run")
    assert code == 130
    assert f"{tmp_path / 'run'}" in err
    assert "the same command goes on" in err
    assert not (tmp_path / "m").exists()


def test_an_interrupted_prediction_of_a_file_goes_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(SENTENCES)))
    command = ["predict", model, "--input", source, "--output", tmp_path / "out.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(Body, "encode", stop)
        code, out, err = run(capsys, *command)
        assert (code, out) == (130, "")
        assert f"{tmp_path / 'out.csv.parts'}: the same command goes on" in "".join(err.splitlines())
    report = run_json(capsys, *command)
    assert (report["rows"], report["output"]) == (len(SENTENCES), str(tmp_path / "out.csv"))
    here = run_json(capsys, "predict", model, "--input", source)["predictions"]
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,text,predicted_label,probability_bad,probability_good"
    assert [line.split(",")[-3] for line in lines[1:]] == [row["label"] for row in here]
    code, _, err = run(capsys, *command)
    assert code == 1
    assert "is there already" in err


def test_predict_reads_a_column_and_refuses_an_output_without_a_file(
    capsys: pytest.CaptureFixture[str],
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    source = tmp_path / "reviews"
    source.write_text("".join(json.dumps({"review": text}) + "\n" for text in GOOD))
    options = ["--input", source, "--format", "jsonl", "--text-column", "review"]
    assert [row["text"] for row in run_json(capsys, "predict", model, *options)["predictions"]] == GOOD
    assert run(capsys, "predict", model, "one", "-o", tmp_path / "out.csv")[0] == 2
    assert run(capsys, "predict", model, "--input", "-", "-o", tmp_path / "out.csv")[0] == 2


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"{ketfit.__version__}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str) -> None:
    environment = {**os.environ, "_KETFIT_COMPLETE": f"source_{shell}"}
    script = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"complete_{shell}" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, timeout=60, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
    asked = {**os.environ, "_KETFIT_COMPLETE": "complete_bash", "COMP_WORDS": "ketfit eval", "COMP_CWORD": "1"}
    words = subprocess.run([PROGRAM], env=asked, capture_output=True, text=True, timeout=60, check=False).stdout
    assert words.split() == ["evaluate"]


def test_app_tells_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "app", tmp_path / "none", "--few-shot", 3)
    assert code == 2
    assert "--data" in err
    code, _, err = run(capsys, "app", tmp_path / "none")
    assert code == 1
    assert "none" in err
