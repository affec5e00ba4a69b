"""Training through the seam: gradients are autograd's, a killed training goes on for nothing, budgets hold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ketfit.errors import (
    ConfigError,
    ConnectionLostError,
    CostLimitError,
    JobFailedError,
    LedgerError,
    ResultsPendingError,
    SubmissionStateUnknownError,
)
from ketfit.estimators.classical import SVCHead
from ketfit.hardware.backends.base import Backend
from ketfit.hardware.runs.session import Session
from ketfit.hardware.testing.faulty_backend import Fault, FaultInjectingBackend
from ketfit.hardware.training import HardwareTarget, HardwareTraining, Trained, _HardwareTrainer, train_on_hardware
from tests.hardware.example_runs import FAST_RETRY, classifier, embeddings, simulator

LABELS = ["good", "bad"] * 6


def train(
    folder: Path, config: HardwareTraining, backend: Backend | None = None, head: Any = None, **options: Any
) -> Trained:
    target = HardwareTarget(backend or simulator(folder, 100), folder, wait_s=5, retry=FAST_RETRY)
    return train_on_hardware(head or classifier(), (embeddings(), LABELS), target, config, **options)


PROGRAM = """OPENQASM 3.0; include "stdgates.inc"; input float w_0; input float w_1; input float w_2;
    qubit[3] q; ry(2 * w_0 - w_1) q[0]; cry(w_1) q[0], q[1]; rx(w_0 + 0.3) q[1]; crx(w_2) q[1], q[2]; ry(w_2) q[2];"""
HEADS: dict[str, dict[str, Any]] = {
    "ring": {},
    "strongly_entangling": {"ansatz": "strongly_entangling"},
    "ising": {"ansatz": "ising"},
    "program": {"ansatz": PROGRAM, "connectivity": 1, "n_measured": 3},
    "words": {"readout": ("X0 Z1", "Z0", "Z2")},
    "words of an ansatz": {"ansatz": "strongly_entangling", "readout": ("Y0", "X0 Y2", "Z1")},
}


@pytest.mark.parametrize("name", HEADS)
def test_parameter_shift_gradient_matches_autograd(tmp_path: Path, name: str) -> None:
    config = HardwareTraining(method="parameter_shift", batch_size=12, shots=2_000_000, train_linear=False)
    target = HardwareTarget(simulator(tmp_path, 1000), tmp_path, wait_s=5)
    with Session(tmp_path, target.backend, "gradient") as session:
        fitted = classifier(**HEADS[name])
        trainer = _HardwareTrainer(fitted, (embeddings(), LABELS), session, config, target)
        start = trainer.weights.detach().clone()
        trainer.step(0)
    found = trainer.weights.grad
    assert found is not None
    head = trainer.head.double()
    with torch.no_grad():
        head.weights.copy_(start)
    head.zero_grad()
    logits = head(torch.as_tensor(embeddings()))
    torch.nn.functional.cross_entropy(logits, trainer.codes).backward()
    assert head.weights.grad is not None
    torch.testing.assert_close(found, head.weights.grad, rtol=0, atol=2e-3)
    assert head.weights.grad.abs().max() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spsa", "parameter_shift"])
def test_training_lowers_loss(tmp_path: Path, method: str) -> None:
    rate = 1.0 if method == "spsa" else 0.1
    config = HardwareTraining(
        method=method, steps=25, batch_size=12, shots=1000, learning_rate=rate, train_linear=False
    )
    losses = [step.loss for step in train(tmp_path, config).steps]
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.02


@pytest.mark.parametrize("method", ["spsa", "parameter_shift"])
def test_interrupted_training_continues_and_buys_nothing_twice(tmp_path: Path, method: str) -> None:
    config = HardwareTraining(method=method, steps=4, batch_size=3, rotations=2)
    whole = train(tmp_path / "whole", config)
    folder = tmp_path / "broken"
    backend = FaultInjectingBackend(simulator(folder, 100), [Fault("submit", "connection_lost_after", skip=2)])
    with pytest.raises(SubmissionStateUnknownError):
        train(folder, config, backend)
    jobs = list((folder / "jobs").glob("job-*.json"))
    assert len(jobs) == 3
    again = train(folder, config)
    assert len(list((folder / "jobs").glob("job-*.json"))) == 4
    assert [step.loss for step in again.steps] == [step.loss for step in whole.steps]
    for one, other in zip(again.classifier.module_.parameters(), whole.classifier.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    per_sample = 2 if method == "spsa" else 1 + 2 * 2  # two rotations are chosen
    assert whole.spent.circuits == 4 * 3 * per_sample + 4, "4 steps of 3 samples, and a canary a job"
    assert not issubclass(SubmissionStateUnknownError, ConnectionLostError)


def test_budget_stops_training_before_it_is_exceeded_and_can_be_raised(tmp_path: Path) -> None:
    config = HardwareTraining(steps=4, batch_size=3, max_circuits=15)
    with pytest.raises(CostLimitError, match="21 circuits in all, of which 7 new: the limit is 15"):
        train(tmp_path, config)
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 2
    assert len(train(tmp_path, config.updated(max_circuits=28)).steps) == 4
    with pytest.raises(LedgerError, match="belongs to another training: settings differ"):
        train(tmp_path, config.updated(shots=7))


def test_training_budget_includes_the_mitigation_of_the_provider(tmp_path: Path) -> None:
    backend = simulator(tmp_path, 100, device="ionq-aria")
    backend._description = replace(backend.describe(), options={"mitigation": "debiasing"})
    config = HardwareTraining(steps=1, batch_size=3, shots=1, max_cost=600.0)  # 7 circuits at 97.50 USD
    with pytest.raises(CostLimitError, match="the limit is 600"):
        train(tmp_path, config, backend)
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_training_buys_a_failed_job_again_only_with_again(tmp_path: Path, kind: str) -> None:
    config = HardwareTraining(steps=3, batch_size=3)
    backend = FaultInjectingBackend(simulator(tmp_path, 100), [Fault("status", kind, skip=1)])
    with pytest.raises(JobFailedError, match="again=True"):
        train(tmp_path, config, backend)
    with pytest.raises(ResultsPendingError, match="again=True"):
        train(tmp_path, config, backend)
    assert backend.calls.count("submit") == 2
    trained = train(tmp_path, config, backend, again=True)
    assert (len(trained.steps), backend.calls.count("submit")) == (3, 4)
    train(tmp_path, config, backend, again=True)
    assert backend.calls.count("submit") == 4


def test_linear_training_measures_each_sample_once(tmp_path: Path) -> None:
    config = HardwareTraining(method="linear", steps=300, batch_size=5, shots=1000, linear_rate=0.1)
    before = classifier().module_
    trained = train(tmp_path, config)
    new = trained.spent.circuits - len(list((tmp_path / "jobs").glob("job-*.json")))
    assert new == 12, "each sample once, and a canary a job"
    assert torch.equal(trained.classifier.module_.weights, before.weights)
    target = HardwareTarget(simulator(tmp_path, 100), tmp_path, wait_s=5)
    with Session(tmp_path, target.backend, "again") as session:
        trainer = _HardwareTrainer(trained.classifier, (embeddings(), LABELS), session, config, target)
        reached = trainer.loss(trainer.encoder_expectations, trainer.codes)
        values = trainer._measure_once(trainer.encoder_expectations).numpy()
    assert trained.spent.circuits == new + len(list((tmp_path / "jobs").glob("job-*.json")))
    fitted = LogisticRegression(C=1e9, tol=1e-8).fit(values, LABELS)
    assert reached == pytest.approx(log_loss(LABELS, fitted.predict_proba(values)), abs=0.02)


def test_training_restores_best_step_by_validation(tmp_path: Path) -> None:
    wild = HardwareTraining(
        steps=6, batch_size=4, learning_rate=50, perturbation=1.5, linear_rate=3.0, validate_every=4
    )
    held = (embeddings(), classifier().predict(embeddings()).tolist())
    trained = train(tmp_path / "wild", wild, validation=held)
    looks = [step.validation_loss for step in trained.steps]
    assert [loss is not None for loss in looks] == [False, False, False, True, False, True]
    assert trained.best_step == 0, "labels of the head's own choice: it was best as it came"
    for name, tensor in trained.classifier.module_.state_dict().items():
        assert torch.equal(tensor, classifier().module_.state_dict()[name])
    jobs = len(list((tmp_path / "wild" / "jobs").glob("job-*.json")))
    # Steps so wild are cut off at the side that was measured: of both later looks, a batch is there already.
    assert trained.spent.circuits - jobs == 6 * 4 * 2 + 3 * 12 - 2 * 4
    better = train(
        tmp_path / "better",
        wild.updated(method="linear", linear_rate=0.05, steps=40),
        validation=(embeddings(), LABELS),
    )
    seen = [math.inf if step.validation_loss is None else step.validation_loss for step in better.steps]
    assert better.best_step == 1 + int(np.argmin(seen)) > 20
    with pytest.raises(LedgerError, match="content differ"):
        train(tmp_path / "wild", wild, validation=(embeddings(), LABELS))


def test_training_without_trained_parameters_is_rejected() -> None:
    with pytest.raises(ConfigError, match="trains the linear layer and nothing else"):
        HardwareTraining(method="linear", train_linear=False)


def test_training_of_classical_head_raises_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    target = HardwareTarget(simulator(tmp_path / "jobs", 100), folder, wait_s=5, retry=FAST_RETRY)
    head = SVCHead().fit(embeddings(), LABELS)
    with pytest.raises(ConfigError, match="SVCHead is a classical head and has no circuit to train on hardware"):
        train_on_hardware(head, (embeddings(), LABELS), target, HardwareTraining())  # type: ignore[arg-type]
    assert not folder.exists()


@pytest.mark.parametrize(("method", "circuits"), [("linear", 2 * 4), ("spsa", 2 * 2 * 4)])
def test_training_of_head_that_reads_words_measures_each_group(tmp_path: Path, method: str, circuits: int) -> None:
    config = HardwareTraining(method=method, steps=1, batch_size=4, shots=100)
    trained = train(tmp_path, config, head=classifier(readout=("X0 Z1", "Z0")))
    assert trained.spent.circuits == circuits + len(list((tmp_path / "jobs").glob("job-*.json")))


def test_shifted_rotation_is_measured_for_the_groups_that_depend_on_it(tmp_path: Path) -> None:
    program = """OPENQASM 3.0; include "stdgates.inc"; input float w_0; input float w_1; qubit[3] q;
        ry(w_0) q[0]; ry(w_1) q[1];"""
    head = classifier(ansatz=program, connectivity=1, readout=("X0", "Z0", "Y1", "Z1"))
    config = HardwareTraining(method="parameter_shift", steps=1, batch_size=2, shots=100)
    spent = train(tmp_path, config, head=head).spent
    rotations = 2 * 2  # two layers; each is on a qubit that both groups measure
    jobs = len(list((tmp_path / "jobs").glob("job-*.json")))
    assert spent.circuits - jobs == 2 * 2 * (1 + 2 * rotations)
    only = classifier(ansatz=program, connectivity=1, readout=("X0", "Z0", "Y1"))
    spent = train(tmp_path / "only", config, head=only).spent
    assert spent.circuits - jobs == 2 * ((1 + 2 * rotations) + (1 + 2 * rotations // 2))


def test_training_of_head_with_components_encodes_projections(tmp_path: Path) -> None:
    fitted = classifier(n_qubits=2, connectivity=1, components=3)
    target = HardwareTarget(simulator(tmp_path, 100), tmp_path, wait_s=5)
    with Session(tmp_path, target.backend, "components") as session:
        trainer = _HardwareTrainer(fitted, (embeddings(), LABELS), session, HardwareTraining(), target)
    with torch.no_grad():
        expected = fitted.module_.encode(torch.from_numpy(embeddings()))
    torch.testing.assert_close(trainer.encoder_expectations, expected)
