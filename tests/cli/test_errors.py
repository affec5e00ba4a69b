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
from tests.cli.running import GOOD, SENTENCES, SMALL, run, run_json

PROGRAM = Path(sys.executable).parent / "ketfit"


def stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_error_is_one_line_and_debug_shows_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = ["predict", tmp_path, "--input", tmp_path / "missing.txt"]
    code, out, err = run(capsys, *missing)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    code, out, debugged = run(capsys, "--debug", *missing)
    assert (code, out) == (1, "")
    assert debugged.startswith("Traceback")
    assert debugged.endswith(err)


def test_unexpected_error_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("ketfit.cli.doctor.collect_diagnostics", broken)
    code, out, err = run(capsys, "doctor", "--json")
    assert (code, out) == (1, "")
    assert (
        err == "error: RuntimeError: two lines; unexpected error: rerun with ketfit --debug and report the traceback\n"
    )
    assert "Traceback" in run(capsys, "--debug", "doctor")[2]


@pytest.mark.parametrize(
    "command",
    [["predict", "model", "--input"], ["fit", "-o", "out"], ["fit", "data.csv", "--output"]],
)
def test_impossible_file_name_is_file_system_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "9" * 5000
    code, out, err = run(capsys, *command, name)
    assert (code, out) == (1, "")
    assert err.startswith("error: cannot ")
    assert err.endswith(": File name too long\n")


@pytest.mark.parametrize("command", ["inspect", "draw"])
def test_impossible_name_of_a_model_is_neither_folder_nor_name_on_the_hub(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, command, "9" * 5000)
    assert (code, out) == (1, "")
    assert err.startswith("error: There is no folder '999")
    assert "', and it cannot be a name on the Hub: " in err


@pytest.mark.parametrize("command", [["doctor"], ["inspect", "x"]])
def test_interrupted_command_exits_with_code_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("ketfit.cli.doctor.collect_diagnostics", stop)
    monkeypatch.setattr("ketfit.persistence.model_files.find_model", stop)
    code, out, err = run(capsys, *command)
    assert (code, out) == (130, "")
    assert err.startswith("interrupted; ")


def test_interrupted_fit_names_how_to_resume(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
) -> None:
    monkeypatch.setattr(TextClassifier, "fit", stop)
    command = ["fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *SMALL]
    code, _, err = run(capsys, *command)
    assert code == 130
    assert "use --checkpoint FILE" in err
    code, _, err = run(capsys, *command, "--checkpoint", tmp_path / "run")
    assert code == 130
    assert f"{tmp_path / 'run'}" in err
    assert "run the same command to continue" in err
    assert not (tmp_path / "m").exists()


def test_interrupted_file_prediction_resumes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(SENTENCES)))
    command = ["predict", model, "--input", source, "--output", tmp_path / "out.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(Body, "encode", stop)
        code, out, err = run(capsys, *command)
        assert (code, out) == (130, "")
        assert f"{tmp_path / 'out.csv.parts'}; run the same command to continue" in "".join(err.splitlines())
    report = run_json(capsys, *command)
    assert (report["rows"], report["output"]) == (len(SENTENCES), str(tmp_path / "out.csv"))
    here = run_json(capsys, "predict", model, "--input", source)["predictions"]
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,text,predicted_label,probability_bad,probability_good"
    assert [line.split(",")[-3] for line in lines[1:]] == [row["label"] for row in here]
    code, _, err = run(capsys, *command)
    assert code == 1
    assert "is there already" in err


def test_predict_output_without_file_is_refused(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "reviews"
    source.write_text("".join(json.dumps({"review": text}) + "\n" for text in GOOD))
    options = ["--input", source, "--format", "jsonl", "--text-column", "review"]
    assert [row["text"] for row in run_json(capsys, "predict", model, *options)["predictions"]] == GOOD
    assert run(capsys, "predict", model, "one", "-o", tmp_path / "out.csv")[0] == 2
    assert run(capsys, "predict", model, "--input", "-", "-o", tmp_path / "out.csv")[0] == 2


def test_main_version_is_that_of_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"{ketfit.__version__}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_main_completion_script_is_printed(shell: str) -> None:
    environment = {**os.environ, "_KETFIT_COMPLETE": f"source_{shell}"}
    script = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"complete_{shell}" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, timeout=60, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
    asked = {**os.environ, "_KETFIT_COMPLETE": "complete_bash", "COMP_WORDS": "ketfit eval", "COMP_CWORD": "1"}
    words = subprocess.run([PROGRAM], env=asked, capture_output=True, text=True, timeout=60, check=False).stdout
    assert words.split() == ["evaluate"]


def test_app_options_without_data_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "app", tmp_path / "none", "--few-shot", 3)
    assert code == 2
    assert "--data" in err
    code, _, err = run(capsys, "app", tmp_path / "none")
    assert code == 1
    assert "none" in err
