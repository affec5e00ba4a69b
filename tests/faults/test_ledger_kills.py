"""Runs under SIGKILL, before and after every step of the ledger: nothing is submitted twice, nothing is lost.

The steps: before an intent, after it, after the job was accepted and before its id is written down, after that, while
a result is fetched, and in the middle of a write. Every other kill finds the victim at the step, where it waits for it,
and what the ledger and the provider have then is checked; the others come at any instant from there on. A few kills of
each here; ``make faults`` sets KETFIT_LEDGER_KILLS to 50.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ketfit.hardware.backends.base import BoundCircuit, Counts
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.runs.jobs import result_key
from ketfit.hardware.runs.ledger import LEDGER, Ledger, read_ledger_state
from ketfit.hardware.runs.plan import PreparedRun
from ketfit.hardware.runs.run import fetch_run, submit_run
from ketfit.storage import append_log as lines_module
from tests.hardware.example_runs import simulator, write_example_plan

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KETFIT_LEDGER_KILLS", "3"))
STEPS = ("before intent", "after intent", "after POST", "after id", "mid-fetch", "mid-write")
LINGER = 0.004  # seconds that the victim stays at the step, if it does not wait there
Mark = Callable[[str], None]


class Slow(Simulator):
    """A simulator that says where it is, and stays there for a moment."""

    mark: Mark

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        self.mark("after intent")
        job = super().submit(circuits, shots, tag=tag)
        self.mark("after POST")
        return job

    def result(self, job: str) -> Sequence[Counts]:
        counts = super().result(job)
        self.mark("mid-fetch")
        return counts


def victim(folder: Path, mark: Mark, rng: random.Random) -> None:
    """Submit and fetch, in the process that is to be killed."""
    backend = Slow(folder / "jobs", max_circuits=4)
    backend.mark = mark
    intent, accepted, write = Ledger.record_intent, Ledger.record_accepted, os.write

    def marked_intent(self: Ledger, *arguments: Any) -> None:
        mark("before intent")
        intent(self, *arguments)

    def marked_accepted(self: Ledger, *arguments: Any) -> None:
        accepted(self, *arguments)
        mark("after id")

    def halved(file: int, content: bytes) -> int:
        half = write(file, content[: rng.randint(1, len(content))])
        if half < len(content):
            mark("mid-write")
        return half

    Ledger.record_intent, Ledger.record_accepted = marked_intent, marked_accepted  # type: ignore[method-assign]
    lines_module.os = type("Halving", (), {**vars(os), "write": staticmethod(halved)})  # type: ignore[attr-defined]
    submit_run(folder, backend)
    fetch_run(folder, backend)


def kill_at(folder: Path, step: str, time_of_it: int, rng: random.Random, waits: bool) -> bool:
    """Run, and kill at a chance instant after the step was reached so many times; whether it was killed.

    If it `waits`, it goes no further, however late the kill comes.
    """
    there, here = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            reached = Counter[str]()

            def mark(where: str) -> None:
                reached[where] += 1
                if where == step and reached[where] == time_of_it:
                    os.write(here, b"!")
                    time.sleep(60 if waits else LINGER)

            victim(folder, mark, rng)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(here)
    came = os.read(there, 1) == b"!"
    os.close(there)
    time.sleep(rng.uniform(0, 1.5 * LINGER))
    if came:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.waitstatus_to_exitcode(status) == 0
    assert killed or not (came and waits)
    return killed


def check_the_step(folder: Path, step: str) -> None:
    """The ledger and the provider are as they have to be at this step."""
    state = read_ledger_state(folder)
    at_provider = {json.loads(path.read_text())["tag"] for path in (folder / "jobs").glob("job-*.json")}
    submitted = {submission.tag for submission in state.submissions if submission.job is not None}
    unresolved = {submission.tag for submission in state.unresolved}
    if step == "mid-write":
        assert not (folder / LEDGER).read_bytes().endswith(b"\n")
    elif step == "after intent":
        assert len(unresolved) == 1 and at_provider == submitted
    elif step == "after POST":
        assert len(unresolved) == 1 and at_provider == submitted | unresolved
    else:
        assert not unresolved and at_provider == submitted
        assert state.waiting or step == "before intent"


def check_nothing_lost(folder: Path, prepared: PreparedRun) -> None:
    """The provider's jobs are those of the ledger, each circuit is in one of them, and every count is kept."""
    state = read_ledger_state(folder)
    provider = {path.stem: json.loads(path.read_text()) for path in (folder / "jobs").glob("job-*.json")}
    jobs = {submission.job: submission for submission in state.submissions if submission.job is not None}
    assert set(provider) == set(jobs), "the provider has jobs that are unknown here"
    assert Counter(job["tag"] for job in provider.values()) == Counter(submission.tag for submission in jobs.values())
    bought = Counter(key for submission in jobs.values() for key in submission.keys)
    plan = prepared.plan
    assert bought == Counter(result_key(each, plan.shots, plan.described) for each in prepared.circuits)
    for job, submission in jobs.items():
        _, *counts = provider[job]["counts"]
        assert [state.results[key] for key in submission.keys] == counts
    assert (folder / LEDGER).read_bytes().endswith(b"\n")


@pytest.mark.parametrize("step", STEPS)
def test_killed_run_loses_and_repeats_nothing(tmp_path: Path, step: str) -> None:
    rng = random.Random(step)
    kills = number = at_the_step = 0
    while kills < KILLS:
        folder = tmp_path / str(number)
        prepared = write_example_plan(folder, simulator(folder))
        # Some runs are killed more than once.
        while kills < KILLS:
            most, waits = 12 if step == "mid-write" else 4, kills % 2 == 0
            killed = kill_at(folder, step, rng.randint(1, most), rng, waits)
            kills += killed
            if killed and waits:
                check_the_step(folder, step)
                at_the_step += 1
            if not killed or rng.random() < 0.4:
                break
        backend = simulator(folder)
        submit_run(folder, backend)
        assert len(fetch_run(folder, backend)["predictions"]) == prepared.plan.sentences
        check_nothing_lost(folder, prepared)
        number += 1
        assert number < 20 * KILLS, "the kills come too late to hit anything"
    assert at_the_step >= KILLS // 2
