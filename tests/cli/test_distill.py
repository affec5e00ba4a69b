"""``ketfit distill`` in process on tiny bodies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ketfit import TextClassifier
from tests.cli.running import LABELS, SENTENCES, run, run_json
from tests.conftest import write_tiny_body

QUICK = ["--set", "tune.learning_rate=0.001", "--set", "tune.pairs_per_sentence=1"]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    write_tiny_body(tmp_path / "large", layers=2)
    classifier = TextClassifier(str(tmp_path / "large"), head="logistic-regression").fit(SENTENCES, LABELS)
    classifier.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    return path


def test_distill_saves_a_model_of_the_student(
    capsys: pytest.CaptureFixture[str], teacher: Path, lines: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    output = tmp_path / "student"
    report = run_json(capsys, "distill", teacher, lines, "-o", output, "--student", tiny_body_folder, *QUICK)
    assert (report["teacher"], report["model"], report["tuned"]) == (str(teacher), str(output), "contrastive")
    assert report["head"] == "logistic-regression"
    classifier = TextClassifier.from_pretrained(output)
    assert classifier.body_.tuning is not None
    assert "sentences.txt, labelled by teacher" in (output / "README.md").read_text(encoding="utf-8")


def test_distill_file_name_that_is_not_utf8_is_escaped(
    capsys: pytest.CaptureFixture[str], teacher: Path, lines: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    odd = lines.rename(tmp_path / os.fsdecode(b"caf\xe9.txt"))
    run_json(capsys, "distill", teacher, odd, "-o", tmp_path / "student", "--student", tiny_body_folder, *QUICK)
    assert r"caf\udce9.txt, labelled by" in (tmp_path / "student" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("head", "kind"), [("svc", "svc"), ("mlp", "mlp"), ("quantum", "quantum"), ("logistic", "logistic-regression")]
)
def test_distill_head_is_the_kind_of_the_option(
    capsys: pytest.CaptureFixture[str],
    teacher: Path,
    data: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    head: str,
    kind: str,
) -> None:
    epochs = ["--set", "train.epochs=2"] if head in ("mlp", "quantum") else []
    command = ["distill", teacher, data, "-o", tmp_path / "student", "--student", tiny_body_folder, *QUICK]
    assert run_json(capsys, *command, "--head", head, *epochs)["head"] == kind


@pytest.mark.slow
def test_distill_runs_the_stages_of_the_settings_file(
    capsys: pytest.CaptureFixture[str], teacher: Path, lines: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    config = tmp_path / "stages.toml"
    config.write_text(
        '[[tune]]\nmethod = "contrastive"\nlearning_rate = 1e-3\n[[tune]]\nmethod = "end-to-end"\nepochs = 1\n'
    )
    command = ["distill", teacher, lines, "-o", tmp_path / "student", "--student", tiny_body_folder]
    report = run_json(capsys, *command, "--config", config, "--head", "mlp", "--set", "train.epochs=2")
    assert report["tuned"] == "contrastive, then end-to-end"
    config.write_text('[tune]\nmethod = "end-to-end"\n')
    code, _, err = run(capsys, *command, "--config", config)
    assert code == 2
    assert "cosine" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{teacher}", "{lines}", "--student", "{large}"], "is the body of the teacher"),
        (["{teacher}", "{lines}", "--student", "{missing}"], "--student"),
        (["{teacher}", "{missing}", "--student", "{tiny}"], "there is no file"),
        (["{teacher}", "{empty}", "--student", "{tiny}"], "holds no sentence"),
        (["{teacher}", "{lines}", "--student", "{tiny}", "--text-column", "x"], "--text-column has no meaning"),
        (["{teacher}", "{lines}", "--student", "{tiny}", "--set", "tune.loss=triplet"], "loss='cosine'"),
        (["{teacher}", "{lines}", "--student", "{tiny}", "--set", "class_weight.fair=2"], "no such label; it has"),
        (["{teacher}", "{lines}", "--student", "{tiny}", "--checkpoint", "{output}/run"], "the folder of the model"),
    ],
)
def test_distill_wrong_arguments_are_explained(
    capsys: pytest.CaptureFixture[str],
    teacher: Path,
    lines: Path,
    tmp_path: Path,
    tiny_body_folder: Path,
    arguments: list[str],
    message: str,
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    paths = {"teacher": teacher, "lines": lines, "empty": empty, "tiny": tiny_body_folder}
    paths |= {"large": tmp_path / "large", "missing": tmp_path / "missing", "output": tmp_path / "student"}
    code, _, err = run(capsys, "distill", *(each.format(**paths) for each in arguments), "-o", tmp_path / "student")
    assert code in (1, 2)
    assert message in err
    assert not (tmp_path / "student").exists()


def test_distill_unwritable_output_is_refused_first(
    capsys: pytest.CaptureFixture[str], lines: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, _, err = run(capsys, "distill", tmp_path / "no-model", lines, "-o", tmp_path / "file" / "student")
    assert code != 0
    assert "no-model" not in err
    assert str(tmp_path / "file") in err
