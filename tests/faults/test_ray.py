"""Test studies and predictions on a Ray cluster: they equal those of a local run, also when a node is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ketfit import TextClassifier
from ketfit.bodies.body import Body
from ketfit.evaluation.batch_predict import predict_folder
from ketfit.study.executors import LocalExecutor
from ketfit.study.runner import run_study
from ketfit.study.spec import StudyPlan
from tests.evaluation.test_batch_predict import TEXTS, fitted, write
from tests.faults.test_study_kills import sorted_results, study

pytestmark = pytest.mark.ray

__all__ = ["study"]

BLOCK_ROWS = 40

END_TO_END_PLAN = """
name = "Killed end to end"
seeds = 8
data = {{ source = "{data}", per_label = 20, validation_fraction = 0.25 }}

[[bodies]]
name = "{body}"
tune = {{ method = "end-to-end", epochs = 10, learning_rate = 1e-3, batch_size = 8 }}

[heads.MLP]
kind = "mlp"
settings = {{ hidden = 2 }}
"""


@pytest.fixture(scope="module")
def local(study: Path) -> list[dict[str, Any]]:
    run_study(StudyPlan.read(study / "plan.toml"), study / "local", LocalExecutor(2), command="test")
    return sorted_results(study, "local")


def test_ray_study_after_node_kill_has_the_same_results(study: Path, local: list[dict[str, Any]]) -> None:
    script = Path(__file__).parent / "ray_cluster.py"
    completed = subprocess.run(
        [sys.executable, str(script), str(study / "plan.toml"), str(study / "ray")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "the node died after" in completed.stdout
    assert sorted_results(study, "ray") == local


def test_ray_end_to_end_study_after_node_kill_has_the_same_results(
    tmp_path: Path, study: Path, tiny_body_folder: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(END_TO_END_PLAN.format(body=tiny_body_folder, data=study / "data.tsv"))
    run_study(StudyPlan.read(plan), tmp_path / "local", LocalExecutor(1), command="test")
    script = Path(__file__).parent / "ray_cluster.py"
    completed = subprocess.run(
        [sys.executable, script, plan, tmp_path / "ray"], capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "the node died after" in completed.stdout
    assert sorted_results(tmp_path, "ray") == sorted_results(tmp_path, "local")


def test_ray_study_unreachable_cluster_is_named_in_the_error(study: Path) -> None:
    command = [sys.executable, "-m", "ketfit.cli", "study", "run", str(study / "plan.toml"), "-o", str(study / "none")]
    completed = subprocess.run(
        [*command, "--engine", "ray", "--address", "127.0.0.1:1"], capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 1
    assert "error: cannot reach the Ray cluster 127.0.0.1:1" in completed.stderr
    assert "Traceback" not in completed.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tiny_body: Body) -> Path:
    """Return a folder with a model and the Parquet files of an input."""
    folder = tmp_path_factory.mktemp("prediction")
    fitted(tiny_body, shots=5).save_pretrained(folder / "model")
    (folder / "in").mkdir()
    for name in ("a", "b"):
        write(folder / "in" / f"{name}.parquet", TEXTS * 60)
    predict_folder(
        TextClassifier.from_pretrained(folder / "model"), folder / "in", folder / "local", block_rows=BLOCK_ROWS
    )
    return folder


def test_ray_prediction_after_node_kill_writes_the_same_bytes(shards: Path) -> None:
    script = Path(__file__).parent / "ray_prediction.py"
    completed = subprocess.run(
        [sys.executable, script, shards / "model", shards / "in", shards / "ray", str(BLOCK_ROWS)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "the node died after" in completed.stdout
    for name in ("a.parquet", "b.parquet"):
        assert (shards / "ray" / name).read_bytes() == (shards / "local" / name).read_bytes()


def test_ray_prediction_unreachable_cluster_is_named_in_the_error(shards: Path) -> None:
    command = [sys.executable, "-m", "ketfit.cli", "predict", str(shards / "model"), "--input", str(shards / "in")]
    completed = subprocess.run(
        [*command, "-o", str(shards / "none"), "--engine", "ray", "--address", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 1
    assert "error: cannot reach the Ray cluster 127.0.0.1:1" in completed.stderr
    assert "Traceback" not in completed.stderr
