"""Tests of stored jobs: counts of every integer type are stored, other counts are rejected."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ketfit.errors import WrongCountsError
from ketfit.hardware.backends.qiskit import to_big_endian_counts
from ketfit.hardware.runs.ledger import read_ledger_state
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.faulty_backend import FaultInjectingBackend
from tests.hardware.example_runs import simulator
from tests.hardware.ionq_circuits import random_circuits


class Counting(FaultInjectingBackend):
    """A backend whose counts are of another type."""

    kind: Any = np.int64

    def result(self, job: str) -> list[dict[str, Any]]:
        return [{outcome: self.kind(count) for outcome, count in row.items()} for row in super().result(job)]


@pytest.mark.parametrize("kind", [np.int64, np.uint32, torch.tensor])
def test_counts_of_any_integer_type_are_stored_as_json(tmp_path: Path, kind: Any) -> None:
    backend = Counting(simulator(tmp_path))
    backend.kind = kind
    with Session(tmp_path / "run", backend, "r1") as session:
        counts = session.run(random_circuits(2), 50, wait_s=5)
    assert all(type(count) is int for row in counts for count in row.values())
    assert read_ledger_state(tmp_path / "run").results
    assert to_big_endian_counts({"01": kind(3)}, 2) == {"10": 3}


@pytest.mark.parametrize("kind", [float, str, np.float32, lambda count: count + 0.5, lambda count: math.nan])
def test_counts_that_are_no_integers_are_stored_and_rejected(tmp_path: Path, kind: Any) -> None:
    backend = Counting(simulator(tmp_path))
    backend.kind = kind
    with Session(tmp_path / "run", backend, "r1") as session, pytest.raises(WrongCountsError, match="whole number"):
        session.run(random_circuits(2), 50, wait_s=5)
    (submission,) = read_ledger_state(tmp_path / "run").submissions
    assert submission.ended == "rejected"
    with pytest.raises(WrongCountsError):
        to_big_endian_counts({"01": kind(3)}, 2)
    with pytest.raises(WrongCountsError):
        simulator(tmp_path / "kept").save(0, "t", 3, [{"01": kind(3)}])
