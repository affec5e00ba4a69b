"""Studies on a Ray cluster: the rows of a local run, also when a node is killed in the middle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ketfit.study.executors import LocalExecutor
from ketfit.study.runner import run_study
from ketfit.study.spec import StudyPlan
from tests.faults.test_study_kills import finished, study

pytestmark = pytest.mark.ray

__all__ = ["study"]


@pytest.fixture(scope="module")
def local(study: Path) -> list[dict[str, Any]]:
    run_study(StudyPlan.read(study / "plan.toml"), study / "local", LocalExecutor(2), command="test")
    return finished(study, "local")


def test_a_node_that_is_killed_loses_nothing(study: Path, local: list[dict[str, Any]]) -> None:
    script = Path(__file__).parent / "ray_cluster.py"
    done = subprocess.run(
        [sys.executable, str(script), str(study / "plan.toml"), str(study / "ray")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the node died after" in done.stdout
    assert finished(study, "ray") == local


def test_a_cluster_that_is_not_there_is_said_to_be(study: Path) -> None:
    command = [sys.executable, "-m", "ketfit.cli", "study", "run", str(study / "plan.toml"), "-o", str(study / "none")]
    done = subprocess.run(
        [*command, "--engine", "ray", "--address", "127.0.0.1:1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "error: cannot reach the Ray cluster 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
