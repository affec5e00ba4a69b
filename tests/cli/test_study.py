"""``ketfit study``, run in process on a tiny body."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import LABELS, SENTENCES, run, run_json

PLAN = """
name = "Command line"
seeds = 2
bodies = ["{body}"]
train = {{ epochs = 2 }}
data = {{ source = "{data}", per_label = 12, validation_fraction = 0.25 }}

[heads.quantum]
kind = "quantum"
settings = {{ n_qubits = 4, main_layers = 1 }}

[heads.linear]
kind = "logistic-regression"

[report]
reference = "linear"
"""


@pytest.fixture
def plan(tmp_path: Path, tiny_body_folder: Path) -> Path:
    data, path = tmp_path / "reviews.tsv", tmp_path / "plan.toml"
    lines = [f"{text}\t{label}" for text, label in zip(SENTENCES, LABELS, strict=True)]
    data.write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")
    path.write_text(PLAN.format(body=tiny_body_folder, data=data))
    return path


@pytest.mark.slow
def test_study_run_status_and_report(capsys: pytest.CaptureFixture[str], plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    done = run_json(capsys, "study", "run", plan, "-o", folder)
    assert done == {"study": "Command line", "folder": str(folder), "done": 4, "failed": 0, "total": 4, "ran": 4}
    status = run_json(capsys, "study", "status", folder)
    assert status == {"study": "Command line", "done": 4, "failed": 0, "total": 4, "failures": {}}
    summary = run_json(capsys, "study", "report", folder)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert "Command line" in (folder / "report.html").read_text()
    record = json.loads((folder / "study.json").read_text())
    assert record["command"] == f"ketfit study run {plan} -o {folder}"


def test_study_options_replace_data_bodies_and_seeds(
    capsys: pytest.CaptureFixture[str], plan: Path, tmp_path: Path, tiny_body_folder: Path
) -> None:
    other = tmp_path / "other data.tsv"
    other.write_text((tmp_path / "reviews.tsv").read_text().replace("film", "book"))
    options = ("--data", other, "--body", tiny_body_folder, "--seeds", 1, "--workers", 1)
    done = run_json(capsys, "study", "run", plan, "-o", tmp_path / "study", *options)
    assert (done["done"], done["total"]) == (2, 2)
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    assert record["data"]["name"] == "other data.tsv"
    assert record["command"].endswith(f"--data '{other}' --body {tiny_body_folder} --seeds 1")


def test_study_failed_tasks_exit_with_code_1(capsys: pytest.CaptureFixture[str], plan: Path, tmp_path: Path) -> None:
    endless = "train = { epochs = 2, weight_decay = 1e30 }\nbudget = { learning_rates = [1e30] }"
    plan.write_text(plan.read_text().replace("train = { epochs = 2 }", endless))
    code, _, err = run(capsys, "study", "run", plan, "-o", tmp_path / "study")
    assert code == 1
    assert "2 tasks failed; see ketfit study status" in err
    status = run_json(capsys, "study", "status", tmp_path / "study")
    assert (status["done"], status["failed"]) == (2, 2)
    ((told, times),) = status["failures"].items()
    assert told.startswith("TrainingError: none of the tries could be trained")
    assert times == 2
    assert run(capsys, "study", "run", plan, "-o", tmp_path / "study")[0] == 1, "they are not tried again by themselves"
    again = run_json_failing(capsys, "study", "run", plan, "-o", tmp_path / "study", "--retry-failed")
    assert again["ran"] == 2


def run_json_failing(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 1
    return json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "nothing.toml", "-o", "x"), 2, "cannot read nothing.toml"),
        (("status", "nowhere"), 1, "nowhere holds no study"),
        (("report", "nowhere"), 1, "nowhere holds no study"),
    ],
)
def test_study_missing_folder_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    found, _, err = run(capsys, "study", *arguments)
    assert found == code
    assert f"error: {message}" in err


def test_study_bad_plan_exits_with_code_2(capsys: pytest.CaptureFixture[str], plan: Path, tmp_path: Path) -> None:
    plan.write_text(plan.read_text().replace("n_qubits = 4", "n_qubits = 3"))
    code, _, err = run(capsys, "study", "run", plan, "-o", tmp_path / "study")
    assert code == 2
    assert "width 16 needs n_qubits=4" in err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "ray", "--workers", "3"), "--workers is for the local engine; Ray uses the cluster's CPUs"),
        (("--address", "auto"), "--address is for --engine ray"),
    ],
)
def test_study_option_of_other_engine_exits_with_code_2(
    capsys: pytest.CaptureFixture[str], plan: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, err = run(capsys, "study", "run", plan, "-o", tmp_path / "study", *options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "study").exists()
