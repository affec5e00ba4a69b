"""Training through the seam: gradients are autograd's, a killed training goes on for nothing, budgets hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ketfit.errors import ConnectionLostError, CostLimitError, LedgerError, UnresolvedIntentError
from ketfit.hardware.fake import Fake, Fault
from ketfit.hardware.session import Session
from ketfit.hardware.training import HardwareTraining, Trained, _Trainer, count_circuits, train_on_hardware
from tests.hardware.runs import HASTY, classifier, embeddings, simulator

LABELS = ["good", "bad"] * 6


def train(folder: Path, config: HardwareTraining, backend: object = None) -> Trained:
    used = backend or simulator(folder, 100)
    return train_on_hardware(classifier(), embeddings(), LABELS, used, folder, config, patience=HASTY, wait_s=5)  # type: ignore[arg-type]


def test_parameter_shift_is_the_gradient(tmp_path: Path) -> None:
    config = HardwareTraining(method="parameter_shift", batch_size=12, shots=2_000_000, train_linear=False)
    with Session(tmp_path, simulator(tmp_path, 1000), "gradient") as session:
        trainer = _Trainer(classifier(), embeddings(), LABELS, session, config, 0, 5)
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


@pytest.mark.parametrize("method", ["spsa", "parameter_shift"])
def test_training_lowers_the_loss(tmp_path: Path, method: str) -> None:
    rate = 1.0 if method == "spsa" else 0.1
    config = HardwareTraining(
        method=method, steps=25, batch_size=12, shots=1000, learning_rate=rate, train_linear=False
    )
    losses = [step.loss for step in train(tmp_path, config).steps]
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.02


@pytest.mark.parametrize("method", ["spsa", "parameter_shift"])
def test_a_broken_training_goes_on_and_buys_nothing_twice(tmp_path: Path, method: str) -> None:
    config = HardwareTraining(method=method, steps=4, batch_size=3, rotations=2)
    whole = train(tmp_path / "whole", config)
    folder = tmp_path / "broken"
    backend = Fake(simulator(folder, 100), [Fault("submit", "connection_lost_after", skip=2)])
    with pytest.raises(UnresolvedIntentError):
        train(folder, config, backend)
    jobs = list((folder / "jobs").glob("job-*.json"))
    assert len(jobs) == 3
    again = train(folder, config)
    assert len(list((folder / "jobs").glob("job-*.json"))) == 4
    assert [step.loss for step in again.steps] == [step.loss for step in whole.steps]
    for one, other in zip(again.classifier.module_.parameters(), whole.classifier.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert whole.spent.circuits == count_circuits(config, classifier()) + 4, "a canary a job"
    assert not issubclass(UnresolvedIntentError, ConnectionLostError)


def test_a_budget_ends_a_training_before_it_is_exceeded_and_can_be_raised(tmp_path: Path) -> None:
    config = HardwareTraining(steps=4, batch_size=3, max_circuits=15)
    with pytest.raises(CostLimitError, match="21 circuits in all, of which 7 new: the limit is 15"):
        train(tmp_path, config)
    assert len(list((tmp_path / "jobs").glob("job-*.json"))) == 2
    assert len(train(tmp_path, config.updated(max_circuits=28)).steps) == 4
    with pytest.raises(LedgerError, match="belongs to another training: settings differ"):
        train(tmp_path, config.updated(shots=7))
