"""``ketfit compare`` in process on a tiny body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ketfit import TextClassifier
from ketfit.errors import DataError
from ketfit.study import runner
from ketfit.study.store import StudyRecord
from tests.cli.running import run, run_json

HEADS = ("--head", "svc", "--workers", 1)


@pytest.fixture
def command(data: Path, tiny_body_folder: Path) -> list[Any]:
    return ["compare", data, "--body", tiny_body_folder, "--draws", 2, *HEADS]


@pytest.mark.slow
def test_few_shot_comparison_reports_everything(
    capsys: pytest.CaptureFixture[str], command: list[Any], tmp_path: Path
) -> None:
    page, study = tmp_path / "report.html", tmp_path / "study"
    report = run_json(capsys, *command, "--few-shot", 12, "--html", page, "--study", study)
    assert (report["draws"], report["per_label"], report["test_fraction"]) == (2, 12, None)
    assert (report["train_sizes"], report["validation_sizes"], report["test_sizes"]) == ([20], [4], [56])
    assert [row["name"] for row in report["heads"]] == ["logistic regression", "SVC (RBF)"]
    for row in report["heads"]:
        assert list(row) == ["name", "parameters", "test_accuracy", "interval", "fit_seconds", "accuracies"]
        assert row["test_accuracy"] == pytest.approx(sum(row["accuracies"]) / 2)
    (difference,) = report["differences"]
    assert list(difference) == ["head", "difference", "interval", "adjusted_p"]
    assert difference["difference"] == pytest.approx(
        report["heads"][1]["test_accuracy"] - report["heads"][0]["test_accuracy"]
    )
    assert report["chosen"] in {row["name"] for row in report["heads"]}
    assert report["left_out"] == {}
    assert (report["model"], report["report"], report["study"]) == (None, str(page), str(study))
    assert "Which head do the sentences of" in page.read_text()
    words = StudyRecord.read(study).command
    assert words.startswith("ketfit compare ")
    assert words.endswith("--draws 2 --head svc --few-shot 12")


def test_small_file_is_compared_on_holdouts(capsys: pytest.CaptureFixture[str], command: list[Any]) -> None:
    code, out, err = run(capsys, *command)
    assert code == 0, err
    words = " ".join(out.split())
    assert "reviews.tsv, 2 hold-outs: 51 to train, 9 to validate, 20 to test" in words
    assert "2 stratified hold-outs of 25% of all sentences, because a label has few" in words
    assert "chosen: " in words
    assert "o" in out
    assert "\x1b" not in out


@pytest.mark.slow
def test_comparison_resumes_without_repeating_tasks(
    capsys: pytest.CaptureFixture[str], command: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run_task = tmp_path / "study", runner.run_task_safely
    done: list[Any] = []

    def killed(config: Any, *arrays: Any) -> dict[str, Any]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(config)
        return run_task(config, *arrays)

    monkeypatch.setattr(runner.run_tasks, "__defaults__", (killed,))
    code, _, err = run(capsys, *command, "--study", study)
    assert code == 130
    assert f"results so far are in {study}; run the same command to continue" in err
    ran: list[Any] = []
    monkeypatch.setattr(
        runner.run_tasks, "__defaults__", (lambda config, *arrays: (ran.append(config), run_task(config, *arrays))[1],)
    )
    report = run_json(capsys, *command, "--study", study)
    assert len(ran) == 1
    monkeypatch.setattr(runner.run_tasks, "__defaults__", (run_task,))
    fresh = run_json(capsys, *command)
    for name in ("differences", "conclusions", "chosen"):
        assert report[name] == fresh[name]


def test_interrupted_comparison_without_folder_names_study_option(
    capsys: pytest.CaptureFixture[str], command: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_study", stopped)
    code, _, err = run(capsys, *command)
    assert code == 130
    assert "use --study FOLDER to make the comparison resumable" in err


def test_chosen_classical_head_is_saved(
    capsys: pytest.CaptureFixture[str], command: list[Any], tmp_path: Path, data: Path
) -> None:
    output = tmp_path / "model"
    report = run_json(capsys, *command, "-o", output)
    assert report["model"] == str(output)
    check_saved(capsys, output, report)


@pytest.mark.slow
def test_chosen_quantum_head_is_saved(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tiny_body_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ketfit.study.compare._simplest_adequate", lambda *_: "quantum head")
    output = tmp_path / "model"
    command = ["compare", data, "--body", tiny_body_folder, "--draws", 2, "--head", "quantum", "--workers", 1]
    report = run_json(capsys, *command, "-o", output)
    assert report["chosen"] == "quantum head"
    check_saved(capsys, output, report)


def check_saved(capsys: pytest.CaptureFixture[str], output: Path, report: Any) -> None:
    """Check that a saved model predicts, and that its metadata have the accuracy of the comparison."""
    classifier = TextClassifier.from_pretrained(output)
    assert set(classifier.predict(["a film", "a book"])) <= {"good", "bad"}
    metrics = run_json(capsys, "inspect", output)["metrics"]
    row = next(row for row in report["heads"] if row["name"] == report["chosen"])
    assert metrics["mean_test_accuracy"] == row["test_accuracy"]
    assert (metrics["draws"], metrics["heads_compared"]) == (2, len(report["heads"]))


@pytest.mark.parametrize(
    ("error", "code", "message"), [(DataError("too few"), 1, "too few"), (KeyboardInterrupt, 130, "no model is saved")]
)
def test_comparison_is_shown_if_the_last_training_fails(
    capsys: pytest.CaptureFixture[str],
    command: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | type[BaseException],
    code: int,
    message: str,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(TextClassifier, "fit", fails)
    returned, out, err = run(capsys, *command, "--json", "-o", tmp_path / "model")
    assert (returned, message in err) == (code, True), err
    report = json.loads(out)
    assert report["chosen"] == "logistic regression"
    assert report["model"] is None
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--head", "forest"], 2, "--head svc --head forest: unknown head 'forest'; known: logistic, svc, mlp"),
        (["--head", "mlp"], 2, "the head 'mlp' has as many parameters as 'quantum'; name that head too"),
        (
            ["--few-shot", 40],
            2,
            "--few-shot 40: no sentence of reviews.tsv would be left to test on; 39 is the largest",
        ),
        (["--few-shot", 50], 2, "--few-shot 50: reviews.tsv: the label 'bad' has only 40 different sentences"),
        (["--split", "train"], 2, "split='train' has no meaning for a file"),
        (["-o", "."], 1, "is the current folder, which cannot be replaced"),
        (["-o", "/dev/null/model"], 1, "cannot write /dev/null/model"),
        (["--html", "/dev/null/report.html"], 1, "cannot write /dev/null/report.html"),
        (["--study", "/dev/null/study"], 1, "cannot write /dev/null/study"),
        (["-o", "m", "--html", "m/report.html"], 2, "--html m/report.html is in the folder of the model, m; name"),
        (["-o", "m", "--study", "m"], 2, "--study m is in the folder of the model, m; name another place"),
    ],
)
def test_bad_options_fail_before_body_is_loaded(
    capsys: pytest.CaptureFixture[str],
    command: list[Any],
    options: list[Any],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ketfit.bodies.body.load_files", lambda *_, **__: pytest.fail("a body was loaded"))
    found, out, err = run(capsys, *command, *options)
    assert (found, out) == (code, "")
    assert message in err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", "x")], "every label is 'x'; a classifier needs two or more classes"),
        ([(f"film {n}", "xy"[n % 2]) for n in range(15)], "the label 'y' has 7 different sentences"),
    ],
)
def test_too_few_classes_or_sentences_fail_before_body_is_loaded(
    capsys: pytest.CaptureFixture[str],
    command: list[Any],
    data: Path,
    rows: list[tuple[str, str]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ketfit.bodies.body.load_files", lambda *_, **__: pytest.fail("a body was loaded"))
    data.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    code, _, err = run(capsys, *command)
    assert code == 1
    assert message in err


def test_json_of_heads_is_strict(capsys: pytest.CaptureFixture[str], command: list[Any]) -> None:
    report = run_json(capsys, *command)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
