"""Test executors: every job runs once, also when workers die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ketfit.errors import MissingExtraError, StudyError
from ketfit.study import executors
from ketfit.study.executors import Job, LocalExecutor, RayExecutor
from tests.fake_ray import FakeRay, ObjectLostError, RayError


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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(executors, "connected", lambda _: contextlib.nullcontext(ray))
    return ray


def test_ray_executor_runs_every_job_once(fake: FakeRay) -> None:
    results = list(RayExecutor().run(add, jobs(40)))
    assert sorted(index for index, _ in results) == list(range(40))
    assert all(result["result"] == 90_000 + 3 * index for index, result in results)
    assert fake.options == [{"num_cpus": 1, "num_gpus": 0, "max_retries": 0}]


def test_ray_executor_lost_task_runs_again(fake: FakeRay, caplog: pytest.LogCaptureFixture) -> None:
    losses = [RayError("node died\ntraceback") for _ in range(3)]

    def fault(_: int, __: str, given: tuple[Any, ...]) -> None:
        if given[1]["number"] == 5 and losses:
            raise losses.pop()

    fake.fault = fault
    results = list(RayExecutor().run(add, jobs(12)))
    assert sorted(index for index, _ in results) == list(range(12))
    assert all("error" not in result for _, result in results)
    assert len(fake.sent) == 15
    assert caplog.text.count("a task was lost and runs again: node died") == 3


def test_ray_executor_task_lost_too_often_is_a_failed_task(fake: FakeRay) -> None:
    def fault(_: int, __: str, given: tuple[Any, ...]) -> None:
        if given[1]["number"] == 1:
            raise ObjectLostError("out of memory\ntraceback")

    fake.fault = fault
    results = dict(RayExecutor().run(add, jobs(3)))
    message = "lost 4 times, because its worker or node died: out of memory"
    assert results[1] == {"error": {"type": "ObjectLostError", "message": message}}
    assert "result" in results[0]
    assert "result" in results[2]


def test_ray_executor_error_of_the_work_is_the_result(fake: FakeRay) -> None:
    results = dict(RayExecutor().run(add, [({}, ())]))
    assert results == {0: {"error": {"type": "KeyError", "message": "'number'"}}}


@pytest.mark.parametrize(
    ("cpus", "gpus", "threads", "expected"),
    [(16, 0, 4, (4, 0)), (2, 0, 4, (2, 0)), (16, 8, 4, (2, 1)), (1, 2, 4, (1, 1))],
)
def test_ray_executor_end_to_end_job_takes_the_share_of_a_node(
    fake: FakeRay,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cpus: int,
    gpus: int,
    threads: int,
    expected: tuple[int, int],
) -> None:
    fake.cpus, fake.gpus = cpus, gpus
    used: list[int] = []
    monkeypatch.setattr(executors.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(executors.torch, "set_num_threads", used.append)
    assert len(list(RayExecutor().run_end_to_end(add, jobs(1)))) == 1
    assert fake.options == [{"num_cpus": expected[0], "num_gpus": expected[1], "max_retries": 0}]
    assert used == [expected[0], threads]
    assert ("last digits" in caplog.text) == (expected[0] < threads)


def test_ray_executor_without_a_node_that_fits_stops(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.cpus = 0
    monkeypatch.setattr(executors, "START_TIMEOUT_S", 0.0)
    with pytest.raises(StudyError, match="no node of the cluster has 1 CPUs and 0 GPUs"):
        list(RayExecutor().run(add, jobs(1)))
