"""Mutated model folders: each loads as its files describe or raises an error of KetFit, within its limits.

A few hundred by default; ``make attacks`` runs 100,000 (``KETFIT_ATTACKS``).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ketfit import HeadConfig, QuantumHeadClassifier, TrainConfig
from ketfit.errors import KetFitError
from ketfit.estimators.heads import HEADS
from ketfit.persistence.model_files import load_head
from ketfit.persistence.schema import METADATA, WEIGHTS, ModelMetadata
from tests.attacks import children
from tests.attacks.children import Report, run_cases
from tests.attacks.mutations import (
    MUTATIONS,
    ansatz_programs,
    header_and_data,
    large_heads,
    large_heads_that_fit,
    read_json,
)

CASES = int(os.environ.get("KETFIT_ATTACKS", "300"))
FIRST = int(os.environ.get("KETFIT_ATTACKS_FROM", "0"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.random.default_rng(0).standard_normal((12, 4))
    head = HeadConfig(n_qubits=2, encoder_layers=1, connectivity=1, main_layers=1, skip_connection=True)
    classifier = QuantumHeadClassifier(head, TrainConfig(epochs=1)).fit(
        rows, np.array(["bad", "good"])[np.arange(12) % 2]
    )
    folder = tmp_path_factory.mktemp("attacked") / "model"
    classifier.save_pretrained(folder, data="twelve rows")
    return folder


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def alike(caught: Any, written: Any) -> bool:
    """Return whether two parsed files are equal, comparing integers and floats by value."""
    if isinstance(caught, dict) and isinstance(written, dict):
        return caught.keys() == written.keys() and all(alike(caught[key], written[key]) for key in caught)
    if isinstance(caught, list) and isinstance(written, list):
        return len(caught) == len(written) and all(map(alike, caught, written))
    closest = float(written) if type(caught) is float and type(written) is int else written
    return type(caught) is type(closest) and bool(caught == closest)


def as_written(folder: Path, tensors: dict[str, Tensor], record: ModelMetadata) -> bool:
    """Return whether the loaded model equals the files, read without code of KetFit."""
    written = read_json(folder / METADATA)
    written.pop("record_sha256")
    caught: dict[str, Any] = json.loads(json.dumps(record.model_dump()))
    for name in ("gradient", "noise"):  # may be told by a name, or be left to the number of shots
        caught["head"].pop(name, None), written["head"].pop(name, None)
    header, data = header_and_data(folder / WEIGHTS)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    found = {name: data[slice(*entry["data_offsets"])] for name, entry in entries.items()}
    return alike(caught, written) and found == {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def attack(
    case: int, saved: Path, place: Path, mutations: Sequence[Callable[[random.Random, Path], None]] = MUTATIONS
) -> tuple[str, str, str]:
    """Run one case; return the mutation, the outcome and the details of a finding."""
    mutation = mutations[case % len(mutations)]
    work = place / str(case)
    folder = shutil.copytree(saved, work / "model")
    os.chdir(work)
    try:
        mutation(random.Random(case), folder)
        outcome, detail = judged(saved, folder)
        if (work / "boom").exists():
            outcome, detail = "finding", "a pickle was run"
    finally:
        os.chdir(place)
        shutil.rmtree(work)
    return mutation.__name__, outcome, detail


def judged(saved: Path, folder: Path) -> tuple[str, str]:
    try:
        head, record = load_head(folder)
        HEADS[record.head_kind].from_saved(head, record)
    except KetFitError as error:
        return ("refused", "") if str(error) else ("finding", f"{type(error).__name__} says nothing")
    except Exception as error:
        return "finding", f"{type(error).__name__}: {error}"
    tensors = head.tensors
    before, first = load_head(saved)
    if record == first and same(tensors, before.tensors):
        return "same", ""
    if as_written(folder, tensors, record):
        return "as written", ""
    return "finding", f"what was loaded is not what the files say: {record}"


@pytest.mark.slow
def test_mutated_model_loads_as_written_or_raises(saved: Path, tmp_path: Path) -> None:
    report = run_cases(range(FIRST, FIRST + CASES), lambda case: attack(case, saved, tmp_path))
    table = "\n".join(f"{count:7,} {name}" for name, count in sorted(report.outcomes.items()))
    most = f"slowest {report.slowest[0]:.2f} s ({report.slowest[1]}), memory {report.largest / 2**20:.0f} MiB"
    print(f"{table}\n{sum(report.outcomes.values()):,} cases, {most}")
    assert not report.findings, f"{len(report.findings)} findings:\n" + "\n".join(report.findings[:20])
    assert sum(report.outcomes.values()) == CASES, "a case was lost"
    kinds = {name.partition(":")[0] for name in report.outcomes}
    assert kinds == {mutation.__name__ for mutation in MUTATIONS}, "not every mutation was tried"
    outcomes = {name.partition(": ")[2] for name in report.outcomes}
    assert outcomes == {"refused", "same", "as written"}, "the mutations do not reach as far as they did"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logistic-regression", "svc", "mlp"])
def test_mutated_classical_model_loads_as_written_or_raises(kind: str, tmp_path: Path) -> None:
    y = np.arange(30) % 3
    x = np.random.default_rng(0).standard_normal((30, 4))
    head: Any = HEADS[kind]()  # type: ignore[index]
    head.fit(x[:20], y[:20], validation=(x[20:], y[20:])).save_pretrained(tmp_path / "model", data="twenty rows")
    mutations = [one for one in MUTATIONS if one not in (ansatz_programs, large_heads, large_heads_that_fit)]
    cases = range(FIRST, FIRST + CASES)
    report = run_cases(cases, lambda case: attack(case, tmp_path / "model", tmp_path, mutations))
    assert not report.findings, f"{len(report.findings)} findings:\n" + "\n".join(report.findings[:20])
    assert sum(report.outcomes.values()) == CASES, "a case was lost"
    assert {name.partition(": ")[2] for name in report.outcomes} == {"refused", "same", "as written"}


class TestTheCagesHold:
    """The harness reports dead, slow and hanging children."""

    def run(self, run: Any, cases: int = 3) -> Report:
        return run_cases(range(cases), run)

    def test_dead_child_is_reported(self) -> None:
        report = self.run(lambda case: os.kill(os.getpid(), signal.SIGKILL) if case == 1 else ("k", "same", ""))
        assert report.outcomes == {"k: same": 2}
        assert report.findings == ["case 1: the child died (status 9)"]

    def test_busy_child_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(children, "CPU_SECONDS", 0.05)

        def run(case: int) -> tuple[str, str, str]:
            while case == 1:
                pass
            return "k", "same", ""

        assert self.run(run).findings == ["case 1, ?: took more than 0.05 s"]

    @pytest.mark.slow
    def test_hanging_child_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(children, "SILENT_SECONDS", 2.0)

        def run(case: int) -> tuple[str, str, str]:
            if case == 1:
                os.read(os.pipe()[0], 1)
            return "k", "same", ""

        assert self.run(run).findings == ["case 1: the child hung"]

    def test_memory_of_child_is_limited(self) -> None:
        def run(case: int) -> tuple[str, str, str]:
            try:
                return "k", "same", str(len(bytes(2**30)))
            except MemoryError:
                return "k", "finding", "MemoryError"

        assert self.run(run, 1).findings == ["case 0, k: MemoryError"]

    def test_prediction_of_another_model_is_detected(self, saved: Path, tmp_path: Path) -> None:
        head, record = load_head(saved)
        tensors = head.tensors
        assert as_written(saved, tensors, record)
        assert not as_written(saved, {**tensors, "weights": tensors["weights"] + 1}, record)
        assert not as_written(saved, tensors, record.updated(seed=1))
        assert alike({"a": [2.0**63]}, {"a": [2**63 - 1]})
        assert not any(alike(one, other) for one, other in [(1, 1.0), (1.0, 2), ([1], [1, 1]), (True, 1), ({}, [])])
