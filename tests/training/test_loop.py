"""The training loop: learning, selection of the epoch, patience, weights, checkpoints and progress."""

from __future__ import annotations

import errno
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ketfit.errors import KetFitError, ModelFileError, StorageError, TrainingError
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.simulate.native import kernel_threads
from ketfit.storage.tensors import read_tensors, write_tensors
from ketfit.training.loop import Samples, TrainResult, evaluate, learning_rate, predict_logits, train

TINY = HeadConfig(n_qubits=2, encoder_layers=1, connectivity=1, main_layers=1, reference_amplitude=1)


def blobs(n: int, seed: int, shift: float = 2.0, dtype: torch.dtype = torch.float64) -> Samples:
    """Return two clouds of `n` points in three dimensions, `shift` apart, alternating labels, different weights."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=generator, dtype=dtype)
    x[:, 0] += shift * (2 * y - 1)
    return Samples(x, y, 0.5 + torch.rand(n, generator=generator, dtype=dtype))


def linear(seed: int = 0, classes: int = 2) -> nn.Linear:
    module = nn.Linear(3, classes, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return module


def quantum(dtype: torch.dtype = torch.float64) -> QuantumHead:
    return QuantumHead(TINY, 3, 2).to(dtype)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def batches_seen(module: nn.Module) -> list[Tensor]:
    """Record the inputs of every training step, that is of forward calls with gradients."""
    seen: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            seen.append(inputs[0].clone())

    module.register_forward_pre_hook(record)
    return seen


class Interruption(Exception):
    """An interruption in the middle of a training."""


def fail_at(module: nn.Module, call: int) -> nn.Module:
    """Make the module raise at its `call`-th forward, counted from 0, and return it."""
    count = itertools.count()

    def fuse(_: nn.Module, __: tuple[Tensor, ...]) -> None:
        if next(count) == call:
            raise Interruption

    module.register_forward_pre_hook(fuse)
    return module


class TestLearning:
    @pytest.mark.parametrize("make", [linear, quantum])
    def test_train_learns_separable_clouds(self, make: Callable[[], nn.Module]) -> None:
        module = make()
        before = evaluate(module, blobs(40, seed=3), 512)
        result = train(module, blobs(40, seed=1), blobs(20, seed=2), TrainConfig(epochs=40, learning_rate=0.1), seed=0)
        loss, accuracy, _ = evaluate(module, blobs(40, seed=3), 512)
        assert accuracy >= 0.95
        assert loss < before[0]
        assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss

    def test_train_learns_three_classes_in_float32(self) -> None:
        samples = blobs(60, seed=0, shift=0, dtype=torch.float32)
        y = torch.arange(60) % 3
        samples.x[torch.arange(60), y] += 5
        module = QuantumHead(TINY.updated(n_measured=2), 3, 3)
        train(module, Samples(samples.x, y, samples.weight), None, TrainConfig(epochs=80, learning_rate=0.1), seed=0)
        assert evaluate(module, Samples(samples.x, y, samples.weight), 512)[1] >= 0.9
        assert module.weights.dtype == torch.float32

    def test_equal_seeds_give_equal_weights_and_history(self) -> None:
        config = TrainConfig(epochs=5, batch_size=7)
        one, other = quantum(), quantum()
        results = [train(module, blobs(20, 1), blobs(10, 2), config, seed=5) for module in (one, other)]
        assert results[0] == results[1]
        assert_same_state(state(one), state(other))

    def test_another_seed_gives_other_batches(self) -> None:
        orders = []
        for seed in (0, 1):
            module = linear()
            seen = batches_seen(module)
            train(module, blobs(20, 1), None, TrainConfig(epochs=1, batch_size=5), seed=seed)
            orders.append(torch.cat(seen))
        assert orders[0].shape == orders[1].shape
        assert not torch.equal(orders[0], orders[1])

    def test_train_leaves_global_random_state_unchanged(self) -> None:
        runs = []
        for noise in (1, 2):
            module = quantum()
            torch.manual_seed(noise)
            before = torch.get_rng_state()
            train(module, blobs(20, 1), None, TrainConfig(epochs=2, batch_size=7), seed=0)
            assert torch.equal(torch.get_rng_state(), before)
            runs.append(state(module))
        assert_same_state(*runs)

    def test_every_epoch_covers_all_samples_in_a_new_order(self) -> None:
        module, samples = linear(), blobs(20, 1)
        seen = batches_seen(module)
        train(module, samples, blobs(6, 2), TrainConfig(epochs=3, batch_size=6), seed=0)
        assert [len(batch) for batch in seen] == [6, 6, 6, 2] * 3
        epochs = [torch.cat(seen[start : start + 4]) for start in (0, 4, 8)]
        expected = samples.x[samples.x[:, 0].argsort()]
        for rows in epochs:
            assert torch.equal(rows[rows[:, 0].argsort()], expected)
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[1], epochs[2])

    def test_shuffled_samples_keep_their_labels_and_weights(self) -> None:
        # Full batch and one shuffled batch of all samples are the same step, up to the order of the sum.
        samples = blobs(20, 1)
        module = linear()
        train(module, samples, None, TrainConfig(epochs=1, batch_size=20, learning_rate=0.5), seed=3)
        by_hand = linear()
        loss = nn.functional.cross_entropy(by_hand(samples.x), samples.y, reduction="none")
        ((samples.weight * loss).sum() / samples.weight.sum()).backward()
        optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.5, weight_decay=0)
        optimizer.step()
        torch.testing.assert_close(module.weight, by_hand.weight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(module.bias, by_hand.bias, rtol=1e-9, atol=1e-9)

    def test_train_of_a_quantum_head_limits_torch_to_one_thread(self) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            for make, wanted in ((linear, (3, 3)), (quantum, (1, 3))):
                seen = set()
                module = make()
                module.register_forward_pre_hook(lambda *_, s=seen: s.add((torch.get_num_threads(), kernel_threads())))
                train(module, blobs(12, 1), blobs(6, 2), TrainConfig(epochs=2, batch_size=6), seed=0)
                assert seen == {wanted}
                assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_weight_decay_shrinks_the_weights(self) -> None:
        sizes = []
        for decay in (0.0, 5.0):
            module = linear()
            train(module, blobs(20, 1), None, TrainConfig(epochs=20, weight_decay=decay), seed=0)
            sizes.append(module.weight.norm().item())
        assert sizes[1] < 0.5 * sizes[0]

    def test_angle_scale_is_trained_only_if_it_is_free(self) -> None:
        for free in (False, True):
            module = QuantumHead(TINY.updated(train_angle_scale=free), 3, 2).double()
            before = module.angle_scale.item()
            train(module, blobs(20, 1), None, TrainConfig(epochs=2), seed=0)
            assert (module.angle_scale.item() != before) == free


class TestSchedule:
    def test_constant_schedule_keeps_the_rate(self) -> None:
        config = TrainConfig(epochs=7, learning_rate=0.125)
        assert {learning_rate(config, epoch) for epoch in range(7)} == {0.125}

    def test_cosine_schedule_halves_the_rate_in_the_middle(self) -> None:
        config = TrainConfig(epochs=8, learning_rate=0.2, schedule="cosine")
        rates = [learning_rate(config, epoch) for epoch in range(9)]
        assert rates[0] == 0.2
        assert rates[4] == pytest.approx(0.1)
        assert rates[2] == pytest.approx(0.2 * (0.5 + math.sqrt(0.125)))
        assert rates[8] == pytest.approx(0, abs=1e-15)
        assert rates == sorted(rates, reverse=True)

    def test_optimizer_follows_the_rate_in_the_history(self) -> None:
        config = TrainConfig(epochs=4, learning_rate=0.5, schedule="cosine")
        states: list[Tensor] = []
        module = linear()
        module.register_forward_pre_hook(lambda module, _: states.append(module.weight.detach().clone()))
        result = train(module, blobs(20, 1), None, config, seed=0)
        assert [row.learning_rate for row in result.history] == [learning_rate(config, epoch) for epoch in range(4)]
        # The first step of Adam is the learning rate times the gradient's sign.
        first_step = (states[1] - states[0]).abs()
        torch.testing.assert_close(first_step, torch.full_like(first_step, 0.5), rtol=1e-5, atol=0)
        last_step = (module.weight - states[3]).abs()
        assert 0 < last_step.max().item() < 4 * learning_rate(config, 3)


class TestSelection:
    def noisy(self, **settings: Any) -> tuple[nn.Linear, Samples, TrainResult]:
        """Return a run whose validation metrics rise and fall: validation and training labels differ."""
        held = blobs(30, seed=9, shift=-0.3)
        module = linear(seed=4)
        config = TrainConfig(epochs=30, batch_size=5, learning_rate=0.3, **settings)
        return module, held, train(module, blobs(20, 1), held, config, seed=3)

    def test_selection_by_loss_takes_the_lowest(self) -> None:
        _, _, result = self.noisy()
        losses = [row.validation_loss for row in result.history]
        assert losses[result.best_epoch] == min(losses)  # type: ignore[type-var]
        accuracies = [row.validation_weighted_accuracy for row in result.history]
        assert accuracies.index(max(accuracies)) != result.best_epoch, "the two criteria must differ for this test"  # type: ignore[type-var]

    def test_selection_by_accuracy_takes_the_first_of_equal_epochs(self) -> None:
        _, _, result = self.noisy(selection="accuracy")
        accuracies = [row.validation_weighted_accuracy for row in result.history]
        assert accuracies.count(max(accuracies)) > 1, "there must be a tie for this test"  # type: ignore[type-var]
        assert result.best_epoch == accuracies.index(max(accuracies))  # type: ignore[type-var]

    @pytest.mark.parametrize("selection", ["loss", "accuracy"])
    def test_train_restores_the_best_weights(self, selection: str) -> None:
        module, held, result = self.noisy(selection=selection)
        best, last = result.history[result.best_epoch], result.history[-1]
        assert result.best_epoch < 29
        figures = (best.validation_loss, best.validation_accuracy, best.validation_weighted_accuracy)
        assert evaluate(module, held, 5) == figures
        assert best.validation_loss != last.validation_loss

    def test_restored_weights_equal_a_run_that_ends_there(self) -> None:
        module, _, result = self.noisy()
        short = linear(seed=4)
        config = TrainConfig(epochs=result.best_epoch + 1, batch_size=5, learning_rate=0.3)
        train(short, blobs(20, 1), None, config, seed=3)
        assert_same_state(state(module), state(short))

    def test_selection_of_equal_losses_takes_the_first_epoch(self) -> None:
        class Stuck(nn.Module):
            """A module with a trained weight that does not affect the logits."""

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))

            def forward(self, x: Tensor) -> Tensor:
                return 0 * self.weight * x[:, :2] if torch.is_grad_enabled() else torch.zeros(len(x), 2).double()

        result = train(Stuck(), blobs(8, 1), blobs(4, 2), TrainConfig(epochs=5), seed=0)
        assert len({row.validation_loss for row in result.history}) == 1
        assert result.best_epoch == 0

    def test_train_without_validation_keeps_the_last_epoch(self) -> None:
        module = linear()
        seen: list[Tensor] = []
        module.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
        result = train(module, blobs(20, 1), None, TrainConfig(epochs=4), seed=0)
        assert result.best_epoch == 3
        assert all(row.validation_loss is None and row.validation_accuracy is None for row in result.history)
        assert not any(torch.equal(module.weight, weight) for weight in seen)

    def test_result_is_frozen_and_unchanged_by_another_training(self) -> None:
        module, held, result = self.noisy()
        before = result.history
        train(module, blobs(20, 1), held, TrainConfig(epochs=2, learning_rate=1.0), seed=1)
        assert isinstance(result.history, tuple)
        assert result.history == before
        with pytest.raises(FrozenInstanceError):
            result.best_epoch = 0  # type: ignore[misc]
        with pytest.raises(FrozenInstanceError):
            result.history[0].train_loss = 0.0  # type: ignore[misc]


class TestPatience:
    def run(self, patience: int | None, selection: str = "loss") -> TrainResult:
        config = TrainConfig(
            epochs=30,
            batch_size=5,
            learning_rate=0.3,
            patience=patience,
            selection=selection,  # type: ignore[arg-type]
        )
        return train(linear(seed=4), blobs(20, 1), blobs(30, seed=9, shift=-0.3), config, seed=3)

    @pytest.mark.parametrize("patience", [1, 2, 5])
    @pytest.mark.parametrize("selection", ["loss", "accuracy"])
    def test_patience_stops_after_epochs_without_a_new_best(self, patience: int, selection: str) -> None:
        whole, cut = self.run(None, selection), self.run(patience, selection)
        figures = [
            row.validation_loss if selection == "loss" else -row.validation_weighted_accuracy  # type: ignore[operator]
            for row in whole.history
        ]
        best, stop = 0, 29
        for epoch, figure in enumerate(figures):
            if figure < figures[best]:  # type: ignore[operator]
                best = epoch
            if epoch - best >= patience:
                stop = epoch
                break
        assert stop < 29, "patience must run out for this test"
        assert cut.history == whole.history[: stop + 1]
        assert cut.best_epoch == best

    def test_patience_none_never_stops(self) -> None:
        assert len(self.run(None).history) == 30

    def test_patience_without_validation_never_stops(self) -> None:
        result = train(linear(), blobs(20, 1), None, TrainConfig(epochs=9, patience=1), seed=0)
        assert len(result.history) == 9


class TestWeights:
    @pytest.mark.parametrize("make", [linear, quantum])
    def test_weight_two_equals_a_repeated_sample(self, make: Callable[[], nn.Module]) -> None:
        samples = blobs(12, 1)
        counts = torch.tensor([1, 2, 3] * 4)
        weighted, repeated = make(), make()
        config = TrainConfig(epochs=15, learning_rate=0.1)
        held = blobs(6, 2)
        held_counts = torch.tensor([2, 1, 1, 3, 1, 1])
        one = train(
            weighted,
            Samples(samples.x, samples.y, counts.double()),
            Samples(held.x, held.y, held_counts.double()),
            config,
            seed=0,
        )
        other = train(
            repeated,
            Samples(
                samples.x.repeat_interleave(counts, 0), samples.y.repeat_interleave(counts), torch.ones(24).double()
            ),
            Samples(
                held.x.repeat_interleave(held_counts, 0), held.y.repeat_interleave(held_counts), torch.ones(9).double()
            ),
            config,
            seed=0,
        )
        torch.testing.assert_close(state(weighted), state(repeated), rtol=1e-9, atol=1e-9)
        for row, twin in zip(one.history, other.history, strict=True):
            assert row.train_loss == pytest.approx(twin.train_loss, rel=1e-10)
            assert row.validation_loss == pytest.approx(twin.validation_loss, rel=1e-10)
            assert row.validation_weighted_accuracy == pytest.approx(twin.validation_weighted_accuracy, rel=1e-12)
            assert twin.validation_weighted_accuracy == pytest.approx(twin.validation_accuracy, rel=1e-12)

    def test_scaled_weights_train_equally(self) -> None:
        samples = blobs(12, 1)
        ends = []
        for scale in (1.0, 1024.0):
            module = linear()
            train(module, Samples(samples.x, samples.y, scale * samples.weight), None, TrainConfig(epochs=3), seed=0)
            ends.append(state(module))
        torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)

    def test_training_loss_is_the_weighted_mean_over_the_batches(self) -> None:
        # With a learning rate that moves nothing, the loss of an epoch is that of the weights it began with.
        samples = blobs(20, 1)
        module = linear()
        result = train(module, samples, None, TrainConfig(epochs=1, batch_size=6, learning_rate=1e-300), seed=0)
        assert result.history[0].train_loss == pytest.approx(evaluate(linear(), samples, 512)[0], rel=1e-12)

    def test_evaluate_equals_the_formulas(self) -> None:
        module, samples = linear(), blobs(9, 1)
        with torch.no_grad():
            log = module(samples.x).log_softmax(dim=1)
        total = sum(samples.weight).item()  # type: ignore[arg-type]
        loss = sum(-log[i, samples.y[i]].item() * samples.weight[i].item() for i in range(9)) / total
        hits = sum(samples.weight[i].item() for i in range(9) if log[i].argmax() == samples.y[i]) / total
        share = sum((log[i].argmax() == samples.y[i]).item() for i in range(9)) / 9
        assert share != pytest.approx(hits), "the two accuracies must differ for this test"
        assert evaluate(module, samples, 4) == pytest.approx((loss, share, hits), rel=1e-12)

    def test_predict_logits_ignores_batch_size_and_has_no_gradient(self) -> None:
        module, samples = quantum(), blobs(9, 1)
        logits = predict_logits(module, samples.x, 4)
        torch.testing.assert_close(logits, predict_logits(module, samples.x, 9), rtol=1e-12, atol=1e-12)
        assert not logits.requires_grad


# What runs are interrupted: full batches and minibatches, patience, cosine, without validation, a quantum head.
RUNS: dict[str, tuple[Callable[[], nn.Module], bool, TrainConfig]] = {
    "full batch": (linear, True, TrainConfig(epochs=6, learning_rate=0.3)),
    "minibatches": (linear, True, TrainConfig(epochs=6, batch_size=6, learning_rate=0.3, weight_decay=0.1)),
    "patience": (linear, True, TrainConfig(epochs=12, batch_size=5, learning_rate=0.9, patience=2)),
    "cosine": (linear, True, TrainConfig(epochs=6, batch_size=6, learning_rate=0.3, schedule="cosine")),
    "accuracy": (linear, True, TrainConfig(epochs=6, batch_size=6, learning_rate=0.9, selection="accuracy")),
    "no validation": (linear, False, TrainConfig(epochs=6, batch_size=6, schedule="cosine")),
    "quantum head": (quantum, True, TrainConfig(epochs=4, batch_size=8, learning_rate=0.2, schedule="cosine")),
    "float32": (lambda: quantum(torch.float32), True, TrainConfig(epochs=4, batch_size=8, learning_rate=0.2)),
}


def data(module: nn.Module, validated: bool) -> tuple[Samples, Samples | None]:
    dtype = next(module.parameters()).dtype
    return blobs(16, 1, dtype=dtype), blobs(8, seed=9, shift=-0.3, dtype=dtype) if validated else None


class TestCheckpoint:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", RUNS)
    def test_resumed_run_equals_an_uninterrupted_one(self, name: str, tmp_path: Path) -> None:
        make, validated, config = RUNS[name]
        whole = make()
        calls: list[None] = []
        whole.register_forward_pre_hook(lambda *_: calls.append(None))
        expected = train(whole, *data(whole, validated), config, seed=3)
        n_calls = len(calls)
        assert n_calls >= len(expected.history) > 1
        for call in range(n_calls):
            checkpoint = tmp_path / f"{call}.safetensors"
            with pytest.raises(Interruption):
                train(fail_at(make(), call), *data(whole, validated), config, seed=3, checkpoint=checkpoint)
            module = make()
            result = train(module, *data(whole, validated), config, seed=3, checkpoint=checkpoint)
            assert result == expected
            assert_same_state(state(module), state(whole))
        assert all(path.suffix == ".safetensors" for path in tmp_path.iterdir()), "a temporary file is left"

    def test_run_interrupted_at_every_step_resumes_equally(self, tmp_path: Path) -> None:
        make, validated, config = RUNS["minibatches"]
        whole = make()
        expected = train(whole, *data(whole, validated), config, seed=3)
        checkpoint, breaks = tmp_path / "run.safetensors", 0
        while True:
            module = fail_at(make(), 5)  # an epoch has 5 calls: three batches and two of validation
            try:
                result = train(module, *data(whole, validated), config, seed=3, checkpoint=checkpoint)
                break
            except Interruption:
                breaks += 1
        assert breaks == 5
        assert result == expected
        assert_same_state(state(module), state(whole))

    def test_checkpoint_does_not_change_the_result(self, tmp_path: Path) -> None:
        make, validated, config = RUNS["patience"]
        one, other = make(), make()
        plain = train(one, *data(one, validated), config, seed=3)
        kept = train(other, *data(one, validated), config, seed=3, checkpoint=tmp_path / "run")
        assert plain == kept
        assert len(plain.history) < config.epochs
        assert_same_state(state(one), state(other))

    def test_checkpoint_of_an_earlier_version_resumes(self, tmp_path: Path) -> None:
        """The history of earlier versions has one accuracy, the weighted one."""
        make, validated, config = RUNS["accuracy"]
        whole, checkpoint = make(), tmp_path / "run.safetensors"
        expected = train(whole, *data(whole, validated), config, seed=3)
        module = fail_at(make(), 9)
        with pytest.raises(Interruption):
            train(module, *data(whole, validated), config, seed=3, checkpoint=checkpoint)
        tensors, metadata = read_tensors(checkpoint)
        facts = json.loads(metadata["checkpoint"])
        for row in facts["history"]:
            row["validation_accuracy"] = row.pop("validation_weighted_accuracy")
        write_tensors(checkpoint, tensors, {"checkpoint": json.dumps(facts)})
        again = make()
        result = train(again, *data(whole, validated), config, seed=3, checkpoint=checkpoint)
        assert 0 < len(facts["history"]) < len(result.history)
        assert result.best_epoch == expected.best_epoch
        assert [row.train_loss for row in result.history] == [row.train_loss for row in expected.history]
        assert_same_state(state(again), state(whole))

    @pytest.mark.parametrize("name", ["minibatches", "patience"])
    def test_finished_run_returns_at_once(self, name: str, tmp_path: Path) -> None:
        make, validated, config = RUNS[name]
        checkpoint = tmp_path / "run.safetensors"
        first = make()
        expected = train(first, *data(first, validated), config, seed=3, checkpoint=checkpoint)
        written = checkpoint.read_bytes()
        again = fail_at(make(), 0)
        assert train(again, *data(first, validated), config, seed=3, checkpoint=checkpoint) == expected
        assert_same_state(state(again), state(first))
        assert checkpoint.read_bytes() == written

    def test_checkpoint_creates_missing_folders(self, tmp_path: Path) -> None:
        checkpoint = tmp_path / "a" / "b" / "run.safetensors"
        train(linear(), blobs(8, 1), None, TrainConfig(epochs=1), seed=0, checkpoint=checkpoint)
        assert [path.name for path in checkpoint.parent.iterdir()] == ["run.safetensors"]

    @pytest.mark.slow
    def test_killed_run_resumes_equally(self, tmp_path: Path) -> None:
        # One process that imports torch once, and forks a child for every life of the run.
        outcome = subprocess.run(
            [sys.executable, "-W", "error", "-c", KILLER, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert outcome.returncode == 0, outcome.stderr
        facts = json.loads(outcome.stdout)
        assert facts["kills"] >= 5
        assert facts["resumed_epochs"], "no life ended between two checkpoints"
        whole, whole_facts = read_tensors(tmp_path / "whole.safetensors")
        broken, broken_facts = read_tensors(tmp_path / "broken.safetensors")
        assert broken_facts == whole_facts
        assert len(json.loads(whole_facts["history"])) == 60
        assert_same_state(broken, whole)


KILLER = """
import dataclasses, json, os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # which the first optimiser would import in every child
torch.set_num_threads(1)
from ketfit.storage.tensors import read_tensors, write_tensors
from ketfit.training.loop import Samples, train
from ketfit.model.config import HeadConfig, TrainConfig
from ketfit.model.head import QuantumHead
from ketfit.simulate.native import kernel_threads

folder = Path(sys.argv[1])
checkpoint = folder / "run.checkpoint"

def run(target, checkpoint=None):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 3, generator=generator, dtype=torch.float64), torch.arange(20) % 2
    weight = torch.ones(20, dtype=torch.float64)
    config = HeadConfig(n_qubits=2, encoder_layers=1, connectivity=1, main_layers=1)
    module = QuantumHead(config, 3, 2).double()
    held = Samples(x[14:], y[14:], weight[14:])
    settings = TrainConfig(epochs=60, batch_size=5, patience=None)
    few = Samples(x[:14], y[:14], weight[:14])
    result = train(module, few, held, settings, seed=0, checkpoint=checkpoint)
    history = json.dumps([dataclasses.astuple(row) for row in result.history])
    write_tensors(target, module.state_dict(), {"history": history, "best_epoch": str(result.best_epoch)})

def child(*arguments):
    pid = os.fork()
    if pid:
        return pid
    try:
        run(*arguments)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

start = time.monotonic()
assert os.waitpid(child(folder / "whole.safetensors"), 0)[1] == 0
length = time.monotonic() - start
random.seed(0)
kills, resumed = 0, set()
while True:
    pid = child(folder / "broken.safetensors", checkpoint)
    if kills < 8:
        time.sleep(random.uniform(0, 0.3 * length))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        kills += 1
        if checkpoint.exists():
            resumed.add(len(json.loads(read_tensors(checkpoint)[1]["checkpoint"])["history"]))
        continue
    assert status == 0
    break
print(json.dumps({"kills": kills, "resumed_epochs": sorted(resumed - {60})}))
"""


class TestRefusedCheckpoints:
    config = TrainConfig(epochs=3, batch_size=6)

    def start(self, checkpoint: Path) -> None:
        train(linear(), blobs(16, 1), blobs(8, 2), self.config, seed=0, checkpoint=checkpoint)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"seed": 1}, "seed"),
            ({"config": TrainConfig(epochs=4, batch_size=6)}, "training settings"),
            ({"module": linear(seed=1)}, "head"),
            ({"module": linear(classes=3)}, "head"),
            ({"module": quantum()}, "head"),
            ({"samples": blobs(16, 5)}, "data"),
            ({"validation": blobs(8, 5)}, "data"),
            ({"validation": None}, "data"),
            ({"samples": Samples(blobs(16, 1).x, 1 - blobs(16, 1).y, blobs(16, 1).weight)}, "data"),
            ({"samples": Samples(blobs(16, 1).x, blobs(16, 1).y, 2 * blobs(16, 1).weight)}, "data"),
        ],
    )
    def test_checkpoint_of_another_run_is_refused(self, change: dict[str, Any], named: str, tmp_path: Path) -> None:
        checkpoint = tmp_path / "run.safetensors"
        self.start(checkpoint)
        written = checkpoint.read_bytes()
        arguments = {"module": linear(), "samples": blobs(16, 1), "validation": blobs(8, 2), "config": self.config}
        arguments = {**arguments, "seed": 0, **change}
        before = state(arguments["module"])  # type: ignore[arg-type]
        with pytest.raises(TrainingError, match=rf"run\.safetensors belongs to another run \(its {named} differ"):
            train(**arguments, checkpoint=checkpoint)  # type: ignore[arg-type]
        assert checkpoint.read_bytes() == written
        assert_same_state(state(arguments["module"]), before)  # type: ignore[arg-type]

    def test_checkpoint_error_names_every_difference(self, tmp_path: Path) -> None:
        checkpoint = tmp_path / "run.safetensors"
        self.start(checkpoint)
        with pytest.raises(TrainingError, match=r"its seed and data differ"):
            train(linear(), blobs(16, 5), blobs(8, 2), self.config, seed=1, checkpoint=checkpoint)

    def refused(self, checkpoint: Path, error: type[Exception] = KetFitError) -> None:
        """Assert that the file is refused by name and left unchanged."""
        written = checkpoint.read_bytes()
        with pytest.raises(error, match=checkpoint.name):
            train(linear(), blobs(16, 1), blobs(8, 2), self.config, seed=0, checkpoint=checkpoint)
        assert checkpoint.read_bytes() == written

    def test_model_file_as_checkpoint_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(linear().state_dict(), path)
        self.refused(path, TrainingError)

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04K\x01.", bytes(8), b"\xff" * 64, b"{}"])
    def test_random_bytes_as_checkpoint_are_refused(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "run.safetensors"
        path.write_bytes(content)
        self.refused(path, ModelFileError)

    def test_truncated_checkpoint_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "run.safetensors"
        self.start(path)
        content = path.read_bytes()
        for length in [*range(0, len(content), 97), len(content) - 1]:
            path.write_bytes(content[:length])
            self.refused(path, ModelFileError)

    @pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"run": 3}', "null"])
    def test_file_with_other_metadata_is_refused(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "run.safetensors"
        write_tensors(path, linear().state_dict(), {"checkpoint": text})
        self.refused(path)

    @pytest.mark.parametrize("fault", ["lost", "renamed", "reshaped", "not a part"])
    def test_checkpoint_with_other_tensors_is_refused(self, fault: str, tmp_path: Path) -> None:
        path = tmp_path / "run.safetensors"
        self.start(path)
        tensors, metadata = read_tensors(path)
        weight = tensors.pop("best.weight")
        if fault != "lost":
            name = {"renamed": "best.wait", "reshaped": "best.weight", "not a part": "worst.weight"}[fault]
            tensors[name] = weight[:1] if fault == "reshaped" else weight
        write_tensors(path, tensors, metadata)
        self.refused(path)

    def test_folder_as_checkpoint_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=f"cannot read {tmp_path}"):
            train(linear(), blobs(16, 1), None, self.config, seed=0, checkpoint=tmp_path)


class TestFaults:
    @pytest.mark.parametrize("cause", ["overflow", "nan"])
    def test_loss_that_is_not_finite_raises_training_error(self, cause: str, tmp_path: Path) -> None:
        samples = blobs(8, 1)
        if cause == "nan":
            samples.x[3, 1] = math.nan
        else:
            samples.x.mul_(1e308)
        checkpoint = tmp_path / "run.safetensors"
        with pytest.raises(TrainingError, match=r"the loss of epoch 0 is (nan|inf); lower the learning rate"):
            train(linear(), samples, None, TrainConfig(epochs=3), seed=0, checkpoint=checkpoint)
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("epochs", [1, 5])
    def test_validation_loss_that_is_not_finite_raises_training_error(self, epochs: int) -> None:
        # If it did not, no epoch would be better than the first, and its weights would come out without a word.
        held = blobs(8, 2)
        held.x.mul_(1e308)
        with pytest.raises(TrainingError, match=r"validation loss of epoch 0 is (nan|inf)"):
            train(linear(), blobs(8, 1), held, TrainConfig(epochs=epochs), seed=0)

    def test_huge_learning_rate_raises_training_error(self) -> None:
        samples, held = blobs(8, 1, dtype=torch.float32), blobs(8, 2, dtype=torch.float32)
        samples.x.mul_(100)
        for validation in (None, held):
            with pytest.raises(TrainingError, match="lower the learning rate"):
                train(linear().float(), samples, validation, TrainConfig(epochs=5, learning_rate=1e37), seed=0)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    @pytest.mark.parametrize("step", ["open", "replace", "fsync", "mkdir"])
    def test_checkpoint_that_cannot_be_written_raises_storage_error(
        self, step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = tmp_path / "run.safetensors"
        with pytest.raises(Interruption):  # stops before the second epoch; a checkpoint of the first is there
            train(fail_at(linear(), 1), blobs(8, 1), None, TrainConfig(epochs=4), seed=0, checkpoint=checkpoint)
        written = checkpoint.read_bytes()

        plain_open = Path.open

        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, "simulated")

        def refuse_to_write(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
            return plain_open(path, mode, *rest, **named) if mode in ("r", "rb") else refuse()

        with monkeypatch.context() as patch:
            target = "os.fsync" if step == "fsync" else f"pathlib.Path.{step}"
            patch.setattr(target, refuse_to_write if step == "open" else refuse)
            with pytest.raises(StorageError, match=r"cannot write .*run\.safetensors: simulated"):
                train(linear(), blobs(8, 1), None, TrainConfig(epochs=4), seed=0, checkpoint=checkpoint)
        assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"], "a temporary file is left"
        assert checkpoint.read_bytes() == written
        whole, module = linear(), linear()
        expected = train(whole, blobs(8, 1), None, TrainConfig(epochs=4), seed=0)
        assert train(module, blobs(8, 1), None, TrainConfig(epochs=4), seed=0, checkpoint=checkpoint) == expected
        assert_same_state(state(module), state(whole))

    def test_full_disk_raises_storage_error(
        self, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        checkpoint = tmp_path / "run.safetensors"
        with full_disk(100), pytest.raises(StorageError, match=r"cannot write .*run\.safetensors"):
            train(linear(), blobs(8, 1), None, TrainConfig(epochs=2), seed=0, checkpoint=checkpoint)
        assert not any(tmp_path.iterdir())

    def test_checkpoint_below_a_file_raises_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("I am not a folder")
        checkpoint = tmp_path / "file" / "run.safetensors"
        with pytest.raises(KetFitError, match=r"run\.safetensors"):
            train(linear(), blobs(8, 1), None, TrainConfig(epochs=1), seed=0, checkpoint=checkpoint)

    def test_checkpoint_with_a_long_name_raises_storage_error(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot write .*xxx: File name too long"):
            train(linear(), blobs(8, 1), None, TrainConfig(epochs=1), seed=0, checkpoint=tmp_path / ("x" * 300))


class TestProgress:
    @pytest.mark.parametrize("validated", [True, False])
    def test_progress_bar_prints_to_stderr_only(self, validated: bool, capsys: pytest.CaptureFixture[str]) -> None:
        held = blobs(8, 2) if validated else None
        train(linear(), blobs(8, 1), held, TrainConfig(epochs=3), seed=0, progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "3/3" in shown.err
        assert ("validation loss" if validated else "training loss") in shown.err

    def test_early_stop_ends_with_a_full_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        learned, held = blobs(8, 1), blobs(8, 2)
        against = Samples(held.x, 1 - held.y, held.weight)  # what is learned makes it worse here
        result = train(linear(), learned, against, TrainConfig(epochs=90, patience=1), seed=0, progress=True)
        done = len(result.history)
        assert done < 90
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{done}/{done}" in last
        assert f"stopped early, epoch {result.best_epoch} was the best" in last

    def test_run_without_progress_prints_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        train(linear(), blobs(8, 1), None, TrainConfig(epochs=3), seed=0)
        assert capsys.readouterr() == ("", "")

    def test_failed_training_closes_the_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(Interruption):
            train(fail_at(linear(), 2), blobs(8, 1), None, TrainConfig(epochs=3), seed=0, progress=True)
        assert capsys.readouterr().out == ""
        train(linear(), blobs(8, 1), None, TrainConfig(epochs=3), seed=0, progress=True)  # a live bar would refuse
        assert "3/3" in capsys.readouterr().err


def test_weights_that_are_not_finite_raise_training_error() -> None:
    # The loss is taken before a step, so that without validation samples nothing else would look at the last one.
    settings = TrainConfig(epochs=1, weight_decay=1e300)
    with pytest.raises(TrainingError, match="epoch 0 made weights that are not finite"):
        train(linear().float(), blobs(8, 1, dtype=torch.float32), None, settings, seed=0)
