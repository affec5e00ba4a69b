"""Training on folds: the common epoch, the temperature of all folds, and resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ketfit.errors import ModelFileError, StorageError, TrainingError
from ketfit.model.config import TrainConfig
from ketfit.training import cross_validation
from ketfit.training.calibration import fit_temperature
from ketfit.training.cross_validation import CrossValidation, FoldResult, train_fold
from ketfit.training.loop import Epoch, Samples, predict_logits, train

CONFIG = TrainConfig(epochs=6, learning_rate=0.5, batch_size=4, patience=1)


def samples(seed: int, size: int) -> Samples:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, generator=rng)
    return Samples(x, (x[:, 0] + torch.randn(size, generator=rng) > 0).long(), torch.rand(size, generator=rng) + 0.5)


def layer(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 2)


def fold(losses: list[float], accuracies: list[float] | None = None) -> FoldResult:
    accuracies = accuracies or [0.5] * len(losses)
    history = tuple(
        Epoch(number, 0.1, 1.0, loss, accuracy, accuracy)
        for number, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    )
    return FoldResult(history, samples(0, 3), None)


class TestCrossValidation:
    def test_best_epoch_has_the_best_mean_over_folds(self) -> None:
        losses = np.array([[3.0, 1.5, 1.0, 4.0], [0.5, 1.0, 4.0, 3.0], [4.0, 1.0, 2.0, 0.5]])
        cross = CrossValidation(tuple(fold(row.tolist()) for row in losses), "loss")
        assert cross.best_epoch == losses.mean(axis=0).argmin()
        np.testing.assert_allclose([epoch.validation_loss for epoch in cross.means], losses.mean(axis=0))
        assert cross.best_epoch not in losses.argmin(axis=1), "no fold chooses it alone"

    def test_best_epoch_is_the_first_among_equals(self) -> None:
        assert CrossValidation((fold([2.0, 1.0, 3.0]), fold([2.0, 3.0, 1.0])), "loss").best_epoch == 0

    def test_best_epoch_by_accuracy(self) -> None:
        folds = fold([1.0, 2.0, 3.0], [0.1, 0.5, 0.9]), fold([1.0, 2.0, 3.0], [0.2, 0.8, 0.3])
        assert CrossValidation(folds, "loss").best_epoch == 0
        assert CrossValidation(folds, "accuracy").best_epoch == 1

    def test_temperature_is_that_of_the_logits_of_all_folds(self) -> None:
        folds, parts = [], []
        for number in range(3):
            module, held = layer(number), samples(10 + number, 20)
            folds.append(train_fold(module, samples(number, 12), held, CONFIG, seed=0, keep_logits=True))
            parts.append(held)
        cross = CrossValidation(tuple(folds), "loss")
        logits = torch.cat([fold.logits[cross.best_epoch] for fold in folds if fold.logits is not None])
        y, weight = torch.cat([part.y for part in parts]), torch.cat([part.weight for part in parts])
        counts = weight * weight.sum() / (weight**2).sum()
        assert cross.temperature() == pytest.approx(fit_temperature(logits, y, counts))
        assert cross.size == 60


class TestTrainFold:
    def test_all_epochs_are_trained_without_patience(self) -> None:
        held = samples(1, 8)
        result = train_fold(layer(), samples(0, 12), held, CONFIG, seed=3, keep_logits=True)
        whole = train(layer(), samples(0, 12), held, CONFIG.updated(patience=None), seed=3)
        assert result.history == whole.history
        assert len(result.history) == 6
        module = layer()
        train(module, samples(0, 12), None, CONFIG, seed=3, epochs=2)
        assert result.logits is not None
        torch.testing.assert_close(result.logits[1], predict_logits(module, held.x, 4))
        assert train_fold(layer(), samples(0, 12), held, CONFIG, seed=3, keep_logits=False).logits is None

    def test_finished_fold_is_read_and_another_run_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: dict[str, Any] = {"seed": 3, "keep_logits": True, "checkpoint": tmp_path / "fold"}
        parts = samples(0, 12), samples(1, 8)
        first = train_fold(layer(), *parts, CONFIG, **given)
        monkeypatch.setattr(cross_validation, "train", lambda *_, **__: pytest.fail("it trained"))
        again = train_fold(layer(), *parts, CONFIG, **given)
        assert again.history == first.history
        assert torch.equal(again.logits, first.logits)  # type: ignore[arg-type]
        for change, named in (
            ({"seed": 4}, "seed"),
            ({"config": CONFIG.updated(learning_rate=0.1)}, "training settings"),
            ({"module": layer(1)}, "head"),
            ({"validation": samples(2, 8)}, "data"),
            ({"keep_logits": False}, "calibration"),
        ):
            arguments = {"module": layer(), "samples": parts[0], "validation": parts[1], "config": CONFIG}
            with pytest.raises(TrainingError, match=rf"belongs to a fold of another run \(its {named} differ\)"):
                train_fold(**{**arguments, **given, **change})

    def test_file_that_is_no_fold_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "fold"
        train(layer(), samples(0, 12), None, CONFIG, seed=0, checkpoint=path)
        with pytest.raises(TrainingError, match="is not a result of a fold; name another file or remove it"):
            train_fold(layer(), samples(0, 12), samples(1, 8), CONFIG, seed=0, keep_logits=False, checkpoint=path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ModelFileError, match="damaged"):
            train_fold(layer(), samples(0, 12), samples(1, 8), CONFIG, seed=0, keep_logits=False, checkpoint=path)

    def test_file_with_a_long_name_raises_storage_error(self, tmp_path: Path) -> None:
        path = tmp_path / ("x" * 300)
        with pytest.raises(StorageError, match="cannot write .*xxx: File name too long"):
            train_fold(layer(), samples(0, 12), samples(1, 8), CONFIG, seed=0, keep_logits=False, checkpoint=path)


class TestTrainEpochs:
    @pytest.mark.parametrize("schedule", ["constant", "cosine"])
    def test_training_stopped_after_epochs_is_the_start_of_the_whole(self, schedule: Any) -> None:
        config = CONFIG.updated(schedule=schedule)
        whole = train(layer(), samples(0, 12), None, config, seed=0)
        part = train(layer(), samples(0, 12), None, config, seed=0, epochs=3)
        assert part.history == whole.history[:3]
        assert part.best_epoch == 2

    def test_checkpoint_of_another_number_of_epochs_is_refused(self, tmp_path: Path) -> None:
        train(layer(), samples(0, 12), None, CONFIG, seed=0, checkpoint=tmp_path / "run")
        with pytest.raises(TrainingError, match="its training settings differ"):
            train(layer(), samples(0, 12), None, CONFIG, seed=0, checkpoint=tmp_path / "run", epochs=3)
