"""Executors: every job once, workers that die, clusters that are not there."""

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
from ketfit.study.executors import Job, LocalExecutor, RayExecutor, make_executor


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


@pytest.mark.slow
def test_every_job_is_run_once_and_in_other_processes() -> None:
    found = list(LocalExecutor(2).run(add, jobs(40)))
    assert sorted(place for place, _ in found) == list(range(40))
    assert all(result["result"] == 90_000 + 3 * place for place, result in found)
    assert os.getpid() not in {result["process"] for _, result in found}


def test_no_jobs_are_no_work() -> None:
    assert list(LocalExecutor(2).run(add, [])) == []


@pytest.mark.slow
def test_a_worker_that_dies_takes_no_job_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = dict(LocalExecutor(2).run(die_once, jobs(12, mark=str(tmp_path / "mark"))))
    assert found == {place: {"result": place} for place in range(12)}
    assert re.search(r"a worker died, killed or out of memory; \d+ tasks remain", caplog.text)


@pytest.mark.slow
def test_workers_that_keep_dying_end_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StudyError, match="workers died 4 times in a row"):
        list(LocalExecutor(2).run(always_die, jobs(2)))
    assert caplog.text.count("a worker died") == 3


def test_what_is_not_finished_can_be_left(tmp_path: Path) -> None:
    found = LocalExecutor(2).run(add, jobs(200))
    next(found)
    found.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("ray", 3, None), "--workers is for the local engine"),
        (("local", None, "auto"), "--address is for --engine ray"),
    ],
)
def test_options_that_do_not_belong_together(options: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        make_executor(*options)


def test_the_executor_is_the_one_that_was_asked_for() -> None:
    assert isinstance(make_executor("ray", None, None), RayExecutor)
    local = make_executor("local", 3, None)
    assert isinstance(local, LocalExecutor)
    assert local.workers == 3


def test_ray_that_is_not_installed_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs .* pip install 'ketfit\[ray\]'"):
        list(RayExecutor().run(add, jobs(1)))
