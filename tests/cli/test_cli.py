"""The command line, run in process on a tiny body, and once as the installed program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ketfit import HeadConfig, QuantumHead, TextClassifier
from ketfit.bodies.body import load_body
from ketfit.cli.main import main

GOOD = ["a warm and funny film", "bright and tender", "a joy from start to end", "funny and wise", "great fun"]
BAD = ["a cold and empty film", "dull and long", "a bore from start to end", "slow and stale", "no fun"]
SENTENCES = [f"{text} {number}" for number in range(8) for text in (*GOOD, *BAD)]
LABELS = ["good" if text.rsplit(" ", 1)[0] in GOOD else "bad" for text in SENTENCES]
SMALL = ["--set", "head.n_qubits=6", "--set", "head.main_layers=1", "--set", "train.epochs=3"]


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


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The one JSON object that a command prints with --json."""
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def test_fit_reports_and_saves(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    output = tmp_path / "model"
    report = run_json(capsys, "fit", data, "-o", output, "--body", tiny_body_folder, *SMALL)
    assert report["train_size"] + report["validation_size"] == len(SENTENCES)
    assert report["model"] == str(output)
    assert sorted(path.name for path in output.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    classifier = TextClassifier.from_pretrained(output)
    assert classifier.classifier_.head_config_.n_qubits == 6
    assert classifier.classifier_.n_parameters_ == report["parameters"]


def test_fit_few_shot_tests_on_the_rest(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    report = run_json(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, "--few-shot", 10, *SMALL)
    assert (report["train_size"], report["validation_size"], report["test_size"]) == (17, 3, len(SENTENCES) - 20)
    low, high = report["interval"]
    assert low <= report["test_accuracy"] <= high


def test_fit_resumes_from_its_checkpoint(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL]
    checkpoint = tmp_path / "run.checkpoint"
    run_json(capsys, *command, "-o", tmp_path / "whole")
    run_json(capsys, *command, "-o", tmp_path / "first", "--checkpoint", checkpoint)
    assert checkpoint.exists()
    run_json(capsys, *command, "-o", tmp_path / "again", "--checkpoint", checkpoint)
    weights = {(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "first", "again")}
    assert len(weights) == 1


def test_checkpoint_is_resumed_with_an_emptied_cache(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--checkpoint", tmp_path / "run", "-o", tmp_path / "m"]
    weights = []
    for name in ("one", "other"):
        monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / name))
        if name == "one":  # sentences in batches of one, whose embeddings differ from those of a batch in the last bits
            body = load_body(tiny_body_folder, device="cpu")
            for text in SENTENCES[:9]:
                body.encode([text])
        run_json(capsys, *command)
        weights.append((tmp_path / "m" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_moved_body_is_named_and_found_with_body(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    model, body, there = tmp_path / "m", tmp_path / "body", tmp_path / "moved"
    shutil.copytree(tiny_body_folder, body)
    run_json(capsys, "fit", data, "-o", model, "--body", body, *SMALL)
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\n" + "\n".join(GOOD) + "\n")
    before = run_json(capsys, "predict", model, *GOOD)
    body.rename(there)
    commands: list[list[object]] = [
        ["predict", model, *GOOD],
        ["predict", model, "--input", rows, "-o", tmp_path / "predicted.tsv"],
        ["evaluate", model, data],
        ["hardware", "plan", model, data, "-o", tmp_path / "run", "--first", "3"],
    ]
    for command in commands:
        code, _, err = run(capsys, *command)
        assert code == 1
        assert f"body in the folder {body}, which is not there" in " ".join(err.split())
        assert "--body" in err
        run_json(capsys, *command, "--body", there)
    assert run_json(capsys, *commands[0], "--body", there) == before
    code, _, err = run(capsys, *commands[0], "--body", tmp_path)
    assert code == 1


@pytest.mark.slow
def test_few_shot_of_two_with_contrastive_tuning_says_what_validation_took(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--few-shot", 2, "--tune", "contrastive"]
    code, _, err = run(capsys, *command, "-o", tmp_path / "m")
    assert code == 1
    assert "validation took 1 of the 2 sentences" in " ".join(err.split())
    run_json(capsys, *command, "--set", "validation_fraction=0.0", "-o", tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["contrastive", "full"])
def test_fit_tunes_the_body(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path, method: str
) -> None:
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--few-shot", 10, "--tune", method]
    command += ["--set", "tune.epochs=1", "--set", "tune.batch_size=4", "--checkpoint", tmp_path / "run"]
    report = run_json(capsys, *command, "-o", tmp_path / "m")
    assert (report["tuned"], report["test_size"]) == (method, len(SENTENCES) - 20)
    inspected = run_json(capsys, "inspect", tmp_path / "m")["body"]
    assert inspected["tuned"]["settings"]["method"] == method
    assert inspected["tuned"]["fingerprint"] != inspected["fingerprint"]
    predicted = run_json(capsys, "predict", tmp_path / "m", *GOOD)
    assert len(predicted["predictions"]) == len(GOOD)


@pytest.mark.slow
def test_the_command_line_decides_whether_the_body_is_tuned(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('[tune]\nmethod = "contrastive"\npairs_per_sentence = 1\n')
    command = ["fit", data, "--body", tiny_body_folder, *SMALL, "--config", config, "-o", tmp_path / "m"]
    assert run_json(capsys, *command)["tuned"] == "contrastive"
    assert run_json(capsys, *command, "--tune", "frozen")["tuned"] is None
    code, _, err = run(capsys, *command, "--tune", "full")
    assert code == 2
    assert "EndToEndConfig has no setting 'pairs_per_sentence'" in err


def test_settings_come_from_a_file_then_from_set(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text(
        f'body = "{tiny_body_folder}"\nseed = 3\n[head]\nn_qubits = 7\nmain_layers = 1\n[train]\nepochs = 2\n'
    )
    run_json(capsys, "fit", data, "-o", tmp_path / "m", "--config", config, "--set", "head.n_qubits=6")
    inspected = run_json(capsys, "inspect", tmp_path / "m")
    assert (inspected["seed"], inspected["train"]["epochs"], inspected["head"]["n_qubits"]) == (3, 2, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "head.n_qbits=3"], "did you mean 'n_qubits'"),
        (["--set", "head.n_qubits"], "write it as name=value"),
        (["--set", "seed=1", "--set", "seed.x=1"], "seed is a setting, not a table"),
        (["--set", "head.shots=0"], "shots=0"),
        (["--tune", "full", "--set", "tune.warmup=0.1"], "EndToEndConfig has no setting 'warmup'"),
        (["--set", "tune.epochs=1"], "method=None; it is one of contrastive, full"),
        (["--set", "head.n_qubits=2"], "connectivity=2 needs more than 2 qubits"),
        (["--set", "head.n_qubits=3"], "needs n_qubits="),
    ],
)
def test_wrong_settings_are_wrong_usage(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = run(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
    assert not (tmp_path / "m").exists()


def test_failures_end_with_one_line_and_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "fit", tmp_path / "missing.csv", "-o", tmp_path / "m", "--json")
    assert code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert "missing.csv" in "".join(err.split())


def test_an_output_that_cannot_be_is_told_before_the_training(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for command in (["fit", data, "--body", "no/such"], ["demo", "--data", data, "--body", "no/such"]):
        code, _, err = run(capsys, *command, "-o", tmp_path / "full")
        assert code == 1
        assert "holds 'thesis.tex', which is not part of a model" in err


def test_wrong_usage_has_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fit")[0] == 2
    assert run(capsys, "nonsense")[0] == 2


def test_evaluate_counts_what_predict_gets_right(capsys: pytest.CaptureFixture[str], model: Path, data: Path) -> None:
    report = run_json(capsys, "evaluate", model, data)
    predictions = run_json(capsys, "predict", model, *SENTENCES)["predictions"]
    right = sum(row["label"] == label for row, label in zip(predictions, LABELS, strict=True))
    assert report["accuracy"] == right / len(SENTENCES)
    assert report["interval"][0] <= report["accuracy"] <= report["interval"][1]
    assert report["size"] == len(SENTENCES)


def test_evaluate_tells_of_each_class_and_of_the_probabilities(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    three = tmp_path / "three.tsv"
    three.write_text(data.read_text() + "".join(f"so so {number}\tfair\n" for number in range(20)))
    settings = [*SMALL, "--set", "head.n_measured=3", "--set", "calibrate=true"]
    run_json(capsys, "fit", three, "-o", tmp_path / "m", "--body", tiny_body_folder, *settings)
    report = run_json(capsys, "evaluate", tmp_path / "m", three)
    assert [row["label"] for row in report["classes"]] == ["bad", "fair", "good"]
    assert [row["support"] for row in report["classes"]] == [sum(row) for row in report["confusion"]] == [40, 20, 40]
    assert sum(report["confusion"][i][i] for i in range(3)) / 100 == pytest.approx(report["accuracy"])
    assert set(report["calibration"]) == {"ece", "bins", "brier", "nll"}
    assert report["temperature"] != 1
    code, out, _ = run(capsys, "evaluate", tmp_path / "m", three)
    assert code == 0
    assert "confusion" in out
    assert "calibration.ece" in out
    assert not any(word in out for word in ("None", "spread", "lowest"))
    assert "lowest" in run(capsys, "evaluate", tmp_path / "m", three, "--shots", 3, "--repeats", 4)[1]
    drawn = run_json(capsys, "evaluate", tmp_path / "m", three, "--shots", 3, "--repeats", 4)
    assert [sum(row) for row in drawn["confusion"]] == pytest.approx([40, 20, 40])


def test_evaluate_repeats_what_is_drawn(capsys: pytest.CaptureFixture[str], model: Path, data: Path) -> None:
    exact = run_json(capsys, "evaluate", model, data)
    assert (exact["draws"], exact["spread"]) == (1, None)
    few = ["--shots", 3, "--repeats", 7]
    drawn = run_json(capsys, "evaluate", model, data, *few)
    assert drawn["draws"] == 7
    assert drawn["lowest"] < drawn["accuracy"] < drawn["highest"]
    assert drawn["spread"] > 0
    assert run_json(capsys, "evaluate", model, data, *few) == drawn


def test_evaluate_takes_noise_by_name_and_from_a_file(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    assert run_json(capsys, "evaluate", model, data, "--noise", "ionq-forte")["draws"] == 1
    own = tmp_path / "own.toml"
    own.write_text("depolarizing_2q = 1.0\nreadout = [[0.9, 0.2], [0.1, 0.8]]\n")
    mitigated = ["--mitigate", "readout", "--mitigate", "zero_noise"]
    worst = run_json(capsys, "evaluate", model, data, "--noise", own, *mitigated)
    assert worst["accuracy"] == 0.5  # nothing is left to tell the classes by
    sampled = run_json(capsys, "evaluate", model, data, "--noise", own, "--trajectories", 4, "--repeats", 2)
    assert sampled["draws"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shots", 0], "shots=0"),
        (["--shots", 10**25], "shots=10"),
        (["--noise", "ionq"], "unknown device 'ionq'; known are ionq-forte, ionq-aria, or name a .toml file"),
        (["--trajectories", 4], "trajectories=4 is about noise"),
        (["--noise", "ionq-forte", "--trajectories", 4], "pauli_twirl=True"),
        (["--mitigate", "magic", "--noise", "ionq-aria"], "magic"),
    ],
)
def test_evaluate_refuses_what_cannot_be_measured(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, arguments: list[object], message: str
) -> None:
    code, _, err = run(capsys, "evaluate", model, data, *arguments)
    assert code == 2
    assert message in err


@pytest.mark.slow
def test_a_model_with_shots_says_what_a_step_costs(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    settings = [*SMALL, "--set", "head.shots=20", "--set", "head.gradient=parameter_shift"]
    settings += ["--set", "head.noise.bit_flip=0.01", "--set", "train.batch_size=16"]
    report = run_json(capsys, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *settings)
    cost = report["qpu_step"]
    assert cost["shots"] == 20 * cost["circuits"]
    assert cost["circuits"] % 16 == 0
    assert run_json(capsys, "inspect", tmp_path / "m")["qpu_step"] == cost
    trained = run_json(capsys, "evaluate", tmp_path / "m", data)
    measured = {"shots": 20, "gradient": "parameter_shift", "noise": {"bit_flip": 0.01}}
    assert (trained["draws"], trained["measurement"]) == (10, measured)
    more = run_json(capsys, "evaluate", tmp_path / "m", data, "--shots", 30)
    assert more["measurement"] == {**measured, "shots": 30}
    exact = run_json(capsys, "evaluate", tmp_path / "m", data, "--exact")
    assert (exact["draws"], exact["measurement"]) == (1, {})


def test_evaluate_refuses_a_label_that_training_did_not_see(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nfine,good\nodd,strange\n")
    code, _, err = run(capsys, "evaluate", model, other)
    assert code == 1
    assert "'strange'" in err
    assert "'bad', 'good'" in err


def test_evaluate_takes_other_columns(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("review,verdict\ngreat fun,good\nno fun,bad\n")
    report = run_json(capsys, "evaluate", model, other, "--text-column", "review", "--label-column", "verdict")
    assert report["size"] == 2


def test_predict_from_a_file_equals_predict_from_arguments(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(GOOD) + "\n", encoding="utf-8")
    one = run_json(capsys, "predict", model, *GOOD)["predictions"]
    other = run_json(capsys, "predict", model, "--input", lines)["predictions"]
    assert one == other
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-9 for row in one)


def test_predict_shows_square_brackets_as_they_are(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, out, _ = run(capsys, "predict", model, "[bold]loud[/bold] :smile:")
    assert code == 0
    assert "[bold]loud[/bold] :smile:" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sentence"),
        (b"caf\xe9\n", "byte 3 (0xe9) is not valid utf-8"),
        (b"one\n\nthree\n", "line 2: the text is empty"),
    ],
)
def test_predict_refuses_bad_files(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(content)
    code, _, err = run(capsys, "predict", model, "--input", lines)
    assert code == 1
    assert message in " ".join(err.split())


def test_predict_wants_sentences_or_a_file(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    assert run(capsys, "predict", model)[0] == 2
    assert run(capsys, "predict", model, "one", "--input", tmp_path / "x")[0] == 2
    code, _, err = run(capsys, "predict", model, "--input", tmp_path / "x")
    assert code == 1
    assert "there is no file" in err


def test_inspect_counts_what_the_head_has(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    report = run_json(capsys, "inspect", model)
    head = TextClassifier.from_pretrained(model).classifier_.module_
    assert report["parameters"] == head.parameter_counts()
    assert report["circuits"]["qpu"]["ry"] == head.circuit.gate_counts()["ry"]
    assert report["circuits"]["encoder"]["depth"] == head.encoder.circuit.depth()
    assert report["body"]["fingerprint"]
    code, out, _ = run(capsys, "inspect", model)
    assert code == 0
    assert "parameters.total" in out


@pytest.mark.slow
def test_draw_as_text_and_as_pictures(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    trained = run_json(capsys, "draw", model)["drawing"]
    untrained = run_json(capsys, "draw")["drawing"]
    assert "RY(w" in untrained
    assert "RY(w" not in trained  # its angles are numbers
    assert "RY(x0)" in trained
    encoder = run_json(capsys, "draw", model, "--module", "encoder")["drawing"]
    assert "q5:" in encoder
    assert "RY(x0)" not in encoder
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        picture = tmp_path / f"circuit{suffix}"
        assert run_json(capsys, "draw", "-o", picture)["drawing"] == str(picture)
        assert picture.read_bytes().startswith(start)
    code, _, err = run(capsys, "draw", "-o", tmp_path / "circuit.bmp")
    assert code == 2
    assert ".svg, .png or .pdf" in " ".join(err.split())


def test_draw_takes_a_model_or_a_config_not_both(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "head.toml"
    config.write_text("[head]\nn_qubits = 3\nmain_layers = 1\n")
    drawing = run_json(capsys, "draw", "--config", config)["drawing"]
    assert "q2:" in drawing
    assert "q3:" not in drawing
    assert run(capsys, "draw", model, "--config", config)[0] == 2


def test_draw_needs_a_head_in_the_config_and_an_encoder_that_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "fit.toml"
    config.write_text("seed = 1\n")
    code, _, err = run(capsys, "draw", "--config", config)
    assert code == 2
    assert "has no table [head]" in err
    code, _, err = run(capsys, "draw", "--module", "encoder", "--encoder", 1)
    assert code == 2
    assert "this head has encoders 0 to 0" in err


def test_lines_are_those_of_the_file(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes("one\u2028still one\r\ntwo\x85\n".encode())
    predictions = run_json(capsys, "predict", model, "--input", lines)["predictions"]
    assert [row["text"] for row in predictions] == ["one\u2028still one", "two\x85"]


def test_evaluate_takes_a_file_without_its_suffix(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "reviews").write_text("text,label\ngreat fun,good\nno fun,bad\n")
    assert run_json(capsys, "evaluate", model, tmp_path / "reviews", "--format", "csv")["size"] == 2


def test_doctor_names_the_engine_and_the_extras(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "doctor")
    assert report["engine"] in {f"native, {name}" for name in ("avx512", "avx2", "baseline")}
    assert set(report["extras"]) >= {"bundled", "bundled-mpnet", "datasets", "draw", "hardware"}
    assert report["extras"]["bundled"] == "installed"
    assert report["memory"]["qubits"] >= report["memory"]["qubits_with_gradients"] > 0
    assert report["memory"]["qubits_with_exact_noise"] > 0


@pytest.mark.slow
def test_demo_compares_on_one_split_and_saves(
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
    assert "saved in" in err


@pytest.mark.slow
def test_the_installed_program_keeps_stdout_clean(data: Path, tmp_path: Path, tiny_body_folder: Path) -> None:
    program = Path(sys.executable).parent / "ketfit"
    command = [program, "fit", data, "-o", tmp_path / "m", "--body", tiny_body_folder, *SMALL, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == str(tmp_path / "m")
    assert "training" in done.stderr


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_where_it_stopped(data: Path, tmp_path: Path, tiny_body_folder: Path) -> None:
    program = Path(sys.executable).parent / "ketfit"
    checkpoint = tmp_path / "run.checkpoint"
    settings = [*SMALL[:-2], "--set", "train.epochs=200", "--set", "train.patience=200"]
    command = [str(part) for part in (program, "fit", data, "--body", tiny_body_folder, *settings, "--json")]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "cut"), "--checkpoint", str(checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell that runs the tests in its background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (tmp_path / "cut").exists()
    for name, extra in (("resumed", ["--checkpoint", str(checkpoint)]), ("whole", [])):
        subprocess.run([*command, "-o", str(tmp_path / name), *extra], check=True, capture_output=True, timeout=120)
    resumed, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("resumed", "whole"))
    assert resumed == whole
