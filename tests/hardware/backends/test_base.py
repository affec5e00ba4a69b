"""Tests of the values of the backend interface: circuits, options, limits, shots."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ketfit.circuit.ansatz import reuploading_circuit
from ketfit.circuit.circuit import Angle, Circuit, ry
from ketfit.errors import ConfigError, InputError
from ketfit.hardware.backends.aer import aer_simulator
from ketfit.hardware.backends.base import BoundCircuit, Description, Limits, check_submission
from ketfit.hardware.backends.local import Simulator
from ketfit.hardware.backends.qiskit import QiskitBackend
from ketfit.hardware.pricing import estimate, load_device
from ketfit.hardware.runs.jobs import Budget
from ketfit.hardware.runs.plan import plan_run
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.conformance import check_backend
from ketfit.simulate.noise import NoiseConfig
from tests.hardware.example_runs import classifier, embeddings, simulator, write_example_plan
from tests.hardware.ionq_circuits import random_circuits

ONE = BoundCircuit(Circuit(1, (ry(0, Angle("weight", 0)),), 1, 0), (0.3,))
NOISE = NoiseConfig(depolarizing_1q=0.01)
INTEGERS = (int, np.int64, np.uint8, torch.tensor, np.array)


@pytest.mark.parametrize("integer", INTEGERS)
def test_integers_of_any_type_are_accepted_as_counts(tmp_path: Path, integer: Any) -> None:
    backend = Simulator(tmp_path / "s", NOISE, trajectories=integer(3), seed=integer(4), max_circuits=integer(9))
    assert backend.describe().options["trajectories"] == 3
    json.dumps(dict(backend.describe().options))
    assert check_submission(backend.describe(), [ONE], integer(100), "t") == 100
    (counts,) = backend.result(backend.submit([ONE], integer(100), tag="a"))
    assert sum(counts.values()) == 100
    aer = QiskitBackend(tmp_path / "a", aer_simulator(), seed=integer(1), optimization_level=integer(0))
    assert sum(aer.result(aer.submit([ONE], integer(100), tag="a"))[0].values()) == 100
    budget = Budget(circuits=integer(50), shots=integer(250))
    with Session(tmp_path / "run", backend, "r1", budget=budget) as session:
        assert len(session.run(random_circuits(1), integer(100), wait_s=5)) == 1
        assert len(session.counts(random_circuits(1), 100)) == 1
    assert estimate(aer.count_gates([ONE]), integer(5), load_device("ionq-aria")).shots == 5
    prepared = write_example_plan(tmp_path / "plan", shots=integer(100), seed=integer(2))
    assert (prepared.plan.shots, prepared.plan.seed) == (100, 2)
    assert all(finding.passed for finding in check_backend(simulator(tmp_path / "c", 10), shots=integer(200)))


@pytest.mark.parametrize(
    "shots", [True, 100.0, np.float64(100), "100", None, 0, -1, math.nan, np.array([1]), 2**53 + 1]
)
def test_invalid_shots_are_rejected_everywhere(tmp_path: Path, shots: Any) -> None:
    backend = simulator(tmp_path)
    for call in (
        lambda: check_submission(backend.describe(), [ONE], shots, "t"),
        lambda: backend.submit([ONE], shots, tag="a"),
        lambda: plan_run(classifier(), embeddings(), backend, name="simulator", shots=shots),
        lambda: check_backend(backend, shots=shots),
        lambda: Session(tmp_path / "run", backend, "r1").__enter__().submit([ONE], shots),
    ):
        with pytest.raises(ConfigError, match="shots"):
            call()
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("option", [math.inf, math.nan, [1], {"a": 1}, b"x"])
def test_description_and_plan_reject_options_that_are_not_json(tmp_path: Path, option: Any) -> None:
    with pytest.raises(ConfigError, match="option noise="):
        Description("ours", {"noise": option})
    with pytest.raises(ConfigError, match="option noise="):
        plan_run(classifier(), embeddings(), simulator(tmp_path), name="simulator", options={"noise": option})


@pytest.mark.parametrize("limit", ["qubits", "circuits", "shots", "min_shots", "measured"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_limits_reject_what_is_no_whole_number(limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=limit):
        Limits(**{limit: value})
    assert getattr(Limits(**{limit: np.int64(3)}), limit) == 3


CIRCUIT = reuploading_circuit(4, 1, 1, 1, 2)
RNG = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(CIRCUIT.n_weights, generator=RNG, dtype=torch.float64) * 0.4
INPUTS = torch.randn(5, 4, generator=RNG, dtype=torch.float64)
MEASURED = (0, 1)


def test_key_includes_the_followed_circuit() -> None:
    plain = BoundCircuit(CIRCUIT, tuple(WEIGHTS.tolist()), tuple(INPUTS[0].tolist()), MEASURED)
    other = BoundCircuit(reuploading_circuit(4, 1, 1, 2, 2), (0.1,) * 32, (0.1,) * 4, MEASURED)
    turned = Circuit(4, (ry(0, Angle("weight", 0)),), 1, 0)
    keys = {BoundCircuit(turned, (0.5,), (), MEASURED, follows).key for follows in (None, plain, other)}
    assert len(keys) == 3
    moved = replace(plain, inputs=tuple(INPUTS[1].tolist()))  # another row of the same run is read at the same qubits
    assert BoundCircuit(turned, (0.5,), (), MEASURED, moved).key in keys
    folded = [BoundCircuit(turned, (0.5,), (), MEASURED, plain, fold).key for fold in (1, 3, 5)]
    assert len(set(folded)) == 3


@pytest.mark.parametrize("fold", [0, 2, -1, 1.0, True])
def test_invalid_fold_is_rejected(fold: Any) -> None:
    plain = BoundCircuit(CIRCUIT, tuple(WEIGHTS.tolist()), tuple(INPUTS[0].tolist()), MEASURED)
    with pytest.raises(InputError, match="fold"):
        replace(plain, follows=plain, fold=fold)
    with pytest.raises(InputError, match="cannot follow"):
        replace(plain, follows=replace(plain, measured=(1, 0)))


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), -1.0])
def test_description_rejects_invalid_listing_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="listing_delay_s"):
        Description("ours", listing_delay_s=delay)
