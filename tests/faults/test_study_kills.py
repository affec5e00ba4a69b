"""Studies under SIGKILL: drivers and workers die at random instants, and the finished file is that of an unbroken run.

A handful of kills here; ``make faults`` sets KETFIT_KILLS to 200.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ketfit.study.store import ROWS, read_results

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KETFIT_KILLS", "3"))
PATIENCE = 120  # seconds for one run, which takes some ten

PLAN = """
name = "Killed"
seeds = 4
bodies = ["{body}"]
train = {{ epochs = 40 }}
data = {{ source = "{data}", per_label = 20, validation_fraction = 0.25 }}
factors = {{ "head.encoder_layers" = [1, 2], "head.main_layers" = [1, 2, 3] }}
design = {{ kind = "full" }}

[heads.quantum]
kind = "quantum"
settings = {{ n_qubits = 6 }}

[heads.linear]
kind = "logistic-regression"
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_body_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    rows = [f"a {word} film {number}\t{word}" for number in range(60) for word in ("good", "bad")]
    (folder / "data.tsv").write_text("\n".join(["text\tlabel", *rows, ""]))
    (folder / "plan.toml").write_text(PLAN.format(body=tiny_body_folder, data=folder / "data.tsv"))
    return folder


def start(study: Path, output: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ketfit.cli", "study", "run", study / "plan.toml", "-o", study / output]
    with (study / f"{output}.log").open("ab") as log:
        return subprocess.Popen(
            [*map(str, command), "--workers", "2"], stdout=log, stderr=log, preexec_fn=_hear_interruptions
        )


def _hear_interruptions() -> None:
    """A shell that starts a command in the background makes it, and all that it starts, deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finished(study: Path, output: str) -> list[dict[str, Any]]:
    """The rows in the order of their tasks, without times and hosts; none is there twice."""
    names = [json.loads(line)["task"] for line in (study / output / ROWS).read_text().splitlines()]
    assert len(set(names)) == len(names)
    rows = read_results(study / output)
    return [rows[name].updated(run={}).model_dump() for name in sorted(rows)]


def whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


@pytest.fixture(scope="module")
def unbroken(study: Path) -> Iterator[tuple[list[dict[str, Any]], float, float]]:
    """The rows of a run that nobody disturbs, the seconds to its first row and to its end."""
    begun = time.monotonic()
    process, first = start(study, "unbroken"), 0.0
    while process.poll() is None:
        if not first and whole_lines(study / "unbroken" / ROWS):
            first = time.monotonic() - begun
        time.sleep(0.02)
    assert process.returncode == 0, (study / "unbroken.log").read_text()
    rows = finished(study, "unbroken")
    assert len(rows) == 28
    yield rows, first, time.monotonic() - begun


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes, not the one that looks after their shared memory."""
    try:
        found = psutil.Process(process.pid).children(recursive=True)
        return [child for child in found if "popen_loky" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def kill_once(study: Path, output: str, rows_first: int, delay: float, victim: str) -> bool:
    """Begin or go on, and kill `delay` seconds after so many rows are there; whether that came before the end.

    Rows that were there stay there.
    """
    rows = study / output / ROWS
    before = whole_lines(rows)
    process = start(study, output)
    while whole_lines(rows).count(b"\n") < rows_first and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    workers, ran = children(process), process.poll() is None
    if victim == "worker" and workers:
        random.Random(delay).choice(workers).kill()
        assert process.wait(PATIENCE) == 0, (study / f"{output}.log").read_text()
    else:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        psutil.wait_procs(workers, timeout=PATIENCE)
    assert rows.exists() or not before
    assert whole_lines(rows).startswith(before)
    return ran


def test_kills_at_random_instants_cost_nothing_but_time(
    study: Path, unbroken: tuple[list[dict[str, Any]], float, float]
) -> None:
    expected, first, _ = unbroken
    chance = random.Random(0)
    number = kills = 0
    while kills < KILLS:
        output = f"killed-{number}"
        # Most instants lie where rows are written, the others anywhere from the start. Rows tell how far a run is,
        # whatever the machine does beside it.
        there = chance.randrange(len(expected)) if kills % 4 else 0
        delay = chance.uniform(0, 0.2 if kills % 4 else first)
        kills += kill_once(study, output, there, delay, chance.choice(("driver", "driver", "worker")))
        if kills == KILLS or chance.random() < 0.25 or len(read_results(study / output)) == len(expected):
            assert start(study, output).wait(PATIENCE) == 0, (study / f"{output}.log").read_text()
            assert finished(study, output) == expected
            number += 1


def test_an_interruption_says_how_to_go_on(study: Path, unbroken: tuple[list[dict[str, Any]], float, float]) -> None:
    process = start(study, "interrupted")
    wait_for_a_row(study, "interrupted")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    told = (study / "interrupted.log").read_text()
    assert "run the same command to continue" in told
    assert "Traceback" not in told
    assert start(study, "interrupted").wait(PATIENCE) == 0
    assert finished(study, "interrupted") == unbroken[0]


def wait_for_a_row(study: Path, output: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not whole_lines(study / output / ROWS):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_leave_when_their_driver_is_killed(
    study: Path, unbroken: tuple[list[dict[str, Any]], float, float]
) -> None:
    process = start(study, "orphaned")
    wait_for_a_row(study, "orphaned")
    workers = children(process)
    assert workers
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
