"""``ketfit evaluate`` in process on a tiny body."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.running import GOOD, LABELS, SENTENCES, SMALL, run, run_json


def test_evaluate_moved_body_is_found_by_body_option(
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


def test_evaluate_accuracy_equals_share_of_correct_predictions(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path
) -> None:
    report = run_json(capsys, "evaluate", model, data)
    predictions = run_json(capsys, "predict", model, *SENTENCES)["predictions"]
    right = sum(row["label"] == label for row, label in zip(predictions, LABELS, strict=True))
    assert report["accuracy"] == right / len(SENTENCES)
    assert report["interval"][0] <= report["accuracy"] <= report["interval"][1]
    assert report["size"] == len(SENTENCES)


def test_evaluate_reports_classes_and_calibration(
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


def test_evaluate_repeats_option_repeats_shots(capsys: pytest.CaptureFixture[str], model: Path, data: Path) -> None:
    exact = run_json(capsys, "evaluate", model, data)
    assert (exact["draws"], exact["spread"]) == (1, None)
    few = ["--shots", 3, "--repeats", 7]
    drawn = run_json(capsys, "evaluate", model, data, *few)
    assert drawn["draws"] == 7
    assert drawn["lowest"] < drawn["accuracy"] < drawn["highest"]
    assert drawn["spread"] > 0
    assert run_json(capsys, "evaluate", model, data, *few) == drawn


def test_evaluate_noise_by_name_or_file_is_applied(
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
def test_evaluate_impossible_measurement_is_refused(
    capsys: pytest.CaptureFixture[str], model: Path, data: Path, arguments: list[object], message: str
) -> None:
    code, _, err = run(capsys, "evaluate", model, data, *arguments)
    assert code == 2
    assert message in err


def test_evaluate_unknown_label_is_refused(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nfine,good\nodd,strange\n")
    code, _, err = run(capsys, "evaluate", model, other)
    assert code == 1
    assert "'strange'" in err
    assert "'bad', 'good'" in err


def test_evaluate_column_options_are_used(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("review,verdict\ngreat fun,good\nno fun,bad\n")
    report = run_json(capsys, "evaluate", model, other, "--text-column", "review", "--label-column", "verdict")
    assert report["size"] == 2


def test_evaluate_format_option_reads_file_without_suffix(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "reviews").write_text("text,label\ngreat fun,good\nno fun,bad\n")
    assert run_json(capsys, "evaluate", model, tmp_path / "reviews", "--format", "csv")["size"] == 2
