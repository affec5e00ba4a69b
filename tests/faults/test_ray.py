"""Test studies on a Ray cluster: results equal those of a local run, also when a node is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ketfit.study.executors import LocalExecutor
from ketfit.study.runner import run_study
from ketfit.study.spec import StudyPlan
from tests.faults.test_study_kills import sorted_results, study

pytestmark = pytest.mark.ray

__all__ = ["study"]


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


def test_ray_study_unreachable_cluster_is_named_in_the_error(study: Path) -> None:
    command = [sys.executable, "-m", "ketfit.cli", "study", "run", str(study / "plan.toml"), "-o", str(study / "none")]
    completed = subprocess.run(
        [*command, "--engine", "ray", "--address", "127.0.0.1:1"], capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 1
    assert "error: cannot reach the Ray cluster 127.0.0.1:1" in completed.stderr
    assert "Traceback" not in completed.stderr
