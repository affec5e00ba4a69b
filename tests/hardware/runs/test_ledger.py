"""Tests of the ledger: damaged lines, locking, a full disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ketfit.errors import KetFitError
from ketfit.hardware.runs.ledger import LEDGER, Ledger
from ketfit.hardware.runs.run import fetch_run, submit_run
from tests.hardware.example_runs import simulator, write_example_plan


def test_damaged_line_is_named_and_stops_the_run(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    backend = simulator(tmp_path)
    submit_run(tmp_path, backend)
    path = tmp_path / LEDGER
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:-5]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(KetFitError, match=r"ledger\.jsonl, line 3 is damaged"):
        submit_run(tmp_path, backend)
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 4


def test_ledger_is_locked_by_one_process(tmp_path: Path) -> None:
    write_example_plan(tmp_path)
    with Ledger(tmp_path), pytest.raises(KetFitError, match="another process works on"):
        submit_run(tmp_path, simulator(tmp_path))


def test_full_disk_before_intent_sends_nothing(tmp_path: Path, full_disk: Any) -> None:
    write_example_plan(tmp_path)
    backend = simulator(tmp_path)
    with full_disk(100), pytest.raises(KetFitError, match="cannot write"):
        submit_run(tmp_path, backend)
    assert not (tmp_path / "jobs").exists()
    submit_run(tmp_path, backend)
    assert len(fetch_run(tmp_path, backend)["predictions"]) == 12
