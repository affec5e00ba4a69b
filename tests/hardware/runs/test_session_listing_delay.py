"""Tests of lost submissions by a boot clock: no job is bought twice, and no run is blocked for ever."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ketfit.errors import BackendTimeoutError, SubmissionStateUnknownError
from ketfit.hardware.backends.base import BoundCircuit
from ketfit.hardware.backends.boot_clock import BootTime
from ketfit.hardware.backends.retry import RetryPolicy
from ketfit.hardware.runs.ledger import LEDGER, read_ledger_state
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.faulty_backend import FaultInjectingBackend
from tests.hardware.example_runs import simulator
from tests.hardware.ionq_circuits import random_circuits

DELAY = 60.0  # seconds, as the provider declares
CIRCUITS = random_circuits(2)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Machine:
    """The machine on which sessions run. `true` is the time of the world, which is also the provider's."""

    true: float = 0.0
    wall_is_off: float = 0.0
    boot: str | None = "first boot"
    booted: float = -1000.0

    def reboot(self, boot: str = "second boot") -> None:
        self.true += 30
        self.boot, self.booted = boot, self.true

    def clock(self) -> BootTime:
        return BootTime(self.boot, self.true - self.booted)

    def wall(self) -> float:
        return 1.7e9 + self.true + self.wall_is_off

    def sleep(self, seconds: float) -> None:
        self.true += seconds


class Lagging(FaultInjectingBackend):
    """A provider whose list shows a job `lag` seconds after it was accepted.

    `fate` says what becomes of the first submission: "lost" or "accepted", and then "killed" or "timeout".
    """

    def __init__(self, folder: Path, machine: Machine, fate: str, lag: float = DELAY - 1) -> None:
        super().__init__(simulator(folder, 10), listing_delay_s=DELAY)
        self.machine, self.fate, self.lag = machine, fate, lag
        self.accepted: dict[str, float] = {}
        self.answers_after = 0.0

    def submit(self, circuits: Sequence[BoundCircuit], shots: int, *, tag: str) -> str:
        fate, self.fate = self.fate, "accepted"
        job = ""
        if "accepted" in fate:
            job = super().submit(circuits, shots, tag=tag)
            self.accepted[job] = self.machine.true
        self.machine.true += self.answers_after
        if "killed" in fate:
            raise Killed
        if "timeout" in fate:
            raise BackendTimeoutError("no answer")
        return job

    def jobs(self, tag: str) -> list[str]:
        return [job for job in self.backend.jobs(tag) if self.machine.true >= self.accepted[job] + self.lag]


def session(folder: Path, machine: Machine, backend: FaultInjectingBackend) -> Session:
    retry = RetryPolicy(
        deadline_s=5, initial_pause_s=1.0, max_pause_s=10.0, sleep=machine.sleep, clock=lambda: machine.true
    )
    return Session(folder / "run", backend, "r1", retry, now=machine.wall, clock=machine.clock)


def submit(folder: Path, machine: Machine, backend: Lagging) -> bool:
    """One process that submits; whether it could."""
    with session(folder, machine, backend) as run:
        try:
            run.submit(CIRCUITS, 100)
        except SubmissionStateUnknownError:
            return False
    return True


def interrupted(folder: Path, machine: Machine, fate: str, **settings: float) -> Lagging:
    """A provider to which a process submitted and then ended as `fate` says."""
    backend = Lagging(folder, machine, fate, **settings)
    if "killed" in fate:
        with pytest.raises(Killed):
            submit(folder, machine, backend)
    else:
        assert not submit(folder, machine, backend)
    return backend


JUMPS: dict[str, Callable[[Machine], None]] = {
    "nothing": lambda machine: None,
    "a clock a year ahead": lambda machine: setattr(machine, "wall_is_off", 3.2e7),
    "a clock a year behind": lambda machine: setattr(machine, "wall_is_off", -3.2e7),
    "a reboot": lambda machine: machine.reboot(),
    "a snapshot of the machine from before": lambda machine: setattr(machine, "booted", machine.true - 1),
}


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("end", ["killed", "timeout"])
def test_accepted_job_is_found_once_listed_and_not_bought_again(tmp_path: Path, end: str, jump: str) -> None:
    machine = Machine()
    backend = interrupted(tmp_path, machine, f"accepted {end}")
    JUMPS[jump](machine)
    while machine.true < DELAY - 2:
        assert not submit(tmp_path, machine, backend)
        machine.true += 7
    machine.true = DELAY
    assert submit(tmp_path, machine, backend)
    assert len(backend.accepted) == 1
    assert [submission.job is not None for submission in read_ledger_state(tmp_path / "run").submissions] == [True]


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("end", ["killed", "timeout"])
def test_lost_submission_is_sent_again_after_listing_delay(tmp_path: Path, end: str, jump: str) -> None:
    machine = Machine()
    backend = interrupted(tmp_path, machine, f"lost {end}")
    JUMPS[jump](machine)
    begun = machine.true
    while not submit(tmp_path, machine, backend):
        machine.true += 10
        assert machine.true - begun < 5 * DELAY, "it blocks for ever"
    # The list has to be empty for the delay: from the time-out on, or from the first look of another process.
    assert DELAY <= machine.true - begun <= DELAY + 10
    assert len(backend.accepted) == 1


def test_listing_delay_includes_suspended_time(tmp_path: Path) -> None:
    machine = Machine()
    backend = interrupted(tmp_path, machine, "lost timeout")
    machine.true += 3600  # the boot's clock goes on
    assert submit(tmp_path, machine, backend)
    assert len(backend.accepted) == 1


def test_listing_delay_starts_after_a_late_answer(tmp_path: Path) -> None:
    machine = Machine()
    backend = Lagging(tmp_path, machine, "lost timeout")
    backend.answers_after = DELAY + 1  # the job could have been accepted until then
    assert not submit(tmp_path, machine, backend)
    assert not submit(tmp_path, machine, backend)
    machine.true += DELAY
    assert submit(tmp_path, machine, backend)


def test_listing_delay_is_measured_at_the_request(tmp_path: Path) -> None:
    machine = Machine()
    backend = interrupted(tmp_path, machine, "accepted timeout")
    inner = backend.jobs

    def slow(tag: str) -> list[str]:
        found = inner(tag)
        machine.true += 30
        return found

    backend.jobs = slow  # type: ignore[method-assign]
    machine.true += DELAY - 20
    assert not submit(tmp_path, machine, backend)
    assert submit(tmp_path, machine, backend)
    assert len(backend.accepted) == 1


def test_earlier_ledger_waits_from_the_first_list(tmp_path: Path) -> None:
    machine = Machine()
    backend = interrupted(tmp_path, machine, "accepted killed")
    path = tmp_path / "run" / LEDGER
    intent = json.loads(path.read_text())
    del intent["read_at"]
    path.write_text(json.dumps(intent | {"time": 0.0}) + "\n")
    assert not submit(tmp_path, machine, backend)
    machine.true += DELAY
    assert submit(tmp_path, machine, backend)
    assert len(backend.accepted) == 1


@pytest.mark.parametrize(("fate", "bought"), [("accepted killed", 1), ("lost killed", 1)])
def test_session_without_boot_id_waits_itself(tmp_path: Path, fate: str, bought: int) -> None:
    machine = Machine(boot=None)
    backend = interrupted(tmp_path, machine, fate)
    begun = machine.true
    assert submit(tmp_path, machine, backend)
    assert DELAY - 2 <= machine.true - begun <= DELAY + 1
    assert len(backend.accepted) == bought


@pytest.mark.parametrize("seed", range(40))
def test_random_events_never_buy_twice_or_block(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    machine = Machine()
    fate = f"{rng.choice(['lost', 'accepted'])} {rng.choice(['killed', 'timeout'])}"
    backend = interrupted(tmp_path, machine, fate, lag=rng.uniform(0, DELAY))
    done = False
    for number in range(12):
        machine.true += rng.uniform(0, 30)
        event = rng.randrange(4)
        if event == 0:
            machine.wall_is_off += rng.uniform(-1e8, 1e8)
        elif event == 1:
            machine.reboot(f"boot {number}")
        else:
            done = submit(tmp_path, machine, backend) or done
    for _ in range(3):
        done = done or submit(tmp_path, machine, backend)
        machine.true += DELAY
    assert done and len(backend.accepted) == 1
