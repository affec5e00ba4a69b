"""Kill drivers and workers of studies at random times; the results must equal those of an uninterrupted run.

The default is 3 kills; ``make faults`` sets KETFIT_KILLS to 200.
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
TIMEOUT_S = 120  # limit of one run, which takes about 10 s

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
            [*map(str, command), "--workers", "2"], stdout=log, stderr=log, preexec_fn=_restore_sigint
        )


def _restore_sigint() -> None:
    """Restore the SIGINT handler, which a shell turns off for background commands and their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def sorted_results(study: Path, output: str) -> list[dict[str, Any]]:
    """Return the results in the order of their tasks, without times and hosts; check that none is repeated."""
    names = [json.loads(line)["task"] for line in (study / output / ROWS).read_text().splitlines()]
    assert len(set(names)) == len(names)
    rows = read_results(study / output)
    return [rows[name].updated(run={}).model_dump() for name in sorted(rows)]


def complete_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


@pytest.fixture(scope="module")
def uninterrupted(study: Path) -> Iterator[tuple[list[dict[str, Any]], float, float]]:
    """Yield the results of an uninterrupted run and the seconds to its first result and to its end."""
    started = time.monotonic()
    process, first = start(study, "uninterrupted"), 0.0
    while process.poll() is None:
        if not first and complete_lines(study / "uninterrupted" / ROWS):
            first = time.monotonic() - started
        time.sleep(0.02)
    assert process.returncode == 0, (study / "uninterrupted.log").read_text()
    rows = sorted_results(study, "uninterrupted")
    assert len(rows) == 28
    yield rows, first, time.monotonic() - started


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes, without the resource tracker of their shared memory."""
    try:
        processes = psutil.Process(process.pid).children(recursive=True)
        return [child for child in processes if "popen_loky" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def kill_once(study: Path, output: str, min_results: int, delay: float, victim: str) -> bool:
    """Run, and kill `delay` seconds after `min_results` results; return True if the run had not ended.

    Check that earlier results are kept.
    """
    rows = study / output / ROWS
    before = complete_lines(rows)
    process = start(study, output)
    while complete_lines(rows).count(b"\n") < min_results and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    workers, was_running = children(process), process.poll() is None
    if victim == "worker" and workers:
        random.Random(delay).choice(workers).kill()
        assert process.wait(TIMEOUT_S) == 0, (study / f"{output}.log").read_text()
    else:
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
        psutil.wait_procs(workers, timeout=TIMEOUT_S)
    assert rows.exists() or not before
    assert complete_lines(rows).startswith(before)
    return was_running


def test_study_after_random_kills_has_the_same_results(
    study: Path, uninterrupted: tuple[list[dict[str, Any]], float, float]
) -> None:
    expected, first, _ = uninterrupted
    rng = random.Random(0)
    number = kills = 0
    while kills < KILLS:
        output = f"killed-{number}"
        # Three of four kills happen while results are written, the others at any time from the start. The number of
        # results measures progress independently of the machine's load.
        min_results = rng.randrange(len(expected)) if kills % 4 else 0
        delay = rng.uniform(0, 0.2 if kills % 4 else first)
        kills += kill_once(study, output, min_results, delay, rng.choice(("driver", "driver", "worker")))
        if kills == KILLS or rng.random() < 0.25 or len(read_results(study / output)) == len(expected):
            assert start(study, output).wait(TIMEOUT_S) == 0, (study / f"{output}.log").read_text()
            assert sorted_results(study, output) == expected
            number += 1


def test_study_interrupted_names_the_command_to_continue(
    study: Path, uninterrupted: tuple[list[dict[str, Any]], float, float]
) -> None:
    process = start(study, "interrupted")
    wait_for_first_result(study, "interrupted")
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    log = (study / "interrupted.log").read_text()
    assert "run the same command to continue" in log
    assert "Traceback" not in log
    assert start(study, "interrupted").wait(TIMEOUT_S) == 0
    assert sorted_results(study, "interrupted") == uninterrupted[0]


def wait_for_first_result(study: Path, output: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not complete_lines(study / output / ROWS):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_study_workers_exit_when_driver_is_killed(
    study: Path, uninterrupted: tuple[list[dict[str, Any]], float, float]
) -> None:
    process = start(study, "orphaned")
    wait_for_first_result(study, "orphaned")
    workers = children(process)
    assert workers
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
