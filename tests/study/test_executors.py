"""Test executors: every job runs once, also when workers die."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.errors import MissingExtraError, StudyError
from ketfit.study.executors import Job, LocalExecutor, RayExecutor


def add(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    return {"result": config["number"] + float(sum(array.sum() for array in arrays)), "process": os.getpid()}


def die_once(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    mark = Path(config["mark"])
    if config["number"] == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"result": config["number"]}


def always_die(config: dict[str, Any], *arrays: np.ndarray) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def jobs(count: int, **settings: Any) -> list[Job]:
    large = np.ones((300, 300))
    return [({"number": number, **settings}, (large, np.full(2, number))) for number in range(count)]


def test_local_executor_runs_every_job_once_in_other_processes() -> None:
    results = list(LocalExecutor(2).run(add, jobs(40)))
    assert sorted(index for index, _ in results) == list(range(40))
    assert all(result["result"] == 90_000 + 3 * index for index, result in results)
    assert os.getpid() not in {result["process"] for _, result in results}


def test_local_executor_without_jobs_yields_nothing() -> None:
    assert list(LocalExecutor(2).run(add, [])) == []


def test_local_executor_after_worker_death_finishes_all_jobs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = dict(LocalExecutor(2).run(die_once, jobs(12, mark=str(tmp_path / "mark"))))
    assert results == {index: {"result": index} for index in range(12)}
    assert re.search(r"a worker died, killed or out of memory; \d+ tasks remain", caplog.text)


@pytest.mark.slow
def test_local_executor_repeated_worker_deaths_raise_study_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StudyError, match="workers died 4 times in a row"):
        list(LocalExecutor(2).run(always_die, jobs(2)))
    assert caplog.text.count("a worker died") == 3


def test_local_executor_closed_early_raises_nothing(tmp_path: Path) -> None:
    results = LocalExecutor(2).run(add, jobs(200))
    next(results)
    results.close()


def test_ray_executor_without_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs .* pip install 'ketfit\[ray\]'"):
        list(RayExecutor().run(add, jobs(1)))
